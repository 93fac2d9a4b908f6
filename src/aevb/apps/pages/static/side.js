// One run on the page: its map, its points, its colours, and what its decoder says of the place under the pointer.

import { Latest } from "./backend.js";
import { Curved } from "./curved.js";
import { button, calm, el } from "./dom.js";
import { LatentMap } from "./map.js";
import { classColour, coloured, css, imageShape, pixels, scaleColour, thumbnail } from "./picture.js";

const TILE = 44; // pixels of a tile of the backdrop, about
const GAP = 1; // pixels of the data between two tiles
const TILES = 500; // of them at most

export class Side {
  /** page: is told of decode(side), hover(side, i), pick(side, i, z), lasso(side, indices), failed(error). */
  constructor(backend, about, words, page) {
    Object.assign(this, { backend, about, words, page, y: about.classes[0]?.number ?? null, layer: 0 });
    this.z = new Array(about.size).fill(0);
    this.view = about.views[0].name;
    this.turn = 0;
    this.decoder = new Latest(
      (zs, y, layer) => this.backend.decode(zs, y, layer),
      ([found]) => page.decoded(this, found),
      page.failed,
    );
    this.pictures = new Latest((indices) => this.backend.thumbnails(indices), (xs, indices) => this.thumbs(xs, indices), page.failed);
    this.build();
  }

  build() {
    const { words } = this;
    this.element = el("div", { role: "application", "aria-label": words("map") });
    const image = this.about.kind === "image";
    this.element.classList.toggle("grey", image && imageShape(this.about.shape)[0] !== 3);
    this.map = new LatentMap(this.element, {
      move: (u, v) => this.moved(u, v),
      hover: (i) => this.page.hover(this, i),
      pick: (i, u, v) => this.page.pick(this, i, this.lift(u, v)),
      lasso: (indices) => this.page.lasso(this, indices),
      leave: () => this.page.left(this),
      view: calm(() => this.drawBackdrop(), 160),
      thumbnails: image ? (missing) => this.pictures.want(missing.slice(0, 160)) : null,
    });
    const [less, more, all] = [["−", "zoomOut", 0.7], ["+", "zoomIn", 1.4], ["⤢", "fit", 0]].map(([sign, name, factor]) =>
      button(sign, () => this.zoom(factor), { title: words(name), "aria-label": words(name) }),
    );
    this.busy = el("div", { className: "busy", role: "status", hidden: true });
    this.element.append(el("div", { className: "corner" }, less, more, all), this.busy);
    this.legend = el("div", { className: "legend" });
  }

  zoom(factor) {
    if (factor) this.map.zoomAt(this.map.view.width / 2, this.map.view.height / 2, factor);
    else this.map.fit();
  }

  say(key, ...values) {
    this.busy.hidden = !key;
    if (key) this.busy.textContent = this.words(key, ...values);
  }

  // Places

  lift(u, v) {
    if (this.curved) return this.curved.lift(u, v);
    const { origin, axes } = this.plane;
    const flat = this.view.includes(",");
    const base = flat ? this.z : origin;
    const [du, dv] = flat ? [u - this.along(base, 0), v - this.along(base, 1)] : [u, v];
    return base.map((b, d) => b + du * axes[0][d] + dv * axes[1][d]);
  }

  along(z, k) {
    const { origin, axes } = this.plane;
    return z.reduce((sum, value, d) => sum + (value - origin[d]) * axes[k][d], 0);
  }

  project(z) {
    if (this.curved) return this.curved.project(z);
    return [this.along(z, 0), this.along(z, 1)];
  }

  moved(u, v) {
    if (!this.plane) return;
    this.set(this.lift(u, v), { cursor: false, layer: this.viewLayer() });
    this.page.moved(this);
  }

  viewLayer() {
    return this.view.startsWith("layer:") ? Number(this.view.slice(6)) : this.layer;
  }

  /** Look at a code: decode it, and put the cursor there. */
  set(z, { cursor = true, layer = this.layer } = {}) {
    this.z = Array.from(z);
    this.layer = layer;
    if (cursor && this.plane) {
      this.map.cursor = this.project(this.z);
      this.map.redraw();
    }
    this.decoder.want([this.z], this.y, layer);
  }

  // Points

  async load(view = this.view) {
    this.view = view;
    const turn = ++this.turn;
    this.plane = await this.backend.view(view);
    this.curved = this.plane.curved ? new Curved(await this.allCodes(), this.about.size, this.map) : null;
    this.map.backdrop = null;
    await this.stream(turn, (start) => this.backend.points(view, start).then((part) => this.grow(part, start)));
    if (turn !== this.turn) return;
    this.say(null);
    this.drawBackdrop();
  }

