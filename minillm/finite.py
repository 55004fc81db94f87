"""Numbers from which nothing can be chosen: found where a token is chosen or a score is taken, and
traced back to the step in which they arose."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .errors import InputError
from .steps import Step


class FirstNotFinite:
    """A step that looks for the first value that is not a finite number: `found` is where, or ""."""

    found = ""

    def __call__(self, name: str, value):
        if not self.found and not (finite := np.isfinite(value)).all():
            index = [int(i) for i in np.unravel_index(finite.argmin(), finite.shape)]
            self.found = f"{name} {index}"
        return value


def usable(logits) -> bool:
    """Whether a token can be chosen from every row of logits [..., V]: the largest is a finite number.

    NaN, +inf and a row of nothing but -inf are not; -inf beside finite numbers means "not this
    one".
    """
    if not logits.size or not math.isfinite(logits.max()):
        return not logits.size
    return logits.size == logits.shape[-1] or bool(np.isfinite(logits.max(axis=-1)).all())


def check_logits(
    logits, where: Callable[..., str], again: Callable[[Step], object] | None = None
) -> None:
    """Raise InputError unless all rows of logits [..., V] are `usable`.

    where: a row's index -> what the error calls it. again: runs the same pass once more with a step,
    so that the error can name the step in which the first number that is not finite arose.
    """
    if usable(logits):
        return
    row = np.unravel_index(np.isfinite(logits.max(axis=-1)).argmin(), logits.shape[:-1])
    kind = (
        "NaN" if np.isnan(logits[row]).any() else "+inf" if logits[row].max() > 0 else "only -inf"
    )
    first = FirstNotFinite()
    if again is not None:
        with np.errstate(all="ignore"):
            again(first)
    origin = f", which arose first in step {first.found}" if first.found else ""
    raise InputError(
        f"{where(*map(int, row))}: the numbers to choose from hold {kind}{origin}; look for weights"
        " that are not finite or far too large"
    )
