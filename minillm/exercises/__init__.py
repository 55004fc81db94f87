"""Exercises: the package's own functions as stubs to write, published mistakes to mend, numbers to
predict, and one check.

`check(name, where)` serves whoever asks: the command line (where is a folder; the code runs in a
process of its own), or a notebook or grader (where is a namespace, {name: function}). The right
answers are in the package, for all to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from ..errors import InputError
from .core import CORE
from .exercise import Code, Exercise, Mistake, Predict, Result
from .faster import FASTER
from .learning import LEARNING

__all__ = ["EXERCISES", "Code", "Exercise", "Mistake", "Predict", "Result", "check", "exercise"]

EXERCISES: dict[str, Exercise] = {
    e.name: e for e in sorted((*CORE, *FASTER, *LEARNING), key=lambda e: e.chapter)
}


def exercise(name: str) -> Exercise:
    """Return the exercise of that name; InputError if there is none."""
    if name not in EXERCISES:
        near = get_close_matches(str(name), EXERCISES, 2)
        hint = f"near it: {', '.join(near)}" if near else f"there are: {', '.join(EXERCISES)}"
        raise InputError(f"there is no exercise {name!r}; {hint}")
    return EXERCISES[name]


def check(name: str, where: str | Path | Mapping[str, object], seed: int = 0) -> Result:
    """Return how far one exercise is done: in a student's folder, or in a namespace (run in this
    process, without limits)."""
    if isinstance(where, Mapping):
        return exercise(name).check(where, seed)
    from .process import check_folder

    return next(check_folder(Path(where), [exercise(name).name], seed))
