"""Numbers that are not finite: an error on every path, which names the position and the step."""

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError, Tokenizer, kernels
from minillm.bench.ledger import ledger
from minillm.decoding import (
    ModelDraft,
    NGramDraft,
    Options,
    Request,
    generate_batch,
    scoring,
    segments,
)
from minillm.decoding.finite import usable
from minillm.decoding.generate import moments
from minillm.steps import Patch
from minillm.tasks.classify import BagOfWords, evaluate
from minillm.tasks.examples import Words
from minillm.training.language import LanguageModel
from minillm.weights import store_parameters

TOKENIZER = Tokenizer.train([], 257)  # every byte its own token
CONFIG = GPT2Config(
    vocab_size=257, n_positions=48, n_embd=32, n_layer=2, n_head=4, tie_word_embeddings=False
)
GOOD = GPT2.random(CONFIG, seed=5)
PROMPT = [3, 1, 4, 1, 5, 3, 1, 4, 1]


def changed(name, at, value, twin=None) -> GPT2:
    parameters = {n: p.copy() for n, p in GOOD.parameters.items()}
    parameters[name][at] = value
    if twin is kernels:
        return GPT2(CONFIG, store_parameters(parameters, "float32", CONFIG.layout), kernels)
    return GPT2(CONFIG, parameters)


# What is wrong: the model, what the rows of logits hold, the step in which it arose.
WRONG = {
    "NaN in an activation": ("h.1.mlp.c_fc.bias", 7, np.nan, "NaN", r"h\.1\.mlp\.c_fc \[0, 0, 7\]"),
    "infinity in a norm": ("ln_f.bias", 0, np.inf, r"(\+inf|NaN)", r"ln_f \[0, 0, 0\]"),
    "NaN for one position": ("wpe.weight", (10, 2), np.nan, "NaN", r"wpe \[0, 0, 2\]"),
}
GENERATING = {
    "greedy": {},
    "sampling": {"temperature": 1.0, "seed": 1},
    "all filters": dict(temperature=0.8, top_k=9, top_p=0.9, min_p=0.1, repetition_penalty=1.3),
    "beams": {"num_beams": 3},
    "chunks": {"chunk": 2},
    "no cache": {"use_cache": False},
    "window": {"window": 6},
    "float16 cache": {"cache_dtype": "float16"},
}


@pytest.mark.parametrize("twin", [None, kernels], ids=["textbook", "kernels"])
@pytest.mark.parametrize("wrong", ["NaN in an activation", "infinity in a norm"])
@pytest.mark.parametrize("options", GENERATING.values(), ids=GENERATING.keys())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_generating_stops_with_position_and_step(twin, wrong, options):
    name, at, value, holds, step = WRONG[wrong]
    position = {"chunk": 1, "window": 0}.get(next(iter(options), ""), 8)
    with pytest.raises(InputError, match=f"position {position}: .*hold {holds}, .*step {step}"):
        list(moments(changed(name, at, value, twin), PROMPT, Options(max_new_tokens=4, **options)))


@pytest.mark.parametrize("twin", [None, kernels], ids=["textbook", "kernels"])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"temperature": 1.0}])
def test_the_pass_is_traced_with_its_cache(twin, options):
    """Position 10 is the third pass: two tokens come before it."""
    name, at, value, _, step = WRONG["NaN for one position"]
    story = moments(changed(name, at, value, twin), PROMPT, Options(max_new_tokens=6, **options))
    with pytest.raises(InputError, match=f"decode, position 10: .*step {step}"):
        list(story)


@pytest.mark.parametrize("draft", [NGramDraft(), ModelDraft(GOOD)], ids=["ngram", "model"])
def test_a_pass_that_checks_guesses_is_checked(draft):
    """A guess at position 10 is in the pass that reads position 9 (0 x NaN is NaN)."""
    bad = changed("wpe.weight", (10, 2), np.nan)
    with pytest.raises(InputError, match=r"(9|10): .*step wpe \[0, [01], 2\]"):
        list(moments(bad, PROMPT, Options(max_new_tokens=8), draft=draft))


def test_a_draft_that_fails_says_that_it_is_the_draft():
    draft = ModelDraft(changed("ln_f.bias", 0, np.nan))
    with pytest.raises(InputError, match="draft, position 9: "):
        list(moments(GOOD, PROMPT, Options(max_new_tokens=4), draft=draft))


