// Takes the steps of a network that pages/graph.py wrote, in float32, one row at a time. No library, no build step.

/** A graph with its constants, ready to run: `run({z: [...]})` gives {name: Float32Array}. */
export class Network {
  constructor(graph) {
    this.graph = graph;
    this.constants = new Map(graph.constants.map((c) => [c.v, { data: unpack(c), shape: c.shape }]));
  }

  run(inputs) {
    const values = new Map(this.constants);
    for (const [name, [v, shape]] of Object.entries(this.graph.inputs))
      values.set(v, { data: Float32Array.from(inputs[name]), shape });
    const read = (a) => {
      if (Array.isArray(a)) return a.map(read);
      return a?.v !== undefined ? values.get(a.v) : a?.n !== undefined ? Number(a.n) : a;
    };
    for (const [v, name, args, shape] of this.graph.steps)
      values.set(v, { data: take(name, args.map(read), shape), shape });
    const out = Object.entries(this.graph.outputs);
    return Object.fromEntries(out.map(([name, v]) => [name, values.get(v).data]));
  }
}

function take(name, args, shape) {
  if (UNARY[name]) return unary(UNARY[name], args);
  if (BINARY[name]) return binary(BINARY[name], args, shape);
  return OTHER[name](args, shape);
}

// Numbers

function bytes(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out.buffer;
}

export function unpack({ type, data, scale, shape }) {
  if (type === "f32") return new Float32Array(bytes(data));
  if (type === "f16") return Float32Array.from(new Uint16Array(bytes(data)), half);
  const levels = new Int8Array(bytes(data)), steps = new Float32Array(bytes(scale));
  const row = levels.length / shape[0];
  return Float32Array.from(levels, (q, i) => q * steps[Math.floor(i / row)]);
}

function half(h) {
  const sign = h & 0x8000 ? -1 : 1, e = (h >> 10) & 31, f = h & 1023;
  return sign * (e === 0 ? f * 2 ** -24 : (1024 + f) * 2 ** (e - 25));
}

const size = (shape) => shape.reduce((a, b) => a * b, 1);

function strides(shape) {
  const out = new Array(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) { out[i] = step; step *= shape[i]; }
  return out;
}

const seen = new Map();

/** Where each element of `shape` lies in a tensor with these strides, from an offset. Shapes recur: they are kept. */
function places(shape, step, start = 0) {
  const key = `${shape}|${step}|${start}`;
  if (!seen.has(key)) seen.set(key, counted(shape, step, start));
  return seen.get(key);
}

function counted(shape, step, start) {
  const out = new Int32Array(size(shape)), at = new Array(shape.length).fill(0);
  for (let i = 0, p = start; i < out.length; i++) {
    out[i] = p;
    for (let d = shape.length - 1; d >= 0; d--) {
      p += step[d];
      if (++at[d] < shape[d]) break;
      p -= step[d] * shape[d];
      at[d] = 0;
    }
  }
  return out;
}

function gather(x, shape, step, start = 0) {
  const from = places(shape, step, start), out = new Float32Array(from.length);
  for (let i = 0; i < out.length; i++) out[i] = x.data[from[i]];
  return out;
}

/** The strides of a tensor that is broadcast to `shape`. */
function spread(x, shape) {
  const own = strides(x.shape), ahead = shape.length - x.shape.length;
  return shape.map((_, d) => (d < ahead || x.shape[d - ahead] === 1 ? 0 : own[d - ahead]));
}

// Elementwise steps

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const clamp = (x, low, high) => (x < (low ?? -Infinity) ? low : x > (high ?? Infinity) ? high : x);

function even(x, decimals = 0) {
  const unit = 10 ** decimals, s = x * unit, f = Math.floor(s), rest = s - f;
  return (rest < 0.5 || (rest === 0.5 && f % 2 === 0) ? f : f + 1) / unit;
}

