"""The training step compared: peers in their own processes, on a shape that takes no time."""

import json
import sys

import pytest

from minillm import GPT2Config, InputError, LlamaConfig
from minillm.bench import trainers
from minillm.bench.peers import PEERS
from minillm.cli import main

TINY = GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50, n_positions=8), (2, 8)
LLAMA = LlamaConfig(
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    hidden_size=16,
    intermediate_size=32,
    vocab_size=50,
    max_position_embeddings=8,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(trainers.SHAPES, "small", TINY)
    monkeypatch.setitem(trainers.SHAPES, "llama", (LLAMA, (2, 8)))


def test_the_arithmetic_of_a_step():
    """By hand: 2 for each weight of the matrices and of the head and each token, and attention;
    three times."""
    L, C, T, B, V = 1, 16, 8, 2, 50
    matrices, pairs = 12 * C * C * L, T * (T + 1) // 2
    assert trainers.step_flop(TINY[0], B, T) == 3 * B * (
        2 * T * (matrices + V * C) + 4 * C * pairs * L
    )


def test_minillm_alone(capsys, monkeypatch):
    """Kernels are not compiled, which would take longer than all others together, and the machine
    is not measured."""
    pytest.importorskip("numba")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setattr(sys.modules["minillm.bench.run"], "WORKER", ("-m", "tests.bench.workers"))
    assert (
        main(
            [
                "bench",
                "--train",
                "small",
                "--peers",
                "minillm",
                "--rounds",
                "2",
                "--threads",
                "1",
                "--json",
            ]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    (result,) = found["results"]
    assert (
        result["ratio"] == 1
        and len(result["rates"]) == len(found["flops"]) == 2
        and result["share"] > 0
    )
    assert 0 < result["step_bytes"] < result["peak_bytes"] and result["loss"] < 3.9


@pytest.mark.live
@pytest.mark.parametrize("shape", ["small", "llama"])
def test_all_do_the_same_work(shape, capsys):
    """The losses after six steps from the same weights: float32 to 1e-4, bfloat16 to 1e-2."""
    pytest.importorskip("transformers")
    assert main(["bench", "--train", shape, "--rounds", "2", "--threads", "1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[3:6]]
    assert [line[0] for line in lines] == ["torch-eager", "minillm", "minillm-mixed"]
    torch, ours, halves = (float(line[-2]) for line in lines)
    assert ours == pytest.approx(torch, abs=1e-4) and halves == pytest.approx(torch, abs=1e-2)


def test_what_cannot_be(capsys):
    with pytest.raises(
        InputError,
        match=r"peer 'llama.cpp' does not train; known: all, torch-eager, minillm, minillm-mixed",
    ):
        trainers.run("small", "minillm,llama.cpp")
    assert main(["bench", "--train", "small", "--plot", "x.png"]) == 2
    assert "--plot does not go together with --train" in capsys.readouterr().err


def test_every_peer_has_a_name_of_its_own():
    """The worker finds those that generate and those that train by name alone."""
    assert not PEERS.keys() & trainers.TRAINERS.keys()
