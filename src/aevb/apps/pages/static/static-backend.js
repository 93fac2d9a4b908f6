// The backend of a page without a server: it answers from what the page holds. Its methods are those of backend.js.

import { BackendError } from "./backend.js";
import { Network } from "./decoder.js";
import { traitsOf } from "./traits.js";
import { fieldsOf, stored, written } from "./values.js";

export class StaticBackend {
  /** content: what apps/export/web.py writes. */
  constructor(content) {
    this.content = content;
    this.network = content.decoder && new Network(content.decoder.network);
    this.below = (content.below ?? []).map((steps) => new Network(steps));
    this.codes = halves(content.codes);
    this.levels = content.pictures && bytes(content.pictures);
    const { size, n, shape } = content.about;
    Object.assign(this, { size, n, numbers: shape.reduce((a, b) => a * b, 1) });
  }

  async about() {
    return this.content.about;
  }

  async view(name) {
    if (this.content.views[name]) return this.content.views[name];
    const axes = name.split(",").map((d) => Array.from({ length: this.size }, (_, i) => +(i === Number(d))));
    return { origin: new Array(this.size).fill(0), axes };
  }

  code(i) {
    return this.codes.slice(i * this.size, (i + 1) * this.size);
  }

  async points(view) {
    const { origin, axes } = await this.view(view), xy = new Float32Array(2 * this.n);
    for (let i = 0; i < this.n; i++) {
      const z = this.code(i);
      for (const k of [0, 1]) xy[2 * i + k] = z.reduce((sum, v, d) => sum + (v - origin[d]) * axes[k][d], 0);
    }
    return { xy, total: this.n };
  }

  async colour(name, start) {
    return Float32Array.from(this.content.colours[name], (v) => v ?? NaN).subarray(start);
  }

  async decode(zs, y = null, layer = 0) {
    if (!this.network) throw new BackendError(this.content.why);
    const { about, decoder } = this.content;
    const found = [];
    for (const z of zs) {
      const out = this.network.run({ z: this.followed(z, y, layer), ...this.given(y) });
      found.push(about.kind === "table" ? { cells: cellsOf(decoder, out) } : { x: out.mean ?? out.mean0 });
      if (found.length % 12 === 0) await new Promise((done) => setTimeout(done)); // the page stays awake
    }
    return found;
  }

  /** A code whose layers below one are at their means, given those above. */
  followed(z, y, layer) {
    const down = this.below.slice(0, layer).reverse();
    return down.reduce((code, network) => network.run({ z: code, ...this.given(y) }).z, z);
  }

  /** The class as the network reads it, one-hot. */
  given(y) {
    const input = this.content.decoder.network.inputs.y, first = this.content.about.classes[0]?.number ?? 0;
    return input ? { y: Array.from({ length: input[1][1] }, (_, c) => +(c === (y ?? first))) } : {};
  }

  picture(i) {
    const [low, high] = this.content.about.limits, part = this.levels.subarray(i * this.numbers, (i + 1) * this.numbers);
    return Float32Array.from(part, (q) => low + (q / 255) * (high - low));
  }

  async thumbnails(indices) {
    return indices.map((i) => this.picture(i));
  }

  async point(i) {
    const row = this.content.rows[i], z = Array.from(this.code(i)), found = { index: i, z, ...row };
    found.neighbours = this.nearest(z, 7).filter((k) => k !== i).slice(0, 6);
    if (row.cells) return found;
    const [{ x }] = this.network ? await this.decode([z], row.y) : [{ x: this.picture(i) }];
    return { ...found, x: this.picture(i), reconstruction: x };
  }

  nearest(z, most) {
    const far = Array.from({ length: this.n }, (_, i) => [this.code(i).reduce((sum, v, d) => sum + (v - z[d]) ** 2, 0), i]);
    return far.sort((a, b) => a[0] - b[0]).slice(0, most).map(([, i]) => i);
  }

  async sample(temperature) {
    const { draws, centre } = this.content, one = draws[Math.floor(Math.random() * draws.length)];
    return { z: one.map((v, d) => centre[d] + temperature * (v - centre[d])) };
  }

  async walk(zs, how, steps) {
    const along = how === "spherical" ? arc : line, legs = zs.length - 1, z = [];
    for (let leg = 0; leg < legs; leg++)
      for (let i = leg ? 1 : 0; i < steps; i++) z.push(along(zs[leg], zs[leg + 1], i / (steps - 1)));
    return { z };
  }

