"""Files of version 0.1.0 (tests/data/v0_1, see its README) open, and give what they gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from minillm import GPT2Config
from minillm.cli import main
from minillm.clock import Limits, predict, predicted_seconds
from minillm.families.gpt2 import step_names
from minillm.tasks.classify import load_classifier
from minillm.training.trainer import read_metrics

OLD = Path(__file__).resolve().parent / "data" / "v0_1"


def of_0_1(name: str):
    """What a JSON file of version 0.1.0's values holds."""
    return json.loads((OLD / name).read_text("utf-8"))


@pytest.fixture
def run(tmp_path):
    """A copy of the run that was killed in step 8 of 12."""
    return Path(shutil.copytree(OLD / "run", tmp_path / "run"))


def numbers(records: list[dict], *names: str) -> list[list[float]]:
    return [[r[name] for name in names] for r in records if names[-1] in r]


def resume(*args) -> int:
    return main(["train", "--data", str(OLD / "text.txt"), "--resume", "--out", *map(str, args)])


def test_a_run_goes_on_as_if_nothing_had_happened(run):
    """With the batches of 0.1.0; twice, since the run stays one of that format."""
    assert resume(run) == 0
    before, now = of_0_1("run.json"), read_metrics(run / "metrics.jsonl")
    for names in (("step", "lr", "loss", "gradient_norm"), ("step", "val_loss", "bits_per_byte")):
        # BLAS adds up in another order on another machine: after 12 steps 1e-6, and rounded to that
        np.testing.assert_allclose(numbers(now, *names), numbers(before, *names), atol=1e-5)
    assert json.loads((run / "settings.json").read_text("utf-8"))["format"] == 1
    assert resume(run) == 0
    assert read_metrics(run / "metrics.jsonl") == now


def test_parts_of_a_batch_differ_by_rounding(run):
    settings = json.loads((run / "settings.json").read_text("utf-8"))
    (run / "settings.json").write_text(json.dumps(settings | {"accumulate": 2}))
    assert resume(run) == 0
    losses = [
        numbers(r, "step", "loss", "lr")
        for r in (of_0_1("run.json"), read_metrics(run / "metrics.jsonl"))
    ]
    np.testing.assert_allclose(*losses, atol=1e-5)


def test_a_run_whose_text_has_another_length_is_refused(run, tmp_path, capsys):
    (tmp_path / "text.txt").write_text((OLD / "text.txt").read_text("utf-8") + "More.", "utf-8")
    args = ["--data", str(tmp_path / "text.txt"), "--resume", "--out", str(run)]
    assert main(["train", *args]) == 2
    assert "text.txt in " in (said := capsys.readouterr().err) and "is not as it was" in said


@pytest.mark.parametrize("format", [0, 3])
def test_a_run_of_another_version_is_refused(run, capsys, format):
    settings = json.loads((run / "settings.json").read_text("utf-8"))
    (run / "settings.json").write_text(json.dumps(settings | {"format": format}))
    assert resume(run) == 2
    assert f"format is {format}; this minillm knows 1 to 2" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["transformer", "lstm", "bag-of-words"])
def test_classifiers_say_what_they_said(kind):
    said = of_0_1("classifiers.json")
    classifier = load_classifier(OLD / kind, "numpy")
    now = classifier.log_probabilities(said["texts"])
    # BLAS again; log-probabilities are about 1
    np.testing.assert_allclose(now, said["log_probabilities"][kind], atol=1e-5)


def test_measured_limits_give_the_same_predictions():
    limits, before = Limits.load(OLD / "limits.json"), of_0_1("predictions.json")
    config = GPT2Config(n_layer=2, n_embd=64, n_head=4)
    for name, sizes in before["passes"].items():
        seconds = predicted_seconds(predict(config, limits, step_names(2), *sizes))
        assert seconds == pytest.approx(before["seconds"][name], rel=1e-12)
    for size, rate in before["bandwidth"].items():
        assert limits.bandwidth_at(int(size)) == pytest.approx(rate, rel=1e-12)


def test_a_students_folder_is_right_and_told_of_old_names_once(tmp_path, capsys):
    folder = Path(shutil.copytree(OLD / "exercises", tmp_path / "mine"))
    main(["exercises", "check", "--all", "--folder", str(folder), "--json"])
    out, err = capsys.readouterr()
    there = {file.stem.partition("_")[2] for file in folder.glob("*.py")}
    results = {r["name"]: r for r in json.loads(out) if r["name"] in there}
    assert {r["status"] for r in results.values()} <= {"right", "skipped"}
    assert not any(r["printed"] for r in results.values())
    lines = err.splitlines()
    assert "minillm.attention is now called minillm.layers.attention" in err
    assert len(lines) == len(set(lines)) < len(there)
