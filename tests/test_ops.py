"""The textbook operations against their definitions, in float64 and Python's own mathematics."""

import math

import numpy as np
import pytest

from minillm import ops

rng = np.random.default_rng(0)
X = rng.normal(size=(2, 5, 7))


def test_linear_is_a_product_over_the_last_axis():
    weight, bias = rng.normal(size=(7, 3)), rng.normal(size=3)
    np.testing.assert_allclose(
        ops.linear(X, weight, bias), np.einsum("bti,io->bto", X, weight) + bias, rtol=1e-13
    )
    np.testing.assert_array_equal(ops.linear(X, weight), ops.linear(X, weight, np.zeros(3)))


def test_layer_norm_uses_the_biased_variance_and_epsilon_inside_the_root():
    weight, bias = rng.normal(size=7), rng.normal(size=7)
    for row in X.reshape(-1, 7):
        mean = sum(row) / 7
        variance = sum((x - mean) ** 2 for x in row) / 7
        expected = [
            (x - mean) / math.sqrt(variance + 0.1) * w + b for x, w, b in zip(row, weight, bias)
        ]
        np.testing.assert_allclose(ops.layer_norm(row, weight, bias, eps=0.1), expected, rtol=1e-12)


def test_rms_norm_leaves_the_mean_and_has_epsilon_inside_the_root():
    weight = rng.normal(size=7)
    for row in X.reshape(-1, 7):
        root = math.sqrt(sum(x * x for x in row) / 7 + 0.1)
        expected = [x / root * w for x, w in zip(row, weight)]
        np.testing.assert_allclose(ops.rms_norm(row, weight, eps=0.1), expected, rtol=1e-12)


def test_softmax_rows_sum_to_one_and_do_not_move_with_a_constant():
    probs = ops.softmax(X)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-15)
    # 1e4 costs four of the sixteen digits
    np.testing.assert_allclose(ops.softmax(X + 1e4), probs, rtol=1e-10)
    np.testing.assert_allclose(
        probs[0, 0], [math.exp(x) / sum(map(math.exp, X[0, 0])) for x in X[0, 0]], rtol=1e-14
    )


def test_softmax_gives_masked_entries_nothing():
    np.testing.assert_array_equal(ops.softmax(np.array([-np.inf, 0.0, -np.inf])), [0, 1, 0])


def test_log_softmax_stays_finite_where_softmax_underflows():
    assert ops.log_softmax(np.array([0.0, -2000.0]))[1] == -2000.0
    np.testing.assert_allclose(np.exp(ops.log_softmax(X)), ops.softmax(X), rtol=1e-13)


@pytest.mark.parametrize("x", [-3.0, -0.5, 0.0, 0.7, 4.0])
def test_activations_at_known_points(x):
    tanh_form = 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    erf_form = 0.5 * x * (1 + math.erf(x / math.sqrt(2)))
    at = np.array([x])
    assert ops.gelu_new(at)[0] == pytest.approx(tanh_form, abs=1e-15)
    assert ops.gelu(at)[0] == pytest.approx(erf_form, abs=1e-15)
    assert ops.relu(at)[0] == max(x, 0)
    assert ops.silu(at)[0] == pytest.approx(x / (1 + math.exp(-x)), abs=1e-15)


def test_the_two_gelus_differ_as_much_as_their_docstring_says():
    x = np.linspace(-6, 6, 10001)
    assert 4e-4 < np.abs(ops.gelu_new(x) - ops.gelu(x)).max() < 5e-4


def test_cross_entropy_is_minus_log_of_the_targets_probability():
    targets = rng.integers(0, 7, (2, 5))
    expected = [
        [-math.log(ops.softmax(X)[b, t, targets[b, t]]) for t in range(5)] for b in range(2)
    ]
    np.testing.assert_allclose(ops.cross_entropy(X, targets), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_keep_the_type_of_x(dtype):
    x, weight, bias = X.astype(dtype), np.ones((7, 7), dtype), np.ones(7, dtype)
    for result in (
        ops.linear(x, weight, bias),
        ops.layer_norm(x, bias, bias),
        ops.rms_norm(x, bias),
        ops.softmax(x),
        ops.log_softmax(x),
        ops.silu(x),
        ops.gelu_new(x),
        ops.gelu(x),
        ops.relu(x),
        ops.cross_entropy(x, np.zeros((2, 5), int)),
    ):
        assert result.dtype == dtype
