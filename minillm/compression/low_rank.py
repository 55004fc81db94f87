"""Low rank: a matrix as the product of a tall and a wide one, by the truncated singular value
decomposition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError, short, whole_number
from ..protocol import AnyModel
from ..weights import LowRank, like
from .parts import chosen_matrices, dense


def break_even_rank(shape: tuple[int, int]) -> int:
    """Return the largest rank at which the two factors are smaller than the matrix: r (in + out) <
    in out."""
    k, n = shape
    return (k * n - 1) // (k + n)


def low_rank(model: AnyModel, rank: int, matrices: Sequence[str] | None = None) -> AnyModel:
    """Return `model` with each of `matrices` (in every layer; None: all) replaced by its best
    approximation of that rank.

    W = U S V^T; keep the `rank` largest singular values: W_r = (U_r S_r^1/2) (S_r^1/2 V_r^T), of
    all matrices of that rank the nearest to W in the Frobenius norm (Eckart, Young, 1936); |W -
    W_r|^2 is the sum of the squares left out. x W_r costs rank (in + out) multiplications instead
    of in * out, for memory and time alike: it pays below `break_even_rank`, for a square matrix
    half its width. The factors are stored the way that the matrix was. Exact at full rank only.
    Trained Transformers' matrices are of nearly full rank, so expect to lose much: compare int8,
    which takes a quarter of the bytes and almost nothing away. Raises InputError for a rank beyond
    a matrix. Source: Denton et al., "Exploiting Linear Structure" (2014).
    """
    parameters, rank = {}, whole_number("rank", rank)
    for name in chosen_matrices(model, matrices):
        stored = model.parameters[name]
        w = dense(stored)
        if rank > min(w.shape):
            raise InputError(
                f"rank {short(rank)} of {name} {w.shape}: it must be from 1 to {min(w.shape)}"
            )
        u, s, vt = np.linalg.svd(w, full_matrices=False)
        root = np.sqrt(s[:rank])
        left, right = (
            like(stored, np.ascontiguousarray(f))
            for f in (u[:, :rank] * root, root[:, None] * vt[:rank])
        )
        parameters[name] = LowRank(left, right, model.ops.linear)
    return model.with_parameters(parameters)
