"""The report: tables, notebooks, values for JSON."""

import json

import pytest

from minillm import GPT2, GPT2Config
from minillm.clock import Clock, ClockReport
from minillm.clock.diagram import diagram
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
