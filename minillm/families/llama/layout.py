"""What a Llama consists of, each thing once: its parameters, its steps, its names elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...costs import ACTIVATION_FLOPS, Cost, Work
from ..family import TABLE, Parameter, StepInfo, matrix, per_layer, vector

KNOBS = {  # settings of a training run
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "vocab_size": "vocab_size",
}
BLOCK = {
    "input_layernorm.weight": vector("C", "ln_1", "ones"),
    "self_attn.q_proj.weight": matrix("C", "HD", "attn.q"),
    "self_attn.k_proj.weight": matrix("C", "KD", "attn.k"),
    "self_attn.v_proj.weight": matrix("C", "KD", "attn.v"),
    "self_attn.o_proj.weight": matrix("HD", "C", "attn.out", "residual"),
    "post_attention_layernorm.weight": vector("C", "ln_2", "ones"),
    "mlp.gate_proj.weight": matrix("C", "F", "mlp.gate"),
    "mlp.up_proj.weight": matrix("C", "F", "mlp.up"),
    "mlp.down_proj.weight": matrix("F", "C", "mlp.out", "residual"),
}


def parameters(config: Any, more: Mapping[str, Parameter] = {}) -> dict[str, Parameter]:
    """Every parameter by its checkpoint name; a tied head is the token table itself. more: what a
    relative's block has besides."""
    block = {}
    for name, parameter in {**BLOCK, **more}.items():
        block[name] = parameter
        if name.removesuffix(".weight") in config.biased:
            block[name.replace("weight", "bias")] = vector(parameter.axes[1], parameter.forms)
    layers = range(config.num_hidden_layers)
    return {
        "model.embed_tokens.weight": Parameter(TABLE, ("V", "C"), "wte"),
        **{f"model.layers.{i}.{name}": p for i in layers for name, p in block.items()},
        "model.norm.weight": vector("C", "ln_f", "ones"),
        **({} if config.tied else {"lm_head.weight": Parameter(TABLE, ("V", "C"), "logits")}),
    }


def steps(config: Any, before_rotation: Mapping[str, StepInfo] = {}) -> dict[str, StepInfo]:
    """Every step of a pass, in order; names are those of all families where the thing is the same.
    before_rotation: what a relative forms there of q and k."""
    S = StepInfo
    silu = ACTIVATION_FLOPS["silu"]

    def product(name: str) -> Callable[[Work], Cost]:
        n_in, n_out = BLOCK[f"{name}.weight"].axes
        return lambda w: w.linear(n_in, n_out, name in config.biased)

    def rotate(
        axis: str,
    ) -> Callable[[Work], Cost]:  # cos and sin once a position; two products and a sum a number
        return lambda w: w.elementwise(3, axis, 2)

    before = {
        "wte": S("tokens", lambda w: w.lookup(stored=True), hook="> model.embed_tokens"),
        "embed": S("tokens", hook="< model.layers.0"),  # the same
    }
    block = {
        "ln_1": S("norm", lambda w: w.rms_norm(), True, hook="> input_layernorm"),
        "attn.q": S("q", product("self_attn.q_proj"), True, hook="> self_attn.q_proj"),
        "attn.k": S("k", product("self_attn.k_proj"), True, hook="> self_attn.k_proj"),
        "attn.v": S("v", product("self_attn.v_proj"), True, True, "> self_attn.v_proj"),
        **before_rotation,
        "attn.q_rotated": S("rotate q", rotate("HD")),
        "attn.k_rotated": S("rotate k", rotate("KD")),
        "attn.scores": S("scores", lambda w: w.scores()),
        "attn.weights": S("softmax", lambda w: w.softmax_of_scores(), True),
        "attn.context": S("context", lambda w: w.context(), True, True, "< self_attn.o_proj"),
        "attn.out": S("projection", product("self_attn.o_proj"), True, True, "> self_attn.o_proj"),
        "attn.residual": S(
            "residual",
            lambda w: w.elementwise(1, "C", 3),
            hook="< post_attention_layernorm",
        ),
        "ln_2": S("norm", lambda w: w.rms_norm(), True, hook="> post_attention_layernorm"),
        "mlp.gate": S("gate", product("mlp.gate_proj"), True, hook="> mlp.gate_proj"),
        "mlp.up": S("up", product("mlp.up_proj"), True, True, "> mlp.up_proj"),
        "mlp.act": S(
            "activate",
            lambda w: w.elementwise(silu + 1, "F", 3),
            True,
            hook="< mlp.down_proj",
        ),
        "mlp.out": S("contract", product("mlp.down_proj"), True, True, "> mlp.down_proj"),
        "mlp.residual": S("residual", lambda w: w.elementwise(1, "C", 3), hook=">"),
    }
    after = {
        "ln_f": S("norm", lambda w: w.rms_norm(w.last), True, hook="> model.norm"),
        "logits": S(
            "logits",
            lambda w: w.linear("C", "V", bias=False, rows=w.last),
            True,
            True,
            "> lm_head",
        ),
    }
    return before | per_layer(block, config.num_hidden_layers, "model.layers.{}") | after


