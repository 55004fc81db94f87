"""Exercises of chapter 08: where the cycles go."""

from __future__ import annotations

import numpy as np

from ..checking.exercise import Code, Mistake, Predict
from ..checking.inputs import Given
from . import answers

TOKENS_PER_SECOND = Predict(
    name="tokens_per_second",
    chapter=8,
    minutes=5,
    difficulty=1,
    cell="08-roofline",
    unlocks="knowing what is possible before measuring",
    question=(
        "A model of 500 MB of weights decodes, one token at a time, on a machine that reads 20 "
        "GB/s from memory. How many tokens a second can it make at most, the cache left out?"
    ),
    decimals=0,
    digest="2a21b62f64071845",
    hints=("Every token reads every weight once.", "20 GB/s by 0.5 GB."),
    mistakes=(
        Mistake("inverse", 0.025, "That is the time of one token in seconds: take its inverse."),
        Mistake(
            "milliseconds",
            25,
            "That is the time of one token in milliseconds. How many of these fit into a second?",
        ),
        Mistake(
            "flops_too",
            80,
            "You let it read each weight half a time. All 4 bytes of a weight are read for each "
            "token.",
        ),
        Mistake("bits", 5, "You took GB for gigabits. 20 GB/s are 20e9 bytes a second."),
        Mistake(
            "twice",
            20,
            "You let it read each weight twice. A multiply-add is two FLOPs, but one read.",
        ),
    ),
)


def roofline_inputs(given: Given):
    yield "bound by memory", (1e9, 5e8, 1e12, 2e10)
    yield "bound by arithmetic", (1e12, 5e8, 1e12, 2e10)
    yield "both take equally long", (1e11, 2e9, 1e12, 2e10)
    yield "seeded", tuple(float(x) for x in np.exp(given(4, scale=2, dtype=np.float64)))


ROOFLINE = Code(
    name="roofline",
    chapter=8,
    minutes=5,
    difficulty=1,
    cell="08-roofline",
    mend="sum",
    unlocks="the prediction of every step's time",
    answer=answers.roofline,
    inputs=roofline_inputs,
    example="roofline(4e9, 1e9, 1e11, 2e10)",
    hints=(
        "Arithmetic and memory can work at the same time.",
        "What takes longer hides the other: the larger of the two times, not their sum.",
    ),
    mistakes=(
        Mistake(
            "sum",
            {"max(arithmetic, memory)": "arithmetic + memory"},
            "The two times are added. They overlap: the slower one hides the faster.",
        ),
        Mistake(
            "fastest",
            {"max(": "min("},
            "You take the faster of the two. Nothing is finished before the slower.",
        ),
        Mistake(
            "names_swapped",
            {"arithmetic > memory": "arithmetic < memory"},
            "The seconds are right, the name of what binds is the other's.",
        ),
        Mistake(
            "inverted",
            {"flops / peak, n_bytes / bandwidth": "peak / flops, bandwidth / n_bytes"},
            "You divide the wrong way round: work by speed is time.",
        ),
        Mistake(
            "mixed",
            {"flops / peak, n_bytes / bandwidth": "flops / bandwidth, n_bytes / peak"},
            "The two speeds have changed places: FLOPs belong to the peak, bytes to the bandwidth.",
        ),
        Mistake(
            "tie",
            {"arithmetic > memory": "arithmetic >= memory"},
            "Where both take equally long, the answer asked for is memory.",
        ),
    ),
)


def cost_inputs(given: Given):
    yield "GPT-2 124M, S = 100", (768, 12, 50257, 100, 4)
    yield "tales in int8, S = 1", (256, 6, 4096, 1, 1)
    yield "seeded", tuple(int(x) for x in given.rng.integers(2, 50, 5))


DECODE_COST = Code(
    name="decode_cost",
    chapter=8,
    minutes=20,
    difficulty=2,
    cell="08-decode-cost",
    unlocks="a roofline of your own model",
    answer=answers.decode_cost,
    inputs=cost_inputs,
    example="decode_cost(4, 2, 10, 3, 4)",
    hints=(
        "Weights of a block: 3 C^2 + C^2 + 4 C^2 + 4 C^2.",
        "Each weight is one multiply-add for one new token, so 2 FLOPs; the unembedding's C V too.",
        "Attention: the query with S keys is S C multiply-adds in a layer, the average of S values "
        "as many.",
        "The cache holds keys and values: 2 L S C numbers of 4 bytes.",
    ),
    mistakes=(
        Mistake(
            "one_flop",
            {"2 * weights": "weights", "4 * L * S": "2 * L * S"},
            "A multiply-add is two FLOPs, not one.",
        ),
        Mistake(
            "no_unembedding",
            {" + C * V": ""},
            "The unembedding is missing: C V weights, used for every token.",
        ),
        Mistake(
            "squared",
            {"4 * L * S * C\n": "4 * L * S * S * C\n"},
            "Attention has S^2 in it: that is the prompt's. One new token has one query, and S "
            "keys.",
        ),
        Mistake(
            "keys_only",
            {"2 * L * S * C * 4": "L * S * C * 4"},
            "Bytes: only the keys (or the values) are counted. Both are read.",
        ),
        Mistake(
            "no_cache_bytes",
            {" + 2 * L * S * C * 4": ""},
            "Bytes: the cache is missing. All keys and values are read.",
        ),
        Mistake(
            "no_attention",
            {" + 4 * L * S * C": ""},
            "FLOPs: q k^T and the average of the values are missing.",
        ),
        Mistake(
            "half_attention",
            {" + 4 * L * S * C": " + 2 * L * S * C"},
            "FLOPs: you count half of attention. q k^T is S C multiply-adds a layer, the average "
            "of the values as many, each is 2 FLOPs: 4 L S C.",
        ),
        Mistake(
            "cache_in_weight_bytes",
            {"* C * 4\n": "* C * weight_bytes\n"},
            "The cache is counted at the size of a weight: it stays at 4 bytes, however the "
            "weights are stored.",
        ),
        Mistake(
            "one_layer",
            {"12 * L * C * C": "12 * C * C"},
            "The weights of one block only: there are L.",
        ),
    ),
)


EXERCISES = (TOKENS_PER_SECOND, ROOFLINE, DECODE_COST)
