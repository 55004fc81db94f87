"""Exercises of chapter 07: choosing the next word."""

from __future__ import annotations

import numpy as np

from ...decoding import filters
from ..checking.exercise import Code, Mistake, Predict
from ..checking.inputs import Given, V

BEST_IS_NOT_GREEDY = Predict(
    name="best_is_not_greedy",
    chapter=7,
    minutes=5,
    difficulty=1,
    cell="07-prefix-tree",
    unlocks="why beams can beat greedy",
    question=(
        "First token: a with probability 0.6, b with 0.4. After a, the second token is one of "
        "three equally likely ones; after b, c with 0.9. What is the probability of the most "
        "probable text of two tokens?"
    ),
    decimals=2,
    digest="4f247cdbd775afd8",
    hints=("Multiply along each path.", "a first: 0.6 / 3. b first: 0.4 * 0.9."),
    mistakes=(
        Mistake(
            "greedy",
            0.2,
            "That is greedy's text: a, then one of three. b followed by c is more probable.",
        ),
        Mistake(
            "first_only",
            0.6,
            "That is the first token's probability alone: the second one's multiplies it.",
        ),
        Mistake("last_only", 0.9, "That is c's probability after b: multiply by b's own."),
        Mistake("mixed_up", 0.54, "0.6 * 0.9 joins a and c, but 0.9 holds only after b."),
    ),
)


def top_k_inputs(given: Given):
    yield "k = 4", (given(V), 4)
    yield "k = 1", (given(V), 1)
    yield "several tie with the k-th", (np.array([1, 3, 2, 2, 0, 2], np.float32), 2)
    yield "k is the whole vocabulary", (given(V), V)
    yield "k beyond the vocabulary", (given(V), V + 5)
    yield "logits of tales", (given.step("logits")[0, -1], 40)


TOP_K = Code(
    name="top_k",
    chapter=7,
    minutes=5,
    difficulty=1,
    cell="07-top-k",
    mend="drops_ties",
    unlocks="sampling from k tokens",
    answer=filters.top_k,
    inputs=top_k_inputs,
    example="top_k(np.array([1.0, 3.0, 2.0, 2.0]), 2)",
    hints=(
        "Look at what happens to the k-th largest logit itself.",
        "What is to be dropped is strictly below the k-th: ties with it stay.",
    ),
    mistakes=(
        Mistake(
            "drops_ties",
            {"logits < np": "logits <= np"},
            "The k-th token itself is dropped too: only what lies strictly below it goes.",
        ),
        Mistake(
            "keeps_the_smallest",
            {
                "logits < np.partition(logits, -k)[-k]": (
                    "logits > np.partition(logits, k - 1)[k - 1]"
                )
            },
            "The k smallest are kept: the k largest are needed.",
        ),
        Mistake(
            "zero",
            {"-np.inf": "0.0"},
            "Dropped logits become 0, which still has a probability: -inf has none.",
        ),
        Mistake(
            "exactly_k",
            {
                "return np.where(logits < np.partition(logits, -k)[-k], -np.inf, logits)": (
                    "kept = np.full_like(logits, -np.inf)\n    "
                    'best = np.argsort(-logits, kind="stable")[:k]\n    '
                    "kept[best] = logits[best]\n    "
                    "return kept"
                )
            },
            "Exactly k are kept: tokens that tie with the k-th stay as well.",
        ),
        Mistake(
            "one_more",
            {"np.partition(logits, -k)[-k]": "np.sort(logits)[-min(k + 1, len(logits))]"},
            "One token too many is kept.",
        ),
        Mistake(
            "only_the_kept",
            {
                "np.where(logits < np.partition(logits, -k)[-k], -np.inf, logits)": (
                    "logits[logits >= np.partition(logits, -k)[-k]]"
                )
            },
            "You return the kept logits alone: ids are lost. The result has a place for every "
            "token.",
        ),
    ),
)