def equations(config: Any) -> dict[str, tuple[str, str]]:
    """What Llama's own steps compute, and their shapes in letters."""
    norm = ("x / √(mean(x²) + ε) · weight", "B T C")

    def bias(name: str) -> str:
        return " + b" if name in config.biased else ""

    turned = "turned by its position, two numbers at a time"
    return {
        "embed": ("wte", "B T C"),
        **dict.fromkeys(("ln_1", "ln_2", "ln_f"), norm),
        "attn.q": (f"ln_1 W{bias('self_attn.q_proj')}", "B H T D"),
        "attn.k": (f"ln_1 W{bias('self_attn.k_proj')}", "B K T D"),
        "attn.v": (f"ln_1 W{bias('self_attn.v_proj')}", "B K T D"),
        "attn.q_rotated": (f"q {turned}", "B H T D"),
        "attn.k_rotated": (f"k {turned}", "B K T D"),
        "attn.out": (f"context W{bias('self_attn.o_proj')}", "B T C"),
        "mlp.gate": (f"ln_2 W{bias('mlp.gate_proj')}", "B T F"),
        "mlp.up": (f"ln_2 W{bias('mlp.up_proj')}", "B T F"),
        "mlp.act": ("silu(gate) · up", "B T F"),
        "mlp.out": (f"act W{bias('mlp.down_proj')}", "B T C"),
    }


# ---- its names in files of others; {} is the layer


def canonical(name: str, config: Any) -> str | None:
    """Our name of a parameter as Hugging Face's files call it; None for the table of frequencies
    that old files hold. A tied head is the token table, under either name."""
    if name.endswith("rotary_emb.inv_freq"):
        return None
    return "model.embed_tokens.weight" if name == "lm_head.weight" and config.tied else name


def projections(seen: Any, i: int) -> list[Any]:
    """q, k and v [B,T,heads D] of layer i, of what transformers' modules gave."""
    return [seen[f"h.{i}.attn.{name}"] for name in "qkv"]


def turned_by_position(model: Any, q: Any, k: Any) -> dict[str, Any]:
    """q and k [B,heads,T,D] as transformers' model turns them, at positions 0, 1, 2, ..."""
    import torch
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    positions = torch.arange(q.shape[2])[None]
    turned = apply_rotary_pos_emb(q, k, *model.model.rotary_emb(q, positions))
    return dict(zip(("q_rotated", "k_rotated"), turned))


def inexpressible(engine: str, config: Any) -> str | None:
    """What llama.cpp or CTranslate2 has no such Llama with, or None."""
    return None if engine == "llama.cpp" else "at all, as far as minillm writes"


GGUF = {
    "model.embed_tokens": "token_embd",
    "model.layers.{}.input_layernorm": "blk.{}.attn_norm",
    "model.layers.{}.self_attn.q_proj": "blk.{}.attn_q",
    "model.layers.{}.self_attn.k_proj": "blk.{}.attn_k",
    "model.layers.{}.self_attn.v_proj": "blk.{}.attn_v",
    "model.layers.{}.self_attn.o_proj": "blk.{}.attn_output",
    "model.layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
    "model.layers.{}.mlp.gate_proj": "blk.{}.ffn_gate",
    "model.layers.{}.mlp.up_proj": "blk.{}.ffn_up",
    "model.layers.{}.mlp.down_proj": "blk.{}.ffn_down",
    "model.norm": "output_norm",
    "lm_head": "output",
}
