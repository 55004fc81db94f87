"""What is given, what the model's generation_config.json says, and what neither allows; names and
wrong arguments."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm import GPT2, GPT2Config, InputError
from minillm.compression import prune_heads, skip_layers
from minillm.decoding import ModelDraft, NGramDraft, Options, Request, generate_batch, generate_ids
from minillm.decoding.generate import moments
from minillm.decoding.scoring import continuation_logprob, next_logprobs, score, score_long
from minillm.layers.cache import KVCache, SlidingCache
from minillm.ops import log_softmax
from tests.test_recipes import code_of

SHAPE = {"vocab_size": 61, "n_positions": 24, "n_embd": 20, "n_layer": 2, "n_head": 4}
PROMPT = [3, 1, 4, 1, 5]


def lively(generation=None, **more):
    """A model far from uniform, with the defaults `generation`."""
    config = GPT2Config(**SHAPE, **more, generation=generation)
    model = GPT2.random(config, seed=5)
    scaled = {
        n: p * 12 if n.endswith("weight") and "ln" not in n else p
        for n, p in model.parameters.items()
    }
    return GPT2(config, scaled)


MODEL = lively()
SAMPLES = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "min_p": 0.05}
HOW = ("temperature", "top_k", "top_p", "min_p", "num_beams")


@pytest.fixture(scope="module")
def tales():
    return minillm.load("tales-draft")


# ---- one rule


@pytest.mark.parametrize(
    ("generation", "given", "expected"),
    [
        (None, {}, (0, None, None, None, 1)),
        (None, {"do_sample": True}, (1, None, None, None, 1)),  # no top_k that nobody named
        (None, {"temperature": 0.5}, (0.5, None, None, None, 1)),
        (None, {"top_k": 9}, (1, 9, None, None, 1)),
        (None, {"top_p": 0.9}, (1, None, 0.9, None, 1)),
        (None, {"min_p": 0.1}, (1, None, None, 0.1, 1)),
        (None, {"num_beams": 3}, (0, None, None, None, 3)),
        (None, {"temperature": 0, "num_beams": 3}, (0, None, None, None, 3)),
        (SAMPLES, {}, (0.7, None, 0.8, 0.05, 1)),
        (SAMPLES, {"top_p": 0.5}, (0.7, None, 0.5, 0.05, 1)),
        (SAMPLES, {"temperature": 0}, (0, None, None, None, 1)),
        (SAMPLES, {"do_sample": False}, (0, None, None, None, 1)),
        (SAMPLES, {"num_beams": 3}, (0, None, None, None, 3)),
        (SAMPLES | {"do_sample": False}, {}, (0, None, None, None, 1)),
        (SAMPLES | {"do_sample": False}, {"do_sample": True}, (0.7, None, 0.8, 0.05, 1)),
        ({"temperature": 0.7, "top_k": 50}, {}, (0, None, None, None, 1)),
        ({"num_beams": 4}, {}, (0, None, None, None, 4)),
        ({"num_beams": 4}, {"temperature": 0.9}, (0.9, None, None, None, 1)),
        ({"num_beams": 4, "do_sample": True}, {"do_sample": True}, (1, None, None, None, 1)),
        ({"num_beams": 4, "length_penalty": 2.0}, {"length_penalty": 0.5}, (0, *[None] * 3, 4)),
    ],
)
def test_what_is_given_wins_then_the_model_then_greedy(generation, given, expected):
    options = Options(**given).on(lively(generation))
    assert tuple(getattr(options, name) for name in HOW) == expected
    assert options.do_sample == (expected[0] > 0)
    assert options.on(lively(generation)) == options


@pytest.mark.parametrize("value", [{"top_k": 0}, {"top_p": 1.0}, {"min_p": 0}])
def test_a_filter_of_the_model_can_be_switched_off(value):
    model = lively({"do_sample": True, "top_k": 1, "top_p": 0.01, "min_p": 1.0})
    ((name, _),) = value.items()
    off = {"top_k": 0, "top_p": 1, "min_p": 0}
    logits = model(PROMPT)[-1]
    assert (Options().on(model).distribution(logits, PROMPT) > 0).sum() == 1
    assert (Options(**off).on(model).distribution(logits, PROMPT) > 0).all()
    left = Options(**off | {name: model.generation_config[name]}).on(model)
    assert (left.distribution(logits, PROMPT) > 0).sum() == 1


@pytest.mark.parametrize(
    "draws", [{"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}, {"do_sample": True}]
)
@pytest.mark.parametrize("fixed", [{"do_sample": False}, {"temperature": 0}, {"num_beams": 2}])
def test_what_samples_and_what_does_not_exclude_each_other(draws, fixed):
    if draws.keys() != fixed.keys():
        with pytest.raises(InputError, match=r"samples and .* does not: set one only"):
            MODEL.generate(PROMPT, **draws, **fixed)
    with pytest.raises(InputError, match=r"temperature 0\.5 samples"):
        Options(**{"temperature": 0.5} | ({"num_beams": 3} if "temperature" in fixed else fixed))


def test_every_entry_follows_the_model():
    model, seed = lively(SAMPLES), 3
    ids = model.generate(PROMPT, 12, seed=seed)[5:].tolist()
    assert ids == [m.id for m in moments(model, PROMPT, Options(max_new_tokens=12, seed=seed))]
    request = Request(PROMPT, Options(max_new_tokens=12, seed=seed))
    assert ids == [m.id for _, m in generate_batch(model, [request])]
    assert ids == MODEL.generate(PROMPT, 12, seed=seed, **SAMPLES)[5:].tolist()
    assert ids != model.generate(PROMPT, 12, temperature=0)[5:].tolist()


def test_lengths_of_the_model_are_defaults_that_never_fail():
    model = lively({"max_new_tokens": 7})
    assert len(model.generate(PROMPT)) == 12
    assert len(model.generate(PROMPT * 4)) == 25  # as many as fit
    assert len(model.generate(PROMPT, max_length=20)) == 20
    assert len(lively({"max_length": 9}).generate(PROMPT)) == 9
    assert len(lively({"max_length": 9}).generate(PROMPT, 10)) == 15


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"temperature": "hot"}, "generation_config.json: temperature is 'hot'"),
        ({"typical_p": 0.9}, "generation_config.json: typical_p is 0.9, which is not had here"),
        ({"forced_eos_token_id": 0}, "forced_eos_token_id is 0"),
        ({"num_beams": 2, "do_sample": True}, "samples with num_beams 2"),
    ],
)
def test_what_a_generation_config_cannot_say(generation, message):
    with pytest.raises(InputError, match=message):
        lively(generation).generate(PROMPT)


def test_a_file_with_all_of_transformers_neutral_values_is_read():
    neutral = {
        "typical_p": 1.0,
        "epsilon_cutoff": 0.0,
        "bad_words_ids": None,
        "suppress_tokens": [],
    }
    extra = {"transformers_version": "5.0", "pad_token_id": 0, "use_cache": False, "min_length": 0}
    options = Options().on(lively(neutral | extra))
    assert options == Options()


def test_generation_config_goes_with_the_model(tmp_path, tales):
    model = lively(SAMPLES | {"unknown": [1]}, eos_token_id=[7, 8])
    for other in (
        model,
        model.quantize("int8"),
        prune_heads(model, 2, PROMPT),
        skip_layers(model, 0),
    ):
        other.save_pretrained(tmp_path)
        loaded = GPT2.from_pretrained(tmp_path)
        assert loaded.generation_config == SAMPLES | {"unknown": [1]}
        assert loaded.config.eos_token_id == [7, 8]
    MODEL.save_pretrained(tmp_path)  # nothing of the model that lay there before stays
    assert GPT2.from_pretrained(tmp_path).generation_config == {}
    assert tales[0].generation_config["min_p"] == 0.05 and MODEL.generation_config == {}
    (tmp_path / "generation_config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"generation_config.json: .*it must be a table"):
        GPT2.from_pretrained(tmp_path)


# ---- ends


def test_a_text_ends_at_any_of_several_tokens():
    ids = MODEL.generate(PROMPT, 15)[5:].tolist()
    met = sorted(set(ids), key=ids.index)
    ends, first = [met[-1], met[-2]], ids.index(met[-2])
    for model, given in (
        (MODEL, {"eos_token_id": ends}),
        (MODEL, {"stop_tokens": np.array(ends)}),
        (lively(eos_token_id=ends), {}),
        (lively({"eos_token_id": ends}, eos_token_id=60), {}),
    ):
        story = list(moments(model, PROMPT, Options(max_new_tokens=15, **given)))
        assert [m.id for m in story] == ids[: first + 1] and story[-1].finish == "eos"
    whole = lively(eos_token_id=ends).generate(PROMPT, 15, eos_token_id=[])
    assert whole[5:].tolist() == ids
    assert len(MODEL.generate(PROMPT, 15, eos_token_id=ids[0])) == 6


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("<|endoftext|>", "stop_tokens is '<|endoftext|>'; it must be ids"),
        (["x"], "stop_tokens is 'x'"),
        ([61], "stop token 61 is outside the vocabulary of 61"),
        ([-1], "stop_tokens is -1"),
        ([2.5], "stop_tokens is 2.5"),
        ([2.0], "stop_tokens is 2.0"),
        (True, "stop_tokens is True"),
    ],
)
def test_stop_tokens_are_checked(value, message):
    for name in ("stop_tokens", "eos_token_id"):
        with pytest.raises(
            InputError, match=message.replace("stop_tokens", name).replace("|", ".")
        ):
            MODEL.generate(PROMPT, **{name: value})


# ---- rows


def test_equal_prompts_give_different_rows_and_the_first_keeps_its_stream():
    rows = MODEL.generate([PROMPT] * 4, 12, temperature=1.5, seed=7)
    assert len({tuple(row) for row in rows.tolist()}) == 4
    np.testing.assert_array_equal(rows[0], MODEL.generate(PROMPT, 12, temperature=1.5, seed=7))
    several = MODEL.generate(PROMPT, 12, temperature=1.5, seed=7, num_return_sequences=4)
    np.testing.assert_array_equal(several, rows)
    both = MODEL.generate([PROMPT, PROMPT[::-1]], 4, do_sample=True, seed=1, num_return_sequences=3)
    assert both.shape == (6, 9)
    assert both[:, :5].tolist() == [PROMPT] * 3 + [PROMPT[::-1]] * 3


def test_beams_return_the_best_first():
    def logprob(ids):
        return sum(log_softmax(MODEL(ids[:n])[-1])[ids[n]] for n in range(5, len(ids)))

    rows = MODEL.generate(PROMPT, 6, num_beams=5, num_return_sequences=5)
    scores = [logprob(row) for row in rows]
    assert scores == sorted(scores, reverse=True) and len({tuple(r) for r in rows.tolist()}) == 5
    np.testing.assert_array_equal(rows[0], MODEL.generate(PROMPT, 6, num_beams=5))


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}, {"temperature": 2.0, "seed": 1}])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_is_repeated(how, n):
    ids = MODEL.generate(PROMPT, 18, no_repeat_ngram_size=n, **how).tolist()
    ngrams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    new = ngrams[len(PROMPT) - n + 1 :]
    assert all(gram not in ngrams[: len(PROMPT) - n + 1 + i] for i, gram in enumerate(new))


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}, {"temperature": 2.0}])
@pytest.mark.filterwarnings("error")
def test_where_every_token_is_forbidden(how):
    tiny = GPT2.random(GPT2Config(vocab_size=3, n_positions=9, n_embd=4, n_layer=1, n_head=1))
    with pytest.raises(InputError, match=r"no token can be chosen|forbid every token"):
        tiny.generate([0], 5, no_repeat_ngram_size=1, **how)


# ---- one entry


USE = """
import numpy as np
import minillm
from minillm.cli import main
from minillm.decoding import Options

