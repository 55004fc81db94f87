"""What a prompt and a decode step cost, counted; and the machine, which answers as a peer."""

import dataclasses

import pytest

from minillm import GPT2, GPT2Config, kernels
from minillm.bench import roofline
from minillm.bench.convert import bytes_read
from minillm.clock.costs import step_costs
from minillm.layers.cache import KVCache, position_bytes
from minillm.twins import n_threads, set_threads

CONFIG = GPT2Config(vocab_size=97, n_positions=32, n_embd=16, n_layer=2, n_head=2)


def test_what_a_decode_step_reads_and_a_prompt_costs():
    for tied in (True, False):
        config = dataclasses.replace(CONFIG, tie_word_embeddings=tied)
        model = GPT2.random(config)
        rows = 32 * 16 + (0 if tied else 97 * 16)  # wpe, and wte where it is not the head
        sizes = {name: p.nbytes for name, p in model.parameters.items()}
        assert bytes_read(sizes, config) == 4 * (model.n_parameters - rows)
    counted = 0

    def step(name, value):
        nonlocal counted
        inputs = {"c_attn": 16, "c_fc": 16, "logits": 16, "out": 64 if ".mlp." in name else 16}.get(
            name.rpartition(".")[2], 0
        )
        counted += 2 * inputs * value.size
        return value

    model(range(5), last=True, step=step)
    # two layers; scores and values
    assert roofline.prefill_flop(CONFIG, 5) == counted + 2 * 4 * 16 * (1 + 2 + 3 + 4 + 5)
    assert roofline.prefill_flop(GPT2Config(), 512) / 1e9 == pytest.approx(91.9, abs=0.1)
    pruned = dataclasses.replace(CONFIG, n_head=1, head_size=4, n_inner=9)
    dense = sum(cost.products for cost in step_costs(pruned, 5).values())  # masked pairs too
    assert roofline.prefill_flop(pruned, 5) == dense - 2 * 4 * 4 * (4 + 3 + 2 + 1)
    assert position_bytes(pruned, "float32") * pruned.n_positions == KVCache(pruned).nbytes


def test_the_machine_answers_as_a_peer(monkeypatch):
    monkeypatch.setattr(roofline, "ARRAYS", (2**20,))
    before = n_threads(kernels)
    machine = roofline.Machine()
    machine.load("", 2)
    assert n_threads(kernels) == machine.threads == 2
    set_threads(before)
    assert all(1e8 < rate < 1e14 for rate in machine.measure([1], 1).values())
