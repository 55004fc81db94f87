"""Trainings beside one another: which are one line, what is told of seeds, and the command."""

import json

import pytest

from minillm import InputError, Tokenizer
from minillm.bench.runs import Line, RunsReport, lines_of
from minillm.checkpoints import find_folder
from minillm.cli import main
from minillm.model import Model
from minillm.training.settings import Settings
from minillm.training.trainer import write_settings

MACHINE = {
    "processor": "a processor",
    "system": "a system",
    "time": "2026-01-02T03:04",
    "versions": {"numpy": "2"},
}
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 16, "vocab_size": 4096}


def run_of(folder, seed=1, **settings):
    """A folder as a finished run of these settings leaves it; the model has learnt nothing."""
    plan = Settings(**SHAPE, seed=seed, **settings)
    Model.random(plan.model_config(4096, 4095), seed).save_pretrained(folder)
    Tokenizer.from_pretrained(find_folder("tales")).save(folder)
    write_settings(folder, {"format": 2} | plan.to_dict())
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of a GPT-2, and two of a Llama."""
    folder = tmp_path_factory.mktemp("ideas")
    ideas = {"a": {}, "b": {"family": "llama", "n_kv_head": 1}}
    return [
        run_of(folder / f"{name}-seed{seed}", seed, **settings)
        for name, settings in ideas.items()
        for seed in (1, 2)
    ]


def test_what_differs_in_its_seed_alone_is_one_line(runs, tmp_path):
    """Whatever they report, and where a setting is of a later version than the run."""
    third = run_of(tmp_path / "c", 3, log_every=3)
    older = json.loads((third / "settings.json").read_text())
    del older["family"], older["n_kv_head"]
    write_settings(third, older)
    lines = lines_of([*runs, third])
    assert [(name, [*of]) for name, (_, of) in lines.items()] == [("a", [1, 2, 3]), ("b", [1, 2])]
    assert lines["a"][0].changes == {}
    assert lines["b"][0].changes == {"family": "llama", "n_kv_head": 1}


def test_folders_that_cannot_be_compared(runs, tmp_path):
    with pytest.raises(InputError, match=r"no settings.json here; is it the folder of a training"):
        lines_of([tmp_path])
    again = run_of(tmp_path / "a-seed1")
    with pytest.raises(InputError, match=r"a-seed1: seed 1 of .*a-seed1 again"):
        lines_of([*runs, again])
    other = run_of(tmp_path / "a-seed5", 5, steps=7)
    with pytest.raises(InputError, match="a is the name of runs with other settings, too"):
        lines_of([*runs, other])


def report_of(*bits) -> RunsReport:
    lines = [Line(f"line {n}", {}, 1, 2e6, 64, b, [5.0, 7.0, 6.0]) for n, b in enumerate(bits)]
    sizes = {"n_prompt": 8, "n_new": 4, "rounds": 3, "threads": 1}
    about = {"command": "minillm compare x", "title": "ideas", "file": "x"}
    return RunsReport(lines, **about, **sizes, machine=MACHINE)


def test_a_difference_is_one_where_it_is_more_than_its_interval():
    report = report_of(
        {1: 2.0, 2: 2.2, 3: 2.1},
        {1: 1.9, 2: 2.1, 3: 2.001},
        {1: 1.89, 2: 2.0, 3: 1.8},
        {2: 2.5, 1: 2.39, 4: 1.0},  # of which line 2 has two
    )
    better, undecided, worse = report.verdicts()
    assert better == "line 1: better than line 0 (-0.1000, -0.1000, -0.0990)"
    told = "no difference to line 1 that 3 seeds can tell (-0.0100, -0.1000, -0.2010)"
    assert undecided == f"line 2: {told}"
    assert worse == "line 3: worse than line 2 (+0.5000, +0.5000)"
    cells = (
        "2.0003 ± 0.1000",
        "3",
        "-0.0997 ± 0.0014",
        "6 us (5 to 7)",
    )  # 4.30 x 0.00058 / sqrt(3)
    assert report.rows()[1][3:7] == cells
    assert "too few seeds" in report_of({1: 2.0}, {1: 1.0}).verdicts()[0]
    assert report_of({1: 2.0}, {2: 1.0}).rows()[1][3:6] == ("1.0000", "1", "-")


def test_values_are_all_that_the_page_says(tmp_path):
    report = report_of({1: 2.0, 2: 2.2}, {1: 1.9, 2: 2.1})
    report.save(tmp_path / "ledger")
    page = (tmp_path / "ledger.md").read_text()
    assert page.startswith(
        "# The ledger: ideas\n\n![bits per byte, time of a cycle and KV bytes of"
    )
    assert (
        "](ledger.png)\n" in page and "\n- line 1: better than line 0 (-0.1000, -0.1000)\n" in page
    )
    assert (
        page.endswith("\na processor, a system; 2026-01-02;\nnumpy 2.\n\n    minillm compare x\n")
        and max(len(line) for line in page.splitlines() if "|" not in line) <= 100
    )
    values = json.loads((tmp_path / "ledger.json").read_text())
    assert values["lines"][1]["differences"] == pytest.approx([-0.1, -0.1])
    assert values["lines"][1]["bits_per_byte"] == {"1": 1.9, "2": 2.1}


def test_the_command(runs, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a king who had a daughter. " * 4)
    sizes = "--kernels numpy --prompt-tokens 4 --max-new-tokens 4 --rounds 2 --quality-tokens 0"
    save = ["--save", str(tmp_path / "ideas"), "--json"]
    arguments = ["compare", str(text), *sizes.split(), "--runs", *map(str, runs)]
    assert main([*arguments, *save]) == 0
    gpt2, llama = json.loads(capsys.readouterr().out)["lines"]
    assert (gpt2["name"], llama["name"]) == ("a", "b") and gpt2["parameters"] > llama["parameters"]
    assert (gpt2["kv_bytes"], llama["kv_bytes"]) == (64, 32)  # 2 x 1 layer x 2 or 1 heads x 4 x 4
    assert len(gpt2["cycles"]) == 2 and min(gpt2["cycles"]) > 0
    assert all(line["bytes_a_token"] > 4 * 8 * 4096 for line in (gpt2, llama))  # the head, and more
    assert all(3 < b < 6 for b in gpt2["bits_per_byte"].values())  # 12 bits a token, untrained
    assert (tmp_path / "ideas.png").stat().st_size > 10_000
    command = (tmp_path / "ideas.md").read_text().splitlines()[-1]
    assert command.startswith("    minillm compare text.txt --kernels numpy --prompt-tokens 4")
    assert f"--runs {runs[0].parent.name}/a-seed1 " in command and "--model" not in command
    assert main(arguments) == 0
    assert "no difference" in (out := capsys.readouterr().out) or "than a" in out
    assert main([*arguments, "--levers", "int8"]) == 2
    assert "--runs takes none of" in capsys.readouterr().err
    assert main([*arguments, "--prompt-tokens", "15"]) == 2
    assert "15 + 4 tokens do not fit" in capsys.readouterr().err
