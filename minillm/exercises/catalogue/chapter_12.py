"""Exercises of chapter 12: gradients."""

from __future__ import annotations

import numpy as np

from ... import ops_backward as backward
from ..checking.exercise import Code, Mistake
from ..checking.inputs import B, C, D, Given, H, T, V
from . import answers


def difference_inputs(given: Given):
    w = given(B, H, dtype=np.float64)
    yield (
        "a cubic of [B,H]",
        (lambda x: float((w * x**3).sum()), given(B, H, dtype=np.float64), 1e-2),
    )
    yield "a product", (lambda x: float(x.prod()), given(T, dtype=np.float64), 1e-3)
    yield "one number", (lambda x: float(np.exp(x[0])), given(1, dtype=np.float64), 1e-1)


CENTRAL_DIFFERENCE = Code(
    name="central_difference",
    chapter=12,
    minutes=10,
    difficulty=1,
    cell="12-central-differences",
    mend="by_h",
    unlocks="checking every gradient that you write",
    answer=answers.central_difference,
    inputs=difference_inputs,
    example="central_difference(lambda x: float((x ** 2).sum()), np.array([1.0, 3.0]), 0.5)",
    hints=(
        "Compare with a gradient that you know: f = x^2 at 3. By which factor is it off?",
        "The two points are 2h apart.",
    ),
    mistakes=(
        Mistake(
            "by_h",
            {"(2 * h)": "h"},
            "Twice too large: the two points are 2h apart, so divide by 2h, not by h.",
        ),
        Mistake(
            "one_sided",
            {"(f(up) - f(down)) / (2 * h)": "(f(up) - f(x)) / h"},
            "This is the one-sided difference, whose error falls only as h. Take both sides: f(x + "
            "h) - f(x - h).",
        ),
        Mistake(
            "sign",
            {"f(up) - f(down)": "f(down) - f(up)"},
            "The sign: what comes from x + h stands first.",
        ),
        Mistake(
            "all_at_once",
            {"up[i] += h": "up += h", "down[i] -= h": "down -= h"},
            "You move all numbers at once: a gradient asks about each one alone.",
        ),
        Mistake(
            "in_place",
            {"up, down = x.copy(), x.copy()": "up, down = x, x.copy()"},
            "You change x itself: work on a copy.",
        ),
        Mistake(
            "half", {"/ (2 * h)": "/ 2 * h"}, "a / 2 * h is (a / 2) times h: put 2 * h in brackets."
        ),
    ),
)


def linear_backward_inputs(given: Given):
    yield "[B,T,.]", (given(B, T, V), given(B, T, C), given(C, V))
    yield "T = 1", (given(1, 1, H), given(1, 1, D), given(D, H))
    yield (
        "float64",
        tuple(given(*shape, dtype=np.float64) for shape in ((B, T, H), (B, T, D), (D, H))),
    )
    yield "square", (given(B, T, H), given(B, T, H), given(H, H))


LINEAR_BACKWARD = Code(
    name="linear_backward",
    chapter=12,
    minutes=20,
    difficulty=2,
    cell="12-linear-backward",
    unlocks="training any stack of linear maps",
    answer=backward.linear_backward,
    inputs=linear_backward_inputs,
    example=(
        "linear_backward(np.array([[[1.0, 0.0]], [[0.0, 2.0]]]), np.array([[[1.0, 2.0]], [[3.0, "
        "4.0]]]), np.eye(2))"
    ),
    hints=(
        "Shapes nearly force it: dx is [.., in], made of dy [.., out] and W [in, out].",
        "Each weight meets every row: dW sums x_r^T dy_r over all B T rows. Flatten both to rows "
        "first: then it is one product.",
        "The bias is added to every row, so its gradient is the sum of dy over all rows: [out].",
    ),
    mistakes=(
        Mistake(
            "not_transposed",
            {
                "d_rows @ weight.T": (
                    "d_rows @ (weight if len(weight) == weight.shape[1] else weight.T)"
                )
            },
            "dx: W must be transposed, also where it is square and both products fit.",
        ),
        Mistake(
            "mean",
            {
                "rows.T @ d_rows,": "rows.T @ d_rows / len(rows),",
                "d_rows.sum(axis=0)": "d_rows.mean(axis=0)",
            },
            "You divide by the number of rows. The loss has its mean already: gradients of W and b "
            "are sums.",
        ),
        Mistake(
            "weight_transposed",
            {"rows.T @ d_rows": "d_rows.T @ rows"},
            "dW is transposed: it has W's shape, [in, out].",
        ),
        Mistake(
            "bias_not_summed",
            {"d_rows.sum(axis=0)": "d_rows"},
            "db: sum over all rows, since b is added to each.",
        ),
        Mistake(
            "bias_per_position",
            {"d_rows.sum(axis=0)": "dy.sum(axis=0)"},
            "db: sum over positions too, not over the batch alone.",
        ),
        Mistake(
            "first_text",
            {"rows.T @ d_rows": "x[0].T @ dy[0]"},
            "dW: only the first text of the batch counts. Sum over all rows.",
        ),
        Mistake(
            "not_over_batch",
            {"rows.T @ d_rows": "x.swapaxes(-1, -2) @ dy"},
            "dW still has the batch in it: sum over all B T rows, by flattening both to rows "
            "first.",
        ),
        Mistake(
            "bias_mean",
            {"d_rows.sum(axis=0)": "d_rows.mean(axis=0)"},
            "db is the sum over the rows, not their mean.",
        ),
        Mistake(
            "input_gradient",
            {"(d_rows @ weight.T).reshape": "(rows * (d_rows @ weight.T)).reshape"},
            "dx does not contain x: y is linear in it, and the slope is W.",
        ),
        Mistake(
            "flat",
            {"(d_rows @ weight.T).reshape(x.shape)": "d_rows @ weight.T"},
            "dx is still flat: it has x's shape.",
        ),
    ),
)


