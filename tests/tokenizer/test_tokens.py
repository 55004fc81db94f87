"""The tokens of a text, as a terminal and a notebook show them."""

import re
from html import unescape

from minillm.tokenizer import Token, Tokens
from minillm.tokenizer.tokens import DRAWN, LISTED


def of_bytes(*pieces: bytes) -> Tokens:
    return Tokens(Token(i, data) for i, data in enumerate(pieces))


def test_they_are_what_encode_says(small_tokenizer, hostile_text):
    tokens = small_tokenizer.tokenize(hostile_text[:5000])
    assert tokens.ids == small_tokenizer.encode(hostile_text[:5000])
    assert b"".join(token.data for token in tokens) == small_tokenizer.decode_bytes(tokens.ids)
    assert all(line.isprintable() for line in (repr(tokens), *map(str, tokens)))
    assert len(repr(tokens)) < 500
    markup = "</?div[^>]*>|</?span[^>]*>|<br>| and [0-9,]+ more"
    seen = re.sub(markup, "", tokens._repr_html_())
    assert "<" not in seen
    assert unescape(seen) == "".join(map(str, tokens[:DRAWN]))


def test_a_special_is_one_of_them(small_tokenizer):
    (end,) = small_tokenizer.tokenize("<|endoftext|>", "all")
    assert end == (small_tokenizer.eot_id, b"<|endoftext|>")


def test_spaces_are_visible_and_ids_are_titles():
    html = of_bytes(b"a", b" b\n", b"\tc", b"\xe7\xb5")._repr_html_()
    pieces = re.findall('<span title="(.)" style="background:([^"]*)">(.*?)</span>', html)
    ids, grounds, texts = zip(*pieces)
    assert ids == ("0", "1", "2", "3")
    assert grounds[0] == grounds[2] != grounds[1] == grounds[3]
    assert texts == ("a", "␣b⏎<br>", "⇥c", r"\xe7\xb5")


def test_the_text_cannot_become_markup():
    html = of_bytes(b'"><script>alert(1)</script>', b"&lt;")._repr_html_()
    assert "<script" not in html
    assert "&quot;&gt;&lt;script&gt;" in html and "&amp;lt;" in html


def test_repr_is_short():
    assert repr(of_bytes()) == "Tokens(0: )"
    assert repr(of_bytes(b"a", b" b", b"\xff")) == r"Tokens(3: 'a' '␣b' '\xff')"
    assert repr(of_bytes(*[b"x"] * 1234)) == "Tokens(1,234: " + "'x' " * LISTED + "...)"


def test_a_long_text_is_not_drawn_whole():
    html = of_bytes(*[b"x"] * (DRAWN + 1234))._repr_html_()
    assert html.count("<span") == DRAWN and html.endswith(" and 1,234 more</div>")


def test_a_slice_is_tokens_too():
    tokens = of_bytes(b"a", b"b", b"c")
    assert isinstance(tokens[1:], Tokens) and tokens[1:].ids == [1, 2]
    assert tokens[0] == (0, b"a")
