"""Qwen2 and Qwen3: what differs from Llama, whose forward and backward they share.

Qwen2 has biases on queries, keys and values. Qwen3 has none there, but an RMS norm of each query
and each key, over the numbers of a head, before rotation. Attention sees from a layer's parameters
which of them it has. Source: "Qwen2 Technical Report" (2024), section 2; "Qwen3 Technical Report"
(2025), section 2. Reference: Qwen2ForCausalLM, Qwen3ForCausalLM of Hugging Face transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ...costs import Cost, Work
from ...errors import InputError, short
from ...kernels.program import Instruction, Norm, Program
from ..family import Parameter, StepInfo, vector
from ..gguf import GGUF
from . import gguf, layout
from .config import ABSENT, LlamaConfig
from .program import program as llama_program

OF_QWEN: dict[str, Any] = {  # what transformers takes for what a config.json does not say
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "bos_token_id": None,
    "eos_token_id": None,
}


@dataclass(frozen=True)
class Qwen2Config(LlamaConfig):
    """What config.json says of a Qwen2; the defaults are Qwen2.5-0.5B's."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"
    absent = ABSENT | OF_QWEN

    vocab_size: int = 151936
    hidden_size: int = 896
    intermediate_size: int = 4864
    num_hidden_layers: int = 24
    num_attention_heads: int = 14
    num_key_value_heads: int | None = 2
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1000000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("attention_bias", "mlp_bias"):
            if getattr(self, name):
                raise InputError(
                    f"{name} is true; {self.model_type} has biases on q, k and v alone"
                )

    @property
    def biased(self) -> set[str]:
        return {f"self_attn.{part}_proj" for part in "qkv"}


@dataclass(frozen=True)
class Qwen3Config(LlamaConfig):
    """What config.json says of a Qwen3; the defaults are Qwen3-0.6B's."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    absent = ABSENT | OF_QWEN | {"head_dim": 128}

    vocab_size: int = 151936
    hidden_size: int = 1024
    intermediate_size: int = 3072
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 8
    head_dim: int | None = 128
    max_position_embeddings: int = 40960
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1000000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mlp_bias:
            raise InputError("mlp_bias is true; qwen3 has biases in attention alone, or none")

    @property
    def layout(self) -> dict[str, Parameter]:
        return _normed_layout(self)


NORMS = {
    f"self_attn.{part}_norm.weight": vector("D", f"attn.{part}_normed", "ones") for part in "qk"
}
_normed_layout = lru_cache(lambda config: layout.parameters(config, NORMS))


def normed_steps(config: Qwen3Config) -> dict[str, StepInfo]:
    """Llama's steps, and before the rotation of q and k their norms: of each head a row of D."""
    s = config.sizes

    def norm(part: str, heads: int) -> StepInfo:
        def cost(w: Work) -> Cost:
            return w.rms_norm(heads * w.rows, "D")

        return StepInfo(f"norm {part}", cost, True, hook=f"> self_attn.{part}_norm")

    norms = {"attn.q_normed": norm("q", s.H), "attn.k_normed": norm("k", s.K)}
    return layout.steps(config, norms)


def normed_equations(config: Qwen3Config) -> dict[str, tuple[str, str]]:
    """Llama's, and those of the norms."""
    norm = "x / √(mean(x²) + ε) · weight, of each head"
    found = layout.equations(config)
    found |= {f"attn.{n}_normed": (norm, f"B {axis} T D") for n, axis in (("q", "H"), ("k", "K"))}
    for n in "qk":
        equation, shape = found[f"attn.{n}_rotated"]
        found[f"attn.{n}_rotated"] = (equation.replace(f"{n} ", f"{n}_normed ", 1), shape)
    return found


def normed_program(config: Qwen3Config, parameters: Mapping[str, Any]) -> Program:
    """Llama's program, whose attention norms each query and key first."""

    def norms(attend: Instruction) -> list[Norm]:
        layer, eps = attend.name.split(".")[1], config.rms_norm_eps
        attn = f"model.layers.{layer}.self_attn"
        return [
            Norm(
                f"h.{layer}.attn.{p}_normed",
                "rms_norm",
                parameters[f"{attn}.{p}_norm.weight"],
                eps=eps,
            )
            for p in "qk"
        ]

    found = llama_program(config, parameters)
    instructions = [
        replace(step, head_norms=norms(step)) if step.then == "attend" else step
        for step in found.instructions
    ]
    return replace(found, instructions=instructions)


# ---- in GGUF files, in which no rows are permuted


def inexpressible(engine: str, config: LlamaConfig) -> str | None:
    """What llama.cpp or CTranslate2 has no such Qwen with, or None."""
    if engine != "llama.cpp":
        return layout.inexpressible(engine, config)
    if gguf.factors(config) is not None:
        return f"with rope_type {short((config.rope_scaling or {})['rope_type'])}"
    if isinstance(config, Qwen3Config) and config.attention_bias:
        return "with attention_bias"
    return None


NORMED_GGUF = layout.GGUF | {
    f"model.layers.{{}}.self_attn.{part}_norm": f"blk.{{}}.attn_{part}_norm" for part in "qk"
}
NORMED_NODES = gguf.LLAMA_NODES | {
    "attn.q_normed": "Qcur_normed:MUL",
    "attn.k_normed": "Kcur_normed:MUL",
}
QWEN2_GGUF = GGUF(
    "qwen2", lambda s: Qwen2Config(**gguf.shared(s)), gguf.write, nodes=gguf.LLAMA_NODES
)
QWEN3_GGUF = GGUF("qwen3", lambda s: Qwen3Config(**gguf.shared(s)), gguf.write, nodes=NORMED_NODES)
