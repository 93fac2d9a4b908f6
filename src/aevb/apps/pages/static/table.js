// Cells of a table: a value with its interval, as a row of words and a bar.

import { el } from "./dom.js";

/** One row of a table for each cell; `extra` may add an element to a row. */
export function cellTable(cells, words, { surprise = false } = {}) {
  const head = [el("th", {}, words("column")), el("th", {}, words("value")), el("th", {}, words("interval"))];
  if (surprise) head.push(el("th", { className: "number" }, words("surprise")));
  const body = cells.map((cell) => el("tr", {}, el("td", {}, cell.name), el("td", {}, value(cell, words)), el("td", {}, range(cell)),
    surprise ? el("td", { className: "number" }, cell.surprise === null ? "" : cell.surprise.toFixed(1)) : null));
  return el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
}

function value(cell, words) {
  const text = cell.text ?? words("missing");
  return cell.filled ? el("em", { title: words("filled") }, text) : el("span", {}, text);
}

/** Where the value lies between all that training saw; for levels their probability, in words. */
export function range(cell) {
  if (cell.share !== null) return el("span", { className: "quiet" }, `${Math.round(100 * cell.share)} %`);
  if (cell.low === null) return el("span", {});
  const [low, at, high] = cell.at;
  const [bar, dot] = [el("i"), el("b")];
  Object.assign(bar.style, { left: `${100 * low}%`, width: `${100 * (high - low)}%` });
  dot.style.left = `${100 * at}%`;
  return el("div", { className: "range", title: cell.ends, role: "img", "aria-label": cell.ends }, bar, dot);
}
