"""The training step compared: forward, backward and AdamW in float32, each peer in its own process,
in turn, in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import sleep
from typing import Any

import numpy as np

from ..errors import InputError
from ..families.gpt2.config import GPT2Config
from ..families.llama.config import LlamaConfig
from ..machine.memory import peak_bytes
from .peers import clocks, spent
from .roofline import prefill_flop
from .run import PAUSE, check_measured, in_rounds, limits_of, require_some, started

# What can be compared: a shape, and a batch [B,T] of it. "llama" is as large as "small".
SHAPES: dict[str, tuple[Any, tuple[int, int]]] = {
    "small": (
        GPT2Config(n_layer=6, n_head=8, n_embd=256, vocab_size=4096, n_positions=256),
        (16, 256),
    ),
    "124m": (GPT2Config(), (4, 64)),
    "llama": (
        LlamaConfig(
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            hidden_size=256,
            vocab_size=4096,
            max_position_embeddings=256,
        ),
        (16, 256),
    ),
}
STEPS = 2  # of each peer in each round


class MinillmTraining:
    """minillm's training step: the trainer's own objective, optimiser and kernels."""

    needs: tuple[str, ...] = ()
    weight_bytes = cache_bytes = 0
    precision = "float32"

    def load(self, folder: str, threads: int) -> None:
        import numba

        from ..kernels.blocked import Training
        from ..loading import load_model
        from ..model import model_of
        from ..training.language import LanguageModel
        from ..training.optimizers import AdamW
        from ..training.trainer import keep_memory
        from ..twins.threads import set_threads
        from ..version import __version__

        set_threads(threads)
        keep_memory()
        self.threads, self.versions = threads, {"minillm": __version__, "numba": numba.__version__}
        self.libraries = peak_bytes()
        model, ops = load_model(folder, "float32", "numpy"), Training(self.precision)
        self.objective = LanguageModel(model_of(model.config, model.parameters, ops))
        self.optimizer = AdamW(ops, weight_decay=0.1, betas=(0.9, 0.95))

    def step(self, ids, targets) -> float:
        loss, gradients = self.objective.loss_and_gradients((ids, targets))
        self.optimizer.update(self.objective.parameters, gradients, 1e-3)
        return loss

    def measure(self, rows) -> dict:
        """Return what STEPS steps on rows [B,T+1] of ids took, and the loss of the last."""
        rows = np.array(rows)
        start = clocks()
        for _ in range(STEPS):
            loss = self.step(rows[:, :-1], rows[:, 1:])
        return spent("training", start, clocks()) | {"loss": loss}


class MinillmTrainingBfloat16(MinillmTraining):
    """The same with products of numbers in bfloat16."""

    precision = "bfloat16"


class TorchTraining(MinillmTraining):
    """torch eager: the model of transformers with eager attention and no dropout, and
    torch.optim.AdamW."""

    needs = ("torch", "transformers")

    def load(self, folder: str, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.threads = torch.get_num_threads()
        self.versions = {"transformers": transformers.__version__, "torch": torch.__version__}
        self.libraries = peak_bytes()
        self.torch = torch
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32
        ).eval()
        kinds = [
            [p for p in self.model.parameters() if (p.ndim > 1) == matrix]
            for matrix in (True, False)
        ]
        groups = [{"params": kind, "weight_decay": decay} for kind, decay in zip(kinds, (0.1, 0.0))]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))

    def step(self, ids, targets) -> float:
        self.optimizer.zero_grad()
        logits = self.model(self.torch.from_numpy(ids), use_cache=False).logits
        loss = self.torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), self.torch.from_numpy(targets).flatten()
        )
        loss.backward()
        self.optimizer.step()
        return loss.item()


TRAINERS = {
    "torch-eager": TorchTraining,
    "minillm": MinillmTraining,
    "minillm-mixed": MinillmTrainingBfloat16,
}


def step_flop(config, B: int, T: int) -> int:
    """The multiplications and additions that a training step needs: those of the forward, with
    logits everywhere, and twice as many backward, since each product has two factors to find a
    gradient for."""
    return 3 * B * (prefill_flop(config, T) + 2 * config.sizes.V * config.sizes.C * (T - 1))


@dataclass
class TrainerResult:
    """What one peer did: tokens/s of each round; the loss of its last step, on the same batch from
    the same weights."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    rates: list[float] = field(default_factory=list)
    loss: float | None = None
    peak_bytes: int | None = None  # of the whole process
    libraries: int | None = None  # of it, what was taken before there was a model
    step_bytes: int | None = None  # of it, the rest
    missing: str | None = None


