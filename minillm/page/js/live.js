// @ts-check
/** A recording made in the page (docs/recording.md): the model writes here, under the browser's
 * clock, and then once more, looking at every value. */

import {largest, settled, softmax} from "./decoding.js";
import {Run} from "./recording.js";

const TRIES = 40, MOST_MS = 1500; // timed runs; no more of them after so long
const CANDIDATES = 50, LENS = 3;

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Moment} Moment */
/** @typedef {import("./model.js").Options} Options */
/** @typedef {{kind: string, positions: number, past: number, start: number,
 *   ends: number[]}} Timed */

/**
 * Continue a text and return the recording of it.
 *
 * about: what a recording of Python's says of model and steps, for the header, and `costs`, the
 * coefficients of what steps cost. told: is given each moment as it comes; where it says false, the
 * rest is not wanted, and the answer is null.
 * @param {Model} model
 * @param {string | number[]} prompt text, or ids
 * @param {Options} options
 * @param {any} about
 * @param {(moment: Moment) => Promise<boolean>} [told]
 * @returns {Promise<Run | null>}
 */
export async function record(model, prompt, options, about, told = async () => true) {
  const {tokenizer, sizes} = model, specials = Object.keys(tokenizer.settings.specials);
  const pieces = typeof prompt === "string" ? tokenizer.explain(prompt, specials) : [];
  const ids = typeof prompt === "string" ? pieces.flatMap((piece) => piece.ids) : prompt;
  if (!ids.length) throw new Error("empty");
  const done = await timed(model, ids, options, told);
  if (!done) return null;
  const {moments, cycles} = done, seen = new Traced(model, ids, moments);
  const decode = /** @type {(id: number) => string} */ ((id) => readable(tokenizer.tokens[id], id));
  const names = stepNames(about.steps, sizes.L), inside = ids.length;
  const {use_cache = true} = options;
  const position = use_cache ? 2 * 4 * sizes.L * sizes.K * sizes.D : 0; // bytes of keys and values
  const header = {
    ...about, compared: undefined, parting: undefined,  // which were of the run that came with the page
    made: new Date().toISOString(),
    model: {...about.model, twin: "JavaScript", threads: 1, stored: model.header.stored},
    machine: {processor: navigator.userAgent},
    steps: about.steps.map((/** @type {any} */ step) => ({
      ...step, shapes: {
        prefill: shape(step.name, seen.shapes[step.name], inside, inside),
        decode: shape(step.name, seen.shapes[step.name], 1, inside + 1),
      },
    })),
    text: {prompt: tokenizer.decode(ids), ids, pieces: pieces.map(({text, ids, merges}) => ({
      text, ids, merges: merges.map((m) => [m.rank, m.at, readable(m.left), readable(m.right)]),
    }))},
    tokens: Object.fromEntries([...seen.mentioned].map((id) => [id, decode(id)])),
    options: {...settled(options, model.header.generation), use_cache, seed: options.seed},
    moments: moments.map((m, cycle) => (
      {id: m.id, text: m.text, logprob: m.logprob, cycle, finish: m.finish}
    )),
    cycles: cycles.map(({kind, positions, past, start, ends}) => {
      const kept = position * (past + positions);
      return {
        kind, rows: 1, positions, past, start, end: start + ends[ends.length - 1], names: 0,
        kept, read: kept, written: position * positions,
      };
    }),
    names: [names],
    attention: seen.positions,
    clock: {source: "performance.now", ticks_per_second: 1e9 / tick(), stamp_ns: 0},
    limits: null,
    runs: {difference: 0, origin: about.runs.origin},
  };
  const ends = cycles.flatMap((cycle) => cycle.ends);
  const net = cycles.flatMap(({ends}) => ends.map((end, n) => end - (n ? ends[n - 1] : 0)));
  return new Run(header, {
    ...seen.arrays(),
    "times.ends": Float32Array.from(ends),
    "times.net": Float32Array.from(net),
    costs: Float32Array.from(cycles.flatMap((cycle) => costs(about.costs, cycle))),
  });
}

/** A step's shape as Python has it, with the axis of a batch. @param {string} name
 * @param {number[] | undefined} seen of a pass over all positions @param {number} T
 * @param {number} S @returns {number[]} */
