// A map that is no plane of the latent space, such as UMAP's: places stand for codes by the points that are near.

const NEAR = 4; // points whose codes a place between them is made of

export class Curved {
  /** codes: Float32Array (N, D) of the points; map: that shows them at map.xy. */
  constructor(codes, size, map) {
    Object.assign(this, { codes, size, map });
  }

  code(i) {
    return this.codes.subarray(i * this.size, (i + 1) * this.size);
  }

  /** The code at a place: the mean of the codes of the nearest points, the nearer the heavier. */
  lift(u, v) {
    const { xy } = this.map, best = [];
    for (let i = 0; i < xy.length / 2; i++) {
      const far = (xy[2 * i] - u) ** 2 + (xy[2 * i + 1] - v) ** 2;
      if (best.length === NEAR && far >= best[NEAR - 1][0]) continue;
      best.push([far, i]);
      best.sort((a, b) => a[0] - b[0]);
      best.length = Math.min(best.length, NEAR);
    }
    const weights = best.map(([far]) => 1 / (far + 1e-9)), all = weights.reduce((a, b) => a + b, 0);
    const z = new Array(this.size).fill(0);
    best.forEach(([, i], k) => this.code(i).forEach((value, d) => { z[d] += (weights[k] / all) * value; }));
    return z;
  }

  /** The place of a code: that of the point whose code is the nearest. */
  project(z) {
    let [least, at] = [Infinity, 0];
    for (let i = 0; i < this.codes.length / this.size; i++) {
      let far = 0;
      for (let d = 0; d < this.size && far < least; d++) far += (this.codes[i * this.size + d] - z[d]) ** 2;
      if (far < least) [least, at] = [far, i];
    }
    return [this.map.xy[2 * at], this.map.xy[2 * at + 1]];
  }
}
