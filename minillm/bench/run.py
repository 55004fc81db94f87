"""Measure peers in turn: each in its own process, one round each, again and again, so that drift
hits all alike."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np

from ..errors import InputError, count, not_installed
from ..loading import config_of
from ..machine.child import Child, Ended
from ..machine.forms import short
from ..machine.load import Load, undisturbed
from ..machine.progress import progress_bar
from .peers import PEERS, choose
from .roofline import MACHINE, prefill_flop

# What Numba is told in order to compile for another processor than this one.
PROCESSORS = {
    "generic": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
    "haswell": {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt,+lzcnt,+movbe",
    },
}
FOLDER_VARIABLES = ("TMPDIR", "TEMP", "TMP")
# seconds before each turn: Intel's OpenMP lets idle threads spin for 0.2 s, on the next peer's
# cores
PAUSE = 0.3
WORKER = ("-m", "minillm.bench.worker")
PACKAGE = Path(__file__).resolve().parents[2]  # where this minillm is imported from
log = logging.getLogger(__name__)


def for_processor(name: str) -> dict[str, str]:
    """Environment variables with which minillm is compiled for one of PROCESSORS, and engines of
    the folder MINILLM_PEERS/`name` (pip install --target), compiled so, are taken where there are
    some."""
    paths = [os.environ.get("PYTHONPATH", "")]
    if folder := os.environ.get("MINILLM_PEERS"):
        paths.insert(0, str(Path(folder) / name))
    return PROCESSORS[name] | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def program(other: str = "") -> tuple[str, dict[str, str]]:
    """The Python and the environment variables with which a worker runs this minillm, or another.

    other: a checkout, an environment with minillm installed, or the Python of one; InputError where
    there is none of these.
    """
    folder, paths = Path(other).absolute(), os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [os.path.abspath(path) for path in paths if path]  # a worker starts in another folder
    if not other or (folder / "minillm" / "bench" / "worker.py").is_file():
        first = str(folder if other else PACKAGE)
        return sys.executable, {"PYTHONPATH": os.pathsep.join([first, *paths])}
    for python in (folder, folder / "bin" / "python", folder / "Scripts" / "python.exe"):
        if python.is_file() and os.access(python, os.X_OK):
            return str(python), {"PYTHONPATH": ""}
    raise InputError(
        f"{short(other)}: neither a checkout of minillm (with minillm/bench/worker.py), nor an"
        " environment (with bin/python), nor a Python"
    )


@dataclass
class PeerResult:
    """What one peer did: tokens/s of each round, prefill and decode; missing says why there are
    none.

    bytes_per_token: what one decode step reads, weights and, at the middle of the run, keys and
    values.
    """

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    weight_bytes: int = 0
    cache_bytes: int = 0
    bytes_per_token: float = 0.0
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    peak_bytes: int | None = None  # of the whole process, in the whole run
    libraries: int | None = None  # of it, what was taken before there was a model
    missing: str | None = None

    @property
    def model_bytes(self) -> int | None:
        """The peak above what the libraries took; None where the system or the peer does not
        say."""
        return self.peak_bytes and self.libraries and self.peak_bytes - self.libraries

    def ratios(self, other: PeerResult, kind: str) -> list[float]:
        """self / other, round by round: of "prefill" or "decode"."""
        return [mine / theirs for mine, theirs in zip(getattr(self, kind), getattr(other, kind))]

    def ratio(self, other: PeerResult, kind: str) -> float:
        """The median of `ratios`."""
        return median(self.ratios(other, kind))

    def middle_half(self, other: PeerResult, kind: str) -> tuple[float, float]:
        """The quartiles of `ratios`."""
        low, high = np.quantile(self.ratios(other, kind), (0.25, 0.75)).tolist()
        return low, high


@dataclass
class PeerComparison:
    """All results of a run, and of each of its rounds what the machine could do: bytes/s read,
    FLOP/s of a GEMM."""

    n_prompt: int
    n_new: int
    flop_per_token: float  # of the prompt
    results: list[PeerResult] = field(default_factory=list)
    bandwidth: list[float] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)

    @property
    def measured(self) -> list[PeerResult]:
        """The results that are not missing."""
        return [result for result in self.results if not result.missing]

    @property
    def reference(self) -> PeerResult:
        """The one whose greedy tokens the others' are compared with: the first of minillm, else the
        first."""
        return next((r for r in self.measured if r.name.startswith("minillm")), self.measured[0])

    def cost(self, result: PeerResult, kind: str) -> float:
        """The bytes (decode) or FLOP (prefill) of one token."""
        return result.bytes_per_token if kind == "decode" else self.flop_per_token

    def share(self, result: PeerResult, kind: str) -> float:
        """The median over rounds of what was used of the measured bandwidth (decode) or of the
        GEMM's FLOP/s (prefill).

        More than 1 where weights stay in the processor's cache, or are multiplied as narrower
        numbers than float32.
        """
        limits = self.bandwidth if kind == "decode" else self.flops
        return median(
            rate * self.cost(result, kind) / most
            for rate, most in zip(getattr(result, kind), limits)
        )

    def limit(self, result: PeerResult, kind: str) -> float:
        """The tokens/s at which the machine's limit would be reached, in the median."""
        return median(self.bandwidth if kind == "decode" else self.flops) / self.cost(result, kind)