model, tokenizer = minillm.load(FOLDER, kernels="numpy")
logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
print((Options(epsilon_cutoff=0.1).distribution(logits, [0]) > 0).tolist())
print(Options(epsilon_cutoff=0.1).do_sample, Options(epsilon_cutoff=0.1, top_k=1))
model.config.generation["epsilon_cutoff"] = 0.2
print(Options().on(model).epsilon_cutoff, Options(epsilon_cutoff=0).on(model).epsilon_cutoff)
try:
    minillm.generate(model, tokenizer, "Once", epsilon_cutoff=7)
except minillm.InputError as error:
    print(error)
generate = ["generate", "Once", "--model", FOLDER, "--kernels=numpy", "--max-new-tokens=6"]
main([*generate, "--seed=1", "--epsilon-cutoff=0.01", "--json"])
"""


def test_a_sampler_is_one_entry(tmp_path):
    """That of docs/recipes.md, in a copy of the package with one more row: the field, its check,
    its place among the filters, the model's default and the flag follow."""
    package, copy = Path(minillm.__file__).parent, tmp_path / "minillm"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    file, before = copy / "decoding" / "options.py", "    repetition_penalty: float ="
    source = file.read_text(encoding="utf-8")
    assert source.count(before) == 1
    file.write_text(source.replace(before, code_of("A sampler") + before), encoding="utf-8")
    folder = str(package.parent / "weights" / "tales-draft")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = [sys.executable, "-c", USE.replace("FOLDER", repr(folder))]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown, both, defaults, error, *told = done.stdout.splitlines()
    assert shown == "[True, True, True, False]"
    assert both.startswith("True Options(") and "epsilon_cutoff=0.1" in both
    assert defaults == "0.2 0"
    assert error == "epsilon_cutoff is 7; it must be 0 or above, and below 1"
    assert json.loads("\n".join(told))["options"]["epsilon_cutoff"] == 0.01


