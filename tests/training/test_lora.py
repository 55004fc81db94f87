"""Adapters: their gradients, that they begin as nothing, and that merged, apart, saved and loaded
they are one model."""

import numpy as np
import pytest

from minillm import InputError, kernels
from minillm.training.language import LanguageModel
from minillm.training.lora import load_adapters, merged, save_adapters, with_adapters
from minillm.weights.lora import LoRA
from tests.central import batch_of, central_differences, relative, small_model

ALL = "c_attn,c_proj,c_fc"


def trained(dtype=np.float64, matrices=ALL, ops=None):
    """A model whose adapters have learnt something."""
    model = with_adapters(
        small_model(dtype=dtype, ops=ops), 2, alpha=3.0, matrices=matrices, seed=4
    )
    rng = np.random.default_rng(5)
    return model.with_parameters(
        {
            name: LoRA(
                w.weight, w.lora_a, rng.standard_normal(w.lora_b.shape).astype(dtype), w.scale
            )
            for name, w in model.parameters.items()
            if isinstance(w, LoRA)
        }
    )


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_gradients_by_central_differences(recompute):
    """All numbers of all adapters; worst seen 1.7e-8, as adapters so large curve the loss much."""
    model = trained()
    objective, batch = LanguageModel(model, recompute), batch_of(model.config, padding=(2,))
    n = (batch[1] != -100).sum()
    _, gradients = objective.loss_and_gradients(batch)
    assert list(gradients) == list(objective.parameters) and len(gradients) == 2 * 2 * 4
    for name, parameter in objective.parameters.items():
        expected = central_differences(lambda: objective.losses(batch).sum() / n, parameter)
        assert relative(gradients[name], expected) < 1e-7, name


@pytest.mark.skipif(not kernels.available(), reason="Numba is not installed")
def test_the_trainings_twin_has_the_same_gradients():
    """float32, sums in another order; worst seen 4e-7."""
    from minillm.kernels.blocked import Training

    batch = batch_of(small_model().config)
    textbook, fast = (LanguageModel(trained(np.float32, ops=ops)) for ops in (None, Training()))
    (loss, expected), (ours, found) = (
        objective.loss_and_gradients(batch) for objective in (textbook, fast)
    )
    assert ours == pytest.approx(loss, rel=1e-6)
    for name in expected:
        assert relative(found[name], expected[name]) < 1e-5, name


def test_fresh_adapters_change_nothing():
    model = small_model()
    ids, _ = batch_of(model.config)
    np.testing.assert_array_equal(with_adapters(model, 2, matrices=ALL)(ids), model(ids))


def test_merged_equals_apart():
    """Worst seen 6e-15 in float64, of logits up to 5."""
    model = trained()
    ids, _ = batch_of(model.config)
    one = merged(model)
    assert all(type(p) is np.ndarray for p in one.parameters.values())
    np.testing.assert_allclose(one(ids), model(ids), atol=1e-13)
    assert np.abs(model(ids) - small_model()(ids)).max() > 0.1


def test_saved_and_loaded(tmp_path):
    model = trained(np.float32)
    ids, _ = batch_of(model.config)
    save_adapters(model, tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {"adapter.safetensors", "adapter.json"}
    np.testing.assert_array_equal(
        load_adapters(small_model(dtype=np.float32), tmp_path)(ids), model(ids)
    )
    with pytest.raises(
        InputError,
        match=r"the adapter of h.0.attn.c_attn.weight is for \(4, 12\); the model's is \(8, 24\)",
    ):
        load_adapters(small_model(n_embd=8), tmp_path)
    with pytest.raises(
        InputError,
        match=r"the adapter of h.1.attn.c_attn.weight is for \(4, 12\); the model's is missing",
    ):
        load_adapters(small_model(n_layer=1), tmp_path)
    with pytest.raises(InputError, match=r"adapter.json: there is no such file"):
        load_adapters(model, tmp_path / "none")


@pytest.mark.parametrize(
    ("matrices", "places"),
    [
        ("c_attn", {"attn.c_attn"}),
        ("c_proj", {"attn.c_proj", "mlp.c_proj"}),
        ("mlp.c_proj, c_fc", {"mlp.c_proj", "mlp.c_fc"}),
    ],
)
def test_matrices_are_chosen_by_name(matrices, places):
    model = with_adapters(small_model(), 1, matrices=matrices)
    found = {name for name, weight in model.parameters.items() if isinstance(weight, LoRA)}
    assert found == {f"h.{i}.{place}.weight" for i in (0, 1) for place in places}
    assert all(model.parameters[name].scale == 16 for name in found)


def test_what_cannot_be():
    with pytest.raises(
        InputError,
        match=r"lora_matrices has 'wte'; known: attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj",
    ):
        with_adapters(small_model(), 1, matrices="c_attn,wte")
    with pytest.raises(InputError, match="lora_rank is 5; above the width 4"):
        with_adapters(small_model(), 5)
