/**
 * The operations of a forward in float32, as minillm/ops.py has them: sums are formed in float64,
 * every result is rounded to float32. Letters are those of minillm/sizes.py, without B: one text.
 */

const LANES = 8; // outputs that are formed at once

/**
 * A matrix in memory: row n has what makes output n. Eight rows lie in a panel, in which the
 * numbers of one k stand side by side: a product goes through the memory from one end to the other,
 * and reads each x once for eight outputs.
 */
export class Matrix {
  /** @param {number} N rows @param {number} K numbers of a row */
  constructor(N, K) {
    this.N = N;
    this.K = K;
    this.panels = new Float32Array(Math.ceil(N / LANES) * K * LANES);
  }

  /** Put numbers from `at` on into row n, beginning with number k. @param {number} n
   * @param {number} k @param {ArrayLike<number>} numbers @param {number} at @param {number} size
   * @param {number} [factor] of each */
  put(n, k, numbers, at, size, factor = 1) {
    let to = (Math.floor(n / LANES) * this.K + k) * LANES + (n % LANES);
    for (let i = at; i < at + size; i++, to += LANES) this.panels[to] = numbers[i] * factor;
  }

  /** Rows by number. @param {ArrayLike<number>} ids [T] @returns {Float32Array} [T,K] */
  take(ids) {
    const {K, panels} = this, y = new Float32Array(ids.length * K);
    for (let t = 0; t < ids.length; t++) {
      let from = Math.floor(ids[t] / LANES) * K * LANES + (ids[t] % LANES);
      for (let k = 0; k < K; k++, from += LANES) y[t * K + k] = panels[from];
    }
    return y;
  }
}

/**
 * y = x W + b.
 * @param {Float32Array} x [T,K]
 * @param {Matrix} matrix
 * @param {Float32Array} [bias] [N]
 * @returns {Float32Array} [T,N]
 */
export function linear(x, {N, K, panels}, bias) {
  const T = x.length / K, y = new Float32Array(T * N), wide = new Float64Array(x);
  for (let n = 0; n < N; n += LANES) {
    for (let t = 0; t < T; t++) {
      let w = n * K, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
      for (let k = t * K; k < (t + 1) * K; k++, w += LANES) {
        const xk = wide[k];
        a += xk * panels[w];
        b += xk * panels[w + 1];
        c += xk * panels[w + 2];
        d += xk * panels[w + 3];
        e += xk * panels[w + 4];
        f += xk * panels[w + 5];
        g += xk * panels[w + 6];
        h += xk * panels[w + 7];
      }
      const to = t * N + n;
      if (n + LANES <= N) {
        y[to] = a;
        y[to + 1] = b;
        y[to + 2] = c;
        y[to + 3] = d;
        y[to + 4] = e;
        y[to + 5] = f;
        y[to + 6] = g;
        y[to + 7] = h;
      } else y.set([a, b, c, d, e, f, g, h].slice(0, N - n), to);
    }
  }
  for (let at = 0; bias && at < y.length; at += N) {
    for (let n = 0; n < N; n++) y[at + n] += bias[n];
  }
  return y;
}

/**
 * Rows of an array.
 * @param {Float32Array} table [P,C]
 * @param {ArrayLike<number>} ids [T]
 * @param {number} C
 * @returns {Float32Array} [T,C]
 */
export function rows(table, ids, C) {
  const y = new Float32Array(ids.length * C);
  for (let t = 0; t < ids.length; t++) y.set(table.subarray(ids[t] * C, (ids[t] + 1) * C), t * C);
  return y;
}

/** @param {Float32Array} a @param {Float32Array} b of the same size @returns {Float32Array} */
export function add(a, b) {
  const y = new Float32Array(a.length);
  for (let i = 0; i < y.length; i++) y[i] = a[i] + b[i];
  return y;
}

/** @param {Float32Array} a @param {Float32Array} b of the same size @returns {Float32Array} */
export function multiply(a, b) {
  const y = new Float32Array(a.length);
  for (let i = 0; i < y.length; i++) y[i] = a[i] * b[i];
  return y;
}

/**
 * (x - mean) / sqrt(variance + eps) * weight + bias, row by row.
 * @param {Float32Array} x [T,C]
 * @param {Float32Array} weight [C]
 * @param {Float32Array} bias [C]
 * @param {number} eps
 * @returns {Float32Array} [T,C]
 */
export function layerNorm(x, weight, bias, eps) {
  const C = weight.length, y = new Float32Array(x.length);
  for (let at = 0; at < x.length; at += C) {
    let sum = 0, squares = 0;
    for (let i = 0; i < C; i++) sum += x[at + i];
    const mean = sum / C;
    for (let i = 0; i < C; i++) squares += (x[at + i] - mean) ** 2;
    const factor = 1 / Math.sqrt(squares / C + eps);
    for (let i = 0; i < C; i++) y[at + i] = (x[at + i] - mean) * factor * weight[i] + bias[i];
  }
  return y;
}

