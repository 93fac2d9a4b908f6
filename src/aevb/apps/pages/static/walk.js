// A walk through the latent space: stops that are clicked, a way through them that plays, and films of it.

import { button, choice, el, save } from "./dom.js";

const STEPS = 14; // from one stop to the next
const BEAT = 90; // milliseconds

export class Walk {
  constructor(page) {
    Object.assign(this, { page, words: page.words, stops: [], how: "linear", codes: [] });
    this.element = this.built();
  }

  get side() {
    return this.page.main;
  }

  built() {
    const { words } = this;
    const ways = [{ value: "linear", text: words("linear") }, { value: "spherical", text: words("spherical") }];
    this.play = button(words("play"), () => this.toggle(), { disabled: true, className: "first" });
    this.films = this.page.about.can.film
      ? [["gif", "saveGif"], ["png", "savePng"]].map(([kind, key]) => button(words(key), () => this.film(kind), { disabled: true }))
      : [];
    return el("div", { className: "card-in" },
      el("p", { className: "quiet" }, words("walkHelp")),
      el("div", { className: "row" }, choice(words("walk"), ways, "linear", (value) => this.change(value)), this.play),
      el("div", { className: "row" }, this.films, button(words("forget"), () => this.forget())));
  }

  change(how) {
    this.how = how;
    this.plan();
  }

  add(z) {
    this.stops.push(z);
    if (this.stops.length > 20) this.stops.shift();
    this.plan();
  }

  forget() {
    this.stop();
    this.planned = null;
    this.stops = [];
    this.codes = [];
    this.mark();
  }

  async plan() {
    const turn = (this.planned = {});
    if (this.stops.length > 1) {
      try {
        const { z } = await this.side.backend.walk(this.stops, this.how, STEPS);
        if (turn !== this.planned) return; // another stop came meanwhile, or all are forgotten
        this.codes = z;
      } catch (error) {
        this.page.failed(error);
        return;
      }
    }
    this.mark();
    if (this.codes.length && !this.timer) this.toggle();
  }

  mark() {
    const { map } = this.side;
    map.marks = this.stops.map((z, i) => ({ at: this.side.project(z), text: String(i + 1) }));
    map.path = this.codes.length ? this.codes.map((z) => this.side.project(z)) : null;
    map.redraw();
    for (const one of [this.play, ...this.films]) one.disabled = !this.codes.length;
  }

  toggle() {
    if (this.timer) {
      this.stop();
      return;
    }
    let at = 0;
    this.play.textContent = this.words("stop");
    this.timer = setInterval(() => {
      if (!this.codes.length) return;
      const turn = at++ % (2 * this.codes.length - 2);
      const place = turn < this.codes.length ? turn : 2 * this.codes.length - 2 - turn;
      this.side.set(this.codes[place]);
    }, BEAT);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.play.textContent = this.words("play");
  }

  async film(kind) {
    try {
      save(await this.side.backend.film(this.codes.slice(0, 120), kind, this.side.y), `walk.${kind}`);
    } catch (error) {
      this.page.failed(error);
    }
  }
}
