"""From a name to a model: find the folder, read it, check every name and shape once; and save."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .. import families
from ..errors import InputError
from ..machine.files import write_atomically
from ..model import Model, model_of
from ..tokenizer import Tokenizer
from ..twins.choose import twin
from ..twins.threads import keep_to_quota
from ..twins.twin import Twin, abilities
from ..weights import BF16, KINDS, BFloat16, Weight, store_parameters, to_array
from ..weights.weight import slabs
from . import safetensors
from .find import find_folder
from .stored import pack

FLOATS = ("float64", "float32", "float16", "bfloat16")  # what a file holds that transformers reads

__all__ = ["find_folder", "load", "load_model", "save_model"]


def load(
    name_or_folder: str | Path = "tales", dtype=None, kernels: str | Twin | None = None
) -> tuple[Model, Tokenizer]:
    """Return (model, tokenizer) of a folder, a bundled name ("tales", "tales-draft") or a hub name
    ("gpt2").

    dtype and kernels: see load_model.
    """
    folder = find_folder(name_or_folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    model = load_model(folder, dtype, kernels)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model"
            f" {model.config.vocab_size}"
        )
    return model, tokenizer


def load_model(name_or_folder: str | Path, dtype=None, kernels: str | Twin | None = None) -> Model:
    """Return the model of a folder in Hugging Face layout (config.json, model.safetensors or
    shards) or of a name.

    dtype: float32, float64, or a stored precision (bfloat16, float16, int8, int4, int4_min); None
    keeps a quantised model as it is and takes float32 for any other. kernels: "numpy", "numba",
    "auto", or a twin (see minillm.twins.choose). NumPy uses arrays of its dtype where they lie,
    memory-mapped; everything else is converted a few rows at a time, so that it takes little more
    memory than the result. A mapped file must not be written into or cut short while its model is
    in use, which would end the process: put another in its place by renaming, as save_pretrained
    does (Windows then says that it is in use). Raises InputError naming the file, the tensor and both shapes
    where config and tensors disagree.
    """
    if (kind := _name_of(dtype)) not in (None, "float64", *KINDS):
        raise InputError(f"dtype is {kind!r}; it must be float64 or one of {', '.join(KINDS)}")
    keep_to_quota()
    ops = twin(kernels)
    folder = find_folder(name_or_folder)
    config = families.read_config(folder)
    parameters = checked(config, safetensors.read_folder(folder), folder)
    if kind is None and not any(isinstance(p, Weight) for p in parameters.values()):
        kind = "float32"
    plain = kind == "float64" or (kind == "float32" and not abilities(ops).stores_panels)
    working, forget = np.dtype(kind if plain else "float32"), safetensors.forget
    if kind is not None and not plain:
        parameters = store_parameters(parameters, kind, config.layout, release=forget)
    for name, p in parameters.items():
        if plain or not isinstance(p, Weight):
            parameters[name] = to_array(p, working, release=forget)
    return model_of(config, parameters, ops)


def checked(
    config, tensors: Iterable[tuple[str, str, np.ndarray]], folder: Path
) -> dict[str, np.ndarray]:
    """Check what a reader yields, (file, name, array), against the config; return it by checkpoint
    name.

    The prefix `transformer.` is dropped, the mask buffers `attn.bias` and `attn.masked_bias` are
    ignored. A tied head is there once, as wte.weight or as lm_head.weight, or twice and equal.
    """
    shapes, parameters = config.parameter_shapes(), {}
    known = shapes | {"lm_head.weight": shapes["wte.weight"]}
    for file, stored_name, array in tensors:
        name = stored_name.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        where = f"{folder / file}: tensor {stored_name!r}"
        if name not in known:
            wrapped = name.startswith(("_orig_mod.", "module."))
            hint = "; save the model that the wrapper (compile, parallel) holds" if wrapped else ""
            raise InputError(
                f"{where} {array.shape} is not part of the GPT-2 that config.json describes{hint}"
            )
        if array.shape != known[name]:
            turned = array.shape == known[name][::-1]
            hint = " (turned: GPT-2's Conv1D stores [in, out])" if turned else ""
            raise InputError(
                f"{where} has shape {array.shape}; config.json needs {known[name]}{hint}"
            )
        # a Weight's dtype is that of what comes out
        if array.dtype != BF16 and not np.issubdtype(array.dtype, np.floating):
            raise InputError(f"{where} holds {array.dtype}; parameters are floating-point numbers")
        if name in parameters:
            raise InputError(f"{where} comes a second time")
        small = not isinstance(array, Weight) and safetensors.is_small(name, array)
        parameters[name] = array.copy() if small else array
    tied = parameters.pop("lm_head.weight", None) if config.tie_word_embeddings else None
    if tied is not None and not _equal(parameters.setdefault("wte.weight", tied), tied):
        differ = "lm_head.weight differs from wte.weight"
        raise InputError(f"{folder / 'config.json'}: tie_word_embeddings is true, but {differ}")
    if missing := [name for name in shapes if name not in parameters]:
        of = f"{len(missing)} of {len(shapes)} tensors are missing, the first"
        raise InputError(f"{folder}: {of} {missing[0]!r} {shapes[missing[0]]}")
    return parameters


def save_model(model: Model, folder: str | Path, dtype=None) -> None:
    """Write config.json, model.safetensors and, where the model has one, generation_config.json
    into `folder`; stored as `dtype` if given, one of FLOATS.

    transformers loads the result, unless matrices are quantised (see checkpoints.stored), which
    only minillm reads.
    """
    if (dtype := _name_of(dtype)) not in (None, *FLOATS):
        raise InputError(
            f"parameters cannot be stored as {dtype}; it must be one of {', '.join(FLOATS)}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays, quantized = {}, {}
    for name, parameter in model.parameters.items():
        full_name = name if name.startswith("lm_head") else f"transformer.{name}"
        stored = isinstance(parameter, Weight)
        if stored and parameter.block > 1 and dtype is None:
            quantized[full_name] = parameter
            continue
        array = (
            parameter.dense() if stored else np.asarray(parameter)
        )  # low rank and sparse ones become whole matrices
        kind = dtype or (parameter.kind if stored else str(array.dtype))
        if kind == "bfloat16":
            arrays[full_name] = BFloat16.to_stored(array.astype(np.float32)).view(BF16)
            continue
        with np.errstate(over="ignore"):
            arrays[full_name] = array.astype(kind, copy=False)
        if (overflown := np.isfinite(array) & ~np.isfinite(arrays[full_name])).any():
            raise InputError(
                f"{name} has values up to {np.abs(array[overflown]).max():.3g}, too large for"
                f" {kind}"
            )
    tensors, metadata = pack(quantized)
    safetensors.write(folder / "model.safetensors", arrays | tensors, {"format": "pt", **metadata})
    config = model.config.to_dict() | {"dtype": dtype or model.stored}
    for name, values in (
        ("config.json", config),
        ("generation_config.json", model.generation_config),
    ):
        if values or (folder / name).exists():  # not another model's
            write_atomically(folder / name, (json.dumps(values, indent=2) + "\n").encode())


def _equal(a, b) -> bool:
    """Whether two tables hold the same numbers; a slab at a time, so that it takes little memory."""
    forget = safetensors.forget
    return all(
        np.array_equal(rows, others, equal_nan=True)
        for (_, rows), (_, others) in zip(slabs(a, forget), slabs(b, forget))
    )


def _name_of(dtype) -> str | None:
    """np.float32, "float32" or np.dtype("float32") -> "float32"; the stored precisions are names
    already."""
    return dtype if dtype is None or isinstance(dtype, str) else str(np.dtype(dtype))
