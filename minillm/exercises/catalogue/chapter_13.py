"""Exercises of chapter 13: training."""

from __future__ import annotations

import numpy as np

from ...training import optimizers
from ..checking.exercise import Code, Mistake
from ..checking.inputs import C, D, Given, H, V


def clip_inputs(given: Given):
    yield "too long", ({"w": given(C, V), "b": given(V)}, 1.0)
    yield (
        "already shorter than the limit",
        ({"w": given(H, D) * np.float32(1e-3), "b": given(D) * np.float32(1e-3)}, 1.0),
    )
    yield (
        "one much longer than the other",
        ({"w": given(H, D, scale=10), "b": given(D, scale=0.1)}, 2.0),
    )
    yield "all 0", ({"w": np.zeros((H, D), np.float32)}, 1.0)


CLIP_BY_GLOBAL_NORM = Code(
    name="clip_by_global_norm",
    chapter=13,
    minutes=5,
    difficulty=1,
    cell="13-clipping",
    mend="each_alone",
    unlocks="training that survives a bad batch",
    answer=optimizers.clip_by_global_norm,
    inputs=clip_inputs,
    changes=("gradients",),
    example="clip_by_global_norm({'w': np.array([3.0, 0.0]), 'b': np.array([4.0])}, 1.0)",
    hints=(
        "Does the direction of the whole gradient stay the same?",
        "One length over all arrays, and one factor for all.",
    ),
    mistakes=(
        Mistake(
            "each_alone",
            """
            norm = global_norm(gradients)
            for gradient in gradients.values():
                own = np.sqrt((gradient * gradient).sum())
                if own > limit:
                    gradient *= limit / own
            return norm
            """,
            "Each array is clipped alone, which turns the gradient. All together are one vector, "
            "with one length and one factor.",
        ),
        Mistake(
            "by_value",
            """
            norm = global_norm(gradients)
            for gradient in gradients.values():
                np.clip(gradient, -limit, limit, out=gradient)
            return norm
            """,
            "You clip every number. The length of the whole is limited, and its direction stays.",
        ),
        Mistake(
            "always",
            {"if norm > limit": "if norm > 0"},
            "Short gradients are made longer: leave them as they are.",
        ),
        Mistake(
            "squared",
            {"global_norm(gradients)": "global_norm(gradients) ** 2"},
            "You take the length's square: the length is the root of the sum of squares.",
        ),
        Mistake(
            "sum_of_lengths",
            {"global_norm(gradients)": "sum(global_norm({0: g}) for g in gradients.values())"},
            "You add up the lengths of the arrays. Add up all squares, then take one root.",
        ),
        Mistake(
            "upside_down",
            {"limit / norm": "norm / limit"},
            "The factor is upside down: limit / norm.",
        ),
        Mistake(
            "not_in_place",
            {"gradient *= limit / norm": "gradient = gradient * (limit / norm)"},
            "`gradient = ...` binds a new array to the name, and the caller's stays as it was: use "
            "*=.",
        ),
        Mistake(
            "returns_the_limit",
            {"return norm": "return min(norm, limit)"},
            "You return how long they are now: how long they were is asked for.",
        ),
    ),
)


def adamw_inputs(given: Given):
    def state(size=1.0, dtype=np.float32):
        mean, square = (
            given(H, D, scale=0.1 * size, dtype=dtype),
            given(H, D, scale=0.1 * size, dtype=dtype) ** 2,
        )
        return given(H, D, dtype=dtype), given(H, D, scale=size, dtype=dtype), mean, square

    def case(arrays, **settings):
        return dict(zip(("parameter", "gradient", "mean", "square"), arrays)) | settings

    zeros = np.zeros((2, H, D), np.float32)
    yield "the first step", case((given(H, D), given(H, D), *zeros), lr=1e-1, step=1)
    yield "step 7, with decay", case(state(), lr=1e-1, step=7, weight_decay=0.3)
    yield "tiny gradients: eps counts", case(state(1e-8), lr=1e-1, step=3, weight_decay=0.1)
    yield "other betas and eps", case(state(), lr=1e-1, step=2, betas=(0.8, 0.95), eps=0.1)
    yield "float64, step 1000", case(state(dtype=np.float64), lr=1e-2, step=1000, weight_decay=0.1)


