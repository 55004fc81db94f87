"""A datasheet of a model on a machine: what a token costs, predicted from the config alone.

    time of a pass = reading x bytes / bandwidth + arithmetic x FLOP / rate + node x nodes + step

Bytes, FLOP and nodes are counted (costs.py); bandwidth, rates, and what our own step takes by
itself are the machine's limits. `reading`, `arithmetic` and `node` are what an engine makes of
them, constants for each kind of storage and kind of pass, fitted on other models (predictions.py).
Where there are none, an engine reaches the limits, reads while it computes, and waits as our
kernels do: the sum over steps of max(bytes / bandwidth, FLOP / rate).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .. import families
from ..checkpoints import llama_cpp
from ..checkpoints.find import CONFIG, find_model
from ..clock.clock import CycleTimes
from ..clock.costs import formed, steps_of
from ..clock.limits import Limits
from ..clock.machines import Constants, Machine
from ..clock.prediction import predict
from ..clock.verdict import ARITHMETIC, OVERHEAD, READING, Evidence, Verdict, divided, verdict
from ..costs import FLOAT, stored_bytes
from ..decoding.cycle import AT_ONCE
from ..errors import InputError
from ..families.family import CHOOSE, MATRIX, TABLE
from ..layers.cache import position_bytes
from ..loading import config_of, open_checkpoint
from ..machine.files import read_json
from ..weights import KINDS

TOKEN, FIRST = "token", "first"  # the passes: one more token, and a whole prompt
LENGTHS = (32, 128, 512, 2048, 8192, 32768, 131072)
BATCHES = (1, 2, 4, 8, 16, 32)
# Who keeps which bytes of a number in the cache, and under which name bench starts it, by kind.
CACHED = {"minillm": FLOAT, "llama.cpp": 2, "transformers": FLOAT}
PEERS: dict[str, dict[str, str]] = {
    "minillm": {kind: f"minillm-{kind.replace('_', '-')}" for kind in KINDS},
    "llama.cpp": {
        "float32": "llama.cpp-F32",
        "float16": "llama.cpp-F16",
        "int8": "llama.cpp-Q8_0",
        "int4": "llama.cpp-Q4_0",
        "int4_min": "llama.cpp-Q4_1",
    },
    "transformers": {"float32": "transformers-fp32"},
}


@dataclass(frozen=True)
class Predicted:
    """One pass. parts: its seconds of reading, of arithmetic and of overhead, of each step the
    longer of the first two; reading, arithmetic: all of both, by the limits; step: the overhead
    that constants leave as it is measured."""

    parts: Mapping[str, float]
    reading: float = 0.0
    arithmetic: float = 0.0
    step: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self.parts.values())

    @property
    def known(self) -> float:
        """What is reading and arithmetic."""
        return self.parts[READING] + self.parts[ARITHMETIC]

    @property
    def binds(self) -> str:
        """The largest part."""
        return max(self.parts, key=lambda what: self.parts[what])

    def by(self, constants: Constants | None, nodes: int) -> Predicted:
        """What an engine makes of it that has these constants; without, the limits' own."""
        if constants is None:
            return self
        return Predicted(
            {
                READING: constants.reading * self.reading,
                ARITHMETIC: constants.arithmetic * self.arithmetic,
                OVERHEAD: constants.node * nodes + self.step,
            }
        )


def nodes(config) -> int:
    """How many operations a pass has: the steps that compute something."""
    return sum(step.cost is not None for step in steps_of(config).values())


def by_limits(
    config,
    limits: Limits,
    kind: str,
    what: str,
    context: int,
    batch: int = 1,
    cached: int = FLOAT,
    choose: bool = True,
) -> Predicted:
    """What a pass takes by the limits: what is TOKEN, the last of `context` positions, or FIRST,
    all of them as a prompt; in each of `batch` rows. cached: bytes of a number in the cache.
    choose: whether probabilities are formed. InputError for a kind whose rate is not known."""
    if kind not in limits.row or kind not in limits.rows:
        raise InputError(f"the machine has no rate of {kind}, but of {', '.join(limits.row)}")
    T, past = (1, context - 1) if what == TOKEN else (context, 0)
    fused = batch * T <= AT_ONCE
    names = formed(config, fused)
    names = [name for name in names if choose or name not in CHOOSE]
    found = predict(config, limits, names, T, past, batch, kind, cached=cached)
    parts, step = divided(found.values()), limits.step if fused else 0.0
    reading, arithmetic = (
        sum(getattr(p, n) for p in found.values()) for n in ("memory", "arithmetic")
    )
    return Predicted(parts | {OVERHEAD: parts[OVERHEAD] + step}, reading, arithmetic, step)