# ---- names and arguments


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"pad_token_id": 0}, "pad_token_id is not had here: rows that end early"),
        ({"attention_mask": [1]}, "generate_batch"),
        ({"streamer": print}, r"iterate over minillm.generate"),
        ({"max_time": 3}, "leave the loop"),
        ({"stop_strings": "."}, r"stop="),
        ({"assistant_model": MODEL}, "draft="),
        ({"typical_p": 0.9}, "typical_p is not had here"),
        ({"num_beam_groups": 2}, "num_beam_groups is not had here"),
        ({"temprature": 1}, "temprature is no option of generation; temperature is"),
        ({"zzz": 1}, "zzz is no option of generation; known: max_new_tokens, max_length, do_s"),
        ({"eos_token_id": 3, "stop_tokens": [3]}, "two names for one thing"),
        ({"num_return_sequences": 2}, "at most num_beams, 1, or do_sample=True"),
        ({"num_return_sequences": 3, "num_beams": 2}, "at most num_beams, 2"),
        ({"length_penalty": 2.0}, "length_penalty 2.0 is for beams"),
        ({"early_stopping": True}, "early_stopping True is for beams"),
    ],
)
def test_names_that_are_not_had_say_what_to_do(names, message):
    with pytest.raises(InputError, match=message):
        MODEL.generate(PROMPT, **names)


