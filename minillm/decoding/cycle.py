"""What a cycle is: generation as a clock. Each cycle runs the model once; each moment is one token.

In plain decoding every moment has a cycle of its own. Where the two come apart (a prompt read in
chunks, drafts, batches), a moment names the cycle that decided it, and `before` the cycles since
the last moment that only led up to it.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from time import perf_counter_ns

import numpy as np

from ..errors import InputError, whole_number
from ..layers.cache import KVCache, SlidingCache, furthest
from ..protocol import Model, one_text
from ..steps import Observer, Step, checked, identity
from ..tokenizer import Tokenizer
from .finite import checked_logits
from .options import Options
from .text import TextStream

# Positions that are read at once at most: what a pass takes beside the cache grows with them, as
# logits everywhere do, and with the vocabulary. Longer texts are read in pieces, which is exact.
# Not more than the fused step takes (kernels.DecodeStep.MOST).
AT_ONCE = 512


@dataclass(frozen=True)
class Cycle:
    """One pass of the model: `rows` x `positions` new positions; start and end in ns of
    time.perf_counter_ns."""

    # prefill (a prompt, or a window anew), decode (one new position a row), draft, verify
    kind: str
    rows: int
    positions: int
    start: int
    end: int


@dataclass(frozen=True)
class Moment:
    """One emitted token: its id, the text it made certain, log P(id | all before) of the unfiltered
    model, in nats.

    cycle: the pass that it came from, and row: which row of that pass's logits; time: when it was
    known, in ns. finish: why the text ends here, else None: "length" (as many as asked), "eos" (a
    stop token; it has no text) or "stop" (a stop string, not shown). before: the passes since the
    last moment that brought no token themselves (chunks of a prompt, drafts).
    """

    index: int
    id: int
    text: str
    logprob: float
    cycle: Cycle
    time: int
    finish: str | None = None
    before: tuple[Cycle, ...] = ()
    row: int = 0


def positions_for(model: Model, options: Options) -> int:
    """How many positions a text may have: the model's, and with a window as far as a sliding cache
    goes."""
    slides = options.window is not None and options.use_cache
    return furthest(model.config) if slides else model.config.sizes.P


class Continuation:
    """One text being written: its ids so far, and what its options keep between cycles (draws,
    stops, what is left). With a tokenizer, ids that are none of its tokens are never chosen."""

    def __init__(
        self,
        model: Model,
        ids: Sequence[int],
        options: Options,
        tokenizer: Tokenizer | None = None,
        rng: np.random.Generator | None = None,
    ):
        if isinstance(ids, Sized) and getattr(ids, "ndim", True) and len(ids) == 0:
            raise InputError(
                "the prompt is empty: give at least one token (<|endoftext|> starts a text from"
                " nothing)"
            )
        if not isinstance(options, Options):
            raise InputError(f"options is {options!r:.60}; it must be a decoding.Options")
        self.ids = one_text(model, ids).tolist()
        self.options, self.ops = options.on(model), model.ops
        self.rng = np.random.default_rng(self.options.seed) if rng is None else rng
        self.n_prompt = len(self.ids)
        self.left = self.options.new_tokens(self.n_prompt, positions_for(model, self.options))
        self.stop_tokens = stop_tokens(model, self.options)
        V, stops = model.config.sizes.V, self.stop_tokens  # a stop token needs no text
        no_tokens = [] if tokenizer is None else tokenizer.ids_without_token(V)
        self._forbidden = np.array([i for i in no_tokens if i not in stops], np.int64)

    def allowed(self, logits):
        """logits [..., V] with -inf for ids that are no token of the tokenizer."""
        if self._forbidden.size:
            logits = logits.copy()
            logits[..., self._forbidden] = -np.inf
        return logits

    def distribution(self, logits, ids: Sequence[int] | None = None):
        """The probabilities [V] of the next token, after all filters; ids: the text, if it is not
        this one yet."""
        return self.options.distribution(self.allowed(logits), ids or self.ids, self.ops)

    def choose(self, probs) -> int:
        """The next token: the likeliest, or one drawn."""
        return self.options.choose(probs, self.rng)

    def emit(
        self, token: int, logprobs, cycle: Cycle, before: Sequence[Cycle] = (), row: int = 0
    ) -> Moment:
        """Put `token` after the text; logprobs [V] are the unfiltered model's."""
        token = whole_number("next", token, least=0)
        if not 0 <= token < len(logprobs):
            raise InputError(f"next is {token}: outside the vocabulary of {len(logprobs)}")
        index, self.left = len(self.ids) - self.n_prompt, self.left - 1
        self.ids.append(token)
        finish = "eos" if token in self.stop_tokens else None if self.left else "length"
        return Moment(
            index,
            token,
            "",
            float(logprobs[token]),
            cycle,
            perf_counter_ns(),
            finish,
            tuple(before),
            row,
        )

    def new_cache(self, model: Model) -> KVCache:
        """A cache with room for all that may come; only the last `window` keys where the options
        say so."""
        options = self.options
        capacity = min(model.config.sizes.P, len(self.ids) + self.left)
        if options.window is not None:
            return SlidingCache(
                model.config, 1, min(options.window, capacity), options.cache_dtype or model.dtype
            )
        return model.new_cache(capacity=capacity, dtype=options.cache_dtype)


