// @ts-check
/** A recording (docs/recording.md) as it lies in a file, and what follows from it. */

/** @type {Record<string, any>} */
const KINDS = {F32: Float32Array, I32: Int32Array, U8: Uint8Array, U16: Uint16Array};
export const PHASES = ["embed", "attend", "feed forward", "unembed", "choose"];
export const BINDS = ["memory", "arithmetic", "waiting"];
const MOST_CALLED = 3;  // steps of an interval that are called by their names
export const NEAR = 1 / 3;  // of the tolerance: from here on a step that agrees is near it

/**
 * @typedef {{name: string, phase: string, label: string, layered: boolean, equation: string,
 *   letters: string, file: string, line: number, code: string,
 *   shapes: Record<string, number[]>}} Step
 * @typedef {{id: number, text: string, logprob: number, cycle: number, finish: ?string}} Moment
 * @typedef {{kind: string, rows: number, positions: number, past: number, start: number,
 *   end: number, names: number, kept: number, read: number, written: number}} Cycle
 * @typedef {{products: number, elements: number, weights: number, cache: number,
 *   values: number}} Cost
 * @typedef {{name: string, phase: string, layer: number, steps: number[], share: number}} Covered
 * @typedef {Covered & {start: number, end: number, net: number, predicted: number, binds: number}} Interval
 */

/** Read the bytes of a file: its header, and its arrays, each with a `shape`.
 * @param {ArrayBuffer} buffer @returns {Run} */
export function read(buffer) {
  const view = new DataView(buffer), length = Number(view.getBigUint64(0, true));
  const text = new TextDecoder().decode(new Uint8Array(buffer, 8, length));
  const {__metadata__: about, ...entries} = JSON.parse(text);
  /** @type {Record<string, any>} */
  const arrays = {};
  for (const [name, {dtype, shape, data_offsets: [begin, end]}] of Object.entries(entries)) {
    const Kind = KINDS[dtype];
    const count = (end - begin) / Kind.BYTES_PER_ELEMENT;
    arrays[name] = Object.assign(new Kind(buffer, 8 + length + begin, count), {shape});
  }
  return new Run(JSON.parse(about.recording), arrays);
}

/** @param {number[]} numbers */
export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** One generation: its header and arrays, and what a view asks of them. Times are in ns. */
export class Run {
  /** @param {any} header @param {Record<string, any>} arrays */
  constructor(header, arrays) {
    this.header = header;
    this.arrays = arrays;
    /** @type {Step[]} */ this.steps = header.steps;
    /** @type {Moment[]} */ this.moments = header.moments;
    /** @type {Cycle[]} */ this.cycles = header.cycles;
    this.layers = header.model.sizes.L;
    this.heads = header.model.sizes.H;
    this.predicts = header.limits !== null;
    /** The share of the machine that other work took. @type {number} */
    this.busy = typeof header.machine.busy === "number" ? header.machine.busy : 0;
    this.compared = header.compared ?? null;  // with a reference, step by step
    this.parting = header.parting ?? null;  // from another computation, word by word
    this.beams = header.options.num_beams > 1 ? header.options.num_beams : 0;
    /** @type {Map<string, number>} */
    this.numbers = new Map(this.steps.map((step, n) => [step.name, n]));
    /** @type {Covered[][]} */
    this.covered = header.names.map((/** @type {string[]} */ names) => this.#cover(names));
    /** @type {number[]} */ this.firsts = [];  // of each cycle: its first interval
    let first = 0;
    for (const cycle of this.cycles) {
      this.firsts.push(first);
      first += header.names[cycle.names].length;
    }
    /** @type {number[][]} */ this.momentsOf = this.cycles.map(() => []);
    this.moments.forEach((moment, n) => this.momentsOf[moment.cycle].push(n));
    this.attended = attentionPlaces(header.attention, this.layers * this.heads);
  }

  /** For each name of a list: its phase, its layer (-1 outside), which steps it ends, and what share of them, as
   * each of several rows is chosen from in turn. @param {string[]} names @returns {Covered[]} */
  #cover(names) {
    const formed = new Set(names);
    const order = this.steps.filter((s) => !s.layered);
    const before = order.findIndex((s) => s.phase === "unembed");
    const whole = order.slice(0, before).map((s) => [s.name, s.name]);
    const deep = names.filter((name) => name.startsWith("h.")).map((name) => 1 + Number(name.split(".")[1]));
    const layers = Math.max(...deep, 0) || this.layers;  // a draft has fewer
    for (let layer = 0; layer < layers; layer++) {
      for (const s of this.steps) if (s.layered) whole.push([`h.${layer}.${s.name}`, s.name]);
    }
    whole.push(...order.slice(before).map((s) => [s.name, s.name]));
    /** @type {Map<string, number[]>} */
    const found = new Map();
    /** @type {number[]} */
    let waiting = [];
    for (const [name, local] of whole) {
      waiting.push(/** @type {number} */ (this.numbers.get(local)));
      if (formed.has(name)) {
        found.set(name, waiting);
        waiting = [];
      }
    }
    /** @type {Record<string, number>} */
    const often = {};
    for (const name of names) often[name] = (often[name] ?? 0) + 1;
    return names.map((name) => {
      const [, layer, local] = name.match(/^h\.(\d+)\.(.*)$/) ?? [null, "-1", name];
      const step = this.steps[/** @type {number} */ (this.numbers.get(local))];
      return {name, phase: step.phase, layer: Number(layer), steps: found.get(name) ?? [], share: 1 / often[name]};
    });
  }

