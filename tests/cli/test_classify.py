"""minillm classify: trained, asked, and told what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minillm.cli import main

GOOD, BAD = ["fine", "bright", "lovely", "glad"], ["dull", "grey", "dreary", "sad"]


@pytest.fixture
def data(tmp_path):
    """Two hundred and forty short texts, whose label one of their words tells."""
    rng = np.random.default_rng(5)
    lines = []
    for n in range(240):
        words = list(
            rng.choice(["the", "a", "day", "was", "very", "and", "so", "it"], rng.integers(5, 10))
        )
        words.insert(rng.integers(len(words)), rng.choice((GOOD, BAD)[n % 2]))
        lines.append(f"{' '.join(words)}\t{('up', 'down')[n % 2]}")
    (tmp_path / "data.tsv").write_text("\n".join(lines))
    return tmp_path / "data.tsv"


@pytest.fixture
def cli(capsys):
    def call(*args):
        try:
            code = main(["classify", *map(str, args)])
        except SystemExit as exit:
            code = exit.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_train_and_predict(cli, data, tmp_path):
    run = tmp_path / "run"
    code, out, said = cli(
        "train",
        "--data",
        data,
        "--out",
        run,
        "--model",
        "bag-of-words",
        "--plot",
        tmp_path / "p.png",
    )
    assert (
        code == 0
        and out.startswith("epoch  1.00   step     6   loss ")
        and "accuracy 100.00%: 24 of 24 held-out texts" in out
    )
    assert (tmp_path / "p.png").stat().st_size > 10_000
    assert said.splitlines() == [
        f"{tmp_path / 'p.png'}: written",
        f"{run}: written; next: minillm classify predict {run} TEXT",
    ]
    code, out, _ = cli("predict", run, "a dreary day")
    assert code == 0 and out.splitlines()[2].split()[0] == "down"
    (tmp_path / "lines.txt").write_text("so glad\n\nso grey\n")
    code, out, _ = cli("predict", run, "--file", tmp_path / "lines.txt")
    assert [line.split("\t")[::2] for line in out.splitlines()] == [
        ["up", "so glad"],
        ["down", "so grey"],
    ]
    code, out, _ = cli("predict", run, "--file", tmp_path / "lines.txt", "--json")
    first = json.loads(out.splitlines()[0])
    assert first["label"] == "up" and abs(sum(first["probabilities"].values()) - 1) < 1e-5


def test_json_lines(cli, data, tmp_path):
    code, out, _ = cli(
        "train",
        "--data",
        data,
        "--out",
        tmp_path / "r",
        "--model",
        "bag-of-words",
        "--epochs",
        1,
        "--json",
    )
    lines = [json.loads(line) for line in out.splitlines()]
    assert (
        code == 0
        and lines[0]["step"] == 6
        and lines[-1]["labels"] == ["down", "up"]
        and "confusion" in lines[-1]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--out", "r"], "--data is needed"),
        (["train", "--data", "none", "--out", "r"], "none: there is no such file or folder"),
        (
            ["train", "--data", "DATA", "--out", "r", "--model", "rnn"],
            "invalid choice: 'rnn'",
        ),
        (
            ["train", "--data", "DATA", "--out", "r", "--pool", "max"],
            "invalid choice: 'max'",
        ),
        (["train", "--data", "DATA", "--out", "r", "--plot", "x.txt"], "must end in one of .png"),
        (["train", "--out", "none", "--resume"], "there is no run to go on with"),
        (
            ["train", "--data", "DATA", "--out", "r", "--dtype", "int8"],
            "classifiers compute in float32",
        ),
        (["predict", "none", "text"], "no classifier in it"),
        (["compare", "--data", "DATA", "--out", "r", "--seeds", "0"], "--seeds is 0"),
        (["clock", "--lengths", "0"], "--lengths has 0"),
    ],
)
def test_bad_input_is_one_line(cli, data, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*(str(data) if a == "DATA" else a for a in arguments))
    assert code == 2 and message in err and err.count("\n") == 1 and not (tmp_path / "r").exists()


def test_compare_is_one_table_and_repeats_nothing(cli, data, tmp_path):
    call = (
        "compare",
        "--data",
        data,
        "--out",
        tmp_path / "all",
        "--models",
        "bag-of-words",
        "--seeds",
        2,
    )
    code, out, _ = cli(*call)
    assert (
        code == 0
        and out.splitlines()[-1].split()[:2] == ["data", "bag-of-words"]
        and out.count("seed ") == 2
    )
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("*")}
    code, again, _ = cli(*call)
    assert again == out and times == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "all").rglob("*")
    }


def test_clock(cli, tmp_path):
    call = (
        "clock",
        "--lengths",
        4,
        8,
        "--rows",
        1,
        2,
        "--n-embd",
        16,
        "--rounds",
        1,
        "--kernels",
        "numpy",
    )
    code, out, _ = cli(*call, "--plot", tmp_path / "p.svg")
    rows = [line.split() for line in out.splitlines()[2:]]
    assert code == 0 and len(rows) == 8 and {row[0] for row in rows} == {"transformer", "lstm"}
    assert (
        all(row[-1].endswith("%") for row in rows if row[0] == "lstm")
        and (tmp_path / "p.svg").exists()
    )
    code, out, _ = cli(*call, "--json")
    assert code == 0 and len(json.loads(out)["times"]) == 8