@dataclass
class TrainerComparison:
    """All results of a run, and of each of its rounds the FLOP/s of a GEMM."""

    shape: str
    batch: tuple[int, int]
    flop_per_token: float
    results: list[TrainerResult] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)

    @property
    def measured(self) -> list[TrainerResult]:
        """The results that are not missing."""
        return [result for result in self.results if not result.missing]

    def ratio(self, result: TrainerResult) -> float:
        """The median over rounds of its tokens/s over those of the first peer, round by round."""
        return median(mine / theirs for mine, theirs in zip(result.rates, self.measured[0].rates))

    def share(self, result: TrainerResult) -> float:
        """The median over rounds of what was used of the GEMM's FLOP/s."""
        return median(
            rate * self.flop_per_token / most for rate, most in zip(result.rates, self.flops)
        )


def run(shape: str, names: str, rounds: int = 5, threads: int = 2) -> TrainerComparison:
    """Compare the training step of the peers in `names` in `rounds` rounds after one to warm up.

    Raises InputError for an unknown peer, and where none could be measured.
    """
    require_some(chosen := choose(names), TRAINERS)
    config, (B, T) = SHAPES[shape]
    comparison = TrainerComparison(
        shape, (B, T), step_flop(config, B, T) / (B * T), [TrainerResult(name) for name in chosen]
    )
    with prepared(shape) as (folder, request), started(chosen, folder, threads) as (workers, said):
        for result in comparison.results:
            first = said[result.name]
            result.missing = first.get("missing")
            result.versions, result.threads = first.get("versions", {}), first.get("threads", 0)
            result.libraries = first.get("libraries")
        in_rounds(rounds, lambda keep: _one_round(comparison, workers, request, keep))
    check_measured(comparison.results)
    return comparison


def choose(names: str) -> list[str]:
    """The peers in `names` (by commas; "all"); InputError for one that does not train."""
    chosen = list(TRAINERS) if names == "all" else [name.strip() for name in names.split(",")]
    if unknown := [name for name in chosen if name not in TRAINERS]:
        raise InputError(f"peer {unknown[0]!r} does not train; known: all, {', '.join(TRAINERS)}")
    return chosen


@contextmanager
def prepared(shape: str) -> Iterator[tuple[str, dict]]:
    """A folder that holds a random model of a shape, and what asks for steps on a batch of it."""
    from ..model import Model

    config, (B, T) = SHAPES[shape]
    rows = np.random.default_rng(0).integers(0, config.sizes.V, (B, T + 1)).tolist()
    with tempfile.TemporaryDirectory(prefix="minillm-bench-", ignore_cleanup_errors=True) as folder:
        Model.random(config, seed=0).save_pretrained(folder)
        yield folder, {"rows": rows}


def _one_round(comparison: TrainerComparison, workers: dict, request: dict, keep: bool) -> None:
    B, T = comparison.batch
    limits = limits_of(workers)
    for result in comparison.measured:
        sleep(PAUSE)
        _note(result, workers[result.name].answer(request), B * T * STEPS, keep)
    if keep:
        comparison.flops.append(limits["flops"])


def _note(result: TrainerResult, answer: dict, tokens: int, keep: bool) -> None:
    result.missing = answer.get("missing")
    if result.missing:
        return
    result.loss, result.peak_bytes = answer["loss"], answer["peak_bytes"]
    if result.peak_bytes and result.libraries:
        result.step_bytes = result.peak_bytes - result.libraries
    if keep:
        result.rates.append(tokens / answer["training_s"])
