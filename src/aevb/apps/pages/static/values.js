// What a model's numbers mean in the units of the data, as data/columns.py says it.

const days = 86400;

/** A model number as the column writes it. */
export function written(column, x) {
  if (!Number.isFinite(x)) return "–";
  if (column.kind === "datetime") return date(stored(column, x), column);
  if (column.kind === "angle") {
    const [start, period] = column.levels.map(Number);
    return short(start + ((((x / (2 * Math.PI)) % 1) + 1) % 1) * period);
  }
  const s = stored(column, x);
  const exact = column.decimals !== null && column.decimals <= 2;
  return exact ? s.toLocaleString("en", { maximumFractionDigits: column.decimals }) : short(s);
}

/** The stored number of a model number. */
export function stored(column, x) {
  let s = x * column.scale + column.center;
  if (column.map === "log") s = Math.exp(s);
  if (column.map === "logit") {
    const low = column.low ?? 0, high = column.high ?? 1;
    s = low + (high - low) / (1 + Math.exp(-s));
  }
  if (column.multiple) s = Math.round(s / column.multiple) * column.multiple;
  if (column.multiple && column.map === "log") s = Math.max(s, column.multiple);
  return column.decimals === null ? s : Math.round(s * 10 ** column.decimals) / 10 ** column.decimals;
}

function date(seconds, column) {
  const text = new Date(seconds * 1000);
  if (Number.isNaN(text.getTime())) return "–";
  const whole = (column.low ?? 0) % days === 0 && (column.high ?? 0) % days === 0;
  return whole ? text.toISOString().slice(0, 10) : text.toISOString().slice(0, 19).replace("T", " ");
}

export function short(x) {
  if (Math.abs(x) >= 1000) return Math.round(x).toLocaleString("en");
  return String(Number(x.toPrecision(4)));
}

/** The decoded fields of a table: {name, text, low, high, shares} for each column, from what the network gives. */
export function fieldsOf(decoder, out) {
  return decoder.columns.map((column) => {
    const { group: g, place: k, name } = column, shares = out[`shares${g}`];
    if (shares) return levels(column, shares, k);
    const of = (which) => (out[which + g] ? written(column, out[which + g][k]) : null);
    return { name, text: of("median") ?? of("mean"), low: of("low"), high: of("high") };
  });
}

function levels(column, shares, k) {
  const most = shares.length / column.of, each = column.levels.map((level, i) => [level, shares[k * most + i]]);
  each.sort((a, b) => b[1] - a[1]);
  return { name: column.name, text: each[0][0], shares: each.slice(0, 4) };
}
