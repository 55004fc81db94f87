/** Llama, from ids to logits; read it beside minillm/families/llama/forward.py. */

import {attend} from "./attention.js";
import {
  ACTIVATIONS, add, linear, mergeHeads, multiply, rmsNorm, rotate, splitHeads,
} from "./ops.js";

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
  const {C, H, K, D, F, L} = model.sizes, T = ids.length, eps = model.config.rms_norm_eps;
  const {matrices, vectors, frequencies} = model, past = cache.length;

  const wte = see("wte", matrices["model.embed_tokens.weight"].take(ids), [T, C]);
  let x = see("embed", wte, [T, C]);

  for (let i = 0; i < L; i++) {
    const h = `h.${i}.`, layer = `model.layers.${i}.`;
    /** @param {Float32Array} x @param {string} name */
    const norm = (x, name) => rmsNorm(x, vectors[`${layer}${name}.weight`], eps);
    /** @param {Float32Array} x @param {string} name */
    const product = (x, name) =>
      linear(x, matrices[`${layer}${name}.weight`], vectors[`${layer}${name}.bias`]);

    let normed = see(`${h}ln_1`, norm(x, "input_layernorm"), [T, C]);
    /** @param {string} name @param {number} heads */
    const heads = (name, heads) => {
      const y = product(normed, `self_attn.${name}_proj`);
      return see(`${h}attn.${name}`, splitHeads(y, heads * D, 0, heads, D), [heads, T, D]);
    };
    const q = heads("q", H), k = heads("k", K), v = heads("v", K);
    const turned = see(`${h}attn.q_rotated`, rotate(q, T, past, frequencies), [H, T, D]);
    const keys = see(`${h}attn.k_rotated`, rotate(k, T, past, frequencies), [K, T, D]);
    const context = attend(turned, keys, v, cache, i, model.sizes, model.scales[i], see);
    const merged = mergeHeads(context, H, D); // [H,T,D] -> [T,H D]
    const attended = see(`${h}attn.out`, product(merged, "self_attn.o_proj"), [T, C]);
    x = see(`${h}attn.residual`, add(x, attended), [T, C]);

    normed = see(`${h}ln_2`, norm(x, "post_attention_layernorm"), [T, C]);
    const gate = see(`${h}mlp.gate`, product(normed, "mlp.gate_proj"), [T, F]);
    const up = see(`${h}mlp.up`, product(normed, "mlp.up_proj"), [T, F]);
    const act = see(`${h}mlp.act`, multiply(ACTIVATIONS.silu(gate), up), [T, F]);
    const changed = see(`${h}mlp.out`, product(act, "mlp.down_proj"), [T, C]);
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
  const T = x.length / C, norm = vectors["model.norm.weight"];
  const normed = see("ln_f", rmsNorm(x, norm, config.rms_norm_eps), [T, C]);
  const table = matrices["lm_head.weight"] ?? matrices["model.embed_tokens.weight"];
  return see("logits", linear(normed, table), [T, V]);
}

export const llama = {hidden, head};
