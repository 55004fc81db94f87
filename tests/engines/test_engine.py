"""What every engine has from its base: one text at a time, clocked and traced as a Model is. The
engine of this file is minillm itself."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import sleep

import numpy as np
import pytest

import minillm
from minillm import InputError, clock, recording
from minillm.cli import main
from minillm.clock import Clock, ClockReport, Limits
from minillm.decoding import Options
from minillm.decoding.generate import moments
from minillm.engines import ENGINES, Engine, LlamaCpp, Transformers, engine
from minillm.engines.price import price
from minillm.page.answering import answerer
from minillm.record import record
from minillm.steps import Patch

DATA = Path(__file__).parents[1] / "data" / "engines"
IDS = [5, 6, 7, 8]


class Ours(Engine):
    """minillm's own model, as an engine."""

    name, needs, threads, versions = "ours", ("minillm",), 1, {"minillm": "1"}

    def __init__(self, model="tales-draft", threads=None, dtype=None):
        super().__init__(model)
        self.model = minillm.load(self.checkpoint, kernels="numpy")[0]
        self.cache, self.step_names = self.model.new_cache(), self.model.step_names

    def read(self, ids, past, last, step):
        self.cache.truncate(past)
        looked = {} if step.stamps else {"step": step}
        logits = self.model(ids, self.cache, last=last, **looked)
        if step.stamps:
            clock = step.step
            names = ["embed", "logits"] if step.times_only else self.step_names
            step.stamps(names, [clock._now() for _ in names])
        return logits


@pytest.fixture(scope="module")
def ours():
    return Ours()


def test_it_decodes_as_the_model(ours):
    options = Options(max_new_tokens=5, do_sample=False)
    expected = [m.id for m in moments(ours.model, IDS, options)]
    assert [m.id for m in moments(ours, IDS, options)] == expected


@pytest.mark.parametrize("every_step", [False, True])
def test_a_clock_is_told(ours, every_step):
    clock = Clock(every_step)
    list(moments(ours, IDS, Options(max_new_tokens=3, do_sample=False), clock))
    cycles = clock.cycles()
    assert [c.kind for c in cycles] == ["prefill", "decode", "decode"]
    steps = ours.step_names if every_step else ["embed", "logits"]
    assert [*cycles[1].names] == [*steps, "probs", "next"]
    report = ClockReport(clock, ours.config, ours.stored)
    assert report.rows[-1].decode > 0 and report.inside > 0.5


def test_values_are_seen_and_replaced(ours):
    trace = ours.trace(IDS)
    assert [*trace] == ours.step_names and trace["h.0.attn.weights"].shape[2:] == (4, 4)
    off = {"h.0.attn.out": np.zeros_like}
    patched = ours(IDS, step=Patch(off))
    np.testing.assert_array_equal(patched, ours.model(IDS, step=Patch(off)))
    with pytest.raises(InputError, match="no step 'h\\.0\\.x'"):
        ours(IDS, step=Patch({"h.0.x": 0}))


def test_one_text_at_a_time(ours):
    first, other = ours.new_cache(), ours.new_cache(capacity=6)
    ours(IDS, first)
    ours(IDS, other, last=True)
    with pytest.raises(InputError, match="holds one text"):
        ours([9], first)
    with pytest.raises(InputError, match="7 positions do not fit: there is room for 6"):
        ours([9, 9, 9], other)
    other.truncate(2)
    again = ours([7, 8], other, last=True)
    np.testing.assert_allclose(again, ours(IDS, last=True), rtol=1e-4, atol=1e-5)  # other sums
    with pytest.raises(InputError, match="one text"):
        ours([IDS, IDS])
    with pytest.raises(InputError, match="one row of float32"):
        ours.new_cache(batch=2)
    with pytest.raises(InputError, match="cache capacity 513: the model has 512 positions"):
        ours.new_cache(capacity=513)
    for cache in (ours.model.new_cache(), object()):  # a KVCache would count what it does not hold
        with pytest.raises(InputError, match=r"cache is .*new_cache\(\) of the engine"):
            ours(IDS, cache)
    for length in (-1, 1.5, "2"):
        with pytest.raises(InputError, match="length is"):
            other.truncate(length)


def test_threads_take_turns():
    """llama.cpp ends the process where two are in one context."""

    class Slow(Ours):
        inside = most = 0

        def read(self, *given):
            self.inside += 1
            self.most = max(self.most, self.inside)
            sleep(0.01)
            logits = super().read(*given)
            self.inside -= 1
            return logits

    slow = Slow()
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(slow, [IDS[:n] for n in (1, 2, 3)] * 2))
    assert slow.most == 1
    for n, logits in zip((1, 2, 3), found):
        np.testing.assert_array_equal(logits, slow.model(IDS[:n]))


def test_its_price_is_measured_in_turn(ours):
    found = price(ours, IDS, n=6)
    assert len(found.without) == len(found.looking) == 6 and found.same and found.stamps == 2
    lines = found.summary()
    assert lines[0].startswith("ours 1, 1 thread")
    assert lines[2].startswith("of 6 tokens") and lines[2].endswith("logits the same")
    low, middle, high = found.to_dict()["shares"]
    assert low <= middle <= high


def test_the_price_says_what_is_around_the_engine_and_what_is_not_known(ours):
    found = price(ours, IDS, n=2)
    assert found.own is None and len(found.summary()) == 3  # it counts nothing itself
    told = replace(found, inside=10.0, within=9.75, own=9.7, same=False, unknown={"shift:ADD": 2})
    lines = told.summary()
    assert lines[2].endswith("logits NOT THE SAME")
    assert "10.000 ms in the mean" in lines[3] and "9.750 in the functions of ours 1," in lines[3]
    assert lines[4].startswith("and 0.250 in the call from Python")
    assert lines[5].startswith("ours 1 itself counts 9.700 ms for its functions (the stamps +0.5%)")
    assert lines[6] == "not known, timed with the step that ends next: 2 x shift:ADD"


