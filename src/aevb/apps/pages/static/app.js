// The page: a header, the map with its tools, what the model says of a place, and panels for all else.

import { el, button, choice } from "./dom.js";
import { Panels } from "./panels.js";
import { draw } from "./picture.js";
import { Side } from "./side.js";
import { cellTable } from "./table.js";
import { language, speaker } from "./words.js";

const NAMED = ["label", "part", "cluster"]; // colours whose titles are words, not names of the data

/** Build the page in an element. `other` is the backend of a second run, which is asked only if there is one. */
export async function start(root, backend, other = null) {
  const lang = language();
  const words = speaker(lang);
  document.documentElement.lang = lang;
  theme(localStorage.getItem("aevb-theme"));
  try {
    const about = await backend.about();
    const second = about.can.compare && other ? await other.about() : null;
    const page = new Page(root, words, lang);
    await page.build(backend, about, second ? [other, second] : null);
    window.aevb = page;
  } catch (error) {
    root.replaceChildren(el("p", { className: "oops", role: "alert" }, explained(error, words)));
  }
}

function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
}

function explained(error, words) {
  return ["gone", "token"].includes(error.message) ? words(error.message) : error.message;
}

class Page {
  constructor(root, words, lang) {
    Object.assign(this, { root, words, lang, mode: "look" });
    this.failed = this.failed.bind(this);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.repaint());
  }

  async build(backend, about, second) {
    this.about = about;
    this.sides = [new Side(backend, about, this.words, this)];
    if (second) this.sides.push(new Side(...second, this.words, this));
    this.main = this.sides[0];
    document.title = `${about.name} · aevb`;
    this.panels = new Panels(this);
    this.now = this.nowCard();
    this.stage = this.stageOf();
    this.root.className = "page";
    const side = el("div", { className: "side" }, this.now, this.panels.tabs, this.panels.card);
    this.root.replaceChildren(this.head(), this.stage, side);
    this.panels.open("point");
    if (this.about.can.live) this.panels.open("training");
    await Promise.all(this.sides.map((one) => this.begin(one)));
  }

  async begin(side) {
    try {
      side.set(side.z, { cursor: false });
      const { name, kind } = side.about.colours[0], soon = kind === "classes"; // labels are known before the codes
      await Promise.all([side.load(), soon && side.colour(name)]);
      side.showBackdrop(this.backdrop?.checked ?? false);
      side.set(side.z);
      if (!soon) await side.colour(name);
    } catch (error) {
      this.failed(error);
    }
  }

  head() {
    const { about, words } = this;
    const latent = about.layers.map((layer) => layer.size).join(" + ");
    const line = `${about.recipe} · ${latent} ${this.lang === "ko" ? "잠재 변수" : about.size === 1 ? "latent" : "latents"}`;
    const other = new URLSearchParams({ lang: this.lang === "ko" ? "en" : "ko" });
    return el("header", { className: "head" },
      el("h1", {}, about.name),
      el("span", { className: "about quiet" }, line),
      button("◐", () => this.turn(), { title: words("theme"), "aria-label": words("theme") }),
      button(words("language"), () => { location.search = other.toString(); }, { lang: this.lang === "ko" ? "en" : "ko" }),
    );
  }

  turn() {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    localStorage.setItem("aevb-theme", dark ? "light" : "dark");
    theme(dark ? "light" : "dark");
    this.repaint();
  }

  repaint() {
    for (const side of this.sides) side.map.redraw(false, true);
  }

  // The map and its tools

  stageOf() {
    const maps = el("div", { className: this.sides.length > 1 ? "maps two" : "maps" }, this.sides.map((side) => side.element));
    this.hint = el("div", { className: "hint" }, this.words(matchMedia("(hover: none)").matches ? "hintTouch" : "hint"));
    this.main.element.append(this.hint);
    return el("main", { className: "stage" }, this.tools(), maps, this.main.legend);
  }

  tools() {
    const { about, words } = this;
    const tools = el("div", { className: "tools" }, this.modes());
    tools.append(choice(words("colourBy"), about.colours.map((c) => ({ value: c.name, text: NAMED.includes(c.name) ? words(c.name) : c.title })), about.colours[0].name, (name) => this.recolour(name)));
    if (about.size > 1) tools.append(...this.axes());
    if (about.classes.length) tools.append(this.classChoice());
    if (about.kind === "image") tools.append(this.backdropSwitch());
    return tools;
  }

  modes() {
    this.modeButtons = ["look", "lasso", "walk"].map((mode) => button(this.words(mode), () => this.use(mode), { "aria-pressed": String(mode === "look") }));
    return el("div", { className: "row", role: "group", "aria-label": this.words("map") }, this.modeButtons);
  }

  use(mode) {
    this.mode = mode;
    ["look", "lasso", "walk"].forEach((name, i) => this.modeButtons[i].setAttribute("aria-pressed", String(name === mode)));
    for (const side of this.sides) side.map.mode = mode === "lasso" ? "lasso" : "look";
    this.panels.open({ look: "point", lasso: "selection", walk: "walk" }[mode]);
  }

  axes() {
    const { about, words } = this;
    const named = about.views.filter((view) => !view.name.includes(","));
    const pair = about.size > 2 ? [...named.map((v) => ({ value: v.name, text: v.title })), { value: "axes", text: "z, z" }] : null;
    const names = [...about.latents].sort((a, b) => a.index - b.index).map((l) => ({ value: String(l.index), text: l.name }));
    const best = about.latents.slice(0, 2).map((l) => String(l.index));
    this.pair = about.size > 2 ? best : ["0", "1"];
    if (!pair) return [];
    const pairs = el("div", { className: "row", hidden: true }, [0, 1].map((k) => choice(k ? "↑" : "→", names, this.pair[k], (value) => this.axis(k, value))));
    return [choice(words("view"), pair, pair[0].value, (value) => this.look(value, pairs)), pairs];
  }

  look(value, pairs) {
    pairs.hidden = value !== "axes";
    const view = value === "axes" ? this.pair.join(",") : value;
    for (const side of this.sides) side.load(view).catch((error) => this.failed(error));
    if (value.startsWith("layer:")) this.panels.layer(Number(value.slice(6)));
  }

  axis(k, value) {
    this.pair[k] = value;
    if (this.pair[0] === this.pair[1]) return;
    for (const side of this.sides) side.load(this.pair.join(",")).catch((error) => this.failed(error));
  }

  classChoice() {
    const options = this.about.classes.map((c) => ({ value: String(c.number), text: c.name }));
    return choice(this.words("class"), options, options[0].value, (value) => {
      for (const side of this.sides) {
        side.y = Number(value);
        side.set(side.z, { cursor: false });
        side.drawBackdrop();
      }
    });
  }

  backdropSwitch() {
    this.backdrop = el("input", { type: "checkbox", checked: this.about.size === 2, onchange: () => {
      for (const side of this.sides) side.showBackdrop(this.backdrop.checked);
    } });
    return el("label", { className: "check" }, this.backdrop, this.words("backdrop"));
  }

  recolour(name) {
    for (const side of this.sides) side.colour(name).catch((error) => this.failed(error));
  }

  // What the model says of the place

  nowCard() {
    this.shown = this.sides.map((side) => {
      const canvas = el("canvas", { className: "picture", width: 8, height: 8, role: "img", "aria-label": this.words("here") });
      return { side, canvas, cells: el("div", { className: "cells" }), place: el("div", { className: "code" }) };
    });
    const table = this.about.kind === "table";
    const parts = this.shown.map(({ side, canvas, cells, place }) =>
      el("div", { className: table ? "now wide card" : "now card" }, table ? cells : canvas,
        el("div", {}, el("h2", {}, this.sides.length > 1 ? side.about.name : this.words("here")), el("p", { className: "quiet" }, this.words("code")), place)));
    return el("section", { "aria-label": this.words("here"), className: parts.length > 1 ? "nows two" : "nows" }, parts);
  }

  decoded(side, found) {
    const shown = this.shown.find((one) => one.side === side);
    if (found.cells) shown.cells.replaceChildren(cellTable(found.cells, this.words));
    else draw(shown.canvas, found.x, side.about);
    shown.place.textContent = side.z.slice(0, 12).map((v) => v.toFixed(2)).join("  ") + (side.z.length > 12 ? " …" : "");
    side.frames = (side.frames || 0) + 1;
    if (side === this.main) this.panels.sliders.set(side.z);
  }

  // What the hand did

  moved(side) {
    if (this.hint.isConnected && (this.steps = (this.steps || 0) + 1) > 25) this.hint.remove();
    for (const other of this.sides) {
      if (other !== side && other.about.size === side.about.size) other.set(side.z);
    }
  }

  /** The other runs that have the same rows as one. */
  alike(side) {
    return this.sides.filter((other) => other !== side && other.about.data === side.about.data);
  }

  hover(side, i) {
    for (const other of this.alike(side)) {
      other.map.hovered = i;
      other.map.redraw();
    }
    if (i >= 0 && this.mode === "look") this.panels.point(side, i, false);
  }

  left(side) {
    if (this.pinned) side.set(this.pinned);
  }

  pick(side, i, z) {
    this.pinned = z;
    if (this.mode === "walk") this.panels.walk.add(z);
    else if (i >= 0) this.panels.point(side, i, true);
  }

  lasso(side, indices) {
    for (const one of [side, ...this.alike(side)]) one.map.select(indices);
    this.panels.select(side, indices);
  }

  failed(error) {
    document.querySelector(".oops")?.remove();
    const note = el("p", { className: "oops", role: "alert" }, explained(error, this.words));
    document.body.append(note);
    setTimeout(() => note.remove(), 6000);
  }
}