def run(
    folder: str | Path,
    names: str | Sequence[str],
    n_prompt: int = 32,
    n_new: int = 64,
    rounds: int = 5,
    threads: int = 2,
    cache_dtype: str | None = None,
) -> PeerComparison:
    """Compare peers and groups of peers in `rounds` rounds after one warm-up; the prompt is random
    ids.

    names: as `choose` takes them; NAME@FOLDER is a peer of another minillm, see `program`.
    cache_dtype: "float32" or "float16" of the KV cache where an engine lets one choose; None is
    each engine's own choice.

    A peer that is not installed, cannot run this model, or fails is told in its result's `missing`;
    the others go on. Raises InputError for a peer that is unknown, and where none could be
    measured.
    """
    (one,) = run_lengths(folder, names, [n_prompt], n_new, rounds, threads, cache_dtype)
    return one


def run_lengths(
    folder: str | Path,
    names: str | Sequence[str],
    prompts: Sequence[int],
    n_new: int = 64,
    rounds: int = 5,
    threads: int = 2,
    cache_dtype: str | None = None,
) -> list[PeerComparison]:
    """The same with prompts of several lengths, all in turn in each round: a comparison of each.
    What a peer holds at most is that of the whole run."""
    require_some(names := choose(names))
    config = config_of(folder)
    ids = random_ids(config, max(prompts), n_new)
    comparisons = [PeerComparison(n, n_new, prefill_flop(config, n) / n) for n in prompts]
    with started(names, folder, threads, cache_dtype) as (workers, said):
        for comparison in comparisons:
            for name in names:
                result = PeerResult(name, **said[name])
                result.bytes_per_token = result.weight_bytes + result.cache_bytes * (
                    comparison.n_prompt + (n_new + 1) / 2
                )
                comparison.results.append(result)

        def one_round(keep: bool) -> None:
            for comparison in comparisons:
                _one_round(comparison, workers, ids[: comparison.n_prompt], keep)

        in_rounds(rounds, one_round)
    for comparison in comparisons:
        check_measured(comparison.results)
    return comparisons


def random_ids(config, n_prompt: int, n_new: int, *rows: int) -> list:
    """Ids of a prompt, or of as many `rows` of them; InputError where these and n_new tokens more
    do not fit the model."""
    if n_prompt + n_new > config.sizes.P:
        raise InputError(
            f"{n_prompt} + {n_new} tokens do not fit the model's {config.sizes.P} positions"
        )
    return np.random.default_rng(0).integers(0, config.sizes.V, (*rows, n_prompt)).tolist()


@contextmanager
def started(
    names: Sequence[str], folder: str | Path, threads: int, cache_dtype: str | None = None
) -> Iterator[tuple[dict[str, _Worker], dict[str, dict]]]:
    """Start the machine and every peer; yield the workers, and what each said, by name; end them
    all, whatever happens."""
    workers: dict[str, _Worker] = {}
    said: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(
        prefix="minillm-bench-", ignore_cleanup_errors=True
    ) as scratch:
        try:
            log.info("loading %s, each in a process of its own", ", ".join(names))
            with progress_bar("peers") as update:
                for done, name in enumerate((MACHINE, *names)):
                    update("loading", done, 1 + len(names))
                    workers[name] = _Worker(name, folder, threads, Path(scratch), cache_dtype)
                    said[name] = workers[name].answer()
                    if name == MACHINE:
                        _check_limits(said[name])
            yield workers, said
        finally:
            for worker in workers.values():
                worker.end()