  /** The codes of all points, (N, D). */
  async allCodes() {
    const { n, size } = this.about, all = new Float32Array(n * size);
    for (let start = 0; start < n;) {
      const { codes } = await this.backend.codes(start);
      if (!codes.length) break;
      all.set(codes, start * size);
      start += codes.length / size;
    }
    return all;
  }

  async stream(turn, next) {
    let [start, total] = [0, 1];
    while (start < total && turn === this.turn) {
      const { got, of } = await next(start);
      if (!got) break;
      [start, total] = [start + got, of];
      if (start < total) this.say("loading", start, total);
    }
  }

  grow({ xy, total }, start) {
    const all = new Float32Array(2 * start + xy.length);
    all.set(start ? this.map.xy.subarray(0, 2 * start) : [], 0);
    all.set(xy, 2 * start);
    this.map.setPoints(all);
    if (!start || all.length === 2 * total) this.map.fit();
    return { got: xy.length / 2, of: total };
  }

  async colour(name) {
    const chosen = this.about.colours.find((c) => c.name === name) || this.about.colours[0];
    const turn = (this.painting = {});
    const numbers = new Float32Array(this.about.n).fill(NaN);
    let start = 0;
    this.say("colouring", 0, this.about.n);
    while (start < this.about.n && turn === this.painting) {
      const part = await this.backend.colour(chosen.name, start);
      if (!part.length || turn !== this.painting) break;
      numbers.set(part, start);
      start += part.length;
      this.paint(numbers, chosen);
      this.say("colouring", start, this.about.n);
    }
    if (turn === this.painting) this.say(null);
  }

  paint(numbers, chosen) {
    const { rgb, low, high } = coloured(numbers, chosen.kind);
    this.map.setColours(rgb);
    this.legend.replaceChildren(...(chosen.kind === "classes" ? classes(numbers, chosen) : this.scale(chosen, low, high)));
  }

  scale(chosen, low, high) {
    const bar = el("canvas", { className: "scale", width: 64, height: 1, "aria-hidden": "true" });
    const g = bar.getContext("2d");
    for (let i = 0; i < 64; i++) {
      g.fillStyle = css(scaleColour(i / 63));
      g.fillRect(i, 0, 1, 1);
    }
    return [el("span", {}, `${chosen.title}: ${short(low)}`), bar, el("span", {}, short(high))];
  }

  thumbs(xs, indices) {
    indices.forEach((i, k) => this.map.thumbs.set(i, thumbnail(xs[k], this.about)));
    this.map.redraw();
  }

  // The decoder's pictures behind the points

  async drawBackdrop() {
    if (!this.wantsBackdrop || !this.plane || this.about.kind !== "image") return;
    const turn = (this.drawing = {});
    const { width, height } = this.map.view;
    const side = Math.max(TILE, Math.sqrt((width * height) / TILES));
    const [nx, ny] = [Math.ceil(width / side), Math.ceil(height / side)];
    const [low, high] = this.map.corners();
    const places = Array.from({ length: nx * ny }, (_, k) => [(k % nx) + 0.5, Math.floor(k / nx) + 0.5]);
    const zs = places.map(([i, j]) => this.lift(low[0] + ((high[0] - low[0]) * i) / nx, high[1] - ((high[1] - low[1]) * j) / ny));
    try {
      const found = await this.backend.decode(zs, this.y, this.viewLayer());
      if (turn === this.drawing && this.wantsBackdrop) this.tile(found, nx, ny, low, high);
    } catch (error) {
      this.page.failed(error);
    }
  }

  tile(found, nx, ny, low, high) {
    const [, h, w] = imageShape(this.about.shape);
    const [wide, tall] = [w + GAP, h + GAP].map((n) => Math.ceil(n));
    const picture = el("canvas", { width: nx * wide, height: ny * tall });
    const g = picture.getContext("2d");
    found.forEach(({ x }, k) => g.putImageData(pixels(x, this.about.shape, this.about.limits), (k % nx) * wide, Math.floor(k / nx) * tall));
    this.map.backdrop = [{ picture, low, high }];
    this.map.redraw(false, true);
  }

  showBackdrop(on) {
    this.wantsBackdrop = on;
    if (on) this.drawBackdrop();
    else this.map.backdrop = null;
    this.map.redraw(false, true);
  }
}

function classes(numbers, { names }) {
  const seen = [...new Set(numbers)].filter((c) => c >= 0).sort((a, b) => a - b).slice(0, 60);
  return seen.map((c) => {
    const dot = el("i", { "aria-hidden": "true" });
    dot.style.background = css(classColour(c));
    return el("span", {}, dot, names[c] ?? String(c + 1));
  });
}

function short(value) {
  return Number.isFinite(value) ? Number(value.toPrecision(4)).toString() : "—";
}
