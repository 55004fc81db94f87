"""How text is cut: each pattern by name, what is refused; pieces lose nothing."""

from __future__ import annotations

import pickle

import pytest

from minillm import Tokenizer
from minillm.errors import InputError
from minillm.tokenizer import GPT2_PATTERN, PATTERNS
from minillm.tokenizer.patterns import COVERING, NAMES, cutter, pattern_of
from tests.conftest import HOSTILE

TEXT = "It's  DON'T, 12345 a1\n\n x = 3."


@pytest.mark.parametrize(
    "name, pieces",
    [
        ("gpt-2", "It|'s| | DON|'|T|,| 12345| a|1|\n\n| x| =| 3|."),
        ("default", "It|'|s| | DON|'|T|,| |123|45| a|1|\n\n| x| |=| |3|."),
        ("smollm", "It|'s| | DON|'|T|,| |1|2|3|4|5| a|1|\n\n| x| =| |3|."),
        ("llama-bpe", "It|'s| | DON|'T|,| |123|45| a|1|\n\n| x| =| |3|."),
        ("qwen2", "It|'s| | DON|'T|,| |1|2|3|4|5| a|1|\n\n| x| =| |3|."),
    ],
)
def test_the_pieces_of_each_pattern(name, pieces):
    assert cutter(PATTERNS[name])(TEXT) == pieces.split("|")


@pytest.mark.parametrize("pattern", NAMES, ids=lambda pattern: NAMES[pattern])
def test_no_pattern_loses_anything(pattern):
    assert pattern_of(pattern) == pattern
    for text in HOSTILE.values():
        assert "".join(cutter(pattern)(text)) == text, ascii(text[:60])


def test_blanks_before_a_digit_end_a_piece():
    assert cutter(PATTERNS["smollm"])("a  1") == ["a", "  ", "1"]
    assert cutter((GPT2_PATTERN,))("a  1") == ["a", " ", " 1"]


def test_the_long_s_is_a_contraction_where_cases_are_folded():
    """As Oniguruma folds in tokenizer.json; llama.cpp knows s and S."""
    folded = [pattern for pattern in COVERING if "(?i:" in pattern[0]]
    assert {NAMES[pattern] for pattern in folded} == {"llama-bpe", "qwen2"}
    for pattern in folded:
        assert cutter(pattern)("a'\u017fb") == ["a", "'\u017f", "b"]
        assert cutter(PATTERNS[NAMES[pattern]])("a'\u017fb") == ["a", "'\u017fb"]


def test_groups_and_gaps():
    assert cutter(pattern_of(["(a)(b)?", r"\d"]))("xxab1a2") == ["xx", "ab", "1", "a", "2"]


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("gpt2", "pattern 'gpt2' is unknown; known: gpt-2, default, smollm, llama-bpe, qwen2"),
        ((), "pattern is empty"),
        (("[a",), "otherwise"),
        ((5,), "otherwise"),
        (("(a",), "is none"),
        (("a|",), "matches where nothing stands"),
        (("x" * 2001,), "otherwise"),
        *(
            ((part,), "may read otherwise")
            for part in (
                r"\w+",
                "a$",
                "[a&&b]",
                "[[:alpha:]]",
                "(?i:ss)",
                "(?m:.)",
                "a{2}+",
                "(a+)+",
            )
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_cannot_cut_is_refused(pattern, message):
    with pytest.raises(InputError, match=message) as error:
        Tokenizer([b"a"], [], {}, pattern=pattern)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("pattern", [*PATTERNS, (r"\d+", "[aeiou]")])
def test_a_tokenizer_keeps_its_pattern(small_tokenizer, tmp_path, pattern):
    """Through its files and through pickle, and its repr says which it is."""
    ours = Tokenizer(
        small_tokenizer.tokens,
        small_tokenizer.merges,
        small_tokenizer.special_tokens,
        pattern=pattern,
        normalizer="NFC",
        ignore_merges=True,
        template=((small_tokenizer.eot_id,), ()),
    )
    ours.save(tmp_path)
    names = ("pattern", "normalizer", "ignore_merges", "template")
    for again in (Tokenizer.from_pretrained(tmp_path), pickle.loads(pickle.dumps(ours))):
        assert [getattr(again, n) for n in names] == [getattr(ours, n) for n in names]
        assert again.encode(TEXT) == ours.encode(TEXT)
    assert (repr(pattern) if isinstance(pattern, str) else r"'\\d+'") in repr(ours)
