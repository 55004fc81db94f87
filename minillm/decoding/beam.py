"""Beam search: follow the num_beams likeliest texts at once, and return the best that end.

Equal to transformers' generate(num_beams=..., do_sample=False). Source: its rules as of 5.23 (which
texts count as finished, when nothing better is expected); the idea is Lowerre's (1976).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

from ..errors import InputError
from ..machine.forms import short
from ..machine.quota import require_memory
from ..protocol import Model
from ..steps import Step, identity
from .cycle import Continuation, Cycle, Moment, run_cycle

MOST_BEAMS = 4096


@dataclass(frozen=True)
class Beam:
    """One text: all its ids, the new ones as (id, log-probability, cycle, row of its logits), its
    summed score and where it comes from."""

    ids: list[int]
    new: tuple[tuple[int, float, Cycle, int], ...]
    score: float
    row: int = 0  # the cache row that holds everything but its last token


def beam_search(model: Model, text: Continuation, step: Step = identity) -> Iterator[Moment]:
    """Yield the moments of the best text found."""
    winner, now = best_beams(model, text, step)[0], perf_counter_ns()
    for index, (token, logprob, cycle, row) in enumerate(winner.new):
        step("next", token)
        last = index + 1 == len(winner.new)
        finish = None if not last else "eos" if token in text.stop_tokens else "length"
        yield Moment(index, token, "", logprob, cycle, now, finish, row=row)


def best_beams(model: Model, text: Continuation, step: Step = identity) -> list[Beam]:
    """Return the num_return_sequences best ends of `text`, the best first; see decoding.Options for
    the knobs."""
    ids, n_new, options, stop_tokens = text.ids, text.left, text.options, text.stop_tokens
    n, penalty = options.num_beams, options.length_penalty
    if n > MOST_BEAMS:
        raise InputError(f"num_beams is {short(n)}; it must be at most {MOST_BEAMS:,}")
    # So many that n remain even if all that can stop do.
    n_candidates = max(2, 1 + len(stop_tokens)) * n
    cache = text.new_cache(model)
    # Of each beam the cache, and its copy where beams change places; scores and their order.
    each = 2 * cache.nbytes + 32 * model.config.sizes.V
    require_memory(f"{short(n)} beams", n * each, "a smaller num_beams")
    running, fresh = [Beam(ids, (), 0.0)], [ids]
    finished: list[tuple[float, Beam]] = []  # (score / length**penalty, beam), the best first
    for length in range(1, n_new + 1):
        logits, cycle = run_cycle(model, fresh, cache, step)  # [beams, V]
        logprobs = model.ops.log_softmax(logits)
        scores = np.stack(
            [
                options.penalised(row, beam.ids) + np.float32(beam.score)
                for row, beam in zip(text.allowed(logprobs), running)
            ]
        )
        step("probs", np.exp(logprobs))
        best = np.argsort(-scores, axis=None, kind="stable")[:n_candidates]
        best = best[scores.ravel()[best] > -np.inf]
        candidates = []
        for place in zip(*np.unravel_index(best, scores.shape)):
            row, token = map(int, place)
            beam = running[row]
            new = (*beam.new, (token, float(logprobs[row, token]), cycle, row))
            candidates.append(Beam([*beam.ids, token], new, float(scores[row, token]), row))
        ends = [length == n_new or beam.ids[-1] in stop_tokens for beam in candidates]
        if not (options.early_stopping is True and len(finished) == n):
            # Only the n best candidates may finish: a worse one must not end before its betters.
            finished += [
                (beam.score / length**penalty, beam)
                for beam, end in zip(candidates[:n], ends)
                if end
            ]
            finished = sorted(finished, key=lambda entry: -entry[0])[:n]
        running = [beam for beam, end in zip(candidates, ends) if not end][:n]
        if not running or (
            len(finished) == n and _settled(running[0], finished[-1][0], length, n_new, options)
        ):
            break
        cache = cache.take([beam.row for beam in running])
        fresh = [[beam.ids[-1]] for beam in running]
    if not finished:
        raise InputError("no beam reaches an end: the options forbid every token")
    return [beam for _, beam in finished[: options.num_return_sequences]]


def _settled(best_running: Beam, worst_finished: float, length: int, n_new: int, options) -> bool:
    """Whether no running text is expected to beat the finished ones (certain only with "never")."""
    if options.early_stopping is True:
        return True
    longest = n_new if options.early_stopping == "never" and options.length_penalty > 0 else length
    return best_running.score / longest**options.length_penalty <= worst_finished
