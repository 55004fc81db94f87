"""Predicted against measured: how wrong a datasheet is.

Every engine and kind of storage reads prompts and decodes in a process of its own, in turn with a
look at the machine's memory; of the logits it takes the largest, without probabilities. The
constants of each engine, kind and pass are fitted on some models (least squares of relative
errors) and tested on the others. An error is predicted / measured - 1, both at their best: of all
answers the one that was disturbed least, and the limits of the best moment.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..checkpoints.find import find_model
from ..clock.limits import Limits, describe_machine, measure
from ..clock.machines import Constants
from ..errors import InputError, count
from ..families.gpt2.config import GPT2Config
from ..families.llama.config import LlamaConfig
from ..families.llama.qwen import Qwen2Config, Qwen3Config
from ..loading import config_of
from ..machine.progress import progress_bar
from ..model import Model
from ..twins.choose import twin
from ..twins.threads import set_threads
from .datasheet import (
    CACHED,
    FIRST,
    PEERS,
    TOKEN,
    Predicted,
    by_limits,
    limits_for,
    nodes,
    weight_bytes,
)
from .ledger_report import Saved, made_on, markdown
from .run import in_rounds, limits_of, started, turn

# Shapes with random weights, by name.
SHAPES: dict[str, Any] = {
    "gpt2-124m": GPT2Config(),
    "llama-144m": LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=19,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=2048,
    ),
    "qwen3-300m": Qwen3Config(
        vocab_size=32000,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=18,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    ),
    "qwen2-500m": Qwen2Config(max_position_embeddings=2048, tie_word_embeddings=True),
}
FITTED_ON = ("tales", "qwen2-500m")  # the smallest and the largest
MODELS = (*FITTED_ON, "tales-draft", "smollm2", "gpt2-124m", "llama-144m", "qwen3-300m")
CONTEXTS = (32, 128, 448)
TURN = 0.3  # seconds in which an engine is asked again: a small model takes less than 20 ms
GOALS = 0.10, 0.25  # of the median and of the worst error
HEADINGS = ("model", "engine", "kind", "context", "pass", "measured", "predicted", "error", "")
SUMMARY = ("engine", "pass", "points", "median error", "worst")


@dataclass
class Point:
    """One pass of one model, measured. seconds: of each round the fewest; predicted: of each round,
    by the limits of that moment. nodes: of a pass. missing: why there are no seconds."""

    model: str
    engine: str
    kind: str
    context: int
    what: str
    nodes: int
    constants: Constants | None = None
    seconds: list[float] = field(default_factory=list)
    predicted: list[Predicted] = field(default_factory=list)
    missing: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What its constants belong to."""
        return self.engine, self.kind, self.what

    @property
    def fastest(self) -> float:
        """Seconds of the round that was disturbed least."""
        return min(self.seconds)

    @property
    def at_best(self) -> Predicted:
        """What the best limits of all rounds allow."""
        return min(self.predicted, key=lambda p: p.seconds)

    @property
    def forecast(self) -> float:
        """Predicted seconds."""
        return self.at_best.by(self.constants, self.nodes).seconds

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.forecast / self.fastest - 1

    def to_dict(self) -> dict:
        """JSON-able values."""
        names = ("model", "engine", "kind", "context", "what", "seconds", "missing")
        found = {name: getattr(self, name) for name in names}
        found["limits"] = [(p.reading, p.arithmetic, p.step) for p in self.predicted]
        return found if self.missing else found | {"predicted": self.forecast, "error": self.error}

    def row(self) -> tuple[str, ...]:
        """The first cells of a line below HEADINGS."""
        about = self.model, self.engine, self.kind, f"{self.context:,}", self.what
        if self.missing:
            return *about, "-", "-", f"missing ({self.missing})"
        times = (f"{1e3 * s:,.3f} ms" for s in (self.fastest, self.forecast))
        return *about, *times, f"{100 * self.error:+.1f} %"


@contextmanager
def model_of(name: str) -> Iterator[Path]:
    """Where a model lies; one of SHAPES is made, and removed in the end."""
    if name not in SHAPES:
        yield find_model(name)
        return
    with tempfile.TemporaryDirectory(prefix="minillm-predictions-") as folder:
        Model.random(SHAPES[name], seed=0).save_pretrained(folder)
        yield Path(folder)


