"""Exercises of chapters 12 to 15: gradients, training, classification, and looking inside."""

from __future__ import annotations

import numpy as np

from ... import ops_backward as backward
from ...training import optimizers
from ..check.exercise import Code, Mistake
from ..check.inputs import B, C, D, Given, H, T, V
from ..check.inputs import model as bundled
from . import textbook

# ---- 12 Gradients


def difference_inputs(given: Given):
    w = given(B, H, dtype=np.float64)
    yield (
        "a cubic of [B,H]",
        (lambda x: float((w * x**3).sum()), given(B, H, dtype=np.float64), 1e-2),
    )
    yield "a product", (lambda x: float(x.prod()), given(T, dtype=np.float64), 1e-3)
    yield "one number", (lambda x: float(np.exp(x[0])), given(1, dtype=np.float64), 1e-1)


def linear_backward_inputs(given: Given):
    yield "[B,T,.]", (given(B, T, V), given(B, T, C), given(C, V))
    yield "T = 1", (given(1, 1, H), given(1, 1, D), given(D, H))
    yield (
        "float64",
        tuple(given(*shape, dtype=np.float64) for shape in ((B, T, H), (B, T, D), (D, H))),
    )
    yield "square", (given(B, T, H), given(B, T, H), given(H, H))


def loss_backward_inputs(given: Given):
    mean = np.full((B, T), 1 / (B * T), np.float32)
    yield "the mean of [B,T] losses", (mean, given(B, T, V), given.ids(V, B, T))
    padded = mean * (np.arange(T) < np.array([[3], [5]]))
    yield "padding counts 0", (padded, given(B, T, V), given.ids(V, B, T))
    yield "logits of 1e4", (mean, given(B, T, V, scale=1e4), given.ids(V, B, T))
    yield "T = 1, float64", (np.ones((1, 1)), given(1, 1, V, dtype=np.float64), given.ids(V, 1, 1))


# ---- 13 Training


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


# ---- 14 Putting it to work


def cell_inputs(given: Given):
    def case(b, c, n, scale=1.0, dtype=np.float32):
        shapes = ((b, c), (b, n), (b, n), (c, 4 * n), (n, 4 * n), (4 * n,))
        return tuple(given(*shape, scale=scale, dtype=dtype) for shape in shapes)

    yield "[B,C] and [B,N]", case(B, T, H)
    yield "one text", case(1, T, D)
    yield "x and h of one size", case(B, H, H)
    yield "float64", case(B, T, H, dtype=np.float64)
    yield "large gates", case(B, T, H, scale=5.0)


def last_inputs(given: Given):
    yield "[B,T,C], lengths 3 and 5", (given(B, T, C), np.array([3, 5]))
    yield "as long as the padding", (given(B, T, C), np.array([5, 5]))
    yield "one step", (given(3, T, C), np.array([1, 2, 1]))
    yield "one text", (given(1, T, C), np.array([4]))


# ---- 15 Looking inside


def lens_inputs(given: Given):
    ln_f = {"weight": given(C), "bias": given(C)}
    yield "[B,T,C]", (given(B, T, C), ln_f, given(V, C))
    yield "T = 1", (given(B, 1, C), ln_f, given(V, C))
    last = given.step("h.5.mlp.residual")
    yield (
        "tales, after the last block: its logits",
        (last, given.weights("ln_f"), bundled().parameters["wte.weight"]),
        given.step("logits"),
    )


def ablate_inputs(given: Given):
    yield "head 1", (given(B, H, T, D), [1])
    yield "heads 0 and 2", (given(B, H, T, D), [0, 2])
    yield "none", (given(B, H, T, D), [])
    yield "T = 1", (given(B, H, 1, D), [2])
    yield "head 7 of tales", (given.step("h.2.attn.context"), [7])


