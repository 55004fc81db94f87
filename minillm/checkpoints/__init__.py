"""From a name to a model: find the folder, read it, check every name and shape once; and save."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..config import GPT2Config
from ..errors import InputError
from ..files import write_atomically
from ..model import GPT2
from ..tokenizer import Tokenizer
from . import safetensors
from .find import find_folder

__all__ = ["find_folder", "load", "load_model", "save_model"]


def load(name_or_folder: str | Path = "tales", dtype=np.float32) -> tuple[GPT2, Tokenizer]:
    """Return (model, tokenizer) of a folder, a bundled name ("tales", "tales-draft") or a hub name ("gpt2")."""
    folder = find_folder(name_or_folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    model = load_model(folder, dtype)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(f"{folder}: vocab.json has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}")
    return model, tokenizer


def load_model(name_or_folder: str | Path, dtype=np.float32) -> GPT2:
    """Return the model of a folder in Hugging Face layout (config.json, model.safetensors or shards) or of a name.

    Arrays stored in `dtype` are used where they lie, memory-mapped; others are converted. Raises InputError naming the
    file, the tensor and both shapes where config and tensors disagree.
    """
    folder = find_folder(name_or_folder)
    config = GPT2Config.from_file(folder / "config.json")
    return GPT2(config, checked(config, safetensors.read_folder(folder), folder, dtype))


def checked(config: GPT2Config, tensors: Iterable[tuple[str, str, np.ndarray]], folder: Path, dtype) -> dict[str, np.ndarray]:
    """Check what a reader yields, (file, name, array), against the config; return it by checkpoint name, as `dtype`.

    The prefix `transformer.` is dropped, the mask buffers `attn.bias` and `attn.masked_bias` are ignored, and so is a
    copy of wte.weight as lm_head.weight where the head is tied.
    """
    shapes, parameters = config.parameter_shapes(), {}
    known = shapes | {"lm_head.weight": shapes["wte.weight"]}
    for file, stored_name, array in tensors:
        name = stored_name.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        where = f"{folder / file}: tensor {stored_name!r}"
        if name not in known:
            raise InputError(f"{where} {array.shape} is not part of the GPT-2 that config.json describes")
        if array.shape != known[name]:
            raise InputError(f"{where} has shape {array.shape}; config.json needs {known[name]}")
        if not np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{where} holds {array.dtype}; parameters are floating-point numbers")
        if name in parameters:
            raise InputError(f"{where} comes a second time")
        parameters[name] = array.astype(dtype, copy=not array.flags.aligned)
    if missing := [name for name in shapes if name not in parameters]:
        of = f"{len(missing)} of {len(shapes)} tensors are missing, the first"
        raise InputError(f"{folder}: {of} {missing[0]!r} {shapes[missing[0]]}")
    tied_copy = parameters.pop("lm_head.weight", None) if config.tie_word_embeddings else None
    if tied_copy is not None and not np.array_equal(tied_copy, parameters["wte.weight"], equal_nan=True):
        differ = "lm_head.weight differs from wte.weight"
        raise InputError(f"{folder / 'config.json'}: tie_word_embeddings is true, but {differ}")
    return parameters


def save_model(model: GPT2, folder: str | Path, dtype=None) -> None:
    """Write config.json and model.safetensors into `folder`, as transformers names them; stored as `dtype` if given."""
    if dtype is not None and not np.issubdtype(dtype, np.floating):
        raise InputError(f"parameters cannot be stored as {np.dtype(dtype)}: they are floating-point numbers")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, array in model.parameters.items():
        with np.errstate(over="ignore"):
            stored = array.astype(dtype or array.dtype, copy=False)
        if (overflown := np.isfinite(array) & ~np.isfinite(stored)).any():
            raise InputError(f"{name} has values up to {np.abs(array[overflown]).max():.3g}, too large for {stored.dtype}")
        tensors[name if name.startswith("lm_head") else f"transformer.{name}"] = stored
    safetensors.write(folder / "model.safetensors", tensors, {"format": "pt"})
    stored_type = str(next(iter(tensors.values())).dtype)
    write_atomically(
        folder / "config.json", (json.dumps(model.config.to_dict() | {"dtype": stored_type}, indent=2) + "\n").encode()
    )
