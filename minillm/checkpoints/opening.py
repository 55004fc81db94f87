"""From a name or a path to a checkpoint, and back: which format is whose is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .. import families
from ..errors import InputError
from ..machine.files import as_path
from ..protocol import Model
from ..tokenizer import Tokenizer
from . import huggingface, llama_cpp
from .checkpoint import Checkpoint, dtype_name
from .find import find_model

# A format of one file: the end of its name -> what opens it; a folder is Hugging Face's.
FILES = {".gguf": llama_cpp.open_file}


def open_checkpoint(name_or_path: str | Path | Checkpoint) -> Checkpoint:
    """Find a folder, a file, a bundled model or one of the hub, and return it as a value; one that
    is open already as it is."""
    if isinstance(name_or_path, Checkpoint):
        return name_or_path
    path = find_model(name_or_path)
    return huggingface.open_folder(path) if path.is_dir() else _open_file(path)


def config_of(name_or_path: str | Path):
    """The config alone, of a folder that may hold nothing else, too."""
    path = find_model(name_or_path)
    return families.read_config(path) if path.is_dir() else _open_file(path).config


def _open_file(path: Path) -> Checkpoint:
    if path.suffix.lower() not in FILES:
        raise InputError(
            f"model '{path}' is a file; minillm opens {', '.join(FILES)}, or a folder with"
            " config.json and the tokenizer's files"
        )
    return FILES[path.suffix.lower()](path)


def save_checkpoint(
    model: Model,
    path: str | Path,
    dtype=None,
    tokenizer: Tokenizer | None = None,
    about: Mapping[str, object] | None = None,
    show_progress: bool = False,
) -> None:
    """Write a model, stored as `dtype` if given, as a GGUF file where the name ends so, else as a
    folder; and its tokenizer, if given. about: name, licence and the like, by GGUF's keys."""
    path = as_path(path)
    if path.suffix.lower() == ".gguf":
        llama_cpp.save_file(model, path, dtype_name(dtype), tokenizer, about, show_progress)
        return
    huggingface.save_folder(model, path, dtype)
    if tokenizer is not None:
        tokenizer.save(path)
    if about:
        huggingface.save_card(path, about)
