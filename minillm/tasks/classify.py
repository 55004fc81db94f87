"""Text classification: which of some labels a text has, by a Transformer, an LSTM or a bag of
words, under one Trainer.

Transformer and LSTM turn ids into hidden states [B,T,C]; the head takes one vector from these, and
logits from it. The letters are those of sizes.py; N is the number of labels. Source of the
fine-tuning: Radford et al., "Improving Language Understanding by Generative Pre-Training" (2018),
section 3.2.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import numpy as np

from .. import ops as numpy_ops
from ..checkpoints import safetensors
from ..decoding.finite import check_logits
from ..errors import InputError
from ..families import of, parse_config
from ..families.gpt2.config import GPT2Config
from ..loading import load
from ..machine.distributed import ALONE, World
from ..machine.files import as_path, read_json, write_atomically
from ..machine.forms import build
from ..model import GPT2, Model, model_of
from ..parameters import FixedEntries
from ..steps import checked, identity
from ..tokenizer import Tokenizer
from ..training.language import matrices_of, positions_of, trainable
from ..training.lock import one_run_a_folder
from ..training.pretrain import training_twin
from ..training.recompute import Activations
from ..training.trainer import FORMAT, Trainer, check_folder, run_to_resume, write_settings
from ..twins.backward import backward_of
from ..twins.portable import Twinned
from .examples import Batches, Examples, Words, read_examples, rectangle, split
from .lstm import LSTM, LSTMConfig
from .settings import ClassifySettings

DESCRIPTION, WEIGHTS = "classifier.json", "classifier.safetensors"

# What each kind of model learns best with; "fine-tuned" is a transformer that begins with a trained
# one.
DEFAULTS = {
    "transformer": {"lr": 1e-3, "n_layer": 2},
    "fine-tuned": {"lr": 3e-4},
    "lstm": {"lr": 3e-3, "n_layer": 1},
    "bag-of-words": {"lr": 1e-2},
}
EPOCHS = {"transformer": 5, "fine-tuned": 3, "lstm": 5, "bag-of-words": 10}
LEAST_STEPS = 200  # where texts are few they are seen more often


# ---- what is trained


class Classifier(Twinned):
    """Base: texts to P(label). `parameters` {name: array}; forward(ids, lengths) gives logits,
    backward their gradients.

    labels: the names of the N labels. tokenizer: has encode(text). context: how many tokens of a
    text are looked at.
    """

    def __init__(
        self, labels: Sequence[str], tokenizer, context: int, parameters: dict, ops=numpy_ops
    ):
        self.labels, self.tokenizer, self.context = list(labels), tokenizer, context
        self.parameters, self.ops = parameters, ops

    def encode(self, text: str) -> list[int]:
        """The ids of a text's beginning, at most `context`, and <|endoftext|>, where there is one,
        behind them."""
        end = getattr(self.tokenizer, "eot_id", None)
        ids = self.tokenizer.encode(text)
        return ids[: self.context] if end is None else [*ids[: self.context - 1], end]

    def n_targets(self, batch) -> int:
        """How many labels a batch has."""
        return len(batch[-1])

    def loss_and_gradients(
        self, batch, n: int | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """Return the sum of -log P(label) over n, in nats, and its gradient. batch: ids [B,T],
        lengths [B], labels [B]; n: B if not given, so that it is the mean."""
        ids, lengths, labels = batch
        kept = Activations()
        logits = self.forward(ids, lengths, kept)
        losses = self.ops.cross_entropy(logits, labels)
        n = n or len(labels)
        share = np.full(len(labels), 1 / n, logits.dtype)
        d_logits = backward_of("cross_entropy", self.ops)(share, logits, labels)
        return float(losses.sum() / n), self.backward(ids, lengths, kept, d_logits)

    def log_probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """log P(label | text) of every text, [len(texts), N]; the texts are run in rows of like
        length."""
        rows = [self.encode(text) for text in texts]
        results = np.empty((len(rows), len(self.labels)), np.float64)
        order = np.argsort([len(row) for row in rows], kind="stable")
        for start in range(0, len(rows), 64):
            picked = order[start : start + 64]
            batch = rectangle([rows[n] for n in picked])
            logits = self.forward(*batch)
            check_logits(
                logits,
                lambda row, picked=picked: f"text {picked[row] + 1} of {len(rows)}",
                lambda step, batch=batch: self.forward(*batch, step),
            )
            results[picked] = self.ops.log_softmax(logits)
        return results

    def numbers(self, labels: Sequence[str], where: str) -> list[int]:
        """The number of each label; InputError for one that is not known."""
        known = {label: n for n, label in enumerate(self.labels)}
        if unknown := [label for label in labels if label not in known]:
            raise InputError(
                f"{where}: label {unknown[0]!r} was never seen in training; known:"
                f" {', '.join(self.labels)}"
            )
        return [known[label] for label in labels]

    def save(self, folder: Path) -> None:
        """Write classifier.json, classifier.safetensors and the tokenizer's files."""
        safetensors.write(folder / WEIGHTS, self.parameters, {"format": "pt"})
        about = {"labels": self.labels, "context": self.context, **self.describe()}
        write_atomically(
            folder / DESCRIPTION, (json.dumps(about, ensure_ascii=False, indent=2) + "\n").encode()
        )


