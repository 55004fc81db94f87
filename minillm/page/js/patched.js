// @ts-check
/** What follows from a patch: the same pass twice, the second time with another value. */

import {largest, softmax} from "./decoding.js";

/** @typedef {import("./model.js").Model} Model */

const BEFORE = 6, AFTER = 2;  // of the likeliest words

/**
 * Run a text without and with a patch, as page/patched.py does.
 * @param {Model} model @param {number[]} ids @param {import("./patch.js").Patch} patch
 * @returns {import("./patch.js").Patched}
 */
export function patched(model, ids, {layer, part, head, at, other}) {
  const target = `h.${layer}.${part}`, plainly = model.trace(ids, {last: true});
  const source = other === null ? null : model.trace(model.tokenizer.encode(other), {last: true})[target];
  let reached = false;
  /** @type {{name: string, share: number}[]} */
  const changed = [];
  const logits = model.logits(ids, {last: true, step: (name, value) => {
    if (name === target) {
      reached = true;
      const data = value.data.slice(), old = source?.data, T = value.shape.at(-2) ?? 1;
      const D = value.shape.at(-1) ?? 1, from = source ? (source.shape.at(-2) ?? 1) - 1 : 0;
      const first = value.shape.length === 3 ? head * T : 0; // a head's rows stand together
      const theirs = value.shape.length === 3 ? head * (from + 1) + from : from;
      for (let t = at < 0 ? 0 : at; t < (at < 0 ? T : at + 1); t++) {
        for (let i = 0; i < D; i++) data[(first + t) * D + i] = old ? old[theirs * D + i] : 0;
      }
      return {data, shape: value.shape};
    }
    if (reached && /(attn.out|mlp.out|residual|ln_f|logits)$/.test(name)) {
      const size = value.shape.at(-1) ?? 1, last = value.data.subarray(-size);
      const was = plainly[name].data.subarray(-size);
      const moved = Math.hypot(...last.map((x, i) => x - was[i]));
      changed.push({name, share: moved / (Math.hypot(...was) || Infinity)});  // of a value of zeros 0
    }
    return value;
  }});
  const before = softmax(plainly.logits.data), after = softmax(logits);
  const listed = [...new Set([...largest(before, BEFORE), ...largest(after, AFTER)])];
  const word = (/** @type {number} */ id) => {
    const bytes = model.tokenizer.tokens[id];
    return bytes ? new TextDecoder().decode(bytes) : `<${id}>`;
  };
  return {words: listed.map((id) => ({word: word(id), before: before[id], after: after[id]})), changed};
}
