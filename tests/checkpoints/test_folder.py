"""A model's folder: written, read, and every way in which it can contradict itself; live: exchanged
with transformers."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, Tokenizer, load
from minillm.checkpoints import opening, safetensors
from minillm.checkpoints.checkpoint import Unread
from minillm.errors import InputError
from minillm.families import Family
from minillm.loading import load_model, save_model

TINY = GPT2Config(vocab_size=300, n_positions=8, n_embd=6, n_layer=2, n_head=2)


def random_parameters(config: GPT2Config = TINY, seed: int = 0) -> dict[str, np.ndarray]:
    """Every parameter random, biases and norms too, so that no two can be confused unseen."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape, np.float32)
        for name, shape in config.parameter_shapes().items()
    }


def write_folder(folder, tensors, config: GPT2Config | dict = TINY):
    """Write config.json and model.safetensors by hand; return the folder."""
    folder.mkdir(exist_ok=True)
    config = config.to_dict() if isinstance(config, GPT2Config) else config
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.write(folder / "model.safetensors", tensors)
    return folder


def assert_loads(folder, expected: dict[str, np.ndarray], dtype=np.float32) -> None:
    model = load_model(folder, dtype)
    assert model.parameters.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(
            model.parameters[name], array.astype(dtype), err_msg=name, strict=True
        )


def with_prefix(tensors):
    return {
        name if name == "lm_head.weight" else f"transformer.{name}": array
        for name, array in tensors.items()
    }


# ---- what loads


@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load_is_the_identity(tmp_path, tied):
    config = dataclasses.replace(
        TINY, tie_word_embeddings=tied, n_inner=5, activation_function="relu", eos_token_id=299
    )
    model = GPT2(config, random_parameters(config))
    model.save_pretrained(tmp_path / "new" / "folder")
    loaded = GPT2.from_pretrained(tmp_path / "new" / "folder")
    assert loaded.config == config
    stored, _ = safetensors.read(tmp_path / "new" / "folder" / "model.safetensors")
    assert stored.keys() == with_prefix(model.parameters).keys()  # the names that transformers has
    assert_loads(tmp_path / "new" / "folder", model.parameters)
    np.testing.assert_array_equal(loaded([1, 2, 3]), model([1, 2, 3]))


@pytest.mark.parametrize("naming", [dict, with_prefix], ids=["plain", "transformer."])
def test_prefix_is_optional_and_mask_buffers_are_ignored(tmp_path, naming):
    buffers = {
        "h.0.attn.bias": np.ones((1, 1, 8, 8), bool),
        "h.1.attn.masked_bias": np.array(-1e4, np.float32),
    }
    write_folder(tmp_path, naming(random_parameters() | buffers))
    assert_loads(tmp_path, random_parameters())


def test_equal_copy_of_a_tied_head_is_ignored(tmp_path):
    write_folder(
        tmp_path, random_parameters() | {"lm_head.weight": random_parameters()["wte.weight"]}
    )
    assert_loads(tmp_path, random_parameters())


