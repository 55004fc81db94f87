"""The protocol between run and its workers: in processes of their own where these are what is
proven, else in threads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minillm import GPT2, InputError, bench
from minillm.bench import against, stored
from minillm.bench import run as run_function
from minillm.bench.convert import requantize, write_gguf
from minillm.bench.peers import GROUPS, PEERS, choose
from minillm.cli import main
from minillm.machine import load
from minillm.machine.child import NO_ANSWER
from tests.bench.workers import CONFIG, ENDED

run_module = sys.modules["minillm.bench.run"]  # `run` of its package is the function


def test_rates_bytes_and_shares(compare):
    comparison = compare(["minillm-steady", "untidy"], n_prompt=4, n_new=6, rounds=3, threads=1)
    steady, other = comparison.results
    assert (
        steady.tokens == list(range(steady.tokens[0], steady.tokens[0] + 7)) and steady.threads == 1
    )
    for result in (steady, other):
        assert len(result.prefill) == len(result.decode) == 3
        assert (
            5 < min(result.prefill) <= max(result.prefill) <= 500
            and 5 < min(result.decode) <= max(result.decode) <= 250
        )
        # positions 5, 6, ... 10 are read: 7.5 in the mean
        assert result.bytes_per_token == 1000 + 10 * 7.5
    assert steady.ratio(steady, "decode") == 1 and 0.1 < other.ratio(steady, "decode") < 10
    assert comparison.reference is steady and steady.tokens != other.tokens
    assert len(comparison.bandwidth) == len(comparison.flops) == 3
    share = np.median([r * 1075 / b for r, b in zip(steady.decode, comparison.bandwidth)])
    assert comparison.share(steady, "decode") == pytest.approx(share)
    assert comparison.share(steady, "prefill") > 0 and comparison.limit(steady, "prefill") > max(
        steady.prefill
    )


def test_what_cannot_be_measured_is_told_and_stops_nobody(compare):
    names = [
        "engine-absent",
        "engine-unable",
        "engine-broken",
        "engine-dying",
        "babbling",
        "minillm-steady",
    ]
    comparison = compare(names, 2, 2, 1)
    missing = {result.name: result.missing for result in comparison.results}
    assert missing == {
        "engine-absent": "no_such_library is not installed: python -m pip install no_such_library",
        "engine-unable": "this engine has no such GPT-2",
        "engine-broken": f"failed: {ENDED.format(1)}: RuntimeError: symbol not found",
        "engine-dying": f"failed: {ENDED.format(7)}",
        "babbling": f"failed: {NO_ANSWER} It said 'hello'",
        "minillm-steady": None,
    }
    assert [result.name for result in comparison.measured] == ["minillm-steady"]


def test_nobody_to_measure_is_one_line(compare, in_threads):
    with pytest.raises(
        InputError,
        match="no peer could be measured: engine-absent: no_such_library is not installed: python",
    ) as error:
        compare("engine-absent,engine-dying", 2, 2, 1)
    assert "\n" not in str(error.value)


def test_temporary_files_go_with_the_run(compare, monkeypatch, tmp_path_factory):
    where = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(where))
    compare("untidy", 2, 2, 1)
    assert list(where.iterdir()) == []


def test_peak_memory_is_the_workers_own(compare):
    ballast = np.ones(300 * 2**20, np.uint8)
    (result,) = compare("minillm-steady", 2, 2, 1).results
    # None: Windows does not say
    assert result.peak_bytes is None or 2**20 < result.peak_bytes < ballast.nbytes


def test_the_command_names_what_is_missing_and_draws(compare, in_threads, capsys, tmp_path):
    args = ["bench", "--model", str(compare.folder), "--prompt", "4", "--new", "6", "--rounds", "1"]
    assert (
        main([*args, "--peers", "engine,minillm-steady", "--plot", str(tmp_path / "rates.png")])
        == 0
    )
    out, said = capsys.readouterr()
    told = said.splitlines()  # at once, where nothing shows a bar; how long, when that is known
    assert told[0].startswith("loading engine-") and "in a process of its own" in told[0]
    assert told[1] == "measuring in turn: a round to warm up, and 1 round after it"
    assert re.fullmatch(r"a round takes \d+\.\d s, all about \d+\.\d s", told[2])
    assert told[3] == f"{tmp_path / 'rates.png'}: written"
    assert (
        "engine-absent: missing (no_such_library is not installed: python -m pip install" in out
        and "differ from" in out
        and "reference" in out
    )
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert main([*args, "--peers", "engine-other,minillm-steady", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [(r["same_tokens"], r["decode_ratio"] == 1) for r in values["results"]] == [
        (False, True),
        (True, False),
    ]
    for plot, message in (
        ("no/folder/x.png", "there is no such folder"),
        ("x.nothing", "must end in one of .png, .svg, .pdf"),
    ):
        assert main([*args, "--peers", "minillm-steady", "--plot", plot]) == 2
        assert message in capsys.readouterr().err


# The worker of another minillm: 8 ms a decode step, it says, and 1 ms a token of the prompt.
ANOTHER = """
import json, sys
if sys.argv[1] != "minillm-steady":
    sys.exit("I know no " + sys.argv[1])
