"""A class's files: what they hold, and what they may not."""

import getpass
import json
import os
import platform
import re

import pytest
from matplotlib.figure import Figure

from minillm import GPT2Config, InputError, plots
from minillm.bench import lab
from minillm.bench.datasheet import Datasheet, by_limits, nodes
from minillm.bench.predictions import Point
from minillm.clock import Limits
from minillm.clock.machines import Machine

RATES = {"float32": 1e11, "int8": 2e11}
LIMITS = Limits({"cores": 2}, 2, {2**26: 2e10}, RATES, RATES, 1e12, 0.0, 0.0, 0.0)
CONFIG = GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=3, n_head=2)


def entry(model: str = "tales", slower: float = 2.0) -> dict:
    """What a laptop's file says."""
    machine = Machine("A processor", "measured here", True, None, (LIMITS,))
    sheet = Datasheet(model, CONFIG, machine, kinds=["float32", "int8"])
    for what in ("token", "first"):
        point = Point(model, "minillm", "int8", 32, what, nodes(CONFIG))
        point.predicted = [by_limits(CONFIG, LIMITS, "int8", what, 32)] * 3
        point.seconds = [slower * point.predicted[0].seconds * n for n in (1, 1, 9)]
        sheet.measured = [*sheet.measured, point]
    return json.loads(json.dumps(lab.to_dict(sheet, busy=0.13)))


@pytest.fixture
def files(tmp_path):
    def write(*entries):
        paths = [tmp_path / f"{n}.json" for n in range(len(entries))]
        for path, values in zip(paths, entries):
            path.write_text(json.dumps(values))
        return paths

    return write


def test_files_of_a_class_are_one_table(files):
    old = entry(slower=1.0)
    del old["busy"]  # as files were at first
    labs = lab.read_all(files(entry(), old))
    assert [one.label for one in labs] == ["1: A processor (0.json)", "2: A processor (1.json)"]
    machines, rows = lab.machines(labs), lab.table(labs)
    assert [row[1:] for row in machines] == [("13 %", "20.0", "100"), ("-", "20.0", "100")]
    assert len(rows) == 4 and all(len(row) == len(lab.HEADINGS) for row in rows)
    assert rows[0][:5] == ("1", "minillm", "int8", "token", "32") and rows[2][0] == "2"
    assert [row["busy"] for row in lab.values(labs)] == [0.13, 0.13, None, None]
    assert [row[-1] for row in rows] == ["-50 %", "-50 %", "+0 %", "+0 %"]
    assert [row["error"] for row in lab.values(labs)] == pytest.approx([-0.5, -0.5, 0, 0])


def test_no_user_no_host_and_no_path_is_in_it():
    text = json.dumps(entry())
    for private in (getpass.getuser(), platform.node(), os.getcwd(), os.path.expanduser("~")):
        assert private not in text
    assert "/" not in text.replace("GB/s", "").replace("tokens/s", "").replace("MB/s", "")