def test_a_recording_is_timed_by_it_and_valued_by_the_model(ours):
    tokenizer = ours.checkpoint.tokenizer
    made = record(ours.model, tokenizer, "Once upon", engine=ours, max_new_tokens=3)
    assert made.header["model"]["twin"] == "ours 1"
    assert made.header["names"][0] == ["embed", "logits", "probs", "next"]
    assert made.header["machine"]["versions"]["minillm"] == "1"
    assert made.header["model"]["stored"] == ours.stored
    assert made.header["runs"]["difference"] < 1e-4  # one pass, and one a token


class Wide(Ours):
    """The same, which computes in float32 whatever the file has."""

    stored = "float32"


def test_beside_a_model_that_is_stored_otherwise(monkeypatch, capsys, tmp_path):
    """The limits are those of both."""

    def measure(ops, kinds, *_):
        rates = dict.fromkeys(kinds, 1e11)
        return Limits({}, 1, {2**26: 1e10}, rates, rates, 1e10, 0.0, 0.0, 0.0)

    monkeypatch.setitem(ENGINES, "wide", Wide)
    monkeypatch.setattr(clock, "measure", measure)
    args = ["clock", "Once", "--engine", "wide", "--model", "tales-draft", "--beside"]
    args += ["--max-new-tokens", "2", "--kernels", "numpy"]
    assert main(args) == 0 and "it gains " in capsys.readouterr().out
    file = tmp_path / "limits.json"
    measure(None, ["float32"]).save(file)
    assert main([*args, "--limits", str(file)]) == 2
    assert "has the rates of float32, but none of float16: leave it out" in capsys.readouterr().err


def test_a_page_has_it_beside_the_model(monkeypatch):
    """One lever: its times, and how far its steps are from ours, which here they are not."""
    monkeypatch.setitem(ENGINES, "ours", Ours)
    model, tokenizer = minillm.load("tales-draft", kernels="numpy")
    limits = Limits(
        {},
        1,
        {2**26: 1e10},
        *2 * [dict.fromkeys(("float16", "float32"), 1e11)],
        1e10,
        1.0,
        1.0,
        1.0,
    )
    answer = answerer(model, tokenizer, "tales-draft", {"max_new_tokens": 3}, lambda *_: limits)
    (made,) = answer("Once upon", {"lever": "engine:ours"}, lambda said: None)
    assert made.header["model"]["twin"] == "ours 1"
    assert made.header["parting"] == {"name": "tales-draft", "stored": "float32", "twin": "numpy"}
    assert set(np.unique(made.arrays["parting.steps"])) == {-1, 0}
    assert made.arrays["predicted.seconds"].max() < 1  # without what our threads wait


@pytest.mark.parametrize(
    ("name", "engine", "steps", "apart"),
    [
        # float16 weights, cache and activations of llama.cpp, float32 activations of ours
        ("tales-llama-phases", "llama.cpp", (2, 4), 0.1),
        ("tales-llama-steps", "llama.cpp", (15, 5), 0.1),
        ("tales-llama-transformers-phases", "transformers", (2, 4), 1e-4),
        ("tales-llama-transformers-steps", "transformers", (13, 6), 1e-4),
    ],
)
def test_a_recording_is_replayed_without_the_engine(name, engine, steps, apart):
    """Times lie in order and fill each cycle; the tokens are minillm's likeliest, too. steps: how
    many there are in a layer, and besides; apart: what the logits may be."""
    made = recording.read(DATA / f"{name}.recording")
    title, _, version = made.header["model"]["twin"].rpartition(" ")
    assert title == engine and version in made.header["machine"]["versions"].values()
    names, (layer, besides) = made.header["names"], steps
    assert len(names) == 1 and names[0][-3:] == ["logits", "probs", "next"]
    assert len(names[0]) == layer * made.header["model"]["sizes"]["L"] + besides
    for i, cycle in enumerate(made.header["cycles"]):
        ends = made.arrays["times.ends"][made.intervals(i)]
        assert (np.diff(ends) > 0).all() and ends[0] > 0
        assert ends[-1] == pytest.approx(cycle["end"] - cycle["start"], rel=1e-6)
    assert 0 < made.header["runs"]["difference"] < apart
    ids = made.arrays["candidates.ids"][:, 0]
    assert [m["id"] for m in made.header["moments"]] == ids.tolist()


def test_engines_are_known_by_name():
    assert engine("llama.cpp").name == "llama.cpp"
    with pytest.raises(InputError, match=r"engine is 'vllm'; it must be one of llama\.cpp"):
        engine("vllm")


def test_of_what_cannot_be_imported_the_missing_module_is_named(monkeypatch):
    """Also where it is one that an engine needs itself, which is not to be installed anew."""

    def says(kind, error):
        with pytest.raises(InputError) as caught, kind.needed():
            raise error
        return str(caught.value)

    gone = ModuleNotFoundError("No module named 'x'", name="llama_cpp")
    install = "python -m pip install"
    assert says(LlamaCpp, gone) == f"llama_cpp is not installed: {install} llama-cpp-python"
    gone.name = "diskcache.core"
    assert says(LlamaCpp, gone) == (
        f"diskcache, which llama_cpp needs, is not installed: {install} diskcache"
    )
    gone.name = "torch"
    assert says(Transformers, gone) == f"torch is not installed: {install} torch"
    broken = ImportError("libcuda.so.1: cannot open", name="torch._C")
    assert says(Transformers, broken) == (
        "torch or transformers cannot be imported: libcuda.so.1: cannot open"
    )
