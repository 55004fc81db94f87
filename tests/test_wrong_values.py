"""What is public says in one line what was wrong with an argument, whatever was given."""

from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm import GPT2, GPT2Config, InputError, Tokenizer
from minillm.compression import (
    errors_by_matrix,
    low_rank,
    prune_heads,
    prune_magnitude,
    prune_neurons,
    quantize,
    round_to_int8,
    skip_layers,
)
from minillm.decoding import ModelDraft, NGramDraft, Options, Request, generate_batch
from minillm.decoding.drafts import named_draft
from minillm.decoding.scoring import continuation_logprob, next_logprobs, score, score_long
from minillm.decoding.segments import run_segments
from minillm.differences import diff
from minillm.exercises.teacher.exam import exam
from minillm.layers.cache import KVCache, SlidingCache
from minillm.reference import Reference, verify
from minillm.steps import Patch, Relay
from minillm.tasks.classify import load_classifier
from minillm.tasks.examples import read_examples
from minillm.training.language import LanguageModel
from minillm.training.settings import Settings, settings
from minillm.training.trainer import read_metrics
from minillm.twins import set_threads
from minillm.twins.choose import twin
from minillm.weights import store

CONFIG = GPT2Config(vocab_size=260, n_positions=16, n_embd=24, n_layer=3, n_head=2)
MODEL, TOKENIZER, IDS = GPT2.random(CONFIG, seed=1), Tokenizer.train([], 257), [3, 5, 7, 9]

WRONG = {
    "nothing": None,
    "text": "words",
    "a number": 2.5,
    "a negative number": -1,
    "fractions": [1.5, 2.5],
    "ragged": [[1], [2, 3]],
    "nothings": [None],
    "an empty list": [],
    "a huge number": 10**40,
    "an object": object(),
    "a class": dict,
    "an array of texts": np.array(["a", "b"]),
    "cubes": np.ones((2, 2, 2), np.int64),
    "NaN": float("nan"),
    "a table": {"a": 1},
    "an array of no axes": np.array(2.5),
    "an array of nothing": np.zeros((0, 4), np.int64),
    "complex numbers": np.ones(3, complex),
    "records": np.zeros(3, [("a", int)]),
    "a range": range(3),
    "a name too long for a file": "x" * 300,
}


def cache():
    made = MODEL.new_cache(2)
    MODEL([IDS, IDS], made)
    return made


