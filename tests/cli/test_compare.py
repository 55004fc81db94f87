"""minillm compare: a table, a picture, a page that says how it was made."""

import json

import pytest

from minillm.bench import ledger as room
from minillm.bench.levers import LEVERS
from minillm.cli import main, parser

TEXT = (
    "Once upon a time there was a king who had a daughter. She was beautiful, but proud; and none"
    " was good enough. " * 30
)


def test_an_interruption_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    (tmp_path / "text").write_text(TEXT)
    right, calls = room._speed, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return right(*args)

    monkeypatch.setattr(room, "_speed", interrupted)
    arguments = [
        "--model",
        "tales-draft",
        "--prompt-tokens",
        "8",
        "--max-new-tokens",
        "4",
        "--quality-tokens",
        "32",
    ]
    code = main(
        ["compare", str(tmp_path / "text"), *arguments, "--levers", "int8", "int4", "--json"]
    )
    out, err = capsys.readouterr()
    entries = json.loads(out)["levers"]
    assert (
        code == 130
        and "interrupted" in err
        and [e["levers"] for e in entries] == ["plain", "int8", "int4"]
    )
    assert [len(e["decode"]) for e in entries] == [1, 0, 0] and all(
        e["bits_per_byte"] for e in entries
    )


def test_a_saved_ledger_says_how_it_was_made(tmp_path, capsys):
    (tmp_path / "text").write_text(TEXT)
    sizes = "--prompt-tokens 8 --max-new-tokens 4 --quality-tokens 32 --rounds 2"
    arguments = [
        "compare",
        str(tmp_path / "text"),
        "--model",
        "tales-draft",
        *sizes.split(),
        "--levers",
        "int8",
        "threads:1",
    ]
    assert main([*arguments, "--save", str(tmp_path / "ledger")]) == 0
    page = (tmp_path / "ledger.md").read_text()
    values = json.loads((tmp_path / "ledger.json").read_text())
    made_by = next(
        line.strip() for line in page.splitlines() if line.startswith("    minillm compare text")
    )
    assert made_by == values["command"] and str(tmp_path) not in page + made_by
    again = parser().parse_args(made_by.split()[1:])
    first = parser().parse_args(arguments)
    assert {**vars(again), "file": 0} == {**vars(first), "file": 0}
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line.split()[1] for line in rows] == [
        "levers",
        "---",
        "plain",
        "int8",
        "threads:1",
    ]
    assert ("serial share" in page) == (values["levers"][0]["threads"] > 1)
    assert "(ledger.png)" in page and (tmp_path / "ledger.png").stat().st_size > 10_000
    assert values["machine"]["cores"] and [len(e["decode"]) for e in values["levers"]] == [2, 2, 2]
    assert (
        main([*arguments, "--save", str(tmp_path / "no" / "ledger")]) == 2
        and "no such folder" in capsys.readouterr().err
    )


@pytest.mark.live
def test_a_random_124m_is_measured_without_quality(tmp_path, capsys):
    (tmp_path / "text").write_text(TEXT)
    sizes = "--random-124m --prompt-tokens 8 --max-new-tokens 3 --rounds 1 --json"
    assert main(["compare", str(tmp_path / "text"), *sizes.split(), "--levers", "int8"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["model"] == "GPT-2 124M, random weights" and values["command"].startswith(
        "minillm compare text --random-124m"
    )
    assert [round(e["weight_bytes"] / 1e6) for e in values["levers"]] == [498, 135]
    assert all(e["bits_per_byte"] is None and e["decode"] for e in values["levers"])


def test_the_command_prints_a_table_and_draws(tmp_path, capsys):
    (tmp_path / "text").write_text(TEXT)
    arguments = [
        "--model",
        "tales-draft",
        "--prompt-tokens",
        "8",
        "--max-new-tokens",
        "4",
        "--quality-tokens",
        "32",
    ]
    picture = tmp_path / "ledger.png"
    levers = ["--rounds", "1", "--levers", "int8", "sparse:0.7", "--plot", str(picture)]
    assert main(["compare", str(tmp_path / "text"), *arguments, *levers]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["plain", "int8", "sparse:0.7"]
    assert "is the reference" in out and picture.stat().st_size > 10_000
    assert err == f"{picture}: written\n"
    levers[levers.index("sparse:0.7")] = "sparse:7"
    assert main(["compare", str(tmp_path / "text"), *arguments, *levers]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "lever sparse:7: sparsity is 7.0" in err
    assert main(["compare", str(tmp_path / "text"), "--levers", "?"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(LEVERS)
    assert main(["compare", str(tmp_path / "text"), "--rounds", "0"]) == 2
