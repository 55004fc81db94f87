"""What people see of the clock: the diagram, the trace, and the command."""

import json

import numpy as np
import pytest

from minillm import GPT2, GPT2Config
from minillm.cli import main
from minillm.cli.clock import wants_colour
from minillm.clock import Clock, ClockReport, CycleTimes
from minillm.clock.diagram import CORNERS, LEVELS, activity, diagram, duration, shortened
from minillm.clock.export import trace_events, write_trace
from minillm.clock.limits import Limits
from minillm.decoding.generate import moments
from minillm.decoding.options import Options

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

CONFIG = GPT2Config(vocab_size=48, n_positions=64, n_embd=32, n_layer=2, n_head=2)
MODEL = GPT2.random(CONFIG, seed=1)
LIMITS = Limits(
    {}, 2, {2**16: 1e11, 2**28: 2e10}, {"float32": 9e10}, {"float32": 1e11}, 5e9, 1e-6, 1e-5, 1e-7
)
TALE = "Once upon a time"


@pytest.fixture(scope="module")
def report() -> ClockReport:
    clock = Clock(every_step=True)
    texts = [f" t{m.id}" for m in moments(MODEL, [1, 2, 3], Options(max_new_tokens=12), step=clock)]
    return ClockReport(clock, CONFIG, "float32", LIMITS, texts)


@pytest.fixture
def cli(capsys):
    def call(*args):
        try:
            code = main(["clock", *args])
        except SystemExit as exit:
            code = exit.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


# ---- the diagram


def test_at_every_moment_exactly_one_phase_is_at_work(report):
    for cycle in report.cycles:
        shares = activity(cycle, 10)
        np.testing.assert_allclose(sum(shares.values()), 1)
        total = {phase: share.mean() * (cycle.end - cycle.start) for phase, share in shares.items()}
        assert total["attend"] == pytest.approx(
            sum(t for n, t in zip(cycle.names, cycle.gross) if ".attn." in n or ".ln_1" in n)
        )


def test_each_phase_stands_where_it_was_at_work():
    names = ("embed", "h.0.attn.context", "h.0.mlp.act", "logits", "next")
    ends = np.array([110.0, 150.0, 180.0, 195.0, 200.0])
    drawn = activity(
        CycleTimes("decode", 1, 1, 4, 100.0, names, ends, np.diff(ends, prepend=100.0)), 10
    )
    assert (
        drawn["embed"].tolist() == [1] + [0] * 9
        and drawn["attend"].tolist() == [0] + [1] * 4 + [0] * 5
    )
    np.testing.assert_allclose(drawn["unembed"], [0] * 8 + [1, 0.5], atol=1e-9)
    np.testing.assert_allclose(drawn["choose"], [0] * 9 + [0.5], atol=1e-9)


def test_the_diagram_has_a_row_for_each_phase_and_fits(report):
    drawn = diagram(report, width=60)
    lines = drawn.splitlines()
    assert max(map(len, lines)) <= 60 and "\x1b" not in drawn
    first = drawn.split("\n\n")[0].splitlines()
    names = [
        "moment",
        "",
        "cycle",
        "clock",
        "",
        "embed",
        "attend",
        "feed forward",
        "unembed",
        "choose",
        "",
    ]
    assert [line[:14].strip() for line in first] == names
    assert (
        first[2].split()[1:] == ["prefill", "3", "decode", "decode", "decode"]
        and repr(report.texts[0]) in first[1]
    )
    assert "''" not in drawn  # no text for cycles that are not there
    assert first[-1].count("s") >= 4  # ms or us below each column
    waves = "".join(first[5:10])
    assert (
        set(waves) - set("embdatn fowrduchos") <= set(LEVELS)
        and LEVELS[-1] in waves
        and LEVELS[0] in waves
    )


def test_the_diagram_without_unicode_and_with_colour(report):
    assert diagram(report, unicode=False).isascii()
    coloured = diagram(report, colour=True)
    assert coloured.count("\x1b[34m") == len(report.cycles) and coloured.count(
        "\x1b[0m"
    ) == 5 * len(report.cycles)
    assert CORNERS[0] in coloured


def test_a_narrow_terminal_shows_the_first_cycles_and_counts_the_rest(report):
    drawn = diagram(report, width=40)
    assert drawn.count("moment") == 4 and drawn.endswith("... and 4 more cycles")


@pytest.mark.parametrize(
    ("ns", "text"), [(5, "5 ns"), (1234, "1.23 us"), (1.5e6, "1.5 ms"), (2.5e10, "25 s")]
)
def test_durations_have_three_digits_and_a_unit(ns, text):
    assert duration(ns) == text
    assert len(shortened("a long text", 10)) == 10 and shortened("\n", 10) == "'\\n'"


# ---- the trace