function erf(x) { // by its series where that converges fast, else by the continued fraction of erfc
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = a, sum = a;
    for (let n = 1; Math.abs(term) > 1e-17; n++) { term *= (-a * a) / n; sum += term / (2 * n + 1); }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let f = 0;
  for (let n = 60; n > 0; n--) f = n / 2 / (a + f);
  return Math.sign(x) * (1 - Math.exp(-a * a) / ((a + f) * Math.sqrt(Math.PI)));
}

function gelu(x, kind) {
  const cube = Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
  return kind === "tanh" ? 0.5 * x * (1 + Math.tanh(cube)) : 0.5 * x * (1 + erf(x / Math.SQRT2));
}

export const UNARY = {
  abs: Math.abs, ceil: Math.ceil, cos: Math.cos, erf, exp: Math.exp, expm1: Math.expm1, floor: Math.floor,
  isfinite: (x) => +Number.isFinite(x), isnan: (x) => +Number.isNaN(x), log: Math.log, log1p: Math.log1p,
  logical_not: (x) => +!x, bitwise_not: (x) => +!x, neg: (x) => -x, reciprocal: (x) => 1 / x,
  relu: (x) => (x < 0 ? 0 : x), round: even, rsqrt: (x) => 1 / Math.sqrt(x), sigmoid, sign: Math.sign,
  silu: (x) => x * sigmoid(x), sin: Math.sin, sqrt: Math.sqrt, tan: Math.tan, tanh: Math.tanh, trunc: Math.trunc,
  softplus: (x, beta = 1, threshold = 20) => (x * beta > threshold ? x : Math.log1p(Math.exp(x * beta)) / beta),
  gelu, clamp, hardtanh: clamp, leaky_relu: (x, slope) => (x < 0 ? slope * x : x),
  elu: (x, alpha, scale, inner) => (x > 0 ? scale * x : scale * alpha * Math.expm1(x * inner)),
};

function unary(f, [x, a, b, c]) {
  const out = new Float32Array(x.data.length), { data } = x;
  for (let i = 0; i < out.length; i++) out[i] = f(data[i], a, b, c);
  return out;
}

export const BINARY = {
  add: (a, b, alpha = 1) => a + alpha * b, sub: (a, b, alpha = 1) => a - alpha * b, mul: (a, b) => a * b,
  div: (a, b, mode) => (mode === "floor" ? Math.floor(a / b) : mode === "trunc" ? Math.trunc(a / b) : a / b),
  minimum: (a, b) => Math.min(a, b), maximum: (a, b) => Math.max(a, b), pow: Math.pow, atan2: Math.atan2, gt: (a, b) => +(a > b),
  lt: (a, b) => +(a < b), ge: (a, b) => +(a >= b), le: (a, b) => +(a <= b), eq: (a, b) => +(a === b),
  ne: (a, b) => +(a !== b), logical_and: (a, b) => +(a && b), logical_or: (a, b) => +(a || b),
  bitwise_and: (a, b) => a & b, bitwise_or: (a, b) => a | b,
};

const tensor = (x) => (typeof x === "object" ? x : { data: [+x], shape: [] });

function binary(f, [a, b, extra], shape) {
  const x = tensor(a), y = tensor(b), n = size(shape), out = new Float32Array(n), more = extra ?? undefined;
  const whole = x.data.length === n, one = y.data.length === 1;
  if (whole && (one || y.data.length === n)) {
    for (let i = 0; i < n; i++) out[i] = f(x.data[i], y.data[one ? 0 : i], more);
    return out;
  }
  const p = places(shape, spread(x, shape)), q = places(shape, spread(y, shape));
  for (let i = 0; i < n; i++) out[i] = f(x.data[p[i]], y.data[q[i]], more);
  return out;
}

// All others

