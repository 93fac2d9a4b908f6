// Points in the plane, on a WebGL2 canvas, or a 2D one where there is none: zoom, pan, hover, lasso, thumbnails.

import { css } from "./picture.js";

const NEAR = 14; // pixels within which the pointer finds a point
const THUMBNAILS = 160; // visible points, at or below which they are shown as pictures
const ROUND = 5000; // points that are drawn round where there is no WebGL2; more are squares
const SIDE = 40; // pixels of such a picture, at most
const POINTS = `#version 300 es
in vec2 at; in vec3 colour; in float picked;
uniform vec2 centre, scale; uniform float size, dimmed, lift;
out vec4 shade;
void main() {
  gl_Position = vec4((at - centre) * scale, 0.0, 1.0);
  gl_PointSize = size * (picked > 0.5 ? 1.35 : 1.0);
  shade = vec4(mix(colour, vec3(1.0), lift), dimmed > 0.5 && picked < 0.5 ? 0.13 : 0.85);
}`;
const DISC = `#version 300 es
precision mediump float;
in vec4 shade; out vec4 painted;
uniform vec3 rim;
void main() {
  float far = length(gl_PointCoord - 0.5) * 2.0;
  if (far > 1.0) discard;
  painted = vec4(mix(shade.rgb, rim, smoothstep(0.66, 0.78, far)), shade.a * smoothstep(1.0, 0.85, far));
}`;

/** The points' canvas: WebGL2. */
class Gl {
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: true, premultipliedAlpha: false });
    if (!gl) throw new Error("no WebGL2");
    Object.assign(this, { canvas, gl, n: 0, rim: [1, 1, 1] });
    this.program = program(gl);
    gl.useProgram(this.program);
    this.buffers = Object.fromEntries(
      [["at", 2, gl.FLOAT], ["colour", 3, gl.UNSIGNED_BYTE], ["picked", 1, gl.UNSIGNED_BYTE]].map((b) => [b[0], this.buffer(...b)]),
    );
    gl.enable(gl.BLEND);
    gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  buffer(name, size, type) {
    const { gl } = this;
    const made = gl.createBuffer();
    const place = gl.getAttribLocation(this.program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, size, type, name === "colour", 0, 0);
    return made;
  }

  put(name, numbers) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, numbers, gl.DYNAMIC_DRAW);
  }

  set(data) {
    this.n = data.xy.length / 2;
    this.put("at", data.xy);
    this.put("colour", data.rgb);
    this.put("picked", data.picked);
  }

  draw(view, size, dimmed) {
    const { gl, canvas } = this;
    const uniform = (name) => gl.getUniformLocation(this.program, name);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const ratio = canvas.width / view.width;
    gl.uniform2f(uniform("centre"), view.x, view.y);
    gl.uniform2f(uniform("scale"), (2 * view.zoom) / view.width, (2 * view.zoom) / view.height);
    gl.uniform1f(uniform("size"), size * ratio);
    gl.uniform1f(uniform("dimmed"), dimmed ? 1 : 0);
    gl.uniform3f(uniform("rim"), ...this.rim);
    gl.uniform1f(uniform("lift"), this.rim[0] < 0.5 ? 0.28 : 0); // on a dark ground colours are lighter
    if (this.n) gl.drawArrays(gl.POINTS, 0, this.n);
  }
}