def test_a_batch_says_where_its_row_is():
    bad = changed("wpe.weight", (10, 2), np.nan)
    with pytest.raises(InputError, match=r"position 10: .*step wpe \[1, 0, 2\]"):
        list(generate_batch(bad, [PROMPT[:2], Request(PROMPT, Options(max_new_tokens=9))], 2))


def test_some_logits_may_be_minus_infinity_but_not_all():
    def only(*kept):
        return Patch({"logits": lambda x: np.where(np.isin(np.arange(257), kept), x, -np.inf)})

    for options in ({}, {"temperature": 1.0}, {"temperature": 0.5, "top_p": 0.9}):
        story = moments(GOOD, PROMPT, Options(max_new_tokens=5, **options), only(7, 9))
        assert {m.id for m in story} <= {7, 9}
    with pytest.raises(InputError, match=r"position 8: .*only -inf, .*step logits \[0, 0, 0\]"):
        list(moments(GOOD, PROMPT, Options(max_new_tokens=5), only()))
    rows = np.array([[0.0, -np.inf], [-np.inf, -np.inf]])
    assert usable(rows[:1]) and not usable(rows) and not usable(rows[1]) and usable(rows[:0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_probabilities_that_are_none_choose_nothing(value, temperature):
    patch = Patch({"probs": lambda p: np.full_like(p, value)})
    options = Options(max_new_tokens=1, temperature=temperature)
    if temperature or value != np.inf:
        with pytest.raises(InputError, match="no token can be chosen"):
            list(moments(GOOD, PROMPT, options, patch))


TEXT = "a text of some bytes, of more than one window of positions"
SEVEN = "x" * 23 + TOKENIZER.decode([7]) + "x" * 9
ONE_PLACE = changed("wpe.weight", (10, 2), np.nan)
SCORED = {  # in one pass the earlier rows are NaN as well, since 0 x NaN is NaN in attention
    "score": (
        lambda: scoring.score(ONE_PLACE, range(12)),
        r"position 0: .*step wpe \[0, 10, 2\]",
    ),
    "next": (lambda: scoring.next_logprobs(ONE_PLACE, range(11)), r"position 10: .*\[0, 10, 2\]"),
    "continuation": (
        lambda: scoring.continuation_logprob(ONE_PLACE, PROMPT, [7, 8, 9]),
        r"position 0: .*step wpe \[0, 10, 2\]",
    ),
    "long text": (
        lambda: scoring.score_long(ONE_PLACE, TOKENIZER, TEXT, 20, 5),
        r"position 0: .*step wpe \[0, 10, 2\]",
    ),
    "long text, a later window": (
        lambda: scoring.score_long(changed("wte.weight", (7, 2), np.nan), TOKENIZER, SEVEN, 20),
        r"position 20: .*step wte \[0, 3, 2\]",
    ),
    "segments": (
        lambda: segments.run_segments(ONE_PLACE, range(18), 3, carry=True),
        r"position 9: .*step wpe \[0, 1, 2\]",
    ),
    "segments alone": (
        lambda: segments.run_segments(changed("wte.weight", (7, 2), np.nan), range(18), 3, False),
        r"position 6: .*step wte \[0, 1, 2\]",
    ),
    "training's evaluation": (
        lambda: LanguageModel(ONE_PLACE).losses(2 * [np.arange(24).reshape(2, 12)]),
        r"row 0, position 0: .*step wpe \[0, 10, 2\]",
    ),
}


@pytest.mark.parametrize("score, message", SCORED.values(), ids=SCORED.keys())
def test_scores_stop_with_position_and_step(score, message):
    with pytest.raises(InputError, match=message):
        score()


def test_a_label_is_not_chosen_from_nan():
    weights = {"weight": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    classifier = BagOfWords(["a", "b"], Words(["fine"]), 8, weights)
    classifier.log_probabilities(["fine", "so"])
    weights["weight"][-1] = np.nan
    with pytest.raises(InputError, match=r"text 2 of 2: .*NaN, .*step score \[1, 0\]"):
        evaluate(classifier, ["", "fine"], [0, 1])


def test_a_lever_whose_numbers_end_is_a_line_of_the_ledger():
    sizes = {"n_prompt": 4, "n_new": 2, "quality_tokens": 20, "rounds": 1}
    (plain,) = ledger(ONE_PLACE, TOKENIZER, TEXT * 5, [], **sizes)
    assert "position 0: " in plain.missing and "NaN" in plain.missing
