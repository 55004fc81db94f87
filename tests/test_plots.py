"""Figures show the numbers that they were given, on the axes that they were given."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from minillm import plots
from minillm.bench import Comparison, Result

COMPARISON = Comparison(
    n_prompt=8,
    n_new=4,
    flop_per_token=10.0,
    results=[
        Result("minillm-x", bytes_per_token=100.0, decode=[1.0, 2.0, 9.0], prefill=[30.0, 30.0, 30.0]),
        Result("engine-y", missing="it is not installed"),
        Result("engine-z", bytes_per_token=50.0, decode=[4.0, 4.0, 4.0], prefill=[10.0, 20.0, 30.0]),
    ],
    bandwidth=[1000.0, 1000.0, 2000.0],
    flops=[500.0, 500.0, 500.0],
)


@pytest.mark.parametrize(
    ("kind", "middles", "limits"), [("decode", [2, 4], [10, 20]), ("prefill", [30, 20], [50, 50])], ids=["decode", "prefill"]
)
def test_rates(kind, middles, limits):
    ax = Figure().subplots()
    assert plots.rates(COMPARISON, kind, ax) is ax
    assert [bar.get_width() for bar in ax.patches] == middles
    assert [label.get_text() for label in ax.get_yticklabels()] == ["minillm-x", "engine-z"]
    assert limits in [list(line.get_xdata()) for line in ax.lines]
    assert ax.get_xlabel() == "tokens/s" and kind in ax.get_title() and ax.get_xlim()[1] > max(limits)
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor() and ax.patches[1].get_hatch()


def test_axes_are_made_where_none_are_given():
    matplotlib.use("Agg")
    from matplotlib import pyplot

    ax = plots.rates(COMPARISON)
    assert ax.figure.axes == [ax] and "decode" in ax.get_title()
    pyplot.close(ax.figure)


def test_a_heat_map_has_a_number_in_every_cell_that_has_a_value():
    ax = Figure().subplots()
    assert plots.heat_map([[1.0, -np.inf], [np.nan, 2.5]], ["a", "b"], ["c", "d"], ".1f", ax) is ax
    assert {text.xy: text.get_text() for text in ax.texts} == {(0, 0): "1.0", (1, 1): "2.5"}
    assert {patch.get_xy() for patch in ax.patches} == {(0.5, -0.5), (-0.5, 0.5)} and all(p.get_hatch() for p in ax.patches)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["c", "d"]


def test_likeliest_shows_the_largest_first_in_percent():
    ax = plots.likeliest(np.log([0.125, 0.5, 0.25, 0.125]), ["a", "b", "c", "d"], 3, Figure().subplots())
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([50, 25, 12.5])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "c", "a"] and "%" in ax.get_xlabel()


def test_bars_stand_in_the_order_given_with_their_numbers():
    ax = plots.bars([2.0, 0.0, 10.0], ["a", "b", "c"], ".1f", Figure().subplots())
    assert [bar.get_width() for bar in ax.patches] == [2, 0, 10] and ax.yaxis_inverted()
    assert [text.get_text() for text in ax.texts] == ["2.0", "0.0", "10.0"]
