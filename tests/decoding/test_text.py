"""Text that streams: no half characters, nothing of a stop string."""

import pytest

from minillm import Tokenizer
from minillm.decoding.text import TextStream


@pytest.mark.parametrize("text", ["héllo 😀 wörld", "👩‍👩‍👧 über", "日本語"])
def test_no_half_characters_are_shown(text):
    tokenizer = Tokenizer.train([], 257)  # every byte its own token
    stream = TextStream(tokenizer)
    shown = [stream.push(i) for i in tokenizer.encode(text)]
    assert "".join(shown) == text
    assert "\ufffd" not in "".join(shown) and "" in shown


def test_an_unfinished_character_is_shown_as_such_at_the_end():
    tokenizer = Tokenizer.train([], 257)
    stream = TextStream(tokenizer)
    ids = tokenizer.encode("aé")
    assert [stream.push(ids[0]), stream.push(ids[1], last=True)] == ["a", "\ufffd"]


@pytest.mark.parametrize(
    ("stop", "text", "shown"),
    [
        ("END", "the END of", "the "),
        ("END", "EN END", "EN "),
        ("aab", "aaab", "a"),
        (["x", "yx"], "zyx", "z"),
        ("no", "n", "n"),
    ],
)
def test_text_that_may_begin_a_stop_waits(stop, text, shown):
    tokenizer = Tokenizer.train([], 257)
    stream = TextStream(tokenizer, stop)
    out = ""
    for n, i in enumerate(tokenizer.encode(text), 1):
        out += stream.push(i, last=n == len(text))
        assert shown.startswith(out)
        if stream.stopped:
            break
    assert out == shown
