"""Between GPT-2 and Llama: without its ideas it is the one, with all of them the other, and with
each of them it is a model on which everything works."""

import dataclasses

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError, Llama, LlamaConfig, families, kernels
from minillm.clock import step_costs
from minillm.families.between.config import BetweenConfig
from minillm.loading import load_model
from minillm.model import Model
from minillm.training.language import LanguageModel
from minillm.training.settings import settings
from minillm.weights import store_parameters
from tests.central import central_differences, relative

PLAIN = BetweenConfig(
    vocab_size=61, n_positions=24, n_embd=16, n_layer=2, n_head=4, n_inner=24, norm_epsilon=1e-5
)
LADDER = {  # each idea with those before it
    "GPT-2": PLAIN,
    "RMSNorm": (rms_norm := dataclasses.replace(PLAIN, rms_norm=True)),
    "RoPE": (rope := dataclasses.replace(rms_norm, rope=True)),
    "SwiGLU": (swiglu := dataclasses.replace(rope, swiglu=True)),
    "grouped queries": dataclasses.replace(swiglu, n_kv_head=2),
}
ALONE = {
    "RoPE alone": dataclasses.replace(PLAIN, rope=True),
    "SwiGLU alone": dataclasses.replace(PLAIN, swiglu=True),
    "grouped queries alone": dataclasses.replace(PLAIN, n_kv_head=1),
}
ALL = LADDER | ALONE
IDS = np.arange(20).reshape(2, 10) * 3 % 61
each = pytest.mark.parametrize("config", ALL.values(), ids=[*ALL])


def lively(config, dtype=np.float64) -> Model:
    """A random model whose parts all matter: norms and biases random, too."""
    rng = np.random.default_rng(0)
    parameters = {
        name: (1.0 if p.start == "ones" else 0.0) + 0.3 * rng.standard_normal(p.shape(config.sizes))
        for name, p in config.layout.items()
    }
    return Model(config, {name: p.astype(dtype) for name, p in parameters.items()})


def gradients_of(model) -> tuple[float, dict]:
    return LanguageModel(model).loss_and_gradients((IDS[:, :-1], IDS[:, 1:]))


def test_without_ideas_it_is_gpt2_to_the_last_bit():
    ours = lively(PLAIN, np.float32)
    shape = {n: getattr(PLAIN, n) for n in ("vocab_size", "n_positions", "n_embd", "n_inner")}
    theirs = GPT2(GPT2Config(**shape, n_layer=2, n_head=4), ours.parameters)
    assert np.array_equal(ours(IDS), theirs(IDS))
    assert [*ours.trace(IDS)] == [*theirs.trace(IDS)]
    (loss, gradients), (expected, of_gpt2) = gradients_of(ours), gradients_of(theirs)
    assert loss == expected
    assert all(np.array_equal(gradients[name], of_gpt2[name]) for name in of_gpt2)
    costs = [step_costs(model.config, 3, 4) for model in (ours, theirs)]
    assert costs[0] == costs[1]


LLAMA = {  # whose matrices are apart: {their name: ours, and which part of it}
    "model.embed_tokens.weight": ("wte.weight", 0),
    "model.norm.weight": ("ln_f.weight", 0),
    "input_layernorm.weight": ("ln_1.weight", 0),
    "post_attention_layernorm.weight": ("ln_2.weight", 0),
    "self_attn.q_proj.weight": ("attn.c_attn.weight", 0),
    "self_attn.k_proj.weight": ("attn.c_attn.weight", 1),
    "self_attn.v_proj.weight": ("attn.c_attn.weight", 2),
    "self_attn.o_proj.weight": ("attn.c_proj.weight", 0),
}


def as_llama(arrays, config) -> dict:
    """Arrays by Llama's names, of those by ours: q | k | v cut apart."""
    found = {}
    for name in config.layout:
        layer, local = families.of(config).local_name(name)
        ours, part = LLAMA.get(local, (local, 0))
        array = arrays[ours if layer is None else f"h.{layer}.{ours}"]
        if "c_attn" in ours:
            array = np.split(array, [16, 24], axis=-1)[part]
        found[name] = array
    return found


