"""The ledger: what it measures is what it says, levers combine, and an interruption keeps what was
measured."""

import json
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm import InputError
from minillm.bench import ledger as room
from minillm.bench.amdahl import Amdahl, amdahl
from minillm.bench.ledger import Entry, frontier, ledger
from minillm.bench.levers import LEVERS, Way, apply_levers
from minillm.cli import main, parser
from minillm.decoding.scoring import score_long
from minillm.ops import log_softmax
from minillm.twins import n_threads

TEXT = (
    "Once upon a time there was a king who had a daughter. She was beautiful, but proud; and none"
    " was good enough. " * 30
)
SIZES = {"n_prompt": 12, "n_new": 6, "rounds": 1, "quality_tokens": 96}
MODEL, TOKENIZER = minillm.load("tales-draft")


def entries_of(*names, **sizes):
    return ledger(MODEL, TOKENIZER, TEXT, names, **{**SIZES, **sizes})


def test_exact_levers_change_nothing_and_others_are_what_scoring_says():
    exact = ("no-cache", "chunk:5", "batch:3", "threads:1", "ngram", "draft:int8")
    others = ("int4", "skip:0", "window:8", "window:8+no-cache", "int8+ngram", "neurons:128+int8")
    entries = {e.levers: e for e in entries_of(*exact, *others)}
    assert not [e.missing for e in entries.values() if e.missing]
    ids = TOKENIZER.encode(TEXT)[:97]
    text = TOKENIZER.decode(ids)
    for name in ("plain", *exact):
        e = entries[name]
        assert e.proof and e.change == 0 and e.divergence == 0 and e.decode and e.prefill
    p = log_softmax(MODEL(ids[:-1]))
    for name, model in (
        ("plain", MODEL),
        ("int4", MODEL.quantize("int4")),
        ("int8+ngram", MODEL.quantize("int8")),
    ):
        e = entries[name]
        scored = score_long(model, TOKENIZER, text, 96, show_progress=False)
        first = len(TOKENIZER.decode_bytes(ids[:1]))  # it is given, so its bytes do not count here
        expected = scored.bits_per_byte * scored.n_bytes / (scored.n_bytes - first)
        assert e.bits_per_byte == pytest.approx(expected, rel=1e-5)
        q = log_softmax(model(ids[:-1]))
        assert e.divergence == pytest.approx((np.exp(p) * (p - q)).sum() / np.log(2) / 96, abs=1e-5)
    # the last 8 tokens, read anew
    nats = [-log_softmax(MODEL(ids[max(0, i - 8) : i])[-1])[ids[i]] for i in range(1, 97)]
    n_bytes = len(TOKENIZER.decode_bytes(ids[1:]))
    assert entries["window:8+no-cache"].bits_per_byte == pytest.approx(
        sum(nats) / np.log(2) / n_bytes, rel=1e-5
    )
    assert entries["window:8+no-cache"].cache_bytes == 0 and not entries["window:8+no-cache"].proof
    assert (
        not entries["int4"].proof
        and entries["int4"].divergence > 0 < entries["window:8"].divergence
    )
    assert entries["int4"].weight_bytes < entries["plain"].weight_bytes / 4
    assert entries["draft:int8"].weight_bytes > entries["plain"].weight_bytes
    assert (
        entries["batch:3"].cache_bytes == 3 * entries["plain"].cache_bytes
        and entries["no-cache"].cache_bytes == 0
    )
    assert entries["window:8"].cache_bytes == entries["plain"].cache_bytes * 8 // 18


def test_ends_of_text_are_scored_as_scoring_does():
    scored, rest = "Once upon a time.<|endoftext|>\r\nThe king<|endoftext|>\n", TEXT
    ids = TOKENIZER.encode_documents(scored)
    sizes = SIZES | {"quality_tokens": len(ids) - 1}
    (plain,) = ledger(MODEL, TOKENIZER, scored + rest, (), **sizes)
    expected = score_long(MODEL, TOKENIZER, scored, show_progress=False)
    n_bytes = expected.n_bytes - len(TOKENIZER.tokens[ids[0]])  # it is given
    assert ids.count(TOKENIZER.eot_id) == 2
    assert plain.bits_per_byte == pytest.approx(expected.nats.sum() / np.log(2) / n_bytes, rel=1e-5)
    with pytest.raises(InputError, match="has no byte"):
        ledger(MODEL, TOKENIZER, "<|endoftext|>" * 50 + rest, (), **SIZES | {"quality_tokens": 8})