/** Calls f(start, step, length) for each line of x along an axis. */
function lines(x, dim, f) {
  const d = dim < 0 ? dim + x.shape.length : dim, step = strides(x.shape)[d], length = x.shape[d];
  const rest = x.shape.map((n, i) => (i === d ? 1 : n));
  for (const start of places(rest, strides(x.shape))) f(start, step, length);
}

function reduce(x, dims, shape, begin, f) {
  const axes = dims == null || dims.length === 0 ? x.shape.map((_, i) => i) : [dims].flat();
  const kept = x.shape.map((n, i) => (axes.some((d) => (d < 0 ? d + x.shape.length : d) === i) ? 1 : n));
  const acc = new Float64Array(size(shape)).fill(begin), to = places(x.shape, spread({ shape: kept }, x.shape));
  for (let i = 0; i < x.data.length; i++) acc[to[i]] = f(acc[to[i]], x.data[i]);
  return acc;
}

function softmax(x, dim, logs) {
  const out = new Float32Array(x.data.length);
  lines(x, dim, (start, step, n) => {
    let top = -Infinity, sum = 0;
    for (let i = 0; i < n; i++) top = Math.max(top, x.data[start + i * step]);
    for (let i = 0; i < n; i++) sum += Math.exp(x.data[start + i * step] - top);
    for (let i = 0; i < n; i++) {
      const log = x.data[start + i * step] - top - Math.log(sum);
      out[start + i * step] = logs ? log : Math.exp(log);
    }
  });
  return out;
}

function matmul(a, b) {
  const [m, k] = a.shape, n = b.shape[1], out = new Float32Array(m * n);
  b.rows ??= Array.from({ length: k }, (_, l) => b.data.subarray(l * n, (l + 1) * n));
  for (let i = 0; i < m; i++) out.set(weighted(b.rows, (l) => a.data[i * k + l], 0, n), i * n);
  return out;
}

/** Each channel normalised with its group: x (1, C, ...) in G groups, or rows of a layer. */
function normalise(x, group, eps, affine) {
  const out = new Float32Array(x.data.length);
  for (let start = 0; start < out.length; start += group) {
    let mean = 0, square = 0;
    for (let i = start; i < start + group; i++) mean += x.data[i] / group;
    for (let i = start; i < start + group; i++) square += (x.data[i] - mean) ** 2 / group;
    const scale = 1 / Math.sqrt(square + eps);
    for (let i = start; i < start + group; i++) out[i] = affine((x.data[i] - mean) * scale, i);
  }
  return out;
}

/** Of each output row (or column) and each tap, the input row that it reads; -1 where there is none. */
function sources(count, taps, limit, stride, padding, dilation, transposed) {
  const of = (y, k) => (transposed ? (y + padding - k * dilation) / stride : y * stride - padding + k * dilation);
  const inside = (t) => (Number.isInteger(t) && t >= 0 && t < limit ? t : -1);
  return Array.from({ length: taps }, (_, k) => Int32Array.from({ length: count }, (_, y) => inside(of(y, k))));
}

/** A convolution, plain or transposed: what each tap reads is a line, and outputs are weighted sums of lines. */
function convolution([x, w, bias, stride, padding, dilation, transposed, , groups], shape) {
  const [, channels, h, wide] = x.shape, [, out, oh, ow] = shape, [kh, kw] = w.shape.slice(2);
  const ys = sources(oh, kh, h, stride[0], padding[0], dilation[0], transposed);
  const xs = sources(ow, kw, wide, stride[1], padding[1], dilation[1], transposed);
  const n = oh * ow, ci = channels / groups, co = out / groups, taps = kh * kw, result = new Float32Array(out * n);
  const read = (c, k) => {
    const rows = ys[Math.floor(k / kw)], columns = xs[k % kw], line = new Float32Array(n);
    for (let y = 0, p = 0; y < oh; y++) {
      const start = rows[y] < 0 ? -1 : (c * h + rows[y]) * wide;
      for (let i = 0; i < ow; i++, p++) line[p] = start < 0 || columns[i] < 0 ? 0 : x.data[start + columns[i]];
    }
    return line;
  };
  for (let g = 0; g < groups; g++) {
    const lines = Array.from({ length: ci * taps }, (_, i) => read(g * ci + Math.floor(i / taps), i % taps));
    for (let o = 0; o < co; o++) {
      const weight = (i) => (transposed
        ? w.data[((g * ci + Math.floor(i / taps)) * co + o) * taps + (i % taps)]
        : w.data[(g * co + o) * lines.length + i]);
      result.set(weighted(lines, weight, bias ? bias.data[g * co + o] : 0, n), (g * co + o) * n);
    }
  }
  return result;
}