@pytest.mark.live
def test_every_name_of_transformers_is_taken_or_refused_by_name():
    transformers = pytest.importorskip("transformers")
    from minillm.decoding.options import INSTEAD, MISSING, READ

    names = {*transformers.GenerationConfig().to_dict()}
    names |= {*inspect.signature(transformers.GenerationMixin.generate).parameters}
    told = READ.keys() | INSTEAD.keys() | MISSING.keys()
    assert names - told == {"self", "kwargs"}


WHOLE = [n for n, kind in Options.__annotations__.items() if kind in ("int", "int | None")]


@pytest.mark.parametrize("value", [3.0, np.float64(3), "3", True, [3]], ids=repr)
def test_whole_numbers_are_refused_alike_everywhere(value):
    corpus = minillm.load("tales-draft")
    for make in (
        *(lambda n=n: Options(**{n: value}) for n in WHOLE),
        lambda: NGramDraft(value),
        lambda: NGramDraft(lengths=(value,)),
        lambda: ModelDraft(MODEL, value),
        lambda: generate_batch(MODEL, [PROMPT], value),
        lambda: MODEL.new_cache(value),
        lambda: MODEL.new_cache(1, value),
        lambda: SlidingCache(MODEL.config, 1, value),
        lambda: score_long(*corpus, "one two three", window=value),
        lambda: score_long(*corpus, "one two three", stride=value),
    ):
        with pytest.raises(InputError, match=r"is .*; it must be a whole number of at least [01]"):
            make()


