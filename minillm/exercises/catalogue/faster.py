"""Exercises of chapters 08 to 11: where the time goes, and how to spend less of it."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np

from ... import ops
from ..check.call import Outcome, Problem
from ..check.compare import problem
from ..check.exercise import Code, Mistake, Predict
from ..check.inputs import B, Given, H, T, V
from . import textbook

# ---- 08 Where the cycles go


def roofline_inputs(given: Given):
    yield "bound by memory", (1e9, 5e8, 1e12, 2e10)
    yield "bound by arithmetic", (1e12, 5e8, 1e12, 2e10)
    yield "both take equally long", (1e11, 2e9, 1e12, 2e10)
    yield "seeded", tuple(float(x) for x in np.exp(given(4, scale=2, dtype=np.float64)))


def cost_inputs(given: Given):
    yield "GPT-2 124M, S = 100", (768, 12, 50257, 100, 4)
    yield "tales in int8, S = 1", (256, 6, 4096, 1, 1)
    yield "seeded", tuple(int(x) for x in given.rng.integers(2, 50, 5))


# ---- 09 From loops to machine code


def matmul_inputs(given: Given):
    yield "[M,K] by [K,N]", (given(B, H), given(H, T))
    yield "square", (given(T, T), given(T, T))
    yield "one row", (given(1, V), given(V, T))
    yield "float64", (given(B, H, dtype=np.float64), given(H, T, dtype=np.float64))


def loop_inputs(given: Given):
    yield "N numbers", (given(V, scale=2), np.zeros(V, np.float32))
    yield "large ones", (given(T, scale=1e4), np.zeros(T, np.float32))
    yield "y held something", (given(V), np.ones(V, np.float32))
    yield "float64", (given(V, dtype=np.float64), np.zeros(V))
    yield "one number", (given(1), np.zeros(1, np.float32))


LEAST_SPEEDUP = 2.0  # on an AMD Zen 4: 6 for the answer, 0.2 for its loop uncompiled
# calls in a row, ops.gelu's and the answer's: about equally long, so that a busy machine slows both;
# sending numbers there and back counts for little
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


# ---- 10 Smaller


def clear_of_ties(w):
    """Move what lies nearly half way between two steps of the grid, and might be rounded either
    way, onto a step."""
    q, scales = textbook.quantize(w)
    near = (
        np.abs(np.abs(w - textbook.dequantize(q, scales)) - np.repeat(scales, 32, axis=1) / 2)
        < np.repeat(scales, 32, axis=1) / 100
    )
    return np.where(near, textbook.dequantize(q, scales), w)


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


def dequantize_inputs(given: Given):
    for n, blocks in ((T, 3), (1, 1), (H, 2)):
        q = given.rng.integers(-127, 128, (n, blocks, 32)).astype(np.int8)
        yield f"[{n},{blocks},32]", (q, np.abs(given(n, blocks)))


# ---- 11 Wider


def accept_inputs(given: Given):
    for i in range(24):
        p, q = given.probs(V), given.probs(V)
        drafted, (u, v) = (
            int(given.rng.choice(V, p=q.astype(np.float64) / q.sum(dtype=np.float64))),
            given.rng.random(2),
        )
        yield f"draw {i}", (p, q, drafted, float(u), float(v))
    yield "q is p: always kept", (p, p, 3, 0.999, 0.5)
    impossible = (
        np.array([0.0, 0.0, 0.75, 0.25], np.float32),
        np.array([0.25, 0.25, 0.25, 0.25], np.float32),
    )
    yield "u is 0 and p(x) too: what is impossible is not kept", (*impossible, 1, 0.0, 0.5)
    yield "v is 0: nor is it drawn", (*impossible, 1, 0.5, 0.0)


def verified_inputs(given: Given):
    yield "the second is wrong", ([4, 7, 2], [4, 1, 2, 9])
    yield "all are right", ([4, 7, 2], [4, 7, 2, 9])
    yield "none is right", ([4, 7, 2], [5, 7, 2, 9])
    yield "nothing was guessed", ([], [6])
    yield "wrong, then right again", ([1, 2, 3, 4], [1, 9, 3, 4, 5])


# fmt: off
FASTER = (
    # ---- 08 Where the cycles go
    Predict(
        name="tokens_per_second", chapter=8, minutes=5, difficulty=1, cell="08-roofline",
        unlocks="knowing what is possible before measuring",
        question="A model of 500 MB of weights decodes, one token at a time, on a machine that reads 20 GB/s from "
        "memory. How many tokens a second can it make at most, the cache left out?",
        decimals=0, digest="2a21b62f64071845",
        hints=("Every token reads every weight once.", "20 GB/s by 0.5 GB."),
        mistakes=(
            Mistake("inverse", 0.025, "That is the time of one token in seconds: take its inverse."),
            Mistake("milliseconds", 25, "That is the time of one token in milliseconds. How many of these fit into a second?"),
            Mistake("flops_too", 80, "You let it read each weight half a time. All 4 bytes of a weight are read for each token."),
            Mistake("bits", 5, "You took GB for gigabits. 20 GB/s are 20e9 bytes a second."),
            Mistake("twice", 20, "You let it read each weight twice. A multiply-add is two FLOPs, but one read."),
        ),
    ),
    Code(
        name="roofline", chapter=8, minutes=5, difficulty=1, cell="08-roofline", mend="sum",
        unlocks="the prediction of every step's time",
        answer=textbook.roofline, inputs=roofline_inputs, example="roofline(4e9, 1e9, 1e11, 2e10)",
        hints=(
            "Arithmetic and memory can work at the same time.",
            "What takes longer hides the other: the larger of the two times, not their sum.",
        ),
        mistakes=(
            Mistake("sum", {"max(arithmetic, memory)": "arithmetic + memory"},
                    "The two times are added. They overlap: the slower one hides the faster."),
            Mistake("fastest", {"max(": "min("}, "You take the faster of the two. Nothing is finished before the slower."),
            Mistake("names_swapped", {"arithmetic > memory": "arithmetic < memory"},
                    "The seconds are right, the name of what binds is the other's."),
            Mistake("inverted", {"flops / peak, n_bytes / bandwidth": "peak / flops, bandwidth / n_bytes"},
                    "You divide the wrong way round: work by speed is time."),
            Mistake("mixed", {"flops / peak, n_bytes / bandwidth": "flops / bandwidth, n_bytes / peak"},
                    "The two speeds have changed places: FLOPs belong to the peak, bytes to the bandwidth."),
            Mistake("tie", {"arithmetic > memory": "arithmetic >= memory"},
                    "Where both take equally long, the answer asked for is memory."),
        ),
    ),
    Code(
        name="decode_cost", chapter=8, minutes=20, difficulty=2, cell="08-decode-cost", unlocks="a roofline of your own model",
        answer=textbook.decode_cost, inputs=cost_inputs, example="decode_cost(4, 2, 10, 3, 4)",
        hints=(
            "Weights of a block: 3 C^2 + C^2 + 4 C^2 + 4 C^2.",
            "Each weight is one multiply-add for one new token, so 2 FLOPs; the unembedding's C V too.",
            "Attention: the query with S keys is S C multiply-adds in a layer, the average of S values as many.",
            "The cache holds keys and values: 2 L S C numbers of 4 bytes.",
        ),
        mistakes=(
            Mistake("one_flop", {"2 * weights": "weights", "4 * L * S": "2 * L * S"}, "A multiply-add is two FLOPs, not one."),
            Mistake("no_unembedding", {" + C * V": ""}, "The unembedding is missing: C V weights, used for every token."),
            Mistake("squared", {"4 * L * S * C\n": "4 * L * S * S * C\n"},
                    "Attention has S^2 in it: that is the prompt's. One new token has one query, and S keys."),
            Mistake("keys_only", {"2 * L * S * C * 4": "L * S * C * 4"},
                    "Bytes: only the keys (or the values) are counted. Both are read."),
            Mistake("no_cache_bytes", {" + 2 * L * S * C * 4": ""}, "Bytes: the cache is missing. All keys and values are read."),
            Mistake("no_attention", {" + 4 * L * S * C": ""}, "FLOPs: q k^T and the average of the values are missing."),
            Mistake("half_attention", {" + 4 * L * S * C": " + 2 * L * S * C"},
                    "FLOPs: you count half of attention. q k^T is S C multiply-adds a layer, the average of the values as many, "
                    "each is 2 FLOPs: 4 L S C."),
            Mistake("cache_in_weight_bytes", {"* C * 4\n": "* C * weight_bytes\n"},
                    "The cache is counted at the size of a weight: it stays at 4 bytes, however the weights are stored."),
            Mistake("one_layer", {"12 * L * C * C": "12 * C * C"}, "The weights of one block only: there are L."),
        ),
    ),
    # ---- 09 From loops to machine code
    Code(
        name="matmul", chapter=9, minutes=10, difficulty=1, cell="09-matmul-ladder", mend="assigns",
        unlocks="the second rung of the ladder",
        answer=textbook.matmul, inputs=matmul_inputs, own_dtype=True,
        loop_without=("@", "matmul", "dot", "vdot", "inner", "einsum", "tensordot", "multi_dot", "vecdot", "matvec", "vecmat"),
        example="matmul(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [10.0, 1.0]]))",
        hints=(
            "Only the last k is left in the result. Why?",
            "y_i is a sum over k: every turn must add to what is there.",
        ),
        mistakes=(
            Mistake("assigns", {"y[i] +=": "y[i] ="}, "Every turn overwrites the one before it: the sum over k needs +=."),
            Mistake("float64", {", x.dtype)": ")"},
                    "np.zeros is float64 unless told otherwise, and so the result is: give it x's dtype."),
            Mistake("not_zeroed", {"np.zeros(": "np.ones("},
                    "The result is begun with something else than zeros: each sum starts from 0."),
            Mistake("elementwise", {"x[i, k] * w[k]": "x[i, k] * w[i % len(w)]"},
                    "You always take the same row of w: x_ik goes with row k."),
            Mistake("stops_early", {"in range(len(w))": "in range(len(w) - 1)"},
                    "The last k is left out: range(n) ends before n already."),
            Mistake("first_column", {"x[i, k] *": "x[i, 0] *"},
                    "You always take the first number of the row of x: row k of w goes with x_ik."),
        ),
    ),
    Code(
        name="gelu_loop", chapter=9, minutes=15, difficulty=2, cell="09-first-kernel",
        unlocks="a kernel of your own", needs="numba", seconds=60,
        answer=textbook.gelu_loop, inputs=loop_inputs, changes=("y",), last=fast_enough,
        example="gelu_loop(np.array([1.0]), np.array([0.0]))",
        hints=(
            "for i in range(len(x)): one number at a time, no arrays in between.",
            "math.erf and math.sqrt are what Numba turns into machine code; y[i] = ... writes the result.",
        ),
        mistakes=(
            Mistake("tanh_form", {"1.0 + math.erf(x[i] / math.sqrt(2.0))":
                    "1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x[i] + 0.044715 * x[i] ** 3))"},
                    "This is GELU's tanh form. The exact one is asked for, with erf."),
            Mistake("no_root", {" / math.sqrt(2.0)": ""}, "The division by sqrt(2) inside erf is missing."),
            Mistake("no_half", {"0.5 * x[i]": "x[i]"}, "The factor 0.5 is missing: 1 + erf lies between 0 and 2."),
            Mistake("adds", {"y[i] = ": "y[i] += "}, "You add to what y held: it must be overwritten."),
            Mistake("returns", {"y[i] = ": "x[i] = "}, "You write into x: the result belongs in y, and x stays as it was."),
            Mistake("first_only", {"for i in range(len(x)):": "for i in range(1):"},
                    "Only the first number is written: loop over all."),
            Mistake("by_two", {"math.sqrt(2.0)": "2.0"}, "You divide by 2 inside erf: divide by sqrt(2)."),
        ),
    ),
    # ---- 10 Smaller
    Predict(
        name="bits_of_int8", chapter=10, minutes=3, difficulty=1, cell="10-int8-grid", unlocks="sizes of quantised models",
        question="Weights are stored as int8 in blocks of 32, and each block has a scale in float16. How many bits "
        "does a weight take?",
        decimals=2, digest="e7a66fa1f4fabdfa",
        hints=("A block is 32 numbers of 8 bits and one of 16.", "272 bits by 32."),
        mistakes=(
            Mistake("no_scale", 8, "You left the scales out: 16 bits for every 32 weights."),
            Mistake("bytes", 1.06, "Those are bytes. Eight times that many bits."),
            Mistake("scale_each", 24, "You gave every weight a scale of its own: 32 share one."),
            Mistake("float32_scale", 9, "You took the scale for float32: float16 has 16 bits."),
            Mistake("sixteenth", 8.06, "You gave the scale 2 bits: it has 2 bytes."),
        ),
    ),
    Code(
        name="dequantize", chapter=10, minutes=5, difficulty=1, cell="10-int8-grid", mend="one_scale",
        unlocks="reading 8-bit weights",
        answer=textbook.dequantize, inputs=dequantize_inputs, own_dtype=True,
        example="dequantize(np.arange(-16, 16, dtype=np.int8).reshape(1, 1, 32), np.array([[0.5]], np.float32))",
        hints=(
            "Does every block use its own scale?",
            "q is [N,K/32,32] and scales [N,K/32]: an axis is missing at the end.",
        ),
        mistakes=(
            Mistake("one_scale", {"scales[..., None]": "scales[:, :1, None]"},
                    "Every row uses its first block's scale: each block has its own."),
            Mistake("no_scale", {"(q * scales[..., None])": "q.astype(np.float32)"},
                    "The scales are missing: a step of the grid is worth `scale`."),
            Mistake("divides", {"q * scales": "q / scales"}, "You divide by the scale. Quantising divides, this multiplies."),
            Mistake("offset", {"q * ": "(q - np.float32(128)) * "}, "You subtract 128 first. These are signed numbers: 0 is 0."),
            Mistake("not_flat", {".reshape(len(q), -1)": ""}, "The blocks are still apart: the result is [N,K]."),
            Mistake("overflow", {"(q * scales[..., None])": "(q * scales[..., None]).astype(np.int8)"},
                    "The result is int8: it must become float32, which has fractions."),
            Mistake("absolute", {"q * scales": "np.abs(q.astype(np.float32)) * scales"}, "The signs are lost."),
        ),
    ),
    Code(
        name="quantize", chapter=10, minutes=20, difficulty=2, cell="10-int8-grid", unlocks="a model in a quarter of the memory",
        answer=textbook.quantize, inputs=quantize_inputs, own_dtype=True,
        example="quantize(np.linspace(-1, 2, 32, dtype=np.float32).reshape(1, 32))",
        hints=(
            "w.reshape(N, -1, 32): one row for each block.",
            "The scale is the largest size (np.abs) divided by 127, so that it lands on step 127.",
            "np.rint, then int8. Where the scale is 0 divide by 1 instead: 0 / 0 is nan.",
        ),
        mistakes=(
            Mistake("max_not_abs", {"np.abs(blocks).max": "blocks.max"},
                    "The largest number sets your scale: the largest size must, or negative ones run over."),
            Mistake("truncates", {"np.rint(steps).astype": "steps.astype"},
                    "astype cuts off the fraction: round to the nearest step first (np.rint)."),
            Mistake("floors", {"np.rint": "np.floor"}, "You round down: the nearest step is needed (np.rint)."),
            Mistake("one_scale",
                    {"np.abs(blocks).max(axis=-1) / 127": "np.broadcast_to(np.abs(blocks).max() / 127, blocks.shape[:2])"},
                    "One scale for the whole matrix: a single large weight would coarsen all others. Each block of 32 has its "
                    "own."),
            Mistake("row_scale",
                    {"np.abs(blocks).max(axis=-1) / 127":
                     "np.repeat(np.abs(blocks).max(axis=(1, 2))[:, None] / 127, blocks.shape[1], 1)"},
                    "One scale a row: each block of 32 has its own."),
            Mistake("by_128", {"/ 127": "/ 128"},
                    "You divide by 128: int8 ends at 127, and the largest number lands on 128 and wraps round."),
            Mistake("by_255", {"/ 127": "/ 255"}, "You divide by 255: signed 8 bits have 127 steps on each side of 0."),
            Mistake("zero_by_zero", {"np.where(scales == 0, 1, scales)[..., None]": "scales[..., None]"},
                    "A block of zeros is divided by its scale, 0 / 0 = nan, and what nan becomes as int8 is up to the "
                    "processor. Divide by 1 where the scale is 0."),
            Mistake("floats", {".astype(np.int8)": ""}, "The steps are still floats, and no memory is saved: store int8."),
            Mistake("inverse_scale", {".astype(np.int8), scales": ".astype(np.int8), 1 / scales"},
                    "You return 127 / largest. The scale is what a step is worth: largest / 127."),
        ),
    ),
    # ---- 11 Wider
    Code(
        name="verified", chapter=11, minutes=10, difficulty=1, cell="11-speculation", mend="loses_the_free_one",
        unlocks="greedy speculation",
        answer=textbook.verified, inputs=verified_inputs, example="verified([5, 6, 7], [5, 6, 8, 1])",
        hints=(
            "With no guess right, how many tokens should the cycle yield?",
            "The model's own choice after the last right guess comes for nothing: it was computed in the same pass.",
        ),
        mistakes=(
            Mistake("loses_the_free_one", {" + chosen[kept : kept + 1]": ""},
                    "The model's own token is missing: return one more, its choice after the last right guess. It was computed "
                    "in the same pass."),
            Mistake("counts_all",
                    {"while kept < len(drafted) and drafted[kept] == chosen[kept]:\n    ":
                     "for mine, theirs in zip(drafted, chosen):\n    ",
                     "    kept += 1": "    kept += mine == theirs"},
                    "A guess behind a wrong one is counted too. It was made for another text: stop at the first wrong one."),
            Mistake("all_chosen", "return list(chosen)",
                    "All of the model's choices are returned: those after a wrong guess answer a text that is not there."),
            Mistake("drafted", "return list(drafted) + chosen[-1:]", "All guesses are kept, unchecked."),
            Mistake("shifted", {"drafted[kept] == chosen[kept]": "drafted[kept] == chosen[kept + 1]"},
                    "You compare a guess with the choice after it. chosen[0] stands where the first guess stands."),
            Mistake("last_choice", {"chosen[kept : kept + 1]": "chosen[-1:]"},
                    "The token added is the model's last choice: it must be the one at the first wrong guess."),
        ),
    ),
    Code(
        name="accept", chapter=11, minutes=20, difficulty=3, cell="11-speculation",
        unlocks="speculation that changes no probability",
        answer=textbook.accept, inputs=accept_inputs,
        example="accept(np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.0, 0.8]), 2, 0.1, 0.7)",
        hints=(
            "Keeping with probability p/q is u * q < p for a uniform u: no division, so q = 0 is harmless.",
            "What p lacks is np.maximum(p - q, 0). It does not sum to 1: scale v by its sum instead of dividing.",
            "np.searchsorted(running, v * running[-1], side='right') is the first place at which the running sum passes.",
        ),
        mistakes=(
            Mistake("draws_from_p", {"np.maximum(p - q, 0)": "p"},
                    "After a refusal you draw from p: tokens that q favours then come up too often. Draw from max(p - q, 0)."),
            Mistake("ratio_inverted", {"u * q[drafted] < p[drafted]": "u * p[drafted] < q[drafted]"},
                    "The ratio is upside down: keep with probability p/q."),
            Mistake("ignores_q", {"u * q[drafted] <": "u <"},
                    "You keep with probability p: it is min(1, p/q), for q has already had its say."),
            Mistake("draws_from_q", {"np.maximum(p - q, 0)": "q"},
                    "After a refusal you draw from q: draw from what p still lacks, max(p - q, 0)."),
            Mistake("other_sign", {"p - q": "q - p"},
                    "You draw from max(q - p, 0), where the guesser has too much: p - q is what is lacking."),
            Mistake("not_normalised", {"v * running[-1]": "v"}, "max(p - q, 0) does not sum to 1: scale v by its sum."),
            Mistake("argmax", {"int(np.searchsorted(running, v * running[-1], side=\"right\"))": "int(np.argmax(p - q))"},
                    "After a refusal you take the likeliest of what is lacking: it must be drawn."),
            Mistake("at_equality", {"u * q[drafted] < p": "u * q[drafted] <= p"},
                    "You keep at equality too: with u = 0 and p(x) = 0 that keeps what is impossible. u q(x) < p(x)."),
            Mistake("argmax_of_p", {"int(np.searchsorted(running, v * running[-1], side=\"right\"))": "int(np.argmax(p))"},
                    "After a refusal you take the model's likeliest: it must be drawn, from max(p - q, 0)."),
            Mistake("one_before", {"side=\"right\"))": "side=\"right\")) - 1"},
                    "You return the token before the one at which the running sum passes v."),
            Mistake("always_keeps", "return drafted", "Every guess is kept: then the text is the guesser's, not the model's."),
            Mistake("reuses_u", {"v * running": "u * running"},
                    "u decides twice: the second draw must be independent of the first, v."),
        ),
    ),
)
