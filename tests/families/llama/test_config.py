"""What config.json says of Llama, Qwen2 and Qwen3, as transformers 4 and 5 write it; whatever
cannot be honoured is refused by its name."""

import dataclasses
import json

import numpy as np
import pytest

from minillm import InputError, LlamaConfig
from minillm.checkpoints import safetensors
from minillm.families import described
from minillm.families.llama.qwen import Qwen2Config, Qwen3Config
from minillm.loading import load_model
from minillm.weights import BFloat16
from tests.families.able import LLAMA3, lively

from .test_llama import FAMILIES, VARIANTS

CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
every_family = pytest.mark.parametrize("name", CONFIGS)
LINEAR = {"rope_type": "linear", "factor": 2.0}


@every_family
def test_a_family_is_found_by_its_name_or_its_architecture(name):
    cls = CONFIGS[name]
    assert described({"model_type": name}).config is cls
    assert described({"architectures": [cls.architecture]}).config is cls
    with pytest.raises(InputError, match="model_type is 'gpt2'; this reads"):
        cls.from_dict({"model_type": "gpt2"})


@every_family
@pytest.mark.parametrize(
    ("values", "theta", "scaling"),
    [
        # transformers 5
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, 5e5, None),
        ({"rope_parameters": LINEAR | {"rope_theta": 5e5}}, 5e5, LINEAR),
        ({"rope_parameters": LLAMA3 | {"rope_theta": 5e5}}, 5e5, LLAMA3),
        # transformers 4
        ({"rope_theta": 5e5, "rope_scaling": None}, 5e5, None),
        ({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}, 5e5, LINEAR),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, 5e5, LLAMA3),
        # both, of which transformers 5 takes the older
        ({"rope_theta": 5e5, "rope_scaling": LINEAR, "rope_parameters": LLAMA3}, 5e5, LINEAR),
        # beside the table it counts first
        (
            {"rope_scaling": LLAMA3, "original_max_position_embeddings": 99},
            1e4,
            LLAMA3 | {"original_max_position_embeddings": 99},
        ),
        # what is not said
        ({}, 1e4, None),
        ({"rope_scaling": {"rope_type": "default"}, "partial_rotary_factor": 1.0}, 1e4, None),
        (
            {"rope_scaling": {n: v for n, v in LLAMA3.items() if not n.startswith("original")}},
            1e4,
            LLAMA3 | {"original_max_position_embeddings": 77},
        ),
    ],
)
def test_rotation_in_both_spellings(name, values, theta, scaling):
    config = CONFIGS[name].from_dict({"model_type": name, "max_position_embeddings": 77, **values})
    assert (config.rope_theta, config.rope_scaling) == (theta, scaling)
    written = config.to_dict()
    for left_out in ("rope_parameters", "rope_scaling"):
        kept = {n: v for n, v in written.items() if n != left_out}
        if left_out == "rope_parameters" or scaling is None:
            assert CONFIGS[name].from_dict(kept) == config
    assert written["rope_parameters"]["rope_theta"] == written["rope_theta"] == theta


