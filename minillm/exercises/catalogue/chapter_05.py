"""Exercises of chapter 05: the whole of GPT-2."""

from __future__ import annotations

from functools import partial

import numpy as np

from ...families.gpt2 import forward as gpt2
from ..checking.exercise import Code, Mistake
from ..checking.inputs import B, C, Given, T, V
from ..checking.inputs import model as bundled
from . import answers


def embed_inputs(given: Given):
    yield "[B,T], no past", (given.ids(V, B, T), 0, given(V, C), given(20, C))
    yield "a past of 4", (given.ids(V, B, T), 4, given(V, C), given(20, C))
    yield "one new token", (given.ids(V, B, 1), 9, given(V, C), given(20, C))
    tables = [bundled().parameters[f"{name}.weight"] for name in ("wte", "wpe")]
    yield "tales, embed", (given.reference_ids, 0, *tables), given.step("embed")


EMBED = Code(
    name="embed",
    chapter=5,
    minutes=5,
    difficulty=1,
    cell="05-embed",
    mend="restarts",
    unlocks="embed of the model",
    answer=answers.embed,
    inputs=embed_inputs,
    example=(
        "embed(np.array([[1, 0]]), 1, np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.1, 0.1], "
        "[0.2, 0.2], [0.3, 0.3]]))"
    ),
    hints=(
        "It works for a prompt and fails for what comes after a cache. What does it not use?",
        "The first new token stands at position `past`, not at 0.",
    ),
    mistakes=(
        Mistake(
            "restarts",
            {"past + np.arange": "np.arange"},
            "Positions restart at 0 after a cache: the first new token stands at position `past`.",
        ),
        Mistake(
            "from_one",
            {"past + np.arange": "past + 1 + np.arange"},
            "Positions are counted from 1: the first one is 0.",
        ),
        Mistake(
            "no_positions",
            {" + wpe[past + np.arange(ids.shape[1])]": ""},
            "The positions are missing: without wpe the model could not tell one order of tokens "
            "from another.",
        ),
        Mistake(
            "one_position",
            {"wpe[past + np.arange(ids.shape[1])]": "wpe[past]"},
            "Every token gets the same position: each has its own.",
        ),
        Mistake(
            "by_id",
            {"wpe[past + np.arange(ids.shape[1])]": "wpe[ids]"},
            "wpe is indexed with the ids: it wants positions.",
        ),
        Mistake(
            "product", {"] + wpe": "] * wpe"}, "The two vectors are multiplied. They are added."
        ),
    ),
)


def forward_inputs(given: Given):
    a, b = given(C, C, scale=0.3), given(C, C, scale=0.3)

    def block(x):
        return x + np.tanh(x.cumsum(axis=1) @ a)

    def other(x):
        return x * 2 + np.tanh(x @ b)

    ln_f = {"weight": given(C), "bias": given(C)}
    yield "[B,T]", (given.ids(V, B, T), given(V, C), given(20, C), [block, other], ln_f)
    yield "T = 1", (given.ids(V, B, 1), given(V, C), given(20, C), [block, other], ln_f)
    yield "no blocks", (given.ids(V, B, T), given(V, C), given(20, C), [], ln_f)
    tree, config = bundled().weights, bundled().config
    blocks = [
        partial(gpt2.block, **p, config=config, layer=i, positions=np.arange(5)[None])
        for i, p in enumerate(tree["h"])
    ]
    args = (given.reference_ids, tree["wte"]["weight"], tree["wpe"]["weight"], blocks, tree["ln_f"])
    yield "tales, logits", args, given.step("logits")


FORWARD = Code(
    name="forward",
    chapter=5,
    minutes=20,
    difficulty=2,
    cell="05-forward",
    unlocks="logits: the whole model is yours",
    answer=answers.forward,
    inputs=forward_inputs,
    once=("blocks",),
    example=(
        "forward(np.array([[0, 1]]), np.eye(2), np.zeros((2, 2)), [lambda x: 2 * x], {'weight': "
        "np.ones(2), 'bias': np.zeros(2)})"
    ),
    hints=(
        "wte[ids] picks a row for each token; wpe[np.arange(T)] one for each position.",
        "x = block(x) for every block, one after another.",
        "After the last block comes layer_norm(x, **ln_f), then the product with wte.T: the head "
        "is tied to the embedding.",
    ),
    mistakes=(
        Mistake(
            "no_ln_f",
            {"layer_norm(x, **ln_f)": "x"},
            "The final layer norm is missing before the unembedding.",
        ),
        Mistake(
            "no_positions",
            {" + wpe[np.arange(ids.shape[1])]": ""},
            "The position embedding is missing.",
        ),
        Mistake(
            "positions_from_one",
            {"np.arange(ids.shape[1])": "1 + np.arange(ids.shape[1])"},
            "Positions are counted from 1: the first is 0.",
        ),
        Mistake(
            "skips_a_block",
            {"for block in blocks:": "for block in blocks[1:]:"},
            "The first block is left out.",
        ),
        Mistake(
            "backwards",
            {"for block in blocks:": "for block in blocks[::-1]:"},
            "The blocks run in the wrong order.",
        ),
        Mistake(
            "block_residual",
            {"x = block(x)": "x = x + block(x)"},
            "You add x once more around each block: a block returns the stream with its additions "
            "already in it.",
        ),
        Mistake(
            "norms_first",
            """
            x = wte[ids] + wpe[np.arange(ids.shape[1])]
            x = layer_norm(x, **ln_f)
            for block in blocks:
                x = block(x)
            return x @ wte.T
            """,
            "The final layer norm stands before the blocks: it comes after the last.",
        ),
        Mistake(
            "last_only",
            {"return layer_norm(x, **ln_f)": "return layer_norm(x[:, -1:], **ln_f)"},
            "You return the last position's logits only: every position has its own.",
        ),
        Mistake(
            "same_input",
            {"x = block(x)": "y = block(x)", "layer_norm(x,": "layer_norm(y if blocks else x,"},
            "Every block reads the embedding: each must read what the one before it returned.",
        ),
    ),
)


EXERCISES = (EMBED, FORWARD)