function program(gl) {
  const made = gl.createProgram();
  for (const [type, text] of [[gl.VERTEX_SHADER, POINTS], [gl.FRAGMENT_SHADER, DISC]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error("no WebGL2");
  return made;
}

/** The points' canvas where there is no WebGL2. */
class Flat {
  constructor(canvas) {
    this.canvas = canvas;
    this.g = canvas.getContext("2d");
  }

  set(data) {
    this.data = data;
  }

  draw(view, size, dimmed) {
    const { g, canvas, data } = this;
    const ratio = canvas.width / view.width;
    g.clearRect(0, 0, canvas.width, canvas.height);
    if (!data) return;
    const n = data.xy.length / 2, wide = Math.max(1.5, size * 0.7) * ratio;
    for (let i = 0; i < n; i++) {
      const x = ((data.xy[2 * i] - view.x) * view.zoom + view.width / 2) * ratio;
      const y = ((view.y - data.xy[2 * i + 1]) * view.zoom + view.height / 2) * ratio;
      g.globalAlpha = dimmed && !data.picked[i] ? 0.13 : 0.85;
      g.fillStyle = css([data.rgb[3 * i], data.rgb[3 * i + 1], data.rgb[3 * i + 2]]);
      if (n > ROUND) g.fillRect(x - wide / 2, y - wide / 2, wide, wide);
      else this.disc(x, y, wide / 2);
    }
    g.globalAlpha = 1;
  }

  disc(x, y, radius) {
    this.g.beginPath();
    this.g.arc(x, y, radius, 0, 2 * Math.PI);
    this.g.fill();
  }
}

/** Which points are near a place: a grid of cells over all of them. */
class Grid {
  constructor(xy) {
    this.xy = xy;
    this.n = xy.length / 2;
    [this.low, this.high] = ends(xy);
    this.side = Math.max(1, Math.ceil(Math.sqrt(this.n / 4)));
    this.step = [0, 1].map((k) => (this.high[k] - this.low[k]) / this.side || 1);
    this.cells = new Map();
    for (let i = 0; i < this.n; i++) {
      const key = this.key(...this.cell(xy[2 * i], xy[2 * i + 1]));
      if (!this.cells.has(key)) this.cells.set(key, []);
      this.cells.get(key).push(i);
    }
  }

  cell(x, y) {
    return [x, y].map((v, k) => Math.min(this.side - 1, Math.max(0, Math.floor((v - this.low[k]) / this.step[k]))));
  }

  key(a, b) {
    return a * this.side + b;
  }

  /** All points in a rectangle, or null if there are more than `most`. */
  within(low, high, most = Infinity) {
    const [a, b] = [this.cell(...low), this.cell(...high)];
    const found = [];
    for (let u = a[0]; u <= b[0]; u++) {
      for (let v = a[1]; v <= b[1]; v++) {
        for (const i of this.cells.get(this.key(u, v)) || []) {
          const [x, y] = [this.xy[2 * i], this.xy[2 * i + 1]];
          if (x >= low[0] && x <= high[0] && y >= low[1] && y <= high[1]) found.push(i);
        }
        if (found.length > most) return null;
      }
    }
    return found;
  }

  nearest(x, y, reach) {
    let [best, least] = [-1, reach * reach];
    for (const i of this.within([x - reach, y - reach], [x + reach, y + reach])) {
      const far = (this.xy[2 * i] - x) ** 2 + (this.xy[2 * i + 1] - y) ** 2;
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }
}

function ends(xy) {
  const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
  for (let i = 0; i < xy.length; i++) {
    low[i % 2] = Math.min(low[i % 2], xy[i]);
    high[i % 2] = Math.max(high[i % 2], xy[i]);
  }
  return [low, high];
}

/**
 * A map in an element. Events of it, on `map.on`: move(u, v), leave(), hover(i), pick(i, u, v), lasso(indices), view().
 * `mode` is "look", in which dragging pans, or "lasso", in which it draws.
 */
export class LatentMap {
  constructor(element, on = {}, { flat = false } = {}) {
    Object.assign(this, { element, on, mode: "look", xy: new Float32Array(0), rgb: new Uint8Array(0), colours: new Uint8Array(0) });
    this.picked = new Uint8Array(0);
    this.view = { x: 0, y: 0, zoom: 60, width: 1, height: 1 };
    Object.assign(this, { marks: [], path: null, ring: null, ellipse: null, backdrop: null, thumbs: new Map(), cursor: null });
    this.some = false;
    this.hovered = -1;
    this.layers();
    this.points = flat ? new Flat(this.canvases[1]) : this.best(this.canvases[1]);
    this.listen();
    new ResizeObserver(() => this.resize()).observe(element);
    this.resize();
  }

  best(canvas) {
    try {
      return new Gl(canvas);
    } catch {
      const other = canvas.cloneNode();
      canvas.replaceWith(other);
      this.canvases[1] = other;
      return new Flat(other);
    }
  }

  layers() {
    this.element.classList.add("map");
    this.element.tabIndex = 0;
    this.canvases = ["backdrop", "points", "overlay"].map((name) => {
      const canvas = document.createElement("canvas");
      canvas.className = name;
      canvas.setAttribute("aria-hidden", "true");
      this.element.append(canvas);
      return canvas;
    });
  }

  resize() {
    const { clientWidth: w, clientHeight: h } = this.element;
    if (!w || !h) return;
    const ratio = window.devicePixelRatio || 1;
    const first = this.view.width <= 1;
    const grown = first ? 1 : Math.min(w / this.view.width, h / this.view.height);
    Object.assign(this.view, { width: w, height: h, zoom: this.view.zoom * grown });
    for (const canvas of this.canvases) Object.assign(canvas, { width: w * ratio, height: h * ratio });
    if (first) this.fit(); // points may have come before there was room for them
    this.redraw(true);
  }

  // Data

  setPoints(xy) {
    this.xy = xy;
    this.rgb = longer(this.colours, 1.5 * xy.length, 140);
    this.picked = longer(this.picked, xy.length / 2, 0);
    this.grid = new Grid(xy);
    this.upload();
  }

  /** Colours of all points, also of those that are still to come. */
  setColours(rgb) {
    this.colours = rgb;
    this.rgb = longer(rgb, 1.5 * this.xy.length, 140);
    this.upload();
  }

  select(indices) {
    this.picked.fill(0);
    for (const i of indices) this.picked[i] = 1;
    this.some = indices.length > 0;
    this.upload();
  }

  upload() {
    this.points.set(this);
    this.redraw(false, true);
  }

  /** Show all points; a percentile at each side may be cut off. */
  fit() {
    if (!this.xy.length) return;
    const sorted = [0, 1].map((k) => this.xy.filter((_, i) => i % 2 === k).sort());
    const at = (k, share) => sorted[k][Math.floor(share * (sorted[k].length - 1))];
    const [low, high] = [0.003, 0.997].map((s) => [at(0, s), at(1, s)]);
    this.view.x = (low[0] + high[0]) / 2;
    this.view.y = (low[1] + high[1]) / 2;
    const room = [this.view.width, this.view.height].map((size, k) => (0.9 * size) / (high[k] - low[k] || 1));
    this.view.zoom = Math.min(...room);
    this.redraw(true);
  }

  // Places

  toScreen(u, v) {
    const { x, y, zoom, width, height } = this.view;
    return [(u - x) * zoom + width / 2, (y - v) * zoom + height / 2];
  }

  toPlane(px, py) {
    const { x, y, zoom, width, height } = this.view;
    return [(px - width / 2) / zoom + x, y - (py - height / 2) / zoom];
  }

  corners() {
    const { width, height } = this.view;
    return [this.toPlane(0, height), this.toPlane(width, 0)];
  }

  visible(most) {
    return this.grid ? this.grid.within(...this.corners(), most) : [];
  }

  zoomAt(px, py, factor) {
    const [u, v] = this.toPlane(px, py);
    this.view.zoom = Math.min(1e5, Math.max(2, this.view.zoom * factor));
    const [a, b] = this.toPlane(px, py);
    this.view.x += u - a;
    this.view.y += v - b;
    this.redraw(true);
  }

  // What the hand does

  listen() {
    const { element } = this;
    this.pointers = new Map();
    element.addEventListener("pointerdown", (e) => this.down(e));
    element.addEventListener("pointermove", (e) => this.moved(e));
    for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, (e) => this.up(e));
    element.addEventListener("pointerleave", () => this.left());
    element.addEventListener("wheel", (e) => {
      e.preventDefault();
      this.zoomAt(...this.place(e), Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0015)));
    }, { passive: false });
    element.addEventListener("dblclick", () => this.fit());
    element.addEventListener("keydown", (e) => this.key(e));
  }

  place(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (event.target.closest("button, select, input")) return;
    this.element.setPointerCapture(event.pointerId);
    const at = this.place(event);
    this.pointers.set(event.pointerId, at);
    this.start = { at, moved: false };
    if (this.mode === "lasso" && this.pointers.size === 1) this.ring = [this.toPlane(...at)];
  }

  moved(event) {
    const at = this.place(event);
    const last = this.pointers.get(event.pointerId);
    if (last) this.dragged(event, at, last);
    if (!last || event.pointerType !== "mouse") this.pointed(at);
  }

  dragged(event, at, last) {
    if (Math.hypot(at[0] - this.start.at[0], at[1] - this.start.at[1]) > 4) this.start.moved = true;
    const others = [...this.pointers.entries()].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
    this.pointers.set(event.pointerId, at);
    if (others.length) return this.pinched(at, last, others[0]);
    if (this.ring) this.ring.push(this.toPlane(...at));
    else if (event.pointerType === "mouse") this.pan(at[0] - last[0], at[1] - last[1]);
    return this.redraw();
  }

  pinched(at, last, other) {
    const far = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
    this.ring = null;
    this.pan((at[0] - last[0]) / 2, (at[1] - last[1]) / 2);
    this.zoomAt((at[0] + other[0]) / 2, (at[1] + other[1]) / 2, far(at) / (far(last) || 1));
  }

  pan(dx, dy) {
    this.view.x -= dx / this.view.zoom;
    this.view.y += dy / this.view.zoom;
    this.redraw(true);
  }

  pointed(at) {
    const [u, v] = this.toPlane(...at);
    this.cursor = [u, v];
    this.on.move?.(u, v);
    this.hover(this.grid ? this.grid.nearest(u, v, NEAR / this.view.zoom) : -1);
    this.redraw();
  }

  hover(i) {
    if (i === this.hovered) return;
    this.hovered = i;
    this.on.hover?.(i);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId) || this.pointers.size) return;
    const ring = this.ring;
    this.ring = null;
    if (ring && ring.length > 8) this.on.lasso?.(this.inside(ring));
    else if (!this.start.moved) this.clicked(this.start.at);
    this.redraw();
  }

  clicked(at) {
    const [u, v] = this.toPlane(...at);
    this.cursor = [u, v];
    this.on.move?.(u, v);
    this.on.pick?.(this.grid ? this.grid.nearest(u, v, NEAR / this.view.zoom) : -1, u, v);
  }

  left() {
    if (this.pointers.size) return;
    this.hover(-1);
    this.on.leave?.();
    this.redraw();
  }

  key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey) return;
    const step = event.shiftKey ? 40 : 8;
    const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const middle = [this.view.width / 2, this.view.height / 2];
    if (event.key in steps) this.stepped(steps[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoomAt(...middle, 1.25);
    else if (event.key === "-") this.zoomAt(...middle, 0.8);
    else if (event.key === "0") this.fit();
    else if (event.key === "Enter" || event.key === " ") this.clicked(this.toScreen(...(this.cursor || this.toPlane(...middle))));
    else return;
    event.preventDefault();
  }

  stepped([dx, dy]) {
    const at = this.cursor ? this.toScreen(...this.cursor) : [this.view.width / 2, this.view.height / 2];
    this.pointed([at[0] + dx, at[1] + dy]);
  }

  inside(ring) {
    const [low, high] = ends(ring.flat());
    return this.grid.within(low, high).filter((i) => within(ring, this.xy[2 * i], this.xy[2 * i + 1]));
  }

  // What is seen

  /** Draw in the next frame: what is above the points; the points and what is behind them only if they are stale. */
  redraw(changed = false, stale = changed) {
    this.changed ||= changed;
    this.stale ||= stale;
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      const { changed, stale } = this;
      Object.assign(this, { waiting: false, changed: false, stale: false });
      if (stale) this.ground();
      this.overlay();
      if (changed) this.on.view?.();
    });
  }

  ground() {
    this.points.rim = this.paper();
    this.points.draw(this.view, this.size(), this.some);
    this.under();
  }

  /** The colour of the ground, as shares of red, green and blue. */
  paper() {
    const hex = getComputedStyle(this.element).getPropertyValue("--paper").trim().slice(1);
    return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255 || 0);
  }

  size() {
    const n = Math.max(1, this.xy.length / 2);
    const usual = Math.min(10, Math.max(3, 300 / Math.sqrt(n)));
    return Math.min(14, usual * Math.max(1, Math.sqrt(this.view.zoom / 160)));
  }

  under() {
    const g = this.context(0);
    if (this.backdrop) for (const tile of this.backdrop) this.tile(g, tile);
  }

  tile(g, { picture, low, high }) {
    const [[left, bottom], [right, top]] = [this.toScreen(...low), this.toScreen(...high)];
    g.imageSmoothingEnabled = right - left < 2.5 * picture.width;
    g.drawImage(picture, left, top, right - left + 0.5, bottom - top + 0.5);
  }

  context(which) {
    const canvas = this.canvases[which];
    const g = canvas.getContext("2d");
    const ratio = canvas.width / this.view.width;
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, this.view.width, this.view.height);
    return g;
  }

  overlay() {
    const g = this.context(2);
    const style = getComputedStyle(this.element);
    const [ink, paper, accent] = ["--ink", "--paper", "--accent"].map((name) => style.getPropertyValue(name));
    Object.assign(g, { lineWidth: 2, lineJoin: "round", strokeStyle: accent, font: "600 12px system-ui, sans-serif" });
    this.pictures(g, paper);
    if (this.path) this.line(g, this.path.map((p) => this.toScreen(...p)));
    if (this.ring) this.line(g, this.ring.map((p) => this.toScreen(...p)), true);
    if (this.ellipse) this.oval(g, this.ellipse);
    if (this.hovered >= 0) this.circle(g, this.xy.subarray(2 * this.hovered, 2 * this.hovered + 2), 8, ink);
    this.marks.forEach((mark) => this.mark(g, mark, accent, paper));
    if (this.cursor) this.cross(g, ink, paper);
  }

  line(g, points, closed = false) {
    g.beginPath();
    points.forEach(([x, y], i) => (i ? g.lineTo(x, y) : g.moveTo(x, y)));
    if (closed) {
      g.closePath();
      g.globalAlpha = 0.12;
      g.fillStyle = g.strokeStyle;
      g.fill();
      g.globalAlpha = 1;
    }
    g.stroke();
  }

  oval(g, { at, radii, angle }) {
    const [x, y] = this.toScreen(...at);
    g.beginPath();
    g.ellipse(x, y, radii[0] * this.view.zoom, radii[1] * this.view.zoom, -angle, 0, 2 * Math.PI);
    g.globalAlpha = 0.2;
    g.fillStyle = g.strokeStyle;
    g.fill();
    g.globalAlpha = 1;
    g.stroke();
  }

  circle(g, at, radius, colour) {
    const [x, y] = this.toScreen(...at);
    g.save();
    g.strokeStyle = colour;
    g.beginPath();
    g.arc(x, y, radius, 0, 2 * Math.PI);
    g.stroke();
    g.restore();
  }

  mark(g, { at, text }, accent, paper) {
    const [x, y] = this.toScreen(...at);
    g.beginPath();
    g.arc(x, y, 10, 0, 2 * Math.PI);
    Object.assign(g, { fillStyle: accent, textAlign: "center", textBaseline: "middle" });
    g.fill();
    g.fillStyle = paper;
    g.fillText(text, x, y + 0.5);
  }

  cross(g, ink, paper) {
    const [x, y] = this.toScreen(...this.cursor);
    g.save();
    for (const [width, colour] of [[4, paper], [1.5, ink]]) {
      Object.assign(g, { lineWidth: width, strokeStyle: colour });
      g.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        g.moveTo(x + 4 * dx, y + 4 * dy);
        g.lineTo(x + 11 * dx, y + 11 * dy);
      }
      g.stroke();
    }
    g.restore();
  }

  /** Data in place of dots, where few are in sight; `thumbs` maps a point to a canvas. */
  pictures(g, paper) {
    this.wanted = this.on.thumbnails ? this.visible(THUMBNAILS) || [] : [];
    if (this.wanted.length > THUMBNAILS) this.wanted = [];
    const side = Math.min(SIDE, Math.max(18, 700 / Math.sqrt(this.wanted.length * 12 || 1)));
    for (const i of this.wanted) {
      const picture = this.thumbs.get(i);
      if (!picture) continue;
      const [x, y] = this.toScreen(this.xy[2 * i], this.xy[2 * i + 1]);
      const tall = (side * picture.height) / picture.width;
      g.globalAlpha = this.some && !this.picked[i] ? 0.2 : 1;
      g.fillStyle = css(this.rgb.subarray(3 * i, 3 * i + 3));
      g.fillRect(x - side / 2 - 2, y - tall / 2 - 2, side + 4, tall + 4);
      g.imageSmoothingEnabled = false;
      g.drawImage(picture, x - side / 2, y - tall / 2, side, tall);
    }
    g.globalAlpha = 1;
    const missing = this.wanted.filter((i) => !this.thumbs.has(i));
    if (missing.length) this.on.thumbnails(missing);
  }
}

function longer(numbers, length, filling) {
  if (numbers.length === length) return numbers;
  const out = new Uint8Array(length).fill(filling);
  out.set(numbers.subarray(0, length));
  return out;
}

/** Whether a point is inside of a ring, by the even-odd rule. */
function within(ring, x, y) {
  let odd = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [[a, b], [c, d]] = [ring[i], ring[j]];
    if (b > y !== d > y && x < ((c - a) * (y - b)) / (d - b) + a) odd = !odd;
  }
  return odd;
}
