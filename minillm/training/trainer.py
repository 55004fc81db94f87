"""The loop: a batch, its loss and gradients, a step of the optimiser; and nothing is lost when it
is killed.

A run is a folder. metrics.jsonl has one line for every report; checkpoint.safetensors holds the
parameters, the optimiser's arrays and the number of the step (see checkpoint.py), from step 0 on,
so that one whole checkpoint is always there. Everything else of a step (batch, learning rate) is a
function of its number and the seed: a resumed run does what the uninterrupted one would have done.
"""

from __future__ import annotations

import ctypes
import json
import logging
import math
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from ..errors import InputError
from ..machine.distributed import ALONE, World
from ..machine.files import (
    as_path,
    lines_of,
    parse_json,
    read_json,
    read_text,
    remove_unfinished,
    write_atomically,
)
from ..machine.forms import check
from ..machine.progress import progress_bar
from . import checkpoint
from .checkpoint import CHECKPOINT
from .optimizers import OPTIMIZERS, Optimizer, clip_by_global_norm, learning_rate
from .settings import Settings

log = logging.getLogger(__name__)

METRICS, SETTINGS = "metrics.jsonl", "settings.json"
# Of a run's folder. 1 is version 0.1.0's, whose settings say none: its batches are drawn otherwise
# (data.BATCHES), and its checkpoints have no checksum.
FORMAT = 2