function weighted(lines, weight, start, n) {
  const acc = new Float64Array(n).fill(start);
  let i = 0;
  for (; i + 3 < lines.length; i += 4) {
    const [a, b, c, d] = lines.slice(i, i + 4), p = weight(i), q = weight(i + 1), r = weight(i + 2), s = weight(i + 3);
    for (let j = 0; j < n; j++) acc[j] += p * a[j] + q * b[j] + r * c[j] + s * d[j];
  }
  for (; i < lines.length; i++) {
    const line = lines[i], v = weight(i);
    for (let j = 0; j < n; j++) acc[j] += v * line[j];
  }
  return acc;
}

function cat([parts, dim], shape) {
  const d = dim < 0 ? dim + shape.length : dim, out = new Float32Array(size(shape)), step = strides(shape);
  let start = 0;
  for (const x of parts.filter((part) => part.data.length)) {
    const to = places(x.shape, step, start * step[d]);
    for (let i = 0; i < to.length; i++) out[to[i]] = x.data[i];
    start += x.shape[d];
  }
  return out;
}

function along(x, dim, pick, shape) { // the slices that `pick` names, one after another
  const d = dim < 0 ? dim + x.shape.length : dim, step = strides(x.shape);
  const out = new Float32Array(size(shape)), to = strides(shape), one = shape.map((n, i) => (i === d ? 1 : n));
  for (let k = 0; k < shape[d]; k++) {
    const from = places(one, step, pick(k) * step[d]), place = places(one, to, k * to[d]);
    for (let i = 0; i < from.length; i++) out[place[i]] = x.data[from[i]];
  }
  return out;
}

const wrap = (i, n) => (i < 0 ? i + n : i);

