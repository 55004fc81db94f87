"""The ledger: what it measures is what it says, levers combine, and an interruption keeps what was
measured."""

from types import SimpleNamespace

import numpy as np
import pytest

import minillm
from minillm import InputError
from minillm.bench import ledger as room
from minillm.bench.ledger import Entry, frontier, gathered, ledger, shared
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


def test_too_short_a_text():
    with pytest.raises(InputError, match="1,281 are needed"):
        ledger(MODEL, TOKENIZER, TEXT[:800], [])


def test_the_frontier_is_what_none_beats():
    points = {"a": (10, 2.0), "b": (20, 2.0), "c": (30, 2.5), "d": (25, 2.6), "e": (5, 1.9)}
    entries = [
        Entry(name, decode=[speed], bits_per_byte=bits) for name, (speed, bits) in points.items()
    ]
    assert [e.levers for e in frontier([*entries, Entry("nothing")])] == ["e", "b", "c"]


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


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_levers_that_processes_share_come_back_in_order(size):
    """Each measures plain, too; that of the first counts."""
    names = ["a", "b", "c", "d"]
    parts = []
    for rank in range(size):
        mine = shared(names, SimpleNamespace(rank=rank, size=size))
        parts.append([Entry(name, threads=rank) for name in ("plain", *mine)])
    ranks = SimpleNamespace(all_gather=lambda own: parts)
    found = gathered(parts[-1], ranks)
    assert [e.levers for e in found] == ["plain", *names] and found[0].threads == 0
