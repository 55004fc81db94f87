// @ts-check
/** Temperature, top-k, top-p and min-p after the fact: what they make of what a recording holds. */

/** @typedef {{temperature: number, top_k: number, top_p: number, min_p: number}} How */
/** @typedef {{id: number, logit: number, before: number, after: number}} Candidate */
/** Probabilities, each as [least, most]; kept: how many words can be drawn, null where that is not
 * known. @typedef {{after: [number, number][], kept: ?number}} Reshaped */

/** What does nothing: 0 for all tokens, as in minillm/decoding/options.py.
 * @type {How} */
export const OFF = {temperature: 1, top_k: 0, top_p: 1, min_p: 0};

/**
 * The likeliest words after temperature and filters, in the order and with the bounds of
 * minillm/decoding/filters.py.
 *
 * A recording holds k of V words, so that of the V - k others only the sum of the probabilities is
 * known, and that none is larger than the k-th. With c = p_k / p_1, r = (1 - p_1 - ... - p_k) / p_1
 * and a = 1 / T their weights (p / p_1)^a sum to something between r c^(a - 1), as few as can be, and
 * (V - k) (r / (V - k))^a, all alike. Where a filter leaves none of them, all is exact.
 * @param {Candidate[]} all the likeliest first @param {number} V @param {How} how
 * @returns {Reshaped}
 */
export function reshaped(all, V, {temperature, top_k, top_p, min_p}) {
  const [first] = all, last = all[all.length - 1];
  if (!temperature) return {after: all.map((_, i) => i ? [0, 0] : [1, 1]), kept: 1};
  const a = 1 / temperature;
  let weights = all.map(({logit}) => Math.exp((logit - first.logit) * a)), others = V - all.length;
  const r = Math.max(0, 1 - all.reduce((sum, c) => sum + c.before, 0)) / first.before;
  let tails = [0, 0];  // of the others: the least and the most
  if (others && r) {
    const c = Math.exp(last.logit - first.logit);
    tails = [r * c ** (a - 1), others * (r / others) ** a].sort((x, y) => x - y);
  }
  if (top_k && top_k <= weights.length) {
    weights = weights.filter((w) => w >= weights[top_k - 1]);  // ties stay
    [tails, others] = [[0, 0], 0];
  } else if (top_k && top_k < V) {
    const more = top_k - weights.length;
    tails = [tails[0] * more / others, Math.min(tails[1], more * weights[weights.length - 1])];
  }
  const sums = [0];  // of the first j
  for (const w of weights) sums.push(sums[sums.length - 1] + w);
  const n = weights.length, least = weights.filter((w) => w >= min_p).length;
  const [low, high] = tails.map((tail, side) => {
    const whole = sums[n] + tail, cut = sums.findIndex((sum, j) => j && whole - sum <= (1 - top_p) * whole);
    const at = cut < 0 ? n : cut;
    if (least < n) return {at: Math.min(at, least), tail: 0};
    const few = min_p ? 0 : top_p < 1 ? Math.max(0, top_p * whole - sums[n]) : tail;
    return {at, tail: top_p < 1 && cut > 0 ? 0 : side ? tail : few};
  });
  const after = all.map((_, i) => /** @type {[number, number]} */ ([
    i < low.at ? weights[i] / (sums[high.at] + high.tail) : 0,
    i < high.at ? weights[i] / (sums[Math.max(i + 1, low.at)] + low.tail) : 0,
  ]));
  return {after, kept: high.tail === 0 && low.at === high.at ? low.at : null};
}

/** As they were when the word was drawn. @param {Candidate[]} all @returns {Reshaped} */
export function recorded(all) {
  const inside = all.reduce((sum, c) => sum + c.after, 0) > 0.9999;
  return {after: all.map((c) => [c.after, c.after]), kept: inside ? all.filter((c) => c.after).length : null};
}