class Transformer(Twinned):
    """A model without its head, as a classifier needs it: hidden states, and back. It begins as
    `model`, with parameters of its own."""

    def __init__(self, model: Model):
        self.config, self.ops = model.config, model.ops
        self.parameters, self._model = trainable(model)
        self.matrices = matrices_of(model, self.parameters)

    def step_names(self, T: int) -> list[str]:
        return self._model.step_names[:-1]

    def hidden(self, ids, step=identity):
        return self._model.hidden(ids, positions_of(ids), step=step)

    def backward(self, ids, kept, d_hidden):
        model, positions = self._model, positions_of(ids)
        return model.family.backward(model, ids, positions, kept, d_hidden=d_hidden)


class Pooled(Classifier):
    """A Transformer or an LSTM with a head: logits = (sum_t share_t hidden_t) W + b.

    pool: "mean" gives each of a row's n real positions the share 1/n, "last" gives everything to
    the last of them; padding gets nothing, and no real position sees it.
    """

    def __init__(
        self, body: Transformer | LSTM, score: dict, pool: str, labels, tokenizer, context: int
    ):
        parameters = body.parameters | {f"score.{name}": array for name, array in score.items()}
        super().__init__(labels, tokenizer, context, FixedEntries(parameters), body.ops)
        self.body, self.score, self.pool = body, score, pool
        self.matrices = getattr(body, "matrices", {})

    def shares(self, lengths, T: int, dtype):
        """[B,T]: how much of the pooled vector each position gives."""
        t, lengths = np.arange(T), np.asarray(lengths)[:, None]
        return ((t < lengths) / lengths if self.pool == "mean" else t == lengths - 1).astype(dtype)

    def forward(self, ids, lengths, step=identity):
        """ids [B,T], of which lengths [B] are real -> logits [B,N]."""
        step = checked(step, lambda: [*self.body.step_names(ids.shape[1]), "pooled", "score"])
        hidden = self.body.hidden(ids, step)
        shares = self.shares(lengths, ids.shape[1], hidden.dtype)
        pooled = step("pooled", (shares[:, None] @ hidden)[:, 0])  # [B,1,T] @ [B,T,C] -> [B,C]
        return step("score", self.ops.linear(pooled, **self.score))  # [B,C] @ [C,N] -> [B,N]

    def backward(self, ids, lengths, kept, d_logits):
        """d_pooled = d_logits W^T, and each position gets its share of that: d_hidden_t = share_t
        d_pooled."""
        d_pooled, d_score = backward_of("linear", self.ops)(
            d_logits, kept["pooled"], self.score["weight"]
        )
        d_hidden = (
            self.shares(lengths, ids.shape[1], d_pooled.dtype)[..., None] * d_pooled[:, None]
        )  # [B,T,C]
        return self.body.backward(ids, kept, d_hidden) | {
            f"score.{name}": d for name, d in d_score.items()
        }

    def describe(self) -> dict:
        kind = "lstm" if isinstance(self.body, LSTM) else "transformer"
        return {"model": kind, "pool": self.pool, "config": self.body.config.to_dict()}


class BagOfWords(Classifier):
    """Logistic regression on which words are there, wherever: logits = b + the sum of weight[word]
    over a text's words."""

    def forward(self, ids, lengths, step=identity):
        """ids [B,T] of words, each once -> logits [B,N]."""
        step = checked(step, lambda: ["score"])
        there = np.arange(ids.shape[1]) < np.asarray(lengths)[:, None]  # [B,T]
        words = (self.parameters["weight"][ids] * there[..., None]).sum(axis=1)
        return step("score", words + self.parameters["bias"])

    def backward(self, ids, lengths, kept, d_logits):
        """Every word that is there gets its text's d_logits."""
        there = np.arange(ids.shape[1]) < np.asarray(lengths)[:, None]
        d_words = there[..., None] * d_logits[:, None]  # [B,T,N]
        d_weight = backward_of("embedding", self.ops)(
            d_words, ids, np.zeros_like(self.parameters["weight"])
        )
        return {"weight": d_weight, "bias": d_logits.sum(axis=0)}

    def describe(self) -> dict:
        return {"model": "bag-of-words"}


