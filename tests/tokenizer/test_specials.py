"""Specials in a text: where it is cut, and which cannot be."""

import pytest

from minillm.tokenizer.specials import (
    named_token,
    split_at_specials,
    unusable_specials,
    well_formed,
)


def test_the_longest_special_is_found_first_and_nothing_is_lost(hostile_text):
    specials = {"<a>": 1, "<a><b>": 2, "e": 3}
    assert [*split_at_specials("x<a><b><a>y", specials)] == [
        ("x", None),
        ("<a><b>", 2),
        ("<a>", 1),
        ("y", None),
    ]
    parts = [*split_at_specials(hostile_text, specials)]
    assert "".join(part for part, _ in parts) == hostile_text
    assert all(i == specials.get(part) for part, i in parts)


def test_of_specials_that_overlap_the_first_or_the_longest_counts():
    specials = {"<a": 1, "a>>": 2, ">>é": 3}
    assert [*split_at_specials("<a>>é", specials)] == [("<a", 1), (">>é", 3)]
    assert [*split_at_specials("<a>>", specials)] == [("<a", 1), (">>", None)]
    in_turn = [*split_at_specials("<a>> <a>>é", specials, in_turn=True)]
    assert in_turn == [("<", None), ("a>>", 2), (" ", None), ("<a", 1), (">>é", 3)]


def test_surrogates_are_joined_or_replaced():
    assert well_formed("a\ud83d\ude00\ud800") == "a😀\ufffd"


@pytest.mark.parametrize(("special", "usable"), [("<a>", 1), (" ", 1), ("", 0), ("\ud800", 0)])
def test_specials_that_no_file_can_hold(special, usable):
    assert (unusable_specials([special]) == []) == usable


def test_a_token_is_named_by_its_text_or_a_table():
    config = {"eos_token": {"content": "<e>"}, "bos_token": "<b>"}
    assert [named_token(config, f"{n}_token") for n in ("eos", "bos", "pad")] == [
        "<e>",
        "<b>",
        None,
    ]
