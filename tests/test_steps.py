"""The step seam: names, phases, Trace, Patch, Relay, diff."""

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError
from minillm.decoding import Options, Request, generate_batch
from minillm.decoding.generate import moments
from minillm.differences import apart, diff
from minillm.families.gpt2 import step_names
from minillm.steps import Observer, Patch, Relay, Trace, identity, phase_of, under
from minillm.tasks.lstm import LSTM, LSTMConfig

MODEL = GPT2.random(
    GPT2Config(vocab_size=31, n_positions=8, n_embd=8, n_layer=2, n_head=2),
    seed=3,
    dtype=np.float64,
)
IDS = np.array([3, 1, 4, 1, 5])


def test_identity_stays_identity_under_a_prefix():
    assert under("h.0.", identity) is identity
    assert under("h.0.", Trace())("ln_1", 5) == 5


class Bare:
    """A step that notes for what it is asked and lacks."""

    def __init__(self):
        self.asked, self.names_seen = [], []

    def __call__(self, name, value):
        self.names_seen.append(name)
        return value

    def __getattr__(self, name):
        self.asked.append(name)
        raise AttributeError(name)


def test_what_an_observer_has_is_read_once():
    step = Bare()
    list(moments(MODEL, IDS, Options(max_new_tokens=3), step))
    assert sorted(step.asked) == ["begin", "names", "stamps", "times_only"]
    assert step.names_seen == [*step_names(2), "probs", "next"] * 3
    observer = Observer.of(step)
    assert Observer.of(observer) is observer and not observer.times_only
    assert Observer.of(identity).times_only and Observer.of(identity).begin is None
    with pytest.raises(AttributeError):
        observer.begin = print


def test_every_name_has_a_phase():
    phases = [phase_of(name) for name in [*step_names(2), "probs", "next"]]
    assert set(phases) == {"embed", "attend", "feed forward", "unembed", "choose"}
    assert phase_of("h.11.attn.residual") == phase_of("h.0.ln_1") == "attend"
    assert phase_of("h.1.ln_2") == phase_of("h.1.mlp.residual") == "feed forward"
    assert phase_of("ln_f") == "unembed"
    with pytest.raises(InputError, match=r"step 'h\.0\.norm' is of no phase"):
        phase_of("h.0.norm")


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


# ---- what is asked for and never formed


def zero(x):
    return x * 0


def in_place(x):
    x[:] = 0


RUNS = {
    "call": lambda step: MODEL(IDS, step=step),
    "with a cache": lambda step: MODEL(IDS, MODEL.new_cache(), last=True, step=step),
    "forward": lambda step: MODEL.forward(IDS[None], np.arange(5)[None], step=step),
    "hidden": lambda step: MODEL.hidden(IDS[None], np.arange(5)[None], step=step),
    "generating": lambda step: list(moments(MODEL, IDS, Options(max_new_tokens=2), step)),
    "beams": lambda step: list(moments(MODEL, IDS, Options(max_new_tokens=2, num_beams=2), step)),
    "batch": lambda step: list(generate_batch(MODEL, [Request(IDS)], step=step)),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
@pytest.mark.parametrize("name", ["h.1.atn.context", "h.2.attn.context", "attn.context", "", 3])
@pytest.mark.parametrize("make", [Patch, Relay, lambda names: Patch({}, then=Patch(names))])
def test_a_name_that_no_step_has_is_an_error_before_the_pass(run, name, make):
    def never(x):
        raise AssertionError("the pass has begun")

    asked = {"wte": never, name: zero} if make is not Relay else {name: np.zeros(1)}
    with pytest.raises(InputError, match="there is no step") as error:
        run(make(asked))
    if isinstance(name, str) and "context" in name:
        assert "h.1.attn.context" in str(error.value)


def test_names_that_only_choosing_forms():
    for name in ("probs", "next"):
        for run in ("call", "with a cache", "forward", "hidden", "beams"):
            with pytest.raises(InputError, match="only where tokens are generated one by one"):
                RUNS[run](Patch({name: zero}))
    with pytest.raises(InputError, match="no step 'logits'"):
        RUNS["hidden"](Patch({"logits": zero}))
    options = Options(max_new_tokens=3)
    assert [m.id for m in moments(MODEL, IDS, options, Patch({"next": 7}))] == [7, 7, 7]
    one_hot = Patch({"probs": np.eye(31)[9]})
    assert [m.id for m in moments(MODEL, IDS, options, one_hot)] == [9, 9, 9]
    batch = generate_batch(MODEL, [Request(IDS, options)], step=one_hot)
    assert [m.id for _, m in batch] == [9, 9, 9]
    for wrong, message in ((31, "outside the vocabulary"), (-1, "of at least 0")):
        with pytest.raises(InputError, match=f"next is .*{wrong}.*{message}"):
            list(moments(MODEL, IDS, options, Patch({"next": wrong})))


def test_the_steps_of_an_lstm_are_checked_too():
    lstm = LSTM.random(LSTMConfig(vocab_size=31, n_embd=4, n_layer=2))
    trace = Trace()
    lstm.hidden(IDS[None], trace)
    assert [*trace] == lstm.step_names(5)
    with pytest.raises(InputError, match=r"near it: .*l\.1\.4\.f"):
        lstm.hidden(IDS[None], Patch({"l.1.5.f": zero}))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (in_place, "returned None"),
        (None, "returned None"),
        (lambda x: x[0], r"float64 \(5, 8\); the step is float64 \(1, 5, 8\)"),
        (lambda x: x[..., None], "the step is"),
        (np.zeros(8), "the step is"),
        (0.0, "the step is"),
        (lambda x: x.astype(str), "the step is"),
        (lambda x: x + 1j, "the step is"),
    ],
)
def test_a_patch_has_the_form_of_what_it_replaces(new, message):
    with pytest.raises(InputError, match=f"h.1.attn.out .*{message}"):
        MODEL(IDS, step=Patch({"h.1.attn.out": new}))


