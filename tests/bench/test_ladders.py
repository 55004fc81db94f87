"""The ladders' table: every rung once, beside BLAS and the peak; shares are of rates that were
measured."""

import json

import pytest

pytest.importorskip("numba")

from minillm.bench import ladders
from minillm.cli import main
from minillm.kernels.ladders import MATMUL, SOFTMAX


@pytest.fixture
def short(monkeypatch):
    """Little work and no pauses."""
    monkeypatch.setattr(ladders, "ROWS", 16)
    monkeypatch.setattr(ladders, "WIDTH", 32)
    monkeypatch.setattr(ladders, "PAUSE", 0)
    monkeypatch.setattr(ladders, "LONG", 1e-6)


def test_every_rung_and_its_shares(short, capsys):
    assert main(["bench", "--ladders", "--rounds", "3", "--threads", "2", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert all(len(rung["rates"]) == 3 and min(rung["rates"]) > 0 for rung in values)
    names = {
        group: [rung["name"] for rung in values if rung["group"] == group]
        for group in {r["group"] for r in values}
    }
    *alone, last = MATMUL
    beside = [ladders.STORED, ladders.BLAS, ladders.PEAK]
    assert names["matmul [16,32] x [32,32], 1 thread"] == [*alone, *beside]
    assert names["matmul [16,32] x [32,32], 2 threads"] == [last, *beside]
    assert names["mlp.c_fc [16,768] x [768,3072], 2 threads"] == beside
    assert names["softmax [16,1024], 1 thread"] == list(SOFTMAX)[:-1]
    for rung in values:
        assert rung["shares"].get(rung["name"], 1.0) == 1.0 and rung["shares"]
    peak = next(rung for rung in values if rung["name"] == ladders.PEAK)
    assert 1e8 < max(peak["rates"]) < 1e13  # FLOP/s of one core


def test_the_table(short, capsys):
    assert main(["bench", "--ladders", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert (
        "of BLAS" in out
        and "of two_pass" in out
        and "naive" in out
        and "medians of 1 interleaved round" in out
    )
