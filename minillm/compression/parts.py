"""What the compressions share: matrices by name, as arrays, and how far apart two are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import InputError, several, short
from ..protocol import Model, require_model


def dense(parameter) -> np.ndarray:
    """A parameter as an array, however it is stored."""
    return parameter if isinstance(parameter, np.ndarray) else parameter.dense()


def chosen_matrices(model: Model, matrices: Iterable[str] | None) -> list[str]:
    """The full names of some of a block's matrices in every layer: of those called so, or that
    begin so ("mlp"); None for all."""
    require_model(model)
    known = model.family.block_matrices(model.config)
    chosen = [*known] if matrices is None else []
    given = () if matrices is None else matrices
    for name in several("matrices", given, "several names of matrices"):
        fitting = [m for m in known if f"{m}.".startswith(f"{name}.")]
        if not fitting:
            raise InputError(f"{short(name)} is no matrix of a block; known: {', '.join(known)}")
        chosen += fitting
    layers = range(model.config.sizes.L)
    return [model.family.layer_name(i, f"{m}.weight") for i in layers for m in chosen]


def relative_error(found, wanted) -> float:
    """|found - wanted| / |wanted|."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