class Trainer:
    """Trains `objective` for plan.steps steps, in `folder`.

    objective: has `parameters`, n_targets(batch) and loss_and_gradients(batch, n), the sum over the
    batch's targets divided by n. batch_of(step, rank, size) -> the arrays of one process's batch,
    all with the batch axis first. evaluate(last) -> what to report at a validation; sample() ->
    text; save() writes what is to be used. world: the processes that share each step. The step is
    that of the mean over all targets of all processes, however many each of them has.
    """

    def __init__(
        self,
        objective,
        batch_of: Callable,
        plan: Settings,
        folder: Path,
        *,
        evaluate: Callable[[bool], dict],
        sample: Callable[[], str] | None = None,
        save: Callable[[], None] = lambda: None,
        world: World = ALONE,
        echo: Callable[[dict], None] = lambda record: None,
        optimizer: Optimizer | None = None,
    ):
        self.objective, self.batch_of, self.plan, self.folder, self.world = (
            objective,
            batch_of,
            plan,
            Path(folder),
            world,
        )
        self.evaluate, self.sample, self.save, self.echo = evaluate, sample, save, echo
        self.optimizer = optimizer or optimizer_of(plan, objective)
        if plan.batch_size % (plan.accumulate * world.size):
            raise InputError(
                f"batch_size {plan.batch_size} cannot be shared by {world.size} processes in"
                f" {plan.accumulate} equal parts each"
            )
        self.step = 0

    def run(self, resume: bool = False) -> None:
        """Train to the end; with `resume` from the checkpoint in the folder, if there is one.
        Ctrl-C and SIGTERM save first."""
        plan, main = self.plan, self.world.rank == 0
        resumed = resume and self.load_checkpoint()
        if main and resumed:
            finished = self.step == plan.steps
            self.echo({"step": self.step, "run": "finished" if finished else "goes on"})
        self.folder.mkdir(parents=True, exist_ok=True)
        if main:
            self._forget_later_metrics()
            if not resumed:
                with self._writing():
                    self.save_checkpoint()
        keep_memory()
        tokens, began = 0, time.perf_counter()
        with progress_bar("steps", main) as update, stop_signals(main) as stopped:
            while self.step < plan.steps:
                loss, norm, lr = self.train_step()
                last = self.step == plan.steps
                tokens += self.n_tokens
                rate = tokens / (time.perf_counter() - began)
                record = {
                    "step": self.step,
                    "loss": loss,
                    "lr": lr,
                    "gradient_norm": norm,
                    "tokens_per_s": round(rate),
                }
                update(
                    "training",
                    self.step,
                    plan.steps,
                    f"loss {loss:.3f}  gradient {norm:.2f}  {rate:,.0f} tokens/s",
                )
                if main and (self.step % plan.log_every == 0 or last):
                    self.report(record)
                paused = time.perf_counter()
                if main and (self.step % plan.eval_every == 0 or last):
                    self.report(
                        {"step": self.step, "loss": loss, **self.evaluate(last)}, aloud=True
                    )
                if self.sample and main and (self.step % plan.sample_every == 0 or last):
                    self.report({"step": self.step, "sample": self.sample()}, aloud=True)
                stopping = any(self.world.all_gather(stopped()))
                if main and (self.step % plan.checkpoint_every == 0 or last or stopping):
                    with self._writing():
                        # first: who is killed between the two does some steps again, and saves
                        # again
                        self.save()
                        self.save_checkpoint()
                began += time.perf_counter() - paused
                if stopping and not last:
                    raise KeyboardInterrupt

    def train_step(self) -> tuple[float, float, float]:
        """Do one step; return its loss, the length of its gradient before clipping, and its
        learning rate."""
        plan, world = self.plan, self.world
        batch = self.batch_of(self.step, world.rank, world.size)
        self.n_tokens = world.size * math.prod(batch[0].shape)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told below
            loss, gradients = self._accumulated(batch)
        if world.size > 1:
            total = np.array([loss])
            world.all_reduce_sum([total, *gradients.values()])
            loss = float(total[0])
        norm = clip_by_global_norm(gradients, plan.clip)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise InputError(
                f"step {self.step + 1}: the loss is {loss}, the gradient {norm}; {self._kept()}."
                " Try a lower lr"
            )
        lr = learning_rate(
            self.step,
            plan.steps,
            lr=plan.lr,
            warmup=plan.warmup,
            schedule=plan.schedule,
            final=plan.final_lr,
        )
        self.optimizer.update(self.objective.parameters, gradients, lr)
        self.step += 1
        return loss, norm, lr

    def _accumulated(self, batch):
        """This process's part of the mean loss and its gradients, computed in plan.accumulate parts
        of equally many rows."""
        n = sum(self.world.all_gather(self.objective.n_targets(batch)))
        total, gradients = 0.0, {}
        for part in zip(*(np.split(array, self.plan.accumulate) for array in batch)):
            loss, new = self.objective.loss_and_gradients(part, n)
            total += loss
            for name, gradient in new.items():
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
        return total, gradients

    # ---- reporting

    def report(self, record: dict, aloud: bool = False) -> None:
        """Append one line to metrics.jsonl; `aloud`: and show it."""
        with self._writing(), open(self.folder / METRICS, "a", encoding="utf-8") as file:
            file.write(
                json.dumps(
                    {k: round(v, 6) if isinstance(v, float) else v for k, v in record.items()}
                )
                + "\n"
            )
        if aloud:
            self.echo(record)

    def _forget_later_metrics(self) -> None:
        """Drop what a killed run reported after its last checkpoint, and a line that it did not
        finish."""
        path = self.folder / METRICS
        lines = read_metrics(path) if path.exists() else []
        kept = [json.dumps(record) + "\n" for record in lines if record["step"] <= self.step]
        write_atomically(path, "".join(kept if self.step else []).encode())

    # ---- checkpoints

    def _kept(self) -> str:
        kept = checkpoint.kept(self.folder)
        return f"the last checkpoint is kept in {kept[0]}" if kept else "there is no checkpoint yet"

    @contextmanager
    def _writing(self):
        """A disk that is full stops training with one line, which says what is kept."""
        try:
            yield
        except OSError as error:
            where = error.filename or self.folder
            raise InputError(
                f"step {self.step}: {where}: {error.strerror or error}; {self._kept()}"
            ) from None

    def save_checkpoint(self) -> None:
        """Write parameters, optimiser and step, all or nothing."""
        arrays = named(self.objective.parameters, self.optimizer.state)
        checkpoint.write(self.folder, arrays, self.step, self.plan.keep_checkpoints)

    def load_checkpoint(self) -> bool:
        """Go on from the last checkpoint that is whole, and say so if that is not the last one;
        from the beginning where there is none. Return whether there was one."""
        last, metrics, damaged = self.folder / CHECKPOINT, self.folder / METRICS, []
        kept = checkpoint.kept(self.folder)
        if not kept and not (metrics.exists() and read_metrics(metrics)):
            return False
        if kept[:1] != [last]:
            damaged.append(f"{last}: there is no such file")
        for path in kept:
            try:
                arrays, metadata = checkpoint.read(path)
                break
            except (InputError, OSError) as error:
                damaged.append(str(error))
        else:
            raise InputError(f"{damaged[0]}; there is no other: begin again in another folder")
        self._take(path, arrays, metadata)
        self.world.barrier()  # until all have read it
        if path != last and self.world.rank == 0:
            log.warning("%s; going on from %s, step %s", damaged[0], path.name, self.step)
            del arrays  # a file that is mapped cannot be renamed on Windows
            path.replace(last)
        return True

    def _take(self, path: Path, arrays: dict, metadata: dict) -> None:
        """Copy what a checkpoint holds; InputError unless it is exactly what this run has after so
        many steps: every array by name, shape and dtype."""
        parameters, optimizer, steps = self.objective.parameters, self.optimizer, self.plan.steps
        step = metadata.get("step", "")
        if not re.fullmatch("[0-9]{1,18}", step) or int(step) > steps:
            raise InputError(f"{path}: step {step!r:.30} is none of this run's, 0 to {steps}")
        state = optimizer.like(parameters) if int(step) else {}  # before a step there is none
        expected = named(parameters, state)
        forms = [{n: (a.shape, a.dtype) for n, a in of.items()} for of in (arrays, expected)]
        if forms[0] != forms[1]:
            raise InputError(f"{path}: not a checkpoint of this run")
        for name, p in parameters.items():
            np.copyto(p, arrays[f"model.{name}"])
        optimizer.state = {name: np.array(arrays[f"optimizer.{name}"]) for name in state}
        self.step = optimizer.steps = int(step)


