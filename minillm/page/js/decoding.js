/** From logits to a choice, as minillm/decoding/filters.py: temperature, top-k, top-p, min-p. */

import {softmaxInto} from "./ops.js";

/** @typedef {import("./model.js").Options} Options */

/**
 * How tokens are chosen: what is given, else what the model's generation_config.json says.
 * Temperature 0 takes the likeliest; undefined filters are off.
 * @param {Options} given
 * @param {Options} [defaults]
 * @returns {{temperature: number, top_k?: number, top_p?: number, min_p?: number}}
 */
export function settled(given, defaults = {}) {
  const {do_sample, temperature, top_k, top_p, min_p} = {...defaults, ...given};
  const filters = (given.top_k ?? given.top_p ?? given.min_p) !== undefined;
  const draws = given.do_sample || given.temperature || filters;
  const fixed = given.do_sample === false || given.temperature === 0;
  if (draws && fixed) throw new Error("a setting samples and another does not: set one only");
  if (fixed || !(draws || do_sample)) return {temperature: 0};
  return {temperature: temperature ?? 1, top_k, top_p, min_p};
}

/** @param {Float32Array} logits @returns {Float32Array} */
export function softmax(logits) {
  const y = new Float32Array(logits.length);
  softmaxInto(logits, y);
  return y;
}

/** @param {Float32Array} x */
function largestOf(x) {
  let largest = -Infinity;
  for (let i = 0; i < x.length; i++) if (x[i] > largest) largest = x[i];
  return largest;
}

/** The indices of the k largest values, the largest first. @param {Float32Array} values
 * @param {number} k */
export function largest(values, k) {
  /** @type {number[]} */
  const found = [];
  for (let i = 0; i < values.length; i++) {
    if (found.length === k && values[i] <= values[found[k - 1]]) continue;
    let at = found.length;
    while (at > 0 && values[i] > values[found[at - 1]]) at--;
    found.splice(at, 0, i);
    if (found.length > k) found.pop();
  }
  return found;
}

/** log softmax(logits)[id], finite where the probability underflows. @param {Float32Array} logits
 * @param {number} id */
export function logProbability(logits, id) {
  const largest = largestOf(logits);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - largest);
  return logits[id] - largest - Math.log(sum);
}

/** logits with -inf where `out` says so. @param {Float32Array} logits
 * @param {(i: number) => boolean} out */
const without = (logits, out) => logits.map((x, i) => (out(i) ? -Infinity : x));

/** (logits - their largest) / t. @param {Float32Array} logits @param {number} t */
function temperature(logits, t) {
  if (t === 1) return logits;
  const largest = largestOf(logits), bounded = Math.min(Math.max(t, 1e-30), 1e30);
  return logits.map((x) => (x - largest) / bounded);
}

/** Keep the k most likely, and those that tie with the k-th. @param {Float32Array} logits
 * @param {number} k */
function topK(logits, k) {
  if (k >= logits.length) return logits;
  const least = logits.slice().sort()[logits.length - k];
  return without(logits, (i) => logits[i] < least);
}

/** Out goes whatever, summed up from the least likely, stays within 1 - p; never all.
 * @param {Float32Array} logits @param {number} p */
function topP(logits, p) {
  const probs = softmax(logits), order = Uint32Array.from(probs.keys());
  order.sort((a, b) => probs[a] - probs[b] || a - b);
  const out = new Set();
  let sum = 0;
  for (const i of order.subarray(0, -1)) {
    if ((sum += probs[i]) > 1 - p) break;
    out.add(i);
  }
  return without(logits, (i) => out.has(i));
}

/** Keep those at least p times as likely as the likeliest. @param {Float32Array} logits
 * @param {number} p */
function minP(logits, p) {
  const probs = softmax(logits), least = Math.fround(Math.fround(p) * largestOf(probs));
  return without(logits, (i) => probs[i] < least);
}

/**
 * The probabilities from which the next token is drawn, after all filters.
 * @param {Float32Array} logits [V]
 * @param {ReturnType<typeof settled>} how
 * @returns {Float32Array} [V]
 */
export function distribution(logits, how) {
  if (how.temperature > 0) {
    logits = temperature(logits, how.temperature);
    if (how.top_k) logits = topK(logits, how.top_k);
    if (how.top_p && how.top_p < 1) logits = topP(logits, how.top_p);
    if (how.min_p) logits = minP(logits, how.min_p);
  }
  return softmax(logits);
}

/**
 * The token at which the running sum passes u of the whole; the likeliest for null.
 * @param {Float32Array} probs [V]
 * @param {number | null} u drawn from [0, 1)
 */
export function choose(probs, u) {
  let token = -1;
  if (u === null) {
    token = probs.indexOf(Math.max(largestOf(probs), Number.MIN_VALUE));
  } else {
    let total = 0, running = 0;
    for (let i = 0; i < probs.length; i++) total += probs[i];
    for (let i = 0; i < probs.length && token < 0; i++) {
      running += probs[i];
      if (running > u * total) token = i;
    }
  }
  if (token < 0) throw new Error("no token can be chosen: probabilities are not finite, or all 0");
  return token;
}
