"""The report: tables, notebooks, values for JSON."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from minillm import GPT2, GPT2Config
from minillm.clock import Clock, ClockReport, CycleTimes
from minillm.clock.diagram import diagram
from minillm.clock.limits import Limits
from minillm.decoding.generate import moments
from minillm.decoding.options import Options

CONFIG = GPT2Config(vocab_size=48, n_positions=64, n_embd=32, n_layer=2, n_head=2)
MODEL = GPT2.random(CONFIG, seed=1)
LIMITS = Limits(
    {}, 2, {2**16: 1e11, 2**28: 2e10}, {"float32": 9e10}, {"float32": 1e11}, 5e9, 1e-6, 1e-5, 1e-7
)

SLOW = replace(LIMITS, elements=5e8)  # half a microsecond for the softmax of 48 numbers


@pytest.fixture(scope="module")
def report() -> ClockReport:
    clock = Clock(every_step=True)
    texts = [f" t{m.id}" for m in moments(MODEL, [1, 2, 3], Options(max_new_tokens=12), step=clock)]
    return ClockReport(clock, CONFIG, "float32", LIMITS, texts)


def test_the_report_in_all_its_forms(report):
    values = json.loads(json.dumps(report.to_dict()))
    assert (
        len(values["cycles"]) == 12
        and values["cycles"][3]["past"] == 5
        and values["limits"]["threads"] == 2
    )
    assert values["table"][-1]["phase"] == "cycle" and values["table"][-1]["predicted_s"] > 0
    html = report._repr_html_()
    assert (
        html.count("<tr>") == len(report.table()[1]) + 1
        and "embed" in html
        and "first token after" in html
    )
    headings, lines = report.table()
    assert all(len(line) == len(headings) for line in lines)


def test_one_token_has_no_decode():
    clock = Clock()
    list(moments(MODEL, [1, 2], Options(max_new_tokens=1), step=clock))
    report = ClockReport(clock, CONFIG, "float32", LIMITS)
    headings, lines = report.table()
    assert headings == ["phase", "prefill ms"] and all(len(line) == 2 for line in lines)
    assert report.between_tokens(50) is None and report._repr_html_() and diagram(report)


def engine_s(limits: Limits, cached: int = 4) -> ClockReport:
    """Times of an engine that tells phases apart, 1 ms each but for the last two, 1.1 and 0.9
    us."""
    names = ("embed", *(f"h.{i}.{part}.residual" for i in (0, 1) for part in ("attn", "mlp")))
    names += ("logits", "probs", "next")
    net = np.array([1e6] * 6 + [1100.0, 900.0])
    cycles = [
        CycleTimes(kind, 1, T, past, 0.0, names, np.cumsum(net), net)
        for kind, T, past in (("prefill", 31, 0), ("decode", 1, 31))
    ]
    about = {"source": "a watch", "ticks_per_second": 1e9, "cost": 0.0, "n_stamps": 16}
    clock = SimpleNamespace(**about, cycles=lambda: cycles)
    return ClockReport(clock, CONFIG, "float32", limits, engine="llama.cpp", cached=cached)


def test_a_phase_that_is_not_divided_stands_once():
    report = engine_s(SLOW)
    headings, lines = report.table()
    assert [line[0] for line in lines] == [
        *("embed", "attend", "feed forward", "unembed", "choose", "  probs", "  next", "cycle")
    ]
    assert "waiting" not in "".join(report.summary())  # which is minillm's
    binds = {line[0]: line[headings.index("bound by")] for line in lines}
    assert binds["attend"] == "" and binds["  probs"] != ""  # of 2 ms the limits explain nothing


def test_what_is_too_short_to_be_told_has_no_share():
    headings, lines = engine_s(SLOW).table()
    at = headings.index("predicted ms")
    told = {line[0]: [bool(cell) for cell in line[at : at + 3]] for line in lines}
    assert told["  probs"] == [True, True, True] and told["  next"] == [True, False, False]
    assert told["choose"] == [True, True, True]  # 2 us, of two steps


def test_one_rate_of_reading_is_said():
    """That of all that a token reads; where it is the caches', memory's beside it."""
    read = "125 kB of a token are read at "
    far = replace(LIMITS, bandwidth={2**10: 2e10, 2**28: 2e10})
    said = "\n".join(engine_s(far).summary())
    assert f"{read}20 GB/s; float32 products" in said
    near = replace(LIMITS, bandwidth={2**20: 1e11, 2**28: 2e10})
    report = engine_s(near)
    said = "\n".join(report.summary())
    assert f"{read}100 GB/s, from the caches (memory 20 GB/s); float32" in said
    assert report.verdict.sentences["binds"].startswith("All of that is what llama.cpp")
    half = sum(cost.cache for cost in engine_s(near, 2).costs(report.typical).values())
    assert sum(cost.cache for cost in report.costs(report.typical).values()) == 2 * half
