"""Scores of a text: T tokens give T - 1 predictions, and probabilities multiply."""

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError, Tokenizer
from minillm.decoding.scoring import continuation_logprob, next_logprobs, score, score_long
from minillm.ops import softmax
from minillm.tokenizer import END_OF_TEXT

MODEL = GPT2.random(
    GPT2Config(vocab_size=31, n_positions=8, n_embd=8, n_layer=2, n_head=2), dtype=np.float64
)
IDS = [3, 1, 4, 1, 5]


def test_each_token_is_scored_from_those_before_it():
    result = score(MODEL, IDS)
    expected = [np.log(softmax(MODEL(IDS[:n])[-1])[IDS[n]]) for n in range(1, 5)]
    np.testing.assert_allclose(result.logprobs, expected, rtol=1e-12)
    assert result.logprob == pytest.approx(sum(expected))
    assert result.cross_entropy == pytest.approx(-sum(expected) / 4)
    assert result.perplexity == pytest.approx(np.exp(-sum(expected) / 4))
    assert result.ranks.tolist() == [
        1 + int((MODEL(IDS[:n])[-1] > MODEL(IDS[:n])[-1][IDS[n]]).sum()) for n in range(1, 5)
    ]


def test_a_single_token_predicts_nothing():
    assert len(score(MODEL, [3]).logprobs) == 0


def test_the_next_token_and_a_continuation():
    following = next_logprobs(MODEL, IDS)
    assert np.exp(following).sum() == pytest.approx(1)
    then = next_logprobs(MODEL, [*IDS, 9])
    assert continuation_logprob(MODEL, IDS, [9, 2]) == pytest.approx(following[9] + then[2])


def test_too_long_a_text_is_refused():
    with pytest.raises(InputError, match="9 tokens do not fit the model's 8 positions"):
        score(MODEL, [0] * 9)


def test_what_is_read_in_pieces_scores_the_same(monkeypatch):
    """Pieces of 3 of a text of 5, of 3, of 4 whose last has no target left; a window, too."""
    whole = [score(MODEL, IDS[:n]) for n in (3, 4, 5)]
    long = score_long(LONG, TOKENIZER, TEXT, 8, 3)
    monkeypatch.setattr("minillm.decoding.scoring.AT_ONCE", 3)
    for n, expected in zip((3, 4, 5), whole):
        found = score(MODEL, IDS[:n])
        np.testing.assert_allclose(found.logprobs, expected.logprobs, rtol=1e-12)
        assert found.ranks.tolist() == expected.ranks.tolist()
    found = score_long(LONG, TOKENIZER, TEXT, 8, 3)
    np.testing.assert_allclose(found.nats, long.nats, rtol=1e-12)


# ---- long texts

TOKENIZER = Tokenizer.train([], 257)  # every byte its own token
LONG = GPT2.random(
    GPT2Config(vocab_size=257, n_positions=8, n_embd=8, n_layer=1, n_head=2), dtype=np.float64
)
TEXT = "a tale\n<|endoftext|>\nand another\n<|endoftext|>\n"


def test_every_token_is_predicted_once_whatever_the_window():
    ids = [*b"a tale\n", 256, *b"and another\n", 256]
    ids = [TOKENIZER.encode(chr(i))[0] if i < 256 else i for i in ids]
    for window, stride in ((8, 8), (8, 3), (5, 5), (4, 1)):
        result = score_long(LONG, TOKENIZER, TEXT, window, stride)
        assert len(result.nats) == len(ids) - 1 and result.n_bytes == 19
        for n in range(1, len(ids)):  # by hand: the window that predicts token n first
            start = next(s for s in range(0, len(ids), stride) if s < n <= s + window)
            expected = -np.log(softmax(LONG(ids[start:n])[-1])[ids[n]])
            assert result.nats[n - 1] == pytest.approx(expected, rel=1e-10)
            assert result.positions[n - 1] == n - 1 - start
    assert result.bits_per_byte == pytest.approx(result.nats.sum() / np.log(2) / 19)
    assert result.perplexity == pytest.approx(np.exp(result.nats.mean()))


@pytest.mark.parametrize("end", ["\n", "\r\n", ""], ids=repr)
def test_every_end_of_text_is_predicted_and_no_byte_of_the_text(end):
    documents = ["a tale\n", "and another", "x"]
    text = "".join(document + END_OF_TEXT + end for document in documents)
    encoded = [i for d in documents for i in (*TOKENIZER.encode(d), 256)]
    for whole in (text, text.removesuffix(end)):
        result = score_long(LONG, TOKENIZER, whole)
        assert len(result.nats) == len(encoded) - 1 and result.n_bytes == 19
        expected = score_long(LONG, TOKENIZER, "".join(f"{d}{END_OF_TEXT}\n" for d in documents))
        np.testing.assert_array_equal(result.nats, expected.nats)


def test_a_text_without_a_byte_is_refused():
    for text in ("", END_OF_TEXT, f"{END_OF_TEXT}\n" * 3, END_OF_TEXT * 20 + "\r\n"):
        with pytest.raises(InputError, match="no byte: there is nothing to predict"):
            score_long(LONG, TOKENIZER, text)


def test_windows_and_texts_that_cannot_be_scored():
    for window, stride in ((9, 9), (4, 5), (4, -1)):
        with pytest.raises(InputError, match=r"stride <= window <= 8|stride is -1"):
            score_long(LONG, TOKENIZER, TEXT, window, stride)
    with pytest.raises(InputError, match="fewer than two tokens"):
        score_long(LONG, TOKENIZER, "a")
