"""The files made for other engines hold the model: their greedy tokens are ours. Skipped where an
engine is not installed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError, bench
from minillm.bench import convert, stored
from minillm.loading import load_model

CONFIG = GPT2Config(vocab_size=300, n_positions=64, n_embd=64, n_layer=2, n_head=4)
PLAIN = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "odd": {"n_inner": 96, "layer_norm_epsilon": 1e-2},
}


@pytest.fixture
def saved(tmp_path):
    """Save a random model whose every parameter matters; its logits are far apart."""

    def save(**settings):
        start = GPT2.random(dataclasses.replace(CONFIG, **settings))
        rng = np.random.default_rng(1)
        spread = {
            name: rng.standard_normal(p.shape, np.float32) * np.float32(0.3)
            for name, p in start.parameters.items()
        }
        GPT2(
            start.config, {name: p + spread[name] for name, p in start.parameters.items()}
        ).save_pretrained(tmp_path)
        return tmp_path

    return save


def compared(folder, *names):
    engine = "ctranslate2" if "ctranslate2" in names[0] else "llama_cpp"
    pytest.importorskip(engine, reason="needs the extra bench: pip install -e '.[bench]'")
    comparison = bench.run(
        folder, ["minillm-numpy", *names], n_prompt=20, n_new=30, rounds=1, threads=1
    )
    assert [result.missing for result in comparison.results] == [None] * (1 + len(names))
    return comparison.results


@pytest.mark.live
@pytest.mark.parametrize("settings", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("name", ["ctranslate2-fp32", "llama.cpp-F32"])
def test_greedy_tokens_are_ours(saved, name, settings):
    ours, theirs = compared(saved(**settings), name)
    assert theirs.tokens == ours.tokens and theirs.threads == 1
    # a few scalars of CTranslate2's
    assert theirs.weight_bytes == pytest.approx(ours.weight_bytes, rel=1e-3)


@pytest.mark.live
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_other_activations(saved, activation):
    ours, theirs = compared(saved(activation_function=activation), "ctranslate2-fp32")
    assert theirs.tokens == ours.tokens


@pytest.mark.live
@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("llama.cpp-F16", 16),
        ("llama.cpp-Q8_0", 8.5),
        ("llama.cpp-Q4_0", 4.5),
        ("llama.cpp-Q4_1", 5),
        ("ctranslate2-int8", 8),
    ],
)
def test_narrow_weights_read_less_and_begin_alike(saved, name, bits):
    """The model's matrices are rounded first, so that only the rounding of activations is left
    between both.

    Vectors stay float32, hence the slack above; a scale of CTranslate2's is 32 bits a row of 64:
    half a bit each.
    """
    folder = saved()
    if "llama" in name:
        gguf = pytest.importorskip(
            "gguf", reason="needs the extra bench: pip install -e '.[bench]'"
        )
        kind, model = gguf.GGMLQuantizationType[name.partition("-")[2]], load_model(folder)
        changed = {}
        for key, array in model.parameters.items():
            if array.ndim == 2 and key != "wpe.weight":
                turned = np.ascontiguousarray(array if key == "wte.weight" else array.T)
                rounded = gguf.dequantize(gguf.quantize(turned, kind), kind)
                changed[key] = rounded if key == "wte.weight" else rounded.T
        model.with_parameters(changed).save_pretrained(folder)
    ours, theirs = compared(folder, name)
    assert bits / 32 <= theirs.weight_bytes / ours.weight_bytes < (bits + 1.5) / 32
    # CTranslate2's 8-bit products are others on AVX2 than on VNNI: there the third token parts.
    alike = 2 if "ctranslate2" in name else 4
    assert theirs.tokens[:alike] == ours.tokens[:alike]


@pytest.mark.live
@pytest.mark.parametrize(
    ("precision", "step"),
    [("F32", 0), ("F16", 2**-11), ("Q8_0", 1 / 254), ("Q4_0", 1 / 8), ("Q4_1", 1 / 15)],
)
def test_every_matrix_is_in_the_type_asked_for(saved, tmp_path, precision, step):
    gguf = pytest.importorskip("gguf", reason="needs the extra bench: pip install -e '.[bench]'")
    folder, path = saved(), tmp_path / "model.gguf"
    n_bytes = convert.write_gguf(folder, path, precision)
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    assert {
        t.tensor_type.name
        for name, t in tensors.items()
        if len(t.shape) == 2 and "position" not in name
    } == {precision}
    assert n_bytes == sum(t.n_bytes for name, t in tensors.items() if "position" not in name)
    weights = load_model(folder).parameters
    for ours, theirs in {"h.1.mlp.c_fc": "blk.1.ffn_up", "wte": "token_embd"}.items():
        source = weights[f"{ours}.weight"] if ours == "wte" else weights[f"{ours}.weight"].T
        back = gguf.dequantize(
            tensors[f"{theirs}.weight"].data, tensors[f"{theirs}.weight"].tensor_type
        )
        blocks = source.reshape(-1, 32)
        largest, off = np.abs(blocks).max(1, keepdims=True), np.abs(back.reshape(-1, 32) - blocks)
        # half a step, at one end of Q4_0's range a whole one; the scale is a float16
        assert (off <= (step + (2**-11 if "_" in precision else 0)) * largest + 1e-7).all()


@pytest.mark.live
@pytest.mark.parametrize("file_type", ["Q4_0", "Q8_0", "F16", "F32"])
def test_llama_cpp_writes_a_file_in_another_type(saved, tmp_path, file_type):
    """All matrices of the blocks have the type; the tokens' table is the head, too."""
    pytest.importorskip("llama_cpp", reason="needs the extra bench: pip install -e '.[bench]'")
    source, target = tmp_path / "source.gguf", tmp_path / "target.gguf"
    convert.write_gguf(saved(), source, "Q4_1")
    convert.in_another_process(convert.requantize, source, target, file_type)
    before, after = load_model(source), load_model(target)
    assert stored.type_of(source) == "Q4_1" and stored.type_of(target) == file_type
    for name, p in before.parameters.items():
        p, q = (a.dense() if hasattr(a, "dense") else a for a in (p, after.parameters[name]))
        step = {"Q4_0": 1 / 8, "Q8_0": 1 / 128, "F16": 2**-11, "F32": 0}[file_type]
        assert np.abs(p - q).max() <= step * np.abs(p).max() + 1e-7, name
    with pytest.raises(InputError, match=r"llama.cpp cannot write .* as F16 \(code 1\)"):
        convert.in_another_process(convert.requantize, tmp_path / "none.gguf", target, "F16")


@pytest.mark.parametrize(
    "settings", [{"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}]
)
def test_models_that_the_engines_cannot_run_are_refused(saved, tmp_path, settings):
    with pytest.raises(
        InputError,
        match=r"llama.cpp has no GPT-2 whose attention scores are not divided by sqrt\(D\)",
    ):
        convert.write_gguf(saved(**settings), tmp_path / "x.gguf", "F32")


def test_what_gguf_cannot_hold_is_refused(saved, tmp_path):
    with pytest.raises(InputError, match="no GPT-2 with activation_function 'relu'"):
        convert.write_gguf(saved(activation_function="relu"), tmp_path / "x.gguf", "F32")
    with pytest.raises(InputError, match="whole blocks of 32; the model's C is 16, its F 64"):
        convert.write_gguf(saved(n_embd=16), tmp_path / "x.gguf", "Q4_0")


def test_errors_of_the_other_process_come_back():
    with pytest.raises(InputError, match="no folder '/nowhere/at/all'"):
        convert.in_another_process(load_model, "/nowhere/at/all")
    with pytest.raises(ModuleNotFoundError) as error:
        convert.in_another_process(__import__, "no_such_library")
    assert error.value.name == "no_such_library"
