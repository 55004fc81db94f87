"""Generation: greedy, sampling, limits, sliding, ends, ids without a token."""

import numpy as np
import pytest

import minillm
from minillm import GPT2, GPT2Config, InputError, Tokenizer, kernels
from minillm.decoding import ModelDraft, NGramDraft, Options, Request, generate_batch
from minillm.ops import log_softmax
from minillm.tokenizer import END_OF_TEXT
from minillm.weights import store_parameters

CONFIG = GPT2Config(vocab_size=61, n_positions=24, n_embd=20, n_layer=2, n_head=4)
MODEL = GPT2.random(CONFIG, seed=5)
MODEL = MODEL.with_parameters(  # far from uniform, so that greedy has something to prefer
    {n: p * 12 for n, p in MODEL.parameters.items() if n.endswith("weight") and "ln" not in n}
)
PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def draft():
    return minillm.load("tales-draft")


def text_of(moments):
    return "".join(m.text for m in moments)


# ---- greedy and sampling


def test_greedy_takes_the_argmax_of_the_whole_text_each_time():
    ids = MODEL.generate(PROMPT, 15)
    for n in range(5, 20):
        assert ids[n] == MODEL(ids[:n])[-1].argmax()


def test_batches_are_rows_of_their_own():
    both = MODEL.generate([PROMPT, PROMPT[::-1]], 6)
    assert both.dtype == np.int64
    np.testing.assert_array_equal(both[1], MODEL.generate(PROMPT[::-1], 6))


def test_the_same_seed_gives_the_same_text_and_another_another():
    sample = [MODEL.generate(PROMPT, 12, temperature=1.5, seed=seed).tolist() for seed in (1, 1, 2)]
    assert sample[0] == sample[1] != sample[2]


def test_sampling_follows_the_distribution():
    """600 draws of one token: each count within four standard deviations of n p."""
    probs = Options(temperature=2.0).distribution(MODEL(PROMPT)[-1], PROMPT)
    draws = [MODEL.generate(PROMPT, 1, temperature=2.0, seed=seed)[-1] for seed in range(600)]
    counts = np.bincount(draws, minlength=61)
    assert (np.abs(counts - 600 * probs) <= 4 * np.sqrt(600 * probs * (1 - probs)) + 1).all()


def test_moments_tell_what_happened(draft):
    model, tokenizer = draft
    story = list(minillm.generate(model, tokenizer, "Once upon a time", max_new_tokens=7, seed=1))
    assert [m.index for m in story] == list(range(7))
    assert [m.cycle.kind for m in story] == ["prefill"] + ["decode"] * 6
    assert (story[0].cycle.rows, story[0].cycle.positions, story[1].cycle.positions) == (1, 4, 1)
    assert [m.finish for m in story] == [None] * 6 + ["length"]
    times = [t for m in story for t in (m.cycle.start, m.cycle.end, m.time)]
    assert times == sorted(times)
    ids = tokenizer.encode("Once upon a time")
    for m in story:  # float32: cached against uncached; worst measured 2e-6
        assert m.logprob == pytest.approx(log_softmax(model(ids)[-1])[m.id], abs=1e-4)
        ids.append(m.id)
    assert text_of(story) == tokenizer.decode([m.id for m in story])


# ---- limits


