"""Optimisers, the schedule of the learning rate, and clipping, against their equations."""

import math

import numpy as np
import pytest

from minillm import InputError
from minillm.training.optimizers import (
    OPTIMIZERS,
    AdamW,
    clip_by_global_norm,
    learning_rate,
    muon_update,
    orthogonal,
)

RNG = np.random.default_rng(0)


def test_sgd_by_hand():
    p, optimizer = {"w": np.ones((1, 1))}, OPTIMIZERS["sgd"](weight_decay=0.1, beta=0.5)
    for _ in range(2):
        optimizer.update(p, {"w": np.full((1, 1), 2.0)}, lr=0.1)
    first = 1 - 0.1 * (2 + 0.1 * 1)
    assert p["w"] == pytest.approx(first - 0.1 * (0.5 * 2 + 2 + 0.1 * first), abs=1e-15)


def test_adamw_first_step_is_lr_whatever_the_gradient():
    p = {"w": np.zeros(3)}
    AdamW(eps=1e-12).update(p, {"w": np.array([1e-3, -5.0, 200.0])}, lr=0.01)
    np.testing.assert_allclose(p["w"], [-0.01, 0.01, -0.01], rtol=1e-8)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_matrices_decay_and_vectors_do_not(name):
    p = {"transformer.h.0.w": np.ones((2, 2)), "h.0.w": np.ones((2, 2)), "b": np.ones(2)}
    optimizer = OPTIMIZERS[name](weight_decay=0.5)
    optimizer.matrices = {"h.0.w": []}
    optimizer.update(p, {n: np.zeros_like(a) for n, a in p.items()}, lr=0.1)
    assert p["b"].tolist() == [1, 1]
    for matrix in (p["transformer.h.0.w"], p["h.0.w"]):
        np.testing.assert_allclose(matrix, 0.95)


@pytest.mark.parametrize("shape", [(8, 8), (3, 9), (20, 4), (1, 5)], ids=str)
def test_orthogonal_brings_singular_values_near_1(shape):
    """Of a matrix whose singular values span a factor of 100; they end between 0.68 and 1.21 in all
    of 200 such."""
    u, _, vt = np.linalg.svd(RNG.standard_normal(shape), full_matrices=False)
    x = orthogonal(u * np.geomspace(1, 0.01, min(shape)) @ vt)
    values = np.linalg.svd(x, compute_uv=False)
    assert x.shape == shape and values.min() > 0.6 and values.max() < 1.25
    assert (
        np.abs(np.linalg.svd(u.T @ x @ vt.T, compute_uv=False) - values).max() < 1e-12
    )  # the directions stay
    assert orthogonal(np.zeros(shape)).any() == False  # noqa: E712


def test_muon_makes_each_part_of_c_attn_orthogonal_by_itself():
    g, p = RNG.standard_normal((4, 12)) * np.repeat([1, 100, 1e-3], 4), np.zeros((4, 12))
    muon_update(p, g, np.zeros_like(g), lr=1.0, cuts=(4, 8))
    for part in np.split(p, 3, axis=1):
        values = np.linalg.svd(part, compute_uv=False) / (0.2 * math.sqrt(4))
        assert values.min() > 0.3 and values.max() < 1.25
    whole = np.zeros((4, 12))
    muon_update(whole, g, np.zeros_like(g), lr=1.0)
    assert not np.allclose(p, whole, atol=0.1)


def test_muon_is_for_matrices_inside_the_blocks_alone():
    optimizer = OPTIMIZERS["muon"]()
    optimizer.matrices = {"h.0.mlp.c_fc.weight": []}
    p = {
        "wte.weight": np.ones((3, 2)),
        "h.0.mlp.c_fc.weight": np.ones((2, 8)),
        "h.0.ln_1.weight": np.ones(2),
    }
    optimizer.update(p, {n: RNG.standard_normal(a.shape) for n, a in p.items()}, lr=0.1)
    assert set(optimizer.state) == {
        "mean.wte.weight",
        "square.wte.weight",
        "momentum.h.0.mlp.c_fc.weight",
        "mean.h.0.ln_1.weight",
        "square.h.0.ln_1.weight",
    }


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rate(schedule):
    rates = [
        learning_rate(s, 110, lr=2.0, warmup=10, schedule=schedule, final=0.1) for s in range(111)
    ]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) * 0.2)
    assert rates[10] == 2.0 and max(rates) == 2.0
    expected = {"cosine": (1.1, 0.2), "linear": (0.2 + 1.8 * 0.75, 0.2), "constant": (2.0, 2.0)}[
        schedule
    ]
    assert (rates[60], rates[110]) == pytest.approx(expected)
    assert (np.diff(rates[10:]) <= 0).all()


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize(("steps", "warmup"), [(10, 3), (10, 0), (3, 10), (5, 5), (1, 0)])
def test_beyond_its_ends_a_schedule_stays_what_it_is_there(schedule, steps, warmup):
    def rate(step):
        return learning_rate(step, steps, lr=1.0, warmup=warmup, schedule=schedule, final=0.1)

    assert {rate(-1), rate(-100)} == {rate(0)} and {rate(steps + 1), rate(9 * steps)} == {
        rate(steps)
    }
    assert all(0 < rate(step) <= 1 for step in range(-5, 40))
    if steps > warmup:
        assert rate(steps) == (1 if schedule == "constant" else pytest.approx(0.1))


def test_learning_rate_at_the_edges():
    assert learning_rate(0, 1, lr=1.0, warmup=0) == 1.0
    assert learning_rate(4, 5, lr=1.0, warmup=100) == 0.05
    with pytest.raises(
        InputError, match="schedule is 'step'; it must be cosine, linear or constant"
    ):
        learning_rate(0, 1, lr=1.0, warmup=0, schedule="step")


def test_clipping_keeps_the_direction_of_all_gradients_together():
    g = {"a": np.array([3.0]), "b": np.array([[0.0, 4.0]])}
    assert clip_by_global_norm(g, 10.0) == 5.0 and g["a"] == 3.0
    assert clip_by_global_norm(g, 1.0) == 5.0
    assert (g["a"][0], g["b"][0, 1]) == pytest.approx((0.6, 0.8))
    assert math.isnan(clip_by_global_norm({"a": np.array([np.nan, 1.0])}, 1.0))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_finds_a_minimum(name):
    p, goal = {"h.0.w": np.zeros((3, 3))}, RNG.standard_normal((3, 3))
    optimizer = OPTIMIZERS[name]()
    optimizer.weight_decay, optimizer.matrices = 0.0, {"h.0.w": []}
    for step in range(200):
        optimizer.update(p, {"h.0.w": p["h.0.w"] - goal}, lr=0.3 * (1 - step / 200))
    assert np.abs(p["h.0.w"] - goal).max() < 0.02