@pytest.mark.parametrize("config", VARIANTS.values(), ids=[*VARIANTS])
def test_what_is_written_is_read(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.live
@every_family
def test_what_a_file_does_not_say_is_what_transformers_takes(name):
    transformers = pytest.importorskip("transformers")
    ours, theirs = (
        CONFIGS[name].from_dict({"model_type": name}),
        transformers.AutoConfig.for_model(name),
    )
    known = {f.name for f in dataclasses.fields(ours)} - {"generation", "rope_scaling"}
    for field in known - {"rope_theta", "mlp_bias", "attention_bias", "head_dim"}:
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    assert ours.head_dim == getattr(theirs, "head_dim", 128)


REFUSED = [
    ({"hidden_act": "gelu"}, r"hidden_act is 'gelu'; \w+ has silu"),
    ({"hidden_act": "gelu_pytorch_tanh"}, "hidden_act is 'gelu_pytorch_tanh'"),
    *(
        (
            {spelling: {"rope_type": kind, "factor": 2.0}},
            f"rope_type is '{kind}'; known are default,",
        )
        for spelling in ("rope_parameters", "rope_scaling")
        for kind in ("yarn", "dynamic", "longrope", "proportional", "mrope")
    ),
    ({"rope_scaling": {"type": "su"}}, "rope_type is 'su'"),
    ({"rope_parameters": {"full_attention": LINEAR}}, "one table for all layers"),
    ({"rope_parameters": "linear"}, "RoPE parameters: what it holds is 'linear'"),
    ({"rope_theta": 0.0}, r"rope_theta is 0.0; it must be from 1e-06 to 1e\+12"),
    ({"rope_theta": 1e-300}, "rope_theta is 1e-300"),
    ({"rope_theta": float("nan")}, "rope_theta is nan"),
    ({"rope_scaling": LINEAR | {"factor": 1e-300}}, "factor is 1e-300"),
    ({"rope_theta": "1e4"}, "rope_theta is '1e4'"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; minillm turns whole heads"),
    ({"rope_parameters": {"partial_rotary_factor": 0.25}}, "partial_rotary_factor is 0.25"),
    ({"is_causal": False}, "is_causal is False; minillm's models see nothing of what comes after"),
    ({"rope_interleaved": True}, "rope_interleaved is True"),
    ({"use_sliding_window": True, "sliding_window": 64}, "use_sliding_window is True"),
    (
        {"layer_types": ["full_attention", "sliding_attention"]},
        "layer_types has 'sliding_attention'",
    ),
    ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config is"),
    ({"num_attention_heads": 9, "num_key_value_heads": 2}, "cannot share"),
    ({"hidden_size": 10, "head_dim": None}, "cannot be split"),
    ({"head_dim": 7}, "an even number"),
    ({"num_hidden_layers": 3_000_000}, "it must be from 1 to 1,000"),
]


@every_family
@pytest.mark.parametrize(("values", "message"), REFUSED, ids=str)
def test_what_cannot_be_honoured_is_refused_by_name(name, values, message):
    with pytest.raises(InputError, match=message) as caught:
        CONFIGS[name].from_dict({"model_type": name, **values})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_biases_that_a_family_has_not_are_refused():
    for cls, name in (
        (Qwen2Config, "attention_bias"),
        (Qwen2Config, "mlp_bias"),
        (Qwen3Config, "mlp_bias"),
    ):
        with pytest.raises(InputError, match=f"{name} is true; {cls.model_type} has biases"):
            cls.from_dict({name: True})


def test_a_window_that_is_off_is_read():
    values = {"use_sliding_window": False, "sliding_window": 64, "max_window_layers": 1}
    assert Qwen2Config.from_dict(values | {"layer_types": ["full_attention"] * 32})
    assert Qwen3Config.from_dict(values | {"layer_types": None, "use_sliding_window": None})


@pytest.mark.parametrize("tied", [False, True])
@every_family
def test_shards_of_bfloat16(name, tied, tmp_path):
    """As a large model lies in a folder: an index, matrices as [out,in], numbers of 16 bits. A tied
    head may be stored beside the table, if it is the same."""
    config = dataclasses.replace(FAMILIES[name], tie_word_embeddings=tied)
    model = lively(config, np.float32)
    model.save_pretrained(tmp_path, "bfloat16")
    tensors, _ = safetensors.read(tmp_path / "model.safetensors")
    assert tensors["model.layers.0.self_attn.k_proj.weight"].shape == (2 * config.head_dim, 32)
    if tied:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    names, files = [*tensors], {}
    for shard in range(3):
        file = f"model-0000{shard + 1}-of-00003.safetensors"
        part = {n: np.array(tensors[n]) for n in names[shard::3]}
        safetensors.write(tmp_path / file, part, {"format": "pt"})
        files |= dict.fromkeys(part, file)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    found = load_model(tmp_path, kernels="numpy")
    assert found.config == config
    for n, p in model.parameters.items():
        rounded = BFloat16.to_float(BFloat16.to_stored(np.array(p)))
        assert np.array_equal(found.parameters[n], rounded), n


@every_family
def test_a_tied_head_that_differs_is_refused(name, tmp_path):
    config = dataclasses.replace(FAMILIES[name], tie_word_embeddings=False)
    lively(config, np.float32).save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(said | {"tie_word_embeddings": True}))
    with pytest.raises(InputError, match=r"differs from .*to the config both are one parameter"):
        load_model(tmp_path, kernels="numpy")


def test_swish_is_silu_by_its_older_name():
    assert LlamaConfig(hidden_act="swish") == LlamaConfig()
