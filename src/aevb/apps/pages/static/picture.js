// What a model gives, on a canvas: images, bars of vectors, surprise. And the colours of everything.

// Ten hues, told apart by colour-blind eyes: the library's own palette, in the order of its figures.
export const PALETTE = [
  [0, 114, 178], [221, 111, 1], [0, 158, 114], [135, 32, 85], [235, 172, 0],
  [86, 185, 235], [145, 87, 0], [201, 114, 168], [51, 47, 137], [123, 92, 58],
];
export const UNKNOWN = [140, 145, 155];

// From blue over grey to yellow: its lightness rises evenly, and no eye needs red or green.
const SCALE = [[0, 34, 78], [47, 66, 107], [87, 93, 109], [124, 123, 120], [164, 152, 118], [208, 185, 98], [254, 232, 56]];
const ENDS = [[33, 102, 171], [247, 247, 247], [178, 24, 43]];

/** A class, from 0, as red, green, blue. Classes beyond the tenth are lighter, then darker. */
export function classColour(number) {
  if (!(number >= 0)) return UNKNOWN;
  const [base, turn] = [PALETTE[number % PALETTE.length], Math.floor(number / PALETTE.length) % 3];
  if (turn === 0) return base;
  return base.map((c) => Math.round(turn === 1 ? c + (255 - c) * 0.5 : c * 0.6));
}

/** A share between 0 and 1 as red, green, blue. */
export function scaleColour(share) {
  return between(SCALE, share);
}

function between(stops, share) {
  if (Number.isNaN(share)) return UNKNOWN;
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const [low, part] = [Math.min(Math.floor(at), stops.length - 2), at - Math.min(Math.floor(at), stops.length - 2)];
  return stops[low].map((c, k) => Math.round(c + (stops[low + 1][k] - c) * part));
}

/** Numbers of N points as colours, (3 N); the ends are percentiles 2 and 98. Gives {rgb, low, high}. */
export function coloured(numbers, kind) {
  const rgb = new Uint8Array(3 * numbers.length);
  if (kind === "classes") {
    numbers.forEach((c, i) => rgb.set(classColour(c), 3 * i));
    return { rgb };
  }
  const known = numbers.filter((v) => Number.isFinite(v)).sort();
  const end = (share) => (known.length ? known[Math.min(known.length - 1, Math.floor(share * known.length))] : 0);
  const [low, high] = [end(0.02), end(0.98)];
  numbers.forEach((v, i) => rgb.set(scaleColour(v === v ? (v - low) / (high - low || 1) : NaN), 3 * i));
  return { rgb, low, high };
}

export const css = (rgb) => `rgb(${rgb.join(",")})`;

/** An image (C, H, W) as pixels, 1 or 3 channels; of others the mean. */
export function pixels(x, shape, limits = [0, 1]) {
  const [c, h, w] = imageShape(shape);
  const out = new ImageData(w, h);
  const grey = (v) => ((v - limits[0]) / (limits[1] - limits[0] || 1)) * 255;
  for (let i = 0; i < h * w; i++) {
    for (let k = 0; k < 3; k++) out.data[4 * i + k] = grey(channel(x, c, h * w, i, k));
    out.data[4 * i + 3] = 255;
  }
  return out;
}

function channel(x, channels, size, i, k) {
  if (channels === 3) return x[k * size + i];
  let sum = 0;
  for (let c = 0; c < channels; c++) sum += x[c * size + i];
  return sum / channels;
}

/** [C, H, W] of an image's shape, which may lack the channels. */
export function imageShape(shape) {
  return shape.length === 2 ? [1, ...shape] : shape;
}

/** Draw one data point on a canvas: its pixels, whole; or bars of a vector. */
export function draw(canvas, x, about) {
  if (about.kind === "image") put(canvas, pixels(x, about.shape, about.limits));
  else bars(canvas, x, about.limits);
}

function put(canvas, image) {
  if (canvas.width !== image.width || canvas.height !== image.height) {
    canvas.width = image.width;
    canvas.height = image.height;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** How surprising each number of an image is: dark where it is usual. */
export function drawSurprise(canvas, values, shape) {
  const [c, h, w] = imageShape(shape);
  const each = Float32Array.from({ length: h * w }, (_, i) => channel(values, c === 3 ? 1 : c, h * w, i, 0));
  const top = Math.max(...each, 1e-6);
  const out = new ImageData(w, h);
  each.forEach((v, i) => out.data.set([...scaleColour(v / top), 255], 4 * i));
  put(canvas, out);
}

/** A vector as bars from zero, red above and blue below. */
export function bars(canvas, x, limits) {
  const [w, h] = [Math.max(240, 4 * x.length), 160];
  canvas.width = w;
  canvas.height = h;
  const g = canvas.getContext("2d");
  const top = Math.max(Math.abs(limits[0]), Math.abs(limits[1])) || 1;
  const wide = w / x.length;
  x.forEach((v, i) => {
    const tall = (Math.min(Math.abs(v) / top, 1) * h) / 2;
    g.fillStyle = css(v > 0 ? ENDS[2] : ENDS[0]);
    g.fillRect(i * wide, v > 0 ? h / 2 - tall : h / 2, Math.max(1, wide - 1), tall);
  });
}

/** A picture of one data point, as small as it is: a canvas. */
export function thumbnail(x, about) {
  const canvas = document.createElement("canvas");
  draw(canvas, x, about);
  return canvas;
}
