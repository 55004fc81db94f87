"""Stored precisions: what they cost in size, that they save and load, and what is refused."""

import json

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError
from minillm.checkpoints import safetensors
from minillm.compression import quantize
from minillm.loading import load_model
from minillm.weights import KINDS

CONFIG = GPT2Config(
    vocab_size=70,
    n_positions=8,
    n_embd=36,
    n_layer=2,
    n_head=3,
    n_inner=50,
    tie_word_embeddings=False,
)
MODEL = GPT2.random(CONFIG, seed=2)
IDS = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]


def nbytes(model):
    return sum(p.nbytes for p in model.parameters.values())


@pytest.mark.parametrize(
    ("kind", "per_weight"),
    [
        ("bfloat16", 2),
        ("bfloat16_rounded", 2),
        ("float16", 2),
        ("int8", 34 / 32),
        ("int4", 18 / 32),
        ("int4_min", 20 / 32),
    ],
)
def test_sizes_are_what_the_formats_imply(kind, per_weight):
    """GPT2 shapes that fill whole panels and blocks: all bytes are accounted for, in memory and on
    disk."""
    model = GPT2.random(GPT2Config(vocab_size=64, n_positions=8, n_embd=64, n_layer=1, n_head=2))
    matrices = sum(p.size for n, p in model.parameters.items() if p.ndim == 2 and n != "wpe.weight")
    rest = 4 * (model.n_parameters - matrices)
    assert nbytes(model.quantize(kind)) == matrices * per_weight + rest


@pytest.mark.parametrize("kind", KINDS)
def test_the_textbook_multiplies_by_what_is_stored(kind):
    """A quantised model on ops equals one of its own dense matrices; float32, sums in slabs: worst
    measured 2e-7. Where what enters is rounded to bfloat16, 9.6e-4."""
    model = MODEL.quantize(kind)
    dense = {n: p.dense() if hasattr(p, "dense") else p for n, p in model.parameters.items()}
    atol = 5e-3 if kind == "bfloat16_rounded" else 5e-6
    np.testing.assert_allclose(model(IDS), GPT2(CONFIG, dense)(IDS), atol=atol)
    assert model.n_parameters == MODEL.n_parameters and model.dtype == np.float32
    assert {v.dtype for v in model.trace(IDS).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same(kind, tmp_path):
    MODEL.quantize(kind).save_pretrained(tmp_path)
    kind = kind.removesuffix("_rounded")  # which is how one computes, and no part of a file
    model = MODEL.quantize(kind)
    for loaded in (
        load_model(tmp_path),
        load_model(tmp_path, dtype="float64"),
        load_model(tmp_path, dtype="float32"),
    ):
        np.testing.assert_allclose(loaded(IDS), model(IDS), atol=5e-6)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == kind
    if kind.startswith("int"):
        loaded = load_model(tmp_path)
        weight = loaded.parameters["h.1.mlp.c_fc.weight"]
        assert weight.kind == kind and weight.shape == (36, 50)
        assert not weight.arrays["values"].flags.owndata  # a view of the mapped file
        size = (tmp_path / "model.safetensors").stat().st_size
        header = 8 + int.from_bytes((tmp_path / "model.safetensors").read_bytes()[:8], "little")
        assert size == header + nbytes(loaded)


@pytest.mark.live
@pytest.mark.parametrize("dtype", [None, "float32", "float16"])
@pytest.mark.parametrize("head", [True, False])
def test_transformers_refuses_a_quantised_folder(tmp_path, dtype, head):
    """It cannot read blocks, and must not draw what it cannot read at random."""
    transformers = pytest.importorskip("transformers")
    quantize(MODEL, "int8", head).save_pretrained(tmp_path)
    for model in (transformers.GPT2LMHeadModel, transformers.AutoModel):
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            model.from_pretrained(tmp_path, **({"dtype": dtype} if dtype else {}))


def test_a_quantised_model_can_be_stored_anew(tmp_path):
    model = MODEL.quantize("int8")
    np.testing.assert_allclose(model.quantize("float32")(IDS), model(IDS), atol=5e-6)
    model.save_pretrained(tmp_path, "float32")
    np.testing.assert_allclose(load_model(tmp_path)(IDS), model(IDS), atol=5e-6)
    model.save_pretrained(tmp_path, "bfloat16")
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(tmp_path, dtype="int4").parameters["wte.weight"].kind == "int4"


def test_unknown_kinds_are_refused():
    with pytest.raises(InputError, match="kind is 'int5'; it must be one of float32"):
        MODEL.quantize("int5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t, m: t.pop("transformer.h.0.attn.c_attn.weight.scales"),
            "c_attn.weight.scales' is missing",
        ),
        (
            lambda t, m: t.update({"transformer.wte.weight": t["transformer.wte.weight"][:-1]}),
            "wte.weight' is uint8",
        ),
        (lambda t, m: m.update(minillm="[]"), "metadata 'minillm': what it holds is"),
        (lambda t, m: m.update(minillm="{"), "metadata 'minillm': not valid JSON"),
        (
            lambda t, m: m.update(minillm='{"a": {"kind": "int3", "shape": [1, 2]}}'),
            "a'].kind is 'int3'; it must be one of float32, .*int4_min",
        ),
        (
            lambda t, m: m.update(minillm='{"a": {"kind": "int8", "shape": [0, 2]}}'),
            "stored weights are matrices",
        ),
        (
            lambda t, m: m.update(minillm='{"a": {"kind": "int8", "shape": [3, 2]}}'),
            "'a' is missing",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path, change, message):
    MODEL.quantize("int8").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors, metadata = safetensors.read(file)
    tensors = {name: np.array(array) for name, array in tensors.items()}
    change(tensors, metadata)
    safetensors.write(file, tensors, metadata)
    with pytest.raises(InputError, match=message) as caught:
        load_model(tmp_path)
    assert str(file) in str(caught.value)
