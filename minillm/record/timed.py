"""The timed run: generate under the clock, and keep what each token was chosen from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ..clock import Clock
from ..decoding.batch import Request, generate_batch
from ..decoding.cycle import Moment, shown
from ..decoding.generate import moments
from ..decoding.options import Options
from ..decoding.speculative import Draft
from ..decoding.text import TextStream
from ..errors import whole_number
from ..protocol import Model
from ..tokenizer import Tokenizer


class Timed(NamedTuple):
    """A run: the clock that saw it, its moments, and the logits [V] that each was chosen from."""

    clock: Clock
    moments: list[Moment]
    logits: list[np.ndarray]


def timed(
    model: Model,
    tokenizer: Tokenizer,
    ids: list[int],
    options: Options,
    stop: Sequence[str] | str,
    draft: Draft | None,
    batch: int,
    every_step: bool,
    tries: int,
    told: Callable[[Moment], object],
) -> Timed:
    """Return the fastest of several runs, after a few tokens that are not counted (kernels compile,
    memory is touched)."""
    few, beams = 8 if draft else 2, options.num_beams > 1  # 8: until it has guessed
    if batch > 1 and options.seed is None:  # of all tries the same
        options = Options(**options.given | {"seed": int(np.random.default_rng().integers(2**31))})
        options = options.on(model)
    kind = Searching if beams else Clock
    written = model, ids, options, kind(every_step), draft, tokenizer, batch
    for _ in islice(_moments(*written), few):
        pass
    runs: list[Timed] = []
    for _ in range(whole_number("tries", tries)):
        clock = kind(every_step)
        if runs and batch == 1 and not beams:
            clock = Again(every_step, [m.id for m in runs[0].moments])
        listening: Any = Listening(model, keep=beams)
        text, run = TextStream(tokenizer, stop), Timed(clock, [], [])
        for moment in _moments(listening, ids, options, clock, draft, tokenizer, batch):
            run.moments.append(moment := shown(moment, text))
            rows = listening.passes[moment.index if beams else -1]
            run.logits.append(rows[moment.row].copy())
            if not runs:
                told(moment)
            if moment.finish:
                break
        runs.append(run)
    return min(runs, key=lambda run: run.clock.cycles()[-1].end)


def _moments(
    model: Model,
    ids: list[int],
    options: Options,
    step: Clock,
    draft: Draft | None,
    tokenizer: Tokenizer,
    batch: int,
) -> Iterator[Moment]:
    """The moments of the text, or of the first of a batch."""
    if batch == 1:
        return moments(model, ids, options, step, draft, tokenizer)
    seeds = ({} if options.seed is None else {"seed": options.seed + n} for n in range(batch))
    requests = [Request(ids, Options(**options.given | seed)) for seed in seeds]
    served = generate_batch(model, requests, batch, tokenizer=tokenizer, step=step)
    return (moment for number, moment in served if not number)


class Listening:
    """A model, and the logits that it gave last; with `keep`, of all passes."""

    def __init__(self, model: Model, keep: bool):
        self.model, self.keep = model, keep
        self.passes: list[np.ndarray] = []

    def __call__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        logits = self.model(*args, **kwargs)
        self.passes = [*(self.passes if self.keep else ()), logits.reshape(-1, logits.shape[-1])]
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class Again(Clock):
    """A clock that hands on the tokens of an earlier run; a draft guesses its own."""

    def __init__(self, every_step: bool, tokens: Iterable[int]):
        super().__init__(every_step)
        self.tokens = iter(tokens)

    def __call__(self, name: str, value: Any) -> Any:
        value = super().__call__(name, value)
        if name == "next" and self._begun[-1][0] != "draft":
            return next(self.tokens, value)
        return value


class Searching(Clock):
    """A clock of a beam search, which chooses between two passes what goes on, and says the tokens
    of the best text once it has ended."""

    def begin(self, kind: str, rows: int, positions: int, past: int = 0) -> None:
        if self._names:
            self("next", None)
        super().begin(kind, rows, positions, past)

    def __call__(self, name: str, value: Any) -> Any:
        chosen = name == "next" == self._names[-1]
        return value if chosen else super().__call__(name, value)