def shown(moment: Moment, text: TextStream) -> Moment:
    """The moment with the text that it makes certain; at a stop string it becomes the last."""
    if moment.finish == "eos":
        return replace(moment, text=text.flush())
    certain = text.push(moment.id, last=moment.finish is not None)
    return replace(moment, text=certain, finish="stop" if text.stopped else moment.finish)


def read(
    model: Model,
    ids: Sequence[int],
    cache: KVCache | None,
    chunk: int | None,
    step: Step = identity,
):
    """Run the model over one text's new ids [T], `chunk` at a time (None: all at once, up to
    AT_ONCE): the last logits [V], and the cycles.

    Chunked prefill. Causality makes it exact: what position p computes depends on positions up to p
    only, and their keys and values are in the cache already, so a prompt cut anywhere gives the
    same logits; a chunk's mask counts from its first row's own position. It bounds what one cycle
    computes at once: scores [H, chunk, S] instead of [H, T, S] in the textbook, activations [chunk,
    F], and for how long other texts wait. It costs re-reading the weights once a chunk. Source:
    Agrawal et al., "SARATHI: Efficient LLM Inference by Piggybacking Decodes with Chunked Prefills"
    (2023).
    """
    kind = "decode" if len(ids) == 1 and cache is not None and cache.lengths.any() else "prefill"
    chunk, cycles = len(ids) if cache is None else chunk or AT_ONCE, []
    for start in range(0, len(ids), chunk):
        logits, cycle = run_cycle(model, [ids[start : start + chunk]], cache, step, kind)
        cycles.append(cycle)
    return logits[0], cycles


def run_cycle(
    model: Model,
    ids,
    cache: KVCache | None,
    step: Step = identity,
    kind: str | None = None,
    lengths=None,
    last: bool = True,
) -> tuple[np.ndarray, Cycle]:
    """Run the model once over ids [B,T]: the logits after each row's last token [B,V] (or [B,T,V]),
    and the cycle."""
    ids = np.asarray(ids)
    past = 0 if cache is None else int(cache.lengths.max())
    kind = kind or ("decode" if ids.shape[1] == 1 and past else "prefill")
    if (begin := Observer.of(step).begin) is not None:
        begin(kind, *ids.shape, past=past)
    start = perf_counter_ns()
    logits = checked_logits(
        model, ids, cache, lengths=lengths, last=last, step=step, what=f"{kind}, "
    )
    rows, positions = ids.shape
    cycle = Cycle(kind, rows, positions, start, perf_counter_ns())
    return logits[:, 0] if last else logits, cycle


def checked_for(model: Model, step: Step, choices: bool = True) -> Step:
    """Return `step`, whose names have been checked; choices: `probs` and `next` count."""
    chosen = ("probs", "next") if choices else ()
    return checked(step, lambda: (*model.step_names, *chosen))


def stop_tokens(model: Model, options: Options) -> tuple[int, ...]:
    """The ids that end a text; InputError for one that was given and is not in the vocabulary."""
    for token in options.given.get("stop_tokens", ()):
        if token >= model.config.sizes.V:
            raise InputError(
                f"stop token {token} is outside the vocabulary of {model.config.sizes.V}"
            )
    ends = model.config.eos_token_id if options.stop_tokens is None else options.stop_tokens
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)
