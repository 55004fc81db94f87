"""Figures show the numbers that they were given, on the axes that they were given."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import minillm
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


def test_a_picture_is_written_all_or_nothing(tmp_path):
    figure, path = Figure(), tmp_path / "a.PNG"
    path.write_bytes(b"before")

    class Broken:
        def savefig(self, file, **_):
            file.write(b"half")
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        plots.save(Broken(), path)
    assert path.read_bytes() == b"before" and len([*tmp_path.iterdir()]) == 1
    held = path.open("rb")
    plots.save(figure, path)
    assert path.read_bytes().startswith(b"\x89PNG") and len([*tmp_path.iterdir()]) == 1
    assert held.read() == b"before"  # another file was renamed to its place
    held.close()
    plots.save(figure, tmp_path / "a.svg")
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


def test_no_picture_is_written_otherwise():
    """Elsewhere savefig has a buffer: what notebooks and pages show."""
    package = Path(minillm.__file__).parent
    found = [p for p in package.rglob("*.py") if "savefig(" in p.read_text("utf-8")]
    names = sorted(p.relative_to(package).as_posix() for p in found)
    assert names == ["cli/datasheet.py", "page/notebook.py", "plots/basics.py"]
