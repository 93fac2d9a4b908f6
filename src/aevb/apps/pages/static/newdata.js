// New data: a drawing, a picture that is dropped, a row that is typed. Encoded, reconstructed, placed, scored.

import { Latest } from "./backend.js";
import { button, calm, el, facts } from "./dom.js";
import { looks } from "./panels.js";
import { imageShape } from "./picture.js";
import { range } from "./table.js";

const SHEET = 256; // pixels of the sheet on which one draws

export class NewData {
  constructor(page) {
    Object.assign(this, { page, words: page.words, about: page.about });
    this.result = el("div", { className: "card-in", "aria-live": "polite" });
    this.reader = new Latest((given) => this.side.backend.read({ ...given, view: this.side.view }, this.side.y), (found) => this.show(found), page.failed);
    this.element = this.about.kind === "table" ? this.form() : this.drawing();
  }

  get side() {
    return this.page.main;
  }

  show(found) {
    const { side, words } = this;
    side.map.ellipse = found.ellipse;
    side.set(found.z, { layer: 0 });
    const score = found.log_px === undefined ? [] : [
      el("p", {}, el("strong", {}, words("odder", Math.round(found.odder)))),
      facts([[words("logpx"), `${found.log_px.toFixed(1)} ± ${found.se.toFixed(1)}`]]),
    ];
    const seen = this.about.kind === "table" ? this.fill(found.cells) : looks(found, side, words);
    this.result.replaceChildren(...seen, ...score, el("p", { className: "quiet" }, words("ellipse")));
  }

  // A drawing

  drawing() {
    const { words } = this;
    this.sheet = el("canvas", { className: "sheet", width: SHEET, height: SHEET, role: "img", "aria-label": words("drawHelp"), tabIndex: 0 });
    this.pen = this.sheet.getContext("2d");
    this.clear();
    this.listen();
    const colour = imageShape(this.about.shape)[0] === 3 ? el("input", { type: "color", value: "#ffffff", "aria-label": words("draw"), oninput: () => { this.ink = colour.value; } }) : null;
    const tools = el("div", { className: "row" }, button(words("clear"), () => this.cleared()), colour);
    return el("div", { className: "card-in" }, el("p", { className: "quiet" }, words("drawHelp")), this.sheet, tools, this.dropArea(words("drop"), "image/*", (file) => this.picture(file)), this.result);
  }

  clear() {
    this.pen.fillStyle = "#000";
    this.pen.fillRect(0, 0, SHEET, SHEET);
  }

  cleared() {
    this.clear();
    this.reader.forget();
    this.side.map.ellipse = null;
    this.side.map.redraw();
    this.result.replaceChildren();
  }

  listen() {
    const place = (e) => {
      const box = this.sheet.getBoundingClientRect();
      return [((e.clientX - box.left) / box.width) * SHEET, ((e.clientY - box.top) / box.height) * SHEET];
    };
    this.sheet.onpointerdown = (e) => {
      this.sheet.setPointerCapture(e.pointerId);
      this.last = place(e);
      this.stroke(this.last);
    };
    this.sheet.onpointermove = (e) => { if (this.last) this.stroke(place(e)); };
    this.sheet.onpointerup = () => {
      this.last = null;
      this.readSheet();
    };
  }

  stroke(at) {
    Object.assign(this.pen, { strokeStyle: this.ink || "#fff", lineWidth: SHEET / 11, lineCap: "round", lineJoin: "round" });
    this.pen.beginPath();
    this.pen.moveTo(...this.last);
    this.pen.lineTo(at[0], at[1] + 0.01);
    this.pen.stroke();
    this.last = at;
    this.readSheet();
  }