CALLS = {
    "load": lambda x: minillm.load(x, kernels="numpy"),
    "load, dtype": lambda x: minillm.load("tales-draft", x, "numpy"),
    "load, kernels": lambda x: minillm.load("tales-draft", None, x),
    "generate, model": lambda x: minillm.generate(x, TOKENIZER, "a"),
    "generate, tokenizer": lambda x: minillm.generate(MODEL, x, "a"),
    "generate, prompt": lambda x: list(minillm.generate(MODEL, TOKENIZER, x, max_new_tokens=2)),
    "generate, stop": lambda x: list(
        minillm.generate(MODEL, TOKENIZER, "a", stop=x, max_new_tokens=2)
    ),
    "generate, step": lambda x: list(
        minillm.generate(MODEL, TOKENIZER, "a", step=x, max_new_tokens=2)
    ),
    "generate, draft": lambda x: list(
        minillm.generate(MODEL, TOKENIZER, "a", draft=x, max_new_tokens=2)
    ),
    "model": lambda x: MODEL(x),
    "model, cache": lambda x: MODEL(IDS, x),
    "model, lengths": lambda x: MODEL(IDS, lengths=x),
    "model, step": lambda x: MODEL(IDS, step=x),
    "model, step that returns it": lambda x: MODEL(IDS, step=lambda name, value: x),
    "model, Patch": lambda x: MODEL(IDS, step=Patch({"h.0.mlp.act": x})),
    "model, Patch that returns it": lambda x: MODEL(
        IDS, step=Patch({"h.0.mlp.act": lambda value: x})
    ),
    "Patch": lambda x: MODEL(IDS, step=Patch(x)),
    "Patch, then": lambda x: MODEL(IDS, step=Patch({}, x)),
    "Relay": lambda x: MODEL(IDS, step=Relay(x)),
    "Trace": lambda x: MODEL.trace(IDS)[x],
    "trace": lambda x: MODEL.trace(x),
    "diff": lambda x: diff(x, MODEL.trace(IDS)),
    "diff, reference": lambda x: diff(MODEL.trace(IDS), x),
    "diff, names": lambda x: diff(MODEL.trace(IDS), MODEL.trace(IDS), names=x),
    "model.generate": lambda x: MODEL.generate(x, 2),
    "model.generate, how many": lambda x: MODEL.generate(IDS, x),
    **{
        f"model.generate, {name}": lambda x, name=name: MODEL.generate(IDS, 2, **{name: x})
        for name in Options.__dataclass_fields__
        if name not in ("max_new_tokens", "given")
    },
    "parameters": lambda x: MODEL.parameters[x],
    "stored parameters": lambda x: MODEL.quantize("int8").parameters["wte.weight"][x],
    "low-rank parameters": lambda x: low_rank(MODEL, 2).parameters["h.0.mlp.c_fc.weight"][x],
    "with_parameters": lambda x: MODEL.with_parameters(x),
    "with_parameters, an array": lambda x: MODEL.with_parameters({"ln_f.bias": x}),
    "with_parameters, a name": lambda x: MODEL.with_parameters({str(x)[:9]: np.zeros(3)}),
    "with_parameters, no field": lambda x: MODEL.with_parameters({}, n_heads=x),
    "with_parameters, a field": lambda x: MODEL.with_parameters({}, n_head=x),
    "astype": lambda x: MODEL.astype(x),
    "quantize": lambda x: MODEL.quantize(x),
    "save_pretrained": lambda x: MODEL.save_pretrained(x if not isinstance(x, str) else ""),
    "save_pretrained, dtype": lambda x: MODEL.save_pretrained(
        "nowhere/at/all", "" if x is None else x
    ),
    "from_pretrained": lambda x: GPT2.from_pretrained(x, kernels="numpy"),
    "GPT2": lambda x: GPT2(x, MODEL.parameters),
    "GPT2, parameters": lambda x: GPT2(CONFIG, x),
    "GPT2, ops": lambda x: GPT2(CONFIG, MODEL.parameters, x),
    "GPT2.random": lambda x: GPT2.random(x),
    "GPT2.random, seed": lambda x: GPT2.random(CONFIG, x),
    "GPT2.random, dtype": lambda x: GPT2.random(CONFIG, 0, x),
    "GPT2Config.from_dict": lambda x: GPT2Config.from_dict(x),
    **{
        f"GPT2Config, {name}": lambda x, name=name: GPT2Config(**{name: x})
        for name in GPT2Config.__dataclass_fields__
        if name != "generation"
    },
    "generation": lambda x: GPT2(GPT2Config(**vars(CONFIG) | {"generation": x}), {}),
    "new_cache": lambda x: MODEL.new_cache(x),
    "new_cache, capacity": lambda x: MODEL.new_cache(1, x),
    "new_cache, dtype": lambda x: MODEL.new_cache(1, 4, x),
    "KVCache": lambda x: KVCache(x),
    "SlidingCache": lambda x: SlidingCache(CONFIG, 1, x),
    "cache.layer": lambda x: cache().layer(x),
    "cache.advance": lambda x: cache().advance(x),
    "cache.truncate": lambda x: cache().truncate(x),
    "cache.truncate, row": lambda x: cache().truncate(1, x),
    "cache.take": lambda x: cache().take(x),
    "cache.view": lambda x: cache().view(x),
    "cache.move": lambda x: cache().move(x, 0),
    "cache.move, target": lambda x: cache().move(0, x),
    "cache.join": lambda x: KVCache.join(x),
    "encode": lambda x: TOKENIZER.encode(x),
    "encode, allowed": lambda x: TOKENIZER.encode("a", x),
    "encode_batch": lambda x: TOKENIZER.encode_batch(x),
    "encode_documents": lambda x: TOKENIZER.encode_documents(x),
    "tokenize": lambda x: TOKENIZER.tokenize(x),
    "explain": lambda x: TOKENIZER.explain(x),
    "decode": lambda x: TOKENIZER.decode(x),
    "readable": lambda x: TOKENIZER.readable(x),
    "Tokenizer.train": lambda x: Tokenizer.train(x, 300),
    "Tokenizer.train, vocab_size": lambda x: Tokenizer.train([], x),
    "Tokenizer.train, special_tokens": lambda x: Tokenizer.train([], 300, x),
    "Tokenizer.from_pretrained": lambda x: Tokenizer.from_pretrained(x),
    "Tokenizer.save": lambda x: TOKENIZER.save(x if not isinstance(x, str) else ""),
    "score": lambda x: score(MODEL, x),
    "score, model": lambda x: score(x, IDS),
    "next_logprobs": lambda x: next_logprobs(MODEL, x),
    "continuation_logprob": lambda x: continuation_logprob(MODEL, x, IDS),
    "continuation_logprob, continuation": lambda x: continuation_logprob(MODEL, IDS, x),
    "score_long": lambda x: score_long(MODEL, TOKENIZER, x),
    "score_long, window": lambda x: score_long(MODEL, TOKENIZER, "some text", x),
    "score_long, stride": lambda x: score_long(MODEL, TOKENIZER, "some text", 4, x),
    "run_segments": lambda x: run_segments(MODEL, x, 2, True),
    "run_segments, length": lambda x: run_segments(MODEL, IDS, x, True),
    "generate_batch": lambda x: list(generate_batch(MODEL, x)),
    "generate_batch, model": lambda x: list(generate_batch(x, [IDS])),
    "generate_batch, rows": lambda x: list(generate_batch(MODEL, [IDS], x)),
    "generate_batch, tokenizer": lambda x: list(generate_batch(MODEL, [IDS], tokenizer=x)),
    "generate_batch, step": lambda x: list(generate_batch(MODEL, [IDS], step=x)),
    "Request": lambda x: list(generate_batch(MODEL, [Request(x)])),
    "Request, options": lambda x: list(generate_batch(MODEL, [Request(IDS, x)])),
    "Request, stop": lambda x: list(
        generate_batch(MODEL, [Request(IDS, Options(), x)], tokenizer=TOKENIZER)
    ),
    "ModelDraft": lambda x: ModelDraft(x),
    "ModelDraft, n_tokens": lambda x: ModelDraft(MODEL, x),
    "NGramDraft": lambda x: NGramDraft(x),
    "NGramDraft, lengths": lambda x: NGramDraft(4, x),
    "named_draft": lambda x: named_draft(x, MODEL, TOKENIZER, minillm.load),
    "named_draft, model": lambda x: named_draft("int8", x, TOKENIZER, minillm.load),
    "named_draft, tokenizer": lambda x: named_draft("tales-draft", MODEL, x, minillm.load),
    "compression.quantize": lambda x: quantize(MODEL, x),
    "compression.quantize, model": lambda x: quantize(x, "int8"),
    "low_rank": lambda x: low_rank(MODEL, x),
    "low_rank, matrices": lambda x: low_rank(MODEL, 2, x),
    "prune_magnitude": lambda x: prune_magnitude(MODEL, x),
    "prune_heads": lambda x: prune_heads(MODEL, x, IDS),
    "prune_heads, ids": lambda x: prune_heads(MODEL, 1, x),
    "prune_neurons": lambda x: prune_neurons(MODEL, x, IDS),
    "prune_neurons, ids": lambda x: prune_neurons(MODEL, 1, x),
    "skip_layers": lambda x: skip_layers(MODEL, x),
    "round_to_int8": lambda x: round_to_int8(MODEL, x),
    "errors_by_matrix": lambda x: errors_by_matrix(MODEL, x),
    "store": lambda x: store(x, "int8"),
    "store, kind": lambda x: store(np.ones((4, 4), np.float32), x),
    "set_threads": lambda x: set_threads(x),
    "twin": lambda x: twin(x),
    "verify": lambda x: verify(MODEL, x),
    "Reference.load": lambda x: Reference.load(x),
    "exam": lambda x: exam(x),
    "exam, count": lambda x: exam(1, x),
    "exam, chapters": lambda x: exam(1, 3, x),
    "LanguageModel": lambda x: LanguageModel(x),
    "settings": lambda x: settings(x),
    **{
        f"Settings, {name}": lambda x, name=name: Settings(**{name: x})
        for name in Settings.__dataclass_fields__
    },
    "read_metrics": lambda x: read_metrics(x),
    "read_examples": lambda x: read_examples(x),
    "load_classifier": lambda x: load_classifier(x),
}


@pytest.fixture(autouse=True)
def without_a_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(Path(tmp_path).glob("**/*")), "it wrote something"


@pytest.mark.parametrize("call", CALLS)
def test_wrong_arguments_are_one_line(call):
    failed = {}
    for what, value in WRONG.items():
        try:
            CALLS[call](value)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) <= 1100
        except Exception as error:
            if "unhashable" in str(error):  # Python's own TypeError of d[[1]]
                continue
            failed[what] = f"{type(error).__name__}: {error}"[:200]
    assert not failed