function shape(name, seen, T, S) {
  if (!seen) return [];
  const [last] = seen.slice(-1);
  if (name === "ln_f" || name === "logits") return [1, 1, last];
  if (seen.length === 2) return [1, T, last];
  return [1, seen[0], T, /scores|weights/.test(name) ? S : last];
}

/** Every step of a pass in order. @param {{name: string, layered: boolean}[]} steps
 * @param {number} L @returns {string[]} */
function stepNames(steps, L) {
  const first = steps.findIndex((step) => step.layered);
  const inside = steps.filter((step) => step.layered);
  const blocks = Array.from({length: L}, (_, i) => inside.map(({name}) => `h.${i}.${name}`));
  const all = steps.map((step) => step.name);
  return [...all.slice(0, first), ...blocks.flat(), ...all.slice(first + inside.length)];
}

/** What each step costs in a cycle, of its coefficients for 1, T, past, T past and T^2.
 * @param {number[][][]} forms [steps,5,5] @param {Timed} cycle @returns {number[]} */
function costs(forms, {positions: T, past}) {
  const terms = [1, T, past, T * past, T * T];
  return forms.flat().map((form) => form.reduce((sum, a, i) => sum + a * terms[i], 0));
}

/** ns between two readings of the clock that differ. */
function tick() {
  let least = Infinity;
  for (let n = 0; n < 5; n++) {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    least = Math.min(least, now - start);
  }
  return least * 1e6;
}

/**
 * Generate under the clock, several times over the same tokens: when each step was finished, in ns,
 * the mean of the faster half, since the clock of a browser ticks slowly.
 * @param {Model} model @param {number[]} ids @param {Options} options
 * @param {(moment: Moment) => Promise<boolean>} told
 */
async function timed(model, ids, options, told) {
  const begun = performance.now();
  /** @type {Moment[]} */
  let moments = [];
  /** @type {Timed[][]} */
  const runs = [];
  do {
    /** @type {number[]} */
    let ends = [];
    const tokens = runs.length ? moments.map((m) => m.id) : options.forced ?? [];
    /** @type {Timed[]} */
    const cycles = [];
    let start = performance.now();
    const step = (/** @type {string} */ name, /** @type {any} */ value) => {
      ends.push((performance.now() - start) * 1e6);
      return value;
    };
    const found = [];
    let past = 0, positions = ids.length;
    for (const moment of model.generate(ids, {...options, step, forced: tokens})) {
      ends.push((performance.now() - start) * 1e6); // next
      cycles.push({kind: past ? "decode" : "prefill", positions, past, start: 0, ends});
      found.push(moment);
      if (!runs.length && !(await told(moment))) return null;
      if (runs.length && found.length === moments.length) break;
      if (options.use_cache === false) positions++;
      else [past, positions] = [past + positions, 1];
      ends = [];
      start = performance.now();
    }
    if (!runs.length) moments = found;
    runs.push(cycles);
    await new Promise((done) => setTimeout(done));
  } while (runs.length < TRIES && performance.now() - begun < MOST_MS);
  let now = 0;
  const cycles = runs[0].map((cycle, n) => {
    const start = now, fast = fastest(runs.map((run) => run[n].ends));
    const ends = cycle.ends.map((_, i) => {
      return fast.reduce((sum, ends) => sum + ends[i], 0) / fast.length;
    });
    now += ends[ends.length - 1];
    return {...cycle, start, ends};
  });
  return {moments, cycles};
}

/** The half that ended first: what else the machine does only slows down. Not so interval by
 * interval, of which most are shorter than a tick and 0 as often as not.
 * @param {number[][]} runs */
function fastest(runs) {
  const last = runs[0].length - 1;
  return [...runs].sort((a, b) => a[last] - b[last]).slice(0, Math.ceil(runs.length / 2));
}

/** What is kept of the values of a second pass over all positions at once: causality makes them
 * those of the cycles. */
