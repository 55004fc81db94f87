"""Numbers from which nothing can be chosen: found where a token is chosen or a score is taken, and
traced back to the step in which they arose."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..errors import InputError
from ..protocol import Model
from ..steps import Step, identity, times_only


class FirstNotFinite:
    """A step that looks for the first value that is no finite number: `found` is where, or ""."""

    found = ""

    def __call__(self, name: str, value):
        if not self.found and not (finite := np.isfinite(value)).all():
            index = [int(i) for i in np.unravel_index(finite.argmin(), finite.shape)]
            self.found = f"{name} {index}"
        return value


def usable(logits) -> bool:
    """Whether a token can be chosen from every row of logits [..., V]: its largest is finite.

    So NaN, +inf and a row of nothing but -inf are unusable; -inf beside finite numbers means "not
    this one".
    """
    if not logits.size or not math.isfinite(logits.item(logits.argmax())):  # half the time of max
        return not logits.size
    return logits.size == logits.shape[-1] or bool(np.isfinite(logits.max(axis=-1)).all())


def not_finite(
    logits, where: Callable[..., str], again: Callable[[Step], object] | None = None
) -> InputError:
    """Return the error about the first row of logits [..., V] that is not `usable`.

    where: a row's index -> what the error calls it. again: runs the same pass once more with a
    step, so that the error can name the step in which the first number that is not finite arose.
    """
    row = np.unravel_index(np.isfinite(logits.max(axis=-1)).argmin(), logits.shape[:-1])
    kind = (
        "NaN" if np.isnan(logits[row]).any() else "+inf" if logits[row].max() > 0 else "only -inf"
    )
    first = FirstNotFinite()
    if again is not None:
        with np.errstate(all="ignore"):
            again(first)
    origin = f", which arose first in step {first.found}" if first.found else ""
    return InputError(
        f"{where(*map(int, row))}: the logits hold {kind}{origin}; look for weights"
        " that are not finite or far too large"
    )


def check_logits(logits, where, again=None) -> None:
    """Raise the error of `not_finite` unless every row of logits [..., V] is `usable`."""
    if not usable(logits):
        raise not_finite(logits, where, again)


def checked_logits(
    model: Model,
    ids,
    cache=None,
    *,
    lengths=None,
    last: bool = False,
    step: Step = identity,
    what: str = "",
    first: int = 0,
) -> np.ndarray:
    """Return model(ids [B,T], ...), [B,T,V]; InputError where no token can be chosen after one of
    the positions.

    what, first: which pass it is, and the position of its first id without a cache, for the error.
    """
    logits = model(ids, cache, lengths=lengths, last=last, step=step)
    if usable(logits):
        return logits
    T = ids.shape[1]
    n = T if lengths is None else lengths

    def where(row: int, t: int) -> str:
        end = np.broadcast_to(first + n if cache is None else cache.lengths, len(ids))[row]
        return f"{what}position {end - 1 if last else end - T + t}"

    def again(look: Step) -> None:
        if cache is not None:
            cache.lengths -= n  # the same keys and values will be put into the same places
        both = look if times_only(step) else lambda name, value: look(name, step(name, value))
        model(ids, cache, lengths=lengths, last=last, step=both)

    raise not_finite(logits, where, again)
