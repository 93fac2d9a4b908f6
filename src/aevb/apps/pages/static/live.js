// A training that goes on: curves of the ELBO and its two terms, the map as it forms, and a button that ends it.

import { button, calm, el } from "./dom.js";

const SPLIT = [["elbo", "curveElbo", "#0072b2"], ["reconstruction", "curveRecon", "#dd6f01"], ["kl", "curveKl", "#009e72"]];
const [WIDE, TALL] = [340, 150];

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
      main.map.setColours(main.map.rgb);
    } catch (error) {
      this.page.failed(error);
    }
  }

  draw() {
    this.curves.replaceChildren(...SPLIT.map(([name, key, colour]) => curve(this.records, name, this.words(key), colour)));
  }
}

/** One curve over training samples: training thin, validation bold. */
export function curve(records, name, title, colour) {
  const known = ["train", "validation"].map((part) => records.filter((r) => Number.isFinite(r[part]?.[name])).map((r) => [r.samples, r[part][name]]));
  const all = known.flat();
  if (!all.length) return el("span");
  const ends = [0, 1].map((k) => [Math.min(...all.map((p) => p[k])), Math.max(...all.map((p) => p[k]))]);
  const high = ends[1][1];
  const late = all.slice(Math.floor(all.length / 10)).map((p) => p[1]);
  const low = Math.min(...late);
  const at = ([x, y]) => `${((WIDE * (x - ends[0][0])) / (ends[0][1] - ends[0][0] || 1)).toFixed(1)} ${(TALL - 4 - ((TALL - 8) * (Math.max(y, low) - low)) / (high - low || 1)).toFixed(1)}`;
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDE} ${TALL}`);
  svg.setAttribute("class", "curve");
  svg.setAttribute("role", "img");
  const last = all.at(-1)[1].toFixed(1);
  svg.setAttribute("aria-label", `${title}: ${last}`);
  known.forEach((points, bold) => {
    if (points.length < 1) return;
    const path = document.createElementNS(ns, "path");
    path.setAttribute("d", `M${points.map(at).join(" L")}`);
    path.setAttribute("stroke", colour);
    path.setAttribute("opacity", bold ? "1" : "0.45");
    svg.append(path);
  });
  return el("div", {}, el("h3", {}, `${title} ${last}`), svg);
}
