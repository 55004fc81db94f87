"""From a name or a path to a checkpoint, and back: which format is whose is decided here."""

from __future__ import annotations

from pathlib import Path

from ..machine.files import as_path
from ..protocol import Model
from .checkpoint import Checkpoint
from .find import find_folder
from .huggingface import open_folder, save_folder


def open_checkpoint(name_or_path: str | Path | Checkpoint) -> Checkpoint:
    """Find a folder, a bundled model or one of the hub, and return it as a value; one that is open
    already as it is."""
    if isinstance(name_or_path, Checkpoint):
        return name_or_path
    return open_folder(find_folder(name_or_path))  # a format of one file: its reader goes here


def save_checkpoint(model: Model, path: str | Path, dtype=None) -> None:
    """Write a model as a folder, stored as `dtype` if given; see huggingface.save_folder."""
    save_folder(model, as_path(path), dtype)
