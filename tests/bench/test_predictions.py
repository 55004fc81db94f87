"""How wrong predictions are: constants found again in times that are made of them, errors, and
one small model measured."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest

from minillm import GPT2Config, InputError, kernels
from minillm.bench import predictions
from minillm.bench.datasheet import FIRST, TOKEN, by_limits, nodes
from minillm.bench.predictions import Point, PredictionErrors, fit, fitted
from minillm.clock import Limits
from minillm.clock.limits import describe_machine
from minillm.clock.machines import Constants
from minillm.model import GPT2

RATES = {"float32": 1e11, "int8": 2e11}
LIMITS = Limits({}, 2, {2**26: 2e10}, RATES, RATES, 1e12, 0.0, 0.0, 0.0)
CONFIGS = {n: GPT2Config(n_layer=n, n_embd=64 * n, n_head=n) for n in (2, 4, 8, 12)}
TRUE = Constants(1.4, 1.7, 5e-6)


def points(wrong: float = 1.0, missing: str | None = None) -> list[Point]:
    """Models whose passes take what constants make of the limits; those of the last model,
    `wrong` times that. Each round has a memory of its own."""
    made = []
    for n, config in CONFIGS.items():
        for context in (32, 512):
            for what in (TOKEN, FIRST):
                point = Point(f"m{n}", "minillm", "int8", context, what, nodes(config))
                for rate in (1e10, 2e10, 3e10):
                    limits = LIMITS.at(rate)
                    found = by_limits(config, limits, "int8", what, context)
                    point.predicted.append(found)
                    seconds = found.by(TRUE, point.nodes).seconds
                    point.seconds.append(seconds * (wrong if n == 12 else 1))
                point.missing = missing
                made.append(point)
    return made


@pytest.mark.parametrize("what", [TOKEN, FIRST])
@pytest.mark.parametrize("step", [0.0, 1e-3])
def test_constants_are_found_again(monkeypatch, what, step):
    """What a step takes by itself is no constant."""
    monkeypatch.setattr(f"{__name__}.LIMITS", replace(LIMITS, step=step))
    found = fit([p for p in points() if p.what == what and p.model in ("m2", "m12")])
    for name in ("reading", "arithmetic", "node"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=1e-3)
    assert found.models == ("m2", "m12")


def test_no_constant_is_negative():
    some = [p for p in points() if p.what == TOKEN]
    for p in some:
        p.seconds = [2 * found.reading - 1e-9 * p.nodes for found in p.predicted]
    found = fit(some)
    assert found.node == 0 and found.reading == pytest.approx(2, rel=0.2)


def test_of_one_point_one_constant_is_fitted():
    one = points()[:1]
    found = fit(one)
    assert sum(n > 0 for n in (found.reading, found.arithmetic, found.node)) == 1
    assert one[0].at_best.by(found, one[0].nodes).seconds == pytest.approx(one[0].fastest)


def test_errors_are_of_the_models_that_were_not_fitted():
    made = points(wrong=2.0)
    constants = fitted(made, ["m2", "m4"])
    assert constants.keys() == {("minillm", "int8", TOKEN), ("minillm", "int8", FIRST)}
    report = PredictionErrors(made, ["m2", "m4"], "minillm datasheet --errors", 3, 2)
    assert {p.model for p in report.tested} == {"m8", "m12"}
    (engine, what, n, middle, worst), *_, everything = report.summary()
    assert (engine, what, n) == ("minillm", TOKEN, 4)
    assert worst == pytest.approx(0.5) and middle == pytest.approx(0.25, abs=0.01)
    assert everything[:3] == ("all", "", 8)
    page = report.page("a.png")
    assert "| m12 | minillm | int8 | 512 | token |" in page and "-50.0 % |" in page
    assert f", {describe_machine()['system']}; 20" in page
    assert page.count("| fitted |") == 8 and "25.0% | 50.0% |" in page
    json.dumps(report.to_dict())


def test_what_is_missing_is_told_and_not_counted():
    report = PredictionErrors(points(missing="it is not installed"), ["m2"], "", 1, 1)
    assert not report.summary() and "missing (it is not installed)" in report.page("a.png")
    assert fitted(report.points, ["m2"]) == {}


SMALL = GPT2Config(vocab_size=48, n_positions=64, n_embd=32, n_layer=1, n_head=2)


class Engine:
    """Answers as a worker does, until it breaks: a prompt takes 2 s, each token 0.5 s."""

    def __init__(self, answers: int):
        self.answers, self.asked = answers, []

    def answer(self, request: dict) -> dict:
        self.asked.append(len(request["ids"]))
        if len(self.asked) > self.answers:
            return {"missing": "it broke"}
        return {"prefill_s": 2.0, "decode_s": 0.5 * request["n_new"]}


def test_every_peer_is_asked_in_turn_and_by_the_limits_of_the_moment(tmp_path, monkeypatch):
    GPT2.random(SMALL).save_pretrained(tmp_path)
    peers = {"minillm-float32": Engine(99), "llama.cpp-F32": Engine(3), "llama.cpp-Q8_0": None}
    said = {name: {} if peer else {"missing": "no"} for name, peer in peers.items()}
    rates = iter(range(1, 99))

    @contextmanager
    def started(names, folder, threads):
        assert [*names] == ["minillm-float32", "minillm-int8", *[*peers][1:]] and threads == 2
        yield peers, said | {"minillm-int8": {"missing": "no"}}

    monkeypatch.setattr(predictions, "TURN", 0)
    monkeypatch.setattr(predictions, "started", started)

    def limits_of(workers):
        rate = next(rates)
        return {"bandwidth": 1e9 * rate, "flops": 1e11 * rate}

    monkeypatch.setattr(predictions, "limits_of", limits_of)
    what = ["minillm", "llama.cpp"], ["float32", "int8", "float64"]
    found = predictions.measured("a", tmp_path, LIMITS, *what, [8, 9, 62], n_new=4, rounds=2)
    assert len(found) == 16 and peers["minillm-float32"].asked == [8, 9] * 3
    token, first = (p for p in found if (p.kind, p.engine, p.context) == ("float32", "minillm", 8))
    assert (token.what, token.seconds, first.seconds) == (TOKEN, [0.5, 0.5], [2.0, 2.0])
    # the first round warms up; of the others' moments, the tenth was the best for products
    at = [LIMITS.at(5e9, 0.5), LIMITS.at(9e9, 0.9)]
    assert at[0].rows == {kind: rate / 2 for kind, rate in LIMITS.rows.items()}
    shape = "float32", TOKEN, 10
    assert token.predicted == [by_limits(SMALL, one, *shape, choose=False) for one in at]
    missing = {p.engine + p.kind: p.missing for p in found if p.missing}
    assert missing["llama.cppfloat32"] == "it broke" and missing["minillmint8"] == "no"
    with pytest.raises(InputError, match="nothing to measure of a: no context and 60 tokens"):
        predictions.measured("a", tmp_path, LIMITS, *what, [8], n_new=60)


@pytest.mark.live
@pytest.mark.skipif(not kernels.available(), reason="Numba is not installed")
def test_a_model_is_measured(tmp_path):
    GPT2.random(SMALL).save_pretrained(tmp_path)
    one = replace(LIMITS, threads=1)
    found = predictions.measured("a", tmp_path, one, ["minillm"], ["float32"], [8], 3, rounds=2)
    assert [(p.kind, p.context, p.what) for p in found] == [
        ("float32", 8, TOKEN),
        ("float32", 8, FIRST),
    ]
    assert all(len(p.seconds) == len(p.predicted) == 2 and p.error > -1 for p in found)


def test_what_cannot_be_is_said():
    with pytest.raises(InputError, match="'tales' is to be fitted on"):
        predictions.errors(["tales-draft"], ["minillm"], ["float32"], [8])
    with pytest.raises(InputError, match="engine is 'x'"):
        predictions.errors(predictions.FITTED_ON, ["x"], ["float32"], [8])


def test_shapes_grow_to_half_a_billion():
    from math import prod

    sizes = {
        name: sum(prod(p.shape(c.sizes)) for p in c.layout.values())
        for name, c in predictions.SHAPES.items()
    }
    assert sizes["gpt2-124m"] == 124_439_808
    assert 1.4e8 < sizes["llama-144m"] < 1.5e8 and 2.8e8 < sizes["qwen3-300m"] < 3.2e8
    assert 4.8e8 < sizes["qwen2-500m"] < 5.1e8