@pytest.mark.parametrize("name", ["lm_head.weight", "transformer.lm_head.weight"])
def test_a_tied_matrix_may_carry_the_other_name_alone(tmp_path, name):
    tensors = random_parameters()
    write_folder(tmp_path, {name: tensors.pop("wte.weight")} | tensors)
    assert_loads(tmp_path, random_parameters())
    untied = TINY.to_dict() | {"tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(untied))
    with pytest.raises(InputError, match=r"wte\.weight is missing; this config needs \(300, 6\)"):
        load_model(tmp_path)


@pytest.mark.parametrize("stored", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("wanted", [np.float32, np.float64])
def test_stored_types_become_the_wanted_one(tmp_path, stored, wanted):
    tensors = {name: array.astype(stored) for name, array in random_parameters().items()}
    assert_loads(write_folder(tmp_path, tensors), tensors, wanted)


def test_bfloat16_loads(tmp_path):
    header, data = {}, b""
    expected = {}
    for name, array in random_parameters().items():
        # cut off, not rounded: exact either way
        bits = (array.view(np.uint32) >> 16).astype(np.uint16)
        header[name] = {
            "dtype": "BF16",
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + bits.nbytes],
        }
        data += bits.tobytes()
        expected[name] = (bits.astype(np.uint32) << 16).view(np.float32)
    write_folder(tmp_path, {})
    header = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    assert_loads(tmp_path, expected)


def test_float32_is_used_where_it_lies(tmp_path):
    model = load_model(write_folder(tmp_path, random_parameters()))
    for name, p in model.parameters.items():
        assert in_a_mapped_file(p) == (p.ndim == 2 and name != "wpe.weight"), name


def in_a_mapped_file(array) -> bool:
    while isinstance(array, np.ndarray | memoryview):
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return isinstance(array, mmap.mmap)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not cut short a mapped file")
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_a_file_that_is_cut_short_takes_nothing_small_with_it(tmp_path, kernels):
    """In a process of its own, which SIGBUS would end. NumPy's matrices stay mapped."""
    if kernels == "numba":
        pytest.importorskip("numba")
    write_folder(tmp_path, random_parameters())
    code = """if True:
        import os, sys
        from minillm.loading import load_model
        model = load_model(sys.argv[1], kernels=sys.argv[2])
        os.truncate(sys.argv[1] + "/model.safetensors", 0)
        for name, p in model.parameters.items():
            if sys.argv[2] == "numba" or p.ndim == 1 or name == "wpe.weight":
                for array in getattr(p, "arrays", {"": p}).values():
                    array.sum()
        print("alive")
    """
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, kernels], capture_output=True, text=True
    )
    assert done.stdout == "alive\n", done.stderr


def test_load_gives_model_and_tokenizer(tmp_path):
    tokenizer = Tokenizer.train(["the low lower lowest"] * 3, 270)
    tokenizer.save(write_folder(tmp_path, random_parameters()))
    model, loaded = load(tmp_path)
    assert (model.config, loaded.tokens) == (TINY, tokenizer.tokens)


# ---- once, and not before it is asked for


def test_a_load_finds_opens_and_checks_once(tmp_path, monkeypatch):
    """Found is a name, opened each file, checked the shapes: each once, for model and tokenizer."""
    Tokenizer.train(["the low lower lowest"] * 3, 270).save(tmp_path)
    model = GPT2(dataclasses.replace(TINY, generation={"do_sample": True}), random_parameters())
    model.save_pretrained(tmp_path)
    done = []

    def counted(owner, name, what=lambda *arguments: None):
        function = getattr(owner, name)

        def call(*arguments):
            done.append((name, what(*arguments)))
            return function(*arguments)

        monkeypatch.setattr(owner, name, call)

    counted(opening, "find_model")
    counted(Family, "shapes")
    counted(os, "open", lambda path, *_: Path(path).name)
    assert load(tmp_path)[0].generation_config == {"do_sample": True}
    assert sorted(done, key=str) == [
        ("find_model", None),
        ("open", "config.json"),
        ("open", "generation_config.json"),
        ("open", "model.safetensors"),
        ("open", "tokenizer.json"),
        ("open", "tokenizer_config.json"),
        ("shapes", None),
    ]


def test_a_checkpoint_tells_what_it_holds_and_reads_what_is_asked_for(tmp_path):
    write_folder(tmp_path, with_prefix(random_parameters()))
    checkpoint = opening.open_checkpoint(tmp_path)
    assert opening.open_checkpoint(checkpoint) is checkpoint
    assert (checkpoint.family.name, checkpoint.config) == ("gpt2", TINY)
    assert checkpoint.tokenizer is None
    assert {n: t.shape for n, t in checkpoint.tensors.items()} == TINY.parameter_shapes()
    table = checkpoint.tensors["wte.weight"]
    assert (table.name, table.kind) == ("transformer.wte.weight", "float32")
    np.testing.assert_array_equal(table.read(), random_parameters()["wte.weight"])
    (tmp_path / "tokenizer.json").write_text("no tokenizer")
    broken = opening.open_checkpoint(tmp_path)
    load_model(broken)
    with pytest.raises(InputError, match=r"tokenizer\.json: not valid JSON"):
        load(broken)


