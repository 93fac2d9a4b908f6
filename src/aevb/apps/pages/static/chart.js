// Curves over a training: the number on its axis, and one line for each run and part.

import { el } from "./dom.js";

const [WIDE, TALL, ROOM] = [340, 150, 4];
const NS = "http://www.w3.org/2000/svg";
export const SPLIT = [["elbo", "curveElbo"], ["reconstruction", "curveRecon"], ["kl", "curveKl"]];

/** The points [samples, value] of one number in the records of a training; part: "train" or "validation". */
export function pointsOf(records, part, name) {
  return records.filter((r) => Number.isFinite(r[part]?.[name])).map((r) => [r.samples, r[part][name]]);
}

/** A titled chart. lines: [{points, colour, faint}]; the first tenth, where all is far off, may leave it below. */
export function chart(title, lines) {
  const all = lines.flatMap((line) => line.points);
  if (!all.length) return el("span");
  const ends = endsOf(all);
  const svg = made("svg", { viewBox: `0 0 ${WIDE} ${TALL}`, class: "curve", role: "img", "aria-label": title });
  for (const { points, colour, faint } of lines) {
    if (!points.length) continue;
    const d = `M${points.map((p) => at(p, ends)).join(" L")}`;
    svg.append(made("path", { d, stroke: colour, opacity: faint ? "0.45" : "1" }));
  }
  for (const [value, y] of [[ends[1][1], 12], [ends[1][0], TALL - 4]]) svg.append(words(short(value), y));
  return el("div", {}, el("h3", {}, title), svg);
}

function endsOf(all) {
  const [xs, ys] = [0, 1].map((k) => all.map((p) => p[k]));
  const late = Math.min(...xs) + (Math.max(...xs) - Math.min(...xs)) / 10;
  const settled = all.filter((p) => p[0] >= late).map((p) => p[1]);
  return [[Math.min(...xs), Math.max(...xs)], [Math.min(...(settled.length ? settled : ys)), Math.max(...ys)]];
}

function at([x, y], [[left, right], [low, high]]) {
  const across = (WIDE * (x - left)) / (right - left || 1);
  const up = TALL - ROOM - ((TALL - 2 * ROOM) * (Math.max(y, low) - low)) / (high - low || 1);
  return `${across.toFixed(1)} ${up.toFixed(1)}`;
}

function made(name, attributes) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function words(text, y) {
  const label = made("text", { x: 2, y });
  label.textContent = text;
  return label;
}

const short = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(1));
