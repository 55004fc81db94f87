"""Exercises of chapter 02: a guess is a row of numbers."""

from __future__ import annotations

import numpy as np

from ... import ops
from ..checking.exercise import Code, Mistake, Predict
from ..checking.inputs import B, Given, H, T, V

SOFTMAX_BY_HAND = Predict(
    name="softmax_by_hand",
    chapter=2,
    minutes=5,
    difficulty=1,
    cell="02-softmax",
    unlocks="reading logits",
    question=(
        "Two tokens have the logits 0 and log 3 = 1.0986. What probability does softmax give the "
        "second?"
    ),
    decimals=2,
    digest="1d7189cc7116952a",
    hints=("exp(0) = 1 and exp(log 3) = 3.", "Divide each by their sum."),
    mistakes=(
        Mistake(
            "no_sum",
            3,
            "That is exp(log 3). Divide by the sum over all tokens: probabilities sum to 1.",
        ),
        Mistake(
            "no_exp", 1, "You divided the logits by their sum. Softmax takes exp of each first."
        ),
        Mistake("the_other", 0.25, "That is the probability of the first token."),
        Mistake(
            "half",
            0.5,
            "Half would be right for two equal logits. A difference of log 3 makes one token three "
            "times as likely.",
        ),
        Mistake("ratio", 0.33, "That is the ratio of the two. Divide by the sum, 1 + 3."),
    ),
)


def rows_inputs(given: Given):
    yield "[B,H,T]", (given(B, H, T),)
    yield "one row", (given(V),)
    yield "a last axis of 1", (given(B, H, 1),)
    yield "scores of 1e4", (given(B, T, V, scale=1e4),)
    yield "float64", (given(B, V, dtype=np.float64),)
    masked = np.where(np.tri(T, dtype=bool), given(B, H, T, T), np.float32(-np.inf))
    yield "masked scores", (masked,)


LOG_SOFTMAX = Code(
    name="log_softmax",
    chapter=2,
    minutes=10,
    difficulty=1,
    cell="02-log-softmax",
    mend="log_of_softmax",
    unlocks="log-probabilities that stay finite",
    answer=ops.log_softmax,
    inputs=rows_inputs,
    example="log_softmax(np.array([0.0, math.log(3.0)]))",
    hints=(
        "Try it on [0, -200]: what is the logarithm of a probability that underflows to 0?",
        "log(e / sum) = log(e) - log(sum), and log(exp(x)) is x: no logarithm of a quotient is "
        "needed.",
    ),
    mistakes=(
        Mistake(
            "log_of_softmax",
            """
            e = np.exp(x - x.max(axis=-1, keepdims=True))
            return np.log(e / e.sum(axis=-1, keepdims=True))
            """,
            "A probability that underflows to 0 has the logarithm -inf. x - log(sum) needs no "
            "quotient, and stays finite.",
        ),
        Mistake(
            "no_shift",
            {"x - x.max(axis=-1, keepdims=True)": "x"},
            "exp overflows for large scores. Subtract the row's largest first: it changes nothing "
            "else.",
        ),
        Mistake(
            "shift_once",
            {"return shifted -": "return x -"},
            "You subtracted the largest inside the logarithm only: it must leave both terms, or "
            "neither.",
        ),
        Mistake(
            "all_rows",
            {".sum(axis=-1, keepdims=True)": ".sum()"},
            "You sum over all rows together. Each row is a distribution of its own: axis=-1, "
            "keepdims=True.",
        ),
        Mistake(
            "wrong_axis",
            {"axis=-1": "axis=0"},
            "You normalise along the first axis. The last one holds the tokens: axis=-1.",
        ),
        Mistake(
            "epsilon",
            """
            e = np.exp(x - x.max(axis=-1, keepdims=True))
            return np.log(e / e.sum(axis=-1, keepdims=True) + 1e-9)
            """,
            "A small number inside the logarithm hides the -inf, and makes every improbable token "
            "as likely as it is. x - log(sum) needs none.",
        ),
        Mistake(
            "base_two",
            {"np.log(": "np.log2("},
            "This is the logarithm to base 2. Natural logarithms are needed.",
        ),
    ),
)


def softmax_inputs(given: Given):
    yield from rows_inputs(given)
    for layer in (0, 5):
        scores = np.where(
            np.tri(5, dtype=bool), given.step(f"h.{layer}.attn.scores"), np.float32(-np.inf)
        )
        yield f"tales, h.{layer}.attn.weights", (scores,), given.step(f"h.{layer}.attn.weights")


