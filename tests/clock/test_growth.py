"""Growth: fits that recover what the data were made of, sums against the closed form, and a small
measurement."""

import numpy as np
import pytest

from minillm import GPT2Config, InputError
from minillm.clock.growth import NARROW, Growth, cumulative, fit_powers, measure_growth
from minillm.clock.limits import Limits

LIMITS = Limits(
    {}, 1, {2**16: 1e11, 2**28: 2e10}, {"float32": 9e10}, {"float32": 1e11}, 5e9, 1e-6, 0.0, 0.0
)
N = np.array([8, 16, 32, 64, 128, 256, 512])


def test_a_fit_recovers_its_coefficients():
    found = fit_powers(N, 3e-4 + 2e-6 * N + 5e-9 * N**2.0, (0, 1, 2))
    np.testing.assert_allclose(found.coefficients, [3e-4, 2e-6, 5e-9], rtol=1e-9)
    assert found.r2 == pytest.approx(1) and found.bend(1, 2)[0] == pytest.approx(400)


def test_the_intervals_of_noisy_fits_hold_the_truth_about_as_often_as_they_say():
    rng, truth, held = np.random.default_rng(0), (3e-4, 2e-6, 5e-9), 0
    n = np.linspace(8, 640, 24)
    for _ in range(200):
        seconds = sum(c * n**p for p, c in enumerate(truth)) * (
            1 + 0.02 * rng.standard_normal(len(n))
        )
        value, width = fit_powers(n, seconds, (0, 1, 2)).term(2)
        held += abs(value - truth[2]) <= width
    # 95 % of 200 is 190; 2 standard errors of 24 points hold a little less
    assert 180 <= held <= 197


def test_a_term_too_many_is_not_significant():
    seconds = (1e-4 + 1e-6 * N) * (1 + 0.01 * np.random.default_rng(1).standard_normal(len(N)))
    value, width = fit_powers(N, seconds, (0, 1, 2)).term(2)
    assert abs(value) < 2 * width
    below = fit_powers(N, 1e-3 - 1e-7 * N, (0, 1))
    assert np.isnan(below.bend(0, 1)[0])  # a term below 0 meets nothing


def test_passes_summed_are_the_closed_form():
    C, n = 32, np.arange(1, 2001)
    work = cumulative(n, 12.0 * n * C**2 + 2.0 * n**2 * C)  # one layer, multiply-adds
    assert work[-1] == pytest.approx(6 * 2000**2 * C**2 + 2 / 3 * 2000**3 * C, rel=1e-3)
    bend = 9 * C  # both terms equal
    assert 6 * bend**2 * C**2 == pytest.approx(2 / 3 * bend**3 * C)


def test_the_bend_of_generating_is_one_and_a_half_that_of_a_pass():
    C = 32
    passes = fit_powers(N, 1e-5 + 1e-11 * (12.0 * N * C**2 + 2.0 * N**2 * C), (0, 1, 2))
    growth = Growth(GPT2Config(n_embd=C, n_head=1), N, passes(N), passes(N), N, N, passes, passes)
    assert growth.pass_fit.bend(1, 2)[0] == pytest.approx(6 * C) and growth.generation_bend[
        0
    ] == pytest.approx(9 * C)
    assert growth.bends == {"pass": 192, "generate": 288}


def test_times_too_noisy_to_fit_are_said_to_be():
    """As on a busy machine: the second term is lost; no rate, no meeting point is made of it."""
    noise = 1 + 0.8 * np.random.default_rng(3).random(len(N))
    noisy = fit_powers(N, (1e-4 + 1e-6 * N) * noise, (0, 1, 2))
    growth = Growth(NARROW, N, noisy(N), noisy(N), N, N, noisy, noisy)
    (said,) = growth.summary()
    assert f"too noisy to fit: the times scatter by {100 * noisy.scatter:.0f} %" in said
    assert 0.1 < noisy.scatter < 0.4 and np.isnan(noisy.bend(1, 2)).all()
    assert growth.to_dict()["bend"]["measured"] is None  # NaN is not JSON


@pytest.mark.parametrize(
    ("n", "seconds", "message"),
    [
        ([1, 2], [1, 2], "2 lengths and 2 times cannot fit 2 terms"),
        ([1, 2, 3], [1, 2], "3 lengths and 2"),
        ([1, 2, 3], [1, 0, 2], "0.0 s"),
    ],
)
def test_what_cannot_be_fitted_is_said(n, seconds, message):
    with pytest.raises(InputError, match=message):
        fit_powers(n, seconds, (0, 1))


def test_a_small_measurement():
    config = GPT2Config(vocab_size=16, n_positions=64, n_embd=8, n_layer=1, n_head=1)
    seen = []
    growth = measure_growth(
        config,
        lengths=(1, 2, 8, 16, 32, 64, 128),
        rounds=2,
        limits=LIMITS,
        update=lambda *w: seen.append(w),
    )
    # 128 do not fit
    assert growth.lengths.tolist() == [1, 2, 8, 16, 32, 64] and seen[-1] == (
        "measuring growth",
        2,
        2,
    )
    assert (
        (growth.passes > 0).all()
        and (growth.tokens > 0).all()
        and (growth.predicted_passes > 0).all()
    )
    assert growth.without_cache[-1] > growth.without_cache[0] and "C = 8" in " ".join(
        growth.summary()
    )
    assert growth.to_dict()["lengths"] == [1, 2, 8, 16, 32, 64]
