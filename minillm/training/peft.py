"""Adapters as the library peft has them: adapter_config.json and adapter_model.safetensors.

Modules have the names that transformers gives them, after "base_model.model."; of the update
x A B * scale of ours, peft has the two factors turned, lora_A [rank,in] and lora_B [out,rank], and
lora_alpha with scale = lora_alpha / rank. Reference: LoraConfig and get_peft_model_state_dict of
peft 0.21.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..checkpoints import safetensors
from ..errors import InputError
from ..families import Family
from ..machine.files import read_json, write_atomically
from ..machine.forms import short
from ..model import Model
from ..weights import to_array
from ..weights.lora import LoRA

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BEFORE = "base_model.model."
PARTS = ("A.weight", "B.weight")
# What leaves the update as it is, or is computed with; whatever else is set is refused by name.
HARMLESS = (
    *("task_type", "peft_version", "base_model_name_or_path", "revision", "auto_mapping"),
    *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("fan_in_fan_out", "inference_mode", "lora_dropout", "megatron_core", "qalora_group_size"),
)
ALLOWED = {  # other beginnings change the model itself
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),
    "bias": ("none",),
}


class Said(TypedDict, total=False):
    """What adapter_config.json says, as far as it is computed with."""

    peft_type: str
    lora_alpha: float
    alpha_pattern: dict[str, float] | None
    use_rslora: bool | None


def write(model: Model, folder: Path) -> None:
    """Write the adapters of a model."""
    found = {name: p for name, p in model.parameters.items() if isinstance(p, LoRA)}
    adapters = {_module(model.family, name): p for name, p in found.items()}
    ranks = {module: len(p.lora_b) for module, p in adapters.items()}
    alphas = {module: p.scale * ranks[module] for module, p in adapters.items()}
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "target_modules": [*adapters],
        "r": rank,
        "rank_pattern": {module: n for module, n in ranks.items() if n != rank},
        "lora_alpha": alpha,
        "alpha_pattern": {module: a for module, a in alphas.items() if a != alpha},
        "lora_dropout": 0.0,
        "fan_in_fan_out": not model.family.turned,  # Conv1D, which holds matrices [in,out]
        "bias": "none",
        "inference_mode": True,
    }
    arrays = {
        f"{BEFORE}{module}.lora_{part}": np.ascontiguousarray(factor.T, np.float32)
        for module, p in adapters.items()
        for part, factor in zip(PARTS, (p.lora_a, p.lora_b))
    }
    safetensors.write(folder / WEIGHTS, arrays, {"format": "pt"})
    write_atomically(folder / CONFIG, (json.dumps(said, indent=2) + "\n").encode())


def read(model: Model, folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Return {parameter: (A [in,rank], B [rank,out], scale)} of a folder; InputError for settings
    that make the update another one, and for tensors that belong to no matrix of the model."""
    said = _settings(folder / CONFIG)
    parameters = {_module(model.family, name): name for name in model.matrices()}
    tensors, _ = safetensors.read(file := folder / WEIGHTS)
    pairs: dict[str, list[np.ndarray]] = {}
    for name, array in tensors.items():
        module, _, part = name.removeprefix(BEFORE).rpartition(".lora_")
        if module not in parameters or part not in PARTS or array.ndim != 2:
            raise InputError(f"{file}: tensor {short(name)} is no factor of a matrix of the model")
        pair = pairs.setdefault(module, [np.empty((0, 0), np.float32)] * 2)
        pair[PARTS.index(part)] = to_array(array, np.float32).T
    return {parameters[m]: (a, b, _scale(said, m, len(b))) for m, (a, b) in pairs.items()}


def _module(family: Family, name: str) -> str:
    """What transformers calls the module of a matrix."""
    return family.stored(name).removesuffix(".weight")


def _settings(file: Path) -> Said:
    """What adapter_config.json says, after whatever is not W + scale A B has been refused."""
    said = read_json(file, Said)
    if (kind := said.get("peft_type", "LORA")) != "LORA":
        raise InputError(f"{file}: peft_type is {short(kind)}; minillm reads LORA")
    for name, value in said.items():
        if value and value not in ALLOWED.get(name, ()) and name not in HARMLESS:
            raise InputError(f"{file}: {name} is {short(value)}; minillm reads plain LoRA")
    for pattern in said.get("alpha_pattern") or {}:
        if not re.fullmatch(r"[\w.]+", pattern):
            raise InputError(f"{file}: alpha_pattern has {short(pattern)}; minillm reads names")
    return said


def _scale(said: Said, module: str, rank: int) -> float:
    patterns = said.get("alpha_pattern") or {}
    alphas = (a for name, a in patterns.items() if f".{module}".endswith(f".{name}"))
    alpha, rank = next(alphas, said.get("lora_alpha", 8.0)), max(rank, 1)
    return alpha / (math.sqrt(rank) if said.get("use_rslora") else rank)
