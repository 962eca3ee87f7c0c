"use strict";
// The threshold explorer: the whole table came once, so that moving is instant. Without this script the form asks the server.

const STOP = { threshold: 0, n: 1, kept: 2, wrong: 3, share: 4, low: 5, high: 6, upper: 7, certified: 8, total: 9, totalLow: 10, totalHigh: 11 };
const byId = (id) => document.getElementById(id);
const put = (id, text) => { byId(id).textContent = text; };
const pct = (value, digits = 1) => `${(100 * value).toFixed(digits)}%`;
const whole = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 0 });

/** An amount with the digits that it has, as the server writes it. */
function amount(value) {
  if (value === 0 || Math.abs(value) >= 1) return value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  return value.toFixed(1 - Math.floor(Math.log10(Math.abs(value))));
}

function placeOf(stop) {
  if (stop[STOP.threshold] === null) return stop[STOP.kept] === 0 ? "answers nothing" : "each slice at its own";
  return stop[STOP.threshold] < 0 ? "answers everything" : `confidence ≥ ${stop[STOP.threshold].toFixed(4)}`;
}

function showCost(table, stop) {
  const volume = Number(byId("x-volume").value);
  if (table.teacher === null || !(volume > 0)) {
    put("x-cost", "not known");
    put("x-cost-iv", table.teacher === null ? "the teacher’s price is not known" : "no volume is known");
    return;
  }
  const cost = (kept) => (volume / 1000) * (table.student + (1 - kept) * table.teacher);
  put("x-cost", `${amount(cost(stop[STOP.total]))} USD`);
  put("x-cost-iv", `${amount(cost(stop[STOP.totalHigh]))}–${amount(cost(stop[STOP.totalLow]))} USD; the teacher alone ${amount((volume / 1000) * table.teacher)} USD`);
}

function showStop(table, move, at) {
  const stop = move.stops[at];
  const known = stop[STOP.upper] !== null;
  const certified = stop[STOP.certified] !== null;
  put("x-threshold", placeOf(stop));
  put("x-planned", at === move.planned ? "the plan’s own" : "moved away from the plan’s");
  put("x-share", pct(stop[STOP.share]));
  put("x-share-iv", `${(100 * stop[STOP.low]).toFixed(1)}–${pct(stop[STOP.high])}, n = ${whole(stop[STOP.n])} sealed rows`);
  put("x-total", pct(stop[STOP.total]));
  put("x-total-iv", `${(100 * stop[STOP.totalLow]).toFixed(1)}–${pct(stop[STOP.totalHigh])}${byId("x-total-iv").dataset.method}`);
  put("x-upper", known ? `≤ ${pct(stop[STOP.upper], 2)}` : "–");
  put("x-wrong", `${whole(stop[STOP.wrong])} of ${whole(table.of_all ? stop[STOP.n] : stop[STOP.kept])} seen; the plan admits ${pct(move.alpha, 2)}`);
  put("x-word", certified ? `✓ certified: at most ${pct(stop[STOP.certified], 2)}` : known ? "! not certified" : "nothing to bound");
  byId("x-word").className = `chip ${certified ? "pass" : "open"}`;
  byId("x-step").setAttribute("aria-valuetext", `${placeOf(stop)}; the student answers ${pct(stop[STOP.total])} of all traffic; ${byId("x-word").textContent}`);
  showCost(table, stop);
  const chart = byId("x-chart");
  const x = ((at * Number(chart.dataset.width)) / Math.max(1, move.stops.length - 1)).toFixed(1);
  for (const end of ["x1", "x2"]) byId("x-here").setAttribute(end, x);
}

function drawMove(move) {
  const chart = byId("x-chart");
  const [width, height] = [Number(chart.dataset.width), Number(chart.dataset.height)];
  const step = width / Math.max(1, move.stops.length - 1);
  const line = (field) => move.stops.map((stop, i) => (stop[field] === null ? "" : `${(i * step).toFixed(1)},${(height * (1 - stop[field])).toFixed(1)}`)).filter(Boolean).join(" ");
  byId("x-line-share").setAttribute("points", line(STOP.total));
  byId("x-line-bound").setAttribute("points", line(STOP.upper));
  for (const end of ["x1", "x2"]) byId("x-plan").setAttribute(end, (move.planned * step).toFixed(1));
  for (const end of ["y1", "y2"]) byId("x-alpha").setAttribute(end, (height * (1 - move.alpha)).toFixed(1));
}

async function explore() {
  const box = document.querySelector("[data-explore]");
  if (!box) return;
  const answer = await fetch(box.dataset.explore).catch(() => null);
  if (!answer || !answer.ok) return; // the form still asks the server
  const table = await answer.json();
  const [slider, select] = [byId("x-step"), byId("x-move")];
  const chosen = () => table.moves.find((one) => !select || one.name === select.value) || table.moves[0];
  const text = byId("x-total-iv").textContent;
  byId("x-total-iv").dataset.method = text.slice(text.indexOf(","));
  const show = () => showStop(table, chosen(), Number(slider.value));
  slider.addEventListener("input", show);
  byId("x-volume").addEventListener("input", show);
  if (select) {
    select.addEventListener("change", () => {
      const move = chosen();
      slider.max = String(move.stops.length - 1);
      slider.value = String(move.planned);
      drawMove(move);
      put("x-level", pct(move.level, 2));
      show();
    });
  }
  const by = byId("x-by");
  if (by) by.addEventListener("change", () => by.form.submit());
  byId("x-show").hidden = true;
  show();
}

document.addEventListener("DOMContentLoaded", explore);
