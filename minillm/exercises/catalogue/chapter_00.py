"""Exercises of chapter 00: five minutes."""

from __future__ import annotations

import numpy as np

from ..checking.exercise import Code, Mistake
from ..checking.inputs import Given, V
from . import answers


def argmax_inputs(given: Given):
    yield "V numbers", (given(V),)
    yield "all negative", (-1 - np.abs(given(V)),)
    yield "all far below zero", (-1e12 - 1e11 * np.abs(given(V)),)
    yield "the largest comes last", (np.arange(7.0),)
    yield "several largest", (np.array([0.0, 3.0, 3.0, 1.0, 3.0]),)
    yield "one token", (given(1),)
    yield "logits of tales", (given.step("logits")[0, -1],)


ARGMAX = Code(
    name="argmax",
    chapter=0,
    minutes=5,
    difficulty=1,
    cell="00-next-token",
    unlocks="greedy decoding: the first exercise from red to green",
    answer=answers.argmax,
    inputs=argmax_inputs,
    example="argmax(np.array([0.5, -1.0, 2.5, 2.0]))",
    loop_without=(
        "argmax",
        "nanargmax",
        "max",
        "amax",
        "nanmax",
        "argsort",
        "argpartition",
        "sort",
        "sorted",
        "partition",
        "where",
        "nonzero",
        "flatnonzero",
        "argwhere",
        "index",
        "reduce",
    ),
    hints=(
        "Walk through the scores once and remember where the largest so far stood.",
        "Start by taking the first one for the largest, not 0: all scores may be negative.",
        "if scores[i] > scores[best]: best = i",
    ),
    mistakes=(
        Mistake(
            "returns_the_score",
            {"return best": "return scores[best]"},
            "You return the largest score itself. The index is needed: that is the token's id.",
        ),
        Mistake(
            "last_of_equals",
            {"> scores[best]": ">= scores[best]"},
            "Of equal scores you take the last one. The first is needed: only a larger score may "
            "replace it (> and not >=).",
        ),
        Mistake(
            "starts_from_zero",
            """
            best, largest = 0, 0.0
            for i in range(len(scores)):
                if scores[i] > largest:
                    best, largest = i, scores[i]
            return best
            """,
            "You start from 0 as the largest so far, so negative scores never win. Start from the "
            "first score.",
        ),
        Mistake(
            "smallest",
            {"> scores": "< scores"},
            "You look for the smallest score: reverse the comparison.",
        ),
        Mistake(
            "largest_size",
            {"scores[i] > scores[best]": "abs(scores[i]) > abs(scores[best])"},
            "You look for the largest size, so that -3 beats 2: compare the scores as they are.",
        ),
        Mistake(
            "stops_early",
            {"range(1, len(scores))": "range(1, len(scores) - 1)"},
            "You never look at the last score: range(a, b) ends before b already.",
        ),
    ),
)


def likeliest_inputs(given: Given):
    yield "V probabilities", (given.probs(V), 4)
    yield "equal ones", (np.array([0.1, 0.2, 0.2, 0.3, 0.2], np.float32), 3)
    yield "n = 1", (given.probs(V), 1)
    yield "as many as there are", (given.probs(7), 7)
    yield "many equal ones", (given.ids(5, 300) / np.float32(600), 100)


LIKELIEST = Code(
    name="likeliest",
    chapter=0,
    minutes=5,
    difficulty=1,
    cell="00-ten-likeliest",
    mend="ascending",
    unlocks="the picture of the ten likeliest next tokens",
    answer=answers.likeliest,
    inputs=likeliest_inputs,
    example="likeliest(np.array([0.1, 0.5, 0.15, 0.25]), 2)",
    hints=(
        "np.argsort sorts from the smallest to the largest.",
        "Sort the negated probabilities, and ties keep their order if the sort is stable.",
    ),
    mistakes=(
        Mistake(
            "ascending",
            {"-probs": "probs"},
            "These are the least likely tokens: argsort sorts upwards, so negate the "
            "probabilities.",
        ),
        Mistake(
            "last_n",
            {'np.argsort(-probs, kind="stable")[:n]': 'np.argsort(probs, kind="stable")[-n:]'},
            "The wrong order: the most probable token must come first, and of equal ones the lower "
            "id. Sort -probs (stable: equal ones keep their order) and take the first n.",
        ),
        Mistake(
            "reversed",
            {'np.argsort(-probs, kind="stable")[:n]': 'np.argsort(probs, kind="stable")[::-1][:n]'},
            "Turning the sorted order round turns equal ones round too: the lower id must come "
            "first. Sort -probs instead.",
        ),
        Mistake(
            "values",
            {'np.argsort(-probs, kind="stable")[:n]': "-np.sort(-probs)[:n]"},
            "You return the probabilities. The ids are needed: argsort, not sort.",
        ),
    ),
)


EXERCISES = (ARGMAX, LIKELIEST)