def test_every_proof_is_a_test():
    source = (Path(__file__).parents[1] / "decoding" / "test_levers.py").read_text()
    for lever in LEVERS.values():
        assert (
            lever.proof is None or f"    {lever.proof},\n" in source[source.index("PROOFS = [") :]
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("low-rank:999", "^lever low-rank:999: rank 999"),
        ("sparse:1.2", "sparsity is 1.2"),
        ("draft:nowhere", "nowhere"),
        ("batch:2+ngram", "a batch and a draft"),
    ],
)
def test_what_cannot_apply_is_said_before_anything_is_measured(monkeypatch, name, message):
    monkeypatch.setattr(room, "_speed", lambda *args: pytest.fail("something was measured"))
    with pytest.raises(InputError, match=message):
        entries_of("heads:2", name)


def test_a_default_lever_that_cannot_apply_is_left_out():
    sizes = {"n_prompt": 8, "n_new": 2, "rounds": 1, "quality_tokens": 0}
    found = ledger(MODEL, TOKENIZER, TEXT, ["skip:9", "int8"], all_apply=False, **sizes)
    assert [entry.levers for entry in found] == ["plain", "int8"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("warp", "^lever warp: there is no 'warp'; known: no-cache"),
        ("int8:3", "int8 takes no value"),
        ("batch", "^lever batch: batch takes a value, batch:VALUE"),
        ("bacth:3", "did you mean batch"),
    ],
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
    entries = [
        Entry(name, decode=[speed], bits_per_byte=bits) for name, (speed, bits) in points.items()
    ]
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
    ] and "serial share" in page
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
    assert "is the reference" in out and err == "" and picture.stat().st_size > 10_000
    levers[levers.index("sparse:0.7")] = "sparse:7"
    assert main(["compare", str(tmp_path / "text"), *arguments, *levers]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "minillm: lever sparse:7: sparsity is 7.0" in err
    assert main(["compare", str(tmp_path / "text"), "--levers", "?"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(LEVERS)
    assert main(["compare", str(tmp_path / "text"), "--rounds", "0"]) == 2


# ---- Amdahl's law


def timed(levers, threads, seconds, rounds=3):
    return Entry(
        levers, threads=threads, prefill=[2 / seconds] * rounds, decode=[1 / seconds] * rounds
    )


def test_amdahls_law_is_found_in_times_that_follow_it():
    law = {n: 0.25 + 0.75 / n for n in (1, 2, 4)}
    entries = [
        timed("plain", 4, law[4]),
        timed("threads:1", 1, law[1]),
        timed("threads:2", 2, law[2]),
    ]
    entries += [
        timed("int8", 4, 1),
        timed("int8+threads:1", 1, 4),
        timed("batch:2", 4, 1),
        Entry("threads:3", threads=3),
    ]
    fits = amdahl(entries)
    assert [(f.base, f.kind) for f in fits] == [
        (b, k) for b in ("plain", "int8") for k in ("prefill", "decode")
    ]
    plain, perfect = fits[1], fits[3]
    assert plain.serial == pytest.approx([0.25] * 3) and plain.threads.tolist() == [1, 2, 4]
    assert plain.line([1, 2, 4]) == pytest.approx([1, 1.6, 1 / 0.4375]) and plain.measured[
        0
    ] == pytest.approx([1, 1.6, 1 / 0.4375])
    assert (
        "2 threads 1.60, 4 threads 2.29; serial share 0.25 (0.25 to 0.25 over rounds): at most 4.0"
        " times" in str(plain)
    )
    assert perfect.serial == pytest.approx([0] * 3, abs=1e-12) and plain.to_dict()[
        "speed_up"
    ] == pytest.approx([1, 1.6, 1 / 0.4375])
    assert amdahl([timed("plain", 2, 1)]) == []


@pytest.mark.parametrize(
    ("serial", "said"),
    [
        (
            [1.2, 1.5, 1.9],
            "no serial share, more threads made it slower (1.20 to 1.90 over rounds)",
        ),
        ([-0.4, 0.5, 0.6], "no serial share, too noisy to fit (-0.40 to 0.60 over rounds)"),
        ([0.2, 0.5, 1.4], "no serial share, too noisy to fit (0.20 to 1.40 over rounds)"),
    ],
)
def test_a_serial_share_that_is_no_share_is_not_said(serial, said):
    found = Amdahl("plain", "decode", np.array([1, 2]), np.ones((3, 2)), np.array(serial))
    assert said in str(found) and "at most" not in str(found) and not found.fits


def test_a_lever_of_threads_is_measured_with_that_many(monkeypatch):
    seen, right = [], room._rates
    before = n_threads(MODEL.ops)
    monkeypatch.setattr(
        room,
        "_rates",
        lambda way, *rest: (seen.append(n_threads(way.model.ops)), right(way, *rest))[1],
    )
    entries = entries_of("threads:1", "threads:2")
    assert (
        seen == [before, 1, 2] * 2
        and [e.threads for e in entries] == [before, 1, 2]
        and n_threads(MODEL.ops) == before
    )