def named(parameters: dict, state: dict) -> dict:
    """The arrays of a checkpoint by their names in it."""
    model = {f"model.{name}": p for name, p in parameters.items()}
    return model | {f"optimizer.{name}": a for name, a in state.items()}


def optimizer_of(plan: Settings, objective) -> Optimizer:
    """The optimiser that the settings name, for what the objective trains."""
    ops, betas = getattr(objective, "ops", None), (plan.beta1, plan.beta2)
    if plan.optimizer == "sgd":
        return OPTIMIZERS["sgd"](ops, plan.weight_decay, plan.beta1)
    optimizer = OPTIMIZERS[plan.optimizer](ops, plan.weight_decay, betas)
    optimizer.matrices = getattr(objective, "matrices", {})
    return optimizer


class Record(TypedDict):
    """A line of metrics.jsonl: a report of a step, or of a validation."""

    step: int
    loss: NotRequired[float]
    lr: NotRequired[float]
    val_loss: NotRequired[float]
    bits_per_byte: NotRequired[float]
    accuracy: NotRequired[float]


def read_metrics(path: Path) -> list[dict]:
    """Return what metrics.jsonl holds; a last line cut short by a kill is left out."""
    if not (path := as_path(path, "file")).exists():
        raise InputError(f"{path}: there is no such file; is this the folder of a training run?")
    records = []
    lines = lines_of(read_text(path))
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line, Record, f"{path}, line {number}")
        except InputError:
            if number < len(lines):
                raise
            break
        if "lr" in record and "loss" not in record:
            raise InputError(f"{path}, line {number}: loss is missing")
        records.append(record)
    return records


def check_folder(folder: Path, settings: dict, curve: Mapping[str, object], resume: bool) -> None:
    """Refuse to mix two runs. settings: all of them; curve: those that must not change, with what
    a run had that says nothing of them, being older.

    Raises InputError where the folder holds a run, or a model, and `resume` is not asked for, and
    where a setting differs from those of the run to resume.
    """
    path = folder / SETTINGS
    if not resume and path.exists():
        raise InputError(
            f"--out {folder}: there is a run already; --resume goes on with it, or choose another"
            " folder"
        )
    if not resume and (folder / "model.safetensors").exists():
        raise InputError(f"--out {folder}: there is a model already; choose another folder")
    if path.exists():
        before = read_json(path, dict)
        for name, older in curve.items():
            if (had := before.get(name, older)) != settings[name]:
                raise InputError(
                    f"--resume: the run in {folder} has {name} {had!r}, not {settings[name]!r}"
                )
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, folder / "tokens"):
        remove_unfinished(place)


class Sources(TypedDict, total=False):
    """What a run began with, apart from its settings."""

    format: int
    data: str | None
    test: str | None
    start: str | None
    encoding: str


def read_settings(folder: Path, cls) -> dict:
    """Return what `write_settings` kept of a run, {} where there is none; cls: the settings' class.
    Raises InputError naming the file for values of another type."""
    path = folder / SETTINGS
    return check(read_json(path, Sources), cls, path) if path.exists() else {}


def write_settings(folder: Path, settings: dict) -> None:
    """Keep the settings of a run in its folder: with them begins what --resume goes on with."""
    write_atomically(folder / SETTINGS, (json.dumps(settings, indent=2) + "\n").encode())


def run_to_resume(folder: Path, cls) -> dict:
    """Return the settings (of class `cls`) of the run to resume, the format among them; InputError
    where there is none, or one of a later version."""
    path = folder / SETTINGS
    if not path.exists():
        raise InputError(f"--resume: {path} is not there, so there is no run to go on with")
    settings = {"format": 1} | read_settings(folder, cls)
    if settings["format"] not in range(1, FORMAT + 1):
        raise InputError(
            f"--resume: {path}: format is {settings['format']}; this minillm knows 1 to {FORMAT}:"
            " resume the run with the version that began it"
        )
    return settings


@contextmanager
def stop_signals(speak: bool = True):
    """Yield a function that says whether Ctrl-C or SIGTERM has come: the step that is under way is
    finished first. A second one does not wait. speak: log an answer."""
    seen: list[int] = []

    def note(number, frame):
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        if speak:
            log.warning(
                "\nstopping after this step, from which a resumed run goes on; once more to stop"
                " at once"
            )

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main thread is told of signals
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_memory() -> None:
    """Ask the C library to keep what arrays give back: every step needs the same again, and the
    system would hand out each page anew, cleared, which took a sixth of a step. glibc only;
    elsewhere nothing happens."""
    if sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except (OSError, AttributeError):
            return
        M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
        for option, value in (
            (M_MMAP_MAX, 0),
            (M_TRIM_THRESHOLD, 2**31 - 1),
            (M_TOP_PAD, 64 << 20),
        ):
            mallopt(option, value)
