"""The clock itself: intervals, what it costs, and that a model computes as it does without."""

from itertools import pairwise

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError, kernels
from minillm.clock import Clock, ClockReport, groups
from minillm.decoding.generate import moments
from minillm.decoding.options import Options
from minillm.decoding.speculative import ModelDraft
from minillm.families.gpt2 import step_names
from minillm.steps import times_only, under
from minillm.weights import store_parameters

CONFIG = GPT2Config(vocab_size=48, n_positions=64, n_embd=32, n_layer=2, n_head=2)
MODEL = GPT2.random(CONFIG, seed=1)
FUSED = GPT2(CONFIG, store_parameters(MODEL.parameters, "float32", MODEL.layout), kernels)


class Hand(Clock):
    """A clock that a test moves by hand: 1 tick is 1 ns, and a stamp costs `cost`."""

    ticks_per_second, cost = 1e9, 3.0

    def __init__(self):
        super().__init__()
        self.time, self._now = 0, lambda: self.time

    def pass_by(self, name, ns):
        self.time += ns
        self(name, None)


def generated(model, step, n=5, prompt=(1, 2, 3)):
    return [m.id for m in moments(model, list(prompt), Options(max_new_tokens=n), step=step)]


def test_an_interval_belongs_to_the_name_that_ends_it():
    clock = Hand()
    clock.time = 100
    clock.begin("prefill", 1, 3)
    clock.pass_by("embed", 10)
    clock.pass_by("h.0.attn.context", 25)
    clock.pass_by("next", 2)
    clock.time += 50  # between cycles: nobody's
    clock.begin("decode", 1, 1, past=3)
    clock.pass_by("embed", 7)
    first, second = clock.cycles()
    assert (first.start, first.end, second.start, second.end) == (0, 37, 87, 94)
    assert first.gross.tolist() == [10, 25, 2] and first.gross.sum() == first.end - first.start
    assert first.net.tolist() == [7, 22, 0]  # less the cost of a stamp, and never below 0
    assert first.sums() == {"embed": 7, "attend": 22, "choose": 0}
    assert (second.kind, second.positions, second.past) == ("decode", 1, 3)
    assert {k: v.tolist() for k, v in groups(clock.cycles()).items()} == {
        "embed": [7, 4],
        "attend": [22, 0],
        "choose": [0, 0],
    }


def test_stamps_from_inside_a_kernel_cost_nothing():
    clock = Hand()
    clock.begin("decode", 1, 1)
    clock.stamps(["embed", "logits"], [4, 9])
    clock.time = 9
    clock.pass_by("next", 5)
    (cycle,) = clock.cycles()
    assert cycle.net.tolist() == [4, 5, 2] and clock.n_stamps == 1


def test_a_cycle_without_any_name_is_left_out():
    clock = Hand()
    clock.begin("prefill", 1, 3)
    clock.pass_by("embed", 10)
    clock.begin("decode", 1, 1)  # interrupted before its first step
    assert [cycle.kind for cycle in clock.cycles()] == ["prefill"]


def test_a_clock_that_saw_nothing_says_so():
    with pytest.raises(InputError, match="has seen no cycle: give it as `step`"):
        Clock().cycles()
    clock = Hand()
    clock.begin("prefill", 1, 3)
    with pytest.raises(InputError, match="no cycle that came to an end"):
        ClockReport(clock, CONFIG)


def test_the_name_that_the_report_had_in_0_1_still_works_and_says_the_new_one():
    with pytest.warns(FutureWarning, match="ClockReport"):
        from minillm.clock import Report
    assert Report is ClockReport


@pytest.mark.parametrize("model", [MODEL, FUSED], ids=["numpy", "fused"])
@pytest.mark.parametrize("every_step", [False, True])
def test_the_tokens_are_those_without_a_clock(model, every_step):
    clock = Clock(every_step)
    assert generated(model, clock) == [
        m.id for m in moments(model, [1, 2, 3], Options(max_new_tokens=5))
    ]
    cycles = clock.cycles()
    assert [(c.kind, c.positions, c.past) for c in cycles] == [
        ("prefill", 3, 0),
        *(("decode", 1, 3 + i) for i in range(4)),
    ]


def test_every_step_of_the_readable_forward_is_there():
    for model in (MODEL, FUSED):
        clock = Clock(every_step=True)
        generated(model, clock)
        assert all(list(c.names) == [*step_names(2), "probs", "next"] for c in clock.cycles())


def test_a_clock_leaves_the_fused_step_and_streaming_attention_at_work():
    clock = Clock()
    clock.begin("prefill", 1, 40)
    FUSED(np.arange(40), step=clock)  # without a cache the fused step has no place for its keys
    generated(FUSED, clock, prompt=range(40))
    readable, *fused = clock.cycles()
    assert (
        "h.0.attn.context" in readable.names
        and "h.0.attn.scores" not in readable.names
        and "wte" in readable.names
    )
    for cycle in fused:
        assert cycle.names[:3] == ("embed", "h.0.ln_1", "h.0.attn.c_attn") and cycle.names[-3:] == (
            "logits",
            "probs",
            "next",
        )
        assert "h.0.mlp.c_fc" not in cycle.names
    assert clock.n_stamps == len(readable.names) + 2 * len(fused)


