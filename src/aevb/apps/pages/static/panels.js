// The panels beside the map: a point, sliders, new data, a selection, a walk, numbers, a training.

import { Latest } from "./backend.js";
import { Compare } from "./compare.js";
import { button, choice, el, facts, figure, save } from "./dom.js";
import { Training } from "./live.js";
import { NewData } from "./newdata.js";
import { draw, drawSurprise, thumbnail } from "./picture.js";
import { Sliders } from "./sliders.js";
import { cellTable } from "./table.js";
import { Walk } from "./walk.js";

export class Panels {
  constructor(page) {
    Object.assign(this, { page, words: page.words, about: page.about, main: page.main, kept: {} });
    this.card = el("section", { className: "card", role: "tabpanel", id: "panel", tabIndex: 0 });
    this.walk = new Walk(page);
    this.training = new Training(page);
    this.fresh = new NewData(page);
    this.compare = new Compare(page);
    this.parts = this.built();
    this.tabs = this.tabList();
    this.asked = new Latest((side, i) => this.inAll(side, i), (found, side) => this.showPoint(found, side), page.failed);
  }

  built() {
    const { about } = this;
    return Object.fromEntries(Object.entries({
      training: about.can.live && this.training.element,
      point: this.pointPanel(),
      sliders: this.sliderPanel(),
      draw: about.can.draw && this.fresh.element,
      read: about.kind === "table" && about.can.read && this.fresh.element,
      walk: this.walk.element,
      selection: this.selectionPanel(),
      compare: this.compare.element,
      numbers: this.numberPanel(),
    }).filter(([, element]) => element));
  }

