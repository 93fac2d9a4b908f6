// Two runs: their numbers with the errors, their curves, and draws from both, beside each other.

import { chart, pointsOf, SPLIT } from "./chart.js";
import { button, el } from "./dom.js";
import { draw } from "./picture.js";
import { cellTable } from "./table.js";

const COLOURS = ["#0072b2", "#dd6f01"]; // of the first and the second run
const [PICTURES, ROWS] = [12, 2]; // draws of each run

export class Compare {
  constructor(page) {
    Object.assign(this, { page, words: page.words, sides: page.sides });
    if (page.sides.length < 2) return;
    this.curves = el("div", { className: "card-in" });
    this.draws = el("div", { className: "card-in" });
    this.element = el("div", { className: "card-in" },
      this.names(), el("h3", {}, this.words("evaluation")), this.numbers(), el("h3", {}, this.words("training")), this.curves,
      el("h3", {}, this.words("samples")), this.draws, el("div", { className: "row" }, button(this.words("again"), () => this.sample())));
  }

  /** Called when the panel is opened: what takes time is asked once. */
  opened() {
    if (this.asked) return;
    this.asked = true;
    this.compareCurves();
    this.sample();
  }

  names() {
    return el("p", {}, this.sides.map((side, i) => el("span", { className: "run" }, dot(i), side.about.name)));
  }

  numbers() {
    const names = [...new Set(this.sides.flatMap((side) => side.about.numbers.map((n) => n.name)))];
    if (!names.length) return el("p", { className: "quiet" }, this.words("noNumbers"));
    const head = ["", ...this.sides.map((side) => side.about.name)].map((name) => el("th", {}, name));
    const rows = names.map((name) => el("tr", {}, el("th", { scope: "row" }, name), this.sides.map((side) => el("td", {}, numberOf(side, name)))));
    return el("table", { className: "numbers" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
  }

  async compareCurves() {
    try {
      const found = await Promise.all(this.sides.map((side) => side.backend.curves()));
      const charts = SPLIT.map(([name, key]) => chart(this.words(key), lines(found, name)));
      this.curves.replaceChildren(el("p", { className: "quiet" }, this.words("curvesHelp")), ...charts);
    } catch (error) {
      this.page.failed(error);
    }
  }

  async sample() {
    const turn = (this.drawing = {});
    try {
      const parts = await Promise.all(this.sides.map((side) => this.drawn(side)));
      if (turn === this.drawing) this.draws.replaceChildren(el("p", { className: "quiet" }, this.words("samplesHelp")), ...parts.flat());
    } catch (error) {
      this.page.failed(error);
    }
  }

  async drawn(side) {
    const table = side.about.kind === "table", n = table ? ROWS : PICTURES;
    const { zs } = await side.backend.sample(1, side.y, n);
    const found = await side.backend.decode(zs, side.y, 0);
    const made = table ? found.map(({ cells }) => el("div", { className: "cells" }, cellTable(cells, this.words))) : [pictures(found, side)];
    return [el("p", { className: "run" }, dot(this.sides.indexOf(side)), side.about.name), ...made];
  }
}

function numberOf(side, name) {
  return side.about.numbers.find((n) => n.name === name)?.text ?? "–";
}

/** Validation is bold where there is one, train is thin. */
function lines(found, name) {
  return found.flatMap((records, i) => {
    const [train, held] = ["train", "validation"].map((part) => pointsOf(records, part, name));
    return [{ points: train, colour: COLOURS[i], faint: held.length > 0 }, { points: held, colour: COLOURS[i] }];
  });
}

function pictures(found, side) {
  return el("div", { className: "draws" }, found.map(({ x }) => {
    const canvas = el("canvas", { className: "picture", role: "img", "aria-label": side.about.name });
    draw(canvas, x, side.about);
    return canvas;
  }));
}

function dot(i) {
  const made = el("i", { "aria-hidden": "true" });
  made.style.background = COLOURS[i];
  return made;
}
