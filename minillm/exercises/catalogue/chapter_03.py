"""Exercises of chapter 03: attention."""

from __future__ import annotations

import numpy as np

from ...layers import attention
from ..checking.exercise import Code, Mistake, Predict
from ..checking.inputs import B, C, D, Given, H, T
from . import answers

ATTENTION_BY_HAND = Predict(
    name="attention_by_hand",
    chapter=3,
    minutes=10,
    difficulty=2,
    cell="03-by-hand",
    unlocks="one head, every number",
    question=(
        "Three tokens, one head, d_k = 1: Q = [1, 2, 3], K = [4, 5, 6], V = [7, 8, 9], one number "
        "a token. What is the second token's output of causal attention?"
    ),
    decimals=2,
    digest="5360fadbc9049ba7",
    hints=(
        "Its query is 2; it sees the keys 4 and 5, not 6. The scores are 8 and 10.",
        "softmax([8, 10]) = [0.119, 0.881]; average 7 and 8 with these weights.",
    ),
    mistakes=(
        Mistake(
            "no_mask",
            8.85,
            "The second token saw the third: the mask is missing. It sees itself and the first "
            "only.",
        ),
        Mistake(
            "uniform",
            7.5,
            "That is the plain mean of 7 and 8. The weights are softmax of the scores 8 and 10.",
        ),
        Mistake(
            "scores_as_weights",
            7.56,
            "You used the scores, divided by their sum, as weights. Softmax takes exp of them "
            "first.",
        ),
        Mistake(
            "printed",
            4.24,
            "That is 24 / sqrt(32): a published slip. 32 is a score, not d_k, and values are "
            "averaged, not summed.",
        ),
        Mistake(
            "not_averaged",
            8,
            "That is the value of the best key. Attention averages: the other key has a weight "
            "too.",
        ),
        Mistake("third", 8.95, "That is the third token's output."),
    ),
)


def mask_inputs(given: Given):
    yield "[B,T], no past", (np.arange(T) + np.zeros((B, 1), np.int64), T)
    yield "a past of 4", (4 + np.arange(T)[None], 4 + T)
    yield "one new token", (np.array([[6]]), 7)
    yield "rows of different lengths", (np.array([[2, 3, 4], [0, 1, 2]]), 5)
    yield "the first token", (np.array([[0]]), 1)


CAUSAL_MASK = Code(
    name="causal_mask",
    chapter=3,
    minutes=10,
    difficulty=1,
    cell="03-mask",
    unlocks="the mask of attention, cached and not",
    answer=attention.causal_mask,
    inputs=mask_inputs,
    example="causal_mask(np.array([[1, 2]]), 4)",
    hints=(
        "Compare the number of every key, np.arange(n_keys), with the position of every query.",
        "[S] against [B,T,1] broadcasts to [B,T,S]: positions[..., None].",
    ),
    mistakes=(
        Mistake(
            "no_mask",
            {
                "np.arange(n_keys) <= positions[..., None]": (
                    "np.arange(n_keys) <= positions[..., None] + n_keys"
                )
            },
            "Every query sees every key, the future too. Key s is visible from position p only "
            "when s <= p.",
        ),
        Mistake(
            "mask_off_by_one", {"<=": "<"}, "A position does not see itself: s <= p, not s < p."
        ),
        Mistake(
            "one_ahead",
            {"<= positions[..., None]": "<= positions[..., None] + 1"},
            "A position sees the one after it. Key s is visible when s <= p.",
        ),
        Mistake(
            "inverted", {"<=": ">"}, "True where False should be: the mask says what is visible."
        ),
        Mistake(
            "transposed",
            {"<=": ">="},
            "Positions see the future and not the past: reverse the comparison.",
        ),
        Mistake(
            "from_zero",
            {"positions[..., None]": "(np.arange(positions.shape[1]) + 0 * positions)[..., None]"},
            "You count the queries from 0. Behind a cache they begin later: compare with "
            "`positions`.",
        ),
    ),
)


def split_inputs(given: Given):
    yield "[B,T,H*D]", (given(B, T, C), H)
    yield "T = 1", (given(B, 1, C), H)
    yield "one head", (given(B, T, D), 1)
    yield "float64", (given(B, T, C, dtype=np.float64), H)
    yield (
        "tales, h.0.attn.q",
        (given.step("h.0.attn.c_attn")[..., :256], 8),
        given.step("h.0.attn.q"),
    )


