"""Figures of a model's inside show the numbers that they were given."""

import numpy as np
from matplotlib.figure import Figure

from minillm import plots
from minillm.differences import Difference
from minillm.families.gpt2 import step_names


def texts_of(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_residual_norms():
    part = np.array([[[3.0, 4.0], [6.0, 8.0], [3.0, 4.0]]])  # [1,T,C] of lengths 5, 10, 5
    names = ["attn.out", "attn.residual", "mlp.out", "mlp.residual"]
    trace = {"embed": part, **{f"h.0.{name}": (n + 2) * part for n, name in enumerate(names)}}
    ax = plots.residual_norms(trace, Figure().subplots())
    # what was added: the medians of 2 and 4 times 5, 10, 5
    assert [bar.get_height() for bar in ax.patches] == [
        10,
        20,
    ]
    assert list(ax.lines[0].get_ydata()) == [5, 15, 25]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["embed", "0 attn", "0 mlp"]
    assert (
        ax.get_ylabel()
        and ax.get_xlabel()
        and ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()
    )


def test_errors_by_step():
    names = step_names(1)
    units = {"float32": 1e-7, "float64": 1e-16}
    reports = {
        t: [Difference(n, "OK", relative=unit * i) for i, n in enumerate(names)]
        for t, unit in units.items()
    }
    ax = plots.errors_by_step(reports, {"float32": 2e-5, "float64": 1e-10}, Figure().subplots())
    measured = {
        line.get_label(): list(line.get_ydata())
        for line in ax.lines
        if "measured" in line.get_label()
    }
    assert measured["float32, measured"][1:] == [d.relative for d in reports["float32"][1:]]
    assert measured["float64, measured"][0] == ax.get_ylim()[0]  # none: on the lower edge
    assert ax.get_yscale() == "log" and {
        "allowed in float32",
        "allowed in float64",
        "no difference",
    } <= {*texts_of(ax)}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["layer 0"]


def test_cached_scores():
    ax = plots.cached_scores([2, 1], ["a", "b", "c"], Figure().subplots())
    # the cycle of each score; a dot where masked
    assert texts_of(ax) == [
        "0",
        "·",
        "·",
        "0",
        "0",
        "·",
        "1",
        "1",
        "1",
    ]
    # from the cache
    assert [bool(cell.get_hatch()) for cell in ax.patches] == [
        False,
        False,
        False,
        True,
        True,
        False,
    ]


def test_prefix_tree():
    probabilities = {
        (0, 0): 0.7,
        (0, 1): 0.3,
        (0, 1, 0): 0.2,
        (0, 1, 1): 0.8,
        (0, 0, 0): 0.6,
        (0, 0, 1): 0.4,
    }
    paths = {"best": (0, 0, 0), "other": (0, 1, 1)}
    ax = plots.prefix_tree(
        probabilities, "ab", {(0,): 0.42, (0, 0, 0): 0.421}, paths, Figure().subplots()
    )
    assert {"0.70", "0.30", "0.20", "0.80", "0.60", "0.40", "0.420", "0.421"} <= {*texts_of(ax)}
    drawn = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(drawn["best"].get_xdata()) == [1, 2, 3] and list(drawn["best"].get_ydata()) == [
        1.5,
        0.5,
        0,
    ]
    assert drawn["best"].get_linestyle() != drawn["other"].get_linestyle()
    assert texts_of(ax).count("a") == 4 and texts_of(ax).count("b") == 3