  tabList() {
    const names = Object.keys(this.parts);
    const list = el("div", { className: "tabs", role: "tablist", "aria-label": this.words("explorer") });
    this.buttons = new Map(names.map((name) => [name, button(this.words(name), () => this.open(name), { role: "tab", id: `tab-${name}`, "aria-controls": "panel" })]));
    list.append(...this.buttons.values());
    list.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = names[(names.indexOf(this.opened) + step + names.length) % names.length];
      this.open(next);
      this.buttons.get(next).focus();
    };
    return list;
  }

  open(name) {
    if (!this.parts[name]) return;
    this.opened = name;
    for (const [other, one] of this.buttons) {
      one.setAttribute("aria-selected", String(other === name));
      one.tabIndex = other === name ? 0 : -1;
    }
    this.card.setAttribute("aria-labelledby", `tab-${name}`);
    this.card.replaceChildren(this.parts[name]);
    if (name === "compare") this.compare.opened();
  }

  // A point

  pointPanel() {
    this.pointCard = el("div", { className: "card-in" }, el("p", { className: "quiet" }, this.words("pointHelp")));
    return this.pointCard;
  }

  point(side, i, stay) {
    if (stay) this.held = i;
    if (!stay && this.opened !== "point") return;
    if (stay) this.open("point");
    this.asked.want(side, i);
  }

  /** A point as its run sees it, and as the other run does where both have the same rows. */
  async inAll(side, i) {
    const others = this.page.alike(side);
    const [found, ...rest] = await Promise.all([side, ...others].map((one) => one.backend.point(i)));
    return { ...found, others: rest.map((known, k) => ({ known, side: others[k] })) };
  }

  showPoint(found, side) {
    const { words } = this;
    const again = found.others.flatMap(({ known, side: other }) => [el("h3", {}, other.about.name), ...looks(known, other, words), bound(known, words)]);
    const name = again.length ? [el("h3", {}, side.about.name)] : [];
    const more = facts([[words("label"), found.label], [words("row"), `${found.part} ${found.name}`]]);
    this.pointCard.replaceChildren(more, ...name, ...looks(found, side, words), bound(found, words), ...again, ...this.near(found, side));
  }

  near(found, side) {
    if (this.about.kind !== "image" || !found.neighbours?.length) return [];
    const row = el("div", { className: "near" });
    side.backend.thumbnails(found.neighbours).then((xs) => {
      found.neighbours.forEach((i, k) => {
        const name = `${this.words("point")} ${i}`;
        row.append(button(thumbnail(xs[k], side.about), () => this.point(side, i, true), { title: name, "aria-label": name }));
      });
    }, this.page.failed);
    return [el("h3", {}, this.words("nearest")), row];
  }

  // Sliders

  sliderPanel() {
    const { words, about, main } = this;
    const box = el("div", { className: "sliders" });
    this.sliders = new Sliders(box, about.latents, words, (z) => {
      main.set(z, { layer: this.sliders.layer ?? 0 });
      this.page.moved(main);
    });
    this.sliders.set(main.z);
    const heat = el("input", { type: "range", id: "temperature", min: 0, max: 2, step: 0.05, value: 1 });
    const shown = el("output", { htmlFor: "temperature" }, "1.00");
    heat.oninput = () => { shown.textContent = Number(heat.value).toFixed(2); };
    const actions = el("div", { className: "row" },
      button(words("reset"), () => main.set(new Array(about.size).fill(0))),
      button(words("sample"), () => this.sample(Number(heat.value)), { className: "first" }));
    const warmth = el("div", { className: "slider warm" }, el("label", { for: "temperature" }, words("temperature")), el("span", { className: "track" }, heat), shown);
    return el("div", { className: "card-in" }, el("p", { className: "quiet" }, words("slidersHelp")), this.layerChoice(), box, actions, warmth);
  }

  layerChoice() {
    const { layers } = this.about;
    if (layers.length < 2) return null;
    const options = layers.map((layer, i) => ({ value: String(i), text: `${layer.name} (${layer.size})` }));
    this.layers = choice(this.words("layer"), options, "0", (value) => this.sliders.choose(Number(value)));
    this.sliders.choose(0);
    return this.layers;
  }

  layer(number) {
    this.layers.querySelector("select").value = String(number);
    this.sliders.choose(number);
  }

  async sample(temperature) {
    try {
      const { z } = await this.main.backend.sample(temperature, this.main.y);
      this.main.set(z, { layer: 0 });
      this.page.moved(this.main);
    } catch (error) {
      this.page.failed(error);
    }
  }

  // A selection

  selectionPanel() {
    this.chosen = el("div", { className: "card-in" }, el("p", { className: "quiet" }, this.words("lassoHelp")));
    return this.chosen;
  }

  async select(side, indices) {
    this.open("selection");
    if (!indices.length) {
      this.chosen.replaceChildren(el("p", { className: "quiet" }, this.words("lassoHelp")));
      return;
    }
    try {
      this.showSelection(side, indices, await side.backend.selection(indices));
    } catch (error) {
      this.page.failed(error);
    }
  }

  showSelection(side, indices, found) {
    const { words } = this;
    this.picked = { ...found, indices };
    side.set(found.mean, { layer: 0 });
    const labels = found.labels.slice(0, 12).map((l) => [l.name, `${l.n} · ${Math.round((100 * l.n) / found.n)} %`]);
    const keep = ["A", "B"].map((name) => button(words(`keep${name}`), () => this.keep(name)));
    const file = button(words("exportCsv"), () => side.backend.export(indices).then((blob) => save(blob, "selection.csv"), this.page.failed));
    this.sums = el("div", { className: "card-in" });
    this.chosen.replaceChildren(
      el("h2", {}, words("chosen", found.n)),
      el("p", { className: "quiet" }, `${words("meanDecode")} ↑`),
      labels.length ? facts(labels) : "",
      traitTable(found.traits, words),
      el("div", { className: "row" }, file, keep),
      this.sums,
    );
    this.arithmetic();
  }

  keep(name) {
    this.kept[name] = this.picked;
    this.arithmetic();
  }

  arithmetic() {
    const { words, kept, main } = this;
    const { A, B } = kept;
    const add = button(words("addBA"), () => main.set(main.z.map((v, d) => v + B.mean[d] - A.mean[d])), { disabled: !(A && B), className: "first" });
    this.sums.replaceChildren(
      el("h3", {}, words("arithmetic")),
      el("p", { className: "quiet" }, A || B ? words("kept", A?.n ?? "—", B?.n ?? "—") : words("arithmeticHelp")),
      el("div", { className: "row" }, add));
  }

  // Numbers

  numberPanel() {
    const { words, about } = this;
    const known = about.numbers.map((n) => [n.name, words("nats", n.text)]);
    const numbers = known.length ? facts(known) : el("p", { className: "quiet" }, words("noNumbers"));
    const equations = this.page.sides.flatMap((side) => [
      el("h3", {}, `${words("recipe")} ${side.about.recipe}`),
      el("pre", { className: "code equation", tabIndex: 0 }, side.about.equation),
    ]);
    return el("div", { className: "card-in" }, el("h2", {}, words("evaluation")), numbers, equations);
  }
}

/** The ELBO and its two terms. */
function bound(found, words) {
  const parts = [["elbo", found.elbo], ["recon", found.reconstruction_term], ["kl", found.kl]];
  return facts(parts.map(([name, value]) => [words(name), nats(value)]));
}

function nats(value) {
  return value === null || value === undefined ? null : `${value.toFixed(2)} nats`;
}

/** What a row is and what the model makes of it: pictures, or cells. */
export function looks(found, side, words) {
  if (found.cells) return [el("div", { className: "cells" }, cellTable(found.cells, words, { surprise: true }))];
  const [own, again] = [figure(words("original")), figure(words("reconstruction"))];
  draw(own.canvas, found.x, side.about);
  draw(again.canvas, found.reconstruction, side.about);
  const parts = [own.element, again.element];
  if (found.surprise && side.about.kind === "image") {
    const odd = figure(words("surprise"));
    drawSurprise(odd.canvas, found.surprise, side.about.shape);
    parts.push(odd.element);
  }
  return [el("div", { className: "pictures" }, parts)];
}

function traitTable(traits, words) {
  const head = ["differ", "here_", "rest"].map((name) => el("th", {}, words(name)));
  const rows = traits.map((t) => el("tr", {}, el("td", {}, t.name), el("td", {}, t.value), el("td", {}, t.rest)));
  return el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}
