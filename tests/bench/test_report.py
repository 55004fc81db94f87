"""What bench says of results that nobody measured."""

from __future__ import annotations

import json

import pytest

from minillm.bench import report
from minillm.bench.ladders import BLAS, NUMPY, PEAK, Rung
from minillm.bench.run import PeerComparison, PeerResult
from minillm.bench.stored import InType
from minillm.bench.trainers import TrainerComparison, TrainerResult


@pytest.fixture
def comparison():
    """Ours beside llama.cpp with as many bits, and with more; one is missing."""
    ours = PeerResult("minillm-int8", {"minillm": "1"}, peak_bytes=90_000_000, libraries=60_000_000)
    ours.weight_bytes, ours.cache_bytes = 20_000_000, 100_000
    llama = PeerResult("llama.cpp-Q8_0", {"llama": "2"}, 2, 20_000_000, peak_bytes=75_000_000)
    other = PeerResult("llama.cpp-F32", {"llama": "2"}, 2, 80_000_000, peak_bytes=150_000_000)
    for r, rate in ((ours, 200.0), (llama, 100.0), (other, 50.0)):
        r.prefill, r.decode, r.tokens = [rate, 4 * rate], [rate, rate], [1, int(rate), 3]
        r.bytes_per_token = 1e6
    missing = PeerResult("ctranslate2-int8", missing="gone")
    return PeerComparison(32, 8, 2e6, [ours, llama, other, missing], [1e9, 1e9], [1e10, 1e10])


def tables(found):
    return [part for part in found.parts if isinstance(part, report.Table)]


def test_what_the_model_takes_and_what_the_process(comparison):
    """30 MB above the libraries, where 24 are due; of a file, what it is long."""
    held = tables(report.of_peers(comparison, "a model", 2))[2]
    assert held.headings[:2] == ["peer", "weights"] and len(held.align) == len(held.headings)
    assert held.rows[0] == ["minillm-int8", "20.0", "4.0", "60", "30", "1.25", "90", "1.20"]
    assert held.rows[1] == ["llama.cpp-Q8_0", "20.0", "?", "?", "?", "?", "75", "1.00"]
    for size, due, row in (
        (36_000_000, "file", ["36.0", "4.0"]),
        (None, "weights", ["20.0", "4.0"]),
    ):
        held = tables(report.of_lengths([InType("F16", size, [comparison])], "m", 8, 2))[1]
        assert held.headings[2] == due and held.headings[6] == f"of {due} + KV"
        assert held.rows[0][:4] == ["F16", "minillm-int8", *row]


def test_rates_and_where_tokens_part(comparison):
    found = report.of_peers(comparison, "a model", 2)
    decode, prefill = tables(found)[:2]
    row = ["llama.cpp-Q8_0", "100.0", "100.0-100.0", "0.50", "1.0", "0.1", "10%", "differ from 1"]
    assert decode.rows[1] == row and decode.rows[0][-1] == "reference"
    assert prefill.rows[0][1:] == ["500.0", "200.0-800.0", "1.00", "2.0", "1.0", "10%", "64.0", 0]
    assert found.parts[-2:] == [
        "llama.cpp-Q8_0, llama.cpp-F32: llama 2",
        "ctranslate2-int8: missing (gone)",
    ]
    first, second, *_, last = json.loads(json.dumps(found.values))["results"]
    assert (first["decode_ratio"], second["decode_ratio"]) == (1, 0.5)
    assert first["same_tokens"] and not second["same_tokens"] and "decode_ratio" not in last


def test_one_round_has_no_range(comparison):
    for r in comparison.measured:
        r.prefill, r.decode = r.prefill[:1], r.decode[:1]
    for table in tables(report.of_peers(comparison, "a model", 1))[:2]:
        assert [row[1:3] for row in table.rows[:2]] == [["200.0", ""], ["100.0", ""]]
    lengths, _ = tables(report.of_lengths([InType("F16", None, [comparison])], "m", 8, 1))
    assert [lengths.rows[1][i] for i in (4, 5, 8, 9)] == ["0.50", "", "0.50", ""]


def test_a_rung_is_beside_what_its_group_is_measured_by():
    rungs = [
        Rung("products", name, 1, 1.0, list, [rate])
        for name, rate in (("one", 1e9), (BLAS, 4e9), (PEAK, 8e9))
    ]
    rungs += [
        Rung("softmax", name, 1, 1.0, list, [rate]) for name, rate in ((NUMPY, 2e9), ("x", 6e9))
    ]
    found = report.of_ladders(rungs, 1)
    products, softmax = tables(found)
    assert products.headings == ["", "GFLOP/s", f"of {BLAS}", f"of {PEAK}"]
    assert products.rows[0] == ["one", "1.00", "0.25", "0.12"]
    assert softmax.headings[1] == "numbers/ns" and softmax.rows[1] == ["x", "6.00", "3.00"]
    assert [value["shares"] for value in found.values][4] == {NUMPY: 3.0}


def test_a_training_step_without_a_peak():
    ours = TrainerResult("minillm", {"minillm": "1"}, 2, [50.0], 8.25, 3_000_000, 1, 2_000_000)
    torch = TrainerResult("torch-eager", {"torch": "2"}, 2, [100.0], 8.0)
    results = [torch, ours, TrainerResult("other", missing="gone")]
    found = report.of_training(TrainerComparison("small", (1, 2), 1e9, results, [1e12]), "it", 1)
    first, second = tables(found)[0].rows
    assert first[6:9] == ["?", "?", "8.00000"] and second[3:8] == ["0.50", "50", "5%", "3", "2"]
    assert found.parts[-1] == "other: missing (gone)"
    assert "ratio" not in found.values["results"][2] and found.values["results"][1]["ratio"] == 0.5
