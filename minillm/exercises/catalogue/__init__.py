"""What can be done: every exercise, beside its inputs, with the package's own function as the
answer; a file a chapter."""

from __future__ import annotations

from difflib import get_close_matches

from ...errors import InputError
from ..checking.exercise import Exercise
from . import (
    chapter_00,
    chapter_01,
    chapter_02,
    chapter_03,
    chapter_04,
    chapter_05,
    chapter_06,
    chapter_07,
    chapter_08,
    chapter_09,
    chapter_10,
    chapter_11,
    chapter_12,
    chapter_13,
    chapter_14,
    chapter_15,
)

CHAPTERS = (
    chapter_00,
    chapter_01,
    chapter_02,
    chapter_03,
    chapter_04,
    chapter_05,
    chapter_06,
    chapter_07,
    chapter_08,
    chapter_09,
    chapter_10,
    chapter_11,
    chapter_12,
    chapter_13,
    chapter_14,
    chapter_15,
)
EXERCISES: dict[str, Exercise] = {e.name: e for chapter in CHAPTERS for e in chapter.EXERCISES}


def exercise(name: str) -> Exercise:
    """Return the exercise of that name; InputError if there is none."""
    if name not in EXERCISES:
        near = get_close_matches(str(name), EXERCISES, 2)
        hint = f"near it: {', '.join(near)}" if near else f"there are: {', '.join(EXERCISES)}"
        raise InputError(f"there is no exercise {name!r}; {hint}")
    return EXERCISES[name]