def new_classifier(
    plan: ClassifySettings,
    texts: Sequence[str],
    labels,
    tokenizer=None,
    start: Model | None = None,
    ops=numpy_ops,
):
    """Return an untrained classifier as the settings say; without a tokenizer with one trained on
    the texts. start: the trained model that a transformer begins with."""
    if plan.model == "bag-of-words":
        words = Words.of(texts)
        zeros = {
            "weight": np.zeros((words.vocab_size, len(labels)), np.float32),
            "bias": np.zeros(len(labels), np.float32),
        }
        return BagOfWords(labels, words, plan.context, zeros, ops)
    tokenizer = tokenizer or Tokenizer.train(texts, plan.vocab_size)
    size = {"vocab_size": tokenizer.vocab_size, "n_embd": plan.n_embd, "n_layer": plan.n_layer}
    if plan.model == "lstm":
        body, C = LSTM.random(LSTMConfig(**size), plan.seed, ops=ops), plan.n_embd
    else:
        start = start or GPT2.random(
            GPT2Config(**size, n_positions=plan.context, n_head=plan.n_head), plan.seed
        )
        body, C = Transformer(model_of(start.config, start.parameters, ops)), start.config.sizes.C
    rng = np.random.default_rng([plan.seed, 1])
    weight = (0.02 * rng.standard_normal((C, len(labels)))).astype(np.float32)
    score = {"weight": weight, "bias": np.zeros(len(labels), np.float32)}
    return Pooled(body, score, plan.pool, labels, tokenizer, plan.context)


class Description(TypedDict):
    """What classifier.json says."""

    labels: list[str]
    context: int
    model: Literal["transformer", "lstm", "bag-of-words"]
    pool: NotRequired[Literal["mean", "last"]]
    config: NotRequired[dict]


def load_classifier(folder: Path, kernels: str | None = None) -> Classifier:
    """Return the classifier that `save` wrote; InputError where the folder holds none."""
    folder, ops = as_path(folder), training_twin(kernels, "float32")
    if not (folder / DESCRIPTION).exists():
        raise InputError(
            f"{folder}: no classifier in it ({DESCRIPTION} is missing); minillm classify train"
            " makes one"
        )
    file = folder / DESCRIPTION
    about = read_json(file, Description)
    labels, context, N = about["labels"], about["context"], len(about["labels"])
    if context < 1 or N < 1 or len(set(labels)) < N:
        raise InputError(f"{file}: context must be at least 1, labels different, and one at least")
    if about["model"] == "bag-of-words":
        words = Words.from_pretrained(folder)
        shapes = {"weight": (words.vocab_size, N), "bias": (N,)}
        tensors = safetensors.read_exactly(folder / WEIGHTS, shapes)
        return BagOfWords(labels, words, context, tensors, ops)
    values, where = about.get("config"), f"{file}: config"
    if lstm := about["model"] == "lstm":
        config = build(LSTMConfig, values, where)
        V, most, C, shapes = config.vocab_size, math.inf, config.n_embd, config.parameter_shapes()
    else:
        config = parse_config(values, where)
        s, shapes = config.sizes, of(config).shapes(config)
        V, most, C = s.V, s.P, s.C
    tokenizer = Tokenizer.from_pretrained(folder)
    if tokenizer.vocab_size > V or context > most:
        raise InputError(
            f"{file}: context {context} and the tokenizer's {tokenizer.vocab_size} tokens do not"
            f" fit the model's {most} positions and {V} tokens"
        )
    shapes |= {"score.weight": (C, N), "score.bias": (N,)}
    tensors = safetensors.read_exactly(folder / WEIGHTS, shapes)
    score = {name: tensors.pop(f"score.{name}") for name in ("weight", "bias")}
    body = LSTM(config, tensors, ops) if lstm else Transformer(model_of(config, tensors, ops))
    return Pooled(body, score, about.get("pool", "mean"), labels, tokenizer, context)


# ---- training it


@dataclass(frozen=True)
class Result:
    """How a classifier did on texts that it had not seen. confusion: int [N,N], a row for each true
    label and a column for each predicted one."""

    labels: list[str]
    confusion: np.ndarray
    loss: float

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.confusion.sum())

    def to_dict(self) -> dict:
        return {
            "labels": self.labels,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "confusion": self.confusion.tolist(),
        }


def evaluate(classifier: Classifier, texts: Sequence[str], numbers: Sequence[int]) -> Result:
    """Compare what the classifier says of texts with their labels' numbers."""
    log_p, numbers = classifier.log_probabilities(texts), np.asarray(numbers)
    confusion = np.zeros((len(classifier.labels),) * 2, np.int64)
    np.add.at(confusion, (numbers, log_p.argmax(axis=1)), 1)
    return Result(
        classifier.labels, confusion, float(-log_p[np.arange(len(numbers)), numbers].mean())
    )


