"""From a name or a path to a checkpoint, and back: which format is whose is decided here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from .. import families
from ..errors import InputError
from ..machine.files import as_path
from ..protocol import Model
from ..tokenizer import Tokenizer
from ..weights import BFloat16Rounded
from . import huggingface, llama_cpp
from .checkpoint import Checkpoint, dtype_name
from .find import find_model


class Format(NamedTuple):
    """A format of one file: open(path) -> Checkpoint; save(model, path, dtype, tokenizer, about,
    show_progress), as save_checkpoint has them."""

    open: Callable[[Path], Checkpoint]
    save: Callable[..., None]


# By the end of a file's name; another format is another entry. A folder is Hugging Face's.
FORMATS = {".gguf": Format(llama_cpp.open_file, llama_cpp.save_file)}


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
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"model '{path}' is a file; minillm opens {', '.join(FORMATS)}, or a folder with"
            " config.json and the tokenizer's files"
        )
    return FORMATS[path.suffix.lower()].open(path)


def save_checkpoint(
    model: Model,
    path: str | Path,
    dtype=None,
    tokenizer: Tokenizer | None = None,
    about: Mapping[str, object] | None = None,
    show_progress: bool = False,
) -> None:
    """Write a model, stored as `dtype` if given, as a file where the name ends as one of FORMATS,
    else as a folder; and its tokenizer, if given. about: name, licence and the like, by GGUF's
    keys."""
    path = as_path(path)
    # that a matrix rounds what it multiplies is no part of a file
    rounding = {n: p for n, p in model.parameters.items() if isinstance(p, BFloat16Rounded)}
    model = model.with_parameters({n: p.exact for n, p in rounding.items()}) if rounding else model
    if path.suffix.lower() in FORMATS:
        form = FORMATS[path.suffix.lower()]
        form.save(model, path, dtype_name(dtype), tokenizer, about, show_progress)
        return
    huggingface.save_folder(model, path, dtype)
    if tokenizer is not None:
        tokenizer.save(path)
    if about:
        huggingface.save_card(path, about)
