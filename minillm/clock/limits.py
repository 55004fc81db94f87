"""What this machine can do at best, measured in the run that needs it: the roofs of the roofline.

Bandwidth depends on where the numbers lie, so it is measured for arrays from the first-level
cache's size to far beyond the last one's. (One array each, since a model's matrices lie side by
side in one, see weights.Arena.) Every limit is the best of several tries: whatever else runs on the
machine only takes away.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np

from .. import kernels
from ..errors import InputError, short
from ..families.gpt2.config import GPT2Config
from ..families.gpt2.program import program
from ..layers.cache import KVCache
from ..machine.files import read_json, write_atomically
from ..machine.forms import build, check
from ..machine.progress import Update
from ..twins.threads import n_threads
from ..twins.twin import abilities
from ..weights import store, store_parameters

ARRAYS = tuple(2**n for n in range(16, 29, 2))  # 64 KiB to 256 MiB
FAR = 2**26  # bytes from which an array lies in memory
BEST_OF = 5
MOST = 1e24  # of a rate in a file
SMALLEST = GPT2Config(vocab_size=16, n_positions=1, n_embd=16, n_layer=1, n_head=1)


@dataclass(frozen=True)
class Limits:
    """bandwidth: {bytes of an array: bytes/s at which all threads together read it}. row, rows:
    {kind of storage: FLOP/s} of products with one row (weights in the cache) and with hundreds.
    elements: FLOP/s of softmax in the cache. call: seconds of a call of the twin's functions before
    any work; launch: seconds to begin work on all threads and to end it; meet: seconds for all to
    wait for each other in a kernel (both 0 where BLAS has threads of its own).
    """

    machine: dict
    threads: int
    bandwidth: dict[int, float]
    row: dict[str, float]
    rows: dict[str, float]
    elements: float
    call: float
    launch: float
    meet: float
    step: float = 0.0

    def bandwidth_at(self, nbytes: float) -> float:
        """Bytes/s for numbers that are read again after `nbytes` in all: interpolated in
        log(bytes)."""
        sizes = sorted(self.bandwidth)
        return float(
            np.interp(
                math.log(max(nbytes, 1)), np.log(sizes), [self.bandwidth[size] for size in sizes]
            )
        )

    def in_caches(self, nbytes: float) -> bool:
        """Whether so much is read faster than memory gives it: from the processor's caches."""
        return self.bandwidth_at(nbytes) > 1.5 * self.bandwidth[max(self.bandwidth)]

    def save(self, path: str | Path) -> None:
        """Write them as JSON, with the machine's description, all or nothing."""
        write_atomically(Path(path), (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Limits:
        """Read what `save` wrote; InputError names the file."""
        where = f"{path}: not limits as `minillm clock --limits` writes them"
        return cls.from_dict(read_json(path, dict), where)

    @classmethod
    def from_dict(cls, values: dict, where: str) -> Limits:
        """The limits that a table of a file describes; InputError, beginning with `where`, for what
        is missing, and for what is no rate or no time."""
        sized = check(values.get("bandwidth"), dict[str, float], f"{where}: bandwidth")
        if not sized or not all(n.isdecimal() and int(n[:19]) > 0 and len(n) < 19 for n in sized):
            raise InputError(f"{where}: bandwidth needs sizes in bytes, and their rates")
        limits = build(cls, values | {"bandwidth": {int(n): r for n, r in sized.items()}}, where)
        if not {"float32"} <= limits.row.keys() & limits.rows.keys():
            raise InputError(f"{where}: row and rows need the rate of float32, which attention has")
        rates = [*sized.values(), *limits.row.values(), *limits.rows.values(), limits.elements]
        if wrong := [rate for rate in rates if not MOST >= rate >= 1 / MOST]:
            raise InputError(f"{where}: {short(wrong[0])} is no rate, in bytes or FLOP a second")
        times = (limits.call, limits.launch, limits.meet, limits.step)
        if wrong := [seconds for seconds in times if not MOST >= seconds >= 0]:
            raise InputError(f"{where}: {short(wrong[0])} is no number of seconds")
        if not 1 <= limits.threads < 1 << 20:
            raise InputError(f"{where}: threads is {short(limits.threads)}")
        return limits

    def with_kinds(self, kinds: Iterable[str], like: str) -> Limits:
        """These limits with the rates of `like` for kinds of storage that were not measured."""
        row, rows = (
            dict.fromkeys(kinds, of.get(like, of["float32"])) for of in (self.row, self.rows)
        )
        return replace(self, row=row | self.row, rows=rows | self.rows)

    def without_waiting(self) -> Limits:
        """These limits without what our own functions and threads wait: for engines of others."""
        return replace(self, call=0.0, launch=0.0, meet=0.0, step=0.0)

    def at(self, memory: float, share: float = 1.0) -> Limits:
        """These limits at a moment at which memory gives so many bytes a second, and products of
        many rows run at this share of their rates."""
        near = {size: r for size, r in self.bandwidth.items() if size < FAR}
        rows = {kind: share * rate for kind, rate in self.rows.items()}
        return replace(self, bandwidth=near | {FAR: memory}, rows=rows)


def measure(
    ops,
    kinds: Iterable[str],
    update: Update = lambda what, done, total: None,
    sizes: Iterable[int] = (),
) -> Limits:
    """Measure all limits for one twin and some kinds of storage; a second or two for each kind.

    sizes: bytes of further arrays to read, where the bandwidth matters most: those of a model's
    weights, of which the caches may hold a part.
    """
    sizes = sorted({*ARRAYS, *(size // 4096 * 4096 for size in sizes if size >= ARRAYS[0])})
    # attention multiplies in float32, whatever the weights are stored as
    kinds = sorted(set(kinds) | {"float32"})
    own = abilities(ops)
    total = len(sizes) + len(kinds) + 1
    bandwidth, row, rows = {}, {}, {}
    for done, size in enumerate(sizes):
        update("measuring limits", done, total)
        bandwidth[size] = read_bandwidth(size, own.read_everything)
    for done, kind in enumerate(kinds):
        update("measuring limits", len(sizes) + done, total)
        row[kind], rows[kind] = _row_rate(ops, kind), rows_rate(ops, kind)
    x = np.random.default_rng(0).standard_normal((64, 1024)).astype(np.float32)
    elements = 5 * x.size / _seconds(lambda: ops.softmax(x))
    launch = 0.0 if own.launch is None else _seconds(own.launch, 200)
    meet = 0.0 if own.meet_often is None else _meeting(own.meet_often)
    update("measuring limits", total, total)
    waiting = _call(ops), launch, meet, _step(ops)
    return Limits(describe_machine(), n_threads(ops), bandwidth, row, rows, elements, *waiting)


def describe_machine() -> dict:
    """Return what the figures belong to: processor, cores, system and versions."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    if kernels.available():
        import numba

        versions["numba"] = numba.__version__
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _seconds(work: Callable[[], object], calls: int = 1) -> float:
    """The shortest time of one call of `work`, each try being `calls` of them, after one for
    warming up."""
    work()
    best = math.inf
    for _ in range(BEST_OF):
        start = perf_counter()
        for _ in range(calls):
            work()
        best = min(best, (perf_counter() - start) / calls)
    return best


def _call(ops) -> float:
    """The mean over the twin's functions of what a call on a few numbers takes."""
    x, one = np.ones((1, 16), np.float32), np.ones(16, np.float32)
    calls = (
        lambda: ops.linear(x, x.T),
        lambda: ops.layer_norm(x, one, one),
        lambda: ops.softmax(x),
        lambda: ops.gelu_new(x),
    )
    return sum(_seconds(call, 200) for call in calls) / len(calls)


def _meeting(meet_often: Callable[[int], None], times: int = 2000) -> float:
    """Seconds for all threads to wait for each other once."""
    meet_often(times)
    often, never = _seconds(lambda: meet_often(times)), _seconds(lambda: meet_often(0))
    return max(0.0, (often - never) / times)


def _step(ops) -> float:
    """Seconds of a fused step of a model of 16 numbers a position, which computes next to
    nothing."""
    own, config = abilities(ops), SMALLEST
    if own.fused is None:
        return 0.0
    ones = {n: np.ones(p.shape(config.sizes), np.float32) for n, p in config.layout.items()}
    parameters = store_parameters(ones, "float32", config.layout)
    step = own.fused(program(config, parameters))
    cache = (own.new_cache or KVCache)(config, 1, 1, np.float32)

    def work() -> None:
        cache.truncate(0)
        step([[0]], cache, last=True)

    return _seconds(work, 200)


def read_bandwidth(size: int, read_everything: Callable | None = None) -> float:
    """Bytes/s at which all threads together read an array of `size` bytes, again and again: by a
    kernel that does nothing else, or without one by BLAS's product of a matrix and a vector."""
    times = max(1, 2**24 // size)  # long enough not to measure the launch
    matrix, x = np.ones((size // 4096, 1024), np.float32), np.ones(1024, np.float32)
    if read_everything is None:
        return size / _seconds(lambda: matrix @ x, times)
    return size * times / _seconds(lambda: read_everything(matrix, times))


def rows_rate(ops, kind: str) -> float:
    """FLOP/s of a product with 384 rows [384,768] @ [768,1536], as a twin multiplies them, on all
    threads."""
    dtype = np.float64 if kind == "float64" else np.float32
    x, large = (
        np.random.default_rng(0).standard_normal(shape).astype(dtype)
        for shape in ((384, 768), (768, 1536))
    )
    stored = abilities(ops).stores_panels and kind != "float64"
    weight = store(large, kind) if stored else large
    return 2 * len(x) * large.size / _seconds(lambda: ops.linear(x, weight))


def _row_rate(ops, kind: str) -> float:
    """FLOP/s of a product with one row, weights in the second-level cache, on all threads."""
    dtype = np.dtype("float64" if kind == "float64" else "float32")
    normal = np.random.default_rng(0).standard_normal
    x, small = normal(512).astype(dtype), normal((512, 256)).astype(dtype)
    row_product = abilities(ops).row_product
    if row_product is None or kind == "float64":
        return 2 * small.size / _seconds(lambda: x @ small, 200)
    weight = store(small, kind)
    work, nothing = row_product(weight, x), row_product(weight, x, panels=0)
    seconds, call = _seconds(work, 200), _seconds(nothing, 200)
    if call > 0.9 * seconds:  # busy neighbours: the call cannot be told from the product
        call = 0.0
    return 2 * small.size / (seconds - call) * n_threads(ops)
