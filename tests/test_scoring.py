"""Scores of a text: T tokens give T - 1 predictions, and probabilities multiply."""

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError
from minillm.ops import softmax
from minillm.scoring import continuation_logprob, next_logprobs, score

MODEL = GPT2.random(GPT2Config(vocab_size=31, n_positions=8, n_embd=8, n_layer=2, n_head=2), dtype=np.float64)
IDS = [3, 1, 4, 1, 5]


def test_each_token_is_scored_from_those_before_it():
    result = score(MODEL, IDS)
    expected = [np.log(softmax(MODEL(IDS[:n])[-1])[IDS[n]]) for n in range(1, 5)]
    np.testing.assert_allclose(result.logprobs, expected, rtol=1e-12)
    assert result.logprob == pytest.approx(sum(expected))
    assert result.cross_entropy == pytest.approx(-sum(expected) / 4)
    assert result.perplexity == pytest.approx(np.exp(-sum(expected) / 4))
    assert result.ranks.tolist() == [1 + int((MODEL(IDS[:n])[-1] > MODEL(IDS[:n])[-1][IDS[n]]).sum()) for n in range(1, 5)]


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