  /** The sheet at the size of the data, channels first, each pixel the mean of those that it covers. */
  readSheet() {
    const [c, h, w] = imageShape(this.about.shape);
    const { data } = this.pen.getImageData(0, 0, SHEET, SHEET);
    const out = new Array(c * h * w).fill(0);
    const counts = new Array(h * w).fill(0);
    for (let i = 0; i < SHEET * SHEET; i++) {
      const place = Math.floor((Math.floor(i / SHEET) * h) / SHEET) * w + Math.floor(((i % SHEET) * w) / SHEET);
      counts[place]++;
      for (let k = 0; k < c; k++) out[k * h * w + place] += data[4 * i + (c === 3 ? k : 0)] / 255;
    }
    this.reader.want({ pixels: out.map((v, i) => Math.min(1, v / (counts[i % (h * w)] || 1))), centre: true });
  }

  dropArea(text, accept, took) {
    const input = el("input", { type: "file", accept, className: "hush", "aria-label": text, onchange: () => input.files[0] && took(input.files[0]) });
    const area = el("label", { className: "drop" }, text, input);
    area.ondragover = (e) => {
      e.preventDefault();
      area.classList.add("over");
    };
    area.ondragleave = () => area.classList.remove("over");
    area.ondrop = (e) => {
      e.preventDefault();
      area.classList.remove("over");
      if (e.dataTransfer.files[0]) took(e.dataTransfer.files[0]);
    };
    return area;
  }

  async picture(file) {
    try {
      this.show(await this.side.backend.picture(file, this.side.view, this.side.y));
    } catch (error) {
      this.page.failed(error);
    }
  }

  // A row of a table

  form() {
    const { words } = this;
    this.fields = new Map();
    const read = calm(() => this.readFields(), 250);
    const rows = this.about.columns.map((column) => this.field(column, read));
    const head = el("tr", {}, ["column", "value", "filled", "interval"].map((key) => el("th", {}, words(key))));
    const table = el("table", {}, el("thead", {}, head), el("tbody", {}, rows));
    const tools = el("div", { className: "row" }, button(words("clear"), () => this.emptied()), button(words("fill"), () => this.readFields(), { className: "first" }));
    return el("div", { className: "card-in" }, el("p", { className: "quiet" }, words("readHelp")), el("div", { className: "cells" }, table), tools,
      this.dropArea(words("dropRow"), ".csv,text/csv", (file) => this.csv(file)), this.result);
  }

  field(column, read) {
    const name = column.name;
    const input = column.levels.length
      ? el("select", { onchange: read, "aria-label": name }, el("option", { value: "" }, "—"), column.levels.map((level) => el("option", { value: level }, level)))
      : el("input", { type: "text", inputMode: "decimal", oninput: read, "aria-label": name, placeholder: "—" });
    const [said, where] = [el("td", {}), el("td", {})];
    this.fields.set(name, { input, said, where });
    return el("tr", {}, el("td", {}, name), el("td", {}, input), said, where);
  }

  readFields() {
    const cells = {};
    for (const [name, { input }] of this.fields) if (input.value.trim()) cells[name] = input.value.trim();
    this.reader.want({ cells });
  }

  emptied() {
    for (const { input, said, where } of this.fields.values()) {
      input.value = "";
      said.textContent = "";
      where.replaceChildren();
    }
    this.cleared_();
  }

  cleared_() {
    this.reader.forget();
    this.side.map.ellipse = null;
    this.side.map.redraw();
    this.result.replaceChildren();
  }

  fill(cells) {
    for (const cell of cells) {
      const { said, where } = this.fields.get(cell.name);
      const odd = cell.surprise === null ? "" : `${this.words("surprise")} ${cell.surprise.toFixed(1)}`;
      said.replaceChildren(cell.filled ? el("em", {}, cell.text ?? "—") : "");
      where.replaceChildren(cell.filled ? range(cell) : el("span", { className: "quiet" }, odd));
    }
    return [];
  }

  async csv(file) {
    try {
      const found = await this.side.backend.read({ csv: await file.text(), view: this.side.view }, this.side.y);
      for (const cell of found.cells) this.fields.get(cell.name).input.value = cell.filled ? "" : cell.text;
      this.show(found);
    } catch (error) {
      this.page.failed(error);
    }
  }
}
