/** Attention, and the cache that lets every position go through the model once. */

import {softmaxInto} from "./ops.js";

/** The keys and values of one layer, [K,capacity,D] each.
 * @typedef {{keys: Float32Array, values: Float32Array}} LayerCache */

/** What is kept between cycles. */
export class Cache {
  /** @param {import("./packed.js").Sizes} sizes @param {number} capacity most positions */
  constructor({L, K, D}, capacity) {
    this.capacity = capacity;
    /** How many positions it holds. */
    this.length = 0;
    const size = K * capacity * D;
    /** @type {LayerCache[]} */
    this.layers = Array.from({length: L}, () => ({
      keys: new Float32Array(size),
      values: new Float32Array(size),
    }));
  }

  /** Forget all positions from `length` on: to branch, or to read a text that begins alike.
   * @param {number} length */
  truncate(length) {
    this.length = Math.max(0, Math.min(this.length, length));
  }
}

/** Write new heads [K,T,D] behind those that are there. @param {Float32Array} kept
 * @param {Float32Array} x @param {number} T @param {number} D @param {number} past
 * @param {number} capacity */
function append(kept, x, T, D, past, capacity) {
  for (let h = 0; h * T * D < x.length; h++) {
    kept.set(x.subarray(h * T * D, (h + 1) * T * D), (h * capacity + past) * D);
  }
}

/**
 * softmax(q k^T * scale + mask) v; query t, at position past + t, sees keys up to its own.
 * @param {Float32Array} q [H,T,D]
 * @param {Float32Array} k [K,T,D], the new ones
 * @param {Float32Array} v [K,T,D]
 * @param {Cache} cache holds the positions before
 * @param {number} layer
 * @param {import("./packed.js").Sizes} sizes
 * @param {number} scale
 * @param {See} see
 * @returns {Float32Array} context [H,T,D]
 *
 * @typedef {(name: string, data: Float32Array, shape: number[]) => Float32Array} See
 */
export function attend(q, k, v, cache, layer, {H, K, D}, scale, see) {
  const T = q.length / H / D, past = cache.length, S = past + T, {capacity} = cache;
  const {keys, values} = cache.layers[layer], name = `h.${layer}.attn.`;
  append(keys, k, T, D, past, capacity);
  append(values, v, T, D, past, capacity);

  const products = new Float32Array(H * T * S);
  for (let h = 0; h < H; h++) {
    const from = Math.floor((h * K) / H) * capacity * D; // H / K heads of queries share one of keys
    for (let t = 0; t < T; t++) {
      const row = (h * T + t) * D, to = (h * T + t) * S;
      for (let s = 0; s < S; s++) {
        const key = from + s * D;
        let sum = 0;
        for (let i = 0; i < D; i++) sum += q[row + i] * keys[key + i];
        products[to + s] = sum * scale;
      }
    }
  }
  const scores = see(`${name}scores`, products, [H, T, S]);

  const shares = new Float32Array(H * T * S); // 0 for keys after the query's own
  for (let row = 0; row < H * T; row++) softmaxInto(scores, shares, row * S, past + (row % T) + 1);
  const weights = see(`${name}weights`, shares, [H, T, S]);

  const context = new Float32Array(H * T * D), sums = new Float64Array(D);
  for (let h = 0; h < H; h++) {
    const from = Math.floor((h * K) / H) * capacity * D;
    for (let t = 0; t < T; t++) {
      const row = (h * T + t) * S;
      sums.fill(0);
      for (let s = 0; s < S; s++) {
        const weight = weights[row + s], value = from + s * D;
        if (weight !== 0) for (let i = 0; i < D; i++) sums[i] += weight * values[value + i];
      }
      context.set(sums, (h * T + t) * D);
    }
  }
  return see(`${name}context`, context, [H, T, D]);
}
