"""Llama, from ids to logits: embed, blocks, a last norm, unembed. Read it beside GPT-2's.

Source: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models" (2023), section 2.2.
Reference: LlamaForCausalLM of Hugging Face transformers, eager attention. The letters are those of
sizes.py. `weights` is the tree of the parameters by their checkpoint names; every intermediate
passes `step` under its name; `ops` has the functions to compute with.
"""

from __future__ import annotations

from ... import ops as numpy_ops
from ...layers.attention import grouped_query_attention
from ...layers.feed_forward import swiglu
from ...layers.rope import rotation
from ...steps import identity, under


def forward(
    ids, weights, config, positions, cache=None, step=identity, ops=numpy_ops, keep=slice(None)
):
    """The whole of Llama: ids, positions [B,T] -> logits [B,T,V], or of what `keep` picks."""
    x = hidden(ids, weights, config, positions, cache, step, ops, keep)  # [B,T] -> [B,T,C]
    return unembed(x, weights, step, ops)  # [B,T,C] -> [B,T,V]


def hidden(
    ids, weights, config, positions, cache=None, step=identity, ops=numpy_ops, keep=slice(None)
):
    """All of it up to the head: ids, positions [B,T] -> the last hidden state [B,T,C]."""
    x = embed(ids, weights, step)  # [B,T] -> [B,T,C]
    turn = rotation(positions, config.sizes.D, config.rope_theta, config.rope_scaling, x.dtype)
    for i, h in enumerate(weights["model"]["layers"]):
        x = block(  # [B,T,C] -> [B,T,C]
            x, **h,
            config=config, layer=i, positions=positions, turn=turn, past=cache and cache.layer(i),
            step=under(f"h.{i}.", step), ops=ops,
        )  # fmt: skip
    return step("ln_f", ops.rms_norm(x[keep], **weights["model"]["norm"], eps=config.rms_norm_eps))


def embed(ids, weights, step=identity):
    """What a token is; where it stands turns queries and keys: ids [B,T] -> [B,T,C]."""
    return step("embed", step("wte", weights["model"]["embed_tokens"]["weight"].take(ids, axis=0)))


def block(
    x, input_layernorm, self_attn, post_attention_layernorm, mlp, *,
    config, layer, positions, turn, past=None, step=identity, ops=numpy_ops,
):  # fmt: skip
    """x + attention(norm(x)), then x + feed_forward(norm(x)): [B,T,C] -> [B,T,C]."""
    normed = step("ln_1", ops.rms_norm(x, **input_layernorm, eps=config.rms_norm_eps))
    attended = grouped_query_attention(
        normed, **self_attn, n_head=config.sizes.H, n_kv_head=config.sizes.K,
        scale=config.attention_scale(layer), eps=config.rms_norm_eps, positions=positions,
        turn=turn, past=past, step=under("attn.", step), ops=ops,
    )  # fmt: skip
    x = step("attn.residual", x + attended)
    normed = step("ln_2", ops.rms_norm(x, **post_attention_layernorm, eps=config.rms_norm_eps))
    changed = swiglu(
        normed, mlp["gate_proj"], mlp["up_proj"], mlp["down_proj"],
        step=under("mlp.", step), ops=ops,
    )  # fmt: skip
    return step("mlp.residual", x + changed)


def unembed(x, weights, step=identity, ops=numpy_ops):
    """How well each token would come next, x times the head, which is the token table itself where
    they are tied: [B,T,C] -> [B,T,V]."""
    head = weights.get("lm_head", weights["model"]["embed_tokens"])["weight"]  # [V,C]
    return step("logits", ops.linear(x, head.T))