def test_nothing_is_read_before_the_shapes_fit(tmp_path):
    checkpoint = opening.open_checkpoint(write_folder(tmp_path, random_parameters()))
    refused = dict.fromkeys(("read",), lambda: pytest.fail("it was read"))
    unread = {n: dataclasses.replace(t, **refused) for n, t in checkpoint.tensors.items()}
    checkpoint = dataclasses.replace(checkpoint, tensors=unread)
    with pytest.raises(InputError, match="has shape"):
        GPT2(dataclasses.replace(TINY, n_positions=4), Unread(checkpoint, "int8", True))


def test_the_names_of_0_1_lead_to_loading():
    from minillm import checkpoints, loading

    for name in ("load", "load_model", "save_model"):
        with pytest.warns(FutureWarning, match=rf"{name} is now called minillm\.loading\.{name};"):
            assert getattr(checkpoints, name) is getattr(loading, name)
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        checkpoints.lode  # noqa: B018


# ---- shards


@pytest.fixture
def sharded(tmp_path):
    """A folder of two shards and their index."""
    tensors = with_prefix(random_parameters())
    parts = {
        "model-00001-of-00002.safetensors": [*tensors][:9],
        "model-00002-of-00002.safetensors": [*tensors][9:],
    }
    for file, names in parts.items():
        safetensors.write(tmp_path / file, {name: tensors[name] for name in names})
    index = {
        "metadata": {},
        "weight_map": {name: file for file, names in parts.items() for name in names},
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_dict()))
    return tmp_path


def test_shards_load(sharded):
    assert_loads(sharded, random_parameters())


def test_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        InputError,
        match=(
            r"index\.json: names the shard 'model-00002-of-00002\.safetensors', which is not there"
        ),
    ):
        load_model(sharded)


@pytest.mark.parametrize(
    "index, message",
    [
        (
            {"weight_map": {"wte.weight": "model-00001-of-00002.safetensors"}},
            "00001-of-00002.safetensors: tensor 'wte.weight'",
        ),
        (
            {"weight_map": {"wte.weight": "../model.safetensors"}},
            "'../model.safetensors' of 'wte.weight' must be a file name",
        ),
        ({"weight_map": {"wte.weight": "/etc/passwd"}}, "must be a file name"),
        ({"weight_map": {"wte.weight": ".."}}, r"the shard '\.\.', which is not there"),
        ({"weight_map": {"wte.weight": "a\0b\n"}}, "must be a file name"),
        (
            {"weight_map": {"wte.weight": 1}},
            r"weight_map\['wte.weight'\] is 1; it must be of type str",
        ),
        ({"weight_map": {}}, "weight_map is empty"),
        ({"weight_map": ["wte.weight"]}, "weight_map is .* must be of type dict"),
        ([], r"what it holds is \[\]; it must be a table"),
    ],
    ids=repr,
)
def test_wrong_index_is_refused(sharded, index, message):
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=message) as error:
        load_model(sharded)
    assert str(sharded) in str(error.value)


# ---- tensors and config that contradict each other: the file, the key, both shapes


def without(name):
    return lambda tensors: {n: array for n, array in tensors.items() if n != name}


WTE_AS_HEAD = random_parameters()["wte.weight"]


