"""Continuous batching: many texts share every pass of the model, and each leaves when it is done.

A decode cycle for one text reads all weights to use each number once; B texts in one cycle use it B
times. The time of a cycle hardly grows while reading weights is what it waits for, so tokens/s grow
almost B-fold, until arithmetic is the limit (about peak FLOPS / (2 * weights/s of read bandwidth)
rows) or memory is: every row has a cache of its own.

Texts are rows of different lengths of one KVCache (ragged): positions and mask follow from each
row's own length, so no text sees another or the padding after its prompt. Where rows are free,
waiting prompts enter, as many as fit together in one prefill pass, padded on the right; a finished
text leaves at once, and the last row moves into its place. Every text has its own options, seed and
stop strings.

What is exact: each text is what it would be alone, greedy or drawn. (In float32 a product of
several rows may round otherwise than one of a single row.) What it costs: a text waits for the
passes that others need, so time to the next token grows; a pass attends to S = the longest row.
Source: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models"
(2022).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError, several, whole_number
from ..protocol import Model
from ..steps import identity
from ..tokenizer import require_tokenizer
from .cycle import Continuation, Moment, checked_for, run_cycle, shown
from .options import Options
from .text import TextStream


@dataclass(frozen=True)
class Request:
    """A text to continue, and how; stop strings and text in the moments need the tokenizer."""

    ids: Sequence[int]
    options: Options = field(default_factory=Options)
    stop: Sequence[str] | str = ()


@dataclass
class Row:
    """A request being served: its number, its text so far, and what of it can be shown."""

    number: int
    text: Continuation
    stream: TextStream | None
    done: bool = False


def generate_batch(
    model: Model,
    requests: Iterable[Request | Sequence[int]],
    rows: int = 8,
    *,
    tokenizer=None,
    step=identity,
) -> Iterator[tuple[int, Moment]]:
    """Yield (number of the request, moment) as they come, at most `rows` texts at a time; others
    wait.

    requests: each a Request, or ids to continue with the default options. Raises InputError before
    anything is computed for options that need a pass of their own (beams, sliding), and for a
    request that does not fit.
    """
    rows = whole_number("rows of a batch", rows)
    if tokenizer is not None:
        require_tokenizer(tokenizer)
    what = "several: tokenizer.encode_batch(texts) or a list of Request"
    waiting = deque(
        _admit(model, number, request, tokenizer)
        for number, request in enumerate(several("requests", requests, what))
    )
    if len(dtypes := {row.text.options.cache_dtype for row in waiting}) > 1:
        raise InputError(
            "the rows of a batch share one cache: cache_dtype must be the same for all, not"
            f" {dtypes}"
        )
    return _serve(model, waiting, rows, checked_for(model, step))


def _admit(model: Model, number, request, tokenizer) -> Row:
    request = request if isinstance(request, Request) else Request(request)
    text = Continuation(model, request.ids, request.options, tokenizer)
    text.options.require_plain("a batch", chunk=None)
    stream = TextStream(tokenizer, request.stop)
    if tokenizer is None and stream.stop:
        raise InputError("stop strings need tokenizer=...")
    return Row(number, text, None if tokenizer is None else stream)


def _serve(model: Model, waiting: deque[Row], n_rows: int, step) -> Iterator[tuple[int, Moment]]:
    if not waiting:
        return
    capacity = min(model.config.sizes.P, max(len(row.text.ids) + row.text.left for row in waiting))
    cache = model.new_cache(
        min(n_rows, len(waiting)), capacity, waiting[0].text.options.cache_dtype
    )
    running: list[Row] = []
    used = cache.view(slice(0))  # the rows that run; kept, since a new one is looked at anew
    while waiting or running:
        entering = [waiting.popleft() for _ in range(min(len(waiting), cache.batch - len(running)))]
        if entering:  # they are read in a pass of their own, after the rows that run
            yield from _cycle(
                model, entering, cache.view(slice(len(running), len(running) + len(entering))), step
            )
            running += entering
        else:
            if used.batch != len(running):
                used = cache.view(slice(len(running)))
            yield from _cycle(model, running, used, step)
        for place in reversed(range(len(running))):
            if running[place].done:
                cache.move(len(running) - 1, place)
                running[place] = running[-1]
                running.pop()
                cache.truncate(0, len(running))


def _cycle(model: Model, rows: list[Row], cache, step) -> Iterator[tuple[int, Moment]]:
    """One pass over what the cache has not seen of each row's text, and the moments that come from
    it."""
    fresh = [row.text.ids[seen:] for row, seen in zip(rows, cache.lengths)]
    lengths = np.array([len(ids) for ids in fresh])
    padded = np.zeros((len(rows), lengths.max()), np.int64)
    for target, ids in zip(padded, fresh):
        target[: len(ids)] = ids
    logits, cycle = run_cycle(model, padded, cache, step, lengths=lengths)  # [B,V]
    for place, (row, its_logits) in enumerate(zip(rows, logits)):
        probs = step("probs", row.text.distribution(its_logits))
        token, logprobs = step("next", row.text.choose(probs)), model.ops.log_softmax(its_logits)
        moment = row.text.emit(token, logprobs, cycle, row=place)
        if row.stream is not None:
            moment = shown(moment, row.stream)
        row.done = moment.finish is not None
        yield row.number, moment
