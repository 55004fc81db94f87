"""Files as version 0.1.0 wrote them, made by it (see README.md): `python make.py` beside this file,
with commit 16fb6f9 on PYTHONPATH."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from minillm.exercises.exercise import Predict
from minillm.exercises.folder import file_name, text_of
from minillm.exercises.source import parts

from minillm import GPT2Config, ops
from minillm.clock.limits import Limits, measure
from minillm.clock.prediction import predict, predicted_seconds
from minillm.exercises import EXERCISES
from minillm.steps import step_names
from minillm.tasks.classify import load_classifier, train_classifier
from minillm.training.pretrain import pretrain
from minillm.training.settings import settings
from minillm.training.trainer import read_metrics

HERE = Path(__file__).resolve().parent
TEXT, TABLE = Path("text.txt"), Path("moods.tsv")
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 16, "vocab_size": 258}
PLAN = {"batch_size": 4, "steps": 12, "warmup": 2, "lr": 0.01, "log_every": 1, "eval_every": 4}
PLAN |= {"checkpoint_every": 4, "sample_every": 12, "sample_prompt": "the"}
SENTENCES = ("what a lovely day", "the rain never ends", "I dread the dark and the cold")


def write(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")


def stopped_after(steps: int):
    """An `echo` that ends a run when it reports this step, as a kill would."""

    def echo(record: dict) -> None:
        if record["step"] == steps:
            raise KeyboardInterrupt

    return echo


def runs() -> None:
    """run: a language model, killed in step 8 of 12, so that its last checkpoint is of step 4; what
    all steps give where nobody kills it."""

    def plan(**known):
        return settings(**SHAPE | PLAN | known)

    pretrain(Path("whole"), TEXT, plan, kernels="numpy")
    try:
        pretrain(Path("run"), TEXT, plan, kernels="numpy", echo=stopped_after(8))
    except KeyboardInterrupt:
        write(Path("run.json"), read_metrics(Path("whole/metrics.jsonl")))
    shutil.rmtree("whole")


def classifiers() -> None:
    """One of each kind, and what it says of SENTENCES; the bag of words to resume."""
    said = {}
    for kind in ("transformer", "lstm", "bag-of-words"):
        flags = {name: SHAPE[name] for name in ("n_embd", "vocab_size")}
        flags |= {"n_layer": 1, "n_head": 2, "context": 8, "steps": 12, "lr": 0.01}
        flags |= {"held_out": 0.2, "checkpoint_every": 4, "log_every": 1, "eval_every": 4}
        train_classifier(Path(kind), TABLE, kernels="numpy", model=kind, batch_size=4, **flags)
        classifier = load_classifier(Path(kind), "numpy")
        said[kind] = classifier.log_probabilities(SENTENCES).tolist()
        Path(kind, "checkpoint.safetensors").unlink()
    write(Path("classifiers.json"), {"texts": SENTENCES, "log_probabilities": said})


def folder() -> None:
    """exercises: the files that import from minillm, solved with the package's own answers, and one
    of each other kind."""
    Path("exercises").mkdir()
    for e in EXERCISES.values():
        text = text_of(e)
        if isinstance(e, Predict):
            text = text.replace("answer = ...", f"answer = {e.right():g}")
        else:
            text = text.replace(e.stub().rstrip("\n"), e.file_with(parts(e.source())[2]))
        if "minillm." in text.partition("\n")[2] or e.name in ("argmax", "softmax"):
            Path("exercises", file_name(e)).write_text(text, "utf-8")


def limits() -> None:
    """limits.json, and what follows from it for a small model."""
    measure(ops, ["float32"]).save("limits.json")
    measured, config = Limits.load("limits.json"), GPT2Config(n_layer=2, n_embd=64, n_head=4)
    passes = {"prefill": (32, 0), "decode": (1, 32)}
    seconds = {
        name: predicted_seconds(predict(config, measured, step_names(2), *sizes))
        for name, sizes in passes.items()
    }
    bandwidth = {str(n): measured.bandwidth_at(n) for n in (1 << 12, 3 << 20, 1 << 40)}
    write(Path("predictions.json"), {"passes": passes, "seconds": seconds, "bandwidth": bandwidth})


if __name__ == "__main__":
    import os

    os.chdir(HERE)
    np.seterr(all="ignore")
    runs()
    classifiers()
    folder()
    limits()
