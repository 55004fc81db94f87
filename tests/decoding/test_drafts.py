"""Drafts by name: whoever has the name says how a model is loaded."""

import pytest

from minillm import GPT2, GPT2Config, InputError, Tokenizer
from minillm.decoding import ModelDraft, NGramDraft
from minillm.decoding.drafts import named_draft

TOKENIZER = Tokenizer.train([], 257)
MODEL = GPT2.random(GPT2Config(vocab_size=257, n_positions=8, n_embd=8, n_layer=4, n_head=2))


def no_loader(*args, **more):
    raise AssertionError("nothing is to be loaded")


def test_a_draft_made_of_the_model_itself_loads_nothing():
    assert isinstance(named_draft("ngram", MODEL, TOKENIZER, no_loader), NGramDraft)
    skipping = named_draft("skip:2", MODEL, TOKENIZER, no_loader, 7)
    assert (skipping.model.config.n_layer, skipping.n_tokens) == (2, 7)
    stored = named_draft("int8", MODEL, TOKENIZER, no_loader).model.parameters["wte.weight"]
    assert stored.kind == "int8"
    with pytest.raises(InputError, match="skip:N needs a number"):
        named_draft("skip:x", MODEL, TOKENIZER, no_loader)


def test_any_other_name_is_given_to_the_loader():
    asked = []

    def load(name, **how):
        asked.append((name, [*how]))
        return MODEL, TOKENIZER

    draft = named_draft("small", MODEL, TOKENIZER, load)
    assert isinstance(draft, ModelDraft) and draft.model is MODEL
    assert asked == [("small", ["kernels"])]  # the draft computes with the model's own functions
    with pytest.raises(InputError, match="draft small: its vocabulary is another one"):
        named_draft("small", MODEL, Tokenizer.train(["aa"] * 2, 258), load)


def test_what_the_loader_does_not_find_is_told_with_what_there_is():
    def load(name, **how):
        raise InputError("no such model")

    with pytest.raises(InputError, match=r"'x' is not ngram, skip:N, .*int8.*: no such model"):
        named_draft("x", MODEL, TOKENIZER, load)
