"""Backward with all intermediates and with those formed again: the same numbers."""

import numpy as np

from minillm.training.language import LanguageModel
from minillm.training.recompute import Recompute
from tests.central import batch_of, small_model


def test_recomputed_equals_kept_bit_for_bit():
    for dtype in (np.float32, np.float64):
        model = small_model(dtype=dtype)
        batch = batch_of(model.config)
        (loss, kept), (again, formed) = (
            LanguageModel(model, r).loss_and_gradients(batch) for r in (False, True)
        )
        assert loss == again
        for name in kept:
            np.testing.assert_array_equal(kept[name], formed[name], name)
            assert kept[name].dtype == dtype


def test_recomputing_keeps_only_what_enters_each_block():
    model = small_model(n_layer=3)
    kept = Recompute()
    ids, _ = batch_of(model.config)
    model.forward(ids, np.broadcast_to(np.arange(5), ids.shape), step=kept)
    assert set(kept) == {
        "wte",
        "wpe",
        "embed",
        "h.0.mlp.residual",
        "h.1.mlp.residual",
        "h.2.mlp.residual",
        "ln_f",
        "logits",
    }
