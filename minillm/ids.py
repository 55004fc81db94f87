"""What a model reads: ids of a vocabulary, as rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError


def checked_ids(ids: ArrayLike, vocab_size: int) -> tuple[NDArray[np.int64], bool]:
    """Return ids [T] or [B,T] as [B,T] of int64, and whether a batch axis was added.

    Raises InputError for what is no whole number, outside the vocabulary, or no rectangle.
    """
    try:
        ids = np.asarray(ids)
    except ValueError:
        raise InputError(
            "ids must form one rectangle; pad ragged rows on the right and give lengths"
        ) from None
    if ids.dtype.kind in "USO":  # text, or what NumPy has no numbers for
        raise InputError(
            f"ids must be integers, not {ids.tolist()!r:.60}: tokenizer.encode(text) gives a"
            " text's ids"
        )
    if ids.ndim not in (1, 2) or ids.size == 0:
        raise InputError(f"ids have shape {ids.shape}; needed: (T,) or (B, T), at least one id")
    if ids.dtype.kind not in "iu":
        raise InputError(f"ids must be integers, not {ids.dtype}")
    numbers = ids.ravel().tolist()
    if min(numbers) < 0 or max(numbers) >= vocab_size:
        wrong = next(i for i in numbers if not 0 <= i < vocab_size)
        raise InputError(f"id {wrong} is outside the vocabulary of {vocab_size}")
    return ids.astype(np.int64, copy=False).reshape(-1, ids.shape[-1]), ids.ndim == 1
