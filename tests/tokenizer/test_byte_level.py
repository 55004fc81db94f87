"""What byte-level tokenizers share: the pattern cuts, the alphabet writes bytes."""

import pytest
import regex

from minillm.tokenizer import GPT2_PATTERN
from minillm.tokenizer.byte_level import byte_to_char, char_to_byte


def test_the_pattern_loses_nothing(hostile_text):
    assert "".join(regex.findall(GPT2_PATTERN, hostile_text)) == hostile_text


def test_every_byte_has_a_printable_character_of_its_own():
    characters = byte_to_char()
    assert sorted(characters) == [*range(256)] and all(c.isprintable() for c in characters.values())
    assert {char_to_byte()[c] for c in characters.values()} == {*range(256)}
    assert [*characters.values()][:3] == ["!", '"', "#"] and characters[ord(" ")] == "Ġ"


@pytest.mark.live
def test_byte_alphabet_is_the_library_s():
    pre_tokenizers = pytest.importorskip(
        "tokenizers.pre_tokenizers", reason="the oracle: pip install tokenizers (extra: reference)"
    )
    assert sorted(byte_to_char().values()) == sorted(pre_tokenizers.ByteLevel.alphabet())
