"""Beam search: the likeliest texts; its tokens are those of transformers in the live tier."""

import numpy as np
import pytest

import minillm
from minillm import GPT2, GPT2Config, InputError
from minillm.machine import quota
from minillm.ops import log_softmax
from tests.decoding.test_generate import MODEL, PROMPT


def test_one_beam_is_greedy_and_more_find_likelier_texts():
    def logprob(ids):
        return sum(log_softmax(MODEL(ids[:n])[-1])[ids[n]] for n in range(5, len(ids)))

    greedy, beams = MODEL.generate(PROMPT, 8), MODEL.generate(PROMPT, 8, num_beams=6)
    assert logprob(beams) > logprob(greedy) + 0.1


def test_beams_as_many_as_texts_find_the_best_of_all():
    """Two new tokens from a vocabulary of 61: 61 beams see all 61^2 texts."""
    first = log_softmax(MODEL(PROMPT)[-1])
    scores = np.stack([first[i] + log_softmax(MODEL([*PROMPT, i])[-1]) for i in range(61)])
    best = np.unravel_index(scores.argmax(), scores.shape)
    assert MODEL.generate(PROMPT, 2, num_beams=61)[-2:].tolist() == [int(i) for i in best]


def test_more_beams_than_can_be_are_refused_before_they_are_made(monkeypatch):
    """As a generation_config.json may ask for, too."""
    many = MODEL.config.to_dict() | {"generation": {"num_beams": 10**30}}
    del many["model_type"], many["architectures"]
    for model, more in (
        (MODEL, {"num_beams": 4097}),
        (MODEL, {"num_beams": 10**5}),
        (GPT2(GPT2Config(**many), MODEL.parameters), {}),
    ):
        with pytest.raises(InputError, match=r"num_beams is (4097|10+); it must be at most 4,096"):
            model.generate(PROMPT, 8, **more)
    monkeypatch.setattr(quota, "free_bytes", lambda: 100_000)
    monkeypatch.setattr(quota, "SMALL", 0)
    with pytest.raises(InputError, match=r"61 beams would .*: a smaller num_beams"):
        MODEL.generate(PROMPT, 8, num_beams=61)


def test_beam_moments():
    draft = minillm.load("tales-draft")
    search = list(minillm.generate(*draft, "The king", max_new_tokens=10, num_beams=3))
    assert [m.cycle.rows for m in search] == [1] + [3] * 9
    assert search[-1].finish == "length" and len("".join(m.text for m in search)) > 10


# ---- live: the tokens of transformers


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch").set_num_threads(1)  # the model is tiny
    transformers.utils.logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp("model")
    MODEL.save_pretrained(folder)
    return transformers.GPT2LMHeadModel.from_pretrained(folder).double().eval()


LIVE = [
    {},
    {"repetition_penalty": 1.3},
    {"num_beams": 2},
    {"num_beams": 4},
    {"num_beams": 5, "length_penalty": 2.0},
    {"num_beams": 3, "length_penalty": -1.0},
    {"num_beams": 4, "early_stopping": True},
    {"num_beams": 4, "early_stopping": "never"},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": 0.0},
    {"num_beams": 3, "repetition_penalty": 1.2},
]


@pytest.mark.live
@pytest.mark.parametrize("options", LIVE, ids=str)
@pytest.mark.parametrize("n_stops", [0, 1, 3])
def test_tokens_equal_transformers(theirs, options, n_stops):
    """float64 on both sides; the stop tokens are those that come most often, so that they end some
    of the texts."""
    torch = pytest.importorskip("torch")
    model, prompts = MODEL.astype(np.float64), np.random.default_rng(0).integers(0, 61, (8, 4))
    often = np.bincount(model.generate(prompts, 15)[:, 4:].ravel()).argsort()[::-1]
    stops = [int(i) for i in often[1 : 1 + n_stops]]
    expected = []
    for ids in torch.tensor(prompts)[
        :, None
    ]:  # the mask is given, or transformers takes a 0 in the prompt for padding
        fixed = dict(
            attention_mask=torch.ones_like(ids), pad_token_id=0, do_sample=False, max_new_tokens=15
        )
        expected.append(
            theirs.generate(ids, eos_token_id=stops or None, **fixed, **options)[0].tolist()
        )
    ours = [model.generate(prompt, 15, stop_tokens=stops, **options).tolist() for prompt in prompts]
    assert ours == expected
    longer_wins = options.get("length_penalty") == 2.0
    assert not stops or longer_wins or any(len(ids) < 19 for ids in ours)
