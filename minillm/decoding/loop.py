"""The loop: generation as a clock. Each cycle runs the model once; each moment is one token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..ops import log_softmax
from ..steps import Step, identity
from .options import Options
from .text import TextStream

if TYPE_CHECKING:
    from ..cache import KVCache
    from ..model import GPT2
    from ..tokenizer import Tokenizer


@dataclass(frozen=True)
class Cycle:
    """One pass of the model: `rows` x `positions` new positions; start and end in ns of time.perf_counter_ns."""

    kind: str  # prefill (a prompt, or a window anew) or decode (one new position)
    rows: int
    positions: int
    start: int
    end: int


@dataclass(frozen=True)
class Moment:
    """One emitted token: its id, the text it made certain, log P(id | all before) of the unfiltered model, in nats.

    cycle: the pass that it came from; time: when it was known, in ns. finish: why the text ends here, else None:
    "length" (as many as asked), "eos" (a stop token; it has no text) or "stop" (a stop string, not shown).
    """

    index: int
    id: int
    text: str
    logprob: float
    cycle: Cycle
    time: int
    finish: str | None = None


def generate(
    model: GPT2, tokenizer: Tokenizer, prompt: str | Sequence[int], *, stop: Sequence[str] | str = (),
    step: Step = identity, **options,
) -> Iterator[Moment]:  # fmt: skip
    """Continue `prompt` and yield the moments as they come; "".join(m.text for m in ...) is the new text.

    prompt: text, in which <|endoftext|> and other specials count as such, or ids. stop: strings before which to end.
    options: see decoding.Options (max_new_tokens, temperature, top_k, top_p, num_beams, seed, ...). With beams, all
    moments come at the end. Raises InputError for an empty prompt, unusable options, and what does not fit.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(f"the tokenizer has {tokenizer.vocab_size} tokens and the model {model.config.vocab_size}")
    ids = tokenizer.encode(prompt, allowed_special="all") if isinstance(prompt, str) else prompt
    return _with_text(moments(model, ids, Options(**options), step), TextStream(tokenizer, stop))


def _with_text(stream: Iterator[Moment], text: TextStream) -> Iterator[Moment]:
    for moment in stream:
        if moment.finish == "eos":
            yield replace(moment, text=text.flush())
            return
        shown = text.push(moment.id, last=moment.finish is not None)
        yield replace(moment, text=shown, finish="stop" if text.stopped else moment.finish)
        if text.stopped:
            return


def generate_ids(model: GPT2, ids, max_new_tokens: int | None = None, **options) -> np.ndarray:
    """Return ids [T] or [B,T] with the new ones behind them, int64, as transformers' generate does.

    Rows are generated one after another; shorter ones are filled up with the stop token (0 if there is none).
    """
    chosen = Options(max_new_tokens=max_new_tokens, **options)
    ids, single = model._checked_ids(ids)
    rows = [[*row, *(m.id for m in moments(model, row.tolist(), chosen))] for row in ids]
    fill = next(iter(_stop_tokens(model, chosen)), 0)
    longest = max(len(row) for row in rows)
    out = np.array([row + [fill] * (longest - len(row)) for row in rows], dtype=np.int64)
    return out[0] if single else out


def moments(model: GPT2, ids: Sequence[int], options: Options, step: Step = identity) -> Iterator[Moment]:
    """Yield one moment for each new token (text left empty): prefill the prompt, then one decode cycle a token."""
    ids = [int(i) for i in ids]
    if not ids:
        raise InputError("the prompt is empty: give at least one token (<|endoftext|> starts a text from nothing)")
    n_positions = model.config.n_positions
    n_new = options.new_tokens(len(ids), n_positions)
    if options.num_beams > 1:
        from .beam import beam_search

        return beam_search(model, ids, n_new, options, step)
    return _one_by_one(model, ids, n_new, options, step)


def _one_by_one(model, ids, n_new, options, step) -> Iterator[Moment]:
    rng = np.random.default_rng(options.seed)
    stop_tokens, n_positions = _stop_tokens(model, options), model.config.n_positions
    cache = model.new_cache(capacity=min(n_positions, len(ids) + n_new), dtype=options.cache_dtype)
    fresh = ids  # what the cache has not seen
    for index in range(n_new):
        if cache.lengths[0] + len(fresh) > n_positions:  # full: forget all, and read the last half window anew
            cache.truncate(0)
            fresh = ids[-max(1, n_positions // 2) :]
        logits, cycle = run_cycle(model, [fresh], cache, step)
        probs = step("probs", options.distribution(logits[0], ids))  # [V]
        logprobs = log_softmax(logits[0])  # of the unfiltered model
        token = int(step("next", options.choose(probs, rng)))
        finish = "eos" if token in stop_tokens else "length" if index + 1 == n_new else None
        yield Moment(index, token, "", float(logprobs[token]), cycle, perf_counter_ns(), finish)
        if finish:
            return
        ids = [*ids, token]
        fresh = [token]


def run_cycle(model: GPT2, ids, cache: KVCache, step: Step = identity) -> tuple[np.ndarray, Cycle]:
    """Run the model once over ids [B,T]: the logits after each row's last token [B,V], and the cycle."""
    ids = np.asarray(ids)
    kind = "decode" if ids.shape[1] == 1 and cache.lengths.any() else "prefill"
    if hasattr(step, "begin"):  # a Clock
        step.begin(kind, *ids.shape, past=int(cache.lengths.max()))
    start = perf_counter_ns()
    logits = model(ids, cache, last=True, step=step)[:, 0]
    return logits, Cycle(kind, *ids.shape, start, perf_counter_ns())


def _stop_tokens(model: GPT2, options: Options) -> tuple[int, ...]:
    if options.stop_tokens is not None:
        return tuple(options.stop_tokens)
    return () if model.config.eos_token_id is None else (model.config.eos_token_id,)
