"""Llama's backward: the gradient of every parameter, walking the forward's steps from the last to
the first. To be read beside forward.py; the layers' own backward stands under their forward, in
layers/.

`step` is given the gradient of each intermediate under the name that the forward has for it.
"""

from __future__ import annotations

import numpy as np

from ... import ops as numpy_ops
from ...layers.attention import grouped_query_attention_backward
from ...layers.feed_forward import swiglu_backward
from ...layers.rope import rotation
from ...names import Part, flat
from ...steps import identity, under
from ...twins.backward import backward_of
from .forward import block


def block_backward(
    dx,
    x,
    kept,
    input_layernorm,
    self_attn,
    post_attention_layernorm,
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
    rms_norm_backward, eps = backward_of("rms_norm", ops), config.rms_norm_eps
    # forward was x = x + swiglu(rms_norm(x, **post_attention_layernorm), **mlp)
    d_normed, d_mlp = swiglu_backward(
        step("mlp.out", dx),
        kept["ln_2"],
        Part(kept, "mlp."),
        **mlp,
        step=under("mlp.", step),
        ops=ops,
    )
    through, d_ln_2 = rms_norm_backward(
        step("ln_2", d_normed), kept["attn.residual"], post_attention_layernorm["weight"], eps
    )
    dx = step("attn.residual", dx + through)
    # forward was x = x + attention(rms_norm(x, **input_layernorm), **self_attn)
    d_normed, d_attn = grouped_query_attention_backward(
        step("attn.out", dx),
        kept["ln_1"],
        Part(kept, "attn."),
        **self_attn,
        n_head=config.sizes.H,
        scale=config.attention_scale(layer),
        eps=eps,
        positions=positions,
        turn=turn,
        step=under("attn.", step),
        ops=ops,
    )
    through, d_ln_1 = rms_norm_backward(step("ln_1", d_normed), x, input_layernorm["weight"], eps)
    return dx + through, {
        "input_layernorm": d_ln_1,
        "self_attn": d_attn,
        "post_attention_layernorm": d_ln_2,
        "mlp": d_mlp,
    }


def llama_backward(
    model, ids, positions, kept, d_logits=None, d_hidden=None, step=identity
) -> dict:
    """Return the gradient of every parameter by its checkpoint name, from that of the logits or of
    the last hidden state.

    ids, positions: [B,T]; kept: the Trace of the forward; d_logits: [B,T,V]; d_hidden: [B,T,C], the
    gradient of ln_f's result. A tied head gives the token table two gradients, which add up. Where
    `kept` has no intermediates of a block, only its result, they are formed again from the block
    before (see training/recompute.py).
    """
    config, weights, ops, gradients = model.config, model.weights, model.ops, {}
    body, table = weights["model"], "model.embed_tokens.weight"
    if d_logits is not None:
        # forward was logits = ln_f @ lm_head^T
        head = weights.get("lm_head", body["embed_tokens"])["weight"]
        name = table if config.tied else "lm_head.weight"
        d_hidden, gradients[name] = backward_of("unembed", ops)(
            step("logits", d_logits), kept["ln_f"], head
        )
    results = ["embed", *(f"h.{i}.mlp.residual" for i in range(len(body["layers"])))]
    dx, d_norm = backward_of("rms_norm", ops)(
        step("ln_f", d_hidden), kept[results[-1]], body["norm"]["weight"], config.rms_norm_eps
    )
    turn = rotation(positions, config.sizes.D, config.rope_theta, config.rope_scaling, dx.dtype)
    layers = {}
    for i, layer in reversed([*enumerate(body["layers"])]):
        run = {"config": config, "layer": i, "positions": positions, "turn": turn, "ops": ops}
        x, inside = kept[results[i]], Part(kept, f"h.{i}.")
        if "ln_1" not in inside:
            block(x, **layer, **run, step=(inside := type(kept)()))
        dx = step(results[i + 1], dx)
        dx, layers[i] = block_backward(dx, x, inside, **layer, **run, step=under(f"h.{i}.", step))
    # forward was embed = embed_tokens[ids]
    dx = step("embed", dx)
    if table not in gradients:
        gradients[table] = np.zeros(model.parameters[table].shape, dx.dtype)
    gradients[table] = backward_of("embedding", ops)(dx, ids, gradients[table])
    return gradients | flat({"model": {"layers": layers, "norm": d_norm}})