  /** How many intervals a cycle has. @param {number} cycle */
  count(cycle) {
    return this.covered[this.cycles[cycle].names].length;
  }

  /** One interval of a cycle. @param {number} cycle @param {number} n @returns {Interval} */
  interval(cycle, n) {
    const {start, names} = this.cycles[cycle], at = this.firsts[cycle] + n;
    const ends = this.arrays["times.ends"];
    return {
      ...this.covered[names][n],
      start: start + (n ? ends[at - 1] : 0),
      end: start + ends[at],
      net: this.arrays["times.net"][at],
      predicted: this.predicts ? this.arrays["predicted.seconds"][at] * 1e9 : NaN,
      binds: this.predicts ? this.arrays["predicted.binds"][at] : -1,
    };
  }

  /** What an interval is called: by all steps that are timed together in it, by the first and the last of many.
   * @param {Covered} i @param {string} [asked] the step of them that stands first, if there is one */
  called({steps}, asked) {
    const labels = steps.map((n) => this.steps[n].label), last = labels.length - 1;
    const all = labels.length > MOST_CALLED ? `${labels[0]} … ${labels[last]}` : labels.join(", ");
    const at = steps.findIndex((n) => this.steps[n].name === asked);
    return at < 0 || !last ? all : `${labels[at]} (${all})`;
  }

  /** All intervals of a cycle. @param {number} cycle */
  intervals(cycle) {
    return Array.from({length: this.count(cycle)}, (_, n) => this.interval(cycle, n));
  }

  /** What a step costs in one layer, in a cycle. @param {number} cycle @param {number} step
   * @returns {Cost} */
  cost(cycle, step) {
    const at = 5 * (cycle * this.steps.length + step), all = this.arrays.costs;
    const [products, elements, weights, cache, values] = all.subarray(at, at + 5);
    return {products, elements, weights, cache, values};
  }

  /** What several intervals cost together. @param {number} cycle @param {Covered[]} intervals */
  costs(cycle, intervals) {
    const sum = {products: 0, elements: 0, weights: 0, cache: 0, values: 0};
    for (const {steps, share} of intervals) {
      for (const step of steps) {
        const cost = this.cost(cycle, step);
        for (const what of /** @type {(keyof Cost)[]} */ (Object.keys(sum))) sum[what] += share * cost[what];
      }
    }
    return sum;
  }

  /** Totals of a cycle over its intervals that `picks`: ns measured and predicted, the limit
   * that binds for the longest, and the cost.
   * @param {number} cycle @param {(i: Interval) => boolean} [picks] */
  total(cycle, picks = () => true) {
    const all = this.intervals(cycle).filter(picks);
    const bound = [0, 0, 0], sum = {net: 0, predicted: 0, binds: -1};
    for (const i of all) {
      sum.net += i.net;
      sum.predicted += i.predicted;
      if (i.binds >= 0) bound[i.binds] += i.predicted;
    }
    if (this.predicts && all.length) sum.binds = bound.indexOf(Math.max(...bound));
    return {...sum, cost: this.costs(cycle, all)};
  }

  /** How far a step of a layer is from the reference, as a share of its largest value; -1 where
   * there is nothing to compare with. @param {number} step @param {number} layer -1 for any */
  distance(step, layer) {
    if (!this.compared) return -1;
    const all = this.arrays.distances.subarray(step * this.layers, (step + 1) * this.layers);
    return layer < 0 || !this.steps[step].layered ? Math.max(...all) : all[layer];
  }

  /** All steps of a pass, in the order in which they are computed; layer -1 of those outside the blocks.
   * @returns {{step: number, layer: number}[]} */
  get places() {
    const order = this.steps.map((_, n) => n), layered = order.filter((n) => this.steps[n].layered);
    const after = order.filter((n) => n > layered[layered.length - 1]);
    const layers = Array.from({length: this.layers}, (_, layer) => layered.map((step) => ({step, layer})));
    return [...order.filter((n) => n < layered[0]).map((step) => ({step, layer: -1})), ...layers.flat(),
      ...after.map((step) => ({step, layer: -1}))];
  }

  /** All that was compared with the reference. */
  get distances() {
    return this.places.map((at) => ({...at, distance: this.distance(at.step, at.layer)}))
      .filter((at) => at.distance >= 0);
  }

