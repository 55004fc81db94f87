"""What a twin must and may have: read once, in one place; and a twin that brings its own cache and
its own fused step."""

import ast
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minillm
from minillm import GPT2, GPT2Config, InputError, kernels, ops
from minillm.compression import prune_magnitude
from minillm.decoding import Options
from minillm.decoding.drafts import named_draft
from minillm.decoding.generate import moments
from minillm.decoding.speculative import ModelDraft
from minillm.layers.attention import scaled_dot_product_attention
from minillm.layers.cache import KVCache
from minillm.training.language import LanguageModel
from minillm.training.optimizers import OPTIMIZERS
from minillm.training.pretrain import training_twin
from minillm.twins import n_threads, set_threads
from minillm.twins.choose import twin
from minillm.twins.folder import FolderTwin
from minillm.twins.twin import MUST, Abilities, abilities, activation_of

needs_numba = pytest.mark.skipif(not kernels.available(), reason="Numba is not installed")
CONFIG = GPT2Config(vocab_size=31, n_positions=16, n_embd=8, n_layer=2, n_head=2)
MODEL = GPT2.random(CONFIG, seed=3)
MAY = [name for name in vars(Abilities) if not name.startswith("_")]
PLAIN = {"stores_panels", "name"}  # what is no function


def test_the_textbook_has_what_a_twin_must_and_nothing_more():
    found = abilities(ops)
    assert found.name == "numpy" and found.backward("linear") is None
    assert [n for n in MAY if n not in ("name", "backward") and getattr(found, n) is not None] == []
    for name in ("linear", "softmax", "cross_entropy", "causal_mask", "gelu_new"):
        assert name in MUST
    assert activation_of(ops, "relu") is ops.relu


@needs_numba
def test_kernels_have_all_that_a_twin_may_have_but_a_cache():
    found, training = abilities(kernels), abilities(training_twin("numba", "float32"))
    assert found.name == "numba" and found.stores_panels is True
    lacking = [n for n in MAY if n not in PLAIN and not callable(getattr(found, n))]
    assert lacking == ["new_cache", "rotate", "gated", "product", "transposed_product"]
    assert [n for n in lacking if not callable(getattr(training, n))] == ["new_cache"]
    assert found.fused is kernels.DecodeStep and found.attention is kernels.attention
    assert found.backward("attention") is kernels.attention_backward


@needs_numba
def test_the_twin_for_training_counts_as_numba(monkeypatch):
    """It is known by what it has: nobody asks whether it is the module itself."""
    faster = training_twin("numba", "bfloat16")
    assert type(faster) is kernels.Training and faster.precision == "bfloat16"
    assert abilities(faster).name == "numba" and abilities(faster).stores_panels
    before = kernels.n_threads()
    try:
        set_threads(3)
        assert n_threads(faster) == n_threads(kernels) == 3
    finally:
        set_threads(before)
    sparse = prune_magnitude(GPT2(CONFIG, MODEL.parameters, faster), 0.5)
    assert sparse.parameters["h.0.mlp.c_fc.weight"].product is kernels.csr_matmul


class Counting:
    """A twin that counts how often it is asked for what ops lacks."""

    def __init__(self):
        self.asked = []

    def __getattr__(self, name):
        if not hasattr(ops, name):
            self.asked.append(name)
        return getattr(ops, name)


def test_a_twin_is_asked_once():
    counting = Counting()
    assert abilities(counting) is abilities(counting)
    model = GPT2(CONFIG, MODEL.parameters, counting)
    for _ in range(3):
        model.generate([1, 2, 3], 4, seed=0)
    assert sorted(counting.asked) == ["DecodeStep", "attention", "new_cache"]


def test_abilities_do_not_change():
    with pytest.raises(FrozenInstanceError):
        abilities(ops).attention = ops.softmax


