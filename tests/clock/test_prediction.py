"""Predictions from limits that are made up, so that what must come out is known; and the limits'
own file."""

import math
from dataclasses import replace

import pytest

from minillm import GPT2, GPT2Config, InputError, kernels, ops
from minillm.clock import check
from minillm.clock import limits as limits_module
from minillm.clock.limits import Limits, measure
from minillm.clock.prediction import predict, predicted_seconds
from minillm.families.gpt2 import step_names
from minillm.weights import store_parameters

NEEDS_NUMBA = pytest.mark.skipif(not kernels.available(), reason="Numba is not installed")
GPT2_124M = GPT2Config()
READABLE = [*step_names(12), "probs", "next"]
BLOCK = ("ln_1", "attn.c_attn", "attn.context", "attn.residual", "ln_2", "mlp.act", "mlp.residual")
FUSED = [
    "embed",
    *(f"h.{i}.{name}" for i in range(12) for name in BLOCK),
    "ln_f",
    "logits",
    "probs",
    "next",
]


def made_up(
    bandwidth=math.inf,
    row=math.inf,
    rows=math.inf,
    elements=math.inf,
    call=0.0,
    launch=0.0,
    meet=0.0,
):
    rates = {"float32": row, "int8": row}
    return Limits(
        {}, 2, {65536: bandwidth}, rates, {k: rows for k in rates}, elements, call, launch, meet
    )


def test_memory_alone_reads_the_weights_once():
    p = predict(GPT2_124M, made_up(bandwidth=1e10), READABLE, 1, past=31)
    assert predicted_seconds(p) == pytest.approx(124.4e6 * 4 / 1e10, rel=0.02)
    assert all(q.binds == "memory" for name, q in p.items() if q.seconds)
    eighth = predict(GPT2_124M, made_up(bandwidth=1e10), READABLE, 1, past=31, kind="int8")
    assert predicted_seconds(eighth) == pytest.approx(predicted_seconds(p) * 1.0625 / 4, rel=0.03)


def test_arithmetic_alone_divides_flops_by_the_rate():
    p = predict(GPT2_124M, made_up(rows=1e11, row=1e9), READABLE, 512)
    blocks = 12 * 2 * (12 * 512 * 768**2 + 2 * 512**2 * 768)
    head = 2 * 768 * 50257  # one row: the last position's logits
    assert predicted_seconds(p) == pytest.approx(blocks / 1e11 + head / 1e9)
    assert (
        p["h.3.mlp.c_fc"].binds == "arithmetic"
        and p["h.3.mlp.c_fc"].seconds == 2 * 512 * 768 * 3072 / 1e11
    )


def test_the_larger_of_the_two_binds():
    limits = made_up(bandwidth=1e10, row=1e10, rows=1e10)
    p = predict(GPT2_124M, limits, READABLE, 1, past=10)["h.0.mlp.c_fc"]
    assert p.memory > p.arithmetic and p.seconds == p.memory and p.binds == "memory"
    p = predict(GPT2_124M, limits, READABLE, 64)["h.0.mlp.c_fc"]
    assert p.arithmetic > p.memory and p.seconds == p.arithmetic and p.binds == "arithmetic"


def test_a_longer_past_costs_its_keys_and_values():
    limits = made_up(bandwidth=1e10)
    short, long = (
        predicted_seconds(predict(GPT2_124M, limits, READABLE, 1, past=past)) for past in (31, 899)
    )
    assert long - short == pytest.approx(868 * 2 * 12 * 768 * 4 / 1e10, rel=0.05)


def test_the_fused_step_meets_five_times_a_block_and_launches_nobody():
    p = predict(GPT2_124M, made_up(launch=1.0, meet=0.001, call=50.0), FUSED, 1, past=10)
    assert predicted_seconds(p) == pytest.approx(0.001 * (5 * 12 + 1))
    assert p["h.5.attn.context"].binds == "waiting"


def test_the_readable_forward_calls_a_function_for_each_operation():
    p = predict(GPT2_124M, made_up(call=1.0), READABLE, 1, past=10)
    assert predicted_seconds(p) == 12 * 9 + 4


def test_bandwidth_lies_between_its_neighbours():
    limits = Limits({}, 1, {2**16: 100.0, 2**20: 20.0}, {}, {}, 1.0, 0.0, 0.0, 0.0)
    assert [limits.bandwidth_at(n) for n in (1, 2**16, 2**18, 2**20, 2**30)] == pytest.approx(
        [100, 100, 60, 20, 20]
    )


def test_stored_matrices_are_read_at_the_rate_of_all_together():
    limits = Limits(
        {},
        2,
        {2**20: 1e12, 2**26: 1e10},
        {"int8": math.inf, "float32": math.inf},
        {},
        math.inf,
        0.0,
        0.0,
        0.0,
    )
    p = predict(GPT2_124M, limits, FUSED, 1, past=31, kind="int8")
    # 1.9 MB a layer, of 135
    assert p["h.0.attn.c_attn"].seconds == pytest.approx(768 * 2304 * 1.0625 / 1e10, rel=0.02)
    assert p["logits"].seconds == pytest.approx(768 * 50257 * 1.0625 / 1e10, rel=0.02)


def test_limits_are_kept_with_the_machine(tmp_path):
    limits = replace(made_up(1e10, 1e11, 1e11, 1e9), step=2e-5)
    limits.save(tmp_path / "limits.json")
    assert Limits.load(tmp_path / "limits.json") == limits
    (tmp_path / "wrong.json").write_text('{"machine": {}}')
    with pytest.raises(InputError, match=r"wrong\.json: not limits as"):
        Limits.load(tmp_path / "wrong.json")


@pytest.mark.parametrize("twin", [ops, pytest.param(kernels, marks=NEEDS_NUMBA)])
def test_measured_limits_are_of_this_world(monkeypatch, twin):
    monkeypatch.setattr(limits_module, "ARRAYS", (2**16, 2**20))
    monkeypatch.setattr(limits_module, "BEST_OF", 1)
    limits = measure(twin, ["float32"])
    assert all(
        1e7 < rate < 1e13
        for rate in [*limits.bandwidth.values(), *limits.row.values(), *limits.rows.values()]
    )
    assert (
        0 < limits.call < 0.1
        and 0 <= limits.launch < 1
        and 0 <= limits.meet < 1
        and (0 < limits.step < 0.1 if twin is kernels else limits.step == 0)
        and limits.machine["cores"] >= 1
    )


@NEEDS_NUMBA
def test_a_check_compares_round_by_round(monkeypatch):
    monkeypatch.setattr(check, "READ", 2**22)
    config = GPT2Config(vocab_size=48, n_positions=16, n_embd=32, n_layer=1, n_head=2)
    model = GPT2.random(config)
    fused = GPT2(config, store_parameters(model.parameters, "int8", model.layout), kernels)
    found = check.check_predictions(
        fused, made_up(1e10, 1e11, 1e11, 1e9), [3, 15], "int8", rounds=4
    )
    assert [c.past for c in found] == [3, 15] and all(
        len(c.measured) == 4 and (c.ratio > 0).all() for c in found
    )
    with pytest.raises(InputError, match="context 16 must be from 1 to 15"):
        check.check_predictions(fused, made_up(), [3, 16])
    with pytest.raises(InputError, match="choose --kernels numba"):
        check.check_predictions(model, made_up(), [3])
