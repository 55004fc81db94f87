/** GPT-2, from ids to logits; read it beside minillm/families/gpt2/forward.py. */

import {attend} from "./attention.js";
import {ACTIVATIONS, add, layerNorm, linear, mergeHeads, rows, splitHeads} from "./ops.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./attention.js").See} See */

/**
 * All of it up to the last norm.
 * @param {number[]} ids [T]
 * @param {Model} model
 * @param {import("./attention.js").Cache} cache the T positions are added to it by the caller
 * @param {See} see
 * @returns {Float32Array} the residual stream after the last block, [T,C]
 */
function hidden(ids, model, cache, see) {
  const {C, H, D, F, L} = model.sizes, T = ids.length, eps = model.config.layer_norm_epsilon;
  const activate = ACTIVATIONS[model.config.activation_function];
  const {matrices, vectors} = model;

  const wte = see("wte", matrices["wte.weight"].take(ids), [T, C]);
  const positions = ids.map((_, t) => cache.length + t);
  const wpe = see("wpe", rows(vectors["wpe.weight"], positions, C), [T, C]);
  let x = see("embed", add(wte, wpe), [T, C]);

  for (let i = 0; i < L; i++) {
    const h = `h.${i}.`;
    /** @param {Float32Array} x @param {string} name */
    const norm = (x, name) =>
      layerNorm(x, vectors[`${h}${name}.weight`], vectors[`${h}${name}.bias`], eps);
    /** @param {Float32Array} x @param {string} name */
    const product = (x, name) =>
      linear(x, matrices[`${h}${name}.weight`], vectors[`${h}${name}.bias`]);

    let normed = see(`${h}ln_1`, norm(x, "ln_1"), [T, C]);
    const width = 3 * H * D; // q | k | v side by side
    const qkv = see(`${h}attn.c_attn`, product(normed, "attn.c_attn"), [T, width]);
    const [q, k, v] = ["q", "k", "v"].map((name, part) =>
      see(`${h}attn.${name}`, splitHeads(qkv, width, part * H * D, H, D), [H, T, D]),
    );
    const context = attend(q, k, v, cache, i, model.sizes, model.scales[i], see); // [H,T,D]
    const merged = mergeHeads(context, H, D); // -> [T,H D]
    const attended = see(`${h}attn.out`, product(merged, "attn.c_proj"), [T, C]);
    x = see(`${h}attn.residual`, add(x, attended), [T, C]);

    normed = see(`${h}ln_2`, norm(x, "ln_2"), [T, C]);
    const expanded = see(`${h}mlp.c_fc`, product(normed, "mlp.c_fc"), [T, F]);
    const activated = see(`${h}mlp.act`, activate(expanded), [T, F]);
    const changed = see(`${h}mlp.out`, product(activated, "mlp.c_proj"), [T, C]);
    x = see(`${h}mlp.residual`, add(x, changed), [T, C]);
  }

  return x;
}

/**
 * The last norm, and how well each token would come next.
 * @param {Float32Array} x [T,C]
 * @param {Model} model
 * @param {See} see
 * @returns {Float32Array} logits [T,V]
 */
function head(x, {sizes: {C, V}, config, matrices, vectors}, see) {
  const T = x.length / C, eps = config.layer_norm_epsilon;
  const normed = layerNorm(x, vectors["ln_f.weight"], vectors["ln_f.bias"], eps);
  const table = matrices["lm_head.weight"] ?? matrices["wte.weight"];
  return see("logits", linear(see("ln_f", normed, [T, C]), table), [T, V]);
}

export const gpt2 = {hidden, head};