class Traced {
  /** @param {Model} model @param {number[]} ids @param {Moment[]} moments */
  constructor(model, ids, moments) {
    const {L, H, C} = model.sizes, n = ids.length + moments.length - 1;
    const all = [...ids, ...moments.map((m) => m.id)].slice(0, n);
    /** @type {Record<string, number[]>} */
    this.shapes = {probs: [], next: []};
    this.positions = Array.from({length: n}, (_, p) => p);
    const residuals = /** @type {Float32Array[]} */ ([]);
    const weights = /** @type {Float32Array[]} */ ([]);
    this.norms = new Float32Array(n * (2 * L + 1));
    model.logits(all, {step: (name, value) => {
      const local = name.replace(/^h\.\d+\./, "");
      this.shapes[local] = value.shape;
      if (local === "embed" || local.endsWith("residual")) {
        const layer = Number(name.split(".")[1] ?? 0), sums = {embed: 0, "attn.residual": 1};
        const column = 2 * layer + (sums[/** @type {"embed"} */ (local)] ?? 2);
        for (let p = 0; p < n; p++) {
          const row = value.data.subarray(p * C, (p + 1) * C);
          this.norms[p * (2 * L + 1) + column] = Math.hypot(...row);
        }
        if (local !== "attn.residual") residuals.push(value.data);
      }
      if (local === "attn.weights") weights.push(value.data);
      return value;
    }});
    const kept = [];
    for (let p = 0; p < n; p++) {
      for (const layer of weights) {
        for (let h = 0; h < H; h++) {
          const row = (h * n + p) * n;
          for (let s = 0; s <= p; s++) kept.push(Math.round(layer[row + s] * 65535));
        }
      }
    }
    this.attention = Uint16Array.from(kept);
    this.mentioned = new Set(all);
    /** @type {Record<string, number[]>} */
    this.rows = {};
    this.k = Math.min(CANDIDATES, model.sizes.V);
    this.layers = L + 1;
    moments.forEach(({logits, probs: after, id}, m) => {
      const before = softmax(logits), words = largest(logits, this.k);
      const x = new Float32Array((L + 1) * C), at = (ids.length - 1 + m) * C;
      residuals.forEach((data, i) => x.set(data.subarray(at, at + C), i * C));
      const views = model.lens(x), V = model.sizes.V;
      this.add("candidates.ids", words);
      this.add("candidates.logits", words.map((i) => logits[i]));
      this.add("candidates.before", words.map((i) => before[i]));
      this.add("candidates.after", words.map((i) => after[i]));
      const rank = logits.reduce((count, logit) => count + (logit > logits[id] ? 1 : 0), 0);
      this.add("chosen", [logits[id], before[id], after[id], rank]);
      for (let layer = 0; layer <= L; layer++) {
        const view = softmax(views.subarray(layer * V, (layer + 1) * V));
        const best = largest(view, LENS);
        this.add("lens.ids", best);
        this.add("lens.probabilities", best.map((i) => view[i]));
        this.add("lens.chosen", [view[id]]);
      }
      for (const i of [id, ...words]) this.mentioned.add(i);
    });
    for (const i of this.rows["lens.ids"] ?? []) this.mentioned.add(i);
  }

  /** @param {string} name @param {number[]} numbers */
  add(name, numbers) {
    (this.rows[name] ??= []).push(...numbers);
  }

  /** By the names of a recording, each with its shape. */
  arrays() {
    /** @type {Record<string, any>} */
    const found = {norms: this.norms, attention: this.attention};
    for (const [name, numbers] of Object.entries(this.rows)) {
      const Kind = name.endsWith("ids") ? Int32Array : Float32Array;
      const shape = name.startsWith("lens") ? [-1, this.layers, LENS] : [-1, this.k];
      found[name] = Object.assign(Kind.from(numbers), {shape});
    }
    return found;
  }
}

/** The text of a token's bytes; what is no text as \x.., an id without a token as <4100>.
 * @param {Uint8Array | null} bytes @param {number} [id] */
function readable(bytes, id = 0) {
  if (!bytes) return `<${id}>`;
  try {
    return new TextDecoder("utf-8", {fatal: true, ignoreBOM: true}).decode(bytes);
  } catch {
    const hex = (/** @type {number} */ byte) => `\\x${byte.toString(16).padStart(2, "0")}`;
    return Array.from(bytes, (b) => (b < 128 ? String.fromCharCode(b) : hex(b))).join("");
  }
}