def test_what_is_no_twin_is_refused():
    for run in (
        lambda: GPT2(CONFIG, MODEL.parameters, "numpy"),
        lambda: minillm.load("tales-draft", kernels=5),
        lambda: OPTIMIZERS["adamw"]("numpy").update({"a": np.ones(2)}, {"a": np.ones(2)}, 0.1),
    ):
        with pytest.raises(InputError, match=r"is no twin: it lacks linear, layer_norm, .*twin"):
            run()
    partial = SimpleNamespace(**{name: getattr(ops, name) for name in MUST if name != "softmax"})
    with pytest.raises(InputError, match="it lacks softmax;"):
        GPT2(CONFIG, MODEL.parameters, partial)


def test_a_twin_is_called_by_its_name_or_its_type():
    named = SimpleNamespace(**vars(ops) | {"name": "mine"})
    functions = {name: getattr(ops, name) for name in MUST}
    names = [abilities(t).name for t in (named, SimpleNamespace(**functions), FolderTwin({}))]
    assert names == ["mine", "SimpleNamespace", "your own functions"]


TWINS = {"ops", "numpy_ops", "kernels", "numba_kernels", "twin"}


def questions(source: str) -> list[str]:
    """Where code looks for an attribute of a twin or of a step, or asks which twin it has."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            asked, names = node.args[:1], TWINS | {"step", "then"}
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot | ast.Eq):
            asked, names = [node.left, *node.comparators], TWINS
        else:
            continue
        last = {ast.unparse(part).rpartition(".")[2] for part in asked}
        if last & names and "None" not in last:
            found.append(ast.unparse(node))
    return found


def test_nobody_else_asks_a_twin_what_it_is_or_has():
    """Nor a step, which Observer.of reads."""
    package = Path(minillm.__file__).parent
    found = {
        path.relative_to(package).as_posix(): asked
        for path in package.rglob("*.py")
        if (asked := questions(path.read_text(encoding="utf-8")))
    }
    assert found.keys() == {"steps.py", "twins/twin.py"}, found
    assert len(found["steps.py"]) == 4 and all("step, '" in asked for asked in found["steps.py"])
    for line in ("model.ops is kernels", 'hasattr(ops, "now")', "a is not m.ops", "kernels == ops"):
        assert questions(line)


# ---- a twin with a cache and a fused step of its own


class OwnCache(KVCache):
    """What the fused step below asks for."""


class OwnStep:
    """A fused step: GPT-2's program in plain NumPy, one new position a row, in an OwnCache."""

    runs = 0

    def __init__(self, program):
        self.program = program

    @staticmethod
    def refusal(program):
        return "no relu" if any(step.then == "relu" for step in program.instructions) else None

    def fits(self, cache, lengths):
        return isinstance(cache, OwnCache) and max(lengths) == 1

    def run(self, ids, cache, lengths, last, tell):
        OwnStep.runs += 1
        program, positions, layer = self.program, cache.lengths[:, None], 0
        x = program.tokens.take(ids, axis=0) + program.positions.take(positions, axis=0)
        rows = {}  # of each buffer; "": those last normed
        for step in program.instructions:
            if step.norm:
                rows[""] = ops.layer_norm(x, step.norm.weight, step.norm.bias, step.norm.eps)
            if step.then == "attend":
                parts = np.split(rows[step.source], 3, axis=-1)
                q, k, v = (ops.split_heads(part, program.sizes.H) for part in parts)
                k, v = cache.layer(layer).append(k, v)
                y = scaled_dot_product_attention(q, k, v, positions, program.scales[layer])
                y, layer = ops.merge_heads(y), layer + 1
            else:
                bias = 0.0 if step.bias is None else step.bias
                y = ops.linear(rows[step.source], step.weight, bias)
                if step.then == "residual":
                    x = x + y
                elif step.then:
                    y = getattr(ops, step.then)(y)
            rows[step.target] = y
        cache.advance(1)
        if tell is not None:
            tell(["logits"], [1])
        return rows["logits"]


