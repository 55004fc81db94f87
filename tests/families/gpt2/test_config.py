"""GPT2Config: GPT-2's published sizes, what config.json may say, and what is refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math

import numpy as np
import pytest

from minillm import GPT2Config, ops
from minillm.errors import InputError
from minillm.families import read_config
from minillm.families.gpt2.config import ACTIVATIONS, SAME_ACTIVATION


@pytest.mark.parametrize(
    "n_layer, n_head, n_embd, parameters",  # the four published GPT-2 models
    [
        (12, 12, 768, 124_439_808),
        (24, 16, 1024, 354_823_168),
        (36, 20, 1280, 774_030_080),
        (48, 25, 1600, 1_557_611_200),
    ],
)
def test_parameters_are_as_many_as_published(n_layer, n_head, n_embd, parameters):
    shapes = GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd).parameter_shapes()
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters


def test_defaults_are_the_124m_model():
    config = GPT2Config()
    assert len(config.parameter_shapes()) == 148
    assert (config.head_dim, config.hidden_dim, config.attention_scale(3)) == (64, 3072, 0.125)
    assert (config.n_positions, config.activation_function, config.layer_norm_epsilon) == (
        1024,
        "gelu_new",
        1e-5,
    )


def test_an_untied_head_is_a_parameter_of_its_own():
    config = GPT2Config(n_embd=4, n_head=2, n_layer=1, vocab_size=9)
    tied, untied = (
        dataclasses.replace(config, tie_word_embeddings=tie).parameter_shapes()
        for tie in (True, False)
    )
    assert untied == tied | {"lm_head.weight": (9, 4)} != tied


def test_n_inner_sets_the_hidden_size():
    shapes = GPT2Config(n_embd=4, n_head=2, n_layer=1, n_inner=7).parameter_shapes()
    assert shapes["h.0.mlp.c_fc.weight"] == (4, 7)
    assert shapes["h.0.mlp.c_fc.bias"] == (7,)
    assert shapes["h.0.mlp.c_proj.weight"] == (7, 4)


@pytest.mark.parametrize(
    "options, scale",
    [
        ({}, 1 / 4),
        ({"scale_attn_weights": False}, 1.0),
        ({"scale_attn_by_inverse_layer_idx": True}, 1 / 12),
        ({"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True}, 1 / 3),
    ],
)
def test_attention_scale_of_the_third_layer(options, scale):
    found = GPT2Config(n_embd=32, n_head=2, **options).attention_scale(2)
    assert found == scale
    assert type(found) is float  # a NumPy scalar would widen float32 arrays


@pytest.mark.parametrize(
    "values, message",
    [
        ({"n_embd": 10, "n_head": 4}, "n_embd 10 cannot be split into n_head 4"),
        (
            {"activation_function": "swish"},
            "activation_function 'swish' is unknown; known: gelu_new, gelu, relu",
        ),
        *(
            ({name: 0}, f"{name} is 0; it must be at least 1")
            for name in ("vocab_size", "n_positions", "n_layer", "n_inner")
        ),
        ({"n_head": -12}, "n_head is -12"),
        ({"n_embd": -768}, "n_embd is -768"),
        ({"n_layer": 2.0}, "n_layer is 2.0; it must be of type int"),
        ({"n_layer": True}, "n_layer is True"),
        ({"n_layer": None}, "n_layer is None"),
        ({"vocab_size": "50257"}, "vocab_size is '50257'"),
        ({"n_inner": [1]}, r"n_inner is \[1\]; it must be of type int \| None"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1; it must be of type bool"),
        ({"scale_attn_weights": None}, "scale_attn_weights is None"),
        ({"activation_function": None}, "activation_function is None"),
        ({"layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon is '1e-5'"),
        ({"layer_norm_epsilon": -1e-5}, "layer_norm_epsilon is -1e-05"),
        ({"layer_norm_epsilon": math.nan}, "layer_norm_epsilon is nan"),
        ({"layer_norm_epsilon": True}, "layer_norm_epsilon is True"),
        ({"add_cross_attention": True}, "no cross-attention"),
        ({"model_type": "gpt_neo"}, "model_type is 'gpt_neo'"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused_and_the_file_named(tmp_path, values, message):
    with pytest.raises(InputError, match=f"^{message}" if "cross" not in message else message):
        GPT2Config.from_dict(values)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=rf"config\.json: .*{message}"):
        read_config(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"gpt2"'])
def test_json_that_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: what it holds is .*; it must be a table"):
        read_config(tmp_path)


def test_entries_that_only_training_reads_are_ignored():
    values = {
        "model_type": "gpt2",
        "n_layer": 2,
        "n_ctx": 5,
        "resid_pdrop": 0.1,
        "add_cross_attention": False,
        "layer_norm_epsilon": 0,
    }
    assert GPT2Config.from_dict(values) == GPT2Config(n_layer=2, layer_norm_epsilon=0)


def test_json_and_back(tmp_path):
    config = GPT2Config(
        n_embd=8,
        n_head=2,
        n_inner=3,
        activation_function="relu",
        tie_word_embeddings=False,
        eos_token_id=0,
    )
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert read_config(tmp_path) == config


def test_other_names_of_an_activation_are_read_and_ours_is_written():
    config = GPT2Config.from_dict({"activation_function": "gelu_pytorch_tanh"})
    assert config.activation_function == config.to_dict()["activation_function"] == "gelu_new"
    assert GPT2Config(activation_function="gelu_python").activation_function == "gelu"


@pytest.mark.live
def test_every_activation_of_transformers_that_is_one_of_ours_is_known_as_such():
    """In float64 from -30 to 30; gelu_fast's constant has 10 digits, worst difference 9.1e-13.
    The nearest other function, quick_gelu, differs by 2e-2."""
    torch = pytest.importorskip("torch", reason="the oracle: pip install torch transformers")
    activations = pytest.importorskip(
        "transformers.activations", reason="the oracle: pip install torch transformers"
    )
    x = torch.linspace(-30, 30, 6001, dtype=torch.float64)
    same = {}
    for name in activations.ACT2FN:
        with contextlib.suppress(RuntimeError):  # prelu takes float32 only
            theirs = activations.ACT2FN[name](x).detach().numpy()
            for ours in ACTIVATIONS:
                if np.abs(getattr(ops, ours)(x.numpy()) - theirs).max() < 1e-11:
                    same[name] = ours
    assert same == SAME_ACTIVATION | {name: name for name in ACTIVATIONS}


@pytest.mark.live
def test_defaults_are_those_of_transformers():
    reason = "the oracle: pip install transformers (extra: reference)"
    theirs = pytest.importorskip("transformers", reason=reason).GPT2Config().to_dict()
    ours = GPT2Config().to_dict()
    del (
        ours["architectures"],
        ours["bos_token_id"],
        ours["eos_token_id"],
    )  # theirs are GPT-2's 50256; here they are optional
    assert ours == {name: theirs[name] for name in ours}
