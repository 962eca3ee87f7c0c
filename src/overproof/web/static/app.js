"use strict";
// What every page does: send forms as JSON, ask before what can't be undone, follow figures, keep the theme.
// Texts enter the page by textContent alone.

const token = () => document.querySelector('meta[name="overproof-token"]').content;
const say = (id, text) => { document.getElementById(id).textContent = text; };

/** Send a JSON body; resolves to the answer's object, or shows what went wrong and resolves to null. */
async function send(path, body) {
  say("failed", "");
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json", "x-overproof-token": token() }, body: JSON.stringify(body) });
  } catch {
    say("failed", "The server can't be reached. Nothing was changed.");
    return null;
  }
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  const problem = found.error || {};
  say("failed", `${problem.message || "That did not work"}.${problem.next ? ` Next: ${problem.next}.` : ""}`);
  return null;
}

/** Ask before what others will notice; resolves to true for yes. */
function sure(text) {
  const box = document.getElementById("sure");
  say("sure-text", text);
  box.returnValue = "no";
  box.showModal();
  return new Promise((done) => box.addEventListener("close", () => done(box.returnValue === "yes"), { once: true }));
}

function fieldsOf(form) {
  const found = {};
  for (const one of form.elements) {
    if (!one.name || one.disabled) continue;
    if (one.type === "checkbox") found[one.name] = one.checked;
    else if (one.type !== "radio" || one.checked) found[one.name] = one.type === "number" ? Number(one.value) : one.value;
  }
  return found;
}

async function sent(event) {
  const form = event.target.closest("form[data-send]");
  if (!form) return;
  event.preventDefault();
  if (form.dataset.sure && !(await sure(form.dataset.sure))) return;
  const button = form.querySelector("button.main");
  button.disabled = true;
  const found = await send(form.dataset.send, fieldsOf(form));
  button.disabled = false;
  if (!found) return;
  for (const one of form.querySelectorAll("[data-keep]")) localStorage.setItem(`overproof.${one.dataset.keep}`, one.value);
  if (found.said) sessionStorage.setItem("overproof.said", found.said);
  location.assign(found.next || form.dataset.next || location.href);
}

/** Names that a person types once: kept in this browser. */
function remembered() {
  for (const one of document.querySelectorAll("[data-keep]")) {
    if (!one.value) one.value = localStorage.getItem(`overproof.${one.dataset.keep}`) || "";
  }
  const text = sessionStorage.getItem("overproof.said");
  if (text) { say("said", text); sessionStorage.removeItem("overproof.said"); }
}

/** Every few seconds, while somebody looks: new texts for what the page marked with data-live. */
async function follow() {
  if (document.visibilityState === "visible") {
    try {
      const answer = await fetch(location.href, { headers: { "x-overproof-live": "1" } });
      if (answer.ok) {
        const found = await answer.json();
        for (const one of document.querySelectorAll("[data-live]")) {
          const text = found[one.dataset.live];
          if (text !== undefined && text !== one.textContent) { one.textContent = text; one.classList.add("changed"); }
        }
        document.dispatchEvent(new CustomEvent("overproof-live", { detail: found }));
      }
    } catch { /* the server is away: the page stays as it is, and asks again */ }
  }
  setTimeout(follow, 5000);
}

function theme(set) {
  const root = document.documentElement;
  if (set) localStorage.setItem("overproof.theme", set);
  const wanted = localStorage.getItem("overproof.theme");
  if (wanted) root.dataset.theme = wanted;
}

theme();
document.addEventListener("submit", sent);
document.addEventListener("DOMContentLoaded", () => {
  remembered();
  document.getElementById("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    theme(now === "dark" ? "light" : "dark");
  });
  const leave = document.getElementById("leave");
  if (leave) leave.addEventListener("click", async () => { if (await send("/ui/logout", {})) location.assign("/ui/login"); });
  if (document.body.hasAttribute("data-follow")) setTimeout(follow, 5000);
});