def limits_now(config, kinds: Iterable[str], threads: int) -> Limits:
    """This machine's limits, measured now with the functions that would be chosen."""
    set_threads(threads)
    kinds = list(kinds)
    sizes = [weight_bytes(config, kind) for kind in kinds]
    with progress_bar("steps") as update:
        return measure(twin(), kinds, update, sizes)


def measured(
    name: str,
    folder: Path,
    limits: Limits,
    engines: Iterable[str],
    kinds: Sequence[str],
    contexts: Iterable[int],
    n_new: int = 48,
    rounds: int = 5,
) -> list[Point]:
    """Measure all that engines have of some kinds of storage, after prompts of several lengths, on
    as many threads as `limits` are of; those that do not fit the model are left out.

    InputError where nothing is left to measure; an engine that is not there is `missing`.
    """
    config = config_of(folder)
    contexts = [n for n in contexts if n + n_new <= config.sizes.P]
    plan = {PEERS[e][k]: (e, k) for e in engines for k in kinds if k in PEERS[e]}
    if not contexts or not plan:
        raise InputError(
            f"nothing to measure of {name}: no context and {n_new} tokens fit its {config.sizes.P}"
            " positions, or no engine has such a kind"
        )
    ids = np.random.default_rng(0).integers(0, config.sizes.V, max(contexts)).tolist()
    points = {
        (peer, n, what): Point(name, *about, n, what, nodes(config))
        for peer, about in plan.items()
        for n in contexts
        for what in (TOKEN, FIRST)
    }
    missing: dict[str, str | None] = {}
    moments: list[tuple[str, int, dict, dict]] = []
    with started([*plan], folder, limits.threads) as (workers, said):
        missing.update({peer: said[peer].get("missing") for peer in plan})

        def one_round(keep: bool) -> None:
            for n in contexts:
                for peer in plan:
                    if missing[peer]:
                        continue
                    now = limits_of(workers)
                    answers = turn(workers[peer], {"ids": ids[:n], "n_new": n_new}, TURN)
                    missing[peer] = answers[-1].get("missing")
                    if keep and not missing[peer]:
                        took = {
                            TOKEN: min(answer["decode_s"] for answer in answers) / n_new,
                            FIRST: min(answer["prefill_s"] for answer in answers),
                        }
                        moments.append((peer, n, now, took))

        in_rounds(rounds, one_round, what=name)
    best = max((now["flops"] for _, _, now, _ in moments), default=1)
    for peer, n, now, took in moments:
        engine, kind = plan[peer]
        then = limits_for(engine, limits.at(now["bandwidth"], now["flops"] / best))
        for what, seconds in took.items():
            shape = kind, what, n if what == FIRST else n + (n_new + 1) // 2, 1, CACHED[engine]
            points[peer, n, what].seconds.append(seconds)
            points[peer, n, what].predicted.append(by_limits(config, then, *shape, choose=False))
    for (peer, *_), point in points.items():
        point.missing = missing[peer]
    return [*points.values()]


SETS = [0, 1, 2], [0, 1], [0, 2], [1, 2], [0], [1]  # of reading, arithmetic, node


def fit(points: Sequence[Point]) -> Constants:
    """The constants with which the points are predicted best, none below 0: least squares of
    relative errors, by the nearest of all sets of fewer constants than points (of one at least)
    that come out above 0. What a step takes by itself is measured, and not fitted."""
    fastest = np.array([p.fastest for p in points])
    design = np.array([(p.at_best.reading, p.at_best.arithmetic, p.nodes) for p in points])
    design, left = design / fastest[:, None], 1 - [p.at_best.step for p in points] / fastest
    models = tuple(dict.fromkeys(p.model for p in points))
    nearest, found = math.inf, np.array([1.0, 1.0, 0.0])  # the limits themselves
    for some in SETS:
        scale = design[:, some].max(0)
        times, *_ = np.linalg.lstsq(design[:, some] / scale, left, rcond=None)
        apart = np.linalg.norm(design[:, some] / scale @ times - left)
        if times.min() > 0 and apart < nearest and len(some) < max(2, len(points)):
            nearest, found = apart, np.zeros(3)
            found[some] = times / scale
    reading, arithmetic, node = found.tolist()
    return Constants(reading, arithmetic, node, models)


