"""Figures show the numbers that they were given, on the axes that they were given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from minillm import plots


def test_axes_are_made_where_none_are_given():
    from matplotlib import pyplot

    ax = plots.bars([1.0], ["a"])
    assert ax.figure.axes == [ax] and len(ax.patches) == 1
    pyplot.close(ax.figure)


def test_a_heat_map_has_a_number_in_every_cell_that_has_a_value():
    ax = Figure().subplots()
    assert plots.heat_map([[1.0, -np.inf], [np.nan, 2.5]], ["a", "b"], ["c", "d"], ".1f", ax) is ax
    assert {text.xy: text.get_text() for text in ax.texts} == {(0, 0): "1.0", (1, 1): "2.5"}
    assert {patch.get_xy() for patch in ax.patches} == {(0.5, -0.5), (-0.5, 0.5)} and all(
        p.get_hatch() for p in ax.patches
    )
    assert [label.get_text() for label in ax.get_xticklabels()] == ["c", "d"]


def test_likeliest_shows_the_largest_first_in_percent():
    ax = plots.likeliest(
        np.log([0.125, 0.5, 0.25, 0.125]), ["a", "b", "c", "d"], 3, Figure().subplots()
    )
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([50, 25, 12.5])
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "b",
        "c",
        "a",
    ] and "%" in ax.get_xlabel()


def test_bars_stand_in_the_order_given_with_their_numbers():
    ax = plots.bars([2.0, 0.0, 10.0], ["a", "b", "c"], ".1f", Figure().subplots())
    assert [bar.get_width() for bar in ax.patches] == [2, 0, 10] and ax.yaxis_inverted()
    assert [text.get_text() for text in ax.texts] == ["2.0", "0.0", "10.0"]
