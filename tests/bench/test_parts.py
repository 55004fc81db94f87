"""The parts of a training step in time, of a shape that takes no time."""

import pytest

pytest.importorskip("numba")

from minillm import GPT2Config
from minillm.bench import trainers
from minillm.bench.parts import REST, WAYS, step_parts
from minillm.cli import main

TINY = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=50, n_positions=8), (2, 8)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(trainers.SHAPES, "small", TINY)


def test_parts_add_up_to_the_step():
    plain, bfloat16, again = (step_parts("small", *way, steps=1) for way in WAYS)
    for found in (plain, bfloat16, again):
        assert sum(found.seconds.values()) == pytest.approx(found.whole) and found.seconds[REST] > 0
        for part in ("products", "attention", "activation", "norms", "loss"):
            assert found.seconds[part] > 0 and found.seconds[f"{part}, backward"] > 0
        assert found.seconds["AdamW"] > 0 and found.seconds["embedding, backward"] > 0
    assert again.bytes < plain.bytes == bfloat16.bytes


def test_as_a_table(capsys):
    assert main(["clock", "--train", "small", "--threads", "1"]) == 0
    told = capsys.readouterr().out
    assert "1 threads" not in told and "float32, recompute" in told and "products, backward" in told
    assert main(["clock", "--train", "small", "Once"]) == 2
    assert "--train needs no prompt" in capsys.readouterr().err
