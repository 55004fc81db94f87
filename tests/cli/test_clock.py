"""What people see of the clock: the diagram, the trace, and the command."""

import json
import re

import pytest

from minillm.cli import main
from minillm.cli.clock import wants_colour
from minillm.clock.limits import Limits

matplotlib = pytest.importorskip("matplotlib")


matplotlib.use("Agg")


LIMITS = Limits(
    {}, 2, {2**16: 1e11, 2**28: 2e10}, {"float32": 9e10}, {"float32": 1e11}, 5e9, 1e-6, 1e-5, 1e-7
)
TALE = "Once upon a time"


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


# ---- the command


def test_the_command_draws_and_tabulates(cli, tmp_path):
    args = (TALE, "--model", "tales-draft", "--max-new-tokens", "3")
    code, out, said = cli(*args, "--no-limits", "--trace", str(tmp_path / "t.json"))
    assert said == f"{tmp_path / 't.json'}: written\n"
    assert (
        code == 0
        and "feed forward" in out
        and "first token after" in out
        and "\x1b" not in out
        and "predicted" not in out
    )
    assert re.match("Each token costs .* which is .* tokens/s\\.\n\n", out)
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
        ([TALE, "--trace", "."], "--trace .: it is a folder; name a file in it"),
        ([TALE, "--limits", "README.md"], "README.md"),
        (
            [TALE, "--engine", "llama.cpp", "--kernels", "numpy"],
            "--kernels is of minillm's functions, not of llama.cpp's: leave out numpy",
        ),
        (["--predict", "3,x"], "--predict 3,x: give contexts as whole numbers"),
        (["--predict", "32", TALE], "--predict needs no prompt: leave out 'Once upon a time'"),
        (["--predict", "32", "--engine", "llama.cpp"], "--predict goes without --engine"),
        (["--predict", "32", "--record", "a"], "--predict goes without --record"),
        (["--predict", "32", "--plot", "a.png"], "--predict goes without --plot"),
        (["--predict", "32", "--trace", "a"], "--predict goes without --trace"),
        (["--predict", "32", "--draft", "ngram"], "--predict goes without --draft"),
        (["--predict", "32", "--every-step"], "--predict goes without --every-step"),
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
