"""Llama: equal to transformers step by step, and everything that works on GPT-2 works on it."""

import dataclasses

import numpy as np
import pytest

from minillm import InputError, Llama, LlamaConfig
from minillm.bench.roofline import prefill_flop
from minillm.clock import step_costs
from minillm.families import described
from minillm.loading import load_model
from minillm.training.language import LanguageModel
from minillm.training.lora import merged, with_adapters
from minillm.weights import KINDS, store_parameters
from minillm.weights.lora import LoRA
from tests.central import central_differences, relative
from tests.families.able import check_cache, check_decoding, check_fused, check_smaller

CONFIG = LlamaConfig(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rope_theta=10_000.0,
    tie_word_embeddings=False,
)
IDS = np.arange(20).reshape(2, 10) * 3 % 97


def lively(config=CONFIG, dtype=np.float64, seed=0) -> Llama:
    """A random model whose layers all matter: norms random, too."""
    rng = np.random.default_rng(seed)
    parameters = {
        name: (1.0 if p.start == "ones" else 0.0) + 0.2 * rng.standard_normal(p.shape(config.sizes))
        for name, p in config.layout.items()
    }
    return Llama(config, {name: p.astype(dtype) for name, p in parameters.items()})


MODEL = lively()
VARIANTS = {
    "tied": {"tie_word_embeddings": True},
    "head_dim given": {"head_dim": 6},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "one key-value head": {"num_key_value_heads": 1},
    "every head its own": {"num_key_value_heads": 4},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "llama3": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
}


@pytest.mark.live
@pytest.mark.parametrize("changes", [{}, *VARIANTS.values()], ids=["plain", *VARIANTS])
def test_every_step_and_gradient_is_transformers(changes, tmp_path):
    """Worst measured: 9e-7 relative in float32; gradients 6e-8, since transformers rounds norms,
    angles and softmax to float32 in a float64 model, too."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from minillm.reference import record, verify

    model = lively(dataclasses.replace(CONFIG, **changes), np.float32)
    model.save_pretrained(tmp_path)
    reference = record(tmp_path, IDS, 5, "float32")
    found = load_model(tmp_path, kernels="numpy")
    assert verify(found, reference).ok, verify(found, reference).worst
    greedy = found.generate(IDS[0], 5, do_sample=False, eos_token_id=None)
    assert greedy[10:].tolist() == reference.greedy.tolist()
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    ids = torch.as_tensor(IDS)
    theirs(ids, labels=ids).loss.backward()
    _, ours = LanguageModel(found.astype(np.float64)).loss_and_gradients((IDS[:, :-1], IDS[:, 1:]))
    for name, p in theirs.named_parameters():
        role = model.layout[name].role
        expected = p.grad.numpy().T if role == "matrix" else p.grad.numpy()
        assert relative(ours[name], expected) < 1e-6, name


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=[*VARIANTS])
def test_gradients_are_central_differences(changes):
    small = {"num_hidden_layers": 1, "vocab_size": 7, "hidden_size": 4, "intermediate_size": 3}
    config = dataclasses.replace(CONFIG, **{**small, "head_dim": 4, **changes})
    objective = LanguageModel(lively(config))
    batch = (IDS[:, :4] % 7, IDS[:, 1:5] % 7)
    _, gradients = objective.loss_and_gradients(batch)
    for name, gradient in gradients.items():
        tried = central_differences(
            lambda: objective.losses(batch).mean(), objective.parameters[name]
        )
        assert relative(gradient, tried) < 1e-7, name


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_cached_equals_uncached(cut):
    check_cache(MODEL, IDS, cut)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VARIANTS)
def test_the_fused_step_equals_the_readable_forward(kind, name):
    check_fused(lively(dataclasses.replace(CONFIG, **VARIANTS[name])), IDS, kind)


def test_all_decoding():
    check_decoding(MODEL, IDS)


def test_smaller_models():
    check_smaller(MODEL, IDS)


def test_adapters_are_on_queries_keys_and_values():
    model = with_adapters(MODEL.astype(np.float32), 2)
    found = (name for name, p in model.parameters.items() if isinstance(p, LoRA))
    adapted = {name.split(".", 3)[3] for name in found}
    assert adapted == {f"self_attn.{part}_proj.weight" for part in "qkv"}
    assert np.allclose(merged(model)(IDS), MODEL.astype(np.float32)(IDS), atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_folder_keeps_it(name, tmp_path):
    model = lively(dataclasses.replace(CONFIG, **VARIANTS[name]), np.float32)
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path, kernels="numpy")
    assert isinstance(again, Llama) and again.config == model.config
    assert np.array_equal(again(IDS), model(IDS))


def test_what_it_costs():
    """Each parameter is read once, but of the token table one row."""
    read = sum(cost.weights for cost in step_costs(CONFIG, 1).values())
    arrays = store_parameters(MODEL.astype(np.float32).parameters, "float32", CONFIG.layout)
    table = arrays["model.embed_tokens.weight"].nbytes
    whole = sum(p.nbytes for p in arrays.values()) - table + table / 97
    assert read == pytest.approx(whole, rel=1e-12)
    products = sum(cost.products for cost in step_costs(CONFIG, 5).values())
    assert prefill_flop(CONFIG, 5) == products - 2 * 3 * 4 * 8 * 2 * (4 + 3 + 2 + 1)


def test_a_config_of_transformers_4_and_5():
    five = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    four = {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    for values in ({"rope_parameters": five}, four):
        config = LlamaConfig.from_dict({"model_type": "llama", **values})
        assert config.rope_theta == 5e5
        assert config.rope_scaling == {"rope_type": "linear", "factor": 2.0}
    assert described({"architectures": ["LlamaForCausalLM"]}).config is LlamaConfig
    assert LlamaConfig.from_dict({"num_key_value_heads": None}).sizes.K == 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; minillm's Llama has silu"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type is 'yarn'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"num_attention_heads": 9, "num_key_value_heads": 2}, "cannot share"),
        ({"hidden_size": 10}, "cannot be split"),
        ({"head_dim": 7}, "an even number"),
        ({"num_hidden_layers": 3_000_000}, "it must be from 1 to 1,000"),
        ({"rope_theta": 0.0}, "it must be above 0"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(values, message):
    with pytest.raises(InputError, match=message):
        LlamaConfig.from_dict(values)
