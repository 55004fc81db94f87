"""The step seam: names, phases, Trace, Patch, Relay, diff."""

import numpy as np
import pytest

from minillm import GPT2, GPT2Config
from minillm.steps import Patch, Relay, Trace, diff, identity, phase_of, step_names, under

MODEL = GPT2.random(
    GPT2Config(vocab_size=31, n_positions=8, n_embd=8, n_layer=2, n_head=2),
    seed=3,
    dtype=np.float64,
)
IDS = np.array([3, 1, 4, 1, 5])


def test_identity_stays_identity_under_a_prefix():
    assert under("h.0.", identity) is identity
    assert under("h.0.", Trace())("ln_1", 5) == 5


def test_every_name_has_a_phase():
    phases = [phase_of(name) for name in [*step_names(2), "probs", "next"]]
    assert set(phases) == {"embed", "attend", "feed forward", "unembed", "choose"}
    assert phase_of("h.11.attn.residual") == phase_of("h.0.ln_1") == "attend"
    assert phase_of("h.1.ln_2") == phase_of("h.1.mlp.residual") == "feed forward"
    assert phase_of("ln_f") == "unembed"


def test_a_patch_changes_what_follows_and_nothing_before():
    before, after = MODEL.trace(IDS), Trace()
    logits = MODEL(IDS[None], step=Patch({"h.1.attn.context": lambda x: x * 0.0}, then=after))
    assert (after["h.1.attn.context"] == 0).all()
    assert (after["h.0.mlp.residual"] == before["h.0.mlp.residual"]).all()
    assert not np.allclose(logits, before["logits"])
    whole = MODEL(IDS[None], step=Patch({"logits": before["logits"] + 1}))
    np.testing.assert_array_equal(whole, before["logits"] + 1)


def test_a_relay_keeps_one_mistake_in_one_step():
    reference = MODEL.trace(IDS)
    wrong = GPT2(
        MODEL.config,
        {**MODEL.parameters, "h.0.ln_2.weight": MODEL.parameters["h.0.ln_2.weight"] * 1.1},
    )
    relay = Relay(reference)
    wrong(IDS[None], step=relay)
    assert [d.name for d in diff(relay.trace, reference) if d.status != "OK"] == ["h.0.ln_2"]
    assert len([d for d in diff(wrong.trace(IDS), reference) if d.status != "OK"]) > 5


def test_diff_reports_each_kind_with_its_place():
    reference = {
        "a": np.zeros((2, 3)),
        "b": np.ones(3),
        "c": np.ones(3),
        "d": np.ones(2),
        "e": np.ones((2, 2)),
        "f": np.ones(2),
    }
    trace = {
        "a": np.zeros((2, 3)),
        "b": np.ones(4),
        "d": np.array([1, np.nan]),
        "f": np.array([1, 1 + 1e-6]),
    }
    trace["e"] = np.array([[1.0, 1.0], [0.5, 1.0]])
    report = diff(trace, reference)
    assert [d.status for d in report] == ["OK", "SHAPE", "MISSING", "DIFF", "DIFF", "OK"]
    worst = report[4]
    assert (worst.largest, worst.relative, worst.index, worst.ours, worst.theirs) == (
        0.5,
        0.5,
        (1, 0),
        0.5,
        1.0,
    )
    assert not report.ok and report.first.name == "b" and "(4,), reference (3,)" in str(report)
    assert (
        diff(trace, reference, tolerance=lambda name: 1e-7 if name == "f" else 1)[5].status
        == "DIFF"
    )


def test_an_empty_report_is_not_ok():
    assert not diff({}, {}).ok


@pytest.mark.parametrize("name", ["wte", "h.0.attn.scores", "h.1.mlp.act", "logits"])
def test_patching_with_the_same_values_changes_nothing(name):
    trace = MODEL.trace(IDS)
    np.testing.assert_array_equal(
        MODEL(IDS[None], step=Patch({name: trace[name]})), trace["logits"]
    )