def fitted(points: Sequence[Point], models: Iterable[str]) -> dict[tuple[str, str, str], Constants]:
    """Constants for each engine, kind and pass that was measured of some models; each point gets
    its own."""
    models = [*models]
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        if point.model in models and not point.missing:
            groups.setdefault(point.key, []).append(point)
    found = {key: fit(group) for key, group in groups.items()}
    for point in points:
        point.constants = found.get(point.key)
    return found


@dataclass
class PredictionErrors(Saved):
    """All points, and how wrong they were; fitted: on which models."""

    points: list[Point]
    fitted_on: Sequence[str]
    command: str
    rounds: int
    threads: int
    machine: Mapping[str, Any] = field(default_factory=describe_machine)

    @property
    def tested(self) -> list[Point]:
        """The points of models on which nothing was fitted."""
        return [p for p in self.points if p.model not in self.fitted_on and not p.missing]

    def summary(self) -> list[tuple[str, str, int, float, float]]:
        """(engine, pass, how many points, median, worst) of the errors' sizes; last of all."""
        groups: dict[tuple[str, str], list[float]] = {}
        for p in self.tested:
            groups.setdefault((p.engine, p.what), []).append(abs(p.error))
        everything = [e for errors in groups.values() for e in errors]
        groups |= {("all", ""): everything} if everything else {}
        return [(*key, len(e), median(e), max(e)) for key, e in groups.items()]

    def to_dict(self) -> dict:
        """Return everything as values for JSON."""
        headings = ("engine", "pass", "points", "median", "worst")
        return {
            **{n: v for n, v in vars(self).items() if n != "points"},
            "summary": [dict(zip(headings, line)) for line in self.summary()],
            "points": [p.to_dict() for p in self.points],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return the rows of a table below HEADINGS."""
        return [(*p.row(), "fitted" if p.model in self.fitted_on else "") for p in self.points]

    def summary_rows(self) -> list[tuple[str, ...]]:
        """Return the rows of a table of errors: engine, pass, points, median, worst."""
        return [(e, w, str(n), f"{m:.1%}", f"{worst:.1%}") for e, w, n, m, worst in self.summary()]

    def page(self, picture: str) -> str:
        """Return a page in Markdown."""
        goals = "goals: {:.0%} and {:.0%}".format(*GOALS)
        lines = ["# How wrong the datasheet is", ""]
        lines += [f"![predicted against measured seconds]({picture})", ""]
        lines += markdown(SUMMARY, self.summary_rows())
        lines += [
            "",
            f"Errors of models on which nothing was fitted ({goals}). Fitted on"
            f" {' and '.join(self.fitted_on)}; the fastest of {count(self.rounds, 'round')},"
            f" {count(self.threads, 'thread')}, by the best limits of these.",
            "",
            *markdown(HEADINGS, self.rows()),
            "",
            *made_on(self.machine),
        ]
        return "\n".join([*lines, "", f"    {self.command}", ""])


def errors(
    models: Sequence[str],
    engines: Sequence[str],
    kinds: Sequence[str],
    contexts: Sequence[int],
    *,
    fitted_on: Sequence[str] = FITTED_ON,
    n_new: int = 48,
    rounds: int = 5,
    threads: int = 2,
    command: str = "",
) -> tuple[PredictionErrors, dict[tuple[str, str, str], Constants]]:
    """Measure models, names of SHAPES or others, and fit on two of them: the errors and the
    constants. InputError where one of those is not among the models."""
    if unknown := [name for name in fitted_on if name not in models]:
        raise InputError(f"{unknown[0]!r:.60} is to be fitted on, and not among the models")
    if unknown := [name for name in engines if name not in PEERS]:
        raise InputError(f"engine is {unknown[0]!r:.60}; it must be one of {', '.join(PEERS)}")
    points = []
    for name in models:
        with model_of(name) as folder:
            limits = limits_now(config_of(folder), kinds, threads)
            points += measured(name, folder, limits, engines, kinds, contexts, n_new, rounds)
    found = fitted(points, fitted_on)
    return PredictionErrors(points, list(fitted_on), command, rounds, threads), found
