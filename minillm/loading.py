"""From a name or a path to a model and its tokenizer, and back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .checkpoints.checkpoint import Checkpoint
from .checkpoints.opening import config_of, open_checkpoint, save_checkpoint
from .errors import InputError
from .model import Model
from .tokenizer import Tokenizer
from .twins.twin import Twin

__all__ = ["config_of", "convert", "load", "load_model", "open_checkpoint", "save_model"]


def load(
    name_or_path: str | Path | Checkpoint = "tales", dtype=None, kernels: str | Twin | None = None
) -> tuple[Model, Tokenizer]:
    """Return (model, tokenizer) of a folder, a GGUF file, a bundled name ("tales", "tales-draft",
    "tales-llama"), "smollm2" where its package is installed, or a hub name ("gpt2").

    dtype and kernels: see Model.from_pretrained.
    """
    with no_garbage():
        checkpoint = open_checkpoint(name_or_path)
        tokenizer = tokenizer_of(checkpoint)
    return load_model(checkpoint, dtype, kernels), tokenizer


@contextmanager
def no_garbage() -> Iterator[None]:
    """Let Python look for no garbage, where hundreds of thousands of objects are made that stay: a
    vocabulary and its merges take half the time."""
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looks:
            gc.enable()


def tokenizer_of(checkpoint: Checkpoint) -> Tokenizer:
    """Return the tokenizer of a checkpoint; InputError where there is none, or one that has more
    tokens than the model."""
    if (tokenizer := checkpoint.tokenizer) is None:
        raise InputError(
            f"{checkpoint.path} has no tokenizer (tokenizer.json, or vocab.json and merges.txt);"
            " minillm.loading.load_model gives the model alone"
        )
    if tokenizer.vocab_size > checkpoint.config.sizes.V:
        raise InputError(
            f"{checkpoint.path}: the tokenizer has {tokenizer.vocab_size} tokens, the model"
            f" {checkpoint.config.sizes.V}"
        )
    return tokenizer


def load_model(
    name_or_path: str | Path | Checkpoint, dtype=None, kernels: str | Twin | None = None
) -> Model:
    """Return the model alone; see Model.from_pretrained."""
    return Model.from_pretrained(name_or_path, dtype, kernels)


def save_model(model: Model, folder: str | Path, dtype=None) -> None:
    """Write a model into a folder; see Model.save_pretrained."""
    model.save_pretrained(folder, dtype)


def convert(
    source: str | Path | Checkpoint, target: str | Path, dtype=None, show_progress: bool = False
) -> Model:
    """Write the model and the tokenizer of `source` as a GGUF file, where `target` ends so, or as a
    folder; return the model.

    dtype: what matrices become; None keeps each as it is stored. Name and licence go along. Raises
    InputError for what the other form cannot hold.
    """
    checkpoint = replace(open_checkpoint(source), as_stored=True)
    wide = "float64" if checkpoint.stored == "float64" else None
    model = load_model(checkpoint, wide, kernels="numpy")
    save_checkpoint(model, target, dtype, checkpoint.tokenizer, checkpoint.about, show_progress)
    return model