SPLIT_HEADS = Code(
    name="split_heads",
    chapter=3,
    minutes=10,
    difficulty=2,
    cell="03-heads",
    unlocks="attn.q, attn.k and attn.v of the model",
    answer=attention.split_heads,
    inputs=split_inputs,
    example="split_heads(np.arange(12).reshape(1, 2, 6), 2)",
    hints=(
        "Head h owns D neighbouring columns: reshape the last axis into [H,D] first.",
        "[B,T,H,D] must become [B,H,T,D]: swap two axes. A reshape cannot swap.",
    ),
    mistakes=(
        Mistake(
            "heads_mixed",
            "B, T, C = x.shape\nreturn x.reshape(B, n_head, T, C // n_head)",
            "The shape is right and the numbers are mixed: a reshape straight to [B,H,T,D] deals "
            "out tokens, not columns. Reshape to [B,T,H,D], then swap.",
        ),
        Mistake(
            "no_swap",
            {".swapaxes(1, 2)": ""},
            "This is [B,T,H,D]. Heads come before positions: swap axes 1 and 2.",
        ),
        Mistake(
            "columns_dealt",
            {"n_head, -1).swapaxes(1, 2)": "-1, n_head).transpose(0, 3, 1, 2)"},
            "You deal columns out one by one (0, H, 2H, ... to head 0). Head h owns neighbouring "
            "columns, h*D to (h+1)*D.",
        ),
        Mistake(
            "wrong_swap",
            {".swapaxes(1, 2)": ".swapaxes(1, 3)"},
            "You swapped positions with columns: swap axes 1 and 2.",
        ),
        Mistake(
            "last_axes",
            {".swapaxes(1, 2)": ".transpose(0, 2, 3, 1)"},
            "This is [B,H,D,T], k already transposed: [B,H,T,D] is needed.",
        ),
    ),
)


def merge_inputs(given: Given):
    yield "[B,H,T,D]", (given(B, H, T, D),)
    yield "T = 1", (given(B, H, 1, D),)
    yield "one head", (given(B, 1, T, D),)
    yield "float64", (given(B, H, T, D, dtype=np.float64),)


MERGE_HEADS = Code(
    name="merge_heads",
    chapter=3,
    minutes=5,
    difficulty=1,
    cell="03-heads",
    mend="heads_not_merged",
    unlocks="attn.out of the model",
    answer=attention.merge_heads,
    inputs=merge_inputs,
    example="merge_heads(np.arange(12).reshape(1, 2, 2, 3))",
    hints=(
        "Which axes does split_heads swap after its reshape? Here the same is undone, in the other "
        "order.",
        "First [B,H,T,D] -> [B,T,H,D], then flatten the last two axes.",
    ),
    mistakes=(
        Mistake(
            "heads_not_merged",
            {".swapaxes(1, 2)": ""},
            "The shape is right and the numbers are mixed: bring the heads beside their columns, "
            "[B,T,H,D], before the reshape.",
        ),
        Mistake(
            "sum",
            "return x.sum(axis=1)",
            "You added the heads up. They are laid side by side: [B,T,H*D].",
        ),
        Mistake(
            "mean",
            "return x.mean(axis=1)",
            "You averaged the heads. They are laid side by side: [B,T,H*D].",
        ),
        Mistake(
            "columns_dealt",
            {"x.swapaxes(1, 2)": "x.transpose(0, 2, 3, 1)"},
            "The columns of the heads alternate. Head h goes, as a piece, to columns h*D to "
            "(h+1)*D.",
        ),
        Mistake(
            "flat",
            {"x.shape[0], x.shape[2], -1": "x.shape[0], -1"},
            "Positions have been flattened too: [B,T,C] is needed.",
        ),
    ),
)


def attention_inputs(given: Given):
    start = np.zeros((B, 1), np.int64)
    yield (
        "[B,H,T,D], no past",
        (given(B, H, T, D), given(B, H, T, D), given(B, H, T, D), start + np.arange(T), D**-0.5),
    )
    yield "T = 1", (given(B, H, 1, D), given(B, H, 1, D), given(B, H, 1, D), start, D**-0.5)
    yield (
        "one new token, S = 6",
        (given(B, H, 1, D), given(B, H, 6, D), given(B, H, 6, D), start + 5, D**-0.5),
    )
    rows = np.array([[3, 4], [1, 2]])
    yield (
        "rows of different lengths",
        (given(B, H, 2, D), given(B, H, T, D), given(B, H, T, D), rows, D**-0.5),
    )
    q, k = np.rint(given(B, H, T, D, scale=100)), np.rint(given(B, H, T, D, scale=100))
    yield (
        "scores of 1e4, exact in whatever order",
        (q, k, given(B, H, T, D), start + np.arange(T), 0.5),
    )
    yield (
        "another scale than 1/sqrt(D)",
        (given(B, H, T, D), given(B, H, T, D), given(B, H, T, D), start + np.arange(T), 1.1),
    )
    q, k, v = (given.step(f"h.5.attn.{name}") for name in "qkv")
    yield (
        "tales, h.5.attn.context",
        (q, k, v, np.arange(5)[None], 32**-0.5),
        given.step("h.5.attn.context"),
    )


