"""Plain decoding: one token, one cycle. The first two functions are all there is to it.

The last one is how it is done: with options, a step that looks on, and the time of each cycle. A
test holds it equal to them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cache as once

from ..layers.cache import KVCache
from ..protocol import Model
from ..steps import Step, identity
from .cycle import Continuation, Moment, read

log = logging.getLogger(__name__)


def greedy(model: Model, ids: Sequence[int], n_new: int) -> list[int]:
    """Return `ids` with the likeliest next token after them, n_new times."""
    ids = list(ids)
    for _ in range(n_new):
        logits = model(ids)  # [T,V]: after every position, what may come next
        ids.append(int(logits[-1].argmax()))
    return ids


def greedy_with_cache(model: Model, ids: Sequence[int], n_new: int) -> list[int]:
    """Return the same ids as `greedy`; the cache keeps what is computed, so that every position
    goes through the model once."""
    ids, cache = list(ids), model.new_cache()
    new = ids
    for _ in range(n_new):
        logits = model(new, cache)  # first the whole prompt, then the last token alone
        new = [int(logits[-1].argmax())]
        ids = ids + new
    return ids


def one_by_one(
    model: Model, text: Continuation, step: Step = identity, cache: KVCache | None = None
) -> Iterator[Moment]:
    """Yield the moments of `text`, a cycle each: what `greedy_with_cache` does, with everything
    that its options ask for. cache: one that holds the beginning of the text already."""
    if cache is None and text.options.use_cache:
        cache = text.new_cache(model)
    chunk, window = text.options.chunk, text.options.window
    start, n_positions = 0, model.config.sizes.P  # start: of the window that the model sees
    if slides := window is not None and cache is not None:  # which keeps the window itself
        chunk, window = 1, None
    while True:
        if window is not None:
            start = max(0, len(text.ids) - min(window, n_positions))
        elif slides and len(text.ids) > n_positions:
            _say_that_positions_go_on(n_positions)
        elif len(text.ids) - start > n_positions:
            # Full: forget all, and read the last half window anew.
            start = len(text.ids) - max(1, n_positions // 2)
            if cache is not None:
                cache.truncate(0)
        seen = 0 if cache is None else int(cache.lengths[0])
        logits, (*before, cycle) = read(model, text.ids[start + seen :], cache, chunk, step)
        probs = step("probs", text.distribution(logits))  # [V]
        logprobs = model.ops.log_softmax(logits)  # of the unfiltered model
        token = step("next", text.choose(probs))
        yield (moment := text.emit(token, logprobs, cycle, before))
        if moment.finish:
            return


@once
def _say_that_positions_go_on(n_positions: int) -> None:
    log.warning(
        "the text goes beyond the %s positions that the model was trained on", f"{n_positions:,}"
    )