def test_with_all_ideas_it_is_llama():
    """Exactly, in float64, where the three products that Llama forms apart, and their sum on the
    way back, may round otherwise: 1e-13 of the largest (worst measured: 3e-15)."""
    ours = lively(LADDER["grouped queries"])
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=24,
        rope_theta=10000.0,
    )
    theirs = Llama(config, as_llama(ours.parameters, config))
    assert relative(ours(IDS), theirs(IDS)) < 1e-13
    (loss, gradients), (expected, of_llama) = gradients_of(ours), gradients_of(theirs)
    assert loss == pytest.approx(expected, rel=1e-13)
    for name, gradient in as_llama(gradients, config).items():
        assert relative(gradient, of_llama[name]) < 1e-13, name
    assert ours.n_parameters == theirs.n_parameters


@each
def test_gradients_are_central_differences(config):
    size = {"vocab_size": 7, "n_layer": 1, "n_embd": 6, "n_head": 3, "n_inner": 3, "n_positions": 4}
    small = dataclasses.replace(config, **size, n_kv_head=config.n_kv_head and 1)
    objective, batch = LanguageModel(lively(small)), (IDS[:, :3] % 7, IDS[:, 1:4] % 7)
    _, gradients = objective.loss_and_gradients(batch)
    assert gradients.keys() == small.layout.keys()
    for name, gradient in gradients.items():
        tried = central_differences(
            lambda: objective.loss_and_gradients(batch)[0], objective.parameters[name]
        )
        assert relative(gradient, tried) < 1e-7, name


@each
def test_what_is_declared_is_formed_and_read(config):
    model = lively(config, np.float32)
    assert [*model.trace([1, 2])] == model.step_names
    read = sum(cost.weights for cost in step_costs(config, 1).values())
    looked_up = [p for n, p in config.layout.items() if n in ("wte.weight", "wpe.weight")]
    tables = sum(np.prod(p.shape(config.sizes)) for p in looked_up[1:])
    stored = store_parameters(model.parameters, "float32", config.layout)
    expected = sum(p.nbytes for p in stored.values()) - 4 * tables + 4 * 16 * len(looked_up)
    assert read == pytest.approx(expected, rel=0.02)  # rows of stored matrices are filled up to 16


@each
def test_the_fused_step_and_the_cache_equal_one_pass(config):
    arrays = store_parameters(lively(config, np.float32).parameters, "float32", config.layout)
    for model, near in ((Model(config, arrays, kernels), 2e-5), (lively(config), 1e-12)):
        assert bool(model._fused) == (model.ops is kernels)
        cache, whole = model.new_cache(2), model(IDS)
        parts = [model(IDS[:, :4], cache), model(IDS[:, 4:5], cache), model(IDS[:, 5:], cache)]
        assert relative(np.concatenate(parts, axis=1), whole) < near


def test_it_is_saved_and_found_again(tmp_path):
    model = lively(LADDER["SwiGLU"], np.float32)
    model.save_pretrained(tmp_path)
    found = load_model(tmp_path, kernels="numpy")
    assert found.config == model.config
    assert np.array_equal(found(IDS), model(IDS))


def test_the_ledgers_models_have_the_same_number_of_parameters():
    configs = [
        settings(f"ideas-{name}").model_config(4096, 0)
        for name in ("1-gpt2", "2-rms-norm", "3-rope", "4-swiglu", "5-grouped-queries")
    ]
    n = [sum(np.prod(p.shape(c.sizes)) for p in c.layout.values()) for c in configs]
    assert n[0] == 986_624
    assert max(n) / min(n) < 1.01


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_head": 3}, "n_embd 16 cannot be split into n_head 3 equal heads"),
        ({"n_kv_head": 3}, "n_head 4 cannot share n_kv_head 3 equally"),
        ({"rope": True, "head_size": 3}, "the head size is 3; rotation needs pairs"),
        ({"n_inner": 0}, "n_inner is 0; it must be from 1"),
        ({"rope": "yes"}, "rope is 'yes'; it must be of type bool"),
        ({"rope_theta": 1e-300}, "rope_theta is 1e-300; it must be from 1e-06"),
        ({"norm_epsilon": 1.0}, "norm_epsilon is 1.0; it must be in"),
        ({"eos_token_id": [-1]}, "eos_token_id is -1"),
    ],
)
def test_what_cannot_be(changes, said):
    with pytest.raises(InputError, match=said):
        dataclasses.replace(PLAIN, **changes)
