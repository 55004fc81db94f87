"""llama.cpp as it is installed: what is seen inside is what minillm computes, what is replaced has
its effect, and looking changes nothing."""

import builtins
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from minillm import InputError
from minillm.checkpoints.find import find_model
from minillm.cli import main
from minillm.clock import Clock, Limits
from minillm.decoding import Options
from minillm.decoding.generate import moments
from minillm.engines import LlamaCpp
from minillm.engines.llama_cpp import Context, View
from minillm.engines.price import price
from minillm.loading import convert
from minillm.steps import Patch
from tests.engines.small import CONFIGS, L, saved

IDS = [5, 6, 7, 8, 9]
THERE = importlib.util.find_spec("llama_cpp") is not None
needs_engine = pytest.mark.skipif(not THERE, reason="needs the extra engines: llama-cpp-python")


@pytest.fixture(scope="module", params=CONFIGS)
def both(request, tmp_path_factory):
    """A model, and llama.cpp with it, set to compute as minillm does."""
    folder = tmp_path_factory.mktemp(request.param)
    model = saved(request.param, folder)
    return model, LlamaCpp(folder, 1, cache_dtype="float32", flash=False)


def near(theirs, ours):
    """Rounding, and GELU, which llama.cpp takes from a table in float16: 3e-3 is the worst seen."""
    return np.abs(theirs - ours).max() < 1e-2


@pytest.mark.live
@needs_engine
class TestLive:
    def test_every_value_is_ours(self, both):
        model, engine = both
        theirs, ours = engine.trace(IDS), model.trace(IDS)
        assert {*ours} - {*theirs} <= {"wte"} and not engine.unknown
        seen = np.tril(np.ones((5, 5), bool))
        for name, value in theirs.items():
            assert value.shape == ours[name].shape, name
            shown = seen if name.endswith("scores") else True  # not what the mask hides
            assert near(value * shown, ours[name] * shown), name

    def test_what_is_replaced_has_its_effect(self, both):
        model, engine = both
        patch = Patch(
            {
                "h.0.attn.context": lambda x: x * (np.arange(4) != 1)[:, None, None],  # a head off
                "h.1.attn.q": lambda x: 2 * x,
                "h.1.attn.k": lambda x: x[..., ::-1],
                "h.1.attn.scores": lambda x: 0.5 * x,
                "h.1.mlp.out": np.zeros_like,
            }
        )
        theirs, ours = engine(IDS, step=patch), model(IDS, step=patch)
        assert near(theirs, ours) and not near(ours, model(IDS))
        assert near(engine(IDS), model(IDS))  # nothing of it stays

    def test_a_mistake_in_a_step_is_told_and_forgotten(self, both):
        model, engine = both
        with pytest.raises(InputError, match=r"the patch of h\.0\.ln_1 gives"):
            engine(IDS, step=Patch({"h.0.ln_1": lambda x: x[0]}))
        with pytest.raises(InputError, match=r"no step 'h\.0\.x'"):
            engine(IDS, step=Patch({"h.0.x": 0}))
        assert near(engine(IDS, step=lambda name, value: value), model(IDS))

    def test_a_step_may_read_something_else_but_not_look_into_it(self, both):
        model, engine = both
        cache, other = engine.new_cache(), engine.new_cache()

        def reads(value):
            other.truncate(0)
            assert near(engine(IDS[::-1], other), model(IDS[::-1]))
            return value

        assert near(engine(IDS, cache, step=Patch({"h.1.attn.out": reads})), model(IDS))
        assert near(engine([4], cache), model([*IDS, 4])[-1:])
        with pytest.raises(InputError, match="another cache's"):
            engine([4], other)
        with pytest.raises(InputError, match="cannot look into another pass"):
            engine(IDS, step=Patch({"h.1.attn.out": lambda value: engine.trace(IDS)["embed"]}))
        assert near(engine(IDS), model(IDS))

    @pytest.mark.parametrize("every_step", [False, True])
    def test_a_clock_sees_phases_or_steps_and_changes_nothing(self, both, every_step):
        _, engine = both
        options = Options(max_new_tokens=6, do_sample=False)
        without = [m.id for m in moments(engine, IDS, options)]
        clock = Clock(every_step)
        assert [m.id for m in moments(engine, IDS, options, clock)] == without
        for cycle in clock.cycles():
            assert (np.diff(cycle.ends) > 0).all() and cycle.ends[0] > cycle.start
            names = [*cycle.names]
            assert names[-3:] == ["logits", "probs", "next"] and len({*names}) == len(names)
            assert every_step == ("h.0.ln_1" in names)
            assert len(names) == 2 * L + 4 or every_step
        found = price(engine, IDS, n=8, every_step=every_step)
        # what Python does around it is inside as well; llama.cpp counts whole us
        assert found.same and 0 < found.own < found.within + 0.002 < found.inside + 0.002

    def test_a_long_prompt_and_a_growing_text(self, both):
        model, engine = both
        rng, cache = np.random.default_rng(0), engine.new_cache(capacity=60)
        ids = rng.integers(0, 300, 60).tolist()
        engine(ids[:50], cache)
        for i in range(50, 60):
            logits = engine([ids[i]], cache, last=True)
        assert near(logits[-1], model(ids)[-1])
        cache.truncate(20)
        assert near(engine(ids[20:30], cache), model(ids[:30])[20:])

    def test_what_is_changed_in_place_has_its_effect(self, both):
        model, engine = both

        def halved(value):
            value *= 0.5
            return value

        for name in ("h.0.mlp.act", "h.0.attn.scores"):
            patch = Patch({name: halved})
            assert near(engine(IDS, step=patch), model(IDS, step=patch)), name

    @pytest.mark.parametrize("past", [20, 30])  # where it has to go to first, and where it is
    def test_after_a_pass_that_broke_off_it_holds_nothing_of_it(self, both, past, monkeypatch):
        """A Ctrl-C comes when llama.cpp has read the ids: its cache holds them, the text does
        not."""
        model, engine = both
        ids, cache = np.random.default_rng(1).integers(0, 300, 40).tolist(), engine.new_cache()
        engine(ids[:30], cache)
        cache.truncate(past)
        read = Context.read

        def broken(*given):
            read(*given)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Context, "read", broken)
            engine([*ids[past:30][::-1], 1], cache)
        assert near(engine(ids[past:], cache), model(ids)[past:])

    def test_the_command(self, both, tmp_path, capsys):
        file = tmp_path / "a.recording"
        args = ["clock", "Once upon", "--engine", "llama.cpp", "--model", "tales-llama"]
        args += ["--no-limits", "--max-new-tokens", "2", "--threads", "1"]
        assert main([*args, "--beside", "--record", str(file)]) == 0
        out = capsys.readouterr().out
        for part in ("llama.cpp 0.", "looking costs", "itself counts", "it gains in", "loses "):
            assert part in out
        assert file.exists()

    def test_minillm_s_waiting_is_not_predicted_of_it(self, tmp_path, capsys):
        file = tmp_path / "limits.json"
        rates = {"float16": 1e12, "float32": 1e12}
        Limits({}, 1, {2**26: 1e12}, rates, rates, 1e12, 1.0, 1.0, 1.0).save(file)
        args = ["clock", "Once", "--engine", "llama.cpp", "--model", "tales-llama", "--json"]
        args += ["--limits", str(file), "--max-new-tokens", "2", "--threads", "1", "--beside"]
        assert main(args) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["table"][-1]["predicted_s"] < 0.1 < found["beside"]["table"][-1]["predicted_s"]
        assert not found["verdict"]["levers"]

    def test_a_file_that_ends_the_process_is_one_line(self, tmp_path):
        """A token that is there twice, which minillm reads and llama.cpp aborts on."""
        file = tmp_path / "a.gguf"
        convert("tales-draft", file)
        one = (1).to_bytes(8, "little")  # the length of a token
        file.write_bytes(file.read_bytes().replace(one + b"b", one + b"a", 1))
        with pytest.raises(
            InputError, match=r"llama\.cpp cannot compute with .*a\.gguf: GGML_ASSERT"
        ):
            LlamaCpp(file)


