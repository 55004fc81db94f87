"""GPT-2's backward: the gradient of every parameter, walking the forward's steps from the last to
the first. To be read beside forward.py; the layers' own backward stands under their
forward in layers/.

`step` is given the gradient of each intermediate under the name that the forward has for it.
"""

from __future__ import annotations

import numpy as np

from ... import ops as numpy_ops
from ...layers.attention import causal_self_attention_backward
from ...layers.feed_forward import feed_forward_backward
from ...names import Part, flat
from ...steps import identity, under
from ...twins.backward import backward_of
from .forward import block


def block_backward(
    dx, x, kept, ln_1, attn, ln_2, mlp, *, config, layer, positions, step=identity, ops=numpy_ops
):
    """Walk back from the block's result to x and the parameters.

    A residual adds a branch to x, so the gradient of x is dx itself plus what comes back through
    the branch. dx: gradient of the block's result; x: what the block was given; both [B,T,C]; kept:
    what the forward formed -> dx [B,T,C], the block's gradients.
    """
    layer_norm_backward, eps = backward_of("layer_norm", ops), config.layer_norm_epsilon
    # forward was x = x + feed_forward(layer_norm(x, **ln_2), **mlp)
    d_normed, d_mlp = feed_forward_backward(
        step("mlp.out", dx),
        kept["ln_2"],
        Part(kept, "mlp."),
        **mlp,
        activation=config.activation_function,
        step=under("mlp.", step),
        ops=ops,
    )
    through, d_ln_2 = layer_norm_backward(
        step("ln_2", d_normed), kept["attn.residual"], ln_2["weight"], eps
    )
    dx = step("attn.residual", dx + through)
    # forward was x = x + causal_self_attention(layer_norm(x, **ln_1), **attn)
    d_normed, d_attn = causal_self_attention_backward(
        step("attn.out", dx),
        kept["ln_1"],
        Part(kept, "attn."),
        **attn,
        n_head=config.n_head,
        scale=config.attention_scale(layer),
        positions=positions,
        step=under("attn.", step),
        ops=ops,
    )
    through, d_ln_1 = layer_norm_backward(step("ln_1", d_normed), x, ln_1["weight"], eps)
    return dx + through, {"ln_1": d_ln_1, "attn": d_attn, "ln_2": d_ln_2, "mlp": d_mlp}


def gpt2_backward(model, ids, positions, kept, d_logits=None, d_hidden=None, step=identity) -> dict:
    """Return the gradient of every parameter by its checkpoint name, from that of the logits or of
    the last hidden state.

    ids, positions: [B,T]; kept: the Trace of the forward; d_logits: [B,T,V]; d_hidden: [B,T,C], the
    gradient of ln_f's result, from a head of somebody else's. A tied head gives wte two gradients,
    which add up. Where `kept` has no intermediates of a block, only its result, they are formed
    again from the block before (see training/recompute.py).
    """
    config, weights, ops, gradients = model.config, model.weights, model.ops, {}
    if d_logits is not None:
        # forward was logits = ln_f @ lm_head^T
        head = "wte.weight" if config.tie_word_embeddings else "lm_head.weight"
        d_hidden, gradients[head] = backward_of("unembed", ops)(
            step("logits", d_logits), kept["ln_f"], weights.get("lm_head", weights["wte"])["weight"]
        )
    results = ["embed", *(f"h.{i}.mlp.residual" for i in range(config.n_layer))]
    dx, d_ln_f = backward_of("layer_norm", ops)(
        step("ln_f", d_hidden),
        kept[results[-1]],
        weights["ln_f"]["weight"],
        config.layer_norm_epsilon,
    )
    blocks = {}
    for i, layer in reversed([*enumerate(weights["h"])]):
        run = {"config": config, "layer": i, "positions": positions, "ops": ops}
        x, inside = kept[results[i]], Part(kept, f"h.{i}.")
        if "ln_1" not in inside:
            block(x, **layer, **run, step=(inside := type(kept)()))
        dx = step(results[i + 1], dx)
        dx, blocks[i] = block_backward(dx, x, inside, **layer, **run, step=under(f"h.{i}.", step))
    # forward was embed = wte[ids] + wpe[positions]
    dx, positions = step("embed", dx), np.broadcast_to(positions, np.shape(ids))
    for name, rows in (("wte.weight", ids), ("wpe.weight", positions)):
        if name not in gradients:
            gradients[name] = np.zeros(model.parameters[name].shape, dx.dtype)
        gradients[name] = backward_of("embedding", ops)(dx, rows, gradients[name])
    return gradients | flat({"h": blocks, "ln_f": d_ln_f})
