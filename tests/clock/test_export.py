"""The trace of a clock, as tracing tools read it."""

import json

import pytest

from minillm import GPT2, GPT2Config
from minillm.clock import Clock, ClockReport
from minillm.clock.export import trace_events, write_trace
from minillm.clock.limits import Limits
from minillm.decoding.generate import moments
from minillm.decoding.options import Options

CONFIG = GPT2Config(vocab_size=48, n_positions=64, n_embd=32, n_layer=2, n_head=2)
MODEL = GPT2.random(CONFIG, seed=1)
LIMITS = Limits(
    {}, 2, {2**16: 1e11, 2**28: 2e10}, {"float32": 9e10}, {"float32": 1e11}, 5e9, 1e-6, 1e-5, 1e-7
)


@pytest.fixture(scope="module")
def report() -> ClockReport:
    clock = Clock(every_step=True)
    texts = [f" t{m.id}" for m in moments(MODEL, [1, 2, 3], Options(max_new_tokens=12), step=clock)]
    return ClockReport(clock, CONFIG, "float32", LIMITS, texts)


def check_nesting(events):
    """Every event lies within the one that is open when it begins, as a viewer draws them: returns
    the deepest level."""
    deepest, open_ = 0, []
    events = [e for e in events if e["ph"] == "X"]
    for event in sorted(events, key=lambda e: (round(1000 * e["ts"]), -round(1000 * e["dur"]))):
        begin, end = round(1000 * event["ts"]), round(1000 * (event["ts"] + event["dur"]))
        while open_ and open_[-1] <= begin:
            open_.pop()
        assert not open_ or end <= open_[-1], f"{event['name']} ends after what it lies in"
        open_.append(end)
        deepest = max(deepest, len(open_))
    return deepest


def test_the_trace_nests_cycles_layers_and_operations(report, tmp_path):
    write_trace(report, 512, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert check_nesting(events) == 3
    by = {kind: [e for e in events if e.get("cat") == kind] for kind in ("cycle", "layer")}
    assert len(by["cycle"]) == 12 and len(by["layer"]) == 12 * CONFIG.n_layer
    assert (
        sum(e["name"] == "h.1.mlp.act" for e in events) == 12
        and by["cycle"][0]["args"]["text"] == report.texts[0]
    )
    operations = [e for e in events if e["name"].startswith("h.") and e["cat"] != "layer"]
    assert sum(e["dur"] for e in by["layer"]) == pytest.approx(sum(e["dur"] for e in operations))
    caches = [e["args"]["bytes"] for e in events if e["name"] == "cache"]
    assert caches[:2] == [0, 3 * 512] and caches[-1] == 14 * 512
    ticks = [e["args"]["cycles"] for e in events if e["name"] == "reference"]
    assert len(ticks) == 12 and min(ticks) > 0


def test_the_check_of_nesting_can_fail(report):
    events = trace_events(report, 512)["traceEvents"]
    layer = next(e for e in events if e.get("cat") == "layer")
    layer["dur"] *= 3
    with pytest.raises(AssertionError, match="ends after"):
        check_nesting(events)


def test_what_is_there_stays_until_all_is_written(report, tmp_path, monkeypatch):
    """A trace, and limits, come under their names when they are whole."""
    trace, limits = tmp_path / "a.json", tmp_path / "limits.json"
    for path in (trace, limits):
        path.write_text("before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for write in (lambda: write_trace(report, 100, trace), lambda: LIMITS.save(limits)):
        with pytest.raises(OSError):
            write()
    assert trace.read_text() == limits.read_text() == "before"
    assert len([*tmp_path.iterdir()]) == 2
