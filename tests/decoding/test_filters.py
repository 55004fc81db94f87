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
    """In the order in which transformers' generate applies its processors; float64 on both sides."""
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