def limits_for(engine: str, limits: Limits) -> Limits:
    """A machine's limits for an engine: what our own functions and threads wait, no other does."""
    return limits if engine == "minillm" else limits.without_waiting()


def weight_bytes(config, kind: str) -> int:
    """Bytes of all parameters with matrices and tables stored as `kind`, the rest in float32."""
    found = 0
    for p in config.layout.values():
        shape = p.shape(config.sizes)
        if p.role in (MATRIX, TABLE):
            n_in, n_out = shape if p.role == MATRIX else shape[::-1]
            found += stored_bytes(n_in, n_out, kind)
        else:
            found += FLOAT * prod(shape)
    return found


def described(model: str | Path) -> tuple[Any, str]:
    """The config of a model, and how its matrices are stored: by its name or folder, by a
    config.json alone, or by the beginning of a GGUF file."""
    path = Path(model)
    if path.suffix.lower() == ".json" and path.is_file():
        values = read_json(path, dict)
        return families.parse_config(values, path), _said(values)
    if not (path.suffix.lower() == ".gguf" and path.is_file()):
        path = find_model(model)
    if path.suffix.lower() == ".gguf" and path.is_file():
        return llama_cpp.header(path)
    if path.is_file():
        raise InputError(
            f"model '{path}' is a file; a datasheet is of a config.json, a .gguf, or a folder with"
            " config.json"
        )
    config = config_of(path)
    try:
        return config, open_checkpoint(path).stored
    except InputError:  # its weights are not there
        return config, _said(read_json(path / CONFIG, dict))


def _said(values: Mapping[str, Any]) -> str:
    """How a config.json says that matrices are stored."""
    kind = values.get("dtype", values.get("torch_dtype"))
    return kind if isinstance(kind, str) and kind in KINDS else "float32"


@dataclass(frozen=True)
class Lever:
    """What one change gives: tokens/s of all texts together, and times as many as without."""

    what: str
    rate: float
    times: float


@dataclass(frozen=True)
class Entry:
    """One predicted pass; rate: tokens/s of all rows together, of a prompt the positions read."""

    what: str
    kind: str
    context: int
    batch: int
    threads: int
    seconds: float
    rate: float
    binds: str