def top_p_inputs(given: Given):
    yield "p = 0.7", (given(V), 0.7)
    yield "p = 0.9", (given(V, scale=2), 0.9)
    yield "one token has it all", (given(V, scale=30), 0.5)
    yield "p near 0: one stays", (given(V), 1e-3)
    yield "p = 0: one stays", (given(V), 0.0)
    yield (
        "p hardly above 0, and probabilities that sum to less than 1",
        (np.arange(10, dtype=np.float32) * 1e-3, 1e-9),
    )
    yield "p near 1", (given(V), 0.999)
    yield "logits of 1e4", (given(V, scale=1e4), 0.9)
    yield "logits of tales", (given.step("logits")[0, -1], 0.9)


TOP_P = Code(
    name="top_p",
    chapter=7,
    minutes=20,
    difficulty=3,
    cell="07-top-p",
    unlocks="nucleus sampling",
    answer=filters.top_p,
    inputs=top_p_inputs,
    example="top_p(np.log(np.array([0.5, 0.3, 0.15, 0.05])), 0.7)",
    hints=(
        "Turn the logits into probabilities and sort them from the largest.",
        "Keep a token if the sum of those before it is still below p: so the one that crosses p "
        "stays, and the first whatever p is.",
        "Undo the sorting: kept[order[mask]] = logits[order[mask]] in an array full of -inf.",
    ),
    mistakes=(
        Mistake(
            "drops_the_crossing",
            """
            order = np.argsort(-logits, kind="stable")
            keep = order[np.cumsum(softmax(logits)[order]) <= p]
            filtered = np.full_like(logits, -np.inf)
            filtered[keep] = logits[keep]
            return filtered
            """,
            "The token with which the sum reaches p is dropped: it belongs to those kept, and one "
            "always stays.",
        ),
        Mistake(
            "none_stays",
            """
            order = np.argsort(-logits, kind="stable")
            probs = softmax(logits)[order]
            keep = order[np.cumsum(probs) - probs < p]
            filtered = np.full_like(logits, -np.inf)
            filtered[keep] = logits[keep]
            return filtered
            """,
            "Where p is 0 no token is left: the most likely one always stays.",
        ),
        Mistake(
            "one_too_many",
            """
            order = np.argsort(-logits, kind="stable")
            n = 2 + np.count_nonzero(np.cumsum(softmax(logits)[order]) < p)
            filtered = np.full_like(logits, -np.inf)
            filtered[order[:n]] = logits[order[:n]]
            return filtered
            """,
            "One token too many is kept: stop with the one that reaches p.",
        ),
        Mistake(
            "least_likely",
            """
            order = np.argsort(logits, kind="stable")
            n = 1 + np.count_nonzero(np.cumsum(softmax(logits)[order]) < p)
            filtered = np.full_like(logits, -np.inf)
            filtered[order[:n]] = logits[order[:n]]
            return filtered
            """,
            "You collect from the least likely token: begin with the most likely.",
        ),
        Mistake(
            "sums_logits",
            """
            order = np.argsort(-logits, kind="stable")
            n = 1 + np.count_nonzero(np.cumsum(logits[order]) < p)
            filtered = np.full_like(logits, -np.inf)
            filtered[order[:n]] = logits[order[:n]]
            return filtered
            """,
            "You add up the logits. It is the probabilities that must reach p: softmax first.",
        ),
        Mistake(
            "threshold",
            "return np.where(softmax(logits) < 1 - p, -np.inf, logits)",
            "You compare each probability with a fixed bound. It is the running sum, from the most "
            "likely down, that must reach p.",
        ),
        Mistake(
            "not_undone",
            """
            order = np.argsort(-logits, kind="stable")
            n = 1 + np.count_nonzero(np.cumsum(softmax(logits)[order]) < p)
            return np.where(np.arange(len(logits)) < n, logits[order], -np.inf)
            """,
            "The result is still sorted: put every kept logit back in its own place.",
        ),
        Mistake(
            "probabilities",
            {"= logits[keep]": "= probs[keep]"},
            "You return probabilities: what is kept stays a logit.",
        ),
        Mistake(
            "zero",
            {"-np.inf": "0.0"},
            "Dropped logits become 0, which still has a probability: -inf has none.",
        ),
    ),
)


EXERCISES = (BEST_IS_NOT_GREEDY, TOP_K, TOP_P)
