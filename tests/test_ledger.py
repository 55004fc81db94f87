"""The ledger: what it measures is what it says, levers combine, and an interruption keeps what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm import InputError
from minillm.bench import ledger as room
from minillm.bench.ledger import Entry, frontier, ledger
from minillm.bench.levers import LEVERS, Way, apply_levers
from minillm.cli import main
from minillm.ops import log_softmax
from minillm.scoring import score_long

TEXT = "Once upon a time there was a king who had a daughter. She was beautiful, but proud; and none was good enough. " * 30
SIZES = {"n_prompt": 12, "n_new": 6, "rounds": 1, "quality_tokens": 96}
MODEL, TOKENIZER = minillm.load("tales-draft")


def entries_of(*names, **sizes):
    return ledger(MODEL, TOKENIZER, TEXT, names, **{**SIZES, **sizes})


def test_exact_levers_change_nothing_and_others_are_what_scoring_says():
    exact = ("no-cache", "chunk:5", "batch:3", "ngram", "draft:int8")
    entries = {e.levers: e for e in entries_of(*exact, "int4", "skip:0", "window:8", "int8+ngram", "neurons:128+int8")}
    assert not [e.missing for e in entries.values() if e.missing]
    ids = TOKENIZER.encode(TEXT)[:97]
    text = TOKENIZER.decode(ids)
    for name in ("plain", *exact):
        e = entries[name]
        assert e.proof and e.change == 0 and e.divergence == 0 and e.decode and e.prefill
    p = log_softmax(MODEL(ids[:-1]))
    for name, model in (("plain", MODEL), ("int4", MODEL.quantize("int4")), ("int8+ngram", MODEL.quantize("int8"))):
        e = entries[name]
        scored = score_long(model, TOKENIZER, text, 96, show_progress=False)
        first = len(TOKENIZER.decode_bytes(ids[:1]))  # it is given, so its bytes do not count here
        expected = scored.bits_per_byte * scored.n_bytes / (scored.n_bytes - first)
        assert e.bits_per_byte == pytest.approx(expected, rel=1e-5)
        q = log_softmax(model(ids[:-1]))
        assert e.divergence == pytest.approx((np.exp(p) * (p - q)).sum() / np.log(2) / 96, abs=1e-5)
    assert not entries["int4"].proof and entries["int4"].divergence > 0 < entries["window:8"].divergence
    assert entries["int4"].weight_bytes < entries["plain"].weight_bytes / 4
    assert entries["draft:int8"].weight_bytes > entries["plain"].weight_bytes
    assert entries["batch:3"].cache_bytes == 3 * entries["plain"].cache_bytes and entries["no-cache"].cache_bytes == 0
    assert entries["window:8"].cache_bytes == entries["plain"].cache_bytes * 8 // 18


def test_every_proof_is_a_test():
    source = (Path(__file__).parent / "decoding" / "test_levers.py").read_text()
    for lever in LEVERS.values():
        assert lever.proof is None or f"    {lever.proof},\n" in source[source.index("PROOFS = [") :]


def test_what_cannot_apply_says_so_and_the_rest_is_measured():
    found = {e.levers: e.missing for e in entries_of("low-rank:999", "sparse:1.2", "draft:nowhere", "batch:2+ngram", "heads:2")}
    assert "rank 999" in found["low-rank:999"] and "sparsity is 1.2" in found["sparse:1.2"]
    assert "nowhere" in found["draft:nowhere"] and "a batch and a draft" in found["batch:2+ngram"]
    assert found["plain"] is None and found["heads:2"] is None


@pytest.mark.parametrize(
    ("names", "message"),
    [("warp", "lever 'warp' is unknown; known: no-cache"), ("int8:3", "int8 takes no value"), ("batch", "batch takes a value")],
)
def test_unreadable_levers(names, message):
    with pytest.raises(InputError, match=message):
        apply_levers(Way(MODEL, TOKENIZER, []), names)
    with pytest.raises(InputError, match="'x' is no int"):
        apply_levers(Way(MODEL, TOKENIZER, []), "batch:x")


def test_too_short_a_text():
    with pytest.raises(InputError, match="1,281 are needed"):
        ledger(MODEL, TOKENIZER, TEXT[:800], [])


def test_the_frontier_is_what_none_beats():
    points = {"a": (10, 2.0), "b": (20, 2.0), "c": (30, 2.5), "d": (25, 2.6), "e": (5, 1.9)}
    entries = [Entry(name, decode=[speed], bits_per_byte=bits) for name, (speed, bits) in points.items()]
    assert [e.levers for e in frontier([*entries, Entry("nothing")])] == ["e", "b", "c"]


def test_an_interruption_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    (tmp_path / "text").write_text(TEXT)
    right, calls = room._speed, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return right(*args)

    monkeypatch.setattr(room, "_speed", interrupted)
    arguments = ["--model", "tales-draft", "--prompt-tokens", "8", "--max-new-tokens", "4", "--quality-tokens", "32"]
    code = main(["compare", str(tmp_path / "text"), *arguments, "--levers", "int8", "int4", "--json"])
    out, err = capsys.readouterr()
    entries = json.loads(out)
    assert code == 130 and "interrupted" in err and [e["levers"] for e in entries] == ["plain", "int8", "int4"]
    assert [len(e["decode"]) for e in entries] == [1, 0, 0] and all(e["bits_per_byte"] for e in entries)


def test_the_command_prints_a_table_and_draws(tmp_path, capsys):
    (tmp_path / "text").write_text(TEXT)
    arguments = ["--model", "tales-draft", "--prompt-tokens", "8", "--max-new-tokens", "4", "--quality-tokens", "32"]
    picture = tmp_path / "ledger.png"
    levers = ["--rounds", "1", "--levers", "int8", "sparse:7", "--plot", str(picture)]
    assert main(["compare", str(tmp_path / "text"), *arguments, *levers]) == 2  # what can be measured is
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["plain", "int8", "sparse:7"]
    assert "is the reference" in out and "sparsity is 7.0" in err and picture.stat().st_size > 10_000
    assert main(["compare", str(tmp_path / "text"), "--levers", "?"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(LEVERS)
    assert main(["compare", str(tmp_path / "text"), "--rounds", "0"]) == 2