def check_nesting(events):
    """Every event lies within the one that is open when it begins, as a viewer draws them: returns
    the deepest level."""
    deepest, open_ = 0, []
    events = [e for e in events if e["ph"] == "X"]
    for event in sorted(events, key=lambda e: (round(1000 * e["ts"]), -round(1000 * e["dur"]))):
        begin, end = round(1000 * event["ts"]), round(1000 * (event["ts"] + event["dur"]))
        while open_ and open_[-1] <= begin:
            open_.pop()
        assert not open_ or end <= open_[-1], f"{event['name']} ends after what it lies in"
        open_.append(end)
        deepest = max(deepest, len(open_))
    return deepest


def test_the_trace_nests_cycles_layers_and_operations(report, tmp_path):
    write_trace(report, 512, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert check_nesting(events) == 3
    by = {kind: [e for e in events if e.get("cat") == kind] for kind in ("cycle", "layer")}
    assert len(by["cycle"]) == 12 and len(by["layer"]) == 12 * CONFIG.n_layer
    assert (
        sum(e["name"] == "h.1.mlp.act" for e in events) == 12
        and by["cycle"][0]["args"]["text"] == report.texts[0]
    )
    operations = [e for e in events if e["name"].startswith("h.") and e["cat"] != "layer"]
    assert sum(e["dur"] for e in by["layer"]) == pytest.approx(sum(e["dur"] for e in operations))
    caches = [e["args"]["bytes"] for e in events if e["name"] == "cache"]
    assert caches[:2] == [0, 3 * 512] and caches[-1] == 14 * 512
    ticks = [e["args"]["cycles"] for e in events if e["name"] == "reference"]
    assert len(ticks) == 12 and min(ticks) > 0


def test_the_check_of_nesting_can_fail(report):
    events = trace_events(report, 512)["traceEvents"]
    layer = next(e for e in events if e.get("cat") == "layer")
    layer["dur"] *= 3
    with pytest.raises(AssertionError, match="ends after"):
        check_nesting(events)


# ---- tables, notebooks


def test_the_report_in_all_its_forms(report):
    values = json.loads(json.dumps(report.to_dict()))
    assert (
        len(values["cycles"]) == 12
        and values["cycles"][3]["past"] == 5
        and values["limits"]["threads"] == 2
    )
    assert values["table"][-1]["phase"] == "cycle" and values["table"][-1]["predicted_s"] > 0
    html = report._repr_html_()
    assert (
        html.count("<tr>") == len(report.rows) + 1
        and "embed" in html
        and "first token after" in html
    )
    headings, lines = report.table()
    assert all(len(line) == len(headings) for line in lines)


def test_one_token_has_no_decode():
    clock = Clock()
    list(moments(MODEL, [1, 2], Options(max_new_tokens=1), step=clock))
    report = ClockReport(clock, CONFIG, "float32", LIMITS)
    headings, lines = report.table()
    assert headings == ["phase", "prefill ms"] and all(len(line) == 2 for line in lines)
    assert report.between_tokens(50) is None and report._repr_html_() and diagram(report)


# ---- the command


def test_the_command_draws_and_tabulates(cli, tmp_path):
    args = (TALE, "--model", "tales-draft", "--max-new-tokens", "3")
    code, out, _ = cli(*args, "--no-limits", "--trace", str(tmp_path / "t.json"))
    assert (
        code == 0
        and "feed forward" in out
        and "first token after" in out
        and "\x1b" not in out
        and "predicted" not in out
    )
    assert check_nesting(json.loads((tmp_path / "t.json").read_text())["traceEvents"]) == 3
    LIMITS.save(tmp_path / "limits.json")
    code, out, _ = cli(*args, "--limits", str(tmp_path / "limits.json"), "--every-step")
    assert code == 0 and "of limit" in out and "softmax" in out
    values = json.loads(cli(*args, "--limits", str(tmp_path / "limits.json"), "--json")[1])
    assert (
        len(values["cycles"]) == 3
        and values["limits"]["elements"] == 5e9
        and values["growth"] is None
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([""], "the prompt is empty"),
        ([TALE, "--max-new-tokens", "0"], "max_new_tokens is 0"),
        (
            [TALE, "--plot", "no/such/folder/a.png"],
            "--plot no/such/folder/a.png: there is no such folder",
        ),
        ([TALE, "--plot", "picture.xyz"], "--plot picture.xyz: the name must end in one of .png"),
        ([TALE, "--trace", "."], "--trace .: it cannot be written"),
        ([TALE, "--limits", "README.md"], "README.md"),
        (["--predict", "3,x"], "--predict 3,x: give contexts as whole numbers"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else "",
)
def test_bad_input_is_one_line(cli, args, message):
    code, out, err = cli(*args, "--model", "tales-draft")
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert not wants_colour()  # pytest's stdout is no terminal
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert wants_colour()
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colour()
    monkeypatch.delenv("TERM")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour()
