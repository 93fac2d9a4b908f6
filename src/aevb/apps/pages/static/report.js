// The part of a report that can be touched: the map, the sliders, and what the decoder makes of them.

import { Network } from "./decoder.js";
import { fieldsOf, short } from "./values.js";

const content = JSON.parse(document.getElementById("content").textContent);
const decoder = JSON.parse(document.getElementById("decoder").textContent);
const network = decoder && new Network(decoder.network);
const { latent, map, classes, palette } = content;
const RAMP = ["#6a3fb5", "#3f6fc9", "#2a8f9f", "#37a871", "#8fbf3f", "#e8c31e"].map((hex) => hex.match(/\w\w/g).map((h) => parseInt(h, 16)));

const codes = halves(map.codes), D = latent.size, N = map.count;
const flat = Array.from({ length: N }, (_, i) => placed(codes.subarray(i * D, (i + 1) * D)));
const state = { z: start(), y: 0, row: -1, colour: map.colours[0] };

function start() {
  return Float32Array.from(latent.middle ?? map.plane.mean);
}

function halves(text) {
  const raw = atob(text), view = new DataView(Uint8Array.from(raw, (c) => c.charCodeAt(0)).buffer);
  return Float32Array.from({ length: raw.length / 2 }, (_, i) => {
    const h = view.getUint16(2 * i, true), e = (h >> 10) & 31, f = h & 1023;
    return (h & 0x8000 ? -1 : 1) * (e ? (1024 + f) * 2 ** (e - 25) : f * 2 ** -24);
  });
}

/** Where a code lies on the plane of the map. */
function placed(z) {
  return map.plane.axes.map((axis) => axis.reduce((sum, a, d) => sum + a * (z[d] - map.plane.mean[d]), 0));
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // strings become text, never markup
  return made;
}

// Decoding

function decoded() {
  const inputs = { z: state.z };
  if (classes.length) inputs.y = classes.map((_, c) => +(c === state.y));
  return network.run(inputs);
}

let waiting = false;

/** Draws once a frame, however often it is asked for. */
function refresh() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function draw() {
  drawMap();
  for (const slider of sliders) slider.follow();
  if (network) show(decoded());
  if (state.row >= 0) original();
  document.body.dataset.z = JSON.stringify([...state.z]);
}

// Pictures and fields

const scale = decoder?.form === "image" ? Math.max(1, Math.floor(176 / decoder.shape.at(-1))) : 1;
const face = element("canvas", { role: "img", "aria-label": "What the decoder makes of this point" });
const twin = element("canvas", { role: "img", "aria-label": "The nearest row of the data" });
const list = element("dl", { class: "fields" });

function show(out) {
  if (decoder.form === "image") paint(face, out.mean, decoder.shape, decoder.limits);
  else list.replaceChildren(...fieldsOf(decoder, out).map((one, i) => field({ ...one, twin: twinOf(one.name, i) })));
  document.body.dataset.decoded = JSON.stringify(Object.fromEntries(Object.entries(out).map(([k, v]) => [k, [...v]])));
}

