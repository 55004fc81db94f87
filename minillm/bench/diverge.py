"""Two models on one text: the first step in which they differ beyond rounding (rounding.py has the
rule), how far apart they are before the text shows it, and what each writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from ..decoding import Options
from ..decoding.cycle import Continuation
from ..decoding.plain import one_by_one
from ..errors import InputError
from ..families.family import TABLE
from ..machine.progress import Update, progress_bar
from ..model import Model
from ..tokenizer import Tokenizer
from .rounding import Compared, Judge, Side


@dataclass(frozen=True)
class Changed:
    """A parameter that differs: in how many of its numbers, and where most."""

    name: str
    count: int
    size: int
    index: tuple[int, ...]
    value_a: float
    value_b: float


@dataclass(frozen=True)
class Divergence:
    """What was found. ids_a, ids_b: both texts, of which the first n_prompt ids are the prompt's;
    parting: the moment at which their tokens part, None where they do not; crossed: what A writes
    where it is given B's token there, None where B's text ends with it.

    apart: half the sum of |p_a - p_b| over the vocabulary at each moment, up to that one.
    candidates: {id: (P by A, P by B)} of the two tokens that part. moment: the first at which any
    step differs beyond rounding (0 is the pass over the prompt), None without; steps: those that do
    there, each from A's inputs, of `formed` steps; "next" is one where draws alone differ. changed:
    the parameters that form the first of them and differ.
    """

    n_prompt: int
    ids_a: list[int]
    ids_b: list[int]
    parting: int | None
    crossed: list[int] | None
    apart: list[float]
    candidates: dict[int, tuple[float, ...]]
    moment: int | None
    steps: list[Compared]
    formed: int
    changed: list[Changed]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return asdict(self)


class Writer(Side):
    """A side that continues a text; options: of decoding, by name."""

    def __init__(self, model: Any, options: Mapping[str, Any], tokenizer: Tokenizer | None = None):
        super().__init__(model)
        self.options, self.tokenizer = options, tokenizer

    def text(self, ids: Sequence[int], drawn: int = 0) -> Continuation:
        """A text to be written after `ids`, the last `drawn` of which were chosen already."""
        rng = np.random.default_rng(self.options["seed"])
        rng.random(drawn)
        left = {"max_new_tokens": self.options["max_new_tokens"] - drawn}
        return Continuation(
            self.model, ids, Options(**{**self.options, **left}), self.tokenizer, rng
        )

    def write(
        self, ids: Sequence[int], drawn: int = 0, cache: Any = None
    ) -> tuple[list[int], list[np.ndarray], Any]:
        """The whole text after ids, the last `drawn` of which were chosen already; the
        probabilities [V] of each moment; and the cache, which may hold the text's beginning."""
        text, seen = self.text(ids, drawn), Probabilities()
        cache = text.new_cache(self.model) if cache is None else cache
        for _ in one_by_one(self.model, text, seen, cache) if text.left else ():
            pass
        return text.ids, seen, cache


class Probabilities(list):
    """A step that keeps what each token is chosen from, and asks for nothing else."""

    times_only = True

    def __call__(self, name: str, value: Any) -> Any:
        if name == "probs":
            self.append(value)
        return value