export const OTHER = {
  same: ([x]) => x.data,
  mm: ([a, b]) => matmul(a, b),
  addmm: ([c, a, b, beta = 1, alpha = 1], shape) => {
    const product = { data: matmul(a, b), shape };
    return binary((p, q) => alpha * p + beta * q, [product, c], shape);
  },
  convolution,
  upsample_nearest2d: ([x], [, channels, h, w]) => {
    const [, , high, wide] = x.shape, out = new Float32Array(channels * h * w);
    for (let c = 0, i = 0; c < channels; c++)
      for (let y = 0; y < h; y++) for (let j = 0; j < w; j++, i++)
        out[i] = x.data[(c * high + Math.floor((y * high) / h)) * wide + Math.floor((j * wide) / w)];
    return out;
  },
  native_layer_norm: ([x, over, weight, bias, eps]) => {
    const n = size(over);
    return normalise(x, n, eps, (v, i) => v * (weight ? weight.data[i % n] : 1) + (bias ? bias.data[i % n] : 0));
  },
  native_group_norm: ([x, weight, bias, , channels, pixels, groups, eps]) => {
    const of = (i) => Math.floor(i / pixels) % channels;
    const affine = (v, i) => v * (weight ? weight.data[of(i)] : 1) + (bias ? bias.data[of(i)] : 0);
    return normalise(x, (channels * pixels) / groups, eps, affine);
  },
  _native_batch_norm_legit_no_training: ([x, weight, bias, mean, variance, , eps]) => {
    const channels = x.shape[1], each = x.data.length / channels;
    return Float32Array.from(x.data, (v, i) => {
      const c = Math.floor(i / each), u = (v - mean.data[c]) / Math.sqrt(variance.data[c] + eps);
      return u * (weight ? weight.data[c] : 1) + (bias ? bias.data[c] : 0);
    });
  },
  where: ([c, a, b], shape) => {
    const [p, x, y] = [c, a, b].map((t) => gather(tensor(t), shape, spread(tensor(t), shape)));
    return Float32Array.from(p, (q, i) => (q ? x[i] : y[i]));
  },
  expand: ([x], shape) => gather(x, shape, spread(x, shape)),
  permute: ([x, order], shape) => gather(x, shape, order.map((d) => strides(x.shape)[wrap(d, x.shape.length)])),
  slice: ([x, dim = 0, start, , step = 1], shape) => {
    const d = wrap(dim, x.shape.length), first = Math.max(0, wrap(start ?? 0, x.shape[d]));
    return along(x, d, (k) => first + k * (step ?? 1), shape);
  },
  select: ([x, dim, index]) => {
    const d = wrap(dim, x.shape.length), one = x.shape.map((n, i) => (i === d ? 1 : n));
    return along(x, d, () => wrap(index, x.shape[d]), one);
  },
  index_select: ([x, dim, index], shape) => along(x, wrap(dim, x.shape.length), (k) => index.data[k], shape),
  cat,
  sum: ([x, dims], shape) => Float32Array.from(reduce(x, dims, shape, 0, (a, b) => a + b)),
  mean: ([x, dims], shape) => {
    const n = x.data.length / size(shape);
    return Float32Array.from(reduce(x, dims, shape, 0, (a, b) => a + b / n));
  },
  amax: ([x, dims], shape) => Float32Array.from(reduce(x, dims, shape, -Infinity, (a, b) => Math.max(a, b))),
  amin: ([x, dims], shape) => Float32Array.from(reduce(x, dims, shape, Infinity, (a, b) => Math.min(a, b))),
  _softmax: ([x, dim]) => softmax(x, dim, false),
  _log_softmax: ([x, dim]) => softmax(x, dim, true),
  gather: ([x, dim, index], shape) => {
    const d = wrap(dim, x.shape.length), step = strides(x.shape);
    const start = places(shape, step.map((n, i) => (i === d ? 0 : n)));
    return Float32Array.from(index.data, (k, i) => x.data[start[i] + k * step[d]]);
  },
  index_put: ([x, indices, values]) => {
    const at = indices.at(-1).data, n = x.shape.at(-1), out = x.data.slice();
    for (let i = 0; i < values.data.length; i++) out[Math.floor(i / at.length) * n + at[i % at.length]] = values.data[i];
    return out;
  },
  searchsorted: ([x, sought, , right]) => {
    const n = x.shape.at(-1), each = sought.shape.at(-1);
    const before = right ? (a, b) => a <= b : (a, b) => a < b;
    return Float32Array.from(sought.data, (v, i) => {
      const start = x.shape.length === 1 ? 0 : Math.floor(i / each) * n;
      let k = 0;
      while (k < n && before(x.data[start + k], v)) k++;
      return k;
    });
  },
  argmax: ([x, dim], shape) => {
    const out = [];
    lines(x, dim ?? 0, (start, step, n) => {
      let best = 0;
      for (let i = 1; i < n; i++) if (x.data[start + i * step] > x.data[start + best * step]) best = i;
      out.push(best);
    });
    return Float32Array.from(out.slice(0, size(shape)));
  },
  cumsum: ([x, dim]) => {
    const out = new Float32Array(x.data.length);
    lines(x, dim, (start, step, n) => {
      for (let i = 0, sum = 0; i < n; i++) out[start + i * step] = sum += x.data[start + i * step];
    });
    return out;
  },
};