@pytest.mark.parametrize(
    "change, config, message",
    [
        (
            without("h.1.ln_2.bias"),
            {},
            r"h.1.ln_2.bias is missing; this config needs \(6,\); 1 of 28 are not there",
        ),
        (lambda t: t | {"h.2.ln_1.bias": np.ones(6)}, {}, "'h.2.ln_1.bias' has no place in this"),
        (
            lambda t: t | {"transformer.h.0.ln_1.bias": t["h.0.ln_1.bias"] + 1},
            {},
            "'transformer.h.0.ln_1.bias' differs from 'h.0.ln_1.bias'",
        ),
        (
            lambda t: t | {"wpe.weight": np.ones((6, 8))},
            {},
            r"'wpe.weight' has shape \(6, 8\); this config needs \(8, 6\)",
        ),
        (
            lambda t: t | {"ln_f.bias": np.ones(())},
            {},
            r"'ln_f.bias' has shape \(\); this config needs \(6,\)",
        ),
        (lambda t: t | {"ln_f.bias": np.ones(6, int)}, {}, "'ln_f.bias' holds int64"),
        (
            lambda t: t | {"lm_head.weight": WTE_AS_HEAD + 1},
            {},
            "'lm_head.weight' differs from 'wte.weight'",
        ),
        (
            lambda t: t | {"lm_head.weight": WTE_AS_HEAD[:9]},
            {},
            "'lm_head.weight' differs from 'wte.weight'",
        ),
        (
            lambda t: {"lm_head.weight": WTE_AS_HEAD[:9]} | without("wte.weight")(t),
            {},
            r"'lm_head.weight' has shape \(9, 6\); this config needs \(300, 6\)",
        ),
        (
            dict,
            {"tie_word_embeddings": False},
            r"lm_head.weight is missing; .* \(300, 6\); 1 of 29",
        ),
        (
            lambda t: {f"_orig_mod.{name}": array for name, array in t.items()},
            {},
            r"'_orig_mod\.\S+' has no place .*; save the model that the wrapper",
        ),
        (
            lambda t: {f"module.{name}": array for name, array in t.items()},
            {},
            r"'module\.\S+' has no place .*; save the model that the wrapper",
        ),
        (
            lambda t: t | {"h.0.mlp.c_fc.weight": t["h.0.mlp.c_fc.weight"].T.copy()},
            {},
            r"has shape \(24, 6\); this config needs \(6, 24\) \(turned: ",
        ),
        (dict, {"n_layer": 3}, r"h.2.ln_1.weight is missing; .* \(6,\); 12 of 40 are not there"),
        (dict, {"n_layer": 1}, r"'h.1.\S+' has no place in this config; 12 are too many"),
        (dict, {"n_embd": 4}, r"has shape \(.*6.*\); this config needs \(.*4.*\)"),
        (dict, {"n_inner": 23}, r"has shape \(.*24.*\); this config needs \(.*23.*\)"),
        (
            dict,
            {"vocab_size": 301},
            r"'wte.weight' has shape \(300, 6\); this config needs \(301, 6\)",
        ),
        (dict, {"n_positions": 4}, r"'wpe.weight' has shape \(8, 6\); this config needs \(4, 6\)"),
        (dict, {"n_head": 4}, "config.json: n_embd 6 cannot be split into n_head 4"),
        (dict, {"n_head": "2"}, "config.json: n_head is '2'"),
        (
            dict,
            {"activation_function": "swish"},
            "config.json: activation_function 'swish' is unknown",
        ),
        (dict, {"add_cross_attention": True}, "config.json: add_cross_attention"),
        (dict, {"model_type": "bert"}, "config.json: model_type is 'bert'; minillm reads 'gpt2'"),
        (
            dict,
            {"model_type": None, "architectures": ["BertModel"]},
            r"config.json: architectures is \['BertModel'\]; minillm reads 'gpt2'",
        ),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else None,
)
def test_contradiction_is_refused(tmp_path, change, config, message):
    write_folder(tmp_path, change(random_parameters()), TINY.to_dict() | config)
    with pytest.raises(InputError, match=message) as error:
        load_model(tmp_path)
    assert str(tmp_path) in str(error.value)
    if "shape" in message:
        assert str(tmp_path / "model.safetensors") in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json", "merges.txt"])
def test_missing_file_is_named(tmp_path, name):
    Tokenizer.train([], 257).save(write_folder(tmp_path, random_parameters()))
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=re.escape(name)) as error:
        load(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.fp16.safetensors"])
def test_weights_in_another_format_are_pointed_out(tmp_path, name):
    (tmp_path / "config.json").write_text('{"n_layer": 2}')
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"no model.safetensors; it has {name}: save it again"):
        load_model(tmp_path)


def test_vocabulary_larger_than_the_model_is_refused(tmp_path):
    Tokenizer.train([], 302, ["<a>", *(f"<{i}>" for i in range(45))]).save(
        write_folder(tmp_path, random_parameters())
    )
    with pytest.raises(InputError, match="the tokenizer has 302 tokens, the model 300"):
        load(tmp_path)


# ---- what is written


