// One slider for each latent, with the prior's density behind it.

const MANY = 12; // sliders that are shown before the reader asks for the others

export class Sliders {
  /**
   * element: where they go; latents: as of `about`; words: names of things;
   * input: is told z whenever a slider moves.
   */
  constructor(element, latents, words, input) {
    Object.assign(this, { element, latents, words, input });
    this.z = new Array(latents.length).fill(0);
    this.rows = new Map();
    this.layer = null;
    this.all = false;
    this.build();
  }

  shown() {
    const mine = this.latents.filter((l) => this.layer === null || l.layer === this.layer);
    return { mine, some: this.all ? mine : mine.slice(0, MANY) };
  }

  build() {
    this.element.replaceChildren();
    this.rows.clear();
    const { mine, some } = this.shown();
    for (const latent of some) this.element.append(this.row(latent));
    if (some.length < mine.length) this.element.append(this.more(mine.length));
    this.refresh();
  }

  more(n) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "more";
    button.textContent = this.words("allLatents", n);
    button.onclick = () => {
      this.all = true;
      this.build();
    };
    return button;
  }

  row(latent) {
    const row = document.createElement("div");
    row.className = "slider";
    const name = document.createElement("label");
    const id = `latent-${latent.index}`;
    name.htmlFor = id;
    name.textContent = latent.name;
    name.title = this.words("klOf", latent.name, latent.kl);
    const track = document.createElement("span");
    track.className = "track";
    const range = document.createElement("input");
    Object.assign(range, { type: "range", id, min: latent.low, max: latent.high, step: (latent.high - latent.low) / 200 });
    const value = document.createElement("output");
    value.htmlFor = id;
    const kl = document.createElement("span");
    kl.className = "kl";
    kl.textContent = latent.kl === null ? "" : latent.kl.toFixed(2);
    kl.title = this.words("klOf", latent.name, latent.kl);
    track.append(density(latent), range);
    row.append(name, track, value, kl);
    range.oninput = () => this.moved(latent.index, Number(range.value));
    this.rows.set(latent.index, { range, value });
    return row;
  }

  moved(index, value) {
    this.z[index] = value;
    this.tell(index);
    this.input([...this.z]);
  }

  tell(index) {
    const row = this.rows.get(index);
    if (!row) return;
    row.range.value = this.z[index];
    row.value.textContent = this.z[index].toFixed(2);
    row.range.setAttribute("aria-valuetext", this.z[index].toFixed(2));
  }

  refresh() {
    for (const index of this.rows.keys()) this.tell(index);
  }

  set(z) {
    this.z = Array.from(z);
    this.refresh();
  }

  choose(layer) {
    this.layer = layer;
    this.all = false;
    this.build();
  }
}

/** The bell of N(0, 1) between the ends of a slider; a line where the prior is another. */
function density(latent) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(ns, "path");
  const tall = latent.density || bell(latent.low, latent.high);
  const top = Math.max(...tall);
  const at = tall.map((p, i) => `${((100 * i) / (tall.length - 1)).toFixed(1)} ${(20 - (18 * p) / top).toFixed(1)}`);
  path.setAttribute("d", `M0 20 L${at.join(" L")} L100 20 Z`);
  svg.append(path);
  return svg;
}

function bell(low, high) {
  return Array.from({ length: 41 }, (_, i) => Math.exp(-((low + ((high - low) * i) / 40) ** 2) / 2));
}