def test_phases_sum_to_the_time_of_the_cycles():
    clock = Clock()
    generated(FUSED, clock, n=20)
    cycles = clock.cycles()
    for cycle in cycles:
        assert cycle.gross.min() >= 0 and cycle.gross.sum() == pytest.approx(
            cycle.end - cycle.start
        )
        assert sum(cycle.sums().values()) == pytest.approx(cycle.net.sum())
    assert all(a.end <= b.start for a, b in pairwise(cycles))
    report = ClockReport(clock, CONFIG)
    # 0.98 for the bundled model; a machine may pause between any two cycles
    assert 0.5 < report.inside <= 1
    assert 0 < clock.cost < 100_000 and 0 < report.measuring < 1
    assert report.between_tokens(50) <= report.between_tokens(99)


def test_only_the_clock_is_for_times_only():
    assert times_only(Clock()) and times_only(under("h.0.", Clock()))
    assert not times_only(Clock(every_step=True)) and not times_only(
        under("h.0.", lambda name, value: value)
    )


def test_the_report_has_a_row_for_each_phase_and_its_parts_sum_up():
    clock = Clock()
    generated(FUSED, clock)
    rows = ClockReport(clock, CONFIG).rows
    assert [r.phase for r in rows if not r.part] == [
        "embed",
        "attend",
        "feed forward",
        "unembed",
        "choose",
        "cycle",
    ]
    for phase in ("attend", "feed forward", "unembed"):
        whole = next(r for r in rows if r.phase == phase and not r.part)
        assert sum(r.prefill for r in rows if r.phase == phase and r.part) == pytest.approx(
            whole.prefill
        )
    assert [r.part for r in rows if r.phase == "attend"][1:] == [
        "norm",
        "qkv",
        "scores + softmax + context",
        "projection + residual",
    ]
    clock = Clock(every_step=True)
    generated(MODEL, clock)
    parts = [r.part for r in ClockReport(clock, CONFIG).rows]
    assert (
        parts.index("scores")
        < parts.index("softmax")
        < parts.index("context")
        < parts.index("activate")
    )


def test_without_numba_the_clock_reads_the_systems(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: False)
    clock = Clock()
    assert clock.source == "time.perf_counter_ns"
    generated(MODEL, clock, n=2)
    assert clock.ticks_per_second == pytest.approx(1e9, rel=0.05) and np.isfinite(
        clock.cycles()[0].end
    )


def test_a_token_is_known_when_next_passes():
    clock = Hand()
    clock.cost = 0.0
    clock.begin("prefill", 1, 3)
    clock.pass_by("logits", 10)  # a chunk of the prompt: no token
    clock.begin("prefill", 1, 2, past=3)
    clock.pass_by("next", 10)
    clock.begin("verify", 1, 2, past=5)
    clock.pass_by("next", 7)
    clock.pass_by("next", 1)
    report = ClockReport(clock, CONFIG)
    assert (
        report.token_times == [20, 27, 28]
        and report.first_token == 20
        and report.between_tokens(50) == 4
    )


def test_drafts_and_their_checks_pass_through_the_clock():
    """The guesser's cycles lie between the model's, in time and in order; whoever looks at values
    sees the model's only."""
    guesser = GPT2.random(
        GPT2Config(vocab_size=29, n_positions=24, n_embd=8, n_layer=1, n_head=2), seed=3
    )
    model = GPT2.random(
        GPT2Config(vocab_size=29, n_positions=24, n_embd=16, n_layer=2, n_head=2), seed=1
    )
    clock, widths, options = Clock(), set(), Options(max_new_tokens=9)
    story = list(moments(model, [1, 2, 3], options, clock, ModelDraft(guesser, 2)))
    passes = list(dict.fromkeys(c for m in story for c in (*m.before, m.cycle)))
    cycles = clock.cycles()
    assert [(c.kind, c.positions) for c in cycles] == [(c.kind, c.positions) for c in passes]
    assert {"draft", "verify"} < {c.kind for c in cycles}
    assert sum(c.moments for c in cycles) == 9 == len(ClockReport(clock, model.config).token_times)
    assert all(a.end <= b.start for a, b in pairwise(cycles))
    said = "\n".join(ClockReport(clock, model.config).summary())
    assert f"draft cycles: {sum(c.kind == 'draft' for c in cycles)} of" in said
    assert f"tokens known: {sum(c.moments for c in cycles if c.kind == 'verify')}\n" in said

    def look(name, value):
        widths.update([value.shape[-1]] if name.endswith("ln_1") else [])
        return value

    list(moments(model, [1, 2, 3], options, look, ModelDraft(guesser, 2)))
    assert widths == {16}
