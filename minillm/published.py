"""What others have published about OpenAI's GPT-2 weights, checked without any other library.

The facts, each with its source, are in published.json: counts, ids of texts, greedy continuations,
and the largest logits after some prompts. Of recorded logits only the differences are compared,
within the tolerance of their protocol, since the recording may be in mixed precision.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError
from .machine.files import read_json
from .machine.progress import Update
from .model import Model
from .ops import log_softmax
from .tokenizer import Tokenizer

FACTS = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Fact:
    """One fact: what is known, whether the model agrees, and where it does not, in what."""

    what: str
    ok: bool
    difference: str = ""


def facts_of(name: str) -> dict | None:
    """Return what is published of the model of this name (or of the folder's name), or None."""
    facts = read_json(FACTS)
    model = facts["models"].get(Path(name).name)
    return model and {**model, "tokenizer": facts["tokenizer"]}


def check(facts: dict, model: Model, tokenizer: Tokenizer | None, update: Update) -> Iterator[Fact]:
    """Yield one Fact for each of `facts`; `update` is told of every pass of the model."""
    counts = {
        "parameters": model.n_parameters,
        "tensors": len(model.parameters),
        "cache_bytes_per_token": model.new_cache(capacity=1).nbytes,
    }
    for name, found in counts.items():
        if name in facts:
            yield _equal(f"{facts[name]:,} {name.replace('_', ' ')}", found, facts[name])
    yield from _check_tokenizer(facts["tokenizer"], tokenizer)
    greedy, logits = facts.get("greedy", []), facts.get("logits", {"prompts": []})
    total = sum(len(text["continuation"]) for text in greedy) + len(logits["prompts"])
    passes = itertools.count(1)

    def last_logits(ids: list[int], cache=None) -> np.ndarray:
        update("published facts", next(passes), total)
        return model(ids, cache, last=True)[-1]

    def shown(i: int) -> str:
        return repr(tokenizer.decode([i])) if tokenizer else f"id {i}"

    for text in greedy:
        what = f"greedy continuation of {text['text']!r}, {len(text['continuation'])} tokens"
        cache = model.new_cache()
        yield _unless_refused(what, _other_continuation, text, cache, last_logits, shown)
    for text in logits["prompts"]:
        what = f"{len(text['top_ids'])} largest logits after {text['text']!r}"
        yield _unless_refused(what, _other_logits, text, logits["tolerance"], last_logits, shown)


def _check_tokenizer(facts: dict, tokenizer: Tokenizer | None) -> Iterator[Fact]:
    if tokenizer is None:
        yield Fact("its tokenizer", False, "there is none")
        return
    yield _equal(f"{facts['vocab_size']:,} tokens", tokenizer.vocab_size, facts["vocab_size"])
    yield _equal(f"{facts['merges']:,} merges", len(tokenizer.merges), facts["merges"])
    special = facts["special_tokens"]
    yield _equal(f"special tokens {special}", tokenizer.special_tokens, special)
    for text, ids in facts["ids"]:
        yield _equal(f"{text!r} is {ids}", tokenizer.encode(text), ids)


def _equal(what: str, found, expected) -> Fact:
    shown = f"{found:,}" if isinstance(found, int) else f"{found!r:.100}"
    return Fact(what, True) if found == expected else Fact(what, False, shown)


def _unless_refused(what: str, difference: Callable[..., str], *args) -> Fact:
    """A Fact that holds if `difference` is empty; a model of another shape may refuse the ids."""
    try:
        said = difference(*args)
    except InputError as error:
        said = str(error)
    return Fact(what, not said, said)


def _other_continuation(text: dict, cache, last_logits, shown) -> str:
    """Where the greedy continuation of a text is another one, and how near it was; else empty."""
    ids = text["ids"]
    for number, expected in enumerate(text["continuation"], 1):
        logits = last_logits(ids, cache)
        if (best := int(logits.argmax())) != expected:
            margin = f"whose logit is {logits[best] - logits[expected]:.2g} smaller"
            return f"token {number} is {shown(best)} instead of {shown(expected)}, {margin}"
        ids = [expected]
    return ""


def _other_logits(text: dict, tolerance: float, last_logits, shown) -> str:
    """How the logits after a text, taken from the likeliest token's, are others; else empty.

    With them their mean and the logarithm of the sum of their exponentials are compared.
    """
    top = text["top_ids"]
    logits = last_logits(text["ids"]).astype(np.float64)
    if (best := int(logits.argmax())) != top[0]:
        return f"the likeliest is {shown(best)} instead of {shown(top[0])}"
    logsumexp = logits[best] - log_softmax(logits)[best]
    ours = np.array([*logits[top], logsumexp, logits.mean()]) - logits[best]
    theirs = np.array([*text["top_logits"], text["logsumexp"], text["mean_logit"]])
    largest = np.abs(ours - (theirs - theirs[0])).max()
    return "" if largest <= tolerance else f"differences up to {largest:.3g}, allowed {tolerance}"
