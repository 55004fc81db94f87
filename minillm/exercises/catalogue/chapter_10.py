"""Exercises of chapter 10: smaller."""

from __future__ import annotations

import numpy as np

from ..checking.exercise import Code, Mistake, Predict
from ..checking.inputs import Given, H, T
from . import answers

BITS_OF_INT8 = Predict(
    name="bits_of_int8",
    chapter=10,
    minutes=3,
    difficulty=1,
    cell="10-int8-grid",
    unlocks="sizes of quantised models",
    question=(
        "Weights are stored as int8 in blocks of 32, and each block has a scale in float16. How "
        "many bits does a weight take?"
    ),
    decimals=2,
    digest="e7a66fa1f4fabdfa",
    hints=("A block is 32 numbers of 8 bits and one of 16.", "272 bits by 32."),
    mistakes=(
        Mistake("no_scale", 8, "You left the scales out: 16 bits for every 32 weights."),
        Mistake("bytes", 1.06, "Those are bytes. Eight times that many bits."),
        Mistake("scale_each", 24, "You gave every weight a scale of its own: 32 share one."),
        Mistake("float32_scale", 9, "You took the scale for float32: float16 has 16 bits."),
        Mistake("sixteenth", 8.06, "You gave the scale 2 bits: it has 2 bytes."),
    ),
)


def dequantize_inputs(given: Given):
    for n, blocks in ((T, 3), (1, 1), (H, 2)):
        q = given.rng.integers(-127, 128, (n, blocks, 32)).astype(np.int8)
        yield f"[{n},{blocks},32]", (q, np.abs(given(n, blocks)))


DEQUANTIZE = Code(
    name="dequantize",
    chapter=10,
    minutes=5,
    difficulty=1,
    cell="10-int8-grid",
    mend="one_scale",
    unlocks="reading 8-bit weights",
    answer=answers.dequantize,
    inputs=dequantize_inputs,
    own_dtype=True,
    example=(
        "dequantize(np.arange(-16, 16, dtype=np.int8).reshape(1, 1, 32), np.array([[0.5]], "
        "np.float32))"
    ),
    hints=(
        "Does every block use its own scale?",
        "q is [N,K/32,32] and scales [N,K/32]: an axis is missing at the end.",
    ),
    mistakes=(
        Mistake(
            "one_scale",
            {"scales[..., None]": "scales[:, :1, None]"},
            "Every row uses its first block's scale: each block has its own.",
        ),
        Mistake(
            "no_scale",
            {"(q * scales[..., None])": "q.astype(np.float32)"},
            "The scales are missing: a step of the grid is worth `scale`.",
        ),
        Mistake(
            "divides",
            {"q * scales": "q / scales"},
            "You divide by the scale. Quantising divides, this multiplies.",
        ),
        Mistake(
            "offset",
            {"q * ": "(q - np.float32(128)) * "},
            "You subtract 128 first. These are signed numbers: 0 is 0.",
        ),
        Mistake(
            "not_flat",
            {".reshape(len(q), -1)": ""},
            "The blocks are still apart: the result is [N,K].",
        ),
        Mistake(
            "overflow",
            {"(q * scales[..., None])": "(q * scales[..., None]).astype(np.int8)"},
            "The result is int8: it must become float32, which has fractions.",
        ),
        Mistake(
            "absolute",
            {"q * scales": "np.abs(q.astype(np.float32)) * scales"},
            "The signs are lost.",
        ),
    ),
)


def clear_of_ties(w):
    """Move what lies nearly half way between two steps of the grid, and might be rounded either
    way, onto a step."""
    q, scales = answers.quantize(w)
    near = (
        np.abs(np.abs(w - answers.dequantize(q, scales)) - np.repeat(scales, 32, axis=1) / 2)
        < np.repeat(scales, 32, axis=1) / 100
    )
    return np.where(near, answers.dequantize(q, scales), w)


def quantize_inputs(given: Given):
    yield "[N,K], K = 96", (clear_of_ties(given(T, 96)),)
    blocks = given(2, 96)
    blocks[0, 32:64] = 0
    yield "a block of zeros", (clear_of_ties(blocks),)
    yield "the largest is negative", (clear_of_ties(-np.abs(given(3, 32))),)
    yield "small numbers", (clear_of_ties(given(3, 64, scale=1e-4)),)
    yield (
        "h.0.attn.c_attn of tales",
        (clear_of_ties(given.weights("h.0.attn.c_attn")["weight"][:8]),),
    )


QUANTIZE = Code(
    name="quantize",
    chapter=10,
    minutes=20,
    difficulty=2,
    cell="10-int8-grid",
    unlocks="a model in a quarter of the memory",
    answer=answers.quantize,
    inputs=quantize_inputs,
    own_dtype=True,
    example="quantize(np.linspace(-1, 2, 32, dtype=np.float32).reshape(1, 32))",
    hints=(
        "w.reshape(N, -1, 32): one row for each block.",
        "The scale is the largest size (np.abs) divided by 127, so that it lands on step 127.",
        "np.rint, then int8. Where the scale is 0 divide by 1 instead: 0 / 0 is nan.",
    ),
    mistakes=(
        Mistake(
            "max_not_abs",
            {"np.abs(blocks).max": "blocks.max"},
            "The largest number sets your scale: the largest size must, or negative ones run over.",
        ),
        Mistake(
            "truncates",
            {"np.rint(steps).astype": "steps.astype"},
            "astype cuts off the fraction: round to the nearest step first (np.rint).",
        ),
        Mistake(
            "floors",
            {"np.rint": "np.floor"},
            "You round down: the nearest step is needed (np.rint).",
        ),
        Mistake(
            "one_scale",
            {
                "np.abs(blocks).max(axis=-1) / 127": (
                    "np.broadcast_to(np.abs(blocks).max() / 127, blocks.shape[:2])"
                )
            },
            "One scale for the whole matrix: a single large weight would coarsen all others. Each "
            "block of 32 has its own.",
        ),
        Mistake(
            "row_scale",
            {
                "np.abs(blocks).max(axis=-1) / 127": (
                    "np.repeat(np.abs(blocks).max(axis=(1, 2))[:, None] / 127, blocks.shape[1], 1)"
                )
            },
            "One scale a row: each block of 32 has its own.",
        ),
        Mistake(
            "by_128",
            {"/ 127": "/ 128"},
            "You divide by 128: int8 ends at 127, and the largest number lands on 128 and wraps "
            "round.",
        ),
        Mistake(
            "by_255",
            {"/ 127": "/ 255"},
            "You divide by 255: signed 8 bits have 127 steps on each side of 0.",
        ),
        Mistake(
            "zero_by_zero",
            {"np.where(scales == 0, 1, scales)[..., None]": "scales[..., None]"},
            "A block of zeros is divided by its scale, 0 / 0 = nan, and what nan becomes as int8 "
            "is up to the processor. Divide by 1 where the scale is 0.",
        ),
        Mistake(
            "floats",
            {".astype(np.int8)": ""},
            "The steps are still floats, and no memory is saved: store int8.",
        ),
        Mistake(
            "inverse_scale",
            {".astype(np.int8), scales": ".astype(np.int8), 1 / scales"},
            "You return 127 / largest. The scale is what a step is worth: largest / 127.",
        ),
    ),
)


EXERCISES = (BITS_OF_INT8, DEQUANTIZE, QUANTIZE)
