"""The reference match: every intermediate of every stored model, and a gallery of classic mistakes
that it catches."""

import math

import numpy as np
import pytest

from minillm import GPT2, ops
from minillm.differences import diff
from minillm.exercises import exercise
from minillm.layers import attention
from minillm.layers.rope import rotation
from minillm.loading import load_model
from minillm.reference import TOLERANCES, Reference, in_float64, record, verify
from minillm.steps import Relay
from tests.reference.make import HERE, RANDOM, stored

FOLDERS = stored()


def test_all_references_are_there():
    assert {f.name for f in FOLDERS} == {*RANDOM, "tales", "tales-draft", "tales-llama"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_every_step_equals_the_reference(folder, dtype):
    """Tolerances and worst cases: see reference.TOLERANCES."""
    model = load_model(folder)
    report = verify(model, Reference.load(folder), dtype)
    assert report.ok, f"\n{report}"
    assert [step.name for step in report] == model.step_names


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


def neighbours_turned(monkeypatch):
    def rotate(x, cos, sin, ops=None):  # 2i with 2i + 1, as GGUF files of Llama have them
        a, b = x[..., ::2], x[..., 1::2]
        cos, sin = cos[:, None], sin[:, None]
        return np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)

    monkeypatch.setattr(attention, "rotate", rotate)


def turned_the_other_way(monkeypatch):
    rotate = attention.rotate
    monkeypatch.setattr(attention, "rotate", lambda x, cos, sin, ops=None: rotate(x, cos, -sin))


def groups_mixed(monkeypatch):
    monkeypatch.setattr(
        attention, "repeat_heads", lambda x, n_head: np.tile(x, (1, n_head // x.shape[1], 1, 1))
    )


def norm_with_a_mean(monkeypatch):
    right = ops.rms_norm
    monkeypatch.setattr(
        ops, "rms_norm", lambda x, **rest: right(x - x.mean(-1, keepdims=True), **rest)
    )


def sigmoid_for_silu(monkeypatch):
    monkeypatch.setattr(ops, "silu", lambda x: 1 / (1 + np.exp(-x)))


QWEN3_GALLERY = {
    neighbours_turned: ["attn.q_rotated", "attn.k_rotated"],
    turned_the_other_way: ["attn.q_rotated", "attn.k_rotated"],
    groups_mixed: ["attn.scores", "attn.context"],
    norm_with_a_mean: ["ln_1", "attn.q_normed", "attn.k_normed", "ln_2", "ln_f"],
    sigmoid_for_silu: ["mlp.act"],
}
MISTAKES = [("odd-heads", m, red) for m, red in GALLERY.items()]
MISTAKES += [("qwen3", m, red) for m, red in QWEN3_GALLERY.items()]


@pytest.mark.filterwarnings("ignore:invalid value")  # a row that sees nothing
@pytest.mark.parametrize(
    ("name", "mistake", "reddens"), MISTAKES, ids=lambda m: getattr(m, "__name__", "")
)
def test_every_classic_mistake_is_caught_at_its_own_step(name, mistake, reddens, monkeypatch):
    folder = HERE / name
    model, reference = load_model(folder, kernels="numpy"), Reference.load(folder)
    mistake(monkeypatch)
    relay = Relay(reference.steps)
    model(reference.ids, step=relay)
    report = diff(relay.trace, reference.steps, TOLERANCES[np.dtype(np.float32)])
    red = [
        d.name.split(".", 2)[-1] if d.name.startswith("h.") else d.name
        for d in report
        if d.status != "OK"
    ]
    assert list(dict.fromkeys(red)) == reddens


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


# The classes of transformers that round to float32 in a float64 model.
ROUNDING = ["RMSNorm", "RotaryEmbedding", "Attention"]


@pytest.mark.live
@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Qwen3"])
def test_float64_changes_by_rounding_only_what_transformers_has_in_float32(name):
    """Each of the three modules by itself: norms and attention to 5e-7 of the largest number, worst
    seen 1.4e-7; cosines by their angles, off by some position x 6e-8: worst seen 1.1e-6 up to
    position 299."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "vocab_size": 50}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    config = getattr(transformers, f"{name}Config")(**sizes, **heads, attn_implementation="eager")
    torch.manual_seed(0)
    whole = getattr(transformers, f"{name}ForCausalLM")(config).double().eval()
    x, positions = torch.randn(2, 300, 32, dtype=torch.float64), torch.arange(300)[None]
    found = {}
    for form in ("as it is", "in float64"):
        model = whole.model if form == "as it is" else in_float64(whole).model
        turn = model.rotary_emb(x, positions)
        layer = model.layers[0]
        # attention's own rounding: the norms in it, softmax; from one set of angles
        angles = found.get("as it is", {}).get("RotaryEmbedding", turn)
        mask = torch.full((300, 300), -torch.inf, dtype=torch.float64).triu(1)[None, None]
        with torch.no_grad():
            found[form] = {
                "RMSNorm": layer.input_layernorm(x),
                "RotaryEmbedding": turn,
                "Attention": layer.self_attn(x, tuple(angles), mask)[0],
            }
    for kind in ROUNDING:
        narrow, wide = (torch.as_tensor(found[f][kind][0]) for f in ("as it is", "in float64"))
        off = float((narrow - wide).abs().max() / wide.abs().max())
        print(f"{name} {kind}: {off:.1e}")
        assert 0 < off < (1e-5 if kind == "RotaryEmbedding" else 5e-7)


@pytest.mark.live
@pytest.mark.parametrize("position", [2048, 8192])
def test_angles_of_transformers_in_float32_are_off(position):
    """By what layers.rope says: 8e-5 at position 2,048 and 3.5e-4 at 8,192, for theta 1e4 to 1e6,
    and as ours in float32 are, to 1e-5."""
    torch = pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    most, off = {2048: 9e-5, 8192: 4e-4}[position], []
    for theta in (1e4, 1e5, 5e5, 1e6):
        config = llama.LlamaConfig(
            hidden_size=128,
            num_attention_heads=1,
            rope_parameters={"rope_type": "default", "rope_theta": theta},
        )
        at, x = torch.tensor([[position]]), torch.zeros(1, dtype=torch.float64)
        narrow = llama.LlamaRotaryEmbedding(config)(x, at)
        wide = in_float64(llama.LlamaRotaryEmbedding(config))(x, at)
        off += [float((a - b).abs().max()) for a, b in zip(narrow, wide)]
        ours = rotation(at.numpy(), 128, theta, dtype=np.float64)
        for a, b in zip(ours, wide):
            np.testing.assert_allclose(a, b.numpy()[..., :64], atol=1e-11)
    assert most / 2 < max(off) < most
