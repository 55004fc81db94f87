"""minillm lab, as it is typed."""

import json
import sys

import pytest

from minillm.bench import lab, predictions
from minillm.bench.datasheet import by_limits, nodes
from minillm.cli import main
from minillm.clock import machines
from minillm.clock.limits import Limits
from minillm.loading import config_of
from minillm.machine.load import Load

pytest.importorskip("matplotlib").use("Agg")
RATES = {"float32": 9e10, "int8": 1e11}
LIMITS = Limits({"cores": 2}, 1, {2**16: 1e11, 2**28: 2e10}, RATES, RATES, 5e9, 1e-6, 1e-5, 1e-7)
MACHINE = machines.Machine("Made up", "measured here", True, 10**10, (LIMITS,))


@pytest.fixture
def cli(capsys, monkeypatch):
    def measured(name, folder, limits, engines, kinds, contexts, rounds):
        config, points = config_of(folder), []
        for what in ("token", "first"):
            point = predictions.Point(name, "minillm", "int8", 32, what, nodes(config))
            point.predicted = [by_limits(config, limits, "int8", what, 32)]
            point.seconds = [2 * point.predicted[0].seconds]
            points.append(point)
        return points

    monkeypatch.setattr(machines, "measure_machine", lambda *_, **__: MACHINE)
    monkeypatch.setattr(predictions, "limits_now", lambda *_: LIMITS)
    monkeypatch.setattr(predictions, "measured", measured)
    monkeypatch.setattr(Load, "share", lambda self: 0.25)

    def call(*args):
        try:
            code = main(["lab", *args])
        except SystemExit as exit:
            code = exit.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_what_is_written_is_what_was_shown(cli, tmp_path):
    path = tmp_path / "a.json"
    code, out, err = cli(str(path), "--yes")
    written = json.loads(path.read_text())
    assert written["busy"] == 0.25 and err == f"{path}: written\n"
    last = out.splitlines()[-1]
    assert last.startswith("int8: weights at ") and "after a prompt of 32 the first token" in last
    view, _, rest = out.partition("\nthis is all that ")
    assert code == 0 and view == "\n".join(lab.shown(written)) and str(path) in rest
    assert len(out.splitlines()) < 60
    assert json.loads(path.read_text())["machine"]["name"] == "Made up"
    assert cli(str(path), "--yes") == (2, "", f"minillm: {path} is there; --force writes over it\n")
    assert cli(str(path), "--yes", "--force")[0] == 0


def test_on_a_terminal_it_asks(cli, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, code in (("n", 1), ("", 1), ("y", 0)):
        assert not path.exists()
        monkeypatch.setattr("builtins.input", lambda question, said=answer: said)
        assert cli(str(path))[0] == code
    assert path.exists()


def test_a_class_is_put_together(cli, tmp_path):
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for path in paths:
        cli(path, "--yes")
    code, out, err = cli("merge", *paths, "--plot", str(tmp_path / "class.png"))
    assert code == 0 and out.count("-50 %") == 4
    (second,) = (line for line in out.splitlines() if "Made up (b.json)" in line)
    assert second.split() == ["2:", "Made", "up", "(b.json)", "25", "%", "20.0", "90"]
    assert (tmp_path / "class.png").stat().st_size > 10_000
    assert err == f"{tmp_path / 'class.png'}: written\n"
    assert len(json.loads(cli("merge", *paths, "--json")[1])) == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "on a terminal: else add --yes"),
        (["merge"], "minillm lab merge needs files"),
        (["merge", "a.json", "--yes"], "--yes is of measuring"),
        (["merge", "a.json", "--rounds", "3"], "--rounds is of measuring"),
        (["a.json", "b.json"], "together, minillm lab merge a.json b.json"),
        (["marge", "b.json"], "together, minillm lab merge b.json"),
        (["marge", "anna"], "together, minillm lab merge FILE..."),
        (["a.txt", "--yes"], "FILE a.txt: the name must end in one of .json"),
        (["no/such/a.json", "--yes"], "there is no such folder"),
        (["--model", "/home/anna/model"], "--model is '/home/anna/model'; it must be one of tales"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--json"], "--json and --plot are of minillm lab merge"),
        (["merge", "no-such-file.json"], "no-such-file.json: there is no such file"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else "",
)
def test_bad_input_is_one_line(cli, args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*args)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
