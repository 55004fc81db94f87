"""The loop: generation as a clock. Each cycle runs the model once; each moment is one token.

In plain decoding every moment has a cycle of its own. Where the two come apart (a prompt read in
chunks, drafts, batches), a moment names the cycle that decided it, and `before` the cycles since
the last moment that only led up to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, require_model
from ..layers.cache import SlidingCache
from ..model import GPT2, one_text
from ..steps import Step, checked, identity, step_names
from ..tokenizer import require_tokenizer
from .finite import checked_logits
from .options import Options
from .text import TextStream

if TYPE_CHECKING:
    from ..layers.cache import KVCache
    from ..tokenizer import Tokenizer
    from .speculative import Draft


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

    cycle: the pass that it came from; time: when it was known, in ns. finish: why the text ends
    here, else None: "length" (as many as asked), "eos" (a stop token; it has no text) or "stop" (a
    stop string, not shown). before: the passes since the last moment that brought no token
    themselves (chunks of a prompt, drafts).
    """

    index: int
    id: int
    text: str
    logprob: float
    cycle: Cycle
    time: int
    finish: str | None = None
    before: tuple[Cycle, ...] = ()


class Continuation:
    """One text being written: its ids so far, and what its options keep between cycles (draws,
    stops, what is left). With a tokenizer, ids that are none of its tokens are never chosen."""

    def __init__(
        self,
        model: GPT2,
        ids: Sequence[int],
        options: Options,
        tokenizer: Tokenizer | None = None,
        rng: np.random.Generator | None = None,
    ):
        if hasattr(ids, "__len__") and len(ids) == 0:
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
        self.left = self.options.new_tokens(self.n_prompt, model.config.n_positions)
        self.stop_tokens = stop_tokens(model, self.options)
        V, stops = model.config.vocab_size, self.stop_tokens  # a stop token needs no text
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

    def emit(self, token: int, logprobs, cycle: Cycle, before: Sequence[Cycle] = ()) -> Moment:
        """Put `token` behind the text; logprobs [V] are the unfiltered model's."""
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
        )

    def new_cache(self, model: GPT2) -> KVCache:
        """A cache with room for all that may come; only the last `window` keys where the options
        say so."""
        options = self.options
        capacity = min(model.config.n_positions, len(self.ids) + self.left)
        if options.window is not None:
            return SlidingCache(
                model.config, 1, min(options.window, capacity), options.cache_dtype or model.dtype
            )
        return model.new_cache(capacity=capacity, dtype=options.cache_dtype)


def generate(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    stop: Sequence[str] | str = (),
    draft: Draft | None = None,
    step: Step = identity,
    **options,
) -> Iterator[Moment]:
    """Continue `prompt` and yield the moments as they come; "".join(m.text for m in ...) is the new
    text.

    prompt: text, in which <|endoftext|> and other specials count as such, or ids. stop: strings
    before which to end. options: see decoding.Options (max_new_tokens, temperature, top_k, top_p,
    num_beams, seed, ...). With beams, all moments come at the end. draft: guesses tokens that the
    model then only checks, see decoding.speculative. Raises InputError for an empty prompt,
    unusable options, and what does not fit.
    """
    require_model(model)
    require_tokenizer(tokenizer)
    if isinstance(prompt, (list, tuple)) and any(isinstance(part, str) for part in prompt):
        raise InputError(
            "a list of texts is given as prompt, where one is due: give tokenizer.encode_batch(...)"
            " to decoding.generate_batch"
        )
    if tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model"
            f" {model.config.vocab_size}"
        )
    ids = tokenizer.encode(prompt, allowed_special="all") if isinstance(prompt, str) else prompt
    chosen = Options(**options)
    if chosen.num_return_sequences > 1:
        raise InputError(
            f"num_return_sequences {chosen.num_return_sequences}: minillm.generate yields the tokens"
            " of one text; model.generate(ids, ...) returns several"
        )
    return _with_text(
        moments(model, ids, chosen, step, draft, tokenizer), TextStream(tokenizer, stop)
    )


def _with_text(stream: Iterator[Moment], text: TextStream) -> Iterator[Moment]:
    for moment in stream:
        moment = shown(moment, text)
        yield moment
        if moment.finish:
            return


def shown(moment: Moment, text: TextStream) -> Moment:
    """The moment with the text that it makes certain; at a stop string it becomes the last."""
    if moment.finish == "eos":
        return replace(moment, text=text.flush())
    certain = text.push(moment.id, last=moment.finish is not None)
    return replace(moment, text=certain, finish="stop" if text.stopped else moment.finish)


