"""The LSTM's gradients against differences, its two ways against each other, and both against
torch.nn.LSTM."""

from __future__ import annotations

import numpy as np
import pytest

from minillm.errors import InputError
from minillm.steps import Patch, Trace
from minillm.tasks.lstm import LSTM, LSTMConfig, lstm_cell, lstm_cell_backward, sigmoid
from minillm.training.recompute import Activations

CONFIG = LSTMConfig(vocab_size=11, n_embd=5, n_layer=2)
IDS = np.random.default_rng(0).integers(0, 11, (3, 7))


def lstm(dtype=np.float64, config=CONFIG):
    return LSTM.random(config, seed=1, dtype=dtype)


def slope(f, array, index, eps=1e-6):
    """Central difference: (f(x + e) - f(x - e)) / 2e."""
    before = array[index]
    array[index] = before + eps
    above = f()
    array[index] = before - eps
    below = f()
    array[index] = before
    return (above - below) / (2 * eps)


def agree(f, array, gradient, tolerance=1e-7):
    """Every number of a gradient against its difference, relative to the largest. Differences with
    e = 1e-6 are good to about 1e-9 here (cancellation 1e-16 / 1e-6, and e^2); the worst seen was
    1.4e-9."""
    expected = np.array([slope(f, array, index) for index in np.ndindex(array.shape)]).reshape(
        array.shape
    )
    assert np.abs(gradient - expected).max() <= tolerance * np.abs(expected).max()


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]


def test_cell_backward():
    rng = np.random.default_rng(2)
    x, h, c, weight = (rng.standard_normal(shape) for shape in ((3, 20), (3, 5), (3, 5), (5, 20)))
    dh, dc = rng.standard_normal((2, 3, 5))

    def loss():
        after = lstm_cell(x, h, c, weight)
        return float((after[0] * dh).sum() + (after[1] * dc).sum())

    kept = Trace()
    lstm_cell(x, h, c, weight, kept)
    for array, gradient in zip((x, h, c), lstm_cell_backward(dh, dc, c, kept, weight)):
        agree(loss, array, gradient)


def test_every_gradient_of_two_layers():
    model, d = lstm(), np.random.default_rng(3).standard_normal((3, 7, 5))
    d[0, 4:] = 0  # a row of four real ids and three of padding
    kept = Trace()
    model.hidden(IDS, kept)
    gradients = model.backward(IDS, kept, d)
    assert gradients.keys() == model.parameters.keys()
    for name, parameter in model.parameters.items():
        agree(lambda: float((model.hidden(IDS) * d).sum()), parameter, gradients[name])


def test_padding_changes_nothing_before_it():
    model = lstm()
    longer = np.concatenate([IDS, IDS[:, ::-1]], axis=1)
    assert np.array_equal(model.hidden(longer)[:, :7], model.hidden(IDS))


def test_a_patch_reaches_later_steps_only():
    model = lstm()
    # forget everything at step 3
    changed = model.hidden(IDS, Patch({"l.0.3.f": lambda f: np.zeros_like(f)}))
    plain = model.hidden(IDS)
    assert (
        np.array_equal(changed[:, :3], plain[:, :3]) and np.abs(changed - plain)[:, 3:].min() > 1e-6
    )


@pytest.mark.parametrize(("B", "T", "C", "L"), [(1, 1, 3, 1), (3, 7, 5, 2), (17, 9, 48, 1)])
def test_kernels_agree(B, T, C, L):
    pytest.importorskip("numba")
    from minillm.kernels.blocked import Training

    book = lstm(np.float32, LSTMConfig(11, C, L))
    fast = LSTM(book.config, book.parameters, Training())
    rng = np.random.default_rng(4)
    ids, d = rng.integers(0, 11, (B, T)), rng.standard_normal((B, T, C)).astype(np.float32)
    kept, kept_fast = Activations(), Activations()
    h, h_fast = book.hidden(ids, kept), fast.hidden(ids, kept_fast)
    assert "l.0.gates" in kept_fast and h_fast.dtype == np.float32
    # sums of up to 48 numbers in another order, and 1/(1 + exp) for tanh: worst seen 3e-7,
    # gradients 8e-7 of the largest
    assert np.abs(h - h_fast).max() < 5e-6
    gradients, fast_ones = book.backward(ids, kept, d), fast.backward(ids, kept_fast, d)
    for name, gradient in gradients.items():
        assert np.abs(gradient - fast_ones[name]).max() <= 1e-5 * max(
            np.abs(gradient).max(), 1e-3
        ), name
    # whoever looks gets the readable one
    assert np.allclose(fast.hidden(ids, Trace()), h, atol=5e-6)


def test_float32_stays_float32():
    model, kept = lstm(np.float32), Trace()
    model.hidden(IDS, kept)
    gradients = model.backward(IDS, kept, np.ones((3, 7, 5), np.float32))
    assert {a.dtype for a in (*kept.values(), *gradients.values())} == {np.dtype(np.float32)}


def test_a_missing_parameter_is_named():
    parameters = {name: p for name, p in lstm().parameters.items() if name != "l.1.hh.weight"}
    with pytest.raises(InputError, match=r"l\.1\.hh\.weight is missing"):
        LSTM(CONFIG, parameters)


@pytest.mark.live
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_against_torch(dtype, tolerance):
    """Hidden states and every gradient, with rows of different lengths; rounding only: worst seen
    2e-15 and 5e-7."""
    torch = pytest.importorskip("torch")
    model, lengths = lstm(dtype), [4, 7, 1]
    theirs = torch.nn.LSTM(5, 5, 2, batch_first=True).to(getattr(torch, np.dtype(dtype).name))
    p = model.parameters
    with torch.no_grad():
        for i in range(2):
            for mine, name in (
                ("ih.weight", "weight_ih"),
                ("hh.weight", "weight_hh"),
                ("ih.bias", "bias_ih"),
            ):
                getattr(theirs, f"{name}_l{i}").copy_(torch.tensor(p[f"l.{i}.{mine}"].T))
            getattr(theirs, f"bias_hh_l{i}").zero_()
    table = torch.tensor(p["wte.weight"], requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        table[torch.tensor(IDS)], lengths, True, enforce_sorted=False
    )
    _, (last, _) = theirs(packed)
    kept = Trace()
    hidden = model.hidden(IDS, kept)
    rows = np.arange(3), np.array(lengths) - 1
    assert np.abs(hidden[rows] - last[-1].detach().numpy()).max() < tolerance
    d_last = np.random.default_rng(5).standard_normal((3, 5)).astype(dtype)
    (last[-1] * torch.tensor(d_last)).sum().backward()
    d = np.zeros_like(hidden)
    d[rows] = d_last
    gradients = model.backward(IDS, kept, d)
    assert np.abs(gradients["wte.weight"] - table.grad.numpy()).max() < tolerance
    for i in range(2):
        for mine, name in (
            ("ih.weight", "weight_ih"),
            ("hh.weight", "weight_hh"),
            ("ih.bias", "bias_ih"),
        ):
            difference = gradients[f"l.{i}.{mine}"].T - getattr(theirs, f"{name}_l{i}").grad.numpy()
            assert np.abs(difference).max() < tolerance, (i, mine)
