"""Filters and the draw, by hand; the same distributions as transformers in the live tier."""

import math

import numpy as np
import pytest

from minillm.decoding import Options, filters
from minillm.ops import softmax

LOGITS = np.log(np.array([0.4, 0.3, 0.15, 0.1, 0.05]))


def kept(logits):
    return np.flatnonzero(np.isfinite(logits)).tolist()


@pytest.mark.parametrize(
    ("k", "expected"), [(1, [0]), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 4]), (99, [0, 1, 2, 3, 4])]
)
def test_top_k(k, expected):
    assert kept(filters.top_k(LOGITS, k)) == expected


def test_top_k_keeps_ties():
    assert kept(filters.top_k(np.array([1.0, 2.0, 1.0, 0.0]), 2)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.01, [0]), (0.39, [0]), (0.41, [0, 1]), (0.8, [0, 1, 2]), (0.96, [0, 1, 2, 3, 4])],
)
def test_top_p_keeps_the_fewest_that_reach_p(p, expected):
    assert kept(filters.top_p(LOGITS, p)) == expected


def test_top_p_keeps_one_of_a_flat_distribution():
    assert len(kept(filters.top_p(np.zeros(50), 1e-6))) == 1


@pytest.mark.parametrize(
    ("p", "expected"), [(0, [0, 1, 2, 3, 4]), (0.3, [0, 1, 2]), (0.74, [0, 1]), (1, [0])]
)
def test_min_p(p, expected):
    assert kept(filters.min_p(LOGITS, p)) == expected


def test_repetition_penalty_always_lowers():
    logits = np.array([2.0, -2.0, 1.0])
    np.testing.assert_array_equal(
        filters.repetition_penalty(logits, [0, 1, 1], 2.0), [1.0, -4.0, 1.0]
    )
    assert logits.tolist() == [2.0, -2.0, 1.0]  # the input is left alone


def test_temperature_sharpens():
    np.testing.assert_allclose(
        softmax(filters.temperature(LOGITS, 0.5)),
        softmax(LOGITS) ** 2 / (softmax(LOGITS) ** 2).sum(),
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_limits_of_temperature_are_greedy_and_uniform(dtype):
    logits = np.array([-300.0, 80.0, 80.5, -np.inf, 1e-3], dtype)
    for t in (1e-3, 1e-30, 1e-37, 1e-38, 1e-45, 5e-324):
        probs = Options(temperature=t, top_p=0.9, min_p=0.1).distribution(logits, [0])
        assert probs.tolist() == [0, 0, 1, 0, 0] and probs.dtype == dtype
    for t in (1e10, 1e38, 1e300, 10**400):
        probs = Options(temperature=t).distribution(logits, [0])
        np.testing.assert_allclose(probs, [0.25, 0.25, 0.25, 0, 0.25], rtol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_limits_of_a_penalty_are_a_token_that_was_there_and_one_that_was_not(dtype):
    for sign in (1, -1):
        logits = sign * np.array([30.0, 20.0, 10.0, 40.0, 50.0], dtype)
        for r in (1e-20, 1e-38, 1e-45, 5e-324):
            probs = Options(repetition_penalty=r).distribution(logits, [1, 2, 1])
            assert probs.argmax() in (1, 2) and np.isfinite(probs).all(), (sign, r)
            assert sign < 0 or probs.argmax() == 1
        for r in (1e20, 1e38, 1e300, 10**400):
            probs = Options(repetition_penalty=r).distribution(logits, [3, 4, 0])
            assert probs.argmax() == (1 if sign > 0 else 2) and np.isfinite(probs).all(), (sign, r)
        everything = Options(repetition_penalty=1e300).distribution(logits, range(5))
        assert np.isfinite(everything).all()
    forbidden = np.array([1.0, -np.inf], dtype)
    assert Options(repetition_penalty=1e-300).distribution(forbidden, [1]).tolist() == [1, 0]


def test_sane_temperatures_and_penalties_are_what_they_were():
    logits = np.random.default_rng(0).normal(size=500).astype(np.float32) * 9
    np.testing.assert_array_equal(filters.temperature(logits, 1.0), logits / 1.0)
    np.testing.assert_array_equal(  # a power of two rounds nothing
        softmax(filters.temperature(logits, 0.5)), softmax(logits / np.float32(0.5))
    )
    seen = [1, 2, 3]
    np.testing.assert_array_equal(
        filters.repetition_penalty(logits, seen, 1.3)[seen],
        [x / np.float32(1.3) if x > 0 else x * np.float32(1.3) for x in logits[seen]],
    )


@pytest.mark.parametrize(
    ("u", "expected"),
    [
        (0.0, 0),
        (0.399, 0),
        (0.4001, 1),
        (0.699, 1),
        (0.7001, 2),
        (0.949, 3),
        (0.9501, 4),
        (1 - 1e-16, 4),
    ],
)
def test_choose_finds_where_the_running_sum_passes_u(u, expected):
    assert filters.choose(softmax(LOGITS), u) == expected


def test_choose_never_takes_what_was_filtered_out():
    probs = np.array([0, 0.5, 0, 0.5, 0], dtype=np.float32)
    assert {filters.choose(probs, u) for u in np.linspace(0, np.nextafter(1, 0), 101)} == {1, 3}


def test_choose_draws_each_token_as_often_as_its_probability_says():
    """20,000 even draws: a token's count is off by at most one."""
    n = 20_000
    counts = np.bincount(
        [filters.choose(softmax(LOGITS), (i + 0.5) / n) for i in range(n)], minlength=5
    )
    np.testing.assert_allclose(counts, softmax(LOGITS) * n, atol=1)


def test_filters_keep_float32():
    logits = LOGITS.astype(np.float32)
    options = Options(temperature=0.7, top_k=4, top_p=0.9, min_p=0.05, repetition_penalty=1.2)
    assert options.distribution(logits, [1]).dtype == np.float32


@pytest.mark.live
@pytest.mark.parametrize("seed", range(40))
def test_distributions_equal_transformers(seed):
    """In the order in which transformers' generate applies its processors; float64 on both."""
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers").generation.logits_process
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=500) * rng.uniform(0.5, 6)
    ids = rng.integers(0, 500, 30)
    options = Options(
        temperature=rng.uniform(0.1, 2),
        top_k=int(rng.integers(1, 300)),
        top_p=rng.uniform(0.05, 1),
        min_p=rng.uniform(0, 0.3),
        repetition_penalty=rng.uniform(0.8, 1.5),
    )
    scores = torch.tensor(logits)[None]
    for processor in (
        processors.RepetitionPenaltyLogitsProcessor(options.repetition_penalty),
        processors.TemperatureLogitsWarper(options.temperature),
        processors.TopKLogitsWarper(options.top_k),
        processors.TopPLogitsWarper(options.top_p),
        processors.MinPLogitsWarper(options.min_p),
    ):
        scores = processor(torch.tensor(ids)[None], scores)
    theirs = torch.softmax(scores, -1)[0].numpy()
    ours = options.distribution(logits, ids)
    assert (ours > 0).tolist() == (theirs > 0).tolist()
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert math.isclose(ours.sum(), 1, rel_tol=1e-12)
