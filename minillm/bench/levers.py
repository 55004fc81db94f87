"""The levers by name: each takes a way of running a model and gives another, so that they combine:
"int8+ngram"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from ..compression import (
    low_rank,
    prune_heads,
    prune_magnitude,
    prune_neurons,
    quantize,
    round_to_int8,
    skip_layers,
)
from ..decoding import Options
from ..decoding.drafts import named_draft
from ..decoding.speculative import Draft
from ..errors import InputError, short
from ..loading import load
from ..model import Model
from ..tokenizer import Tokenizer
from ..twins.threads import checked_threads
from ..weights import KINDS


@dataclass(frozen=True)
class Way:
    """A way of running: the model, the options of decoding, how many texts at once, who drafts, on
    how many threads (None: as many as there are)."""

    model: Model
    tokenizer: Tokenizer
    calibration: list[int]  # ids by which pruning judges what matters
    options: dict = field(default_factory=dict)
    rows: int = 1
    draft: Draft | None = None
    threads: int | None = None

    def on(self, compress: Callable[[Model], Model]) -> Way:
        """The same way with another model."""
        return replace(self, model=compress(self.model))

    def set(self, **options) -> Way:
        """The same way with more options of decoding."""
        return replace(self, options={**self.options, **options})


@dataclass(frozen=True)
class Lever:
    """`apply(way, value)`; the value's type, None for none; the test that proves it exact, or None
    where it is not."""

    apply: Callable[..., Way]
    value: type | None
    proof: str | None
    summary: str


def _in_batch(way: Way, n: int) -> Way:
    if n < 1:
        raise InputError("a batch needs at least 1 text")
    return replace(way, rows=n)


def _on_threads(way: Way, n: int) -> Way:
    return replace(way, threads=checked_threads(n))


def _with_draft(way: Way, name: str) -> Way:
    return replace(way, draft=named_draft(name, way.model, way.tokenizer, load))


LEVERS = {
    "no-cache": Lever(
        lambda w: w.set(use_cache=False), None, "prove_no_cache", "everything anew for each token"
    ),
    "chunk": Lever(
        lambda w, n: w.set(chunk=n), int, "prove_chunked", "prompt read N positions at a time"
    ),
    "batch": Lever(_in_batch, int, "prove_batch", "N texts share each pass"),
    "threads": Lever(
        _on_threads, int, "prove_threads", "N threads; with threads:1 Amdahl's law is fitted"
    ),
    "ngram": Lever(
        lambda w: _with_draft(w, "ngram"),
        None,
        "prove_speculation_greedy",
        "drafts looked up in the text",
    ),
    "draft": Lever(
        _with_draft, str, "prove_speculation_greedy", "drafts by MODEL, skip:N, int8, int4, ..."
    ),
    "window": Lever(
        lambda w, n: w.set(window=n),
        int,
        None,
        "the newest N keys only; +no-cache: the last N tokens anew each time",
    ),
    **{
        kind: Lever(
            lambda w, kind=kind: w.on(lambda m: quantize(m, kind)),
            None,
            None,
            f"all matrices as {kind}"
            + (", and what they multiply" if kind == "bfloat16_rounded" else ""),
        )
        for kind in KINDS
        if kind != "float32"
    },
    "int8-body": Lever(
        lambda w: w.on(lambda m: quantize(m, "int8", head=False)),
        None,
        None,
        "int8 without the output head",
    ),
    "int4-body": Lever(
        lambda w: w.on(lambda m: quantize(m, "int4", head=False)),
        None,
        None,
        "int4 without the output head",
    ),
    "int8-row": Lever(
        lambda w: w.on(round_to_int8), None, None, "one scale a row (simulated: quality only)"
    ),
    "int8-tensor": Lever(
        lambda w: w.on(lambda m: round_to_int8(m, "tensor")),
        None,
        None,
        "one scale a tensor (simulated)",
    ),
    "sparse": Lever(
        lambda w, s: w.on(lambda m: prune_magnitude(m, s)),
        float,
        None,
        "without the share S of weights",
    ),
    "heads": Lever(
        lambda w, n: w.on(lambda m: prune_heads(m, n, w.calibration)), int, None, "N heads a layer"
    ),
    "neurons": Lever(
        lambda w, n: w.on(lambda m: prune_neurons(m, n, w.calibration)),
        int,
        None,
        "N neurons a layer",
    ),
    "skip": Lever(lambda w, n: w.on(lambda m: skip_layers(m, n)), int, None, "without N layers"),
    "low-rank": Lever(lambda w, r: w.on(lambda m: low_rank(m, r)), int, None, "matrices of rank R"),
    "low-rank-mlp": Lever(
        lambda w, r: w.on(lambda m: low_rank(m, r, ("mlp",))),
        int,
        None,
        "rank R in the feed forward only",
    ),
}


def apply_levers(way: Way, names: str) -> tuple[Way, str]:
    """Return the way after the levers "NAME[:VALUE]+NAME...", left to right, and its proofs (""
    where not exact).

    "plain" is none. Raises InputError for an unknown lever, a value that cannot be read, and levers
    that cannot apply.
    """
    proofs = []
    try:
        for part in names.split("+") if names != "plain" else []:
            name, colon, value = part.partition(":")
            if name not in LEVERS:
                near = get_close_matches(name, LEVERS, 1)
                known = f"did you mean {near[0]}?" if near else f"known: {', '.join(LEVERS)}"
                raise InputError(f"there is no {short(name)}; {known}")
            lever = LEVERS[name]
            if bool(colon) != (lever.value is not None):
                takes = f"a value, {name}:VALUE" if lever.value else "no value"
                raise InputError(f"{name} takes {takes}")
            try:
                values = [lever.value(value)] if lever.value else []
            except ValueError:
                raise InputError(f"{short(value)} is no {lever.value.__name__}") from None
            way = lever.apply(way, *values)
            proofs.append(lever.proof)
        Options(**way.options)  # refuses what cannot be had at once
        if way.rows > 1 and way.draft is not None:
            raise InputError("a batch and a draft cannot be had at once: leave one out")
    except InputError as error:
        raise InputError(f"lever {names}: {error}") from None
    return way, "" if None in proofs else ", ".join(proofs) or "is the reference"
