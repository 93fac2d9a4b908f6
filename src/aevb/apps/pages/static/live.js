// A training that goes on: curves of the ELBO and its two terms, the map as it forms, and a button that ends it.

import { chart, pointsOf, SPLIT } from "./chart.js";
import { button, calm, el } from "./dom.js";

const COLOURS = { elbo: "#0072b2", reconstruction: "#dd6f01", kl: "#009e72" };

export class Training {
  constructor(page) {
    Object.assign(this, { page, words: page.words, records: [] });
    if (!page.about.can.live) return;
    this.status = el("p", { className: "quiet", role: "status" }, this.words("waiting"));
    this.curves = el("div", { className: "card-in" });
    this.end = button(this.words("stopTraining"), () => this.stop());
    this.element = el("div", { className: "card-in" }, this.status, this.curves, el("div", { className: "row" }, this.end));
    this.refresh = calm(() => this.again(), 200);
    page.main.backend.events((event) => this.told(event)).catch(page.failed);
  }

  async stop() {
    this.end.disabled = true;
    this.end.textContent = this.words("stopping");
    await this.page.main.backend.stop().catch(this.page.failed);
  }

  told(event) {
    if (event.kind === "end") {
      this.status.textContent = this.words("ended");
      this.end.disabled = true;
      this.end.textContent = this.words("saved");
    } else if (event.kind === "weights") {
      this.refresh();
    } else {
      this.records.push(event);
      this.status.textContent = `${event.samples.toLocaleString()} / ${event.total.toLocaleString()} · ${this.words("samplesSeen")}`;
      this.draw();
    }
  }

  /** The map by the weights of now. */
  async again() {
    const { main } = this.page;
    try {
      await main.load(main.view);
      main.set(main.z, { cursor: false });
    } catch (error) {
      this.page.failed(error);
    }
  }

  draw() {
    this.curves.replaceChildren(...SPLIT.map(([name, key]) => this.curve(name, this.words(key))));
  }

  /** One curve over training samples: training thin, validation bold. */
  curve(name, title) {
    const [train, held] = ["train", "validation"].map((part) => pointsOf(this.records, part, name));
    const last = (held.length ? held : train).at(-1);
    const lines = [{ points: train, faint: true }, { points: held }].map((line) => ({ ...line, colour: COLOURS[name] }));
    return chart(last ? `${title} ${last[1].toFixed(1)}` : title, lines);
  }
}
