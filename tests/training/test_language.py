"""The loss of a language model and its gradients on every twin, and bits per byte."""

import math

import numpy as np
import pytest

from minillm import kernels
from minillm.training.data import Tokens
from minillm.training.language import IGNORED, LanguageModel, bits_per_byte
from minillm.training.memory import check_memory, step_bytes
from tests.central import batch_of, relative, small_model


def test_the_loss_is_the_mean_over_targets_that_count():
    model = small_model()
    ids, targets = batch_of(model.config, padding=(2, 5))
    z = model(ids)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    expected = -np.mean([log_p[b, t, targets[b, t]] for b, t in np.argwhere(targets != IGNORED)])
    loss, _ = LanguageModel(model).loss_and_gradients((ids, targets))
    assert loss == pytest.approx(expected, abs=1e-14)


def test_ids_behind_padding_do_not_matter():
    model = small_model()
    ids, targets = batch_of(model.config, padding=(2,))
    _, gradients = LanguageModel(model).loss_and_gradients((ids, targets))
    other = ids.copy()
    other[0, 3:] = (other[0, 3:] + 1) % model.config.vocab_size
    _, same = LanguageModel(model).loss_and_gradients((other, targets))
    for name in gradients:
        np.testing.assert_allclose(gradients[name], same[name], atol=1e-16)


@pytest.mark.skipif(not kernels.available(), reason="Numba is not installed")
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"),
    # float32: worst seen 9e-7, float64 1e-14. bfloat16 keeps 8 bits of each factor: worst seen
    # 1.3e-2.
    [("float32", np.float32, 1e-5), ("float32", np.float64, 1e-12), ("bfloat16", np.float32, 5e-2)],
)
def test_the_twin_for_training(precision, dtype, tolerance, recompute):
    """Gradients of the whole model, of odd sizes, with padding, kernels against the textbook."""
    from minillm.kernels.blocked import Training

    shape = {"n_embd": 42, "n_head": 6, "vocab_size": 101, "n_positions": 70}
    models = [small_model(dtype=dtype, ops=ops, **shape) for ops in (None, Training(precision))]
    models = [
        m.with_parameters({n: p * dtype(0.2) for n, p in m.parameters.items()}) for m in models
    ]
    batch = batch_of(models[0].config, T=67, padding=(5, 67))
    (loss, expected), (ours, found) = (
        LanguageModel(m, recompute).loss_and_gradients(batch) for m in models
    )
    assert ours == pytest.approx(loss, rel=tolerance)
    for name, gradient in expected.items():
        assert found[name].dtype == dtype
        assert relative(found[name], gradient) < tolerance, name


def test_training_refuses_unknown_precisions():
    pytest.importorskip("numba")
    from minillm.kernels.blocked import Training

    with pytest.raises(ValueError, match="precision is 'float16'; it must be one of"):
        Training("float16")


def test_bits_per_byte(tmp_path):
    model = small_model()
    ids = np.random.default_rng(1).integers(0, 7, 23)
    np.save(tmp_path / "ids.npy", ids.astype(np.uint16))
    tokens = Tokens(tmp_path / "ids.npy", n_bytes=40, vocab_size=7)
    objective = LanguageModel(model)
    loss, bits = bits_per_byte(objective, tokens, 5, rows=3)
    each = [
        objective.losses((ids[None, i : i + 5], ids[None, i + 1 : i + 6])) for i in (0, 5, 10, 15)
    ]
    assert loss == pytest.approx(np.mean(each)) and bits == pytest.approx(
        loss / math.log(2) * 23 / 40
    )
    part, _ = bits_per_byte(objective, tokens, 5, limit=10)
    assert part == pytest.approx(np.mean([each[0], each[3]]))  # spread over the text


def test_memory_that_a_step_takes(monkeypatch):
    """Kept grows with the layers, recomputed hardly; and what does not fit is told before it is
    tried."""
    from minillm import GPT2Config, InputError
    from minillm.machine import quota

    small, large = GPT2Config(n_layer=4), GPT2Config(n_layer=8)
    kept, recomputed = (
        [step_bytes(c, 64, 512, again) for c in (small, large)] for again in (False, True)
    )
    assert recomputed[1] < kept[0] < kept[1] and kept[1] - kept[0] > 5 * (
        recomputed[1] - recomputed[0]
    )
    monkeypatch.setattr(quota, "free_bytes", lambda: 8 * 10**9)
    check_memory(GPT2Config(), 1, 64)
    with pytest.raises(
        InputError, match=r"64 windows of 1024 would take about .* GB, and 8.0 GB are free: .*--rec"
    ):
        check_memory(GPT2Config(), 64, 1024)
    monkeypatch.setattr(quota, "free_bytes", lambda: None)
    monkeypatch.setattr(quota, "memory", lambda: None)
    check_memory(GPT2Config(), 64, 1024)
