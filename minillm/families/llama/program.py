"""Llama as a program of the fused step: eight instructions a block, and the head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...kernels.program import Instruction, Norm, Program
from ...layers.rope import rotation
from .config import LlamaConfig


def program(config: LlamaConfig, parameters: Mapping[str, Any]) -> Program:
    """Return the program of a model; parameters: all of them, {name: array or Weight}."""
    s = config.sizes

    def norm(name: str, weight: str) -> Norm:
        return Norm(name, "rms_norm", parameters[f"{weight}.weight"], None, config.rms_norm_eps)

    def product(name: str, matrix: str, **rest: Any) -> Instruction:
        weight, bias = parameters[f"{matrix}.weight"], parameters.get(f"{matrix}.bias")
        return Instruction(name, weight, bias, **rest)

    instructions = []
    for i in range(s.L):
        step, layer = f"h.{i}", f"model.layers.{i}"
        attn, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        ln_1 = norm(f"{step}.ln_1", f"{layer}.input_layernorm")
        ln_2 = norm(f"{step}.ln_2", f"{layer}.post_attention_layernorm")
        instructions += [
            product(f"{step}.attn.q", f"{attn}.q_proj", norm=ln_1, target="q", meet=False),
            product(f"{step}.attn.k", f"{attn}.k_proj", target="k", meet=False),
            product(f"{step}.attn.v", f"{attn}.v_proj", target="v"),
            Instruction(
                f"{step}.attn.context", source=("q", "k", "v"), then="attend", target="context"
            ),
            product(f"{step}.attn.residual", f"{attn}.o_proj", source="context", then="residual"),
            product(f"{step}.mlp.gate", f"{mlp}.gate_proj", norm=ln_2, target="gate", meet=False),
            product(f"{step}.mlp.act", f"{mlp}.up_proj", then="silu", gate="gate", target="act"),
            product(f"{step}.mlp.residual", f"{mlp}.down_proj", source="act", then="residual"),
        ]
    tokens = parameters["model.embed_tokens.weight"]
    head = (tokens if config.tied else parameters["lm_head.weight"]).T
    instructions.append(
        Instruction("logits", head, norm=norm("ln_f", "model.norm"), target="logits")
    )

    def turn(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rotation(positions, s.D, config.rope_theta, config.rope_scaling, np.float32)

    return Program(
        sizes=s,
        tokens=tokens,
        positions=None,
        instructions=instructions,
        scales=[config.attention_scale(i) for i in range(s.L)],
        rotation=turn,
    )
