"""Everything that can be asked of a generation, checked once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from .. import ops as numpy_ops
from ..errors import InputError
from . import filters

DEFAULT_NEW_TOKENS = 64


@dataclass(frozen=True)
class Options:
    """How to decode. Raises InputError, naming the option, its value and what is allowed.

    max_new_tokens: how many tokens to add (64 if neither limit is given, or as many as fit).
    max_length: the most tokens in all, the prompt counted. temperature: 0 is greedy. top_k, top_p,
    min_p, repetition_penalty: see decoding.filters. num_beams: more than 1 searches;
    length_penalty: scores are divided by (new tokens)**length_penalty, so that above 0 longer texts
    win; early_stopping: stop at num_beams finished texts (True), when no better one is likely
    (False), or when none is possible ("never"). stop_tokens: ids that end the text; None means the
    model's eos_token_id. seed: of the random draws; None takes a new one. cache_dtype: of the KV
    cache; None is the model's, "float16" halves its memory and rounds. on_full: when the positions
    run out, "error", or "slide": start anew from the last half window. chunk: read the prompt that
    many positions at a time (exact; see decoding.loop.read). use_cache: without one every cycle
    reads the whole text anew: the same tokens for far more work. window: attend to the newest
    `window` keys only (see cache.SlidingCache; another model, not exact); without a cache the last
    `window` tokens are read anew for each one, as a text that begins there.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    stop_tokens: Sequence[int] | None = None
    seed: int | None = None
    cache_dtype: str | None = None
    on_full: str = "error"
    chunk: int | None = None
    use_cache: bool = True
    window: int | None = None

    def __post_init__(self):
        whole = "a whole number of at least 1"
        for name, allowed, test in (
            ("max_new_tokens", whole, _at_least_one),
            ("max_length", whole, _at_least_one),
            ("temperature", "0 (greedy) or more", lambda t: t >= 0),
            ("top_k", whole, _at_least_one),
            ("top_p", "above 0 and at most 1", lambda p: 0 < p <= 1),
            ("min_p", "between 0 and 1", lambda p: 0 <= p <= 1),
            ("repetition_penalty", "above 0 (1 is none)", lambda r: r > 0),
            ("num_beams", whole, _at_least_one),
            ("length_penalty", "from -50 to 50", lambda p: abs(p) <= 50),
            ("early_stopping", "True, False or 'never'", lambda e: e in (True, False, "never")),
            ("seed", "a whole number of at least 0", lambda s: int(s) == s and s >= 0),
            (
                "cache_dtype",
                "'float64', 'float32' or 'float16'",
                lambda d: d in ("float64", "float32", "float16"),
            ),
            ("on_full", "'error' or 'slide'", lambda o: o in ("error", "slide")),
            ("chunk", whole, _at_least_one),
            ("use_cache", "True or False", lambda c: c in (True, False)),
            ("window", whole, _at_least_one),
        ):
            value = getattr(self, name)
            optional = next(f for f in fields(self) if f.name == name).default is None
            try:
                good = (value is None and optional) or (test(value) and not _infinite(value))
            except (TypeError, ValueError):
                good = False
            if not good:
                raise InputError(f"{name} is {value!r}; it must be {allowed}")
        if self.num_beams > 1 and self.temperature > 0:
            raise InputError(
                f"num_beams {self.num_beams} searches and temperature {self.temperature} samples:"
                " set one only"
            )
        if self.num_beams > 1 and self.on_full == "slide":
            raise InputError(
                f"num_beams {self.num_beams} needs on_full='error': scores across a slide do not"
                " compare"
            )
        if self.num_beams > 1 and self.chunk is not None:
            raise InputError(
                f"num_beams {self.num_beams} reads the prompt at once: leave out chunk {self.chunk}"
            )
        if not self.use_cache:
            for name in ("num_beams", "chunk"):
                if getattr(self, name) not in (None, 1):
                    raise InputError(
                        f"{name} {getattr(self, name)} needs the KV cache: leave out"
                        " use_cache=False (--no-cache)"
                    )
        if (
            self.window is not None
            and self.use_cache
            and (self.num_beams > 1 or self.chunk not in (None, 1))
        ):
            raise InputError(
                f"window {self.window} reads one position at a time: leave out num_beams and chunk"
            )

    def require_plain(self, lever: str, **more) -> None:
        """Raise InputError for options that `lever` cannot be had with: beams, sliding, no cache,
        `more` {name: plain}."""
        plain = {"num_beams": 1, "on_full": "error", "use_cache": True, "window": None, **more}
        for name, value in plain.items():
            if getattr(self, name) != value:
                raise InputError(
                    f"{lever} cannot be had with {name}={getattr(self, name)!r}: leave one out"
                )

    def new_tokens(self, n_prompt: int, n_positions: int) -> int:
        """Return how many tokens may follow a prompt of n_prompt; InputError where they do not fit."""
        if self.max_length is not None and self.max_length <= n_prompt:
            raise InputError(
                f"max_length {self.max_length} counts the prompt, which has {n_prompt} tokens"
                " already"
            )
        limits = [] if self.max_new_tokens is None else [self.max_new_tokens]
        limits += [] if self.max_length is None else [self.max_length - n_prompt]
        wanted = min(limits, default=DEFAULT_NEW_TOKENS)
        if self.on_full == "slide":
            return wanted
        fit = n_positions - n_prompt + 1  # the last token is never fed back, and needs no position
        if fit < 1:
            raise InputError(
                f"the prompt has {n_prompt:,} tokens and the model {n_positions} positions: "
                "shorten it, or use on_full='slide' (--on-full slide) to keep its end"
            )
        if limits and wanted > fit:
            raise InputError(
                f"{n_prompt} tokens and {wanted} new ones do not fit the model's {n_positions}"
                f" positions: ask for at most {fit}, or use on_full='slide' (--on-full slide)"
            )
        return min(wanted, fit)

    def penalised(self, logits, ids):
        """Return the logits after the repetition penalty, the one filter that greedy and beam
        search share."""
        return (
            logits
            if self.repetition_penalty == 1.0
            else filters.repetition_penalty(logits, ids, self.repetition_penalty)
        )

    def distribution(self, logits, ids, ops=numpy_ops):
        """Return the probabilities [V] from which the next token is drawn; ids are the tokens so
        far, ops the twin."""
        logits = self.penalised(logits, ids)
        if self.temperature > 0:
            logits = filters.temperature(logits, self.temperature)
            for filter_, setting in (
                (filters.top_k, self.top_k),
                (filters.top_p, self.top_p),
                (filters.min_p, self.min_p),
            ):
                if setting is not None and not (filter_ is filters.top_p and setting == 1):
                    logits = filter_(logits, setting)
        return ops.softmax(logits)

    def choose(self, probs, rng: np.random.Generator) -> int:
        """Return the next token: the likeliest if greedy, else one drawn from `probs`."""
        u = None if self.temperature == 0 else rng.random()
        return filters.choose(probs, u)


def _at_least_one(value) -> bool:
    return int(value) == value and value >= 1 and not isinstance(value, bool)


def _infinite(value) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