# fmt: off
LEARNING = (
    # ---- 12 Gradients
    Code(
        name="central_difference", chapter=12, minutes=10, difficulty=1, cell="12-central-differences", mend="by_h",
        unlocks="checking every gradient that you write",
        answer=textbook.central_difference, inputs=difference_inputs,
        example="central_difference(lambda x: float((x ** 2).sum()), np.array([1.0, 3.0]), 0.5)",
        hints=(
            "Compare with a gradient that you know: f = x^2 at 3. By which factor is it off?",
            "The two points are 2h apart.",
        ),
        mistakes=(
            Mistake("by_h", {"(2 * h)": "h"}, "Twice too large: the two points are 2h apart, so divide by 2h, not by h."),
            Mistake("one_sided", {"(f(up) - f(down)) / (2 * h)": "(f(up) - f(x)) / h"},
                    "This is the one-sided difference, whose error falls only as h. Take both sides: f(x + h) - f(x - h)."),
            Mistake("sign", {"f(up) - f(down)": "f(down) - f(up)"}, "The sign: what comes from x + h stands first."),
            Mistake("all_at_once", {"up[i] += h": "up += h", "down[i] -= h": "down -= h"},
                    "You move all numbers at once: a gradient asks about each one alone."),
            Mistake("in_place", {"up, down = x.copy(), x.copy()": "up, down = x, x.copy()"},
                    "You change x itself: work on a copy."),
            Mistake("half", {"/ (2 * h)": "/ 2 * h"}, "a / 2 * h is (a / 2) times h: put 2 * h in brackets."),
        ),
    ),
    Code(
        name="linear_backward", chapter=12, minutes=20, difficulty=2, cell="12-linear-backward",
        unlocks="training any stack of linear maps",
        answer=backward.linear_backward, inputs=linear_backward_inputs,
        example="linear_backward(np.array([[[1.0, 0.0]], [[0.0, 2.0]]]), np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.eye(2))",
        hints=(
            "Shapes nearly force it: dx is [.., in], made of dy [.., out] and W [in, out].",
            "Each weight meets every row: dW sums x_r^T dy_r over all B T rows. Flatten both to rows first: "
            "then it is one product.",
            "The bias is added to every row, so its gradient is the sum of dy over all rows: [out].",
        ),
        mistakes=(
            Mistake("not_transposed", {"d_rows @ weight.T": "d_rows @ (weight if len(weight) == weight.shape[1] else weight.T)"},
                    "dx: W must be transposed, also where it is square and both products fit."),
            Mistake("mean", {"rows.T @ d_rows,": "rows.T @ d_rows / len(rows),", "d_rows.sum(axis=0)": "d_rows.mean(axis=0)"},
                    "You divide by the number of rows. The loss has its mean already: gradients of W and b are sums."),
            Mistake("weight_transposed", {"rows.T @ d_rows": "d_rows.T @ rows"},
                    "dW is transposed: it has W's shape, [in, out]."),
            Mistake("bias_not_summed", {"d_rows.sum(axis=0)": "d_rows"}, "db: sum over all rows, since b is added to each."),
            Mistake("bias_per_position", {"d_rows.sum(axis=0)": "dy.sum(axis=0)"},
                    "db: sum over positions too, not over the batch alone."),
            Mistake("first_text", {"rows.T @ d_rows": "x[0].T @ dy[0]"},
                    "dW: only the first text of the batch counts. Sum over all rows."),
            Mistake("not_over_batch", {"rows.T @ d_rows": "x.swapaxes(-1, -2) @ dy"},
                    "dW still has the batch in it: sum over all B T rows, by flattening both to rows first."),
            Mistake("bias_mean", {"d_rows.sum(axis=0)": "d_rows.mean(axis=0)"}, "db is the sum over the rows, not their mean."),
            Mistake("input_gradient", {"(d_rows @ weight.T).reshape": "(rows * (d_rows @ weight.T)).reshape"},
                    "dx does not contain x: y is linear in it, and the slope is W."),
            Mistake("flat", {"(d_rows @ weight.T).reshape(x.shape)": "d_rows @ weight.T"}, "dx is still flat: it has x's shape."),
        ),
    ),
    Code(
        name="cross_entropy_backward", chapter=12, minutes=15, difficulty=2, cell="12-softmax-cross-entropy",
        unlocks="where every backward pass begins",
        answer=backward.cross_entropy_backward, inputs=loss_backward_inputs,
        example="cross_entropy_backward(np.ones((1, 1)), np.array([[[0.0, math.log(3.0)]]]), np.array([[1]]))",
        hints=(
            "softmax and logarithm together have a simple slope: the probabilities, minus 1 at the target.",
            "onehot: np.arange(V) == targets[..., None].",
            "Each position's row is multiplied by its own dy: dy[..., None].",
        ),
        mistakes=(
            Mistake("sign", {"return d_logits": "return -d_logits"},
                    "The sign: raising the target's logit lowers the loss, so its gradient is negative: softmax - onehot."),
            Mistake("no_onehot", {"    rows[np.arange(len(rows)), np.ravel(targets)] -= np.ravel(dy)\n": ""},
                    "The target is nowhere: subtract 1 from its probability."),
            Mistake("mean", {"return d_logits": "return d_logits / np.float32(dy.size + 1)"},
                    "You divide by the number of losses again: dy holds that already."),
            Mistake("ignores_dy", {"dy[..., None]": "np.ones_like(dy)[..., None]", "np.ravel(dy)": "np.ones_like(np.ravel(dy))"},
                    "dy is not used: it weighs each loss, and is 0 for padding."),
            Mistake("one_whole", {"-= np.ravel(dy)": "-= 1"},
                    "You subtract 1 at the target where dy should be subtracted: dy weighs both terms."),
            Mistake("no_softmax", "d_logits = dy[..., None] * logits\nrows = d_logits.reshape(-1, logits.shape[-1])\n"
                    "rows[np.arange(len(rows)), np.ravel(targets)] -= np.ravel(dy)\nreturn d_logits",
                    "You subtract from the logits: from the probabilities, softmax(logits)."),
            Mistake("target_only", {"return d_logits": "return d_logits * (np.arange(logits.shape[-1]) == targets[..., None])"},
                    "Only the target's logit gets a gradient. All others have one too: their probability."),
            Mistake("no_shift", {"logits - logits.max(axis=-1, keepdims=True)": "logits"},
                    "exp overflows for large logits: subtract the row's largest first, as softmax does."),
        ),
    ),
    # ---- 13 Training
    Code(
        name="clip_by_global_norm", chapter=13, minutes=5, difficulty=1, cell="13-clipping", mend="each_alone",
        unlocks="training that survives a bad batch",
        answer=optimizers.clip_by_global_norm, inputs=clip_inputs, changes=("gradients",),
        example="clip_by_global_norm({'w': np.array([3.0, 0.0]), 'b': np.array([4.0])}, 1.0)",
        hints=(
            "Does the direction of the whole gradient stay the same?",
            "One length over all arrays, and one factor for all.",
        ),
        mistakes=(
            Mistake("each_alone", """
                norm = global_norm(gradients)
                for gradient in gradients.values():
                    own = np.sqrt((gradient * gradient).sum())
                    if own > limit:
                        gradient *= limit / own
                return norm
                """,
                    "Each array is clipped alone, which turns the gradient. All together are one vector, with one length and "
                    "one factor."),
            Mistake("by_value", """
                norm = global_norm(gradients)
                for gradient in gradients.values():
                    np.clip(gradient, -limit, limit, out=gradient)
                return norm
                """, "You clip every number. The length of the whole is limited, and its direction stays."),
            Mistake("always", {"if norm > limit": "if norm > 0"}, "Short gradients are made longer: leave them as they are."),
            Mistake("squared", {"global_norm(gradients)": "global_norm(gradients) ** 2"},
                    "You take the length's square: the length is the root of the sum of squares."),
            Mistake("sum_of_lengths", {"global_norm(gradients)": "sum(global_norm({0: g}) for g in gradients.values())"},
                    "You add up the lengths of the arrays. Add up all squares, then take one root."),
            Mistake("upside_down", {"limit / norm": "norm / limit"}, "The factor is upside down: limit / norm."),
            Mistake("not_in_place", {"gradient *= limit / norm": "gradient = gradient * (limit / norm)"},
                    "`gradient = ...` binds a new array to the name, and the caller's stays as it was: use *=."),
            Mistake("returns_the_limit", {"return norm": "return min(norm, limit)"},
                    "You return how long they are now: how long they were is asked for."),
        ),
    ),
    Code(
        name="adamw_update", chapter=13, minutes=20, difficulty=2, cell="13-adamw", unlocks="training GPT-2",
        answer=optimizers.adamw_update, inputs=adamw_inputs, changes=("parameter", "mean", "square"),
        example="adamw_update(np.array([1.0, -2.0]), np.array([0.5, 1e-3]), np.zeros(2), np.zeros(2), lr=0.1, step=1)",
        hints=(
            "In place: mean *= b1, mean += (1 - b1) * gradient. `mean = ...` would only bind a new name.",
            "The running means start at 0 and are too small at first: divide by 1 - b1**step and 1 - b2**step.",
            "eps is added to the root, not under it. The decay multiplies the parameter by 1 - lr * weight_decay.",
        ),
        mistakes=(
            Mistake("no_correction", {" / (1 - b1**step)": "", " / (1 - b2**step)": ""},
                    "The corrections are missing: mean and square start at 0 and are too small in the first steps."),
            Mistake("one_correction", {" / (1 - b2**step)": ""}, "square is not corrected: divide by 1 - b2**step."),
            Mistake("from_zero", {"**step": "**(step + 1)"}, "step is one too large: the first one is 1 already."),
            Mistake("l2",
                    {"b1, b2 = betas": "b1, b2 = betas\n    gradient = gradient + weight_decay * parameter",
                     "    parameter *= 1 - lr * weight_decay\n": ""},
                    "The decay is part of the gradient (Adam with L2). AdamW takes it out: parameter is multiplied "
                    "by 1 - lr * weight_decay."),
            Mistake("decay_without_lr", {"1 - lr * weight_decay": "1 - weight_decay"}, "The decay is not multiplied by lr."),
            Mistake("no_decay", {"    parameter *= 1 - lr * weight_decay\n": ""}, "The weight decay is missing."),
            Mistake("eps_inside", {"(1 - b2**step)) + eps)": "(1 - b2**step) + eps))"},
                    "eps stands under the root: it is added to the root."),
            Mistake("no_root", {"np.sqrt(square / (1 - b2**step))": "square / (1 - b2**step)"},
                    "You divide by square: divide by its root, so that the step has the size of lr."),
            Mistake("not_in_place", {"mean *= b1\n    mean += (1 - b1) * gradient": "mean = b1 * mean + (1 - b1) * gradient"},
                    "`mean = ...` binds a new array to the name, and the caller's stays as it was: use *= and +=."),
            Mistake("parameter_rebound", {"parameter *= 1 - lr * weight_decay\n    parameter -= (":
                    "parameter = parameter * (1 - lr * weight_decay) - ("},
                    "`parameter = ...` binds a new array to the name, and the caller's stays as it was: use *= and -=."),
            Mistake("uphill", {"parameter -= (": "parameter += ("}, "You go uphill: subtract."),
            Mistake("no_square", {"(1 - b2) * gradient * gradient": "(1 - b2) * np.abs(gradient)"},
                    "square is the running mean of gradient * gradient."),
        ),
    ),
    # ---- 14 Putting it to work
    Code(
        name="last_state", chapter=14, minutes=5, difficulty=1, cell="14-last-state", mend="last_example",
        unlocks="classifying texts of any length",
        answer=textbook.last_state, inputs=last_inputs,
        example="last_state(np.array([[[1.0], [2.0], [0.0]], [[3.0], [4.0], [5.0]]]), np.array([2, 3]))",
        hints=(
            "What is the first axis of batch-first data?",
            "Each text ends somewhere else: index rows and steps together, states[np.arange(B), ...].",
        ),
        mistakes=(
            Mistake("last_example", {"states[np.arange(len(states)), lengths - 1]": "states[-1]"},
                    "Batch first: states[-1] is the last example, with all its steps. The last step of every example is needed."),
            Mistake("padding", {"lengths - 1": "-1"},
                    "You read the last place of each row, which is padding where a text is shorter."),
            Mistake("off_by_one", {"lengths - 1": "np.minimum(lengths, states.shape[1] - 1)"},
                    "One too far: a text of 3 tokens ends at place 2."),
            Mistake("mean", "return states.mean(axis=1)",
                    "You average over all steps, padding included: the last real one is needed."),
            Mistake("first", {"lengths - 1": "0"}, "You read the first step: it has seen one token only."),
            Mistake("all_pairs", {"states[np.arange(len(states)), lengths - 1]": "states[:, lengths - 1]"},
                    "states[:, lengths - 1] gives every text the ends of all texts: pair one row number a text, "
                    "np.arange(B), with its last place."),
        ),
    ),
    Code(
        name="lstm_cell", chapter=14, minutes=20, difficulty=2, cell="14-lstm-cell", unlocks="the recurrent baseline",
        answer=textbook.lstm_cell, inputs=cell_inputs,
        example="lstm_cell(np.array([[1.0]]), np.array([[0.5]]), np.array([[2.0]]), np.array([[1.0, 0.0, 1.0, 0.0]]), "
        "np.ones((1, 4)), np.zeros(4))",
        hints=(
            "One product gives all four gates: np.split(x @ w_x + h @ w_h + bias, 4, axis=-1), in the order i, f, g, o.",
            "sigmoid(z) = 1 / (1 + exp(-z)) on i, f and o; tanh on g.",
            "First the new c = f * c + i * g, then h = o * tanh(c) with the new c.",
        ),
        mistakes=(
            Mistake("gates_swapped", {"f * c + i *": "i * c + f *"},
                    "Input and forget gate have changed places: f multiplies the old memory."),
            Mistake("order_ifog", {"i, f, g, o = np": "i, f, o, g = np"},
                    "The quarters are i, f, g, o: you read the last two as o, g."),
            Mistake("old_memory", {"c = f * c + i * np.tanh(g)\n    return o * np.tanh(c), c":
                    "new = f * c + i * np.tanh(g)\n    return o * np.tanh(c), new"}, "h shows the old memory: use the new c."),
            Mistake("no_tanh", {"o * np.tanh(c)": "o * c"}, "tanh is missing in h = o tanh(c)."),
            Mistake("sigmoid_on_g", {"np.tanh(g)": "1 / (1 + np.exp(-g))"},
                    "g passes through tanh, not sigmoid: it must be able to subtract."),
            Mistake("no_sigmoid", {"(1 / (1 + np.exp(-gate)) for gate in (i, f, o))": "(i, f, o)"},
                    "The gates are not squeezed: sigmoid keeps each between 0 and 1."),
            Mistake("no_recurrence", {" + h @ w_h": ""}, "h is not used: without h W_h the cell does not know what came before."),
            Mistake("no_bias", {" + bias": ""}, "The bias is missing."),
            Mistake("forgets_all", {"f * c + i": "i"}, "The old memory is dropped: f * c is missing."),
            Mistake("returned_swapped", {"return o * np.tanh(c), c": "return c, o * np.tanh(c)"},
                    "h and c are returned in the wrong order."),
        ),
    ),
    # ---- 15 Looking inside
    Code(
        name="logit_lens", chapter=15, minutes=5, difficulty=1, cell="15-logit-lens", mend="no_norm",
        unlocks="what the model thinks at every depth",
        answer=textbook.logit_lens, inputs=lens_inputs,
        example="logit_lens(np.array([[[1.0, 3.0]]]), {'weight': np.ones(2), 'bias': np.zeros(2)}, np.eye(2))",
        hints=(
            "What stands between the last block and the unembedding in the forward pass?",
            "The final layer norm, with its own weight and bias.",
        ),
        mistakes=(
            Mistake("no_norm", {"layer_norm(x, **ln_f)": "x"},
                    "The final layer norm is missing: the unembedding was trained on normed vectors, and depths differ in size."),
            Mistake("no_scale", {"layer_norm(x, **ln_f)": "layer_norm(x, 1, 0)"},
                    "The norm's own weight and bias are missing (ln_f)."),
            Mistake("probabilities", """
                logits = layer_norm(x, **ln_f) @ wte.T
                e = np.exp(logits - logits.max(axis=-1, keepdims=True))
                return e / e.sum(axis=-1, keepdims=True)
                """, "You return probabilities: logits are asked for."),
            Mistake("last_only", {"layer_norm(x,": "layer_norm(x[:, -1:],"},
                    "Only the last position is read: each has its own logits."),
            Mistake("no_bias", {"**ln_f": "ln_f['weight'], 0"}, "ln_f's bias is missing."),
            Mistake("tokens", {"@ wte.T": "@ wte.T * 0 + (layer_norm(x, **ln_f) @ wte.T).argmax(-1, keepdims=True)"},
                    "You return the likeliest tokens' ids: logits are asked for."),
        ),
    ),
    Code(
        name="ablate_heads", chapter=15, minutes=10, difficulty=2, cell="15-head-ablation", unlocks="the ablation bars",
        answer=textbook.ablate_heads, inputs=ablate_inputs,
        example="ablate_heads(np.ones((1, 3, 2, 1)), [1])",
        hints=(
            "Copy first: what has passed a step may be looked at later.",
            "Heads are the second axis: result[:, heads] = 0.",
        ),
        mistakes=(
            Mistake("in_place", {"context.copy()": "context"}, "You write into the array that you were given: copy it first."),
            Mistake("others", """
                result = np.zeros_like(context)
                result[:, heads] = context[:, heads]
                return result
                """, "You keep the chosen heads and silence all others: the other way round."),
            Mistake("rows", {"result[:, heads] = 0": "result[[h % len(result) for h in heads]] = 0"},
                    "You silence rows of the batch: heads are the second axis."),
            Mistake("positions", {"result[:, heads]": "result[:, :, [h % context.shape[2] for h in heads]]"},
                    "You silence positions: heads are the second axis, [B,H,T,D]."),
            Mistake("from_one", {"result[:, heads]": "result[:, [h - 1 for h in heads]]"}, "Heads are counted from 0."),
            Mistake("mean", {"= 0": "= result[:, heads].mean(axis=(0, 2), keepdims=True)"},
                    "You put the mean in (mean ablation, which keeps what a head adds always). Here it becomes 0."),
            Mistake("removed", {"result[:, heads] = 0": "result = np.delete(result, heads, axis=1)"},
                    "The heads are cut out, and the shape changes: they stay, with context 0."),
        ),
    ),
)