function paint(canvas, x, shape, [low, high]) {
  const [h, w] = shape.slice(-2), channels = shape.length === 3 ? shape[0] : 1, colour = channels === 3;
  const image = new ImageData(w, h), n = h * w;
  for (let i = 0; i < n; i++)
    for (let c = 0; c < 3; c++) {
      let v = 0;
      if (colour) v = x[c * n + i];
      else for (let k = 0; k < channels; k++) v += x[k * n + i] / channels;
      image.data[4 * i + c] = Math.round((255 * (v - low)) / (high - low));
      image.data[4 * i + 3] = 255;
    }
  [canvas.width, canvas.height] = [w, h];
  canvas.style.width = `${w * scale}px`;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** The cell of the nearest row in this column. */
function twinOf(name, i) {
  const cells = map.cells?.[state.row];
  return cells && map.fields[i] === name ? `row ${state.row}: ${cells[i]}` : null;
}

function field({ name, text, low, high, shares, twin }) {
  const said = element("dd", {}, text);
  if (low && low !== high) said.append(element("small", {}, `90 %: ${low} to ${high}`));
  for (const [level, share] of (shares ?? []).slice(0, 3)) {
    if (share < 0.01) continue;
    const bar = element("em");
    bar.style.width = `${Math.round(100 * share)}%`;
    said.append(element("small", {}, `${level} ${Math.round(100 * share)} %`), bar);
  }
  if (twin) said.append(element("small", { class: "twin" }, twin));
  return element("div", {}, element("dt", { title: name }, name), said);
}

const thumbs = map.thumbs && Object.assign(new Image(), { src: map.thumbs.src, onload: refresh });

function original() {
  if (thumbs?.complete) {
    const [w, h] = map.thumbs.size, across = map.thumbs.columns;
    [twin.width, twin.height] = [w, h];
    twin.style.width = `${Math.max(w * 2, decoder?.form === "image" ? decoder.shape.at(-1) * scale : 200)}px`;
    twin.getContext("2d").drawImage(thumbs, (state.row % across) * w, Math.floor(state.row / across) * h, w, h, 0, 0, w, h);
  }
  const said = map.colours.filter((one) => one.levels || !map.cells).slice(0, 3).map((one) => told(one, state.row));
  caption.textContent = `Nearest ${map.side} row: ${[`row ${state.row}`, ...said].join(", ")}`;
  const cells = map.cells?.[state.row];
  if (cells && !network) list.replaceChildren(...map.fields.map((name, i) => field({ name, text: cells[i] })));
}

/** A number of a row in words: "KL, nats" becomes "KL 4.38 nats". */
function told(one, i) {
  const [name, unit] = one.name.split(", nats");
  return unit === "" ? `${name} ${named(one, i)} nats` : `${one.name} ${named(one, i)}`;
}

const named = (one, i) => (one.values[i] === null ? "missing" : one.levels ? one.levels[one.values[i]] : short(one.values[i]));
const caption = element("figcaption", {}, "");

// The map

const canvas = element("canvas", {
  tabindex: "0", role: "application", "aria-describedby": "hint",
  "aria-label": `Map of ${N} rows of the data by their latents. Arrow keys move the point that is decoded.`,
});
const box = bounds();

function bounds() {
  const of = (k) => flat.map((p) => p[k] ?? 0).sort((a, b) => a - b);
  return [0, 1].map((k) => {
    const sorted = of(k), low = sorted[Math.floor(0.002 * N)], high = sorted[Math.ceil(0.998 * (N - 1))];
    const room = 0.08 * (high - low) || 1;
    return [low - room, high + room];
  });
}

const across = ([x, y]) => [
  ((x - box[0][0]) / (box[0][1] - box[0][0])) * canvas.width,
  canvas.height - (((y ?? 0) - box[1][0]) / (box[1][1] - box[1][0])) * canvas.height,
];

function drawMap() {
  const ratio = window.devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = canvas;
  if (canvas.width !== Math.round(w * ratio)) [canvas.width, canvas.height] = [w, h].map((v) => Math.round(v * ratio));
  const ink = canvas.getContext("2d"), tint = colouring(state.colour);
  ink.clearRect(0, 0, canvas.width, canvas.height);
  ink.globalAlpha = N > 800 ? 0.7 : 0.85;
  for (let i = 0; i < N; i++) {
    const [x, y] = across(flat[i]);
    ink.fillStyle = tint(i);
    ink.beginPath();
    ink.arc(x, y, (N > 800 ? 2.4 : 3.2) * ratio, 0, 7);
    ink.fill();
  }
  ink.globalAlpha = 1;
  if (state.row >= 0) ring(ink, across(flat[state.row]), 6 * ratio, ratio);
  ring(ink, across(placed(state.z)), 10 * ratio, 2.5 * ratio);
}

function ring(ink, [x, y], radius, width) {
  const light = getComputedStyle(document.body);
  for (const [colour, extra] of [[light.getPropertyValue("--card"), 2 * width], [light.color, 0]]) {
    ink.strokeStyle = colour;
    ink.lineWidth = width + extra;
    ink.beginPath();
    ink.arc(x, y, radius, 0, 7);
    ink.stroke();
  }
}

function ends(one) {
  const known = one.values.filter((v) => v !== null).sort((a, b) => a - b);
  return [known[Math.floor(0.01 * known.length)] ?? 0, known[Math.ceil(0.99 * (known.length - 1))] ?? 1];
}

function ramp(t) {
  const at = Math.min(Math.max(t, 0), 1) * (RAMP.length - 1), i = Math.min(Math.floor(at), RAMP.length - 2);
  return `rgb(${RAMP[i].map((v, k) => Math.round(v + (at - i) * (RAMP[i + 1][k] - v))).join()})`;
}

function colouring(one) {
  if (!one) return () => palette[0];
  if (one.levels) return (i) => (one.values[i] === null ? "#8a919c" : palette[one.values[i] % palette.length]);
  const [low, high] = ends(one);
  return (i) => (one.values[i] === null ? "#8a919c" : ramp((one.values[i] - low) / (high - low || 1)));
}

function legend() {
  const one = state.colour, made = element("div", { class: "legend" });
  if (!one) return made;
  if (!one.levels) {
    const [low, high] = ends(one), strip = element("span", { class: "ramp" });
    strip.style.background = `linear-gradient(to right, ${[0, 0.2, 0.4, 0.6, 0.8, 1].map(ramp).join()})`;
    made.append(short(low), strip, short(high));
    return made;
  }
  const there = [...new Set(one.values)].filter((v) => v !== null).sort((a, b) => a - b);
  for (const v of there.slice(0, 24)) {
    const dot = element("i");
    dot.style.background = palette[v % palette.length];
    made.append(element("span", {}, dot, one.levels[v]));
  }
  return made;
}

/** Moves to a place on the map: on that plane, or to the nearest row where latents cannot be moved. */
function go(p) {
  state.row = nearest(p);
  const here = placed(state.z);
  if (latent.free) state.z = state.z.map((v, d) => v + map.plane.axes.reduce((sum, a, k) => sum + a[d] * (p[k] - here[k]), 0));
  else visit(state.row);
  refresh();
}

function visit(row) {
  state.row = row;
  state.z = codes.slice(row * D, (row + 1) * D);
  const label = map.colours.find((one) => one.name === "label");
  if (classes.length && label) state.y = Number(chooser.value = label.values[row]);
  refresh();
}

function nearest([x, y]) {
  let best = 0, least = Infinity;
  const [w, h] = box.map(([low, high]) => high - low);
  flat.forEach((p, i) => {
    const far = ((p[0] - x) / w) ** 2 + (((p[1] ?? 0) - y) / h) ** 2;
    if (far < least) [best, least] = [i, far];
  });
  return best;
}

function pointed(event) {
  const at = canvas.getBoundingClientRect(), t = [(event.clientX - at.left) / at.width, 1 - (event.clientY - at.top) / at.height];
  return t.map((v, k) => box[k][0] + v * (box[k][1] - box[k][0]));
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  const p = pointed(event), row = nearest(p), [x, y] = across(flat[row]), [px, py] = across(p);
  if (Math.hypot(px - x, py - y) < 6 * (window.devicePixelRatio || 1)) visit(row); // a row itself, with all its latents
  else go(p);
});
canvas.addEventListener("pointermove", (event) => { if (event.buttons) go(pointed(event)); });
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (!step) return;
  event.preventDefault();
  const here = latent.free ? placed(state.z) : flat[Math.max(0, state.row)];
  go(step.map((s, k) => (here[k] ?? 0) + (s * (box[k][1] - box[k][0])) / 40));
});