def settings_of(start: str | None = None, **flags) -> ClassifySettings:
    """The settings of a run: the defaults of its kind of model, changed by `flags`."""
    kind = flags.get("model", "transformer")
    if start is not None and kind != "transformer":
        raise InputError(f"--from {start} is a Transformer; --model {kind} cannot begin with it")
    return ClassifySettings(**DEFAULTS.get("fine-tuned" if start else kind, {}) | flags)


def with_steps(plan: ClassifySettings, batches: Batches, fine_tuned: bool) -> ClassifySettings:
    """The settings with all that depends on how many texts there are."""
    epochs = plan.epochs or EPOCHS["fine-tuned" if fine_tuned else plan.model]
    each = batches.steps_of_epoch
    steps = plan.steps or max(epochs * each, 0 if plan.epochs else LEAST_STEPS)
    warmup = steps // 10 if plan.warmup is None else plan.warmup
    # an epoch, or several short ones
    every = plan.eval_every or each * max(1, steps // (20 * each))
    return dataclasses.replace(
        plan, steps=steps, warmup=warmup, eval_every=every, batch_size=batches.batch_size
    )


def examples_of(
    data: Path, test: Path | None, encoding: str, held_out: float
) -> tuple[Examples, Examples]:
    """The texts to learn from, and those held out: of `test`, or a fixed part of `data`."""
    examples = read_examples(data, encoding)
    if test is None:
        return split(examples, held_out, str(data))
    if len(set(examples.labels)) < 2:
        raise InputError(
            f"{data}: every example has the label {examples.labels[0]!r}; two different ones are"
            " needed at least"
        )
    return examples, read_examples(test, encoding)


@one_run_a_folder
def train_classifier(
    out: Path,
    data: Path | None,
    *,
    test: Path | None = None,
    start: str | None = None,
    encoding: str = "utf-8",
    resume: bool = False,
    kernels: str | None = None,
    world: World = ALONE,
    echo: Callable[[dict], None] = lambda record: None,
    **flags,
) -> tuple[Classifier, Result, float]:
    """Train a classifier on labelled texts and save it in `out`; return it, how it does on the
    held-out ones, and how many seconds its steps took. flags: settings that differ from the
    defaults. The held-out texts decide nothing."""
    before = run_to_resume(out, ClassifySettings) if resume else {"format": FORMAT}
    about = {
        "data": data and str(data),
        "test": test and str(test),
        "start": start,
        "encoding": encoding,
    }
    if resume:
        about = {
            name: before.get(name) if value in (None, "utf-8") else value
            for name, value in about.items()
        }
        about["encoding"] = about["encoding"] or "utf-8"
        names = [f.name for f in dataclasses.fields(ClassifySettings)]
        flags = {name: before[name] for name in names if name in before} | flags
    if about["data"] is None:
        raise InputError("--data is needed: a .tsv or .csv file, or a folder")
    model, tokenizer = load(about["start"], "float32", "numpy") if about["start"] else (None, None)
    if model is not None:
        most = model.config.sizes.P
        flags = {"context": min(256, most)} | flags
        if flags["context"] > most:
            raise InputError(
                f"context is {flags['context']}; {about['start']} has {most} positions"
            )
    plan = settings_of(about["start"], **flags)
    train, held_out = examples_of(
        Path(about["data"]), about["test"] and Path(about["test"]), about["encoding"], plan.held_out
    )
    settings = {"format": before["format"]} | about | plan.to_dict()
    if world.rank == 0:
        curve = {f.name: f.default for f in dataclasses.fields(plan) if f.metadata["curve"]}
        curve |= dict.fromkeys(about)
        check_folder(out, settings, curve, resume)

    labels = sorted(set(train.labels))
    ops = numpy_ops if plan.model == "bag-of-words" else training_twin(kernels, plan.precision)
    classifier = new_classifier(plan, train.texts, labels, tokenizer, model, ops)
    expected = classifier.numbers(held_out.labels, about["test"] or about["data"])
    if world.rank == 0:
        classifier.tokenizer.save(out)
        write_settings(out, settings)
    rows = [classifier.encode(text) for text in train.texts]
    batches = Batches(
        rows, classifier.numbers(train.labels, about["data"]), plan.batch_size, plan.seed
    )
    plan = with_steps(plan, batches, model is not None)
    results = []

    def report(last: bool) -> dict:
        results.append(evaluate(classifier, held_out.texts, expected))
        epoch = round(trainer.step / batches.steps_of_epoch, 2)
        return {"epoch": epoch, "held_out_loss": results[-1].loss, "accuracy": results[-1].accuracy}

    trainer = Trainer(
        classifier,
        batches.batch,
        plan,
        out,
        evaluate=report,
        save=lambda: classifier.save(out),
        world=world,
        echo=echo,
    )
    began = time.perf_counter()
    trainer.run(resume)
    # resumed after its last step
    result = results[-1] if results else evaluate(classifier, held_out.texts, expected)
    return classifier, result, time.perf_counter() - began