def turn(worker: Any, request: dict, seconds: float) -> list[dict]:
    """What a worker answers when it is asked again and again for so long, after a pause; the last
    one may say what is `missing`."""
    sleep(PAUSE)
    answers: list[dict] = []
    end = perf_counter() + seconds
    while not answers or (perf_counter() < end and not answers[-1].get("missing")):
        answers.append(worker.answer(request))
    return answers


def in_rounds(
    rounds: int, one_round: Callable[[bool], None], others: Load | None = None, what: str = "this"
) -> None:
    """Call one_round(whether it counts) once to warm up, and then `rounds` times; say how long that
    takes when the first tells it, and in the end where others were at work while `what` was
    measured, by a count of one's own if given."""
    log.info("measuring in turn: a round to warm up, and %s after it", count(rounds, "round"))
    begin = perf_counter()
    with undisturbed(f"{what} was measured", others), progress_bar("rounds") as update:
        for i in range(rounds + 1):
            if i == 1:
                seconds = perf_counter() - begin
                log.info(
                    "a round takes %s, all about %s", *map(lasting, (seconds, rounds * seconds))
                )
            update("measuring", i, rounds + 1)
            one_round(i > 0)


def lasting(seconds: float) -> str:
    """Some time in words."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def limits_of(workers: dict[str, _Worker]) -> dict:
    """The machine's limits, measured now."""
    sleep(PAUSE)
    return _check_limits(workers[MACHINE].answer({"ids": [], "n_new": 0}))


def _check_limits(said: dict) -> dict:
    if "missing" in said:
        raise InputError(f"the machine's limits cannot be measured: {said['missing']}")
    return said


def require_some(names: Iterable[str], kinds: Mapping[str, Any] = PEERS) -> None:
    """Raise InputError, before anything is started, where of all these peers something that they
    need is not installed."""
    reasons = []
    for name in names:
        absent = [module for module in kinds[name].needs if find_spec(module) is None]
        if not absent:
            return
        reasons.append(f"{name}: {not_installed(absent[0])}")
    raise InputError(f"no peer could be measured: {'; '.join(reasons)}")


def check_measured(results: Sequence[Any]) -> None:
    """Raise InputError where all of some peers' results are missing."""
    if all(result.missing for result in results):
        reasons = dict.fromkeys(f"{result.name}: {result.missing}" for result in results)
        raise InputError(f"no peer could be measured: {'; '.join(reasons)}")


def _one_round(
    comparison: PeerComparison, workers: dict[str, _Worker], ids: list[int], keep: bool
) -> None:
    limits = limits_of(workers)
    if keep:
        comparison.bandwidth.append(limits["bandwidth"])
        comparison.flops.append(limits["flops"])
    # Every other round backwards, so that nobody always comes first.
    for result in comparison.measured[:: (-1) ** len(comparison.flops)]:
        sleep(PAUSE)
        answer = workers[result.name].answer({"ids": ids, "n_new": comparison.n_new})
        result.missing = answer.get("missing")
        if result.missing:
            continue
        if keep:
            result.prefill.append(comparison.n_prompt / answer["prefill_s"])
            result.decode.append(comparison.n_new / answer["decode_s"])
        result.tokens, result.peak_bytes = answer["tokens"], answer["peak_bytes"]


class _Worker:
    """A process of bench/worker.py; its temporary files and its messages lie in a folder below
    `scratch`."""

    def __init__(
        self,
        name: str,
        folder: str | Path,
        threads: int,
        scratch: Path,
        cache_dtype: str | None = None,
    ):
        own = Path(tempfile.mkdtemp(dir=scratch))
        self.messages = own / "messages.txt"
        self.peer, _, other = name.partition("@")
        python, paths = program(other)
        choice = [cache_dtype] if cache_dtype else []
        command = [python, *WORKER, self.peer, os.path.abspath(folder), str(threads), *choice]
        environment = paths | dict.fromkeys(FOLDER_VARIABLES, str(own))
        with self.messages.open("wb") as messages:
            # `-m` looks where it starts first, and where the user stands may be a checkout
            self.child = Child(command, threads, environment, own, messages)

    def answer(self, request: dict | None = None) -> dict:
        """Return what the worker says to a request, or first of all; or {"missing": why it says
        nothing that can be read}."""
        try:
            return self.child.answer() if request is None else self.child.ask(request)
        except Ended as ended:
            said = [x for x in self.messages.read_text(errors="replace").splitlines() if x.strip()]
            last = f": {said[-1].strip()[:200]}" if said else ""
            return {"missing": f"failed: {ended}{last}"}

    def end(self) -> None:
        """End the process."""
        self.child.close()
