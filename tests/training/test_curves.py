"""`minillm plot`: the curve of a run as a table, as JSON, and as a picture."""

import json

import numpy as np
import pytest

from minillm import InputError
from minillm.cli import main
from minillm.training.curves import Curve, read_curve


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "first"
    folder.mkdir()
    records = [{"step": n, "loss": 5 - n / 100, "lr": 1e-3} for n in range(10, 210, 10)]
    records += [
        {"step": n, "loss": 4, "val_loss": 4.5, "bits_per_byte": 2 - n / 1000} for n in (100, 200)
    ]
    records += [{"step": 200, "sample": "Once"}]
    records.sort(key=lambda record: record["step"])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "settings.json").write_text(
        json.dumps({"batch_size": 4, "context": None, "n_positions": 32})
    )
    return folder


def test_a_curve_is_read(run):
    curve = read_curve(run)
    assert (curve.name, curve.tokens_per_step, len(curve.steps)) == ("first", 128, 20)
    assert [v["step"] for v in curve.validations] == [100, 200]


def test_smoothing_runs_neither_late_nor_early():
    line = np.linspace(9, 1, 101)
    np.testing.assert_allclose(Curve("x", np.arange(101), line).smoothed, line)
    noise = line + np.resize([1, -1], 101)
    assert np.abs(Curve("x", np.arange(101), noise).smoothed - line)[3:-3].max() < 0.3
    for few in ([3.0], [3.0, 1.0], [3.0, 2.0, 1.0]):
        np.testing.assert_allclose(Curve("x", np.arange(len(few)), np.array(few)).smoothed, few)


@pytest.mark.parametrize("n", [3, 20, 101, 1000])
def test_no_end_of_the_smoothed_curve_is_a_single_report(n):
    """The last report has a weight of 5/6 in the last value where three are taken together, which
    are the fewest, and less where there are more."""
    last = np.zeros(n)
    last[-1] = 1
    for loss in (last, last[::-1]):
        assert Curve("x", np.arange(n), loss).smoothed.max() < 0.84


def test_the_command(run, tmp_path, capsys):
    assert main(["plot", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        "200",
        "25,600",
        "3.0000",
        "4.5000",
        "1.8000",
    ]
    assert (
        main(["plot", str(run), str(run), "--plot", str(tmp_path / "p.svg"), "--over", "tokens"])
        == 0
    )
    assert (tmp_path / "p.svg").stat().st_size > 1000
    assert main(["plot", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["tokens_per_step"] == 128


def test_what_cannot_be_drawn(run, tmp_path, capsys):
    assert main(["plot", str(tmp_path)]) == 2
    assert "is this the folder of a training run?" in capsys.readouterr().err
    (run / "settings.json").unlink()
    assert main(["plot", str(run), "--over", "tokens"]) == 2
    assert main(["plot", str(run), "--plot", "p.txt"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="no step has been reported yet"):
        read_curve(run)
