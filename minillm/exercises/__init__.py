"""Exercises: the package's own functions as stubs to write, published mistakes to mend, numbers to
predict, and one check.

`check(name, where)` serves whoever asks: the command line (where is a folder; the code runs in a
process of its own), or a notebook or grader (where is a namespace, {name: function}). The right
answers are in the package, for all to read. Four wings: `catalogue` (the exercises), `checking`
(what runs and judges an answer), `student` (a folder, and a model of one's own functions),
`teacher` (reports, submissions, assignments, an exam).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .catalogue import EXERCISES, exercise
from .checking.exercise import Code, Exercise, Mistake, Predict, Result
from .checking.process import check_folder

__all__ = ["EXERCISES", "Code", "Exercise", "Mistake", "Predict", "Result", "check", "exercise"]


def check(name: str, where: str | Path | Mapping[str, object], seed: int = 0) -> Result:
    """Return how far one exercise is done: in a student's folder, or in a namespace (run in this
    process, without limits)."""
    if isinstance(where, Mapping):
        return exercise(name).check(where, seed)
    return next(check_folder(Path(where), [exercise(name).name], seed))
