"""Speculative decoding: guess several tokens cheaply, and let the model check all of them in one
pass.

A decode cycle reads every weight for a single position. Checking k guesses reads them once for k +
1 positions, and yields as many tokens as were guessed right, plus one of the model's own. With p
the model's distribution at a place and q the one that the guess x was drawn from:

    keep x with probability min(1, p(x) / q(x)), else draw from max(p - q, 0) / sum max(p - q, 0).

What is exact: x is kept with min(p, q)(x), and max(p - q, 0) is what p still lacks, so the token is
distributed as p, whatever q is: sampling has the model's own distribution, filters included (both p
and q are taken after them). Greedy decoding keeps a guess when it is the argmax: the same tokens.
(In float32 a pass over several rows may round otherwise than one over a single row.) Random numbers
are spent differently: the same seed gives another text of the same distribution.

What it costs: with acceptance rate a and guesses that cost c of a cycle, a round yields (1 -
a^(k+1)) / (1 - a) tokens for k c + (the cost of k + 1 rows): a bad guesser makes everything slower.
Nothing is drafted for what the draft cannot hold. Cycles are of kind `draft` (the guesser's passes)
and `verify`; all tokens of a round name its verify cycle.

Sources: Leviathan, Kalman, Matias, "Fast Inference from Transformers via Speculative Decoding"
(2022); Chen et al., "Accelerating Large Language Model Decoding with Speculative Sampling" (2023);
for look-up in the text itself, Saxena, "Prompt Lookup Decoding" (2023); for layer skipping, Zhang
et al., "Draft & Verify" (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..errors import InputError, several, whole_number
from ..protocol import Model, require_model
from ..steps import Observer, Step, identity
from . import filters
from .cycle import Continuation, Cycle, Moment, read, run_cycle


@dataclass
class Guess:
    """Guessed ids, the distribution [V] that each was drawn from (None: it was certain), and the
    cycles it took."""

    ids: list[int] = field(default_factory=list)
    probs: list[np.ndarray | None] = field(default_factory=list)
    cycles: list[Cycle] = field(default_factory=list)


class Draft(Protocol):
    """A way of guessing: `start` returns for one text a function that guesses up to n tokens after
    what it is now.

    clock: a Clock to which the guesser's own passes are told, or identity.
    """

    n_tokens: int  # how many to guess at once

    def check(self, model: Model) -> None:
        """Raise InputError if the guesses are of no use to `model`."""

    def start(self, text: Continuation, clock: Step = identity) -> Callable[[int], Guess]: ...


def speculate(model: Model, text: Continuation, draft: Draft, step) -> Iterator[Moment]:
    """Return the moments of `text` continued by `model` with the guesses of `draft`."""
    if isinstance(draft, type) or not callable(getattr(draft, "start", None)):
        raise InputError(
            f"draft is {draft!r:.60}; it must be decoding.NGramDraft(),"
            " decoding.ModelDraft(model) or decoding.drafts.named_draft(name, model, tokenizer,"
            " minillm.load)"
        )
    text.options.require_plain("speculative decoding")
    draft.check(model)
    # Whoever looks at values looks at the model's, not at the guesser's.
    clock = step if Observer.of(step).begin else identity
    return _rounds(model, text, draft.n_tokens, draft.start(text, clock), step)


def _rounds(model: Model, text, n_tokens, guess_of, step) -> Iterator[Moment]:
    cache = text.new_cache(model)
    while True:
        # The prompt is read first.
        guess = guess_of(min(n_tokens, text.left - 1)) if cache.lengths[0] else Guess()
        fresh = text.ids[cache.lengths[0] :]
        if guess.ids:
            logits, cycle = run_cycle(model, [fresh + guess.ids], cache, step, "verify", last=False)
            logits, before = logits[0], guess.cycles  # [k+1,V]
        else:
            logits, (*before, cycle) = read(model, fresh, cache, text.options.chunk, step)
            logits, before = logits[None], guess.cycles + before  # [1,V]
        for i, row in enumerate(logits):
            probs = step("probs", text.distribution(row))
            drafted = guess.ids[i] if i < len(guess.ids) else None
            token = (
                text.choose(probs)
                if drafted is None
                else accept(probs, drafted, guess.probs[i], text)
            )
            yield (
                moment := text.emit(
                    step("next", token),
                    model.ops.log_softmax(row),
                    cycle,
                    before if i == 0 else (),
                    row=i,
                )
            )
            if moment.finish:
                return
            if moment.id != drafted:
                break
        cache.truncate(len(text.ids) - 1)  # what was guessed wrong is forgotten


def accept(p, drafted: int, q, text: Continuation) -> int:
    """Return the next token: `drafted` if it is kept, else another. p, q: [V], q None where the
    guess was certain."""
    if text.options.temperature == 0:
        return text.choose(p)
    if text.rng.random() * (1.0 if q is None else q[drafted]) < p[drafted]:
        return drafted
    lacking = p.copy() if q is None else np.maximum(p - q, 0)
    lacking[drafted] = 0
    if not lacking.any():  # p and q differ by rounding alone
        return drafted
    return filters.choose(lacking, text.rng.random())


class ModelDraft:
    """Guesses by a smaller model of the same vocabulary, or by a cheaper copy of the same one
    (compression)."""

    def __init__(self, model: Model, n_tokens: int = 4):
        require_model(model)
        self.model, self.n_tokens = model, whole_number("n_tokens of a draft", n_tokens)

    def check(self, model: Model) -> None:
        mine, theirs = self.model.config.sizes.V, model.config.sizes.V
        if mine != theirs:
            raise InputError(
                f"the draft has a vocabulary of {mine} tokens and the model one of {theirs}: they"
                " must be the same"
            )

    def start(self, text: Continuation, clock: Step = identity) -> Callable[[int], Guess]:
        cache = self.model.new_cache()

        def guess_of(n: int) -> Guess:
            # Of our last guesses, keep what came true.
            cache.truncate(min(int(cache.lengths[0]), len(text.ids) - 1))
            guess = Guess()
            for _ in range(min(n, cache.capacity - len(text.ids) + 1)):
                ids = text.ids + guess.ids
                logits, cycle = run_cycle(
                    self.model, [ids[cache.lengths[0] :]], cache, clock, "draft"
                )
                probs = clock("probs", text.distribution(logits[0], ids))
                guess.ids.append(int(clock("next", text.choose(probs))))
                guess.probs.append(None if text.options.temperature == 0 else probs)
                guess.cycles.append(cycle)
            return guess

        return guess_of


class NGramDraft:
    """Guesses by look-up: what followed the last time that the text's last n tokens occurred, the
    longest of `lengths` first.

    No model and hardly any cost: it pays where texts repeat themselves or their prompt (summaries,
    code, dialogue). A pass that checks guesses costs as much as several decode cycles of a small
    model, so the guess grows with its success: from 8 tokens, doubled up to n_tokens when all were
    right, else cut to what was right.
    """

    def __init__(self, n_tokens: int = 32, lengths: Iterable[int] = (6, 5, 4)):
        self.n_tokens = whole_number("n_tokens of a draft", n_tokens)
        items = several("lengths", lengths, "several whole numbers")
        self.lengths = tuple(whole_number("a length of n-grams", n) for n in items)

    def check(self, model: Model) -> None:
        """Guesses are tokens of the text itself: good for any model."""

    def start(self, text: Continuation, clock: Step = identity) -> Callable[[int], Guess]:
        followed: dict[tuple[int, ...], int] = {}  # n-gram -> where its last occurrence ended
        known, longest, last = 0, min(8, self.n_tokens), Guess()

        def guess_of(n: int) -> Guess:
            nonlocal known, longest, last
            ids = text.ids
            if last.ids:  # `known` + 1 is where it began
                came = ids[known + 1 : known + 1 + len(last.ids)]
                right = next(
                    (i for i, (a, b) in enumerate(zip(last.ids, came)) if a != b), len(came)
                )
                longest = (
                    min(2 * longest, self.n_tokens) if right == len(last.ids) else max(1, right)
                )
            for end in range(
                known + 1, len(ids)
            ):  # the last n-gram is what we look for, it does not count
                followed.update(
                    (tuple(ids[end - length : end]), end)
                    for length in self.lengths
                    if length <= end
                )
            known, last = len(ids) - 1, Guess()
            for length in self.lengths:
                start = followed.get(tuple(ids[-length:]))
                if start is not None:  # a repetition that reaches the text's end goes on and on
                    found = [ids[start + i % (len(ids) - start)] for i in range(min(n, longest))]
                    last = Guess(found, [None] * len(found))
                    break
            return last

        return guess_of


def acceptance(moments: Iterable[Moment]) -> tuple[int, int]:
    """Return how many guesses were kept, and how many were checked.

    Every verify cycle yields its kept guesses and one token more; a text that ends in a kept guess
    lacks that one.
    """
    emitted: dict[Cycle, int] = {}
    for moment in moments:
        if moment.cycle.kind == "verify":
            emitted[moment.cycle] = emitted.get(moment.cycle, 0) + 1
    return sum(n - 1 for n in emitted.values()), sum(cycle.positions - 1 for cycle in emitted)