def generate_ids(model: GPT2, ids, max_new_tokens: int | None = None, **options) -> np.ndarray:
    """Return ids [T] or [B,T] with the new ones after them, int64, as transformers' generate does.

    num_return_sequences = n gives n rows for each prompt, the best beam first: [n,T'] or [B n,T'].
    Rows are generated one after another; the first draws from `seed`'s own stream, each other one
    from a stream spawned from it. Shorter ones are filled up with the stop token (0 if there is
    none).
    """
    require_model(model)
    chosen = Options(max_new_tokens=max_new_tokens, **options).on(model)
    ids, single = model._checked_ids(ids)
    n = chosen.num_return_sequences
    if chosen.num_beams > 1:
        from .beam import best_beams

        texts = [Continuation(model, row, chosen) for row in ids]
        rows = [beam.ids for text in texts for beam in best_beams(model, text)]
    else:
        ids, rng = np.repeat(ids, n, axis=0), np.random.default_rng(chosen.seed)
        rows = []
        for row, stream in zip(ids, [rng, *rng.spawn(len(ids) - 1)]):
            text = Continuation(model, row, chosen, rng=stream)
            for _ in _one_by_one(model, text, identity):
                pass
            rows.append(text.ids)
    fill = next(iter(stop_tokens(model, chosen)), 0)
    longest = max(len(row) for row in rows)
    out = np.array([row + [fill] * (longest - len(row)) for row in rows], dtype=np.int64)
    return out[0] if single and n == 1 else out


def moments(
    model: GPT2,
    ids: Sequence[int],
    options: Options,
    step: Step = identity,
    draft: Draft | None = None,
    tokenizer: Tokenizer | None = None,
) -> Iterator[Moment]:
    """Yield one moment for each new token (text left empty): prefill the prompt, then one decode
    cycle a token. tokenizer: only its tokens are chosen."""
    text = Continuation(model, ids, options, tokenizer=tokenizer)
    step = checked_for(model, step, choices=text.options.num_beams == 1)
    if draft is not None:
        from .speculative import speculate

        return speculate(model, text, draft, step)
    if text.options.num_beams > 1:
        from .beam import beam_search

        return beam_search(model, text, step)
    return _one_by_one(model, text, step)


def _one_by_one(model: GPT2, text: Continuation, step: Step) -> Iterator[Moment]:
    cache = text.new_cache(model) if text.options.use_cache else None
    chunk, window = text.options.chunk, text.options.window
    start, n_positions = 0, model.config.n_positions  # start: of the window that the model sees
    if window is not None and cache is not None:  # which keeps the window itself
        chunk, window = 1, None
    while True:
        if window is not None:
            start = max(0, len(text.ids) - min(window, n_positions))
        elif len(text.ids) - start > n_positions:
            # Full: forget all, and read the last half window anew.
            start = len(text.ids) - max(1, n_positions // 2)
            if cache is not None:
                cache.truncate(0)
        seen = 0 if cache is None else int(cache.lengths[0])
        logits, (*before, cycle) = read(model, text.ids[start + seen :], cache, chunk, step)
        probs = step("probs", text.distribution(logits))  # [V]
        logprobs = model.ops.log_softmax(logits)  # of the unfiltered model
        token = int(step("next", text.choose(probs)))
        yield (moment := text.emit(token, logprobs, cycle, before))
        if moment.finish:
            return


def read(
    model: GPT2, ids: Sequence[int], cache: KVCache | None, chunk: int | None, step: Step = identity
):
    """Run the model over one text's new ids [T], `chunk` at a time or all at once: the last logits
    [V], and the cycles.

    Chunked prefill. Causality makes it exact: what position p computes depends on positions up to p
    only, and their keys and values are in the cache already, so a prompt cut anywhere gives the
    same logits; a chunk's mask counts from its first row's own position. It bounds what one cycle
    computes at once: scores [H, chunk, S] instead of [H, T, S] in the textbook, activations [chunk,
    F], and for how long other texts wait. It costs re-reading the weights once a chunk. Source:
    Agrawal et al., "SARATHI: Efficient LLM Inference by Piggybacking Decodes with Chunked Prefills"
    (2023).
    """
    kind = "decode" if len(ids) == 1 and cache is not None and cache.lengths.any() else "prefill"
    cycles = []
    for start in range(0, len(ids), chunk or len(ids)):
        logits, cycle = run_cycle(
            model, [ids[start : start + (chunk or len(ids))]], cache, step, kind
        )
        cycles.append(cycle)
    return logits[0], cycles


def run_cycle(
    model: GPT2,
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
    kind = kind or ("decode" if ids.shape[1] == 1 and cache.lengths.any() else "prefill")
    if hasattr(step, "begin"):  # a Clock
        step.begin(kind, *ids.shape, past=0 if cache is None else int(cache.lengths.max()))
    start = perf_counter_ns()
    logits = checked_logits(
        model, ids, cache, lengths=lengths, last=last, step=step, what=f"{kind}, "
    )
    return logits[:, 0] if last else logits, Cycle(kind, *ids.shape, start, perf_counter_ns())


def checked_for(model: GPT2, step: Step, choices: bool = True) -> Step:
    """Return `step` after checking the names that it asks for; choices: `probs` and `next` count."""
    chosen = ("probs", "next") if choices else ()
    return checked(step, lambda: (*step_names(model.config.n_layer), *chosen))


def stop_tokens(model: GPT2, options: Options) -> tuple[int, ...]:
    """The ids that end a text; InputError for one that was given and is not in the vocabulary."""
    for token in options.given.get("stop_tokens", ()):
        if token >= model.config.vocab_size:
            raise InputError(
                f"stop token {token} is outside the vocabulary of {model.config.vocab_size}"
            )
    ends = model.config.eos_token_id if options.stop_tokens is None else options.stop_tokens
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)
