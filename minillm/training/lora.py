"""Adapters: put on a model, merged into it, or kept in a file of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..checkpoints import safetensors
from ..errors import InputError, require_one_of
from ..machine.files import read_json, write_atomically
from ..machine.forms import short
from ..model import Model
from ..weights.lora import LoRA
from . import peft

FORMS = ("minillm", "peft")  # of adapters in files


class Adapters(TypedDict):
    """What adapter.json says."""

    scale: float
    matrices: list[str]


def with_adapters(
    model: Model, rank: int, alpha: float = 16.0, matrices: str | None = None, seed: int = 0
) -> Model:
    """Return the model with fresh adapters on the named matrices of every block, which is the same
    model so far.

    matrices: names joined by commas, with or without their place (attn.c_proj and mlp.c_proj;
    c_proj is both); None for those that form queries, keys and values.
    """
    family, width = model.family, model.config.sizes.C
    known = family.block_matrices(model.config)
    wanted = [name.strip() for name in matrices.split(",")] if matrices else []
    for name in wanted:
        if not any(full == name or full.endswith(f".{name}") for full in known):
            raise InputError(f"lora_matrices has {name!r}; known: {', '.join(known)}")
    if rank > width:
        raise InputError(
            f"lora_rank is {rank}; above the width {width} it would be more than the matrix itself"
        )
    rng, adapted = np.random.default_rng([seed, rank]), {}
    for name in model.matrices():
        place = family.local_name(name)[1].removesuffix(".weight")
        projects = {*model.layout[name].axes[-1].split()} <= {"HD", "KD"}
        if any(place == w or place.endswith(f".{w}") for w in wanted) or (projects and not wanted):
            adapted[name] = LoRA.fresh(model.parameters[name], rank, alpha / rank, rng)
    return model.with_parameters(adapted)


def merged(model: Model) -> Model:
    """Return the model with every adapter added into its matrix: no slower than before."""
    return model.with_parameters(
        {name: w.dense() for name, w in model.parameters.items() if isinstance(w, LoRA)}
    )


def save_adapters(model: Model, folder: Path, form: str = "minillm") -> None:
    """Write the adapters alone.

    form: "minillm", adapter.safetensors and adapter.json (the scale); or "peft", into a folder of
    their own, since transformers takes any folder with peft's files for adapters alone.
    """
    require_one_of("form", form, FORMS)
    adapters = {
        name: weight for name, weight in model.parameters.items() if isinstance(weight, LoRA)
    }
    if not adapters:
        raise InputError("the model has no adapters to save; with_adapters(model, rank) adds them")
    folder.mkdir(parents=True, exist_ok=True)
    if form == "peft":
        return peft.write(model, folder)
    arrays = {
        f"{n.removesuffix('weight')}{part}": a
        for n, w in adapters.items()
        for part, a in w.trained.items()
    }
    safetensors.write(folder / "adapter.safetensors", arrays, {"format": "pt"})
    scale = next(iter(adapters.values())).scale
    write_atomically(
        folder / "adapter.json",
        (json.dumps({"scale": scale, "matrices": list(adapters)}) + "\n").encode(),
    )


def load_adapters(model: Model, folder: str | Path) -> Model:
    """Return the model with the adapters that save_adapters wrote, or peft; InputError where they
    belong to another shape."""
    folder = Path(folder)
    if (folder / peft.CONFIG).exists() and not (folder / "adapter.json").exists():
        found, file = peft.read(model, folder), folder / peft.WEIGHTS
    else:
        found, file = _read(folder), folder / "adapter.safetensors"
    adapted = {}
    for name, (a, b, scale) in found.items():
        if not (a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0] and a.dtype == b.dtype == "f4"):
            what = f"{a.dtype} {a.shape} and {b.dtype} {b.shape}"
            raise InputError(f"{file}: the adapter of {short(name)} is {what}: no pair of float32")
        if not math.isfinite(scale):
            raise InputError(f"{folder}: the scale of {short(name)} is {scale}; needed: a number")
        weight, shape = model.parameters.get(name), (a.shape[0], b.shape[1])
        if weight is None or weight.shape != shape:
            found = "missing" if weight is None else weight.shape
            raise InputError(
                f"{folder}: the adapter of {name} is for {shape}; the model's is {found}"
            )
        adapted[name] = LoRA(weight, np.array(a), np.array(b), scale)
    return model.with_parameters(adapted)


def _read(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """{parameter: (A, B, scale)}, of minillm's own form."""
    about = read_json(folder / "adapter.json", Adapters)
    tensors, _ = safetensors.read(folder / "adapter.safetensors")
    nothing = np.empty(0)

    def factor(name: str, part: str) -> np.ndarray:
        return tensors.get(f"{name.removesuffix('weight')}{part}", nothing)

    names = about["matrices"]
    return {n: (factor(n, "lora_a"), factor(n, "lora_b"), about["scale"]) for n in names}
