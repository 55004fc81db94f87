"""This minillm against another one: the same peers of both, in turn, in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .peers import choose
from .run import program, run

PEERS, ROUNDS = "minillm-float32,minillm-int8", 15


@dataclass
class Line:
    """One peer with one model, "decode" or "prefill".

    this, other: median tokens/s; ratio: the median over rounds of this / other, middle_half: its
    quartiles; same_tokens: whether both chose the same. missing says why there are none.
    """

    model: str
    peer: str
    kind: str
    this: float = 0.0
    other: float = 0.0
    ratio: float = 0.0
    middle_half: tuple[float, float] = (0.0, 0.0)
    same_tokens: bool = False
    missing: str | None = None


def against(
    other: str,
    models: Mapping[str, str | Path],
    names: str | Sequence[str] = PEERS,
    n_prompt: int = 32,
    n_new: int = 64,
    rounds: int = ROUNDS,
    threads: int = 2,
    cache_dtype: str | None = None,
) -> list[Line]:
    """Compare each peer in `names` with the same of another minillm (see run.program), with each of
    `models` {name: folder}; the rest is as in `run`, which raises, too."""
    program(other)  # raises
    pairs = [pair for name in choose(names) for pair in (name, f"{name}@{other}")]
    lines = []
    for model, folder in models.items():
        results = run(folder, pairs, n_prompt, n_new, rounds, threads, cache_dtype).results
        for mine, theirs in zip(results[::2], results[1::2]):
            for kind in ("decode", "prefill"):
                line = Line(model, mine.name, kind)
                line.missing = mine.missing or (theirs.missing and f"{other}: {theirs.missing}")
                if not line.missing:
                    line.this, line.other = (median(getattr(r, kind)) for r in (mine, theirs))
                    line.ratio = mine.ratio(theirs, kind)
                    line.middle_half = mine.middle_half(theirs, kind)
                    line.same_tokens = mine.tokens == theirs.tokens
                lines.append(line)
    return lines
