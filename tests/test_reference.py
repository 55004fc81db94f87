"""The reference match: every intermediate of every stored model, and a gallery of classic mistakes
that it catches."""

import math

import numpy as np
import pytest

from minillm import GPT2, ops
from minillm.differences import diff
from minillm.exercises import exercise
from minillm.layers import attention
from minillm.loading import load_model
from minillm.reference import TOLERANCES, Reference, record, verify
from minillm.steps import Relay
from tests.reference.make import HERE, RANDOM, stored

FOLDERS = stored()


def test_all_references_are_there():
    assert {f.name for f in FOLDERS} == {*RANDOM, "tales", "tales-draft", "tales-llama"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_every_step_equals_the_reference(folder, dtype):
    """Tolerances and worst cases: see reference.TOLERANCES."""
    report = verify(load_model(folder), Reference.load(folder), dtype)
    assert report.ok, f"\n{report}"
    assert len(report) == len(load_model(folder).step_names)


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f.parent != HERE], ids=lambda f: f.name)
def test_greedy_continuation_equals_the_reference(folder):
    reference = Reference.load(folder)
    assert len(reference.greedy) == 40
    ids = load_model(folder).generate(reference.ids[0], 40, do_sample=False)
    assert ids[reference.ids.shape[1] :].tolist() == reference.greedy.tolist()


# ---- wrong answers must fail: each mistake, and the one step that must turn red when every step is
# fed the reference's


def of_the_exercises(module, name, mistake):
    """A mistake of the exercises' gallery, made in the package's own function."""

    def make(monkeypatch):
        monkeypatch.setattr(module, name, exercise(name).function(mistake))

    make.__name__ = mistake
    return make


def mask_after_softmax(monkeypatch):
    def attend(q, k, v, positions, scale, step, ops):
        scores = step("scores", q @ k.swapaxes(-1, -2) * scale)
        mask = ops.causal_mask(positions, k.shape[2])[:, None]
        return step("context", step("weights", ops.softmax(scores) * mask) @ v)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", attend)


def unscaled_scores(monkeypatch):
    monkeypatch.setattr(
        "minillm.families.gpt2.config.GPT2Config.attention_scale", lambda self, layer: 1.0
    )


def scaled_by_d(monkeypatch):
    monkeypatch.setattr(
        "minillm.families.gpt2.config.GPT2Config.attention_scale",
        lambda self, layer: 1.0 / self.head_dim,
    )


def positions_from_one(monkeypatch):
    forward = GPT2.forward
    monkeypatch.setattr(
        GPT2,
        "forward",
        lambda self, ids, positions, *rest: forward(self, ids, positions + 1, *rest),
    )


def no_bias(monkeypatch):
    monkeypatch.setattr(ops, "linear", lambda x, weight, bias=None: x @ weight)


# The kinds of step that redden, the first one first: one operation, in all the places that use it.
GALLERY = {
    of_the_exercises(ops, "causal_mask", "no_mask"): ["attn.weights"],
    of_the_exercises(ops, "causal_mask", "mask_off_by_one"): ["attn.weights"],
    mask_after_softmax: ["attn.weights"],
    unscaled_scores: ["attn.scores"],
    scaled_by_d: ["attn.scores"],
    of_the_exercises(ops, "gelu_new", "erf_gelu"): ["mlp.act"],
    of_the_exercises(ops, "softmax", "over_queries"): ["attn.weights"],
    of_the_exercises(ops, "layer_norm", "unbiased_variance"): ["ln_1", "ln_2", "ln_f"],
    of_the_exercises(ops, "layer_norm", "epsilon_outside"): [
        "ln_1",
        "ln_2",
    ],  # at ln_f 1e-5 drowns in the variance
    of_the_exercises(ops, "split_heads", "heads_mixed"): ["attn.q", "attn.k", "attn.v"],
    of_the_exercises(ops, "merge_heads", "heads_not_merged"): ["attn.out"],
    positions_from_one: ["wpe", "attn.weights"],
    no_bias: ["attn.c_attn", "attn.out", "mlp.c_fc", "mlp.out"],
}


@pytest.mark.filterwarnings("ignore:invalid value")  # a row that sees nothing
@pytest.mark.parametrize("mistake", GALLERY, ids=lambda m: m.__name__)
def test_every_classic_mistake_is_caught_at_its_own_step(mistake, monkeypatch):
    folder = HERE / "odd-heads"
    model, reference = load_model(folder), Reference.load(folder)
    mistake(monkeypatch)
    relay = Relay(reference.steps)
    model(reference.ids, step=relay)
    report = diff(relay.trace, reference.steps, TOLERANCES[np.dtype(np.float32)])
    red = [
        d.name.split(".", 2)[-1] if d.name.startswith("h.") else d.name
        for d in report
        if d.status != "OK"
    ]
    assert list(dict.fromkeys(red)) == GALLERY[mistake]


def test_a_float64_scalar_would_be_seen(monkeypatch):
    monkeypatch.setattr(
        "minillm.families.gpt2.config.GPT2Config.attention_scale",
        lambda self, layer: np.float64(1) / np.sqrt(self.head_dim),
    )
    trace = load_model(HERE / "odd-heads").trace([[1, 2, 3]])
    # which test_model's dtype test would refuse
    assert trace["h.0.attn.scores"].dtype == np.float64


# ---- live: the same, recorded now


@pytest.mark.live
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_stored_references_are_what_transformers_says_now(folder):
    """Not bit-equal from machine to machine: float64 sums in other orders; worst measured 2e-14
    relative."""
    old = Reference.load(folder)
    new = record(folder, old.ids, len(old.greedy))
    report = diff(old.steps, new.steps, 1e-10)
    assert report.ok, f"\n{report}"
    assert new.greedy.tolist() == old.greedy.tolist()


@pytest.mark.live
def test_the_whole_gpt2_124m_shape(tmp_path):
    """Real size from a random seed: every step, float32 and float64, and a greedy continuation."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(transformers.GPT2Config()).save_pretrained(tmp_path)
    reference = record(tmp_path, np.random.default_rng(0).integers(0, 50257, (1, 24)), n_greedy=8)
    model = load_model(tmp_path)
    assert model.n_parameters == 124_439_808 and len(model.parameters) == 148
    for dtype in (np.float32, np.float64):
        report = verify(model, reference, dtype)
        assert report.ok, f"\n{report}"
        print(f"worst at the 124M shape, {np.dtype(dtype)}: {report.worst}")
    ids = model.astype(np.float64).generate(reference.ids[0], 8)
    assert ids[24:].tolist() == reference.greedy.tolist()


@pytest.mark.live
def test_reorder_and_upcast_changes_nothing_in_float32(tmp_path):
    """transformers computes these scores in float32 whatever the dtype, so only float32 can be
    compared (to 2e-5)."""
    pytest.importorskip("transformers")
    source = load_model(HERE / "odd-heads")
    config = type(source.config)(**{**vars(source.config), "reorder_and_upcast_attn": True})
    GPT2(config, source.parameters).save_pretrained(tmp_path)
    reference = record(tmp_path, [[1, 2, 3, 4, 5]], dtype="float32")
    assert verify(load_model(tmp_path), reference).ok
    assert math.isclose(reference.steps["h.0.attn.weights"].sum(), 3 * 5, rel_tol=1e-5)