/**
 * x / sqrt(mean(x^2) + eps) * weight, row by row.
 * @param {Float32Array} x [T,C]
 * @param {Float32Array} weight [C]
 * @param {number} eps
 * @returns {Float32Array} [T,C]
 */
export function rmsNorm(x, weight, eps) {
  const C = weight.length, y = new Float32Array(x.length);
  for (let at = 0; at < x.length; at += C) {
    let squares = 0;
    for (let i = 0; i < C; i++) squares += x[at + i] ** 2;
    const factor = 1 / Math.sqrt(squares / C + eps);
    for (let i = 0; i < C; i++) y[at + i] = x[at + i] * factor * weight[i];
  }
  return y;
}

/**
 * exp(x_i) / sum_j exp(x_j) over the first `length` numbers from `at` on; zeros elsewhere stay.
 * @param {Float32Array} x
 * @param {Float32Array} y takes the result, at the same place
 */
export function softmaxInto(x, y, at = 0, length = x.length) {
  let largest = -Infinity, sum = 0;
  for (let i = at; i < at + length; i++) if (x[i] > largest) largest = x[i];
  for (let i = at; i < at + length; i++) sum += y[i] = Math.exp(x[i] - largest);
  for (let i = at; i < at + length; i++) y[i] /= sum;
}

/** @param {Float32Array} x @param {(x: number) => number} f @returns {Float32Array} */
function map(x, f) {
  const y = new Float32Array(x.length);
  for (let i = 0; i < y.length; i++) y[i] = f(x[i]);
  return y;
}

/** The error function, to 1e-15: a series where |x| is small, a continued fraction elsewhere.
 * Source: Abramowitz, Stegun, "Handbook of Mathematical Functions" (1964), 7.1.6 and 7.1.14.
 * @param {number} x */
export function erf(x) {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size < 2.5) {
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (size + fraction);
  return Math.sign(x) * (1 - Math.exp(-x * x) / Math.sqrt(Math.PI) / (size + fraction));
}

const ROOT = Math.sqrt(2 / Math.PI);

/** @type {Record<string, (x: Float32Array) => Float32Array>} */
export const ACTIVATIONS = {
  gelu_new: (x) => map(x, (a) => 0.5 * a * (1 + Math.tanh(ROOT * (a + 0.044715 * a * a * a)))),
  gelu: (x) => map(x, (a) => 0.5 * a * (1 + erf(a / Math.SQRT2))),
  relu: (x) => map(x, (a) => (a > 0 ? a : 0)),
  silu: (x) => map(x, (a) => a / (1 + Math.exp(-a))),
};

/**
 * Columns from `first` on of [T,width], as heads: -> [H,T,D].
 * @param {Float32Array} x @param {number} width @param {number} first
 * @param {number} H @param {number} D
 */
export function splitHeads(x, width, first, H, D) {
  const T = x.length / width, y = new Float32Array(H * T * D);
  for (let h = 0; h < H; h++) {
    for (let t = 0; t < T; t++) {
      const from = t * width + first + h * D;
      y.set(x.subarray(from, from + D), (h * T + t) * D);
    }
  }
  return y;
}

/** [H,T,D] -> [T,H D], the inverse. @param {Float32Array} x @param {number} H @param {number} D */
export function mergeHeads(x, H, D) {
  const T = x.length / H / D, y = new Float32Array(x.length);
  for (let h = 0; h < H; h++) {
    for (let t = 0; t < T; t++) {
      const from = (h * T + t) * D;
      y.set(x.subarray(from, from + D), (t * H + h) * D);
    }
  }
  return y;
}

/**
 * Turn every pair (i, i + D/2) of each head by the angle of its position.
 * @param {Float32Array} x [H,T,D]
 * @param {number} T
 * @param {number} past the position of the first row
 * @param {Float32Array} frequencies [D/2], radians a position
 * @returns {Float32Array} [H,T,D]
 */
export function rotate(x, T, past, frequencies) {
  const half = frequencies.length, y = new Float32Array(x.length);
  for (let t = 0; t < T; t++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround((past + t) * frequencies[i]);
      const cos = Math.fround(Math.cos(angle)), sin = Math.fround(Math.sin(angle));
      for (let at = t * 2 * half + i; at < x.length; at += T * 2 * half) {
        const a = x[at], b = x[at + half];
        y[at] = a * cos - b * sin;
        y[at + half] = b * cos + a * sin;
      }
    }
  }
  return y;
}