def test_float16_is_stored_as_asked(tmp_path):
    save_model(GPT2(TINY, random_parameters()), tmp_path, np.float16)
    stored, metadata = safetensors.read(tmp_path / "model.safetensors")
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}
    assert metadata == {"format": "pt"}  # transformers refuses a file without it
    assert json.loads((tmp_path / "config.json").read_bytes())["dtype"] == "float16"
    assert_loads(
        tmp_path, {name: array.astype(np.float16) for name, array in random_parameters().items()}
    )


@pytest.mark.parametrize("other", [0.0, np.inf])
def test_value_too_large_for_float16_is_refused_and_the_old_file_kept(tmp_path, other):
    save_model(GPT2(TINY, random_parameters()), tmp_path)
    large = random_parameters()
    large["ln_f.bias"][:2] = 7e4, other
    with pytest.raises(
        InputError, match=r"ln_f.bias has values up to 7e\+04, too large for float16"
    ):
        save_model(GPT2(TINY, large), tmp_path, np.float16)
    assert_loads(tmp_path, random_parameters())


def test_integers_cannot_store_parameters(tmp_path):
    with pytest.raises(InputError, match="cannot be stored as int8"):
        save_model(GPT2(TINY, random_parameters()), tmp_path, "int8")
    assert not list(tmp_path.iterdir())


# ---- live: transformers is the oracle


@pytest.fixture
def transformers():
    pytest.importorskip(
        "torch", reason="the oracle: pip install torch transformers (extra: reference)"
    )
    return pytest.importorskip(
        "transformers", reason="the oracle: pip install torch transformers (extra: reference)"
    )


IDS = [[5, 0, 299, 17], [1, 2, 3, 4]]
CONFIGS = [
    TINY,
    dataclasses.replace(TINY, tie_word_embeddings=False, activation_function="gelu", n_inner=7),
    dataclasses.replace(
        TINY, n_head=3, activation_function="relu", scale_attn_by_inverse_layer_idx=True
    ),
    dataclasses.replace(TINY, scale_attn_weights=False, layer_norm_epsilon=1e-2),
]


def assert_same_logits(folder, their_model):
    import torch

    with torch.no_grad():
        theirs = their_model.double().eval()(torch.tensor(IDS)).logits.numpy()
    # float64 on both sides, logits up to about 10: rounding is near 1e-14, 1e-10 is what the
    # project calls exact
    np.testing.assert_allclose(
        load_model(folder, np.float64)(np.array(IDS)), theirs, rtol=0, atol=1e-10
    )


@pytest.mark.live
@pytest.mark.parametrize("stored", [np.float32, np.float16])
@pytest.mark.parametrize("config", CONFIGS)
def test_transformers_loads_what_we_save(tmp_path, transformers, config, stored):
    save_model(GPT2(config, random_parameters(config)), tmp_path, stored)
    their_model, report = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path, dtype="float64", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report  # nothing missing, unexpected or misshapen
    assert_same_logits(tmp_path, their_model)


@pytest.mark.live
@pytest.mark.parametrize("shard", ["1GB", "3KB"])
@pytest.mark.parametrize("config", CONFIGS)
def test_we_load_what_transformers_saves(tmp_path, transformers, config, shard):
    import torch

    torch.manual_seed(0)
    their_model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**config.to_dict(), attn_implementation="eager")
    )
    for parameter in their_model.parameters():
        torch.nn.init.normal_(parameter)
    their_model.save_pretrained(tmp_path, max_shard_size=shard)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 or shard == "1GB"
    assert_same_logits(tmp_path, their_model)


@pytest.mark.live
@pytest.mark.parametrize("name", ["gelu_fast", "gelu_pytorch_tanh", "gelu_python"])
def test_other_names_of_our_functions_give_the_same_logits(tmp_path, transformers, name):
    config = transformers.GPT2Config(**TINY.to_dict() | {"activation_function": name})
    their_model = transformers.GPT2LMHeadModel(config)
    their_model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_bytes())["activation_function"] == name
    assert_same_logits(tmp_path, their_model)


@pytest.mark.live
def test_transformers_loads_bfloat16_as_we_do(tmp_path, transformers):
    their_model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**TINY.to_dict(), attn_implementation="eager")
    )
    their_model.bfloat16().save_pretrained(tmp_path)
    assert_same_logits(tmp_path, their_model)
