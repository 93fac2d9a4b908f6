// Elements in a line. Words are always text, never markup.

/** An element with properties, and children that are elements or text. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("aria-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export function button(text, onclick, properties = {}) {
  return el("button", { type: "button", onclick, ...properties }, text);
}

/** A labelled choice; told the value that is chosen. */
export function choice(label, options, chosen, told) {
  const select = el("select", { onchange: () => told(select.value) });
  for (const { value, text } of options) select.append(el("option", { value, selected: value === chosen }, text));
  return el("label", {}, label, select);
}

/** A figure: a canvas with a caption. `describe` is for those who do not see it. */
export function figure(caption, describe = caption) {
  const canvas = el("canvas", { className: "picture", width: 8, height: 8, role: "img", "aria-label": describe });
  return { canvas, element: el("figure", {}, canvas, el("figcaption", {}, caption)) };
}

/** Give a file to the browser, to be saved. */
export function save(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Words in a list of facts; those that are not known are left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { className: "facts" }, known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

/** A function that waits for quiet before it calls. */
export function calm(call, wait) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), wait);
  };
}