// Controls

const sliders = latent.free ? latent.order.slice(0, 24).map(slider) : [];

function slider(d) {
  const out = element("output"), input = element("input", {
    type: "range", min: latent.low[d], max: latent.high[d], step: (latent.high[d] - latent.low[d]) / 200 || 0.01, "data-latent": d,
  });
  const kl = latent.kl ? `, KL ${latent.kl[d].toFixed(2)}` : "";
  const label = element("label", {}, `${latent.names[d]}${kl}`, out, input);
  input.addEventListener("input", () => { state.z[d] = Number(input.value); refresh(); });
  return { label, follow: () => { input.value = state.z[d]; out.textContent = state.z[d].toFixed(2); } };
}

function choice(label, names, act) {
  const made = element("select", { "aria-label": label }, ...names.map((name, i) => element("option", { value: i }, name)));
  made.addEventListener("change", () => act(Number(made.value)));
  return made;
}

function button(text, act) {
  const made = element("button", { type: "button" }, text);
  made.addEventListener("click", act);
  return made;
}

const chooser = choice("class", classes, (c) => { state.y = c; refresh(); });
let key = legend();

function controls() {
  const colours = choice("colour", map.colours.map((one) => one.name), (i) => {
    state.colour = map.colours[i];
    const fresh = legend();
    key.replaceWith(fresh);
    key = fresh;
    refresh();
  });
  const bar = element("div", { class: "bar" }, element("label", {}, "Colour by ", colours));
  if (classes.length) bar.append(element("label", {}, "Class ", chooser));
  bar.append(button("A random row", () => visit(Math.floor(Math.random() * N))));
  if (latent.free) bar.append(button("Middle of the prior", () => { state.z = start(); refresh(); }));
  return bar;
}

function layout() {
  const stage = element("div", { class: "stage" }, canvas, key, element("p", { class: "note" }, `Axes: ${map.plane.name}.`));
  const right = element("div", {});
  const faces = element("div", { class: "faces" });
  if (decoder?.form === "image") faces.append(element("figure", {}, face, element("figcaption", {}, "Decoded")));
  if (map.thumbs) faces.append(element("figure", {}, twin, caption));
  if (!decoder) right.append(element("p", { class: "warn" }, content.why));
  right.append(faces);
  if (!map.thumbs) right.append(list, element("div", { class: "note" }, caption));
  if (sliders.length && network) stage.append(element("div", { class: "sliders" }, ...sliders.map((one) => one.label)));
  const whole = element("div", {}, controls(), element("div", { class: "touch" }, stage, right));
  document.getElementById("touch").replaceChildren(whole);
}

layout();
visit(0);
if (latent.free) state.z = codes.slice(0, D);
new ResizeObserver(refresh).observe(canvas);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
refresh();
