"""Every kind of classifier beside the others: accuracy over several seeds, and time as texts grow
longer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from time import perf_counter

import numpy as np

from ..clock import Clock
from ..families.gpt2.config import GPT2Config
from ..machine.files import read_json, write_atomically
from ..machine.forms import build
from ..machine.progress import progress_bar
from ..machine.quota import require_memory
from ..model import GPT2
from ..training.memory import step_bytes
from ..training.optimizers import AdamW
from ..training.pretrain import training_twin
from ..training.trainer import SETTINGS
from ..twins.threads import n_threads, set_threads
from .classify import Pooled, Transformer, train_classifier
from .lstm import LSTM, LSTMConfig


@dataclass(frozen=True)
class Run:
    """One training: accuracy on the held-out texts; seconds of it, None where it was done in
    several sittings."""

    data: str
    model: str
    seed: int
    parameters: int
    accuracy: float
    seconds: float | None

    def __str__(self) -> str:
        return (
            f"{self.data}   {self.model:<12}   seed {self.seed}   accuracy {self.accuracy:.2%}  "
            f" {self.seconds or 0:.0f} s"
        )

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def compare(
    data: Sequence[Path],
    out: Path,
    models: Sequence[str],
    seeds: Sequence[int],
    *,
    start: str = "tales",
    encoding: str = "utf-8",
    kernels: str | None = None,
    echo: Callable[[Run], None] = lambda run: None,
    **flags,
) -> list[Run]:
    """Train every model of `models` ("fine-tuned" begins with `start`) on each data set with each
    seed, in folders of `out`.

    Seeds change the first weights and the order of the texts, never what is held out. A run that is
    there already, whole, is not repeated; one that was interrupted goes on. flags: settings of all
    runs.
    """
    runs = []
    for path, model, seed in (
        (path, model, seed) for path in data for model in models for seed in seeds
    ):
        folder = out / path.stem / f"{model}-{seed}"
        done = folder / "result.json"
        if not done.exists():
            begun = (folder / SETTINGS).exists()
            kind = {"start": start} if model == "fine-tuned" else {"model": model}
            classifier, result, seconds = train_classifier(
                folder,
                path,
                resume=begun,
                encoding=encoding,
                kernels=kernels,
                seed=seed,
                **kind | flags,
            )
            size = sum(p.size for p in classifier.parameters.values())
            run = Run(
                path.stem, model, seed, size, result.accuracy, None if begun else round(seconds, 1)
            )
            write_atomically(done, json.dumps(run.to_dict()).encode())
        runs.append(build(Run, read_json(done), done))
        echo(runs[-1])
    return runs


def accuracies(runs: Sequence[Run]) -> tuple[str, ...]:
    """A row of the table: the runs of one model on one data set."""
    values = [run.accuracy for run in runs]
    seconds = [run.seconds for run in runs if run.seconds is not None]
    spread = f"{stdev(values):.2%}" if len(values) > 1 else ""
    return (
        runs[0].data,
        runs[0].model,
        f"{runs[0].parameters:,}",
        f"{mean(values):.2%}",
        spread,
        f"{min(values):.2%}",
        f"{max(values):.2%}",
        f"{mean(seconds):.0f}" if seconds else "",
    )


@dataclass(frozen=True)
class StepTime:
    """What one step of training takes, in seconds, the median of some rounds; one_thread: the same
    on one thread.

    recurrent: the part of the forward's time in which one position waits for the one before.
    """

    model: str
    rows: int
    length: int
    step: float
    one_thread: float
    recurrent: float

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def times_by_length(
    lengths: Sequence[int],
    rows: Sequence[int],
    n_embd: int = 128,
    rounds: int = 5,
    kernels: str | None = None,
) -> list[StepTime]:
    """Time a step (forward, backward, AdamW) of a Transformer of two blocks and of an LSTM of one
    layer, of one width, on random texts without padding; the two in turn, and on one thread and on
    all, in every round."""
    ops = training_twin(kernels, "float32")
    rng = np.random.default_rng(0)
    threads = n_threads(ops)
    size = {"vocab_size": 4096, "n_embd": n_embd}
    model = GPT2.random(
        GPT2Config(**size, n_layer=2, n_head=max(1, n_embd // 32), n_positions=max(lengths))
    )
    B, T = max(rows), max(lengths)
    needed, instead = step_bytes(model.config, B, T), "fewer rows or shorter lengths"
    require_memory(f"a step of {B} x {T} tokens", needed, instead)
    bodies = {
        "transformer": Transformer(GPT2(model.config, model.parameters, ops)),
        "lstm": LSTM.random(LSTMConfig(**size), ops=ops),
    }
    times = []
    try:
        with progress_bar("shapes") as update:
            shapes = [(B, T) for B in rows for T in lengths]
            for done, (B, T) in enumerate(shapes):
                update("timing", done, len(shapes))
                batch = rng.integers(0, 4096, (B, T)), np.full(B, T), rng.integers(0, 2, B)
                measured = {(name, n): [] for name in bodies for n in (1, threads)}
                classifiers = {name: new(body, n_embd) for name, body in bodies.items()}
                for turn in range(rounds + 1):
                    for name, n in measured:
                        set_threads(n)
                        began = perf_counter()
                        train_step(*classifiers[name], batch)
                        if turn:  # the first one compiles and warms up
                            measured[name, n].append(perf_counter() - began)
                for name, body in bodies.items():
                    step, alone = (median(measured[name, n]) for n in (threads, 1))
                    times.append(StepTime(name, B, T, step, alone, recurrent_part(body, batch[0])))
    finally:
        set_threads(threads)
    return times


def new(body, n_embd: int):
    """A classifier of two labels on a body, and its optimiser."""
    score = {"weight": np.zeros((n_embd, 2), np.float32), "bias": np.zeros(2, np.float32)}
    return Pooled(body, score, "mean", ["a", "b"], None, 1), AdamW(body.ops)


def train_step(classifier, optimizer, batch) -> None:
    _, gradients = classifier.loss_and_gradients(batch)
    optimizer.update(classifier.parameters, gradients, 1e-4)


def recurrent_part(body, ids) -> float:
    """The clock's answer: for which share of a forward pass an LSTM's cell waits for its state."""
    clock = Clock()
    clock.begin("prefill", *ids.shape)
    body.hidden(ids, clock)
    sums = clock.cycles()[0].sums(
        lambda name: (
            name.startswith("l.") and name.endswith((".gates", ".i", ".f", ".o", ".g", ".c", ".h"))
        )
    )
    return sums.get(True, 0.0) / sum(sums.values())
