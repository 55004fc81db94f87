"""An engine against minillm: the first step that differs, and the switch that explains it. The
engine of this file is minillm itself, and rounds one step unless it is told not to."""

import json
from typing import ClassVar

import numpy as np
import pytest

import minillm
from minillm.bench.engines import compare_engine
from minillm.cli import main
from minillm.engines import ENGINES, Engine
from minillm.loading import open_checkpoint

IDS = [5, 6, 7, 8]


class Rough(Engine):
    """minillm's own model, whose step `at` is rounded to float16, unless `fine`."""

    name, package, threads, versions = "rough", "minillm", 1, {"minillm": "1"}
    switches: ClassVar = {
        "one that changes nothing": {"idle": True},
        "float32 there": {"fine": True},
    }
    at = "h.1.mlp.act"

    def __init__(self, model, threads=None, dtype=None, idle=False, fine=False):
        super().__init__(model)
        self.model, _ = minillm.load(self.checkpoint, kernels="numpy")
        self.fine, self.step_names = fine, self.model.step_names

    def read(self, ids, past, last, step):
        def rounded(name, value):
            if name == self.at and not self.fine:
                value = value.astype(np.float16).astype(np.float32)
            return step(name, value)

        return self.model(ids, last=last, step=rounded)


class Wrong(Rough):
    """One that no switch makes equal, and that does not form every step."""

    def read(self, ids, past, last, step):
        def wrong(name, value):
            value = value * np.float32(1.001) if name == "h.0.ln_2" else value
            return value if name.endswith(".scores") else step(name, value)

        return self.model(ids, last=last, step=wrong)


def compared(kind):
    checkpoint = open_checkpoint("tales-draft")
    model, _ = minillm.load(checkpoint, kernels="numpy")
    return compare_engine(kind, checkpoint, model, IDS)


def test_the_first_step_that_differs_and_the_switch_that_explains_it():
    outcomes = compared(Rough)
    assert [len(outcome.switches) for outcome in outcomes] == [0, 1, 2]
    assert [[step.name for step in outcome.differing] for outcome in outcomes] == [
        [Rough.at],
        [Rough.at],
        [],
    ]
    assert outcomes[0].logits > 1e-4 > outcomes[2].logits == 0.0


def test_what_no_switch_explains_stays():
    outcomes = compared(Wrong)
    assert len(outcomes) == 3 and [s.name for s in outcomes[2].differing] == ["h.0.ln_2"]
    assert not any(step.name.endswith("scores") for step in outcomes[0].steps)


def test_what_is_being_tried_is_shown(bar_of):
    shown = bar_of("minillm.bench.engines")
    compared(Rough)
    assert shown == [
        ("comparing", 0, 3, "as it is"),
        ("comparing", 1, 3, "one that changes nothing"),
        ("comparing", 2, 3, "float32 there"),
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_within_rounding(bad, tmp_path, capsys, monkeypatch):
    """On both sides: in float64 it is not finite either, and so no rounding can be measured."""
    monkeypatch.setitem(ENGINES, "rough", Rough)
    model, tokenizer = minillm.load("tales-draft", kernels="numpy")
    weights = model.parameters["h.1.ln_1.weight"].copy()
    weights[3] = bad
    model.with_parameters({"h.1.ln_1.weight": weights}).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    arguments = ["verify", str(tmp_path), "--engine", "rough", "The king"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    step = "ln_1" if np.isnan(bad) else "attn.scores"  # equal infinities up to there
    assert f"as it is: the first beyond rounding is h.1.{step}, position 0: not finite, at [" in out
    assert not err and f"h.*.{step}, " in out[out.index("no switch explains") :]
    assert main([*arguments, "--json"]) == 1
    [found] = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["outcomes"][0]["logits"] is None


@pytest.mark.parametrize(("kind", "code"), [(Rough, 0), (Wrong, 1)])
def test_verify_says_so(kind, code, monkeypatch, capsys):
    monkeypatch.setitem(ENGINES, "rough", kind)
    arguments = ["verify", "tales-draft", "--engine", "rough", "The king"]
    assert main(arguments) == code
    words = capsys.readouterr().out
    assert words.startswith("tales-draft against rough 1: 2 ids\n")
    assert ("no switch explains h.*.ln_2" in words) == bool(code)
    assert "+1: one that changes nothing\n+2: float32 there, and those above\n" in words
    assert ("+2: all within rounding" in words) == (not code)
    assert f"\n+1: again {kind.at if not code else 'h.0.ln_2'}, " in words
    assert main([*arguments, "--json"]) == code
    [found] = json.loads(capsys.readouterr().out)
    assert found["ok"] == (not code) and len(found["outcomes"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tales-draft", "The king"], "the text 'The king' is for --engine"),
        (["tales-draft", "--engine", "vllm"], "engine is 'vllm'; it must be one of"),
        (["tales-draft", "--engine", "llama.cpp", "--live"], "leave out one of both"),
    ],
)
def test_unusable_arguments_are_one_line(arguments, message, capsys):
    assert main(["verify", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.live
@pytest.mark.parametrize("model", ["tales", "tales-llama"])
def test_transformers_is_equal_within_rounding(model):
    pytest.importorskip("transformers")
    checkpoint = open_checkpoint(model)
    ours, tokenizer = minillm.load(checkpoint, kernels="numpy")
    ids = tokenizer.encode("Once upon a time there was a king who had a daughter")
    [only] = compare_engine(ENGINES["transformers"], checkpoint, ours, ids)
    assert len(only.steps) == len(ours.step_names) and only.logits < 1e-4


@pytest.mark.live
@pytest.mark.parametrize(("model", "rest"), [("tales-llama", set()), ("tales-draft", {"mlp.act"})])
def test_llama_cpp_is_equal_with_its_switches(model, rest):
    """Its GELU is a table of float16 numbers, which no switch takes away."""
    pytest.importorskip("llama_cpp")
    checkpoint = open_checkpoint(model)
    ours, tokenizer = minillm.load(checkpoint, kernels="numpy")
    ids = tokenizer.encode("Once upon a time there was a king who had a daughter")
    outcomes = compare_engine(ENGINES["llama.cpp"], checkpoint, ours, ids)
    assert len(outcomes) == 4 and outcomes[0].differing[0].name.startswith("h.0.attn.")
    assert {step.name.split(".", 2)[2] for step in outcomes[-1].differing} == rest