  /** How far each step of a moment is from the other computation's, from the same inputs, in times of the rounding
   * of both. @param {number} moment */
  partings(moment) {
    const all = this.arrays["parting.steps"], from = moment * this.steps.length;
    return this.places.map((at) => ({...at, times: all[(from + at.step) * this.layers + Math.max(0, at.layer)]}))
      .filter((at) => at.times >= 0);
  }

  /** What is said of a distance by its colour. @param {number} distance */
  kind(distance) {
    const {tolerance} = this.compared ?? {};
    return distance < 0 ? "choose" : distance > tolerance ? "differs" : distance > NEAR * tolerance ? "near" : "agrees";
  }

  /** How long a cycle took. @param {number} cycle */
  lasted(cycle) {
    return this.cycles[cycle].end - this.cycles[cycle].start;
  }

  /** The cycle whose duration is the median of those that bring words: the decode cycles, with a draft
   * its checks, without a cache all but the first; -1 without one. */
  get typical() {
    const later = this.cycles.map((_, n) => n).slice(1).filter((n) => this.momentsOf[n].length);
    const of = (/** @type {string} */ kind) => later.filter((n) => this.cycles[n].kind === kind);
    const found = [of("verify"), of("decode"), later].find((some) => some.length) ?? [];
    found.sort((a, b) => this.lasted(a) - this.lasted(b));
    return found.length ? found[found.length >> 1] : -1;
  }

  /** How long a word takes after the first: the median, or where guesses bring several, the mean. */
  get each() {
    if (this.typical < 0) return this.end;
    const texts = this.header.options.batch ? this.cycles[this.typical].rows : 1;  // that a cycle goes on with
    if (!this.guesses.checked) return this.lasted(this.typical) / texts;
    const {cycle} = this.moments[0], later = this.moments.length - this.momentsOf[cycle].length;
    return (this.end - this.cycles[cycle].end) / later;
  }

  /** How many guesses of a draft were checked and kept, and how many words a check brought. */
  get guesses() {
    const checks = this.cycles.map((_, n) => n).filter((n) => this.cycles[n].kind === "verify");
    const words = checks.reduce((sum, n) => sum + this.momentsOf[n].length, 0);
    const fed = checks.reduce((sum, n) => sum + this.cycles[n].positions, 0);
    return {kept: words - checks.length, checked: fed - checks.length, each: words / checks.length};
  }

  get end() {
    return this.cycles[this.cycles.length - 1].end;
  }

  /** The text of an id. @param {number} id @returns {string} */
  word(id) {
    return this.header.tokens[id] ?? `<${id}>`;
  }

  /** All ids, the prompt's first. @returns {number[]} */
  get ids() {
    return [...this.header.text.ids, ...this.moments.map((m) => m.id)];
  }

  /** The position that decides a moment. @param {number} moment */
  position(moment) {
    return this.header.text.ids.length - 1 + moment;
  }

  /** The candidates of a moment. @param {number} moment */
  candidates(moment) {
    const k = this.arrays["candidates.ids"].shape[1], from = k * moment;
    return Array.from({length: k}, (_, n) => ({
      id: this.arrays["candidates.ids"][from + n],
      logit: this.arrays["candidates.logits"][from + n],
      before: this.arrays["candidates.before"][from + n],
      after: this.arrays["candidates.after"][from + n],
    }));
  }

  /** Of the token that came. @param {number} moment */
  chosen(moment) {
    const [logit, before, after, rank] = this.arrays.chosen.subarray(4 * moment, 4 * moment + 4);
    return {logit, before, after, rank};
  }

  /** The likeliest words after the embedding and each layer. @param {number} moment */
  lens(moment) {
    const [, depth, k] = this.arrays["lens.ids"].shape;
    return Array.from({length: depth}, (_, layer) => {
      const row = moment * depth + layer;
      return {
        words: Array.from({length: k}, (_, n) => ({
          id: this.arrays["lens.ids"][row * k + n],
          probability: this.arrays["lens.probabilities"][row * k + n],
        })),
        chosen: this.arrays["lens.chosen"][row],
      };
    });
  }

  /** Weights [position + 1] of a head, or null where they are not kept.
   * @param {number} position @param {number} layer @param {number} head */
  attention(position, layer, head) {
    const at = this.attended.get(position);
    if (at === undefined) return null;
    const from = at + (layer * this.heads + head) * (position + 1);
    const kept = this.arrays.attention.subarray(from, from + position + 1);
    return Float32Array.from(kept, (w) => w / 65535);
  }
}

/** Where the weights of each kept position begin. @param {number[]} kept @param {number} rows */
function attentionPlaces(kept, rows) {
  const places = new Map();
  let at = 0;
  for (const position of kept) {
    places.set(position, at);
    at += rows * (position + 1);
  }
  return places;
}
