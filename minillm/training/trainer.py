"""The loop: a batch, its loss and gradients, a step of the optimiser; and nothing is lost when it
is killed.

A run is a folder. metrics.jsonl has one line for every report; checkpoint.safetensors holds the
parameters, the optimiser's arrays and the number of the step, written to a temporary name and
renamed, so that one whole checkpoint is always there. Everything else of a step (batch, learning
rate) is a function of its number and the seed: a resumed run does what the uninterrupted one would
have done.
"""

from __future__ import annotations

import ctypes
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..checkpoints import safetensors
from ..distributed import ALONE, World
from ..errors import InputError
from ..files import read_json, remove_unfinished, write_atomically
from ..progress import progress_bar
from .optimizers import OPTIMIZERS, Optimizer, clip_by_global_norm, learning_rate
from .settings import Settings

CHECKPOINT, METRICS, SETTINGS = "checkpoint.safetensors", "metrics.jsonl", "settings.json"


class Trainer:
    """Trains `objective` (parameters, loss_and_gradients(batch)) for plan.steps steps, in `folder`.

    batch_of(step, rank, size) -> the arrays of one process's batch, all with the batch axis first.
    evaluate(last) -> what to report at a validation; sample() -> text; save() writes what is to be
    used. world: the processes that share each step: every one computes the gradients of its part of
    the batch, and all take the step of their mean.
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
        self.optimizer = optimizer or optimizer_of(plan, getattr(objective, "ops", None))
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
        if resume:
            self.load_checkpoint()
            if main and self.step == plan.steps:
                self.echo({"step": self.step, "run": "finished"})
        self.folder.mkdir(parents=True, exist_ok=True)
        if main:
            self._forget_later_metrics()
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
            mean = np.array([loss])
            world.all_reduce_mean([mean, *gradients.values()])
            loss = float(mean[0])
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
        """The mean loss and gradients of a batch, computed in plan.accumulate equal parts."""
        n, total, gradients = self.plan.accumulate, 0.0, {}
        for part in zip(*(np.split(array, n) for array in batch)):
            loss, new = self.objective.loss_and_gradients(part)
            total += loss / n
            if n == 1:
                return total, new
            for name, gradient in new.items():
                gradients[name] = (
                    gradients[name] + gradient / n if name in gradients else gradient / n
                )
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
        path = self.folder / CHECKPOINT
        return (
            f"the last checkpoint is kept in {path}"
            if path.exists()
            else "no checkpoint was due yet"
        )

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
        arrays = {f"model.{name}": p for name, p in self.objective.parameters.items()}
        arrays |= {f"optimizer.{name}": a for name, a in self.optimizer.state.items()}
        safetensors.write(
            self.folder / CHECKPOINT, arrays, {"format": "pt", "step": str(self.step)}
        )

    def load_checkpoint(self) -> None:
        """Go on from the checkpoint in the folder; without one, from the beginning."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        tensors, metadata = safetensors.read(path)
        parameters = self.objective.parameters
        found = {
            name.removeprefix("model."): t
            for name, t in tensors.items()
            if name.startswith("model.")
        }
        if {n: t.shape for n, t in found.items()} != {n: p.shape for n, p in parameters.items()}:
            raise InputError(f"{path}: not a checkpoint of this model")
        for name, tensor in found.items():
            np.copyto(parameters[name], tensor)
        states = {
            n.removeprefix("optimizer."): t
            for n, t in tensors.items()
            if n.startswith("optimizer.")
        }
        self.optimizer.state = {name: np.array(tensor) for name, tensor in states.items()}
        self.step = self.optimizer.steps = int(metadata["step"])


def optimizer_of(plan: Settings, ops=None) -> Optimizer:
    """The optimiser that the settings name."""
    if plan.optimizer == "sgd":
        return OPTIMIZERS["sgd"](ops, plan.weight_decay, plan.beta1)
    return OPTIMIZERS[plan.optimizer](ops, plan.weight_decay, (plan.beta1, plan.beta2))


def read_metrics(path: Path) -> list[dict]:
    """Return what metrics.jsonl holds; a last line cut short by a kill is left out."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file; is this the folder of a training run?")
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def check_folder(folder: Path, settings: dict, curve: set[str], resume: bool) -> None:
    """Refuse to mix two runs. settings: all of them; curve: those that must not change.

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
        before = read_json(path)
        for name in curve:
            if before.get(name) != settings[name]:
                raise InputError(
                    f"--resume: the run in {folder} has {name} {before.get(name)!r}, not"
                    f" {settings[name]!r}"
                )
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)


def write_settings(folder: Path, settings: dict) -> None:
    """Keep the settings of a run in its folder: with them begins what --resume goes on with."""
    write_atomically(folder / SETTINGS, (json.dumps(settings, indent=2) + "\n").encode())


@contextmanager
def stop_signals(speak: bool = True):
    """Yield a function that says whether Ctrl-C or SIGTERM has come: the step that is under way is
    finished first. A second one does not wait. speak: answer on stderr."""
    seen = []

    def note(number, frame):
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        if speak:
            print("\nstopping after this step; once more to stop at once", file=sys.stderr)

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
