"""Several texts that decode together: each as it is alone, counted and compared as they are."""

from __future__ import annotations

import importlib.util
import json
from itertools import count

import pytest

from minillm import InputError
from minillm.bench import batch, peers
from minillm.bench.peers import PEERS
from minillm.bench.run import random_ids, started
from minillm.cli import main
from minillm.machine.child import how_it_ended
from tests.bench.workers import CONFIG, Steady
from tests.families.able import lively

N_NEW = 6


class Late(Steady):
    """Gives other tokens after those above 50."""

    def decode(self, token):
        return super().decode(token) + (token > 50)


@pytest.fixture
def together(compare, in_threads, monkeypatch):
    """Fakes, in threads, that need no pause."""
    monkeypatch.setattr(batch, "PAUSE", 0)
    monkeypatch.setitem(PEERS, "engine-late", Late)
    return compare.folder


def test_rates_of_all_texts_and_where_they_part(together, monkeypatch):
    readings = count()
    monkeypatch.setattr(peers, "clocks", lambda: (next(readings), 0))  # all takes a second
    names = ["engine-late", "minillm-steady", "engine-other", "alone", "engine-dying"]
    found = batch.run(together, names, [3, 8], 4, N_NEW, rounds=2)
    assert [(r.batch, r.name) for r in found.results] == [(n, x) for n in (3, 8) for x in names]
    last = [ids[-1] for ids in random_ids(CONFIG, 4, N_NEW, 8)]
    for late, steady, other, alone, dying in (found.results[:5], found.results[5:]):
        B = late.batch
        for result in (late, steady, other):
            assert result.rates == [B * N_NEW] * 2
        assert steady.tokens == [[i + 1 + n for n in range(N_NEW)] for i in last[:B]]
        assert found.reference(late) is steady and found.alike(steady) == [late, steady]
        assert found.reference(other) is other  # of 8 bits
        steady.rates = [B * N_NEW, B * N_NEW / 4]
        assert found.ratio(late) == 1 and found.ratio(steady) == 5 / 8  # the median of 1 and 1/4
        parted = [max(i, 51) / 1000 for i in last[:B] if i + N_NEW - 1 > 50]
        assert 0 < len(parted) < B
        same, gap = late.agreement(steady)
        assert same == B - len(parted) and gap == pytest.approx(max(parted))
        assert steady.agreement(steady) == (B, 0)
        assert alone.missing == "it is not asked here to decode several texts together"
        assert dying.missing == f"failed: {how_it_ended(7)}"


def test_the_command(together, capsys):
    args = ["bench", "--model", str(together), "--prompt", "4", "--new", str(N_NEW)]
    args += ["--rounds", "1", "--batch", "8,3", "--peers", "engine-late,minillm-steady,alone"]
    assert main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[3:7]]
    assert [row[:2] for row in rows] == [
        [n, name] for n in "83" for name in ("engine-late", "minillm-steady")
    ]
    assert rows[1][-1] == rows[3][-1] == "reference" and rows[0][-2] == "same"
    assert lines[-1].startswith("alone: missing (")
    assert main([*args, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    late, steady, alone = values["results"][:3]
    assert steady["same_texts"] == 8 > late["same_texts"] and late["gap"] > 0.05
    assert late["ratio"] == 1 and alone["missing"] and len(steady["rates"]) == values["rounds"]
    for words, message in (
        (["--batch", "8,x"], "--batch is '8,x'; it is a number of at least 1, or several"),
        (["--batch", "600"], "--batch is '600'; at most 512"),
        (["--prompt", "1"], "the prompt has 1 token; it must have 2 at least"),
        (["--prompt", "30"], "30 + 6 tokens do not fit the model's 32 positions"),
        (["--prompt", "2,4"], "--batch does not go together with several prompts"),
        (["--busy", "2"], "--batch does not go together with --busy"),
        (["--peers", "alone"], "no peer could be measured: alone: it is not asked here"),
    ):
        assert main([*args, *words]) == 2
        assert message in capsys.readouterr().err


NEEDS = {"minillm-numpy": (), "llama.cpp-F32": ("llama_cpp",)}
NEEDS |= {"minillm-float32": ("numba",), "transformers-fp32": ("transformers", "torch")}


@pytest.mark.parametrize(
    "name",
    [
        "minillm-numpy",
        *(pytest.param(name, marks=pytest.mark.live) for name in [*NEEDS][1:]),
    ],
)
def test_texts_together_are_what_each_is_alone(name, request, tmp_path):
    """The model's weights are large, so that no two logits are as near as rounding."""
    if missing := [package for package in NEEDS[name] if not importlib.util.find_spec(package)]:
        pytest.skip(f"needs {missing[0]}")
    if name == "minillm-numpy":
        request.getfixturevalue("in_threads")
    lively(CONFIG).save_pretrained(tmp_path)
    ids, another = (random_ids(CONFIG, n, N_NEW, 4) for n in (5, 7))
    with started([name], tmp_path, 1, "float32") as (workers, _):
        ask = workers[name].answer
        one = {"ids": ids[0], "n_new": N_NEW - 1}
        alone = [ask(one | {"ids": prompt})["tokens"] for prompt in ids]
        several = {"ids": ids, "n_new": N_NEW, "gaps": True}
        for B in (4, 2, 3):
            found = ask(several | {"batch": B})
            assert found["tokens"] == alone[:B]
            assert min(map(min, found["gaps"])) > 1e-3 and {*map(len, found["gaps"])} == {N_NEW}
        assert ask(several | {"ids": another, "batch": 2})["tokens"] != alone[:2]
        assert ask(one)["tokens"] == alone[0]  # and again one alone


@pytest.mark.live
def test_llama_cpp_and_transformers_beside_ours(capsys):
    """A text may part where logits are as near as activations of float16 make them: 0.01 of 5."""
    pytest.importorskip("llama_cpp")
    pytest.importorskip("transformers")
    names = ["llama.cpp-F32", "transformers-fp32", "minillm-float32", "ctranslate2-fp32"]
    found = batch.run("weights/tales", names, [2, 5], 8, 12, 1, 1, "float32")
    for result in found.results:
        if result.name.startswith("ctranslate2"):
            assert result.missing
            continue
        n, gap = result.agreement(found.reference(result))
        assert n > 0 and gap < 1e-2 and not result.missing, result
    with pytest.raises(InputError, match="1 token"):
        batch.run("weights/tales", names, [2], 1, 12)
