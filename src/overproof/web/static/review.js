"use strict";
// The review desk by keyboard: a row is shown only when the word on the one before it is kept.

document.addEventListener("DOMContentLoaded", () => {
  const desk = document.getElementById("desk");
  const el = (id) => document.getElementById(id);
  const bring = el("bring");
  if (bring) bring.addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = el("file").files[0];
    const found = await send(`${desk.dataset.base}/import`, { text: await file.text(), queue: bring.dataset.queue, rows: bring.dataset.rows, reviewer: el("reviewer").value.trim() });
    if (found) { say("said", `${file.name}: ${found.said}.`); window.scrollTo(0, 0); refill(true); }
  });
  if (!desk) return;
  const { base, queue, rows: whose, shown, kind } = desk.dataset;
  const find = el("find"), answer = el("answer"), name = el("reviewer");
  const visible = () => [...desk.querySelectorAll("#labels button")].filter((one) => !one.hidden);
  let list = [], at = 0, left = 0, said = [], began = 0, spent = 0, busy = false, last = false, asked = "";
  const seconds = () => (spent + (document.hidden ? 0 : performance.now() - began)) / 1000;
  const restart = () => { spent = 0; began = performance.now(); };
  document.addEventListener("visibilitychange", () => { if (document.hidden) spent += performance.now() - began; else began = performance.now(); });
  async function refill(fresh) {
    if (fresh) { list = []; at = 0; said = []; last = false; nothing("Fetching the rows."); }
    const me = asked = name.value.trim();
    const query = new URLSearchParams({ queue, rows: whose, reviewer: me, shown, all: list.length ? "1" : "" });
    let found;
    try {
      const got = await fetch(`${base}/rows?${query}`);
      if (got.status === 401) return location.assign("/ui/login");
      if (!got.headers.get("content-type").startsWith("application/json")) return nothing("This queue is not open here: choose another queue or other rows.");
      found = await got.json();
    } catch { return nothing("The server can't be reached. Nothing was lost: each word was kept before the next row was shown."); }
    if (me !== asked) return; // somebody else sits here by now
    const more = found.rows.filter((one) => !list.some((had) => had.digest === one.digest));
    last = more.length === 0;
    list.push(...more);
    left = found.left;
    if (found.working && !list.length) {
      nothing("Preparing: what the reviews so far teach is being learned. This page goes on by itself.");
      setTimeout(() => refill(false), 1500);
    } else if (at >= list.length) nothing(found.problem ? `${found.problem}.` : "Nothing is left to review here. Choose another queue.");
    else if (el("row").hidden) show();
    place();
  }
  function nothing(text) { el("row").hidden = true; el("empty").hidden = false; say("empty", text); }
  function place() { el("place").textContent = `${left.toLocaleString("en")} left${said.length ? `, ${said.length} said now` : ""}`; }
  function show(focus) {
    const one = list[at];
    if (!one) {
      nothing(last ? "Nothing is left to review here. Choose another queue." : "Fetching the rows.");
      return last ? null : refill(false);
    }
    el("empty").hidden = true;
    el("row").hidden = false;
    say("text", one.text);
    say("about", [...one.attributes, one.id].join(" · "));
    say("why", one.why ? (queue === "conflicts" ? one.why : `Why this row: ${one.why}.`) : "");
    say("teacher", one.said ? `The teacher says: ${one.said}` : "");
    say("before", one.word ? `✓ you said ${one.word}` : "");
    el("before").hidden = !one.word;
    if (find) find.value = "";
    if (answer) answer.reset();
    number();
    restart();
    if (focus) el("row").focus();
    if (list.length - at < 6 && !last && !busy) refill(false);
  }
  function number() {
    const wanted = find ? find.value.trim().toLowerCase() : "";
    let n = 0;
    for (const one of desk.querySelectorAll("#labels button")) {
      one.hidden = !one.dataset.label.toLowerCase().includes(wanted);
      if (!one.hidden) n += 1;
      one.querySelector("kbd").textContent = !one.hidden && n <= 9 ? String(n) : "";
    }
  }
  async function post(what, body) {
    busy = true;
    desk.toggleAttribute("data-busy", true);
    const found = await send(`${base}/${what}`, { queue, rows: whose, reviewer: name.value.trim(), ...body });
    busy = false;
    desk.toggleAttribute("data-busy", false);
    if (found) figures(found);
    return found;
  }
  async function keep(label) {
    const one = list[at];
    if (busy || !one || el("row").hidden) return;
    if (!name.value.trim()) { name.focus(); return say("failed", "Write your name first: each word is kept with it."); }
    const found = await post("word", { digest: one.digest, label, seconds: seconds(), shown: one.said !== "" });
    if (!found) return; // the row stays, with what went wrong above it
    if (!one.word) left = Math.max(0, left - 1);
    one.word = found.kept;
    said.push(at);
    say("said", `Kept: ${found.kept} for ${one.id}. ${left.toLocaleString("en")} left.`);
    at += 1;
    place();
    show(true);
  }
  async function undo() {
    if (busy) return;
    if (!said.length) return say("said", "Nothing to undo in this sitting.");
    const where = said[said.length - 1], one = list[where];
    const found = await post("undo", { digest: one.digest });
    if (!found) return;
    said.pop();
    one.word = "";
    left += 1;
    at = where;
    say("said", `Taken back: your word on ${one.id}.`);
    place();
    show(true);
  }
  function figures(found) {
    for (const one of document.querySelectorAll("[data-live]")) if (one.dataset.live in found) one.textContent = found[one.dataset.live].toLocaleString("en");
  }
  function move(by) { if (!busy && at + by >= 0) { at = Math.min(at + by, list.length); show(true); } }
  const acts = { back: () => move(-1), on: () => move(1), skip: () => move(1), undo, help: () => el("keys").showModal() };

  desk.addEventListener("click", (event) => {
    const one = event.target.closest("button");
    if (one && one.dataset.label) keep(one.dataset.label);
    else if (one && one.dataset.do) acts[one.dataset.do]();
  });
  if (find) find.addEventListener("input", number);
  if (answer) answer.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = fieldsOf(answer);
    keep(kind === "text" ? given.text : JSON.stringify(Object.fromEntries(Object.entries(given).map(([key, value]) => [key, value === "" ? null : value]))));
  });
  name.addEventListener("change", () => { localStorage.setItem("overproof.reviewer", name.value); if (name.value.trim() !== asked) refill(true); });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
    const typing = event.target.closest("input, textarea, select");
    if (typing) {
      if (event.key === "Escape") { typing.blur(); el("row").focus(); }
      if (typing === find && event.key === "Enter") { event.preventDefault(); const first = visible()[0]; if (first && find.value.trim()) keep(first.dataset.label); }
      if (typing === name && event.key === "Enter") { name.blur(); el("row").focus(); }
      if (kind === "text" && event.ctrlKey && event.key === "Enter") answer.requestSubmit();
      return;
    }
    if (event.ctrlKey) return;
    const act = { j: acts.on, k: acts.back, s: acts.skip, u: acts.undo, "?": acts.help }[event.key];
    const one = /^[1-9]$/.test(event.key) && !event.repeat ? visible()[Number(event.key) - 1] : null;
    const field = event.key === "/" ? find || (answer && answer.elements[0]) : null;
    if (!act && !one && !field) return;
    event.preventDefault(); // else a digit lands in the field for the name, where that is missing
    if (act) act();
    else if (one) keep(one.dataset.label);
    else field.focus();
  });
  refill(true);
});
