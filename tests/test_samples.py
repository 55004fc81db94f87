"""The texts that come with the package: commands run with them, and a file of one's own wins."""

import json
import logging
import re
from pathlib import Path

import pytest

from minillm.cli import main
from minillm.samples import FOLDER, SAMPLES, own_or_sample
from minillm.tasks.examples import read_examples
from minillm.training.data import split_documents

SMALL = ("--model", "tales-draft", "--kernels", "numpy")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_found_by_its_name_alone_and_an_own_file_wins(name, elsewhere, caplog):
    caplog.set_level(logging.INFO)
    assert own_or_sample(name) == FOLDER / name
    said = f"{name} is not in this folder: the sample of minillm is read"
    assert [record.getMessage() for record in caplog.records] == [said]
    for other in (f"texts/{name}", f"./{name}", name[1:], str(elsewhere / name), ""):
        assert own_or_sample(other) == Path(other)
    (elsewhere / name).write_text("my own")
    assert own_or_sample(name).read_text() == "my own"
    assert len(caplog.records) == 1


def test_the_samples_are_what_they_are_said_to_be():
    train, val = split_documents(FOLDER / "fables.txt", 0.05)
    assert len(train) + len(val) == 42 and len(val) >= 2
    assert all(90 <= len(tale.split()) <= 150 for tale in train + val)
    moods = read_examples(FOLDER / "moods.tsv")
    assert {label: moods.labels.count(label) for label in set(moods.labels)} == dict(
        glad=81, gloomy=81
    )
    assert len({*moods.texts}) == len(moods)


def test_score_reads_a_sample(capsys):
    assert main(["score", "moods.tsv", *SMALL, "--json"]) == 0  # the shorter one
    said = capsys.readouterr()
    assert json.loads(said.out)["bytes"] == (FOLDER / "moods.tsv").stat().st_size
    assert "the sample" in said.err


def test_compare_reads_the_sample(capsys):
    short = ("--rounds", "1", "--prompt-tokens", "4", "--max-new-tokens", "2")
    levers = ("--quality-tokens", "64", "--levers", "int8", "int4")
    assert main(["compare", "fables.txt", *SMALL, *short, *levers]) == 0
    assert re.findall(r"^(plain|int8|int4) ", capsys.readouterr().out, re.M) == [
        "plain",
        "int8",
        "int4",
    ]


def test_train_goes_on_from_the_sample(elsewhere, capsys):
    run = ("train", "--out", "run", "--kernels", "numpy")
    new = ("--data", "fables.txt", "--preset", "tiny", "--vocab-size", "300", "--n-embd", "16")
    assert main([*run, *new, "--steps", "1", "--warmup", "0"]) == 0
    said = capsys.readouterr()
    assert "bits per byte" in said.out and not said.out.endswith("\n\n\n")
    next_ = 'run: written; next: minillm generate "Once upon a time" --model run\n'
    assert said.err.endswith(next_)
    assert main([*run, "--resume"]) == 0  # the run knows where the sample lies


def test_a_bag_of_words_tells_the_moods_apart(capsys):
    learn = ("--data", "moods.tsv", "--out", "moods", "--model", "bag-of-words", "--json")
    assert main(["classify", "train", *learn]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1])["accuracy"] >= 0.8  # 15 of 16 held-out ones; guessing: 8
    assert main(["classify", "predict", "moods", "The sun is warm, and we laughed."]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("glad")