@pytest.mark.parametrize("step", [None, 3, "ln_f", {"ln_f": 0}, Patch, Trace])
def test_a_step_is_something_to_call(step):
    for run in (lambda: MODEL(IDS, step=step), lambda: [*moments(MODEL, [1], Options(), step)]):
        with pytest.raises(InputError, match=r"step is .* it must be called as step"):
            run()
    if not isinstance(step, dict):
        with pytest.raises(InputError, match=r"replacements is .*; it must be {step name"):
            Patch(step)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
@pytest.mark.parametrize(
    ("new", "message"),
    [
        (None, "returned None"),
        ([[1.0], []], "no array"),
        ("x", "the step is"),
        (0.0, "the step is"),
    ],
)
def test_a_function_as_step_returns_values_of_the_same_form(run, new, message):
    with pytest.raises(InputError, match=f"your step of h.1.mlp.out .*{message}"):
        run(lambda name, value: new if name == "h.1.mlp.out" else value)


@pytest.mark.parametrize("new", ["7", 7.0, None])
def test_a_function_as_step_chooses_a_whole_number(new):
    for run in ("generating", "batch"):
        with pytest.raises(InputError, match="next"):
            RUNS[run](lambda name, value: new if name == "next" else value)
    # a list of the right form is an array, and what is handed on unchanged is not copied
    trace = Trace()
    MODEL(IDS, step=lambda name, value: trace(name, value.tolist() and value))
    MODEL(IDS, step=lambda name, value: value.tolist())


def test_a_patch_takes_the_dtype_of_what_it_replaces():
    model, trace = MODEL.astype(np.float32), Trace()
    model(IDS, step=Patch({"embed": np.ones((1, 5, 8))}, then=trace))
    assert {value.dtype for value in trace.values()} == {np.dtype(np.float32)}
    with pytest.raises(InputError, match="next gives float64"):
        list(moments(MODEL, IDS, Options(max_new_tokens=1), Patch({"next": 3.7})))


def test_a_trace_says_which_names_are_near():
    trace = MODEL.trace(IDS)
    with pytest.raises(KeyError) as error:
        trace["h.0.attn.weight"]
    line = str(error.value)
    with pytest.raises(KeyError, match=r"near it: h\.0\.attn\.c_attn, h\.0\.attn\.q, "):
        trace["h.0.attn"]
    with pytest.raises(KeyError, match=r"near it: h\.0\.attn\.weights, h\.1\.attn\.weights"):
        trace["weights"]
    assert (
        "near it: h.0.attn.weights" in line
        and "\n" not in line
        and isinstance(error.value, InputError)
    )
    assert trace.get("h.0.attn.weight") is None and "h.0.attn.weight" not in trace
    with pytest.raises(KeyError, match="only where tokens are generated"):
        trace["probs"]
    with pytest.raises(KeyError, match="none was formed"):
        Trace()["wte"]
    with pytest.raises(KeyError, match="known: wte to logits") as error:
        trace["x" * 100_000]
    assert len(str(error.value)) < 200


def test_a_trace_is_shown_in_one_line_and_in_notebooks_as_a_table():
    assert repr(MODEL.trace(IDS)) == "Trace(35 steps: wte (1, 5, 8) to logits (1, 5, 31))"
    assert repr(Trace()) == "Trace(0 steps)"
    assert repr(Patch({"h.0.attn": 0, "logits": np.zeros(9)})) == "Patch(['h.0.attn', 'logits'])"
    assert repr(Patch({"a": 1}, then=Trace())) == "Patch(['a'], then Trace(0 steps))"
    assert len(repr(Patch(dict.fromkeys(map(str, range(10**4)))))) < 100
    assert repr(Relay({"a": np.zeros(3)})) == "Relay(a reference of 1 step)"
    trace = Trace({"a<b": np.array([[-3.0, 2.0]]), "next": 7})
    assert repr(trace) == "Trace(2 steps: a<b (1, 2) to next ())"
    page = trace._repr_html_()
    assert "<td>a&lt;b</td><td>(1, 2)</td><td>3</td>" in page and "<td>next</td><td>()</td>" in page


def test_a_difference_from_what_is_not_finite_is_never_a_share_of_it():
    """An infinity that both have is no difference; all others are, however many are infinite."""
    nan, inf = np.nan, np.inf
    assert apart(np.array([nan, inf, inf, -inf, 1]), np.array([nan, inf, 1, inf, 3])).tolist() == [
        *(inf, 0, inf, inf, 2)
    ]
    theirs = np.array([1.0, inf, 4.0])
    for ours, status in (
        ([1.0, inf, 4.0], "OK"),
        ([1.0, inf, 4.1], "DIFF"),
        ([1.0, 2.0, 4.0], "DIFF"),
        ([nan, inf, 4.0], "DIFF"),
    ):
        [found] = diff({"a": np.array(ours)}, {"a": theirs}, 1e-3)
        assert found.status == status, ours
    assert diff({"a": np.array([nan])}, {"a": np.array([nan])}).first
