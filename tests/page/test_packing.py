"""A packed model: its numbers are those of quantize, its patterns mean the same in JavaScript."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import regex

from minillm import families
from minillm.checkpoints import safetensors
from minillm.compression import quantize
from minillm.errors import InputError
from minillm.families import family as declared
from minillm.families.gpt2.config import GPT2Config
from minillm.families.llama.config import LlamaConfig
from minillm.page.packing import KINDS, for_browsers, pack
from minillm.tokenizer.patterns import FOLDED, PATTERNS
from tests.families.able import lively

CONFIGS = {  # K is no multiple of 32, rows none of 16
    "gpt2": GPT2Config(vocab_size=300, n_positions=16, n_embd=36, n_layer=2, n_head=3),
    "llama": LlamaConfig(
        vocab_size=300,
        hidden_size=40,
        intermediate_size=50,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
        tie_word_embeddings=False,
    ),
}


def unpacked(data: bytes, folder) -> tuple[dict, dict[str, np.ndarray]]:
    """The header, and every parameter as float32: matrices in rows, an output each."""
    (folder / "packed").write_bytes(data)
    tensors, metadata = safetensors.read(folder / "packed")
    header = json.loads(metadata["model"])
    for name, (rows, k) in header["matrices"].items():
        if tensors[name].dtype == np.uint8:
            blocks = np.array(tensors[name]).reshape(rows, -1, 34)
            scales = blocks[..., :2].copy().view(np.float16).astype(np.float32)
            numbers = blocks[..., 2:].copy().view(np.int8) * scales
            tensors[name] = numbers.reshape(rows, -1)[:, :k]
        assert tensors[name].shape == (rows, k)
    return header, {n: np.asarray(t, np.float32) for n, t in tensors.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_numbers_are_those_of_quantize(config, kind, small_tokenizer, tmp_path):
    model = lively(config)
    stored = quantize(model, kind)
    for given in (model, stored):
        header, found = unpacked(pack(given, small_tokenizer, kind), tmp_path)
        assert header["stored"] == kind and header["family"] == model.family.name
        for name, p in stored.parameters.items():
            wanted = np.asarray(p)
            if model.layout[name].role == "matrix":
                wanted = wanted.T
            np.testing.assert_array_equal(found[name], wanted, err_msg=name)


def test_int8_takes_little_more_than_a_byte_a_number(small_tokenizer):
    config = GPT2Config(vocab_size=2048, n_positions=64, n_embd=128, n_layer=2, n_head=4)
    model = lively(config)
    assert len(pack(model, small_tokenizer)) < 1.2 * model.n_parameters + 100_000


def test_what_cannot_be_packed_is_refused(small_tokenizer, monkeypatch):
    model = lively(CONFIGS["gpt2"])
    with pytest.raises(InputError, match="kind is 'int4'; it must be one of int8"):
        pack(model, small_tokenizer, "int4")

    class Other(GPT2Config):
        pass

    other = dataclasses.replace(families.of(model.config), name="other", config=Other)
    monkeypatch.setitem(declared._families, Other, other)
    with pytest.raises(InputError, match="no forward for the family 'other'"):
        pack(lively(Other(**vars(CONFIGS["gpt2"]))), small_tokenizer)


def as_python(pattern: str) -> str:
    """A pattern of JavaScript's, as the library `regex` writes it."""
    return regex.sub(r"\\u\{(\w+)\}", lambda m: f"\\U{int(m[1], 16):08x}", pattern)


@pytest.mark.parametrize(
    "pattern",
    sorted({p for parts in PATTERNS.values() for p in parts} | {FOLDED})
    + [r"a.b|\.{2,3}|[^\S\n]+?|[?+*}]+"],
)
def test_patterns_mean_the_same(pattern, hostile_text):
    text = hostile_text[:3000] + "It's I'LL we'ſ 12345 a\u2028b a\u0085b\u180e .. ... ?+}"
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    wanted = [m.span() for m in regex.finditer(pattern, text)]
    assert [m.span() for m in regex.finditer(as_python(for_browsers(pattern)), text)] == wanted


@pytest.mark.parametrize("pattern", [r"\p{L}++", r"a?+b", r"(?:a|b){2}+", "x*+"])
def test_what_javascript_lacks_is_refused(pattern):
    with pytest.raises(InputError, match="which JavaScript does not know"):
        for_browsers(pattern)
