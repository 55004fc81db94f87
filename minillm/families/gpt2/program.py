"""GPT-2 as a program of the fused step: five instructions a block, and the head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...kernels.program import Instruction, Norm, Program
from .config import GPT2Config


def program(config: GPT2Config, parameters: Mapping[str, Any]) -> Program:
    """Return the program of a model; parameters: all of them, {name: array or Weight}."""

    def norm(name: str) -> Norm:
        weight, bias = (parameters[f"{name}.{part}"] for part in ("weight", "bias"))
        return Norm(name, "layer_norm", weight, bias, config.layer_norm_epsilon)

    def product(name: str, matrix: str, **rest: Any) -> Instruction:
        weight, bias = (parameters[f"{matrix}.{part}"] for part in ("weight", "bias"))
        return Instruction(name, weight, bias, **rest)

    instructions, activation = [], config.activation_function
    for i in range(config.n_layer):
        attn, mlp = f"h.{i}.attn", f"h.{i}.mlp"
        ln_1, ln_2 = norm(f"h.{i}.ln_1"), norm(f"h.{i}.ln_2")
        instructions += [
            product(f"{attn}.c_attn", f"{attn}.c_attn", norm=ln_1, target="qkv"),
            Instruction(f"{attn}.context", source="qkv", then="attend", target="context"),
            product(f"{attn}.residual", f"{attn}.c_proj", source="context", then="residual"),
            product(f"{mlp}.act", f"{mlp}.c_fc", norm=ln_2, then=activation, target="act"),
            product(f"{mlp}.residual", f"{mlp}.c_proj", source="act", then="residual"),
        ]
    head = parameters["wte.weight" if config.tie_word_embeddings else "lm_head.weight"].T
    instructions.append(Instruction("logits", head, norm=norm("ln_f"), target="logits"))
    return Program(
        sizes=config.sizes,
        tokens=parameters["wte.weight"],
        positions=parameters["wpe.weight"],
        instructions=instructions,
        scales=[config.attention_scale(i) for i in range(config.n_layer)],
    )
