"""What follows from a patch that a page asks for: the same as from Patch, said in words."""

import numpy as np
import pytest

import minillm
from minillm import InputError
from minillm.ops import softmax
from minillm.page.answering import answerer
from minillm.page.patched import patched
from minillm.steps import Patch

PROMPT, OTHER = "The king said", "Once upon a time there was"


@pytest.fixture(scope="module", params=["tales-draft", "tales-llama"])
def loaded(request):
    return minillm.load(request.param, kernels="numpy")


def change(**how):
    return {"layer": 1, "part": "attn.context", "head": 2, "at": -1, "other": None} | how


def test_a_head_is_off_and_what_follows_is_what_patch_makes_follow(loaded):
    model, tokenizer = loaded
    ids = tokenizer.encode(PROMPT)
    off = np.ones((1, model.config.sizes.H, 1, 1), np.float32)
    off[0, 2] = 0
    before = softmax(model(ids, last=True)[0])
    after = softmax(model(ids, last=True, step=Patch({"h.1.attn.context": lambda x: x * off}))[0])
    found = patched(model, tokenizer, ids, change())
    first = found["words"][0]
    top = int(before.argmax())
    assert first["word"] == tokenizer.readable([top])
    np.testing.assert_allclose([first["before"], first["after"]], [before[top], after[top]])
    names = [one["name"] for one in found["changed"]]
    assert names[0] == "h.1.attn.out" and names[-1] == "logits" and "h.0.mlp.out" not in names
    assert all(one["share"] > 0 for one in found["changed"])


def test_a_value_is_that_of_another_text_at_one_position(loaded):
    model, tokenizer = loaded
    ids, name = tokenizer.encode(PROMPT), "h.1.mlp.out"
    theirs = model.trace(tokenizer.encode(OTHER))[name][0, -1]

    def put(x):
        x = x.copy()
        x[0, 1] = theirs
        return x

    after = softmax(model(ids, last=True, step=Patch({name: put}))[0])
    found = patched(model, tokenizer, ids, change(part="mlp.out", at=1, other=OTHER))
    said = {one["word"]: one["after"] for one in found["words"]}
    top = int(after.argmax())
    np.testing.assert_allclose(said[tokenizer.readable([top])], after[top], rtol=1e-6)
    moved = {one["name"]: one["share"] for one in found["changed"]}
    assert moved["h.1.mlp.residual"] == 0  # at the last position; a later layer looks there


def test_what_is_not_there_is_said(loaded):
    model, tokenizer = loaded
    for how in ({"layer": 99}, {"head": 99}, {"head": -1}, {"at": 99}, {"other": ""}):
        with pytest.raises(InputError):
            patched(model, tokenizer, [1, 2, 3], change(**how))


def test_a_page_that_asks_is_told_and_nothing_is_written(loaded):
    model, tokenizer = loaded
    said, ids = [], tokenizer.encode(PROMPT)
    asked = {"ids": ids, "patch": change(), "lever": "int8"}
    assert [*answerer(model, tokenizer, "", {})(ids, asked, said.append)] == []
    assert said == [{"patched": patched(model.quantize("int8"), tokenizer, ids, change())}]
