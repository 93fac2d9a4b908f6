// What some points share: the columns that differ most from those of the other points, as use/cards.py finds them.

import { short } from "./values.js";

/**
 * [{name, value, rest}], the largest difference first. columns: [{name, values, names}], of each point a number, or the
 * number of one of `names`; null where missing. inside: for each point whether it is chosen.
 */
export function traitsOf(columns, inside, most = 8) {
  const found = columns.flatMap((column) => traits(column, inside));
  return found.sort((a, b) => Math.abs(b.difference) - Math.abs(a.difference)).slice(0, most);
}

function traits({ name, values, names }, inside) {
  const known = (mine) => values.filter((v, i) => v !== null && inside[i] === mine);
  const [a, b] = [known(true), known(false)], made = [];
  if (a.length) made.push(names?.length ? frequent(name, a, b, names) : average(name, a, b));
  if (a.length + b.length < values.length && a.length + b.length && inside.includes(false)) made.push(holes(name, values, inside));
  return made;
}

function average(name, a, b) {
  const [here, rest] = [mean(a), mean(b)], all = [...a, ...b], middle = mean(all);
  const sd = Math.sqrt(mean(all.map((v) => (v - middle) ** 2)));
  return { name, value: short(here), rest: b.length ? short(rest) : "", difference: b.length && sd ? (here - rest) / sd : 0 };
}

function frequent(name, a, b, names) {
  const counts = new Map();
  for (const v of a) counts.set(v, (counts.get(v) ?? 0) + 1);
  const [code, n] = [...counts].sort((p, q) => q[1] - p[1] || p[0] - q[0])[0];
  return shares(name, names[code] ?? String(code), n / a.length, b.length ? b.filter((v) => v === code).length / b.length : null);
}

function holes(name, values, inside) {
  const share = (mine) => mean(values.filter((_, i) => inside[i] === mine).map((v) => +(v === null)));
  return shares(name, "(missing)", share(true), share(false));
}

function shares(name, value, here, rest) {
  const percent = (v) => `${Math.round(100 * v)}%`;
  return { name, value: `${value} ${percent(here)}`, rest: rest === null ? "" : percent(rest), difference: rest === null ? 0 : here - rest };
}

const mean = (numbers) => numbers.reduce((sum, v) => sum + v, 0) / numbers.length;
