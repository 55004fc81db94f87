"""Pieces of a text: with the cache carried over they are the whole text, alone they are not."""

import numpy as np
import pytest

import minillm
from minillm import GPT2, GPT2Config, InputError
from minillm.decoding.scoring import score_long
from minillm.decoding.segments import run_segments
from minillm.ops import cross_entropy

CONFIG = GPT2Config(vocab_size=31, n_positions=24, n_embd=8, n_layer=2, n_head=2)
MODEL = GPT2.random(CONFIG, dtype=np.float64)
LARGE = ("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight")
MODEL = MODEL.with_parameters({name: MODEL.parameters[name] * 20 for name in LARGE})
IDS = np.random.default_rng(0).integers(0, 31, 24)
WHOLE = cross_entropy(MODEL(IDS)[:-1], IDS[1:])


def prove_carried():
    for length in (1, 2, 5, 12, 23, 24, 99):
        np.testing.assert_allclose(
            run_segments(MODEL, IDS, length, carry=True).nats, WHOLE, atol=1e-10
        )


def test_carried_over_is_exact():
    prove_carried()


def test_a_forgotten_advance_is_caught(monkeypatch):
    monkeypatch.setattr(minillm.layers.cache.KVCache, "advance", lambda self, counts: None)
    with pytest.raises(AssertionError):
        prove_carried()


def test_each_piece_alone_is_its_own_text():
    found = run_segments(MODEL, IDS, 10, carry=False)
    for start in (0, 10, 20):
        piece, targets = IDS[start : start + 10][: 23 - start], IDS[start + 1 : start + 11]
        np.testing.assert_allclose(
            found.nats[start : start + 10], cross_entropy(MODEL(piece), targets), atol=1e-10
        )
    np.testing.assert_allclose(found.nats[:10], WHOLE[:10], atol=1e-10)
    assert np.abs(found.nats[10:] - WHOLE[10:]).min() > 1e-6
    assert found.positions.tolist() == [*range(10), *range(10), 0, 1, 2]
    assert found.by_position()[2] == pytest.approx(found.nats[[2, 12, 22]].mean())


def test_work_is_what_the_growth_law_says():
    """Per layer 12 C^2 a token and 2 C a pair; one piece of everything is no cheaper alone than
    carried."""
    n, C = 23, 8
    matrices = n * (2 * 12 * C * C + 31 * C)
    assert (
        run_segments(MODEL, IDS, 24, True).multiply_adds == matrices + 2 * 2 * C * n * (n + 1) // 2
    )
    assert (
        run_segments(MODEL, IDS, 24, False).multiply_adds
        == run_segments(MODEL, IDS, 24, True).multiply_adds
    )
    assert run_segments(MODEL, IDS, 1, False).multiply_adds == matrices + 2 * 2 * C * n
    assert (
        run_segments(MODEL, IDS, 7, True).multiply_adds
        == run_segments(MODEL, IDS, 24, True).multiply_adds
    )


def test_the_trained_model_guesses_worse_behind_a_cut():
    """A tale's tokens 129 to 255 in pieces of 32: the first ones behind a cut suffer most."""
    model, tokenizer = minillm.load("tales-draft")
    text = (
        "Once upon a time there was a king who had a daughter. She was beautiful, but proud. " * 12
    )
    ids = tokenizer.encode(text)[:256]
    alone, carried = (run_segments(model, ids, 32, carry) for carry in (False, True))
    late = np.arange(len(ids) - 1) >= 128
    assert alone.nats[late].mean() > carried.nats[late].mean() + 0.3
    worse = (alone.nats - carried.nats)[late]
    assert worse[alone.positions[late] < 4].mean() > 2 * worse[alone.positions[late] >= 16].mean()
    # the same procedure
    windows = score_long(model, tokenizer, tokenizer.decode(ids), 32, 32, show_progress=False)
    np.testing.assert_allclose(windows.nats, alone.nats, atol=1e-4)


@pytest.mark.parametrize(
    ("ids", "length", "message"),
    [
        (IDS, 0, "length of the pieces is 0"),
        ([1], 2, "1 token: needed from 2"),
        ([1] * 25, 2, "25 tokens"),
    ],
)
def test_what_cannot_be_cut(ids, length, message):
    with pytest.raises(InputError, match=message):
        run_segments(MODEL, ids, length, True)
