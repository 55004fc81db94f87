"""What the compressions share: matrices as arrays, and stored again as they were."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..protocol import Model

BLOCK_MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def dense(parameter) -> np.ndarray:
    """A parameter as an array, however it is stored."""
    return parameter if isinstance(parameter, np.ndarray) else parameter.dense()


def chosen_matrices(model: Model, matrices) -> list[str]:
    """The full names of `matrices` (of BLOCK_MATRICES) in every layer."""
    if unknown := [m for m in matrices if m not in BLOCK_MATRICES]:
        raise InputError(
            f"{unknown[0]!r} is no matrix of a block; known: {', '.join(BLOCK_MATRICES)}"
        )
    return [f"h.{i}.{m}.weight" for i in range(model.config.n_layer) for m in matrices]


def relative_error(found, wanted) -> float:
    """|found - wanted| / |wanted|."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
