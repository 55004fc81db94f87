"""Where two computations of one text part: what was changed is found, and nothing else."""

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError, recording
from minillm.compression import quantize
from minillm.page.parting import parted
from minillm.record import record

SMALL = {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}


@pytest.fixture
def model(small_tokenizer):
    small = GPT2.random(GPT2Config(small_tokenizer.vocab_size, **SMALL))
    large = {name: p * 10 for name, p in small.parameters.items() if p.ndim == 2}
    return small.with_parameters(large)


def told_apart(model, other, tokenizer):
    made = record(other, tokenizer, "the lower", max_new_tokens=4, do_sample=False)
    return parted(made, model, other, "plain")


def test_the_step_whose_weights_are_others_differs_and_no_other(model, small_tokenizer, tmp_path):
    name = next(name for name in model.parameters if "h.1.mlp.c_fc.weight" in name)
    other = model.with_parameters({name: model.parameters[name] * np.float32(1.01)})
    made = told_apart(model, other, small_tokenizer)
    steps = [step["name"] for step in made.header["steps"]]
    table, apart = made.arrays["parting.steps"], made.arrays["parting.probabilities"]
    assert table.shape == (4, len(steps), 2) and apart.shape == (4,) and (apart > 0).all()
    places = {(steps[step], layer) for _, step, layer in np.argwhere(table > 1)}
    assert places == {("mlp.c_fc", 1)}
    assert (table[:, steps.index("probs")] == -1).all()
    made.write(tmp_path / "a")
    again = recording.read(tmp_path / "a")
    np.testing.assert_array_equal(again.arrays["parting.steps"], table)
    assert again.header["parting"] == {"name": "plain", "stored": "float32", "twin": "numpy"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_does_not_part_from_itself(model, small_tokenizer, dtype):
    model = model.astype(dtype)
    made = told_apart(model, model.with_parameters({}), small_tokenizer)
    assert not made.arrays["parting.probabilities"].any()
    assert made.arrays["parting.steps"].max() == 0


def test_rounding_to_8_bits_is_in_every_product(model, small_tokenizer):
    made = told_apart(model, quantize(model, "int8"), small_tokenizer)
    steps = [step["name"] for step in made.header["steps"]]
    differing = {steps[step] for _, step, _ in np.argwhere(made.arrays["parting.steps"] > 1)}
    assert {"attn.out", "mlp.out", "logits"} <= differing
    assert not {"ln_1", "attn.weights", "mlp.residual"} & differing


def test_other_shapes_are_refused(model, small_tokenizer):
    made = record(model, small_tokenizer, "the lower", max_new_tokens=2)
    other = GPT2.random(GPT2Config(small_tokenizer.vocab_size, **SMALL | {"n_layer": 3}))
    with pytest.raises(InputError):
        parted(made, model, other, "other")
