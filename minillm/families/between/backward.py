"""The backward of the models between GPT-2 and Llama, walking the forward's steps from the last to
the first. To be read beside forward.py.

`step` is given the gradient of each intermediate under the name that the forward has for it.
"""

from __future__ import annotations

import numpy as np

from ... import ops as numpy_ops
from ...layers.attention import (
    scaled_dot_product_attention_backward,
    turned_attention_backward,
)
from ...layers.feed_forward import feed_forward_backward, swiglu_backward
from ...names import Part, flat
from ...steps import identity, under
from ...twins.backward import backward_of, linear_layer_backward
from .forward import block, turn_of


def norm_backward(dy, x, ln, config, ops):
    """Of either kind: dx, and the gradients of its weights."""
    kind = "rms_norm" if config.rms_norm else "layer_norm"
    return backward_of(kind, ops)(dy, x, ln["weight"], config.norm_epsilon)


def attention_backward(
    d_out, x, kept, c_attn, c_proj, *, config, layer, positions, turn, step, ops
):
    """Walk back from the output to x and the parameters.

    d_out, x: [B,T,C]; kept: what the forward formed -> dx [B,T,C], {"c_attn": gradients, "c_proj":
    gradients}.
    """
    # forward was out = linear(merge_heads(context), **c_proj)
    d_merged, d_proj = linear_layer_backward(d_out, ops.merge_heads(kept["context"]), c_proj, ops)
    d_context = step("context", ops.split_heads(d_merged, config.sizes.H))
    # forward was context = attention(q, k, v), of the turned q and k where there is rotation
    scale = config.attention_scale(layer)
    if config.rope:
        d_qkv = turned_attention_backward(d_context, kept, positions, scale, turn, step, ops)
    else:
        d_qkv = scaled_dot_product_attention_backward(d_context, kept, positions, scale, step, ops)
    # forward was q | k | v = linear(x, **c_attn): [B,T,C] -> [B,T,(H+2K)D]
    d_qkv = [ops.merge_heads(step(name, d)) for name, d in zip("qkv", d_qkv)]
    d_joined = step("c_attn", np.concatenate(d_qkv, axis=-1))
    dx, d_attn = linear_layer_backward(d_joined, x, c_attn, ops)
    return dx, {"c_attn": d_attn, "c_proj": d_proj}


def block_backward(
    dx,
    x,
    kept,
    ln_1,
    attn,
    ln_2,
    mlp,
    *,
    config,
    layer,
    positions,
    turn,
    step=identity,
    ops=numpy_ops,
):
    """Walk back from the block's result to x and the parameters.

    A residual adds a branch to x, so the gradient of x is dx itself plus what comes back through
    the branch. dx: gradient of the block's result; x: what the block was given; both [B,T,C]; kept:
    what the forward formed -> dx [B,T,C], the block's gradients.
    """
    # forward was x = x + change(norm(x, ln_2), **mlp)
    change_backward = swiglu_backward if config.swiglu else feed_forward_backward
    d_normed, d_mlp = change_backward(
        step("mlp.out", dx),
        kept["ln_2"],
        Part(kept, "mlp."),
        **mlp,
        step=under("mlp.", step),
        ops=ops,
    )
    through, d_ln_2 = norm_backward(
        step("ln_2", d_normed), kept["attn.residual"], ln_2, config, ops
    )
    dx = step("attn.residual", dx + through)
    # forward was x = x + attention(norm(x, ln_1), **attn)
    d_normed, d_attn = attention_backward(
        step("attn.out", dx),
        kept["ln_1"],
        Part(kept, "attn."),
        **attn,
        config=config,
        layer=layer,
        positions=positions,
        turn=turn,
        step=under("attn.", step),
        ops=ops,
    )
    through, d_ln_1 = norm_backward(step("ln_1", d_normed), x, ln_1, config, ops)
    return dx + through, {"ln_1": d_ln_1, "attn": d_attn, "ln_2": d_ln_2, "mlp": d_mlp}


def between_backward(
    model, ids, positions, kept, d_logits=None, d_hidden=None, step=identity
) -> dict:
    """Return the gradient of every parameter by its name, from that of the logits or of the last
    hidden state.

    ids, positions: [B,T]; kept: the Trace of the forward; d_logits: [B,T,V]; d_hidden: [B,T,C], the
    gradient of ln_f's result. The token table, which is the head, has two gradients, which add up.
    Where `kept` has no intermediates of a block, only its result, they are formed again from the
    block before (see training/recompute.py).
    """
    config, weights, ops, gradients = model.config, model.weights, model.ops, {}
    if d_logits is not None:
        # forward was logits = ln_f @ wte^T
        d_hidden, gradients["wte.weight"] = backward_of("unembed", ops)(
            step("logits", d_logits), kept["ln_f"], weights["wte"]["weight"]
        )
    results = ["embed", *(f"h.{i}.mlp.residual" for i in range(config.n_layer))]
    dx, d_ln_f = norm_backward(
        step("ln_f", d_hidden), kept[results[-1]], weights["ln_f"], config, ops
    )
    turn = turn_of(config, positions, dx.dtype)
    blocks = {}
    for i, layer in reversed([*enumerate(weights["h"])]):
        run = {"config": config, "layer": i, "positions": positions, "turn": turn, "ops": ops}
        x, inside = kept[results[i]], Part(kept, f"h.{i}.")
        if "ln_1" not in inside:
            block(x, **layer, **run, step=(inside := type(kept)()))
        dx = step(results[i + 1], dx)
        dx, blocks[i] = block_backward(dx, x, inside, **layer, **run, step=under(f"h.{i}.", step))
    # forward was embed = wte[ids] + wpe[positions], or wte[ids] alone
    dx, positions = step("embed", dx), np.broadcast_to(positions, np.shape(ids))
    tables = {"wte.weight": ids} | ({} if config.rope else {"wpe.weight": positions})
    for name, rows in tables.items():
        if name not in gradients:
            gradients[name] = np.zeros(model.parameters[name].shape, dx.dtype)
        gradients[name] = backward_of("embedding", ops)(dx, rows, gradients[name])
    return gradients | flat({"h": blocks, "ln_f": d_ln_f})
