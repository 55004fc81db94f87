"""A Llama in GGUF files, and its relatives: their settings there."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import InputError, short
from ...layers.rope import scaling_of
from ..gguf import GGUF, NODES, Settings
from .config import LlamaConfig


def read(settings: Settings) -> LlamaConfig:
    """The config of what a file says."""
    return LlamaConfig(
        attention_bias="blk.0.attn_q.bias" in settings.shapes,
        mlp_bias="blk.0.ffn_gate.bias" in settings.shapes,
        **shared(settings),
    )


def shared(s: Settings) -> dict[str, Any]:
    """The fields of a config that Llama shares with its relatives."""
    H, C = s.whole("attention.head_count"), s.whole("embedding_length")
    D = s.whole("attention.key_length", C // max(H, 1))
    for name in ("attention.value_length", "rope.dimension_count"):
        if (given := s.whole(name, D)) != D:
            raise InputError(f"the key {s.architecture}.{name} is {given}; minillm needs {D}")
    kind = s.text("rope.scaling.type", "none")
    scaling: dict[str, Any] | None = None
    if kind == "linear":
        scaling = {"rope_type": "linear", "factor": s.real("rope.scaling.factor")}
    elif kind != "none":
        raise InputError(
            f"the key {s.architecture}.rope.scaling.type is {short(kind)}; minillm reads linear"
        )
    if s.factors is not None:
        if scaling:
            raise InputError("rope.scaling.type and rope_freqs.weight are given; needed: one")
        scaling = {"rope_type": "factors", "factors": s.factors}
    return {
        "vocab_size": s.vocab_size,
        "tie_word_embeddings": "output.weight" not in s.shapes,
        "hidden_size": C,
        "intermediate_size": s.whole("feed_forward_length"),
        "num_hidden_layers": s.whole("block_count"),
        "num_attention_heads": H,
        "num_key_value_heads": s.whole("attention.head_count_kv", H),
        "head_dim": D,
        "max_position_embeddings": s.whole("context_length"),
        "rms_norm_eps": s.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": s.real("rope.freq_base", 10000.0),
        "rope_scaling": scaling,
        "bos_token_id": s.token("bos"),
        "eos_token_id": s.ends,
    }


def write(config: Any) -> dict[str, Any]:
    """What a file says of a config; keys without the architecture."""
    s = config.sizes
    values = {
        "block_count": s.L,
        "context_length": s.P,
        "embedding_length": s.C,
        "feed_forward_length": s.F,
        "attention.head_count": s.H,
        "attention.head_count_kv": s.K,
        "attention.key_length": s.D,
        "attention.value_length": s.D,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": s.D,
        "rope.freq_base": float(config.rope_theta),
        "vocab_size": s.V,
    }
    scaling = config.rope_scaling or {}
    if scaling.get("rope_type") == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling["factor"])}
    return values


def factors(config: Any) -> np.ndarray | None:
    """What every frequency is divided by, float32 [D/2], where no key can say it."""
    kind = (config.rope_scaling or {}).get("rope_type")
    if kind in (None, "default", "linear"):
        return None
    D = config.sizes.D
    frequency = 1.0 / config.rope_theta ** (np.arange(0, D, 2) / D)  # [D/2]
    return np.asarray(frequency / scaling_of(config.rope_scaling)(frequency), np.float32)


LLAMA_NODES = NODES | {
    "embed": "inp_embd:GET_ROWS embd:GET_ROWS",
    "ln_1": "attn_norm:MUL",
    "attn.q": "Qcur:MUL_MAT Qcur:ADD",
    "attn.k": "Kcur:MUL_MAT Kcur:ADD",
    "attn.v": "Vcur:MUL_MAT Vcur:ADD",
    "attn.q_rotated": "Qcur:ROPE",
    "attn.k_rotated": "Kcur:ROPE",
    "ln_2": "ffn_norm:MUL",
    "mlp.gate": "ffn_gate:MUL_MAT ffn_gate_b:ADD",
    "mlp.up": "ffn_up:MUL_MAT ffn_up_b:ADD",
    "mlp.act": "ffn_swiglu:SWIGLU",
    "mlp.out": "ffn_down:MUL_MAT ffn_out:MUL_MAT ffn_out:ADD",
    "ln_f": "result_norm:MUL",
}
PAIRED = ("self_attn.q_proj", "self_attn.k_proj")
FORMAT = GGUF("llama", read, write, factors, PAIRED, LLAMA_NODES)
