"""Figures of the clock and of growth: all return their axes, and the phases stand as measured."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from minillm import GPT2, GPT2Config, plots
from minillm.clock import PHASES, Clock, ClockReport
from minillm.clock.growth import Growth, fit_powers
from minillm.clock.limits import Limits
from minillm.decoding.generate import moments
from minillm.decoding.options import Options

CONFIG = GPT2Config(vocab_size=48, n_positions=64, n_embd=32, n_layer=2, n_head=2)
LIMITS = Limits(
    {}, 2, {2**16: 1e11, 2**28: 2e10}, {"float32": 9e10}, {"float32": 1e11}, 5e9, 1e-6, 1e-5, 1e-7
)


@pytest.fixture(scope="module")
def report() -> ClockReport:
    model, clock = GPT2.random(CONFIG, seed=1), Clock(every_step=True)
    texts = [f" t{m.id}" for m in moments(model, [1, 2, 3], Options(max_new_tokens=12), step=clock)]
    return ClockReport(clock, CONFIG, "float32", LIMITS, texts)


def small_growth() -> Growth:
    n = np.array([8, 16, 32, 64, 128, 256])
    passes, tokens = (
        fit_powers(n, 1e-4 + 1e-6 * n + 1e-8 * n**2.0, (0, 1, 2)),
        fit_powers(n, 1e-4 + 1e-7 * n, (0, 1)),
    )
    return Growth(CONFIG, n, passes(n), tokens(n), passes(n), tokens(n), passes, tokens)


def test_pictures_return_their_axes(report, tmp_path):
    growth = small_growth()
    for draw in (plots.time_line, plots.phases_by_token, plots.against_limits, plots.roofline):
        ax = Figure().add_subplot()
        assert draw(report, ax) is ax and ax.get_xlabel() and ax.get_title()
    assert plots.prompt_growth(growth, ax) is ax
    ax = plots.generation_growth(growth)
    assert ax.get_xlabel() == "generated tokens n" and ax.get_ylabel() == "seconds in all"
    plots.clock_page(report, growth).savefig(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    bars = plots.phases_by_token(report).containers
    assert len(bars) == len(PHASES) and bars[1][0].get_height() == pytest.approx(
        report.cycles[0].sums()["attend"] / 1e6
    )
