"""Files of minillm 0.1.0 (tests/data/v0_1, where make_models.py says how they were made) open, and
the models compute what they computed then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minillm.loading import load_model
from minillm.reference import Reference, verify
from minillm.training.lora import load_adapters

OLD = Path(__file__).parent.parent / "data" / "v0_1"
IDS = [3, 1, 4, 1, 5]


def assert_same_logits(model, name: str) -> None:
    """float32 on NumPy then and now, the same operations: what differs is at most the order in
    which another machine's BLAS adds, for logits up to 10."""
    with np.load(OLD / "logits.npz") as logits:
        np.testing.assert_allclose(model(IDS), logits[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "int4", "int4_min"])
def test_a_quantised_folder(kind, tmp_path):
    model = load_model(OLD / kind, kernels="numpy")
    assert model.stored == kind
    assert_same_logits(model, kind)
    model.save_pretrained(tmp_path)  # as it is written now: the same blocks by other names
    assert_same_logits(load_model(tmp_path, kernels="numpy"), kind)
    for name in ("model", "int8"):  # they are different models
        if name != kind:
            with pytest.raises(AssertionError):
                assert_same_logits(model, name)


def test_adapters():
    model = load_model(OLD / "model", kernels="numpy")
    assert_same_logits(model, "model")
    assert_same_logits(load_adapters(model, OLD / "adapters"), "adapters")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_reference(dtype):
    reference, model = Reference.load(OLD / "model"), load_model(OLD / "model", kernels="numpy")
    assert reference.ids.tolist() == [IDS]
    assert verify(model, reference, np.dtype(dtype)).ok
    greedy = model.generate(IDS, 3, do_sample=False)[len(IDS) :]
    assert greedy.tolist() == reference.greedy.tolist()