ADAMW_UPDATE = Code(
    name="adamw_update",
    chapter=13,
    minutes=20,
    difficulty=2,
    cell="13-adamw",
    unlocks="training GPT-2",
    answer=optimizers.adamw_update,
    inputs=adamw_inputs,
    changes=("parameter", "mean", "square"),
    example=(
        "adamw_update(np.array([1.0, -2.0]), np.array([0.5, 1e-3]), np.zeros(2), np.zeros(2), "
        "lr=0.1, step=1)"
    ),
    hints=(
        "In place: mean *= b1, mean += (1 - b1) * gradient. `mean = ...` would only bind a new "
        "name.",
        "The running means start at 0 and are too small at first: divide by 1 - b1**step and 1 - "
        "b2**step.",
        "eps is added to the root, not under it. The decay multiplies the parameter by 1 - lr * "
        "weight_decay.",
    ),
    mistakes=(
        Mistake(
            "no_correction",
            {" / (1 - b1**step)": "", " / (1 - b2**step)": ""},
            "The corrections are missing: mean and square start at 0 and are too small in the "
            "first steps.",
        ),
        Mistake(
            "one_correction",
            {" / (1 - b2**step)": ""},
            "square is not corrected: divide by 1 - b2**step.",
        ),
        Mistake(
            "from_zero",
            {"**step": "**(step + 1)"},
            "step is one too large: the first one is 1 already.",
        ),
        Mistake(
            "l2",
            {
                "b1, b2 = betas": (
                    "b1, b2 = betas\n    gradient = gradient + weight_decay * parameter"
                ),
                "    parameter *= 1 - lr * weight_decay\n": "",
            },
            "The decay is part of the gradient (Adam with L2). AdamW takes it out: parameter is "
            "multiplied by 1 - lr * weight_decay.",
        ),
        Mistake(
            "decay_without_lr",
            {"1 - lr * weight_decay": "1 - weight_decay"},
            "The decay is not multiplied by lr.",
        ),
        Mistake(
            "no_decay",
            {"    parameter *= 1 - lr * weight_decay\n": ""},
            "The weight decay is missing.",
        ),
        Mistake(
            "eps_inside",
            {"(1 - b2**step)) + eps)": "(1 - b2**step) + eps))"},
            "eps stands under the root: it is added to the root.",
        ),
        Mistake(
            "no_root",
            {"np.sqrt(square / (1 - b2**step))": "square / (1 - b2**step)"},
            "You divide by square: divide by its root, so that the step has the size of lr.",
        ),
        Mistake(
            "not_in_place",
            {
                "mean *= b1\n    mean += (1 - b1) * gradient": (
                    "mean = b1 * mean + (1 - b1) * gradient"
                )
            },
            "`mean = ...` binds a new array to the name, and the caller's stays as it was: use *= "
            "and +=.",
        ),
        Mistake(
            "parameter_rebound",
            {
                "parameter *= 1 - lr * weight_decay\n    parameter -= (": (
                    "parameter = parameter * (1 - lr * weight_decay) - ("
                )
            },
            "`parameter = ...` binds a new array to the name, and the caller's stays as it was: "
            "use *= and -=.",
        ),
        Mistake("uphill", {"parameter -= (": "parameter += ("}, "You go uphill: subtract."),
        Mistake(
            "no_square",
            {"(1 - b2) * gradient * gradient": "(1 - b2) * np.abs(gradient)"},
            "square is the running mean of gradient * gradient.",
        ),
    ),
)


EXERCISES = (CLIP_BY_GLOBAL_NORM, ADAMW_UPDATE)