ATTENTION = Code(
    name="attention",
    chapter=3,
    minutes=25,
    difficulty=2,
    cell="03-attention",
    unlocks="attn.context of the model",
    answer=answers.attention,
    inputs=attention_inputs,
    example=(
        "attention(np.array([[[[1.0], [2.0]]]]), np.array([[[[4.0], [5.0]]]]), np.array([[[[7.0], "
        "[8.0]]]]), np.array([[0, 1]]), 1.0)"
    ),
    hints=(
        "Scores: every query with every key, [B,H,T,D] @ [B,H,D,S]. swapaxes(-1, -2) turns k "
        "round.",
        "Where the mask is False the score becomes -inf, before softmax: exp(-inf) is 0.",
        "causal_mask gives [B,T,S]; heads share it: [:, None] makes room for their axis. Then "
        "softmax, then @ v.",
    ),
    mistakes=(
        Mistake(
            "no_mask",
            {"np.where(visible, scores, -np.inf)": "scores"},
            "Positions see the future: the mask is missing. Set the scores of what is not visible "
            "to -inf, before softmax.",
        ),
        Mistake(
            "mask_after_softmax",
            {"softmax(np.where(visible, scores, -np.inf)) @ v": "(softmax(scores) * visible) @ v"},
            "You mask after softmax: the weights no longer sum to 1, and the future has taken its "
            "share. Mask the scores, with -inf.",
        ),
        Mistake(
            "unscaled",
            {" * scale": ""},
            "The scale is missing: scores grow with sqrt(D), and softmax saturates. Multiply by "
            "`scale`.",
        ),
        Mistake(
            "divided_by_scale",
            {" * scale": " / scale"},
            "You divide by the scale. It is 1/sqrt(D) already: multiply.",
        ),
        Mistake(
            "scaled_by_d",
            {" * scale": " * scale * scale"},
            "You divide by D, not by its root (the scale twice): the scores are nearly equal then.",
        ),
        Mistake(
            "scaled_outside",
            {" * scale": "", ") @ v": ") @ v * scale"},
            "The scale stands outside softmax, as printed in places: the weights then sum to "
            "1/sqrt(D). Scale the scores.",
        ),
        Mistake(
            "zero_for_masked",
            {"-np.inf": "0.0"},
            "You set masked scores to 0. exp(0) is 1, so the future still counts: -inf is what "
            "softmax turns into 0.",
        ),
        Mistake(
            "finite_mask",
            {"-np.inf": "-100.0"},
            "Masked scores are -100, and scores can lie below that. Only -inf lies below them all.",
        ),
        Mistake(
            "from_zero",
            {
                "causal_mask(positions, k.shape[2])[:, None]": (
                    "np.tri(q.shape[2], k.shape[2], dtype=bool)"
                )
            },
            "You count the queries from 0, as np.tri does. Behind a cache they begin later: "
            "compare with `positions`.",
        ),
        Mistake(
            "k_reversed",
            {"k.swapaxes(-1, -2)": "k.T"},
            "k.T turns all four axes round, [D,S,H,B]. Only the last two change places: "
            "k.swapaxes(-1, -2).",
        ),
        Mistake(
            "softmax_over_queries",
            {
                "softmax(np.where(visible, scores, -np.inf))": (
                    "softmax(np.where(visible, scores, -np.inf).swapaxes(-1, -2)).swapaxes(-1, -2)"
                )
            },
            "Softmax runs over the queries: every query's weights over the keys must sum to 1.",
        ),
        Mistake(
            "averages_keys",
            {") @ v": ") @ k"},
            "You averaged the keys. The weights come from the keys, what is averaged are the "
            "values.",
        ),
        Mistake(
            "no_softmax",
            {"softmax(np.where(visible, scores, -np.inf))": "np.where(visible, scores, 0.0)"},
            "Softmax is missing: the scores themselves are no weights. Masked scores must be -inf "
            "before it.",
        ),
    ),
)


EXERCISES = (ATTENTION_BY_HAND, CAUSAL_MASK, SPLIT_HEADS, MERGE_HEADS, ATTENTION)
