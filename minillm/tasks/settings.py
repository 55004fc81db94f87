"""Every knob of a classifier's training; not in classify.py, as `--help` needs no NumPy."""

from __future__ import annotations

from dataclasses import dataclass

from ..training.settings import Plan, above_0, at_least, knob, one_of

KINDS, POOLS = ("transformer", "lstm", "bag-of-words"), ("mean", "last")


@dataclass(frozen=True)
class ClassifySettings(Plan):
    """All that decides the training of a classifier, and how it reports."""

    model: str = one_of(KINDS, f"what to train: {', '.join(KINDS)}", "transformer")
    pool: str = one_of(
        POOLS,
        "which hidden states the head sees: the mean over all real positions, or the last one",
        "mean",
    )
    epochs: int | None = at_least(
        1, "times that every text is seen; if not given 3 to 10, more where texts are few", None
    )
    n_layer: int | None = at_least(
        1, "layers; if not given 2 blocks of a transformer, 1 layer of an lstm", None
    )
    n_head: int = at_least(1, "attention heads", 4)
    n_embd: int = at_least(1, "width", 128)
    vocab_size: int = at_least(257, "tokens of the tokenizer that is trained on the texts", 4096)
    context: int = at_least(2, "most tokens of a text that are looked at, from its beginning", 256)
    held_out: float = knob(
        0.1,
        "part of the texts that is held out, without --test",
        check=lambda v: 0 < v < 1,
        allowed="0 to 1",
    )
    batch_size: int = at_least(1, "texts of a step", 32)
    steps: int | None = at_least(1, "steps, if not as many as the epochs have", None)
    warmup: int | None = at_least(
        0, "steps in which the learning rate rises; a tenth of all if not given", None
    )
    lr: float | None = above_0(
        1000, "highest learning rate, if not what suits the kind of model", None
    )
    final_lr: float = knob(
        0.0,
        "learning rate at the end, as a part of lr",
        check=lambda v: 0 <= v <= 1,
        allowed="0 to 1",
    )
    eval_every: int | None = at_least(
        1,
        "steps between two evaluations; if not given an epoch, or several where texts are few",
        None,
        curve=False,
    )