def test_lengths():
    assert (
        len(MODEL.generate(PROMPT)) == 25
    )  # 64 by default, or as many as fit: the last needs no position
    assert len(MODEL.generate(PROMPT, max_length=9)) == 9
    assert len(MODEL.generate(PROMPT, 3, max_length=20)) == 8
    assert len(MODEL.generate(PROMPT, 20)) == 25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": -5}, "max_new_tokens is -5; it must be a whole number of at least 1"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5"),
        ({"max_length": 5}, "max_length 5 counts the prompt, which has 5 tokens already"),
        ({"max_new_tokens": 21}, "ask for at most 20"),
        ({"temperature": -1}, "temperature is -1; it must be 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_p": 2}, "top_p is 2; it must be above 0 and at most 1"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": 2, "temperature": 1.0}, "set one only"),
        ({"num_beams": 2, "on_full": "slide"}, "on_full='error'"),
        ({"early_stopping": "maybe"}, "early_stopping is 'maybe'"),
        ({"seed": -1}, "seed is -1"),
        ({"cache_dtype": "int8"}, "cache_dtype is 'int8'"),
        ({"on_full": "wrap"}, "on_full is 'wrap'"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        MODEL.generate(PROMPT, **options)


def test_unusable_prompts_are_refused(draft):
    with pytest.raises(InputError, match="prompt is empty"):
        minillm.generate(*draft, "")
    with pytest.raises(InputError, match="the prompt has 25 tokens and the model 24 positions"):
        MODEL.generate([1] * 25)
    other = GPT2.random(CONFIG)
    with pytest.raises(InputError, match="the tokenizer has 4096 tokens and the model 61"):
        minillm.generate(other, draft[1], "hello")


def test_sliding_starts_anew_from_the_last_half_window():
    ids = MODEL.generate(PROMPT, 60, on_full="slide").tolist()
    assert len(ids) == 65
    start = 0  # of the window that the model sees
    for n in range(5, 65):
        if n - start > 24:
            start = n - 12
        assert ids[n] == MODEL(ids[start:n])[-1].argmax(), n


def test_sliding_keeps_the_end_of_a_long_prompt():
    prompt = np.arange(100) % 61
    assert MODEL.generate(prompt, 1, on_full="slide")[-1] == MODEL(prompt[-12:])[-1].argmax()


# ---- ends


def test_a_stop_token_ends_and_is_reported(draft):
    model, tokenizer = draft
    how = {"max_new_tokens": 9, "temperature": 0}
    first = list(minillm.generate(model, tokenizer, "Once upon a time", **how))
    end = next(m.id for m in first if m.index >= 4)
    story = list(minillm.generate(model, tokenizer, "Once upon a time", **how, stop_tokens=[end]))
    assert story[-1].id == end and story[-1].finish == "eos" and story[-1].text == ""
    n = len(story) - 1
    assert [m.id for m in story] == [m.id for m in first[: n + 1]]
    assert text_of(story) == text_of(first[:n])


def test_stop_strings_end_the_text_before_them(draft):
    how = {"max_new_tokens": 30, "temperature": 0}
    whole = text_of(minillm.generate(*draft, "Once upon a time", **how))
    stop = whole[17:23]  # across tokens
    story = list(minillm.generate(*draft, "Once upon a time", **how, stop=["never there", stop]))
    assert text_of(story) == whole[: whole.index(stop)]
    assert story[-1].finish == "stop" and len(story) < 30


@pytest.mark.parametrize("stop", ["", ["a", ""], [3]])
def test_empty_stops_are_refused(draft, stop):
    with pytest.raises(InputError, match="stop is"):
        minillm.generate(*draft, "hello", stop=stop)


# ---- ids without a token


BYTES = Tokenizer.train([], 257)
WITH_HOLES = Tokenizer([*BYTES.tokens, None, b"<a>"], [], {END_OF_TEXT: 256, "<a>": 258})
UNNAMED = [257, *range(259, 268)]


def padded(twin=None):
    """A model that finds ids without a token likelier than any other, wherever it is."""
    config = GPT2Config(
        vocab_size=268, n_positions=40, n_embd=32, n_layer=1, n_head=2, tie_word_embeddings=False
    )
    parameters = {n: p.copy() for n, p in GPT2.random(config, seed=4).parameters.items()}
    parameters["ln_f.bias"][:] = 1
    parameters["lm_head.weight"][UNNAMED] += 0.5  # 16 more than the others
    if twin is None:
        return GPT2(config, parameters)
    return GPT2(config, store_parameters(parameters, "float32", config.layout), twin)


@pytest.mark.parametrize("twin", [None, kernels], ids=["textbook", "kernels"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0, "seed": 1},
        {"temperature": 2.0, "seed": 1, "top_k": 400, "top_p": 0.99, "min_p": 0.001},
        {"repetition_penalty": 1e-30},
        {"num_beams": 3},
        {"num_beams": 200, "max_new_tokens": 2},
        {"draft": NGramDraft(lengths=(1,))},
        {"draft": "itself"},
        {"draft": "itself", "temperature": 1.0, "seed": 1},
        {"chunk": 2},
        {"use_cache": False},
    ],
)
def test_ids_without_a_token_are_never_chosen(twin, options):
    model, options = padded(twin), {"max_new_tokens": 20} | options
    assert int(model.generate([65, 66, 65], 1)[-1]) in UNNAMED
    if options.get("draft") == "itself":
        options["draft"] = ModelDraft(model)
    story = list(minillm.generate(model, WITH_HOLES, [65, 66, 65], **options))
    assert len(story) == options["max_new_tokens"]
    assert not {m.id for m in story} & {*UNNAMED}
    assert all(m.logprob < -10 for m in story)  # of the unfiltered model
    if "draft" not in options and "num_beams" not in options:
        request = Request([65, 66, 65], Options(**options | {"chunk": None, "use_cache": True}))
        both = list(generate_batch(model, [request, request], tokenizer=WITH_HOLES))
        assert [m.id for n, m in both if n == 1] == [m.id for m in story]


def test_a_stop_token_needs_no_text():
    (moment,) = minillm.generate(padded(), WITH_HOLES, "a", stop_tokens=UNNAMED)
    assert (moment.finish, moment.text) == ("eos", "") and moment.id in UNNAMED


@pytest.mark.parametrize(
    ("ids", "new", "options", "message"),
    [
        (PROMPT, 8, {"num_return_sequences": 10**9}, r"1,000,000,000 texts of \d+ ids would take"),
        ([PROMPT] * 2, 8, {"num_return_sequences": 10**30}, "2,[0,]+ texts of"),
        (PROMPT, 10**12, {"on_full": "slide"}, r"1 text of 1\d+ ids"),
    ],
)
def test_texts_that_would_not_fit_are_refused_before_the_first(ids, new, options, message):
    with pytest.raises(InputError, match=f"{message}.*: fewer num_return_sequences or max_new"):
        MODEL.generate(ids, new, do_sample=True, **options)