TOY = SimpleNamespace(**vars(ops) | {"name": "toy", "DecodeStep": OwnStep, "new_cache": OwnCache})


def test_a_twin_may_bring_its_cache_and_its_fused_step(monkeypatch):
    monkeypatch.setattr(OwnStep, "runs", 0)
    model = GPT2(CONFIG, MODEL.parameters, TOY)
    cache = model.new_cache(3, 7, np.float16)
    assert type(cache) is OwnCache and cache.keys.shape[1::2] == (3, 7)
    assert cache.keys.dtype == np.float16 and model.new_cache().keys.dtype == np.float32
    greedy = model.generate([1, 2, 3], 8, temperature=0)
    assert OwnStep.runs == 7  # all but the prompt's pass
    np.testing.assert_array_equal(greedy, MODEL.generate([1, 2, 3], 8, temperature=0))
    beams = model.generate([1, 2, 3], 4, num_beams=2)
    np.testing.assert_array_equal(beams, MODEL.generate([1, 2, 3], 4, num_beams=2))
    model([4], KVCache(CONFIG))  # another's cache: the readable forward
    assert OwnStep.runs == 7 + 3
    GPT2(replace(CONFIG, activation_function="relu"), MODEL.parameters, TOY).generate([1, 2], 4)
    assert OwnStep.runs == 7 + 3


class Watching:
    """An observer that has all that one may have."""

    times_only, names = True, ("logits",)

    def __init__(self):
        self.told = []

    def __call__(self, name, value):
        self.told.append(name)
        return value

    def begin(self, kind, rows, positions, past):
        self.told.append((kind, rows, positions, past))

    def stamps(self, names, ticks):
        self.told.append((*names, *ticks))


def test_an_observer_is_told_of_each_cycle_and_of_what_the_fused_step_finished():
    model, watching = GPT2(CONFIG, MODEL.parameters, TOY), Watching()
    list(moments(model, [1, 2], Options(max_new_tokens=3, temperature=0), watching))
    told = [what for what in watching.told if isinstance(what, tuple) or what in ("wte", "next")]
    one, more = ("logits", 1), [("decode", 1, 1, past) for past in (2, 3)]
    assert told == [("prefill", 1, 2, 0), "wte", "next", more[0], one, "next", more[1], one, "next"]
    watching = Watching()
    list(moments(model, [1], Options(max_new_tokens=6), watching, ModelDraft(model, 2)))
    kinds = [what[0] for what in watching.told if isinstance(what, tuple)]
    assert kinds[:5] == ["prefill", "logits", "draft", "draft", "logits"]
    assert "verify" in kinds[5:]
    with pytest.raises(InputError, match="there is no step 'logit'"):
        watching.names = ("logit",)
        list(moments(model, [1], Options(), watching))


def test_a_draft_by_name_computes_with_the_models_twin():
    model, tokenizer = minillm.load("tales-draft", kernels=TOY)
    assert model.ops is TOY and isinstance(model.parameters["wte.weight"], np.ndarray)
    assert named_draft("tales-draft", model, tokenizer, minillm.load).model.ops is TOY
    assert twin(TOY) is TOY


def test_a_twin_with_its_own_attention_alone_can_be_trained():
    """As a student's: gradients need the weights, which are formed again."""
    own = FolderTwin({"attention": attention})
    ids = np.array([[3, 1, 4, 1, 5, 9]])
    (loss, gradients), (expected_loss, expected) = (
        LanguageModel(GPT2(CONFIG, MODEL.parameters, t)).loss_and_gradients((ids, ids))
        for t in (own, ops)
    )
    assert loss == pytest.approx(expected_loss)
    for name, gradient in expected.items():
        np.testing.assert_allclose(gradients[name], gradient, atol=1e-6 * abs(gradient).max())


def attention(q, k, v, positions, scale):
    scores = np.where(ops.causal_mask(positions, k.shape[2])[:, None], q @ k.mT * scale, -np.inf)
    return ops.softmax(scores) @ v
