"""Exercises of chapter 14: putting it to work."""

from __future__ import annotations

import numpy as np

from ..checking.exercise import Code, Mistake
from ..checking.inputs import B, C, D, Given, H, T
from . import answers


def last_inputs(given: Given):
    yield "[B,T,C], lengths 3 and 5", (given(B, T, C), np.array([3, 5]))
    yield "as long as the padding", (given(B, T, C), np.array([5, 5]))
    yield "one step", (given(3, T, C), np.array([1, 2, 1]))
    yield "one text", (given(1, T, C), np.array([4]))


LAST_STATE = Code(
    name="last_state",
    chapter=14,
    minutes=5,
    difficulty=1,
    cell="14-last-state",
    mend="last_example",
    unlocks="classifying texts of any length",
    answer=answers.last_state,
    inputs=last_inputs,
    example=(
        "last_state(np.array([[[1.0], [2.0], [0.0]], [[3.0], [4.0], [5.0]]]), np.array([2, 3]))"
    ),
    hints=(
        "What is the first axis of batch-first data?",
        "Each text ends somewhere else: index rows and steps together, states[np.arange(B), ...].",
    ),
    mistakes=(
        Mistake(
            "last_example",
            {"states[np.arange(len(states)), lengths - 1]": "states[-1]"},
            "Batch first: states[-1] is the last example, with all its steps. The last step of "
            "every example is needed.",
        ),
        Mistake(
            "padding",
            {"lengths - 1": "-1"},
            "You read the last place of each row, which is padding where a text is shorter.",
        ),
        Mistake(
            "off_by_one",
            {"lengths - 1": "np.minimum(lengths, states.shape[1] - 1)"},
            "One too far: a text of 3 tokens ends at place 2.",
        ),
        Mistake(
            "mean",
            "return states.mean(axis=1)",
            "You average over all steps, padding included: the last real one is needed.",
        ),
        Mistake(
            "first", {"lengths - 1": "0"}, "You read the first step: it has seen one token only."
        ),
        Mistake(
            "all_pairs",
            {"states[np.arange(len(states)), lengths - 1]": "states[:, lengths - 1]"},
            "states[:, lengths - 1] gives every text the ends of all texts: pair one row number a "
            "text, np.arange(B), with its last place.",
        ),
    ),
)


def cell_inputs(given: Given):
    def case(b, c, n, scale=1.0, dtype=np.float32):
        shapes = ((b, c), (b, n), (b, n), (c, 4 * n), (n, 4 * n), (4 * n,))
        return tuple(given(*shape, scale=scale, dtype=dtype) for shape in shapes)

    yield "[B,C] and [B,N]", case(B, T, H)
    yield "one text", case(1, T, D)
    yield "x and h of one size", case(B, H, H)
    yield "float64", case(B, T, H, dtype=np.float64)
    yield "large gates", case(B, T, H, scale=5.0)


LSTM_CELL = Code(
    name="lstm_cell",
    chapter=14,
    minutes=20,
    difficulty=2,
    cell="14-lstm-cell",
    unlocks="the recurrent baseline",
    answer=answers.lstm_cell,
    inputs=cell_inputs,
    example=(
        "lstm_cell(np.array([[1.0]]), np.array([[0.5]]), np.array([[2.0]]), np.array([[1.0, 0.0, "
        "1.0, 0.0]]), np.ones((1, 4)), np.zeros(4))"
    ),
    hints=(
        "One product gives all four gates: np.split(x @ w_x + h @ w_h + bias, 4, axis=-1), in the "
        "order i, f, g, o.",
        "sigmoid(z) = 1 / (1 + exp(-z)) on i, f and o; tanh on g.",
        "First the new c = f * c + i * g, then h = o * tanh(c) with the new c.",
    ),
    mistakes=(
        Mistake(
            "gates_swapped",
            {"f * c + i *": "i * c + f *"},
            "Input and forget gate have changed places: f multiplies the old memory.",
        ),
        Mistake(
            "order_ifog",
            {"i, f, g, o = np": "i, f, o, g = np"},
            "The quarters are i, f, g, o: you read the last two as o, g.",
        ),
        Mistake(
            "old_memory",
            {
                "c = f * c + i * np.tanh(g)\n    return o * np.tanh(c), c": (
                    "new = f * c + i * np.tanh(g)\n    return o * np.tanh(c), new"
                )
            },
            "h shows the old memory: use the new c.",
        ),
        Mistake("no_tanh", {"o * np.tanh(c)": "o * c"}, "tanh is missing in h = o tanh(c)."),
        Mistake(
            "sigmoid_on_g",
            {"np.tanh(g)": "1 / (1 + np.exp(-g))"},
            "g passes through tanh, not sigmoid: it must be able to subtract.",
        ),
        Mistake(
            "no_sigmoid",
            {"(1 / (1 + np.exp(-gate)) for gate in (i, f, o))": "(i, f, o)"},
            "The gates are not squeezed: sigmoid keeps each between 0 and 1.",
        ),
        Mistake(
            "no_recurrence",
            {" + h @ w_h": ""},
            "h is not used: without h W_h the cell does not know what came before.",
        ),
        Mistake("no_bias", {" + bias": ""}, "The bias is missing."),
        Mistake("forgets_all", {"f * c + i": "i"}, "The old memory is dropped: f * c is missing."),
        Mistake(
            "returned_swapped",
            {"return o * np.tanh(c), c": "return c, o * np.tanh(c)"},
            "h and c are returned in the wrong order.",
        ),
    ),
)


EXERCISES = (LAST_STATE, LSTM_CELL)
