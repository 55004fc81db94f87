"""RoPE, rotary position embedding: queries and keys are turned by angles that grow with the
position, so that their product depends on how far apart the two stand.

Each pair of numbers of a head is a point in the plane. Here a pair is number i with number i + D/2,
as in Hugging Face files; where a file pairs 2i with 2i + 1, whoever reads it permutes them. Source:
Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021). Reference:
LlamaRotaryEmbedding of Hugging Face transformers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops as numpy_ops
from ..errors import InputError
from ..machine.forms import build, check, short
from ..twins.twin import abilities

LEAST, MOST = 1e-6, 1e12  # of theta and of every number of a scaling: angles stay finite


def check_within(name: str, value: float) -> None:
    """Raise InputError unless a number by which frequencies are made is one that float32 bears."""
    if not LEAST <= value <= MOST:
        raise InputError(f"{name} is {short(value)}; it must be from {LEAST:g} to {MOST:g}")


def rotation(
    positions: Any,
    D: int,
    theta: float,
    scaling: dict[str, Any] | None = None,
    dtype: Any = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """Return cos and sin of the angle by which each pair of numbers is turned at each position.

    angle = position * frequency, with frequency_i = theta^(-2i/D) changed by `scaling`, a table as
    in config.json: {"rope_type": "default", "linear" or "llama3", ...}. positions: [B,T] -> cos,
    sin, each [B,T,D/2] of `dtype`, in which the angles are formed, too. In float32, as transformers
    has it, cos and sin are off by up to 8e-5 at position 2,048, and 3.5e-4 at 8,192 (measured for
    theta from 1e4 to 1e6). Raises InputError for an odd D, an unknown rope_type, and a setting that
    is missing or wrong.
    """
    frequency = frequencies(D, theta, scaling, dtype)
    angle = np.asarray(positions, dtype)[..., None] * frequency  # [B,T,1] * [D/2] -> [B,T,D/2]
    return np.cos(angle), np.sin(angle)


def frequencies(
    D: int, theta: float, scaling: dict[str, Any] | None = None, dtype: Any = np.float32
) -> np.ndarray:
    """Return the angle by which each pair is turned from one position to the next, see `rotation`:
    [D/2] of `dtype`."""
    if D % 2:
        raise InputError(f"RoPE turns pairs of numbers: heads of size {D} cannot be, as it is odd")
    check_within("rope_theta", theta)
    return scaling_of(scaling)(1.0 / float(theta) ** (np.arange(0, D, 2, dtype=dtype) / D))


def rotate(x, cos, sin, ops=numpy_ops):
    """Turn every pair (a, b) by its angle: (a cos - b sin, b cos + a sin).

    x: [B,H,T,D]; cos, sin: [B,T,D/2], as `rotation` gives them -> [B,H,T,D].
    """
    if (own := abilities(ops).rotate) is not None:  # the same in one
        return own(x, cos, sin)
    cos, sin = cos[:, None], sin[:, None]  # [B,T,D/2] -> [B,1,T,D/2], over all heads
    a, b = np.split(x, 2, axis=-1)  # [B,H,T,D] -> 2 x [B,H,T,D/2]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def rotate_backward(dy, cos, sin, ops=numpy_ops):
    """Forward was y = rotate(x, cos, sin): dx is dy turned back. dy: [B,H,T,D] -> [B,H,T,D]."""
    return rotate(dy, cos, -sin, ops)


# ---- contexts longer than a model was first trained on


@dataclass(frozen=True)
class Default:
    """Every frequency as it is."""

    def __post_init__(self):
        for name, value in vars(self).items():
            check_within(name, value)

    def __call__(self, frequency):
        return frequency


@dataclass(frozen=True)
class Linear(Default):
    """Every frequency divided by `factor`."""

    factor: float

    def __call__(self, frequency):
        return frequency / self.factor


@dataclass(frozen=True)
class Llama3(Linear):
    """Only slow frequencies divided by `factor`, by turns within the context of the first training.

    Up to low_freq_factor turns: divided; from high_freq_factor turns on: as it is; between the two
    a mean, weighted by the turns. Reference: Llama 3.1 in Hugging Face transformers.
    """

    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __post_init__(self):
        super().__post_init__()
        if self.low_freq_factor >= self.high_freq_factor:
            raise InputError(
                f"low_freq_factor is {self.low_freq_factor}; it must be below high_freq_factor,"
                f" {self.high_freq_factor}"
            )

    def __call__(self, frequency):
        turns = self.original_max_position_embeddings / (2 * math.pi / frequency)
        span = self.high_freq_factor - self.low_freq_factor
        kept = np.clip((turns - self.low_freq_factor) / span, 0, 1)
        return kept * frequency + (1 - kept) * super().__call__(frequency)


@dataclass(frozen=True)
class Factors:
    """Every frequency divided by a number of its own, as GGUF files have them."""

    factors: list[Any]  # D/2 numbers

    def __post_init__(self):
        if not all(type(f) in (int, float) and LEAST <= f <= MOST for f in self.factors):
            raise InputError(
                f"factors are {short(self.factors)}; they must be numbers from {LEAST:g} to"
                f" {MOST:g}"
            )

    def __call__(self, frequency):
        if len(self.factors) != len(frequency):
            raise InputError(f"{len(self.factors)} factors for {len(frequency)} frequencies")
        return frequency / np.asarray(self.factors, frequency.dtype)


SCALINGS = {"default": Default, "linear": Linear, "llama3": Llama3, "factors": Factors}


def rope_of(config_json: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """Return theta, and the table of what changes the frequencies, None where nothing does, as
    transformers 4 writes them in a config.json (rope_theta, rope_scaling) or 5 (rope_parameters).

    Raises InputError for heads that are turned in part, and for layers with tables of their own.
    """
    table = config_json.get("rope_scaling") or config_json.get("rope_parameters") or {}
    table = {**check(table, dict, "RoPE parameters")}
    if nested := [name for name, value in table.items() if isinstance(value, dict)]:
        raise InputError(
            f"RoPE parameters of {short(nested[0])}; minillm has one table for all layers"
        )
    part = table.pop("partial_rotary_factor", config_json.get("partial_rotary_factor"))
    if part not in (None, 1):
        raise InputError(f"partial_rotary_factor is {short(part)}; minillm turns whole heads")
    theta = table.pop("rope_theta", config_json.get("rope_theta", 10000.0))
    kind = table.pop("rope_type", table.pop("type", "default"))
    if kind == "llama3":
        name = "original_max_position_embeddings"  # beside the table it counts first; else, with
        table.setdefault(name, config_json.get("max_position_embeddings"))  # none, the model's own
        table[name] = config_json.get(name, table[name])
    return theta, None if kind == "default" else {"rope_type": kind} | table


def scaling_of(settings: dict[str, Any] | None) -> Any:
    """Return what changes the frequencies, of a table with rope_type (older files: type); None
    changes nothing."""
    settings = {} if settings is None else check(settings, dict, "RoPE scaling")
    kind = settings.get("rope_type", settings.get("type", "default"))
    if not isinstance(kind, str) or kind not in SCALINGS:
        raise InputError(f"rope_type is {short(kind)}; known are {', '.join(SCALINGS)}")
    return build(SCALINGS[kind], settings, "RoPE scaling")
