"""transformers as an engine: its tokens, its times and its values, looked at and replaced."""

from functools import partial

import numpy as np
import pytest

from minillm import InputError
from minillm.clock import Clock
from minillm.decoding import Options
from minillm.decoding.generate import moments
from minillm.differences import diff
from minillm.engines import engine
from minillm.loading import load_model
from minillm.reference import TOLERANCES, record
from minillm.steps import Patch, Relay, Trace
from tests.reference.make import HERE, stored

pytestmark = pytest.mark.live
IDS = [5, 3, 17, 8, 2, 9, 11]


@pytest.fixture(scope="module", params=stored(), ids=lambda f: f.name)
def both(request):
    """The engine and our model of each stored folder."""
    pytest.importorskip("torch")
    return engine("transformers")(request.param), load_model(request.param)


def test_every_value_is_what_the_recorder_says(both):
    """In float32; tolerance: reference.TOLERANCES, of float32 sums in one order."""
    theirs, ours = both
    trace = theirs.trace([IDS])
    assert sorted(trace) == sorted(theirs.step_names) and theirs.step_names == ours.step_names
    recorded = record(theirs.checkpoint.path, [IDS], dtype="float32").steps
    report = diff(trace, recorded, TOLERANCES[np.dtype(np.float32)])
    assert report.ok, report


def test_values_with_a_cache_are_those_of_a_whole_pass(both):
    theirs, _ = both
    whole, cache = theirs.trace(IDS), theirs.new_cache(capacity=16)
    theirs(IDS[:4], cache)
    part = theirs.trace(IDS[4:], cache)
    np.testing.assert_allclose(part["logits"], whole["logits"][:, 4:], rtol=1e-4, atol=1e-4)
    cache.truncate(3)
    again = theirs(IDS[3:], cache, last=True)
    np.testing.assert_allclose(again[-1], whole["logits"][0, -1], rtol=1e-4, atol=1e-4)


def test_what_is_changed_in_place_has_its_effect(both):
    theirs, ours = both

    def halved(value):
        value *= 0.5
        return value

    name = next(name for name in theirs.step_names if name.endswith("mlp.out"))
    patch = Patch({name: halved})
    np.testing.assert_allclose(theirs(IDS, step=patch), ours(IDS, step=patch), rtol=1e-3, atol=1e-3)
    assert np.abs(theirs(IDS, step=patch) - theirs(IDS)).max() > 1e-2


def test_whoever_looks_on_changes_nothing(both):
    theirs, _ = both
    options = Options(max_new_tokens=9, do_sample=False, eos_token_id=None)
    texts = [
        [m.id for m in moments(theirs, IDS, options, step)]
        for step in (Clock(), Clock(every_step=True), Trace())
    ]
    assert [m.id for m in moments(theirs, IDS, options)] == texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("every_step", [False, True])
def test_a_clock_sees_every_cycle_without_a_gap(both, every_step):
    theirs, ours = both
    clock = Clock(every_step)
    list(moments(theirs, IDS, Options(max_new_tokens=4, do_sample=False), clock))
    cycles, L = clock.cycles(), ours.config.sizes.L
    assert [c.kind for c in cycles] == ["prefill", "decode", "decode", "decode"]
    assert cycles[1].names[-3:] == ("logits", "probs", "next") and all(
        (c.gross > 0).all() for c in cycles
    )
    if not every_step:
        assert len(cycles[1].names) == 1 + 2 * L + 3
        return
    hooked = [name for name, step in ours.family.steps(ours.config).items() if step.hook]
    assert sorted(cycles[1].names[:-2]) == sorted(hooked)  # Qwen3's norms have another order there


def test_what_is_replaced_goes_on(both):
    """Every step's value, replaced by the model's own of other ids, gives the logits of those."""
    theirs, ours = both
    other = theirs.trace([IDS[::-1]])
    for name in ours.step_names[:-1]:
        expected = ours([IDS], step=Patch({name: other[name]}))
        found = theirs([IDS], step=Patch({name: other[name]}))
        scale = abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=2e-5 * scale, err_msg=name)


def test_a_relay_judges_each_step_by_itself(both):
    theirs, ours = both
    reference = ours.trace([IDS])
    relay = Relay(reference)
    logits = theirs([IDS], step=relay)
    assert diff(relay.trace, reference, 2e-5).ok
    np.testing.assert_allclose(logits, reference["logits"], rtol=1e-4)


def test_a_step_that_fails_leaves_nothing_behind(both):
    theirs, _ = both
    before = theirs(IDS)

    def fails(name, value):
        raise RuntimeError(name)

    with pytest.raises(RuntimeError):
        theirs(IDS, step=fails)
    assert np.array_equal(theirs(IDS), before)
    cache = theirs.new_cache(capacity=16)
    theirs(IDS, cache)
    expected = theirs([1], cache)
    for name in ("embed", "h.0.mlp.out", "logits"):  # before, between and after two layers
        cache.truncate(len(IDS))
        with pytest.raises(RuntimeError):
            theirs([1], cache, step=Patch({name: partial(fails, name)}))
        assert np.array_equal(theirs([1], cache), expected)


def test_a_step_may_read_something_else(both):
    theirs, ours = both
    expected, trace = theirs(IDS), theirs.trace(IDS[::-1])
    cache, other = theirs.new_cache(capacity=16), theirs.new_cache(capacity=16)

    def reads(value):
        other.truncate(0)
        theirs(IDS[::-1], other)
        assert np.array_equal(theirs.trace(IDS[::-1])["logits"], trace["logits"])
        return value

    everywhere = Patch(dict.fromkeys(("embed", "h.0.attn.context", "h.0.mlp.out"), reads))
    assert np.array_equal(theirs(IDS, cache, step=everywhere), expected)
    np.testing.assert_allclose(theirs([1], cache)[-1], ours([*IDS, 1])[-1], rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="another cache's"):
        theirs([1], other)


def test_one_line_without_the_package(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="pip install"):
        engine("transformers")(HERE / "llama")
