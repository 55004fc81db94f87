"""Exercises of chapter 04: the block."""

from __future__ import annotations

from functools import partial

import numpy as np

from ... import ops
from ...layers import attention
from ...layers.feed_forward import feed_forward
from ..checking.exercise import Code, Mistake
from ..checking.inputs import B, C, Given, T, V
from ..checking.inputs import model as bundled
from . import answers


def norm_inputs(given: Given):
    yield "[B,T,C]", (given(B, T, C) + 3, given(C), given(C))
    yield "T = 1", (given(B, 1, C), given(C), given(C))
    yield "rows of hardly any variance", (given(B, T, C, scale=2e-3), given(C), given(C))
    yield "another eps", (given(B, T, C), given(C), given(C), 0.5)
    yield "numbers of 1e4", (given(B, T, C, scale=1e4), given(C), given(C))
    near = given.ids(9, B, T, C // 2)  # rows whose mean is exact: the same numbers on both sides
    far = np.concatenate([1e4 + near, 1e4 - near, np.full((B, T, 1), 1e4)], axis=-1)
    yield "a mean of 1e4, distances of 1", (far.astype(np.float32), given(C), given(C))
    yield (
        "float64",
        (given(B, C, dtype=np.float64), given(C, dtype=np.float64), given(C, dtype=np.float64)),
    )
    norm = (given.weights("h.0.ln_1")[name] for name in ("weight", "bias"))
    yield "tales, h.0.ln_1", (given.step("embed"), *norm), given.step("h.0.ln_1")


LAYER_NORM = Code(
    name="layer_norm",
    chapter=4,
    minutes=15,
    difficulty=2,
    cell="04-layer-norm",
    unlocks="ln_1, ln_2 and ln_f of the model",
    answer=ops.layer_norm,
    inputs=norm_inputs,
    example=(
        "layer_norm(np.array([[1.0, 2.0, 3.0]]), np.array([1.0, 1.0, 2.0]), np.array([0.0, 10.0, "
        "0.0]))"
    ),
    hints=(
        "Mean and variance are of each row: axis=-1, keepdims=True.",
        "The variance is the mean of the squared distances from the mean, divided by C and not C - "
        "1.",
        "eps stands inside the root: sqrt(variance + eps). Then scale by weight, and add bias.",
    ),
    mistakes=(
        Mistake(
            "unbiased_variance",
            "return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + "
            "eps) * weight + bias",
            "You divide the squares by C - 1 (ddof=1). Layer norm takes the biased variance, "
            "divided by C.",
        ),
        Mistake(
            "epsilon_outside",
            {
                "keepdims=True) + eps)": "keepdims=True)) + eps)",
                "centred / np.sqrt(": "centred / (np.sqrt(",
            },
            "eps stands outside the root. It belongs to the variance: sqrt(variance + eps).",
        ),
        Mistake(
            "no_epsilon",
            {" + eps": ""},
            "eps is missing: a row of hardly any variance is blown up. sqrt(variance + eps).",
        ),
        Mistake(
            "epsilon_squared",
            {" + eps": " + eps * eps"},
            "You square eps: it is added to the variance as it is.",
        ),
        Mistake(
            "epsilon_as_bound",
            {
                "(centred * centred).mean(axis=-1, keepdims=True) + eps": (
                    "np.maximum((centred * centred).mean(axis=-1, keepdims=True), eps)"
                )
            },
            "You take the larger of variance and eps: they are added.",
        ),
        Mistake(
            "cancels",
            {
                "np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)": (
                    "np.sqrt((x * x).mean(axis=-1, keepdims=True) - x.mean(axis=-1, keepdims=True) "
                    "** 2 + eps)"
                )
            },
            "The mean of the squares minus the square of the mean: far from 0 the two are nearly "
            "equal, and their difference is rounding. Subtract the mean first, then square.",
        ),
        Mistake(
            "no_root",
            {
                "np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)": (
                    "((centred * centred).mean(axis=-1, keepdims=True) + eps)"
                )
            },
            "You divide by the variance. Its root, the standard deviation, gives every row "
            "variance 1.",
        ),
        Mistake(
            "rms",
            {"centred = x - x.mean(axis=-1, keepdims=True)": "centred = x"},
            "The mean is not subtracted (that is RMSNorm). GPT-2's layer norm centres first.",
        ),
        Mistake(
            "over_positions",
            {"axis=-1": "axis=0"},
            "Mean and variance run over the first axis. Every row is normed by itself: axis=-1.",
        ),
        Mistake(
            "whole_array",
            {"axis=-1, keepdims=True": ""},
            "Mean and variance are of the whole array. Every row is normed by itself.",
        ),
        Mistake("no_bias", {" + bias": ""}, "The bias is missing at the end."),
        Mistake(
            "no_weight",
            {" * weight": ""},
            "The weight is missing: scale by it before adding the bias.",
        ),
        Mistake(
            "fixed_epsilon",
            {" + eps": " + 1e-5"},
            "You wrote 1e-5 where eps should stand: it is an argument.",
        ),
    ),
)


def gelu_inputs(given: Given):
    yield "[B,T,F]", (given(B, T, 11, scale=2),)
    yield "large numbers", (given(B, T, scale=1e4),)
    yield "float64", (given(V, dtype=np.float64),)
    yield "tales, h.0.mlp.act", (given.step("h.0.mlp.c_fc"),), given.step("h.0.mlp.act")


GELU_NEW = Code(
    name="gelu_new",
    chapter=4,
    minutes=5,
    difficulty=1,
    cell="04-gelu",
    mend="erf_gelu",
    unlocks="mlp.act of the model",
    answer=ops.gelu_new,
    inputs=gelu_inputs,
    example="gelu_new(np.array([-1.0, 0.0, 1.0]))",
    hints=(
        "There are two GELUs, and they differ by up to 5e-4. Which one does the docstring ask for?",
        "Write the equation of the docstring as it stands: tanh, not erf.",
    ),
    mistakes=(
        Mistake(
            "erf_gelu",
            "return 0.5 * x * (1.0 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2.0)))",
            "This is the exact GELU, by erf. GPT-2 was trained with the tanh form, which differs "
            "by up to 5e-4.",
        ),
        Mistake(
            "no_cube",
            {" + 0.044715 * (x * x * x)": ""},
            "The cubic term 0.044715 x^3 is missing inside tanh.",
        ),
        Mistake(
            "square",
            {"(x * x * x)": "(x * x)"},
            "You square x where the equation has its third power.",
        ),
        Mistake(
            "no_half", {"0.5 * x": "x"}, "The factor 0.5 is missing: tanh + 1 lies between 0 and 2."
        ),
        Mistake("no_one", {"(1.0 + np.tanh": "(np.tanh"}, "The 1 + before tanh is missing."),
        Mistake(
            "pi_over_two",
            {"2.0 / math.pi": "math.pi / 2.0"},
            "pi/2 stands where 2/pi should stand.",
        ),
        Mistake(
            "no_root",
            {"math.sqrt(2.0 / math.pi)": "(2.0 / math.pi)"},
            "The root around 2/pi is missing.",
        ),
        Mistake(
            "relu",
            "return np.maximum(x, 0)",
            "This is ReLU: GELU bends smoothly, and is slightly negative below 0.",
        ),
        Mistake(
            "sigmoid",
            "return x / (1.0 + np.exp(-1.702 * x))",
            "This is the sigmoid approximation of GELU. GPT-2 has the tanh form.",
        ),
    ),
)


def block_inputs(given: Given):
    a, b, c, d = given(T, T), given(C), given(C, C, scale=0.3), given(C)

    def norm():
        return {"weight": given(C), "bias": given(C)}

    def mixed(x):  # positions meet, and the zero vector does not stay zero
        return a @ x + b

    def bent(x):
        return np.tanh(x @ c + d)

    yield "[B,T,C]", (given(B, T, C), norm(), mixed, norm(), bent)
    yield "numbers of 1e2", (given(B, T, C, scale=100), norm(), mixed, norm(), bent)
    layer, config = bundled().weights["h"][0], bundled().config
    attend = partial(
        attention.causal_self_attention,
        **layer["attn"],
        n_head=config.n_head,
        scale=config.attention_scale(0),
        positions=np.arange(5)[None],
    )
    args = (
        given.step("embed"),
        layer["ln_1"],
        attend,
        layer["ln_2"],
        partial(feed_forward, **layer["mlp"]),
    )
    yield "tales, h.0.mlp.residual", args, given.step("h.0.mlp.residual")


BLOCK = Code(
    name="block",
    chapter=4,
    minutes=15,
    difficulty=2,
    cell="04-block",
    unlocks="attn.residual and mlp.residual: a layer of your own",
    answer=answers.block,
    inputs=block_inputs,
    once=("attend", "feed_forward"),
    example=(
        "block(np.ones((1, 1, 2)), {'weight': np.ones(2), 'bias': np.ones(2)}, lambda x: x + 1, "
        "{'weight': np.ones(2), 'bias': np.zeros(2)}, lambda x: x + 3)"
    ),
    hints=(
        "The stream x is never normed itself: each part reads layer_norm(x) and its result is "
        "added to x.",
        "x = x + attend(layer_norm(x, **ln_1)), and then the same with the other two.",
    ),
    mistakes=(
        Mistake(
            "post_norm",
            """
            x = layer_norm(x + attend(x), **ln_1)
            return layer_norm(x + feed_forward(x), **ln_2)
            """,
            "The norm comes after the addition, as in the first Transformer of 2017. GPT-2 norms "
            "what each part reads: x + f(norm(x)).",
        ),
        Mistake(
            "no_residual",
            """
            x = attend(layer_norm(x, **ln_1))
            return feed_forward(layer_norm(x, **ln_2))
            """,
            "Nothing is added: each part must add to the stream, x + f(norm(x)).",
        ),
        Mistake(
            "one_residual",
            {"x = x + attend": "x = attend"},
            "The first addition is missing: x + attend(...).",
        ),
        Mistake(
            "no_second_residual",
            {"return x + feed": "return feed"},
            "The second addition is missing: x + feed_forward(...).",
        ),
        Mistake(
            "adds_the_normed",
            """
            x = layer_norm(x, **ln_1)
            x = x + attend(x)
            x = layer_norm(x, **ln_2)
            return x + feed_forward(x)
            """,
            "You add to the normed copy. The stream itself goes on: norm only what each part "
            "reads.",
        ),
        Mistake(
            "parallel",
            "return x + attend(layer_norm(x, **ln_1)) + feed_forward(layer_norm(x, **ln_2))",
            "Both parts read the same x (as GPT-J does). In GPT-2 the second reads what the first "
            "has added to.",
        ),
        Mistake(
            "norms_swapped",
            {
                "**ln_1": "**ln_2",
                "feed_forward(layer_norm(x, **ln_2))": "feed_forward(layer_norm(x, **ln_1))",
            },
            "The two layer norms have changed places.",
        ),
        Mistake(
            "one_norm",
            {"**ln_2": "**ln_1"},
            "The second norm has ln_1's weight and bias: it has its own, ln_2.",
        ),
        Mistake(
            "no_norm",
            "x = x + attend(x)\nreturn x + feed_forward(x)",
            "The layer norms are missing.",
        ),
        Mistake(
            "order",
            {"attend(": "later(", "feed_forward(": "attend(", "later(": "feed_forward("},
            "The feed forward comes first: attention comes first, then the feed forward.",
        ),
    ),
)


EXERCISES = (LAYER_NORM, GELU_NEW, BLOCK)
