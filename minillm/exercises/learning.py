"""Exercises of chapters 12 to 15: gradients, training, classification, and looking inside."""

from __future__ import annotations

import numpy as np

from . import textbook
from .exercise import Code, Mistake
from .inputs import B, C, D, Given, H, T, V
from .inputs import model as bundled

# ---- 12 Gradients


def difference_inputs(given: Given):
    w = given(B, H, dtype=np.float64)
    yield "a cubic of [B,H]", (lambda x: float((w * x**3).sum()), given(B, H, dtype=np.float64), 1e-2)
    yield "a product", (lambda x: float(x.prod()), given(T, dtype=np.float64), 1e-3)
    yield "one number", (lambda x: float(np.exp(x[0])), given(1, dtype=np.float64), 1e-1)


# ---- 14 Putting it to work


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
            Mistake("by_h", {"(2 * h)": "h"}, "Twice too large: the two points are 2h apart."),
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
                    "states[:, lengths - 1] gives every text the ends of all texts: index both axes with arrays."),
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
