"""Plain decoding is the loop that a class reads first."""

import numpy as np
import pytest

import minillm
from minillm.compression import prune_heads
from minillm.decoding import Options
from minillm.decoding.generate import moments
from minillm.decoding.plain import greedy, greedy_with_cache
from tests.decoding.test_generate import MODEL

MODELS = {
    "random": lambda: MODEL.astype(np.float64),
    "fewer heads": lambda: prune_heads(MODEL, 2, [1, 2, 3]).astype(np.float64),
    "8 bits": lambda: MODEL.quantize("int8"),
    "tales-draft": lambda: minillm.load("tales-draft", "float64")[0],
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("prompt", [[7], [3, 1, 4, 1, 5], [*range(12)]], ids=str)
def test_the_real_loop_equals_the_one_in_plain_sight(model, prompt):
    model, n_new = MODELS[model](), 12
    expected = greedy(model, prompt, n_new)
    assert len(expected) == len(prompt) + n_new and expected[: len(prompt)] == prompt
    assert greedy_with_cache(model, prompt, n_new) == expected
    for use_cache in (True, False):
        options = Options(
            max_new_tokens=n_new, do_sample=False, stop_tokens=(), use_cache=use_cache
        )
        assert [m.id for m in moments(model, prompt, options)] == expected[len(prompt) :]
    ids = model.generate(prompt, n_new, do_sample=False, stop_tokens=())
    assert ids.tolist() == expected
