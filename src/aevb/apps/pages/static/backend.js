// What the page asks for, and the backend that asks the server. A second backend, in a file without a server, has the
// same methods. D: latent size; N: points of the map.
//
// about()                 {name, data, recipe, equation, kind, shape, size, latents, layers, classes, labels, columns, limits,
//                          views, colours, n, numbers, can}
//     data                a text that is the same where the points are the same rows
//     kind                "image", "table" or "vector";  shape: [C, H, W] of images, [F] of others
//     size                D
//     latents             [{index, name, kl, low, high, layer}], the largest KL first; low, high: the ends of its slider
//     layers              [{name, start, size}], one of a model without a hierarchy
//     classes             [{number, name}] of a conditional model, else []
//     labels              names of the classes of the points, or []
//     columns             of a table [{name, kind, levels, low, high, step}], else []
//     limits              [black, white] of images; the ends of the bars of vectors
//     views               [{name, title}], such as {name: "0,1"}, {name: "pca"}
//     colours             [{name, title, kind, names}], kind: "classes" or "numbers"
//     numbers             [{name, value, text}] of the evaluation
//     can                 {score, encode, draw, walk, selection, sample, thumbnails, ...}: true where the method is there
// view(name)              {origin: [D], axes: [[D], [D]], curved}: z = origin + u axes[0] + v axes[1] at the map's point
//                         (u, v); where it is curved, such as UMAP, places are known of the points alone
// points(view, start)     {xy: Float32Array(2 n), total}: the points from number `start` on that are ready
// codes(start)            {codes: Float32Array(n D), total}: the codes of the points from `start` on that are ready
// colour(name, start)     Float32Array: numbers, or classes from 0, of the points from `start` on; NaN where unknown
// decode(zs, y, layer)    [{x: Float32Array} or {cells: [...]}], one for each z of zs;  y: a class or null;
//                         layer: of a hierarchy, the one that was moved; those below it follow
// point(i)                {index, part, name, label, z, x, reconstruction, surprise, elbo, kl, kls, neighbours, ...}
// thumbnails(indices)     [Float32Array], the data themselves
// sample(temperature, y, n)  {z, zs}: a draw of z ~ p(z), and n of them
// curves()                [{samples, train, validation}] of the training, of two runs that are compared
// walk(zs, how, steps, y) {z: [[D]]}, the codes along the way; how: "linear" or "spherical"
// selection(indices)      {n, mean, labels, columns, x}
// export(indices)         a Blob of CSV
// read(given, y)          a new data point: {z, x, reconstruction, ellipse, log_px, se, percentile, surprise}
// picture(file, view, y)  the same, of a picture file
// film(zs, kind, y)       a Blob, GIF or PNG, of codes

const FORBIDDEN = 403;

export class BackendError extends Error {}

/** Asks the server that sent the page. */
export class ServerBackend {
  constructor(token, root = "") {
    this.token = token;
    this.root = root;
    this.kept = null;
  }

  async ask(path, body) {
    const headers = { "X-Aevb-Token": this.token };
    const how = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    return this.answered(fetch(this.root + path, how));
  }

  async answered(asked) {
    let answer;
    try {
      answer = await asked;
    } catch {
      throw new BackendError("gone");
    }
    if (answer.ok) return answer;
    if (answer.status === FORBIDDEN) throw new BackendError("token");
    throw new BackendError((await answer.json().catch(() => ({}))).error || answer.statusText);
  }

  async json(path, body) {
    return (await this.ask(path, body)).json();
  }

  async numbers(path, body) {
    return new Float32Array(await (await this.ask(path, body)).arrayBuffer());
  }

  async about() {
    this.kept = await this.json("/api/about");
    return this.kept;
  }

  view(name) {
    return this.json(`/api/view?name=${encodeURIComponent(name)}`);
  }

  async points(view, start) {
    const answer = await this.ask(`/api/points?view=${encodeURIComponent(view)}&start=${start}`);
    return {
      xy: new Float32Array(await answer.arrayBuffer()),
      total: Number(answer.headers.get("X-Aevb-Total")),
    };
  }

  async codes(start) {
    const answer = await this.ask(`/api/codes?start=${start}`);
    return { codes: new Float32Array(await answer.arrayBuffer()), total: Number(answer.headers.get("X-Aevb-Total")) };
  }

  colour(name, start) {
    return this.numbers(`/api/colour?name=${encodeURIComponent(name)}&start=${start}`);
  }

  async decode(zs, y = null, layer = 0) {
    if (this.kept.kind === "table") return (await this.json("/api/decode", { z: zs, y, layer })).rows;
    return pieces(await this.numbers("/api/decode", { z: zs, y, layer }), zs.length).map((x) => ({ x }));
  }

  point(index) {
    return this.json(`/api/point?index=${index}`);
  }

  async thumbnails(indices) {
    return pieces(await this.numbers("/api/thumbnails", { indices }), indices.length);
  }

  sample(temperature, y = null, n = 1) {
    return this.json("/api/sample", { temperature, y, n, seed: Math.floor(Math.random() * 2 ** 31) });
  }

  async curves() {
    return (await this.json("/api/curves")).records;
  }

  walk(zs, how, steps) {
    return this.json("/api/walk", { z: zs, how, steps });
  }

  selection(indices) {
    return this.json("/api/selection", { indices });
  }

  async export(indices) {
    return (await this.ask("/api/export", { indices })).blob();
  }

  read(given, y = null) {
    return this.json("/api/read", { ...given, y });
  }

  /** A picture file as new data. */
  async picture(file, view, y = null) {
    const query = new URLSearchParams({ view, ...(y === null ? {} : { y }) });
    const headers = { "X-Aevb-Token": this.token, "Content-Type": "application/octet-stream" };
    return (await this.answered(fetch(`${this.root}/api/picture?${query}`, { method: "POST", headers, body: file }))).json();
  }

  async film(zs, kind, y = null) {
    return (await this.ask("/api/film", { z: zs, kind, y })).blob();
  }

  /** Numbers of the training: all that there are; then one after another as they come, until `signal` aborts. */
  async events(told, signal) {
    const answer = await fetch(`${this.root}/api/events`, { headers: { "X-Aevb-Token": this.token }, signal });
    if (!answer.ok) throw new BackendError(answer.statusText);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) if (part.startsWith("data: ")) told(JSON.parse(part.slice(6)));
    }
  }

  stop() {
    return this.json("/api/stop", {});
  }
}

function pieces(numbers, n) {
  const size = numbers.length / n;
  return Array.from({ length: n }, (_, i) => numbers.subarray(i * size, (i + 1) * size));
}

/** One question at a time; of those that come meanwhile the last is asked next, the others never. */
export class Latest {
  constructor(ask, answered, failed = () => {}) {
    Object.assign(this, { ask, answered, failed, busy: false, next: null, turn: 0 });
  }

  /** Nothing more is to come of what was asked so far. */
  forget() {
    this.turn++;
    this.next = null;
  }

  async want(...what) {
    if (this.busy) {
      this.next = what;
      return;
    }
    this.busy = true;
    while (what) {
      const turn = this.turn;
      try {
        const found = await this.ask(...what);
        if (turn === this.turn) this.answered(found, ...what);
      } catch (error) {
        this.failed(error);
      }
      what = this.next;
      this.next = null;
    }
    this.busy = false;
  }
}