def test_numpys_whole_numbers_are_taken():
    ids = MODEL.generate(PROMPT, np.int64(4), top_k=np.int32(3), seed=np.uint8(1))
    np.testing.assert_array_equal(ids, MODEL.generate(PROMPT, 4, top_k=3, seed=1))
    assert KVCache(MODEL.config, np.int64(2), np.int64(3)).keys.shape[1::2] == (2, 3)


ENTRIES = {
    "model(...)": lambda model, ids: model(ids),
    "trace": lambda model, ids: model.trace(ids),
    "model.generate": lambda model, ids: model.generate(ids),
    "generate_ids": generate_ids,
    "moments": lambda model, ids: moments(model, ids, Options()),
    "generate": lambda model, ids: minillm.generate(model, minillm.load("tales-draft")[1], ids),
    "generate_batch": lambda model, ids: generate_batch(model, [ids]),
    "score": score,
    "next_logprobs": next_logprobs,
    "continuation_logprob": lambda model, ids: continuation_logprob(model, ids, [1]),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    "ids", ["Once", ["Once"], None, [1.0, 2.0], [[1], [1, 2]], [], [1, 10**9]], ids=repr
)
def test_prompts_that_are_no_ids(entry, ids, tales):
    if entry == "generate" and ids == "Once":
        return
    with pytest.raises(InputError) as error:
        ENTRIES[entry](tales[0], ids)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e not in ("model(...)", "trace")])
def test_a_model_that_is_none(entry, tales):
    for wrong in (tales[1], tales, "tales", GPT2, None):
        if entry == "model.generate":
            break
        with pytest.raises(InputError, match=r"model is .*, which is no model: .*minillm\.load"):
            ENTRIES[entry](wrong, [1, 2])


