/** A model in the page: packed weights, a forward for each family, one token after the other. */

import {Cache} from "./attention.js";
import {choose, distribution, logProbability, settled} from "./decoding.js";
import {gpt2} from "./gpt2.js";
import {llama} from "./llama.js";
import {read} from "./packed.js";
import {Generator} from "./random.js";
import {Tokenizer} from "./tokenizer.js";

/** @type {Record<string, typeof gpt2>} */
const FAMILIES = {gpt2, llama};

/**
 * A value that a forward formed, and its shape, as in minillm without the axis of a batch.
 * @typedef {{data: Float32Array, shape: number[]}} Value
 *
 * Told of every value that is formed under its name; returns it, or what takes its place.
 * @typedef {(name: string, value: Value) => Value} Step
 *
 * @typedef {{max_new_tokens?: number, do_sample?: boolean, temperature?: number, top_k?: number,
 *   top_p?: number, min_p?: number, seed?: number, use_cache?: boolean, cache?: Cache, step?: Step,
 *   forced?: number[]}} Options
 *
 * One emitted token: log P(id | all before) is the unfiltered model's; probs [V] is what it was
 * drawn from, after all filters.
 * @typedef {{index: number, id: number, text: string, logprob: number, finish: string | null,
 *   logits: Float32Array, probs: Float32Array}} Moment
 */

export class Model {
  /** @param {ArrayBuffer} file a packed model (minillm/page/packing.py) */
  constructor(file) {
    const {header, matrices, arrays} = read(file);
    this.family = FAMILIES[header.family];
    if (!this.family) throw new Error(`the page has no forward for ${header.family}`);
    this.header = header;
    this.config = header.config;
    this.sizes = header.sizes;
    this.scales = header.scales;
    this.frequencies = Float32Array.from(header.frequencies ?? []);
    this.matrices = matrices;
    this.vectors = /** @type {Record<string, Float32Array>} */ (arrays);
    this.tokenizer = new Tokenizer(header.tokenizer, arrays);
    const ends = header.generation.eos_token_id ?? header.config.eos_token_id ?? [];
    /** The ids that end a text. @type {number[]} */
    this.ends = [ends].flat();
    /** The ids that are no token, and are never chosen. */
    this.forbidden = this.tokenizer
      .idsWithoutToken(this.sizes.V)
      .filter((i) => !this.ends.includes(i));
  }

  /** @param {number} [capacity] most positions */
  newCache(capacity = this.sizes.P) {
    return new Cache(this.sizes, Math.min(capacity, this.sizes.P));
  }

  /**
   * The logits after every position, [T,V], or with `last` after the last one alone, [1,V].
   * @param {number[]} ids
   * @param {{cache?: Cache, step?: Step, last?: boolean}} [how] cache: what came before; the
   *   positions are added to it
   */
  logits(ids, {cache = this.newCache(ids.length), step, last = false} = {}) {
    if (!ids.length) throw new Error("no ids: give at least one");
    const {V} = this.sizes, wrong = ids.find((i) => !Number.isInteger(i) || i < 0 || i >= V);
    if (wrong !== undefined) throw new Error(`id ${wrong} is outside the vocabulary of ${V}`);
    if (cache.length + ids.length > cache.capacity) {
      throw new Error(`${cache.length + ids.length} positions do not fit: ${cache.capacity} do`);
    }
    /** @type {import("./attention.js").See} */
    const see = step
      ? (name, data, shape) => answered(step, name, {data, shape})
      : (_, data) => data;
    const x = this.family.hidden(ids, this, cache, see);
    cache.length += ids.length;
    return this.family.head(last ? x.subarray(-this.sizes.C) : x, this, see);
  }

  /** What the last norm and the head make of a residual stream: [T,C] -> logits [T,V].
   * @param {Float32Array} x */
  lens(x) {
    return this.family.head(x, this, (_, data) => data);
  }

  /**
   * Every value of one pass by its name.
   * @param {number[]} ids
   * @param {{cache?: Cache, last?: boolean}} [how]
   * @returns {Record<string, Value>}
   */
  trace(ids, how = {}) {
    /** @type {Record<string, Value>} */
    const seen = {};
    this.logits(ids, {...how, step: (name, value) => (seen[name] = value)});
    return seen;
  }

  /**
   * The moments of a text that goes on after `ids`, a cycle each. How tokens are chosen the options
   * say, else the model's generation_config.json; do_sample: false takes the likeliest. The same
   * seed gives the text that minillm gives.
   * @param {number[]} ids
   * @param {Options} [options] cache: one that holds the first of `ids` already; use_cache: false
   *   computes all positions anew for each token; forced: the first tokens, in the place of those
   *   that would be chosen
   * @returns {globalThis.Generator<Moment, void, void>}
   */
  *generate(ids, options = {}) {
    const {step, cache = this.newCache(), use_cache = true} = options;
    const text = this.tokenizer.stream();
    const random = new Generator(options.seed ?? Math.floor(Math.random() * 2 ** 32));
    const how = settled(options, this.header.generation), most = options.max_new_tokens ?? 40;
    const room = cache.capacity - ids.length + 1; // the last token is never fed back
    let fresh = ids.slice(cache.length), n = Math.min(most, room);
    if (!fresh.length) {
      cache.truncate(ids.length - 1);
      fresh = ids.slice(-1);
    }
    for (let index = 0; index < n; index++) {
      const logits = this.logits(fresh, {cache, step, last: true}), allowed = logits.slice();
      for (const i of this.forbidden) allowed[i] = -Infinity;
      let probs = distribution(allowed, how);
      if (step) probs = answered(step, "probs", {data: probs, shape: [probs.length]});
      const drawn = choose(probs, how.temperature ? random.random() : null);
      const id = options.forced?.[index] ?? drawn;
      const end = this.ends.includes(id), finish = end ? "eos" : index + 1 === n ? "length" : null;
      const certain = end ? text.end() : text.push(id) + (finish ? text.end() : "");
      yield {index, id, text: certain, logprob: logProbability(logits, id), finish, logits, probs};
      if (finish) return;
      fresh = use_cache ? [id] : [...fresh, id];
      if (!use_cache) cache.truncate(0);
    }
  }
}

/** What `step` returns for a value, which must be as large. @param {Step} step
 * @param {string} name @param {Value} value @returns {Float32Array} */
function answered(step, name, value) {
  const new_ = step(name, value);
  if (new_?.data?.length !== value.data.length) {
    throw new Error(`the step of ${name} must return a value of shape ${value.shape}`);
  }
  return new_.data;
}
