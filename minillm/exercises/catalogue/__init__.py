"""What can be done: every exercise, beside its inputs, with the package's own function as the
answer."""

from __future__ import annotations

from difflib import get_close_matches

from ...errors import InputError
from ..check.exercise import Exercise
from .core import CORE
from .faster import FASTER
from .learning import LEARNING

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