def test_other_wrong_arguments(tales):
    model, tokenizer = tales
    for make, message in (
        (lambda: minillm.generate(tokenizer, model, "a"), "model is a Tokenizer"),
        (lambda: minillm.generate(model, model, "a"), "tokenizer is a GPT2"),
        (lambda: minillm.generate(model, tokenizer, ["a", "b"]), "a list of texts"),
        (lambda: minillm.generate(model, tokenizer, [[1], [2]]), "where one text .T,. is due"),
        (lambda: minillm.generate(model, tokenizer, "a", draft="tales-draft"), "named_draft"),
        (lambda: minillm.generate(model, tokenizer, "a", draft=model), "ModelDraft"),
        (lambda: minillm.generate(model, tokenizer, "a", num_return_sequences=2), "one text"),
        (lambda: ModelDraft("tales-draft"), "model is 'tales-draft'"),
        (lambda: ModelDraft(tales), "model is a tuple"),
        (lambda: generate_batch(model, "text"), "requests is 'text'; it must be several"),
        (lambda: generate_batch(model, ["text"]), "ids must be integers, not 'text'"),
        (lambda: generate_batch(model, 5), "requests is 5; it must be several"),
        (lambda: generate_batch(model, [1, 2]), r"ids have shape \(\); needed"),
        (lambda: generate_batch(model, [[1]], tokenizer=model), "tokenizer is a GPT2"),
        (lambda: generate_batch(model, [Request([1], {})]), "options is {}"),
        (lambda: minillm.generate(model, tokenizer, "a", stop=5), "stop is 5"),
        (lambda: model.generate(input_ids=[1]), "give the ids as first argument"),
        (lambda: tokenizer.encode(["a", "b"]), "encode_batch takes several"),
        (lambda: tokenizer.encode([1, 2]), "decode"),
        (lambda: tokenizer.encode(b"a"), r"text is b'a'"),
        (lambda: tokenizer.encode(None), "text is None"),
        (lambda: tokenizer.encode_batch("ab"), "encode takes one"),
        (lambda: tokenizer.explain(5), "text is 5"),
        (lambda: tokenizer.decode("ab"), "not 'ab'"),
        (lambda: tokenizer.decode(5), "not 5"),
        (lambda: tokenizer.decode([1.0]), "flat sequence of integer ids"),
        (lambda: tokenizer.decode([[1]]), "flat sequence of integer ids"),
        (lambda: score_long(model, tokenizer, ["a"]), "text is .* one text"),
        (lambda: score_long(tokenizer, model, "a"), "model is a Tokenizer"),
        (lambda: score(model, [[1, 2]]), r"shape \(1, 2\), where one text"),
    ):
        with pytest.raises(InputError, match=message):
            make()


# ---- live: transformers


LIVE = [
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 1, "repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 3, "num_beams": 4},
    {"num_beams": 4, "num_return_sequences": 4},
    {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 2.0},
    {"num_beams": 4, "num_return_sequences": 3, "early_stopping": True},
    {"num_beams": 4, "num_return_sequences": 2, "no_repeat_ngram_size": 2},
]


@pytest.mark.live
@pytest.mark.parametrize("options", LIVE, ids=str)
@pytest.mark.parametrize("n_stops", [0, 1, 3])
def test_tokens_equal_transformers(options, n_stops, tmp_path):
    """float64 on both sides; what decides lies in generation_config.json for both. The stop tokens
    come often, so that they end some of the texts."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    transformers.utils.logging.set_verbosity_error()
    prompts = np.random.default_rng(0).integers(0, 61, (6, 4))
    often = np.bincount(MODEL.generate(prompts, 15)[:, 4:].ravel()).argsort()[::-1]
    stops = [int(i) for i in often[1 : 1 + n_stops]]
    defaults = options | {"eos_token_id": stops or None, "max_new_tokens": 15, "pad_token_id": 0}
    lively(defaults).save_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).double().eval()
    ours = GPT2.from_pretrained(tmp_path).astype(np.float64)
    for prompt in prompts:
        ids = torch.tensor(prompt)[None]
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids)).numpy()
        found = np.atleast_2d(ours.generate(prompt))
        for mine, row in zip(
            found, expected, strict=True
        ):  # padded otherwise: 0 there, stops[0] here
            n = len(row) if 0 not in row[4:] else 4 + row[4:].tolist().index(0)
            np.testing.assert_array_equal(mine[:n], row[:n])


@pytest.mark.live
def test_transformers_reads_our_generation_config(tmp_path):
    transformers = pytest.importorskip("transformers")
    minillm.load("tales-draft")[0].save_pretrained(tmp_path)
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert (theirs.do_sample, theirs.temperature, theirs.min_p) == (True, 1.0, 0.05)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == 4095
