"""Exercises of chapter 06: one token at a time."""

from __future__ import annotations

import numpy as np

from ..checking.exercise import Code, Mistake, Predict
from ..checking.inputs import D, Given, H, T, V
from . import answers

POSITIONS_COMPUTED = Predict(
    name="positions_computed",
    chapter=6,
    minutes=5,
    difficulty=2,
    cell="06-cache",
    unlocks="what a cache saves",
    question=(
        "A prompt of 5 tokens, then 40 new tokens, greedy, with a KV cache. How many positions go "
        "through the model in all?"
    ),
    decimals=0,
    digest="62d579d48924d778",
    hints=(
        "The prompt is one pass of 5 positions, and its last logits give the first new token.",
        "The last new token is never fed back.",
    ),
    mistakes=(
        Mistake(
            "feeds_the_last",
            45,
            "The last new token is never fed back: nothing after it is asked for.",
        ),
        Mistake(
            "no_cache",
            980,
            "That is without a cache: 5 + 6 + ... + 44. With one, each position is computed once.",
        ),
        Mistake("new_only", 40, "The prompt goes through the model too, in one pass."),
        Mistake(
            "no_prompt",
            39,
            "Those are the decode steps. The prompt's 5 positions go through the model too.",
        ),
        Mistake(
            "one_prompt_position",
            41,
            "The prompt's 5 positions are all computed, though in one pass.",
        ),
    ),
)


class Remembering:
    """A model of V tokens with a cache: the logits depend on every id so far and on where it
    stands."""

    def __init__(self, table):
        self.table, self.seen, self.sum = table, 0, 0.0

    def __call__(self, new_ids, past):
        if past != self.seen:
            raise ValueError(f"{self.seen} positions are in the cache, and you said past = {past}")
        rows = []
        for i in new_ids:
            self.seen += 1
            self.sum = self.sum + np.cos(self.table[int(i)] * self.seen)
            rows.append(self.sum)
        return np.array(rows)


def greedy_inputs(given: Given):
    table = given(V, V, scale=3)
    yield "3 ids, 6 new ones", (Remembering(table), given.ids(V, 3).tolist(), 6)
    yield "one id, one new one", (Remembering(table), given.ids(V, 1).tolist(), 1)
    yield "5 ids, 2 new ones", (Remembering(table), given.ids(V, 5).tolist(), 2)
    yield "2 ids, 9 new ones", (Remembering(table), given.ids(V, 2).tolist(), 9)


GREEDY = Code(
    name="greedy",
    chapter=6,
    minutes=10,
    difficulty=2,
    cell="06-cache",
    mend="feeds_all_again",
    unlocks="generation, with the cache's past in mind",
    answer=answers.greedy,
    inputs=greedy_inputs,
    once=("forward",),
    example="greedy(lambda new_ids, past: np.eye(5)[[(i + 1) % 5 for i in new_ids]], [3], 4)",
    hints=(
        "The model remembers what it has been given. Which ids are new to it in the second turn?",
        "forward(ids[past:], past): only the ids after the first `past`.",
    ),
    mistakes=(
        Mistake(
            "feeds_all_again",
            {"forward(ids[past:], past)": "forward(ids, past)"},
            "All ids are fed in every turn, though the cache holds the earlier ones: they would "
            "stand there twice. Feed ids[past:].",
        ),
        Mistake(
            "first_logits",
            {"logits[-1]": "logits[0]"},
            "You choose from the logits after the first id given: those after the last predict the "
            "next token.",
        ),
        Mistake(
            "max_length",
            {"range(n_new)": "range(n_new - len(ids))"},
            "You count the prompt in (that is max_length): n_new tokens are to follow it.",
        ),
        Mistake(
            "forgets",
            {"past = len(ids)": "past = 0"},
            "`past` stays 0, as if the model had forgotten: the cache holds all ids given so far.",
        ),
        Mistake(
            "feeds_the_last",
            {"return ids": "forward(ids[past:], past)\n    return ids"},
            "You feed the last new token too, and nobody asks what follows it: stop after choosing "
            "it.",
        ),
        Mistake(
            "new_only",
            {"return ids": "return ids[-n_new:]"},
            "You return the new ids only: the prompt belongs in front.",
        ),
        Mistake(
            "past_too_late",
            {
                "        past = len(ids)\n        ids.append(int(logits[-1].argmax()))": (
                    "        ids.append(int(logits[-1].argmax()))\n        past = len(ids)"
                )
            },
            "`past` counts the token just chosen, which the model has not seen yet: set it before "
            "appending.",
        ),
    ),
)


def append_inputs(given: Given):
    def case(lengths, T, capacity=11):
        cache = np.zeros((2, len(lengths), H, capacity, D), np.float32)
        for row, n in enumerate(lengths):
            cache[:, row, :, :n] = given(2, H, n, D)
        return (
            *cache,
            np.array(lengths),
            given(len(lengths), H, T, D),
            given(len(lengths), H, T, D),
        )

    yield "an empty cache", case([0, 0], T)
    yield "one token after 4", case([4, 4], 1)
    yield "rows of different lengths", case([6, 2], 3)
    yield "the other way round", case([1, 5], 2)
    yield "until it is full", case([8, 8], 3)


APPEND = Code(
    name="append",
    chapter=6,
    minutes=15,
    difficulty=2,
    cell="06-append",
    unlocks="a KV cache",
    answer=answers.append,
    inputs=append_inputs,
    changes=("keys", "values"),
    example=(
        "append(np.zeros((1, 1, 3, 1)), np.zeros((1, 1, 3, 1)), np.array([1]), np.full((1, 1, 1, "
        "1), 5.0), np.full((1, 1, 1, 1), 7.0))"
    ),
    hints=(
        "Each row has a length of its own: loop over them, and write keys[row, :, start : start + "
        "T].",
        "S is the longest row + T. keys[:, :, :S] is a view: nothing is copied.",
    ),
    mistakes=(
        Mistake(
            "at_the_front",
            {"start : start + T": ":T"},
            "You write at the front, over what was there: the new ones go after each row's length.",
        ),
        Mistake(
            "one_length",
            {
                "for row, start in enumerate(lengths):": (
                    "for row, start in enumerate(lengths * 0 + lengths[0]):"
                )
            },
            "All rows are written after the first row's length: each has its own.",
        ),
        Mistake(
            "swapped",
            {
                "= k[row]": "= v[row]",
                "values[row, :, start : start + T] = v[row]": (
                    "values[row, :, start : start + T] = k[row]"
                ),
            },
            "Keys and values are exchanged.",
        ),
        Mistake(
            "new_only",
            {"return keys[:, :, :S], values[:, :, :S]": "return k, v"},
            "You return the new ones only: all S positions may be attended to.",
        ),
        Mistake(
            "old_only",
            {"lengths.max() + T": "lengths.max()"},
            "You return what was there before: the new positions count too, S = longest + T.",
        ),
        Mistake(
            "whole_capacity",
            {"return keys[:, :, :S], values[:, :, :S]": "return keys, values"},
            "You return the whole capacity: cut off after S positions.",
        ),
        Mistake(
            "shortest",
            {"lengths.max()": "lengths.min()"},
            "S is measured by the shortest row: the longest one needs its keys too.",
        ),
        Mistake(
            "one_token",
            {
                "start : start + T] = k[row]": "start : start + 1] = k[row, :, :1]",
                "start : start + T] = v[row]": "start : start + 1] = v[row, :, :1]",
            },
            "Only the first new position is written: there are T.",
        ),
    ),
)


EXERCISES = (POSITIONS_COMPUTED, GREEDY, APPEND)