@pytest.mark.live
@needs_engine
@pytest.mark.parametrize("threads", [1, 2])
def test_it_has_as_many_threads_as_are_asked_for(threads):
    """As llama.cpp itself says."""
    engine = LlamaCpp("tales-draft", threads)
    assert engine.threads == threads == engine._view(View).context.threads


@pytest.mark.live
@needs_engine
@pytest.mark.parametrize("flash", ["yes", 1, -1, np.array([True, False])])
def test_flash_is_true_false_or_none(flash):
    with pytest.raises(InputError, match=r"flash is .*; it must be True, False or None"):
        LlamaCpp("tales-draft", 1, flash=flash)


@pytest.mark.live
@needs_engine
def test_the_page_s_code_says_what_the_page_says(capsys):
    """Words to the letter; numbers move with the processor (worst seen 0.3)."""
    number = re.compile(r"-?\d+\.\d+")
    try:
        find_model("smollm2")
    except InputError as error:
        pytest.skip(str(error))
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text("utf-8")
    pieces = re.findall(r"```python\n(.*?)```\n\n((?:    [^\n]*\n)+)", page, re.S)
    names: dict = {}
    for code, expected in pieces:
        exec(code, names)
        said, there = (
            capsys.readouterr().out,
            "\n".join(map(str.strip, expected.splitlines())) + "\n",
        )
        assert number.sub("#", said) == number.sub("#", there)
        values, expected_values = (np.array(number.findall(t), float) for t in (said, there))
        np.testing.assert_allclose(values, expected_values, atol=0.5, rtol=0)
    assert len(pieces) == 2


def test_without_it_the_command_says_what_to_install(monkeypatch, capsys):
    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "llama_cpp":
            raise ModuleNotFoundError("No module named 'llama_cpp'", name=name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    args = ["clock", "Once", "--engine", "llama.cpp", "--model", "tales-draft"]
    assert main(args) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "python -m pip install llama-cpp-python" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--engine", "vllm"], "engine is 'vllm'; it must be one of llama.cpp"),
        (["--beside"], "add --engine llama.cpp"),
        (["--engine", "llama.cpp", "--draft", "ngram"], "leave out --draft ngram"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(capsys, args, message):
    assert main(["clock", "Once", "--model", "tales-draft", *args]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