  async selection(indices) {
    const mean = new Array(this.size).fill(0), counts = new Map();
    for (const i of indices) {
      this.code(i).forEach((v, d) => { mean[d] += v / indices.length; });
      const { label } = this.content.rows[i];
      if (label != null) counts.set(label, (counts.get(label) ?? 0) + 1);
    }
    const labels = [...counts].sort((a, b) => b[1] - a[1]).map(([name, n]) => ({ name, n }));
    return { n: indices.length, mean, labels, traits: this.traits(indices) };
  }

  /** The columns of a table, else the latents, that differ most from those of the other points. */
  traits(indices) {
    const { about, colours } = this.content, chosen = new Set(indices);
    const kind = about.kind === "table" ? "column:" : "latent:";
    const columns = about.colours.filter(({ name }) => name.startsWith(kind));
    const inside = Array.from({ length: this.n }, (_, i) => chosen.has(i));
    return traitsOf(columns.map(({ name, title, names }) => ({ name: title, names, values: colours[name] })), inside);
  }

  async export(indices) {
    const labelled = this.content.rows.some((row) => row.label != null), cells = this.content.rows[0]?.cells ?? [];
    const codes = Array.from({ length: this.size }, (_, d) => `z${d + 1}`);
    const head = ["split", "row", ...(labelled ? ["label"] : []), ...codes, ...cells.map((cell) => cell.name)].map(quoted);
    const lines = indices.map((i) => {
      const { part, name, label, cells: own } = this.content.rows[i];
      const known = (own ?? []).map((cell) => (cell.filled ? "" : cell.text ?? ""));
      return [part, name, ...(labelled ? [label ?? ""] : []), ...this.code(i), ...known].map(quoted).join(",");
    });
    return new Blob([`${[head.join(","), ...lines].join("\n")}\n`], { type: "text/csv" });
  }
}

function quoted(value) {
  const text = String(value), plain = /^-?\d{1,3}(,\d{3})+$/.test(text) ? text.replaceAll(",", "") : text;
  const formula = /^[=+\-@\t\r]/.test(plain) && Number.isNaN(Number(plain)), safe = formula ? `'${plain}` : plain;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function line(a, b, t) {
  return a.map((v, d) => v + t * (b[d] - v));
}

function arc(a, b, t) {
  const norm = (z) => Math.hypot(...z), dot = a.reduce((sum, v, d) => sum + v * b[d], 0);
  const angle = Math.acos(Math.min(1, Math.max(-1, dot / (norm(a) * norm(b) || 1))));
  if (angle < 1e-6 || Math.PI - angle < 1e-6) return line(a, b, t);
  const [p, q] = [Math.sin((1 - t) * angle), Math.sin(t * angle)].map((v) => v / Math.sin(angle));
  const length = (1 - t) * norm(a) + t * norm(b);
  return a.map((v, d) => length * ((p * v) / norm(a) + (q * b[d]) / norm(b)));
}

/** Cells as the server gives them. */
function cellsOf(decoder, out) {
  return fieldsOf(decoder, out).map(({ name, text, shares }, i) => {
    const column = decoder.columns[i], at = (which) => out[which + column.group]?.[column.place];
    if (shares) {
      const level = column.levels.indexOf(text), end = Math.max(1, column.levels.length - 1);
      return { name, text, value: level, low: null, high: null, share: shares[0][1], at: [0, level / end, 0], ends: "" };
    }
    const number = (which) => (at(which) === undefined ? null : stored(column, at(which)));
    const [low, middle, high] = [number("low"), number("median") ?? number("mean"), number("high")];
    const within = (v) => Math.min(1, Math.max(0, ((v ?? middle) - (column.low ?? 0)) / ((column.high ?? 1) - (column.low ?? 0) || 1)));
    const ends = low === null ? "" : `${written(column, at("low"))} – ${written(column, at("high"))}`;
    return { name, text, value: middle, low, high, share: null, at: [low, middle, high].map(within), ends };
  });
}

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

function halves(text) {
  const view = new DataView(bytes(text).buffer);
  return Float32Array.from({ length: view.byteLength / 2 }, (_, i) => {
    const h = view.getUint16(2 * i, true), e = (h >> 10) & 31, f = h & 1023;
    return (h & 0x8000 ? -1 : 1) * (e ? (1024 + f) * 2 ** (e - 25) : f * 2 ** -24);
  });
}