SOFTMAX = Code(
    name="softmax",
    chapter=2,
    minutes=10,
    difficulty=1,
    cell="02-softmax",
    unlocks="attn.weights of the model, and its choices",
    answer=ops.softmax,
    inputs=softmax_inputs,
    example="softmax(np.array([0.0, math.log(3.0)]))",
    hints=(
        "exp of every score, divided by the sum along the last axis; keepdims=True lets the "
        "division line up.",
        "exp(1e4) is infinite. softmax(x + c) = softmax(x): which c keeps every exponent at 0 or "
        "below?",
        "Subtract x.max(axis=-1, keepdims=True) first.",
    ),
    mistakes=(
        Mistake(
            "no_shift",
            {"x - x.max(axis=-1, keepdims=True)": "x"},
            "exp overflows for large scores, and inf / inf is nan. Subtract the row's largest "
            "first: softmax(x + c) = softmax(x).",
        ),
        Mistake(
            "over_queries",
            {"e.sum(axis=-1": "e.sum(axis=-2 if x.ndim > 1 else -1"},
            "The columns sum to 1, not the rows: you sum over the queries (axis=-2). Sum over the "
            "last axis.",
        ),
        Mistake(
            "first_axis",
            {"axis=-1": "axis=0"},
            "You normalise along the first axis. The last one holds the scores of a row: axis=-1.",
        ),
        Mistake(
            "whole_array",
            {".max(axis=-1, keepdims=True)": ".max()", ".sum(axis=-1, keepdims=True)": ".sum()"},
            "You take the whole array for one row: largest and sum are of each row, axis=-1, "
            "keepdims=True.",
        ),
        Mistake(
            "all_rows",
            {"e.sum(axis=-1, keepdims=True)": "e.sum()"},
            "All rows together sum to 1. Each row is a distribution of its own: axis=-1, "
            "keepdims=True.",
        ),
        Mistake(
            "no_sum",
            {"return e / e.sum(axis=-1, keepdims=True)": "return e"},
            "These are not probabilities yet: divide by the sum of the row.",
        ),
        Mistake(
            "no_exp",
            {"np.exp(x - x.max(axis=-1, keepdims=True))": "x"},
            "You divided the scores themselves by their sum. Take exp of each first.",
        ),
        Mistake(
            "log",
            {
                "return e / e.sum(axis=-1, keepdims=True)": (
                    "return np.log(e / e.sum(axis=-1, keepdims=True))"
                )
            },
            "This is the logarithm of softmax: leave the log out.",
        ),
        Mistake(
            "global_shift",
            {"x.max(axis=-1, keepdims=True)": "x.max()"},
            "You subtract the largest of all rows. A row far below it underflows to 0 / 0: "
            "subtract each row's own largest.",
        ),
    ),
)


def cross_entropy_inputs(given: Given):
    yield "[B,T,V]", (given(B, T, V), given.ids(V, B, T))
    yield "one position", (given(V), np.int64(3))
    yield "logits of 1e4", (given(B, T, V, scale=1e4), given.ids(V, B, T))
    yield "all equal: log V", (np.zeros((B, V), np.float32), given.ids(V, B))
    yield "float64", (given(B, V, dtype=np.float64), given.ids(V, B))
    yield "logits of tales", (given.step("logits"), given.ids(4096, 1, 5))


CROSS_ENTROPY = Code(
    name="cross_entropy",
    chapter=2,
    minutes=15,
    difficulty=2,
    cell="02-cross-entropy",
    unlocks="loss and perplexity",
    answer=ops.cross_entropy,
    inputs=cross_entropy_inputs,
    example="cross_entropy(np.array([[0.0, math.log(3.0)], [0.0, 0.0]]), np.array([1, 0]))",
    hints=(
        "log_softmax gives the log-probability of every token; the target's own is the one that "
        "counts.",
        "np.take_along_axis(a, targets[..., None], axis=-1) picks one number of each row.",
        "The loss is positive: minus the log-probability. Drop the last axis again with [..., 0].",
    ),
    mistakes=(
        Mistake(
            "no_minus",
            {"return -np": "return np"},
            "The sign: a log-probability is negative, and the loss is minus that.",
        ),
        Mistake(
            "mean",
            {"[..., 0]": "[..., 0].mean()"},
            "You return the mean. The loss of every target is needed; whoever wants the mean takes "
            "it.",
        ),
        Mistake(
            "no_log",
            {"log_softmax(logits)": "np.exp(log_softmax(logits))"},
            "That is minus the probability of the target. The loss is minus its logarithm.",
        ),
        Mistake(
            "no_softmax",
            {"log_softmax(logits)": "logits"},
            "You took the target's logit. Its log-probability is needed: log_softmax first.",
        ),
        Mistake(
            "extra_axis",
            {"[..., 0]": ""},
            "There is an axis of length 1 too many at the end: take [..., 0] of it.",
        ),
        Mistake(
            "whole_row",
            """
            return -log_softmax(logits).sum(axis=-1)
            """,
            "You summed over all tokens. Only the target's log-probability counts: pick it with "
            "np.take_along_axis.",
        ),
        Mistake(
            "log_of_softmax",
            """
            e = np.exp(logits - logits.max(axis=-1, keepdims=True))
            p = e / e.sum(axis=-1, keepdims=True)
            return -np.log(np.take_along_axis(p, np.asarray(targets)[..., None], axis=-1)[..., 0])
            """,
            "A probability that underflows to 0 gives an infinite loss. Use log_softmax, which "
            "never forms it.",
        ),
    ),
)


EXERCISES = (SOFTMAX_BY_HAND, LOG_SOFTMAX, SOFTMAX, CROSS_ENTROPY)
