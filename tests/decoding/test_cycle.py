"""Cycles and moments: what a step sees of them; and the module they were in before."""

import sys

import pytest

from minillm.decoding import Options, cycle, generate_ids
from minillm.decoding.generate import moments
from minillm.steps import Trace
from tests.decoding.test_generate import MODEL, PROMPT


def test_the_step_sees_probs_and_next():
    trace = Trace()
    (moment,) = moments(MODEL, PROMPT, Options(max_new_tokens=1), trace)
    assert trace["probs"].shape == (61,) and trace["next"] == moment.id == trace["probs"].argmax()
    assert trace["logits"].shape == (1, 1, 61)


def test_the_old_module_gives_each_name_of_its_parts_with_a_warning(monkeypatch):
    monkeypatch.delitem(sys.modules, "minillm.decoding.loop", raising=False)
    with pytest.warns(FutureWarning, match=r"minillm\.decoding\.loop\.run_cycle is now called"):
        from minillm.decoding.loop import run_cycle
    with pytest.warns(FutureWarning, match=r"minillm\.decoding\.generate\.generate_ids") as told:
        from minillm.decoding.loop import generate_ids as by_the_old_name
    assert run_cycle is cycle.run_cycle and by_the_old_name is generate_ids
    assert told[0].filename == __file__
    with pytest.raises(ImportError, match="cannot import name 'walk'"):
        from minillm.decoding.loop import walk  # noqa: F401
