"""A GPT-2 in GGUF files: its settings there."""

from __future__ import annotations

from typing import Any

from ..gguf import GGUF, NODES, Settings
from .config import GPT2Config


def read(settings: Settings) -> GPT2Config:
    """The config of what a file says; llama.cpp computes GELU by tanh."""
    s, shapes = settings, settings.shapes
    return GPT2Config(
        vocab_size=s.vocab_size,
        n_positions=s.whole("context_length"),
        n_embd=s.whole("embedding_length"),
        n_layer=s.whole("block_count"),
        n_head=s.whole("attention.head_count"),
        n_inner=s.whole("feed_forward_length"),
        layer_norm_epsilon=s.real("attention.layer_norm_epsilon"),
        tie_word_embeddings="output.weight" not in shapes,
        bos_token_id=s.token("bos"),
        eos_token_id=s.ends,
    )


def write(config: GPT2Config) -> dict[str, Any]:
    """What a file says of a config; keys without the architecture."""
    s = config.sizes
    return {
        "block_count": s.L,
        "context_length": s.P,
        "embedding_length": s.C,
        "feed_forward_length": s.F,
        "attention.head_count": s.H,
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
        "vocab_size": s.V,
    }


FORMAT = GGUF(
    "gpt2",
    read,
    write,
    nodes=NODES
    | {
        "wte": "inp_embd:GET_ROWS embd:GET_ROWS",
        "wpe": "pos_embd:GET_ROWS",
        "embed": "inpL:ADD",
        "ln_1": "attn_norm:ADD",
        "attn.c_attn": "wqkv:MUL_MAT bqkv:ADD wqkv_b:ADD",
        "ln_2": "ffn_norm:ADD",
        "mlp.c_fc": "ffn_up:MUL_MAT ffn_up_b:ADD",
        "mlp.act": "ffn_gelu:GELU",
        "mlp.out": "ffn_down:MUL_MAT ffn_out:ADD",
        "ln_f": "result_norm:ADD",
    },
    parts={"attn.c_attn": ("attn.q", "attn.k", "attn.v")},
)
