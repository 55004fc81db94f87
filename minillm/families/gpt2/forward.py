"""GPT-2, from ids to logits: embed, blocks, a last norm, unembed.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.3.
Reference: GPT2LMHeadModel of Hugging Face transformers, eager attention. The letters are those of
sizes.py. `weights` is the tree of the parameters by their checkpoint names: weights["h"][0]["ln_1"]
has h.0.ln_1.weight and .bias; `keep` picks the positions whose logits are wanted: of a prompt, the
last. To read what GPT-2 computes, two arguments can be passed over: step("name", value) is value,
which somebody may look at; ops.linear, ... are the functions of ops.py, or faster equal ones.
"""

from __future__ import annotations

from ... import ops as numpy_ops
from ...layers.attention import causal_self_attention
from ...layers.feed_forward import feed_forward
from ...steps import identity, under


def forward(
    ids, weights, config, positions, cache=None, step=identity, ops=numpy_ops, keep=slice(None)
):
    """The whole of GPT-2: ids, positions [B,T] -> logits [B,T,V], or of what `keep` picks."""
    x = hidden(ids, weights, config, positions, cache, step, ops, keep)  # [B,T] -> [B,T,C]
    return unembed(x, weights, step, ops)  # [B,T,C] -> [B,T,V]


def hidden(
    ids, weights, config, positions, cache=None, step=identity, ops=numpy_ops, keep=slice(None)
):
    """All of it up to the head: ids, positions [B,T] -> the last hidden state [B,T,C]."""
    x = embed(ids, weights, positions, step)  # [B,T] -> [B,T,C]
    for i, h in enumerate(weights["h"]):
        x = block(  # [B,T,C] -> [B,T,C]
            x, h["ln_1"], h["attn"], h["ln_2"], h["mlp"],
            config=config, layer=i, positions=positions, past=cache and cache.layer(i),
            step=under(f"h.{i}.", step), ops=ops,
        )  # fmt: skip
    return step("ln_f", norm(x[keep], weights["ln_f"], config, ops))


def embed(ids, weights, positions, step=identity):
    """What a token is plus where it stands: ids, positions [B,T] -> [B,T,C]."""
    wte = step("wte", weights["wte"]["weight"].take(ids, axis=0))
    # clip: what is only padding may stand outside of the table
    wpe = step("wpe", weights["wpe"]["weight"].take(positions, axis=0, mode="clip"))
    return step("embed", wte + wpe)


def block(
    x, ln_1, attn, ln_2, mlp, *, config, layer, positions, past=None, step=identity, ops=numpy_ops
):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): [B,T,C] -> [B,T,C].

    ln_1, attn, ln_2, mlp: the weights of one layer under their names; past: its keys and values.
    """
    normed = step("ln_1", norm(x, ln_1, config, ops))
    attended = causal_self_attention(
        normed, attn["c_attn"], attn["c_proj"], n_head=config.n_head,
        scale=config.attention_scale(layer), positions=positions, past=past,
        step=under("attn.", step), ops=ops,
    )  # fmt: skip
    x = step("attn.residual", x + attended)
    normed = step("ln_2", norm(x, ln_2, config, ops))
    changed = feed_forward(
        normed, mlp["c_fc"], mlp["c_proj"], activation=config.activation_function,
        step=under("mlp.", step), ops=ops,
    )  # fmt: skip
    return step("mlp.residual", x + changed)


def norm(x, weights, config, ops=numpy_ops):
    """Every row with mean 0 and variance 1, scaled and shifted: [B,T,C] -> [B,T,C]."""
    return ops.layer_norm(x, weights["weight"], weights["bias"], config.layer_norm_epsilon)


def unembed(x, weights, step=identity, ops=numpy_ops):
    """How well each token would come next, x times the head, which is the token table itself where
    they are tied: [B,T,C] -> [B,T,V]."""
    head = weights.get("lm_head", weights["wte"])["weight"]  # [V,C]
    return step("logits", ops.linear(x, head.T))