def diverge(
    a: Model,
    b: Model,
    ids: Sequence[int],
    tokenizer: Tokenizer | None = None,
    seeds: tuple[int | None, int | None] = (None, None),
    **options: Any,
) -> Divergence:
    """Let both continue `ids` and find where they part: see the head of this file.

    seeds: with what each draws. options: see decoding.Options; without them greedy, and 64
    max_new_tokens or as many as fit. Raises InputError for models whose steps cannot be compared,
    and for what does not fit.
    """
    require_alike(a, b)
    n, P = len(ids), min(model.config.sizes.P for model in (a, b))
    plain = {"max_new_tokens": max(1, min(64, P - n)), "do_sample": seeds != (None, None)}
    options = plain | {"num_beams": 1} | options
    side_a, side_b = (
        Writer(model, options | {"seed": seed}, tokenizer) for model, seed in zip((a, b), seeds)
    )
    if n + options["max_new_tokens"] > P:
        raise InputError(
            f"{n} ids of a text and {options['max_new_tokens']} new ones are more than the"
            f" {P} positions of the models: ask for fewer (max_new_tokens)"
        )
    with progress_bar("texts") as update:
        update("writing", 0, 2, "A")
        ids_a, probs_a, cache = side_a.write(ids)
        update("writing", 1, 2, "B")
        ids_b, probs_b, _ = side_b.write(ids)
    pairs = [*zip(ids_a[n:], ids_b[n:])]
    parting = next((m for m, (x, y) in enumerate(pairs) if x != y), None)
    apart = [float(abs(p - q).sum() / 2) for p, q in zip(probs_a, probs_b)]
    crossed, candidates = None, {}
    if parting is not None:
        both = probs_a[parting], probs_b[parting]
        candidates = {i: tuple(float(probs[i]) for probs in both) for i in pairs[parting]}
        if len(ids_b) > (there := n + parting + 1):
            cache.truncate(n + parting)  # back to before they part, and on with B's token
            crossed, *_ = side_a.write(ids_b[:there], parting + 1, cache)
        apart = apart[: parting + 1]
    with progress_bar("moments") as update:
        moment, steps, formed = first_steps(side_a, side_b, ids_a, n, update)
    reasons = changed(side_a.exact, side_b.exact, steps[0].name) if steps else []
    if parting is not None and seeds[0] != seeds[1] and (moment is None or moment > parting):
        drawn = pairs[parting]
        distance = float(abs(drawn[0] - drawn[1]))
        moment, reasons = parting, []
        steps = [Compared("next", n + parting, distance, 0.0, (), *map(float, drawn))]
    return Divergence(
        n, ids_a, ids_b, parting, crossed, apart, candidates, moment, steps, formed, reasons
    )


def require_alike(a: Model, b: Model) -> None:
    """Raise InputError unless both have the same steps, of the same shapes."""
    if a.family is not b.family:
        raise InputError(
            f"A is a {a.family.title} and B a {b.family.title}: their steps cannot be compared"
        )
    for letter in "VLCHKDF":
        one, other = (getattr(model.config.sizes, letter) for model in (a, b))
        if one != other:
            raise InputError(
                f"A has {letter} = {one:,} and B {letter} = {other:,} (the letters of"
                " minillm/sizes.py): steps of other shapes cannot be compared"
            )


def first_steps(
    a: Writer, b: Writer, ids: Sequence[int], n_prompt: int, update: Update
) -> tuple[int | None, list[Compared], int]:
    """Go along a text moment by moment: the first at which a step differs beyond rounding, which do
    there, and how many steps were formed."""
    judge, texts = Judge(a, b, len(ids)), [side.text(ids[:n_prompt]) for side in (a, b)]
    steps: list[Compared] = []
    for moment, end in enumerate(range(n_prompt, len(ids))):
        update("comparing", moment, len(ids) - n_prompt)
        so_far = list(ids[:end])
        choose = [partial(probabilities, text, so_far) for text in texts]
        steps = judge.read(so_far, choose=choose)
        if differing := [step for step in steps if step.differs]:
            return moment, differing, len(steps)
    return None, [], len(steps)


def probabilities(
    text: Continuation, ids: Sequence[int], logits: np.ndarray, twin: Any
) -> np.ndarray:
    """What the next token is chosen from [V], after all filters, as this twin computes it."""
    return text.options.distribution(text.allowed(logits), ids, twin)


def changed(a: Model, b: Model, step: str) -> list[Changed]:
    """The parameters that form a step and differ; of the logits, a tied head."""
    found = []
    for name, p in a.layout.items():
        layer, _ = a.family.local_name(name)
        forms = p.forms if layer is None else f"h.{layer}.{p.forms}"
        if step not in (forms, "logits" if a.config.tied and p.role == TABLE else forms):
            continue
        one, other = (np.asarray(m.parameters[name]) for m in (a, b))
        distance = abs(one - other)
        if distance.any():
            index = tuple(map(int, np.unravel_index(distance.argmax(), distance.shape)))
            values = float(one[index]), float(other[index])
            found.append(Changed(name, int(np.count_nonzero(distance)), one.size, index, *values))
    return found