print(json.dumps({"versions": {}, "threads": 1, "weight_bytes": 1, "cache_bytes": 1}), flush=True)
for line in sys.stdin:
    ids, n = json.loads(line).values()
    tokens = list(range(ids[-1] + 1, ids[-1] + n + 2))
    took = {"prefill_s": 0.001 * len(ids), "decode_s": 0.008 * n, "peak_bytes": None}
    print(json.dumps(took | {"tokens": tokens}), flush=True)
"""


@pytest.fixture
def checkout(tmp_path):
    """Another checkout, where the worker of these tests is ANOTHER."""
    for name in ("minillm/bench/worker.py", "tests/bench/workers.py"):
        (tmp_path / "other" / name).parent.mkdir(parents=True)
        (tmp_path / "other" / name).write_text(ANOTHER)
    return tmp_path / "other"


def test_against_another_checkout(compare, checkout, monkeypatch):
    """Each side runs its own code, wherever the user stands and however the folder is given."""
    monkeypatch.chdir(checkout)
    names = ["minillm-steady", "engine-other"]
    lines = against.against(".", {"tiny": compare.folder}, names, n_prompt=4, n_new=6, rounds=2)
    decode, prefill, *others = lines
    assert (decode.model, decode.peer, decode.kind) == ("tiny", "minillm-steady", "decode")
    assert decode.other == pytest.approx(125) and prefill.other == pytest.approx(1000)
    assert 12 < decode.this < 250 and 0.1 < decode.ratio < 2 and 0.05 < prefill.ratio < 0.5
    assert decode.middle_half[0] <= decode.ratio <= decode.middle_half[1]
    assert decode.same_tokens and not decode.missing
    assert {line.missing for line in others} == {
        ".: failed: it ended the interpreter (exit code 1): I know no engine-other"
    }


def test_every_other_round_is_backwards(compare, in_threads, monkeypatch):
    asked, worker = [], run_module._Worker
    answer = worker.answer

    def noted(self, request=None):
        if request and request["n_new"]:
            asked.append(self.peer)
        return answer(self, request)

    monkeypatch.setattr(worker, "answer", noted)
    compare(["minillm-steady", "engine-other"], 2, 2, rounds=3)
    there = ["minillm-steady", "engine-other"]
    back = there[::-1]
    assert asked == there + back + there + back  # the first only warms up


def test_the_command_against_another(compare, checkout, capsys):
    args = ["bench", "--model", str(compare.folder), "--prompt", "4", "--new", "6", "--rounds", "1"]
    args += ["--peers", "minillm-steady,engine-other", "--against"]
    assert main([*args, str(checkout)]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1:3] for line in out.splitlines() if " same" in line] == [
        ["minillm-steady", "decode"],
        ["minillm-steady", "prefill"],
    ]
    assert "engine-other, decode: missing" in out
    assert main([*args, str(checkout), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [line["kind"] for line in values["lines"]] == ["decode", "prefill"] * 2
    assert values["lines"][0]["ratio"] > 0 and values["rounds"] == 1
    assert main([*args, str(checkout / "minillm")]) == 2
    assert "neither a checkout of minillm" in capsys.readouterr().err
    assert main([*args, str(checkout), "--ladders"]) == 2
    assert "--against does not go together with --ladders" in capsys.readouterr().err


def test_how_another_minillm_is_run(tmp_path, checkout, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "here"]))
    root, here = str(Path(bench.__file__).parents[2]), os.path.abspath("here")
    assert bench.program() == (sys.executable, {"PYTHONPATH": os.pathsep.join([root, here])})
    other = {"PYTHONPATH": os.pathsep.join([str(checkout), here])}
    assert bench.program(str(checkout)) == (sys.executable, other)
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    with pytest.raises(InputError, match="neither a checkout"):
        bench.program(str(tmp_path / "environment"))
    python.chmod(0o755)
    if os.access(python, os.X_OK):
        for other in (python, python.parents[1]):
            assert bench.program(str(other)) == (str(python), {"PYTHONPATH": ""})


def test_peers_are_chosen_by_name_family_and_width(compare):
    assert choose("engine-other, minillm-steady,engine-other") == ["engine-other", "minillm-steady"]
    assert choose("engine")[0] == "engine-other" and len(choose("engine")) == 5
    assert {"llama.cpp-Q8_0", "ctranslate2-int8", "engine-other"} <= set(choose("8-bit"))
    assert choose("minillm-steady,minillm-steady@../a-b")[1] == "minillm-steady@../a-b"
    stored = ["minillm-stored", "llama.cpp-stored"]
    assert choose("all,stored") == [*(p for p in PEERS if p not in stored), *stored]
    assert choose(["minillm"])[-1] == "minillm-steady"
    with pytest.raises(InputError, match="peer 'nobody' is unknown; known: all, "):
        choose("minillm,nobody")


def test_a_file_in_several_types_after_several_prompts(
    compare, in_threads, monkeypatch, tmp_path, capsys
):
    """All lengths of a prompt have their turn in each round; what the file is not is made."""
    model, file, made = GPT2.random(CONFIG), tmp_path / "model.gguf", []
    model.save_pretrained(compare.folder)
    write_gguf(compare.folder, file, "F32")

    def converted(function, source, target, kind):
        assert (function, source) == (requantize, file)
        made.append((kind, write_gguf(source, target, kind)))

    monkeypatch.setattr(stored, "in_another_process", converted)
    peers = "engine-other,minillm-steady"
    sizes = ["--prompt", "2,4", "--new", "6", "--rounds", "2", "--peers", peers]
    args = ["bench", "--model", str(file), *sizes, "--stored", "F32,F16"]
    assert main(args) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    turns = [[kind, n, peer] for kind in ("F32", "F16") for n in "24" for peer in peers.split(",")]
    assert [line[:3] for line in lines[3:11]] == turns and lines[10][-1] == "reference"
    assert [kind for kind, _ in made] == ["F16"]
    assert main([*args, "--json"]) == 0
    types = json.loads(capsys.readouterr().out)["types"]
    assert [[run["prompt"] for run in found["runs"]] for found in types] == [[2, 4], [2, 4]]
    assert types[0]["file_bytes"] == file.stat().st_size > 1.5 * types[1]["file_bytes"]
    for run in types[0]["runs"]:
        assert [len(r["decode"]) for r in run["results"]] == [2, 2] == [len(run["bandwidth"])] * 2
    for words, message in (
        (["--stored", "Q9"], "type 'Q9' is unknown; known: F32, F16"),
        (["--prompt", "2,no"], "--prompt is '2,no'; it is a number of at least 1, or several"),
        (["--prompt", "2,0"], "--prompt is '2,0'"),
        (["--prompt", "2,30"], "30 + 6 tokens do not fit the model's 32 positions"),
        (["--busy", "1"], "--busy does not go together with --stored"),
        (["--model", str(compare.folder)], "--stored is for a model in a GGUF file: minillm conv"),
    ):
        assert main([*args, *words]) == 2
        assert message in capsys.readouterr().err


def test_a_folder_after_several_prompts(compare, in_threads, capsys):
    """The same table as of a file; what is due is each peer's weights, there being no one file."""
    GPT2.random(CONFIG).save_pretrained(compare.folder)
    peers = "engine-other,minillm-steady"
    args = ["bench", "--model", str(compare.folder), "--prompt", "2,4", "--new", "6"]
    args += ["--rounds", "2", "--peers", peers]
    assert main(args) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    turns = [["F32", n, peer] for n in "24" for peer in peers.split(",")]
    assert [line[:3] for line in lines[3:7]] == turns
    assert lines[9][:4] == ["type", "peer", "weights", "KV"] and lines[11][2] == "0.0"
    assert main([*args, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["types"]
    assert (found["type"], found["file_bytes"]) == ("F32", None)
    assert [run["prompt"] for run in found["runs"]] == [2, 4]


def test_the_groups_that_the_help_names_are_there(capsys):
    assert main(["bench", "--model", "tales-draft", "--peers", "nobody"]) == 2
    listed = capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    said = " ".join(capsys.readouterr().out.replace("-\n", "-").split())
    assert "known: " + ", ".join(GROUPS) in listed and "groups: " + ", ".join(
        GROUPS
    ) in said.replace("- ", "-")
    assert all(peer in listed for peer in PEERS)


def test_the_names_are_public():
    assert bench.run is run_function and bench.PeerResult and bench.PeerComparison


def test_peers_for_another_processor(monkeypatch, tmp_path):
    """What Numba is told reaches it, and engines compiled for that processor come first."""
    pytest.importorskip("numba")
    monkeypatch.setenv("MINILLM_PEERS", str(tmp_path))
    (tmp_path / "haswell").mkdir()
    (tmp_path / "haswell" / "llama_cpp.py").write_text("name = 'another'")
    program = (
        "import llama_cpp; from minillm.kernels.processor import CPU; print(llama_cpp.name, CPU)"
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(bench.__file__).parents[2]))
    environment = os.environ | bench.for_processor("haswell")
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["another", "haswell"], done.stderr


def test_others_at_work_meanwhile_are_told_of(monkeypatch, caplog):
    counts = iter([(0.0, 0.0, 0.0), (10.0, 9.0, 1.0)])
    monkeypatch.setattr(load, "_counted", lambda: next(counts))
    run_module.in_rounds(1, lambda keep: None, what="tales")
    assert "others took 80 % of the processors while tales was measured" in caplog.text


def test_where_no_engine_is_installed_nothing_is_started(monkeypatch, capsys):
    monkeypatch.setattr(run_module, "find_spec", lambda module: None)
    monkeypatch.setattr(run_module, "_Worker", None)
    for args, module in (
        (["--peers", "llama.cpp-F32,llama.cpp-Q8_0"], "llama_cpp"),
        (["--peers", "ctranslate2"], "ctranslate2"),
        (["--busy", "1", "--peers", "llama.cpp-F32"], "llama_cpp"),
        (["--batch", "2", "--peers", "llama.cpp-F32"], "llama_cpp"),
        (["--train", "small", "--peers", "torch-eager"], "torch"),
    ):
        assert main(["bench", *([] if "--train" in args else ["--model", "tales"]), *args]) == 2
        out, err = capsys.readouterr()
        package = {"llama_cpp": "llama-cpp-python"}.get(module, module)
        assert not out and f"{module} is not installed: python -m pip install {package}" in err
        assert err.count("\n") == 1
    for args in (
        ["tales", "--measure", "--engine", "llama.cpp"],
        ["--errors", "--engine", "llama.cpp"],
    ):
        assert main(["datasheet", *args]) == 2
        assert capsys.readouterr().err.count("\n") == 1