def leaves(value, *keys):
    """Every value that is no table and no list, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, *keys, key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, *keys)
    else:
        yield keys, value


def test_all_that_is_in_it_is_shown():
    """Whatever is put into it later, too, wherever that is."""
    values = entry()
    values["machine"]["limits"][0]["machine"]["owner"] = "Anna, (of room 7)  and\nothers"
    values["datasheet"]["batch"][3]["note"] = "/home/anna"
    values["datasheet"]["levers"][0]["what"] = "a secret" * 30
    values["rows"][1]["seconds"][2] = 123456.0
    values["more"] = [{"a": {"deep": [[1, 2.5], []]}}, 7, {"b": None}]
    values["same"], values["empty"] = [{"x": "twice"}] * 2, {}
    lines = lab.shown(values)
    text = re.sub(r"\s", "", "".join(lines))
    for keys, value in leaves(values):
        words = f"{value:.3g}" if isinstance(value, float) else str(value)
        words = json.dumps(words)[1:-1] if "\n" in words else words
        for part in (*keys, words):
            assert re.sub(r"\s", "", part) in text, (keys, value)
    assert "\n" not in "".join(lines) and "empty none" in lines[0]
    assert [line.strip() for line in lines].count("twice  twice") == 1


def test_it_is_shown_in_few_lines_that_can_be_read():
    lines = lab.shown(entry())
    assert len(lines) < 60 and max(map(len, lines)) <= 110
    start = lines.index("rows: engine minillm, kind int8, context 32")
    assert lines[start + 1].split() == ["what", "flops", "bytes", "predicted", "seconds"]
    assert [line.split()[0] for line in lines[start + 2 :]] == ["token", "first"]


def test_a_mark_of_the_class_says_its_machine_and_how_matrices_are_stored(files):
    one, other = entry(), entry()
    one["rows"] += [row | {"kind": "float32"} for row in one["rows"]]
    ax = plots.class_roofline(lab.read_all(files(one, other)), Figure().subplots())
    marks = [line for line in ax.lines if len(line.get_xdata()) == 1]
    seen = [(mark.get_marker(), mark.get_markerfacecolor()) for mark in marks]
    assert seen == [("o", "white"), ("o", "black"), ("s", "white")]
    first, second = (child for child in ax.get_children() if hasattr(child, "legend_handles"))
    legends = {legend.get_title().get_text(): legend for legend in (first, second)}
    machines, stored = legends["mark: machine"], legends["fill: matrices in; line: roof"]
    assert [mark.get_marker() for mark in machines.legend_handles] == ["o", "s"]
    roof = "from memory; many rows in float32"  # nothing is in the caches
    assert [text.get_text() for text in stored.get_texts()] == ["int8", "float32", roof]
    faces = [patch.get_facecolor()[:3] for patch in stored.legend_handles[:2]]
    assert faces == [(1, 1, 1), (0, 0, 0)] and "contexts of 32" in ax.get_title()


def test_what_is_read_from_the_caches_has_a_roof_of_its_own(files):
    """At the limits, its marks are above that of memory, and on it, or not far below."""
    values = entry(slower=1.0)
    values["machine"]["limits"][0]["bandwidth"] = {2**20: 1e11, 2**26: 2e10}
    (one,) = lab.read_all(files(values))
    assert one.in_caches == {"int8": (1e11, 2e11)}
    ax = plots.class_roofline([one], Figure().subplots())
    memory, caches, mark = ax.lines
    assert (memory.get_linestyle(), caches.get_linestyle()) == ("-", "--")
    assert caches.get_marker() == mark.get_marker() == "o"
    assert caches.get_markerfacecolor() == mark.get_markerfacecolor() == "white"
    ends = [line.get_ydata()[[0, -1]].tolist() for line in (memory, caches)]
    assert ends == [pytest.approx([2, 100]), pytest.approx([10, 200])]
    intensity, reached = mark.get_xdata()[0], 1e9 * mark.get_ydata()[0]
    assert 2e10 * intensity < reached <= 1e11 * intensity
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said[-1] == "from the caches; one row of its kind"


def test_a_name_of_a_file_is_no_formula(files, tmp_path):
    (path,) = files(entry())
    path = path.rename(tmp_path / "$_{$.json")
    figure = Figure()
    plots.class_roofline(lab.read_all([path]), figure.subplots())
    plots.save(figure, tmp_path / "class.png")


def test_what_was_measured_is_said_in_a_line_for_each_kind():
    machine = Machine("A processor", "measured here", True, None, (LIMITS,))
    sheet = Datasheet("tales", CONFIG, machine, kinds=["float32", "int8"])
    for kind, missing in (("float32", "it is not installed"), ("int8", None)):
        for context, what, seconds in ((32, "token", 0.5), (8, "token", 9), (32, "first", 2.0)):
            point = Point("tales", "minillm", kind, context, what, 7, missing=missing)
            point.seconds = [seconds, 2 * seconds]
            sheet.measured = [*sheet.measured, point]
    assert lab.summary(sheet) == [
        "int8: weights at 20 GB/s from memory; after a prompt of 32 the first token 2 s, the next"
        " 500 ms each"
    ]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("version", 3, "of version 3; `minillm lab` writes 1"),
        ("rows", [{}], "rows.0..engine is missing"),
        ("rows", 7, "rows is 7"),
        ("rows", [], "nothing was measured"),
        ("rows.flops", 1e19, "or beyond 1e"),
        ("machine", {}, "machine: a machine of version None"),
        ("model", "a\x1b[2J", "is no name"),
        ("rows.seconds", [], "is 0 or less"),
        ("rows.seconds", [float("nan")], "is 0 or less"),
        ("rows.bytes", 0.0, "is 0 or less"),
        ("rows.predicted", float("inf"), "is 0 or less"),
        ("rows.kind", "int4", "machine: it has no rate of 'int4'"),
        ("busy", 1.5, "busy is 1.5; it must be a share"),
        ("busy", float("nan"), "busy is nan"),
        ("busy", "much", "busy is 'much'"),
    ],
)
def test_what_cannot_be_is_one_line(files, place, value, message):
    values, (outer, _, inner) = entry(), place.partition(".")
    if inner:
        values["rows"][0][inner] = value
    else:
        values[outer] = value
    with pytest.raises(InputError, match=message) as error:
        lab.read_all(files(values))
    assert "0.json" in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("values", [{}, {"version": 1}, {"rows": []}, {"model_type": "gpt2"}])
def test_another_file_is_not_taken_for_one(files, values):
    with pytest.raises(InputError, match=r"0.json: not a file that `minillm lab` writes"):
        lab.read_all(files(values))


def test_a_machine_is_called_one(tmp_path):
    Machine("A processor", "measured here", True, None, (LIMITS,)).save(tmp_path / "this.json")
    with pytest.raises(InputError, match="writes, but a machine's, as of `minillm datasheet --sav"):
        lab.read_all([tmp_path / "this.json"])


def test_one_file_counts_once(files, tmp_path):
    (path,) = files(entry())
    with pytest.raises(InputError, match=r"0.json is given 2 times"):
        lab.read_all([path, tmp_path / "." / ".." / tmp_path.name / "0.json"])


def test_a_class_compares_one_model(files):
    with pytest.raises(InputError, match=r"1.json is of 'other', .*0.json of 'tales'"):
        lab.read_all(files(entry(), entry("other")))


def test_nothing_measured_is_no_file():
    machine = Machine("A processor", "measured here", True, None, (LIMITS,))
    sheet = Datasheet("tales", CONFIG, machine, kinds=["int8"])
    with pytest.raises(InputError, match="nothing could be measured: it was not tried"):
        lab.to_dict(sheet)