@dataclass
class Datasheet:
    """A model on a machine with an engine. kinds: of storage, the first being the one that levers
    begin from; measured: what was measured of it, see predictions.Point."""

    name: str
    config: Any
    machine: Machine
    engine: str = "minillm"
    kinds: Sequence[str] = ("float32", "float16", "int8", "int4")
    threads: int | None = None
    measured: Sequence[Any] = field(default_factory=list)

    def __post_init__(self):
        if self.engine not in PEERS:
            raise InputError(f"engine is {self.engine!r:.60}; it must be one of {', '.join(PEERS)}")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise InputError(f"kind {unknown[0]!r:.60} is none of {', '.join(KINDS)}")
        self.limits = self.machine.limits_of(self.threads)
        self.sizes, self.nodes = self.config.sizes, nodes(self.config)

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(prod(p.shape(self.sizes)) for p in self.config.layout.values())

    @property
    def middle(self) -> int:
        """The context at which batches, threads and levers are looked at."""
        return min(512, self.sizes.P)

    @property
    def lengths(self) -> list[int]:
        """The contexts and prompts that are shown, up to the model's positions."""
        return sorted({n for n in LENGTHS if n < self.sizes.P} | {min(self.sizes.P, LENGTHS[-1])})

    def predicted(
        self,
        kind: str,
        what: str,
        context: int,
        batch: int = 1,
        limits: Limits | None = None,
        config: Any = None,
        cached: int | None = None,
    ) -> Predicted:
        """One pass, with the engine's constants where there are some; see by_limits."""
        config, cached = config or self.config, cached or CACHED[self.engine]
        limits = limits_for(self.engine, limits or self.limits)
        found = by_limits(config, limits, kind, what, context, batch, cached)
        return found.by(self.machine.fitted.get((self.engine, kind, what)), nodes(config))

    def entry(
        self, kind: str, what: str, context: int, batch: int = 1, limits: Limits | None = None
    ) -> Entry:
        """One predicted pass."""
        limits = limits or self.limits
        found = self.predicted(kind, what, context, batch, limits)
        tokens = batch * (1 if what == TOKEN else context)
        shape = what, kind, context, batch, limits.threads
        return Entry(*shape, found.seconds, tokens / found.seconds, found.binds)

    @property
    def tokens(self) -> list[Entry]:
        """A token of one text, by context and kind."""
        return [self.entry(kind, TOKEN, n) for n in self.lengths for kind in self.kinds]

    @property
    def firsts(self) -> list[Entry]:
        """The first token of one text, by prompt and kind."""
        return [self.entry(kind, FIRST, n) for n in self.lengths for kind in self.kinds]

    @property
    def batches(self) -> list[Entry]:
        """A token in each of several texts, by their number and kind."""
        return [self.entry(kind, TOKEN, self.middle, b) for b in BATCHES for kind in self.kinds]

    @property
    def by_threads(self) -> list[Entry]:
        """A token of one text, by threads and kind."""
        return [
            self.entry(kind, TOKEN, self.middle, limits=limits)
            for limits in self.machine.limits
            for kind in self.kinds
        ]

    @property
    def weights(self) -> dict[str, int]:
        """Bytes of the weights of each kind."""
        return {kind: weight_bytes(self.config, kind) for kind in self.kinds}

    @property
    def position(self) -> int:
        """Bytes of keys and values of one position."""
        return position_bytes(self.config, f"float{8 * CACHED[self.engine]}")

    @property
    def levers(self) -> list[Lever]:
        """What each change gives, the one that gives most first."""
        base, n, now = self.kinds[0], self.middle, self.limits.threads
        half = self.config.resized(L=max(1, self.sizes.L // 2))
        passes = {f"{k} instead of {base}": self.predicted(k, TOKEN, n) for k in self.kinds[1:]}
        passes |= {
            f"{limits.threads} instead of {now} threads": self.predicted(base, TOKEN, n, 1, limits)
            for limits in self.machine.limits
            if limits.threads != now
        }
        if self.sizes.L > 1:
            passes["half of the layers"] = self.predicted(base, TOKEN, n, config=half)
        if n > 1:
            passes["half of the context"] = self.predicted(base, TOKEN, n // 2)
        if CACHED[self.engine] == FLOAT:
            passes["a float16 cache"] = self.predicted(base, TOKEN, n, cached=2)
        rates = {what: 1 / found.seconds for what, found in passes.items()}
        rates["8 texts at once"] = 8 / self.predicted(base, TOKEN, n, 8).seconds
        without = self.predicted(base, TOKEN, n).seconds
        levers = [Lever(what, rate, rate * without) for what, rate in rates.items()]
        return sorted(levers, key=lambda lever: -lever.rate)

    @property
    def verdict(self) -> Verdict:
        """What is said of a token in the middle context, were it measured as it is predicted."""
        kind, past = self.kinds[0], self.middle - 1
        names = formed(self.config)
        cached = CACHED[self.engine]
        found = predict(self.config, self.limits, names, 1, past, kind=kind, cached=cached)
        engine = self.predicted(kind, TOKEN, self.middle)
        known = sum(max(p.memory, p.arithmetic) for p in found.values()) or 1.0
        net = 1e9 * np.array(
            [
                engine.known * max(found[n].memory, found[n].arithmetic) / known
                + engine.parts[OVERHEAD] / len(names)
                for n in names
            ]
        )
        cycle = CycleTimes("decode", 1, 1, past, 0.0, tuple(names), np.cumsum(net), net)
        fitted = (self.engine, kind, TOKEN) in self.machine.fitted
        verb = "would cost" if fitted else "would cost at best"
        return verdict(Evidence(self.config, kind, [cycle], self.limits, cached=cached, verb=verb))

    def to_dict(self) -> dict:
        """JSON-able values."""
        machine, said = self.machine, dict(self.verdict.sentences)
        said.pop("uncertain", None)  # of a measurement
        fitted = {
            f"{kind}, {what}": asdict(c)
            for (engine, kind, what), c in machine.fitted.items()
            if engine == self.engine and kind in self.kinds
        }
        return {
            "model": self.name,
            "family": families.of(self.config).title,
            "sizes": asdict(self.sizes),
            "parameters": self.parameters,
            "machine": {
                n: getattr(machine, n) for n in ("name", "source", "measured", "memory", "threads")
            },
            "engine": self.engine,
            "threads": self.limits.threads,
            "constants": fitted,
            "says": said,
            "token": [asdict(entry) for entry in self.tokens],
            "first": [asdict(entry) for entry in self.firsts],
            "batch": [asdict(entry) for entry in self.batches],
            "by_threads": [asdict(entry) for entry in self.by_threads],
            "bytes": {"weights": self.weights, "position": self.position},
            "levers": [asdict(lever) for lever in self.levers],
            "measured": [point.to_dict() for point in self.measured],
        }
