"""Exercises of chapter 15: looking inside."""

from __future__ import annotations

from ..checking.exercise import Code, Mistake
from ..checking.inputs import B, C, D, Given, H, T, V
from ..checking.inputs import model as bundled
from . import answers


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


LOGIT_LENS = Code(
    name="logit_lens",
    chapter=15,
    minutes=5,
    difficulty=1,
    cell="15-logit-lens",
    mend="no_norm",
    unlocks="what the model thinks at every depth",
    answer=answers.logit_lens,
    inputs=lens_inputs,
    example=(
        "logit_lens(np.array([[[1.0, 3.0]]]), {'weight': np.ones(2), 'bias': np.zeros(2)}, "
        "np.eye(2))"
    ),
    hints=(
        "What stands between the last block and the unembedding in the forward pass?",
        "The final layer norm, with its own weight and bias.",
    ),
    mistakes=(
        Mistake(
            "no_norm",
            {"layer_norm(x, **ln_f)": "x"},
            "The final layer norm is missing: the unembedding was trained on normed vectors, and "
            "depths differ in size.",
        ),
        Mistake(
            "no_scale",
            {"layer_norm(x, **ln_f)": "layer_norm(x, 1, 0)"},
            "The norm's own weight and bias are missing (ln_f).",
        ),
        Mistake(
            "probabilities",
            """
            logits = layer_norm(x, **ln_f) @ wte.T
            e = np.exp(logits - logits.max(axis=-1, keepdims=True))
            return e / e.sum(axis=-1, keepdims=True)
            """,
            "You return probabilities: logits are asked for.",
        ),
        Mistake(
            "last_only",
            {"layer_norm(x,": "layer_norm(x[:, -1:],"},
            "Only the last position is read: each has its own logits.",
        ),
        Mistake("no_bias", {"**ln_f": "ln_f['weight'], 0"}, "ln_f's bias is missing."),
        Mistake(
            "tokens",
            {"@ wte.T": "@ wte.T * 0 + (layer_norm(x, **ln_f) @ wte.T).argmax(-1, keepdims=True)"},
            "You return the likeliest tokens' ids: logits are asked for.",
        ),
    ),
)


def ablate_inputs(given: Given):
    yield "head 1", (given(B, H, T, D), [1])
    yield "heads 0 and 2", (given(B, H, T, D), [0, 2])
    yield "none", (given(B, H, T, D), [])
    yield "T = 1", (given(B, H, 1, D), [2])
    yield "head 7 of tales", (given.step("h.2.attn.context"), [7])


ABLATE_HEADS = Code(
    name="ablate_heads",
    chapter=15,
    minutes=10,
    difficulty=2,
    cell="15-head-ablation",
    unlocks="the ablation bars",
    answer=answers.ablate_heads,
    inputs=ablate_inputs,
    example="ablate_heads(np.ones((1, 3, 2, 1)), [1])",
    hints=(
        "Copy first: what has passed a step may be looked at later.",
        "Heads are the second axis: result[:, heads] = 0.",
    ),
    mistakes=(
        Mistake(
            "in_place",
            {"context.copy()": "context"},
            "You write into the array that you were given: copy it first.",
        ),
        Mistake(
            "others",
            """
            result = np.zeros_like(context)
            result[:, heads] = context[:, heads]
            return result
            """,
            "You keep the chosen heads and silence all others: the other way round.",
        ),
        Mistake(
            "rows",
            {"result[:, heads] = 0": "result[[h % len(result) for h in heads]] = 0"},
            "You silence rows of the batch: heads are the second axis.",
        ),
        Mistake(
            "positions",
            {"result[:, heads]": "result[:, :, [h % context.shape[2] for h in heads]]"},
            "You silence positions: heads are the second axis, [B,H,T,D].",
        ),
        Mistake(
            "from_one",
            {"result[:, heads]": "result[:, [h - 1 for h in heads]]"},
            "Heads are counted from 0.",
        ),
        Mistake(
            "mean",
            {"= 0": "= result[:, heads].mean(axis=(0, 2), keepdims=True)"},
            "You put the mean in (mean ablation, which keeps what a head adds always). Here it "
            "becomes 0.",
        ),
        Mistake(
            "removed",
            {"result[:, heads] = 0": "result = np.delete(result, heads, axis=1)"},
            "The heads are cut out, and the shape changes: they stay, with context 0.",
        ),
    ),
)


EXERCISES = (LOGIT_LENS, ABLATE_HEADS)
