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
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .catalogue import EXERCISES as EXERCISES
    from .catalogue import exercise as exercise
    from .checking.exercise import Code as Code
    from .checking.exercise import Exercise as Exercise
    from .checking.exercise import Mistake as Mistake
    from .checking.exercise import Predict as Predict
    from .checking.exercise import Result as Result

# Name -> where it lives, imported when it is first used: a process for a student's code starts
# without the catalogue, and knows no right answers.
ROOMS = {
    "EXERCISES": "catalogue",
    "exercise": "catalogue",
    "Code": "checking.exercise",
    "Exercise": "checking.exercise",
    "Mistake": "checking.exercise",
    "Predict": "checking.exercise",
    "Result": "checking.exercise",
}
__all__ = [*ROOMS, "check"]


def __getattr__(name: str) -> object:
    if name not in ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(import_module(f".{ROOMS[name]}", __name__), name)
    return globals()[name]


def check(name: str, where: str | Path | Mapping[str, object], seed: int = 0) -> Result:
    """Return how far one exercise is done: in a student's folder, or in a namespace (run in this
    process, without limits)."""
    from .catalogue import exercise
    from .checking.process import check_folder

    if isinstance(where, Mapping):
        return exercise(name).check(where, seed)
    return next(check_folder(Path(where), [exercise(name).name], seed))
