"""Several texts that decode together, one token of each a cycle: peers in turn, in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import sleep

from ..errors import InputError
from ..loading import config_of
from .peers import PEERS, choose
from .run import PAUSE, check_measured, in_rounds, random_ids, require_some, started

# Of each width llama.cpp first, which the others of that width are compared with.
USUAL = (
    "llama.cpp-F32,minillm-float32,llama.cpp-F16,minillm-bfloat16,minillm-float16,"
    "llama.cpp-Q8_0,minillm-int8,llama.cpp-Q4_0,minillm-int4"
)


@dataclass
class BatchResult:
    """What one peer did with so many texts at once.

    rates: tokens/s of all texts together, of each round. tokens [batch][n_new]: the likeliest each
    time, and gaps: how far its logit was above the next one. missing says why there are none.
    """

    name: str
    batch: int
    rates: list[float] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    gaps: list[list[float]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    missing: str | None = None

    @property
    def bits(self) -> int | None:
        """How a weight is stored."""
        return PEERS[self.name.partition("@")[0]].bits

    def agreement(self, other: BatchResult) -> tuple[int, float]:
        """How many texts are the same as the other's; and of those which are not, the largest gap
        of the other where they part (0 where there are none): what rounding has to explain."""
        parted = []
        for mine, theirs, gaps in zip(self.tokens, other.tokens, other.gaps):
            parted += [gap for a, b, gap in zip(mine, theirs, gaps) if a != b][:1]
        return len(self.tokens) - len(parted), max(parted, default=0.0)


@dataclass
class BatchComparison:
    """All results of a run."""

    results: list[BatchResult]

    def alike(self, result: BatchResult) -> list[BatchResult]:
        """Those with which one is compared: of as many texts and the same width, none missing."""
        kind = result.batch, result.bits
        return [r for r in self.results if (r.batch, r.bits) == kind and not r.missing]

    def ratio(self, result: BatchResult) -> float:
        """The median over rounds of its tokens/s over those of the first alike, round by round."""
        first = self.alike(result)[0]
        return median(mine / theirs for mine, theirs in zip(result.rates, first.rates))

    def reference(self, result: BatchResult) -> BatchResult:
        """The one with whose greedy tokens its are compared: the first of minillm alike, else the
        first."""
        alike = self.alike(result)
        return next((r for r in alike if r.name.startswith("minillm")), alike[0])


def run(
    folder: str | Path,
    names: str | Sequence[str],
    batches: Sequence[int],
    n_prompt: int = 32,
    n_new: int = 64,
    rounds: int = 5,
    threads: int = 2,
    cache_dtype: str | None = None,
) -> BatchComparison:
    """Let each peer continue so many texts at once, for each number in `batches`, all in turn in
    each round, after one round to warm up. The prompts, random ids, are read before.

    Raises InputError for a peer that is unknown, and where none could be measured.
    """
    require_some(names := choose(names))
    if n_prompt < 2:
        raise InputError(f"the prompt has {n_prompt} token; it must have 2 at least: the first")
    ids = random_ids(config_of(folder), n_prompt, n_new, max(batches))
    results = [BatchResult(name, batch) for batch in batches for name in names]
    with started(names, folder, threads, cache_dtype) as (workers, said):
        for result in results:
            result.versions = said[result.name].get("versions", {})
            result.missing = said[result.name].get("missing")

        def one_round(keep: bool) -> None:
            for result in results:
                if result.missing:
                    continue
                sleep(PAUSE)
                request = {"ids": ids, "n_new": n_new, "batch": result.batch, "gaps": not keep}
                answer = workers[result.name].answer(request)
                result.missing = answer.get("missing")
                if result.missing:
                    continue
                if keep:
                    result.rates.append(result.batch * n_new / answer["decode_s"])
                else:
                    result.tokens, result.gaps = answer["tokens"], answer["gaps"]

        in_rounds(rounds, one_round)
    check_measured(results)
    return BatchComparison(results)
