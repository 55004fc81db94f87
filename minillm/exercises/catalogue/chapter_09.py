"""Exercises of chapter 09: from loops to machine code."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np

from ... import ops
from ..checking.call import Outcome, Problem
from ..checking.exercise import Code, Mistake
from ..checking.inputs import B, Given, H, T, V
from ..checking.verdict import problem
from . import answers


def matmul_inputs(given: Given):
    yield "[M,K] by [K,N]", (given(B, H), given(H, T))
    yield "square", (given(T, T), given(T, T))
    yield "one row", (given(1, V), given(V, T))
    yield "float64", (given(B, H, dtype=np.float64), given(H, T, dtype=np.float64))


MATMUL = Code(
    name="matmul",
    chapter=9,
    minutes=10,
    difficulty=1,
    cell="09-matmul-ladder",
    mend="assigns",
    unlocks="the second rung of the ladder",
    answer=answers.matmul,
    inputs=matmul_inputs,
    own_dtype=True,
    loop_without=(
        "@",
        "matmul",
        "dot",
        "vdot",
        "inner",
        "einsum",
        "tensordot",
        "multi_dot",
        "vecdot",
        "matvec",
        "vecmat",
    ),
    example="matmul(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [10.0, 1.0]]))",
    hints=(
        "Only the last k is left in the result. Why?",
        "y_i is a sum over k: every turn must add to what is there.",
    ),
    mistakes=(
        Mistake(
            "assigns",
            {"y[i] +=": "y[i] ="},
            "Every turn overwrites the one before it: the sum over k needs +=.",
        ),
        Mistake(
            "float64",
            {", x.dtype)": ")"},
            "np.zeros is float64 unless told otherwise, and so the result is: give it x's dtype.",
        ),
        Mistake(
            "not_zeroed",
            {"np.zeros(": "np.ones("},
            "The result is begun with something else than zeros: each sum starts from 0.",
        ),
        Mistake(
            "elementwise",
            {"x[i, k] * w[k]": "x[i, k] * w[i % len(w)]"},
            "You always take the same row of w: x_ik goes with row k.",
        ),
        Mistake(
            "stops_early",
            {"in range(len(w))": "in range(len(w) - 1)"},
            "The last k is left out: range(n) ends before n already.",
        ),
        Mistake(
            "first_column",
            {"x[i, k] *": "x[i, 0] *"},
            "You always take the first number of the row of x: row k of w goes with x_ik.",
        ),
    ),
)


def loop_inputs(given: Given):
    yield "N numbers", (given(V, scale=2), np.zeros(V, np.float32))
    yield "large ones", (given(T, scale=1e4), np.zeros(T, np.float32))
    yield "y held something", (given(V), np.ones(V, np.float32))
    yield "float64", (given(V, dtype=np.float64), np.zeros(V))
    yield "one number", (given(1), np.zeros(1, np.float32))


LEAST_SPEEDUP = 2.0  # on an AMD Zen 4: 6 for the answer, 0.2 for its loop uncompiled


# calls in a row, ops.gelu's and the answer's: about equally long, so that a busy machine slows
# both; sending numbers there and back counts for little
TIMES = 5, 100


def fast_enough(call: Callable[..., Outcome]) -> Problem | None:
    """Whether what `call` runs, compiled, is at least LEAST_SPEEDUP times as fast as ops.gelu: best
    of 5, in turns, on other numbers each time. The time is that until the answer has come."""
    x, numpy, numba = np.linspace(-4, 4, 20_000, dtype=np.float32), [], []
    for _ in range(6):
        x = x[::-1] * np.float32(0.9)
        start = perf_counter()
        for _ in range(TIMES[0]):
            right = ops.gelu(x)
        numpy.append((perf_counter() - start) / TIMES[0])
        start = perf_counter()
        outcome = call({"x": x.copy(), "y": np.zeros_like(x)}, compiled=TIMES[1])
        numba.append((perf_counter() - start) / TIMES[1])
        if outcome.raised:
            return outcome.raised
        if bad := problem(outcome.values["y afterwards"], right):
            return Problem(bad.kind, f"compiled by Numba: {bad.says}")
    ratio = min(numpy[1:]) / min(numba[1:])  # the first call compiles it
    if ratio < LEAST_SPEEDUP:
        says = f"only {ratio:.1f} times as fast as ops.gelu; needed: {LEAST_SPEEDUP:g} times"
        return Problem("slow", f"right, but {says}")
    return None


GELU_LOOP = Code(
    name="gelu_loop",
    chapter=9,
    minutes=15,
    difficulty=2,
    cell="09-first-kernel",
    unlocks="a kernel of your own",
    needs="numba",
    seconds=60,
    answer=answers.gelu_loop,
    inputs=loop_inputs,
    changes=("y",),
    last=fast_enough,
    example="gelu_loop(np.array([1.0]), np.array([0.0]))",
    hints=(
        "for i in range(len(x)): one number at a time, no arrays in between.",
        "math.erf and math.sqrt are what Numba turns into machine code; y[i] = ... writes the "
        "result.",
    ),
    mistakes=(
        Mistake(
            "tanh_form",
            {
                "1.0 + math.erf(x[i] / math.sqrt(2.0))": (
                    "1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x[i] + 0.044715 * x[i] ** 3))"
                )
            },
            "This is GELU's tanh form. The exact one is asked for, with erf.",
        ),
        Mistake(
            "no_root", {" / math.sqrt(2.0)": ""}, "The division by sqrt(2) inside erf is missing."
        ),
        Mistake(
            "no_half",
            {"0.5 * x[i]": "x[i]"},
            "The factor 0.5 is missing: 1 + erf lies between 0 and 2.",
        ),
        Mistake("adds", {"y[i] = ": "y[i] += "}, "You add to what y held: it must be overwritten."),
        Mistake(
            "returns",
            {"y[i] = ": "x[i] = "},
            "You write into x: the result belongs in y, and x stays as it was.",
        ),
        Mistake(
            "first_only",
            {"for i in range(len(x)):": "for i in range(1):"},
            "Only the first number is written: loop over all.",
        ),
        Mistake(
            "by_two", {"math.sqrt(2.0)": "2.0"}, "You divide by 2 inside erf: divide by sqrt(2)."
        ),
    ),
)


EXERCISES = (MATMUL, GELU_LOOP)
