"""Between GPT-2 and Llama as a program of the fused step: GPT-2's five instructions a block, six
where the feed forward is gated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...kernels.program import Instruction, Norm, Program
from .config import BetweenConfig
from .forward import turn_of


def program(config: BetweenConfig, parameters: Mapping[str, Any]) -> Program:
    """Return the program of a model; parameters: all of them, {name: array or Weight}."""

    def of(scope: str) -> tuple[Any, Any]:
        return parameters[f"{scope}.weight"], parameters.get(f"{scope}.bias")

    def norm(name: str) -> Norm:
        kind = "rms_norm" if config.rms_norm else "layer_norm"
        return Norm(name, kind, *of(name), config.norm_epsilon)

    def product(name: str, matrix: str, **rest: Any) -> Instruction:
        return Instruction(name, *of(matrix), **rest)

    instructions = []
    for i in range(config.n_layer):
        attn, mlp = f"h.{i}.attn", f"h.{i}.mlp"
        ln_1, ln_2 = norm(f"h.{i}.ln_1"), norm(f"h.{i}.ln_2")
        instructions += [
            product(f"{attn}.c_attn", f"{attn}.c_attn", norm=ln_1, target="qkv"),
            Instruction(f"{attn}.context", source="qkv", then="attend", target="context"),
            product(f"{attn}.residual", f"{attn}.c_proj", source="context", then="residual"),
        ]
        if config.swiglu:
            gate = product(f"{mlp}.gate", f"{mlp}.gate_proj", norm=ln_2, target="gate", meet=False)
            up = product(f"{mlp}.act", f"{mlp}.up_proj", then="silu", gate="gate", target="act")
            instructions += [gate, up]
        else:
            instructions.append(
                product(f"{mlp}.act", f"{mlp}.c_fc", norm=ln_2, then="gelu_new", target="act")
            )
        last = f"{mlp}.down_proj" if config.swiglu else f"{mlp}.c_proj"
        instructions.append(product(f"{mlp}.residual", last, source="act", then="residual"))
    tokens = parameters["wte.weight"]
    instructions.append(Instruction("logits", tokens.T, norm=norm("ln_f"), target="logits"))

    def turn(positions: np.ndarray) -> Any:
        return turn_of(config, positions, np.float32)

    return Program(
        sizes=config.sizes,
        tokens=tokens,
        positions=parameters.get("wpe.weight"),
        instructions=instructions,
        scales=[config.attention_scale(i) for i in range(config.n_layer)],
        rotation=turn if config.rope else None,
    )
