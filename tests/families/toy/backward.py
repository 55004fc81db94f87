"""The gradient of every parameter, from the last step to the first; to be read beside forward.py.
`step` is given the gradient of each intermediate under the name that the forward has for it."""

import numpy as np

from minillm.layers.attention import scaled_dot_product_attention_backward
from minillm.layers.rope import rotate_backward, rotation
from minillm.names import Part, flat
from minillm.steps import identity, under
from minillm.twins.backward import backward_of, linear_layer_backward

from .forward import block


def backward(model, ids, positions, kept, d_logits=None, d_hidden=None, step=identity):
    config, weights, ops, blocks = model.config, model.weights, model.ops, {}
    tokens = weights["tokens"]["weight"]
    d_tokens = np.zeros(tokens.shape, kept["embed"].dtype)
    if d_logits is not None:
        d_logits = step("logits", d_logits)
        d_hidden, d_tokens = backward_of("unembed", ops)(d_logits, kept["ln_f"], tokens)
    results = ["embed", *(f"h.{i}.mlp.residual" for i in range(config.L))]
    dx, d_norm = backward_of("rms_norm", ops)(
        step("ln_f", d_hidden), kept[results[-1]], weights["norm"]["weight"], config.eps
    )
    turn = rotation(positions, config.D, config.theta, dtype=dx.dtype)
    for i, layer in reversed([*enumerate(weights["blocks"])]):
        run = {"config": config, "positions": positions, "turn": turn, "ops": ops}
        x, inside = kept[results[i]], Part(kept, f"h.{i}.")
        if "ln_1" not in inside:  # only what enters each block was kept
            block(x, **layer, **run, past=None, step=(inside := type(kept)()))
        dx = step(results[i + 1], dx)
        dx, blocks[i] = block_backward(dx, x, inside, **layer, **run, step=under(f"h.{i}.", step))
    d_tokens = backward_of("embedding", ops)(step("embed", dx), ids, d_tokens)
    return {"tokens.weight": d_tokens} | flat({"blocks": blocks, "norm": d_norm})


def block_backward(dx, x, kept, norm, attn, mlp, *, config, positions, turn, step, ops):
    """dx of the block's result -> dx of what it was given, the block's gradients."""
    normed, d_mlp, d_attn = kept["ln_1"], {}, {}
    # forward was mlp.out = relu(normed W_up) W_down
    d_act, d_mlp["down"] = linear_layer_backward(
        step("mlp.out", dx), kept["mlp.act"], mlp["down"], ops
    )
    d_up = backward_of("relu", ops)(step("mlp.act", d_act), kept["mlp.up"])
    d_normed, d_mlp["up"] = linear_layer_backward(step("mlp.up", d_up), normed, mlp["up"], ops)
    # forward was attn.out = merge_heads(context) W_o
    merged = ops.merge_heads(kept["attn.context"])
    d_merged, d_attn["o"] = linear_layer_backward(step("attn.out", dx), merged, attn["o"], ops)
    d_context = step("attn.context", ops.split_heads(d_merged, config.H))
    formed = {"q": kept["attn.q_rotated"], "k": kept["attn.k_rotated"], "v": kept["attn.v"]}
    names = ("weights", "context")
    formed |= {name: kept[f"attn.{name}"] for name in names if f"attn.{name}" in kept}
    dq, dk, dv = scaled_dot_product_attention_backward(
        d_context, formed, positions, config.D**-0.5, under("attn.", step), ops
    )
    # forward was q, k = rotate(normed W_q), rotate(normed W_k); v = normed W_v
    dq = rotate_backward(step("attn.q_rotated", dq), *turn)
    dk = rotate_backward(step("attn.k_rotated", dk), *turn)
    for name, d in zip("qkv", (dq, dk, dv)):
        d = ops.merge_heads(step(f"attn.{name}", d))
        through, d_attn[name] = linear_layer_backward(d, normed, attn[name], ops)
        d_normed = d_normed + through
    through, d_norm = backward_of("rms_norm", ops)(
        step("ln_1", d_normed), x, norm["weight"], config.eps
    )
    return dx + through, {"norm": d_norm, "attn": d_attn, "mlp": d_mlp}