def loss_backward_inputs(given: Given):
    mean = np.full((B, T), 1 / (B * T), np.float32)
    yield "the mean of [B,T] losses", (mean, given(B, T, V), given.ids(V, B, T))
    padded = mean * (np.arange(T) < np.array([[3], [5]]))
    yield "padding counts 0", (padded, given(B, T, V), given.ids(V, B, T))
    yield "logits of 1e4", (mean, given(B, T, V, scale=1e4), given.ids(V, B, T))
    yield "T = 1, float64", (np.ones((1, 1)), given(1, 1, V, dtype=np.float64), given.ids(V, 1, 1))


CROSS_ENTROPY_BACKWARD = Code(
    name="cross_entropy_backward",
    chapter=12,
    minutes=15,
    difficulty=2,
    cell="12-softmax-cross-entropy",
    unlocks="where every backward pass begins",
    answer=backward.cross_entropy_backward,
    inputs=loss_backward_inputs,
    example=(
        "cross_entropy_backward(np.ones((1, 1)), np.array([[[0.0, math.log(3.0)]]]), "
        "np.array([[1]]))"
    ),
    hints=(
        "softmax and logarithm together have a simple slope: the probabilities, minus 1 at the "
        "target.",
        "onehot: np.arange(V) == targets[..., None].",
        "Each position's row is multiplied by its own dy: dy[..., None].",
    ),
    mistakes=(
        Mistake(
            "sign",
            {"return d_logits": "return -d_logits"},
            "The sign: raising the target's logit lowers the loss, so its gradient is negative: "
            "softmax - onehot.",
        ),
        Mistake(
            "no_onehot",
            {"    rows[np.arange(len(rows)), np.ravel(targets)] -= np.ravel(dy)\n": ""},
            "The target is nowhere: subtract 1 from its probability.",
        ),
        Mistake(
            "mean",
            {"return d_logits": "return d_logits / np.float32(dy.size + 1)"},
            "You divide by the number of losses again: dy holds that already.",
        ),
        Mistake(
            "ignores_dy",
            {
                "dy[..., None]": "np.ones_like(dy)[..., None]",
                "np.ravel(dy)": "np.ones_like(np.ravel(dy))",
            },
            "dy is not used: it weighs each loss, and is 0 for padding.",
        ),
        Mistake(
            "one_whole",
            {"-= np.ravel(dy)": "-= 1"},
            "You subtract 1 at the target where dy should be subtracted: dy weighs both terms.",
        ),
        Mistake(
            "no_softmax",
            "d_logits = dy[..., None] * logits\n"
            "rows = d_logits.reshape(-1, logits.shape[-1])\n"
            "rows[np.arange(len(rows)), np.ravel(targets)] -= np.ravel(dy)\n"
            "return d_logits",
            "You subtract from the logits: from the probabilities, softmax(logits).",
        ),
        Mistake(
            "target_only",
            {
                "return d_logits": (
                    "return d_logits * (np.arange(logits.shape[-1]) == targets[..., None])"
                )
            },
            "Only the target's logit gets a gradient. All others have one too: their probability.",
        ),
        Mistake(
            "no_shift",
            {"logits - logits.max(axis=-1, keepdims=True)": "logits"},
            "exp overflows for large logits: subtract the row's largest first, as softmax does.",
        ),
    ),
)


EXERCISES = (CENTRAL_DIFFERENCE, LINEAR_BACKWARD, CROSS_ENTROPY_BACKWARD)
