"""A model's file as llama.cpp has it, in GGUF: settings, tensors and tokenizer in one.

Blocks of 8 and 4 bits become ours and back, the same numbers; what we have no blocks for (Q5_0,
Q5_1, Q4_K, Q5_K, Q6_K) is widened to float32. The rows of a Llama's queries and keys stand in
another order there (families/gguf.py). Source: the specification in ggml (docs/gguf.md); llama.cpp.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .. import families
from ..errors import InputError
from ..families.family import MATRIX, TABLE, Family
from ..families.gguf import Settings
from ..machine.forms import short
from ..machine.progress import progress_bar
from ..protocol import Model
from ..tokenizer import Tokenizer
from ..tokenizer import gguf as tokenizers
from ..weights import BF16, KINDS, BFloat16, Weight, store
from ..weights.blocks import BLOCK, Blocks
from ..weights.weight import Arena
from . import gguf
from .checkpoint import FLOATS, Checkpoint, Tensor, most_stored
from .safetensors import forget

KIND = {  # of a tensor -> of ours; others are widened
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "Q8_0": "int8",
    "Q4_0": "int4",
    "Q4_1": "int4_min",
}
TYPE = {kind: name for name, kind in KIND.items()}
FILE_TYPE = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32}  # of most matrices
DTYPE = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BF16}
SAMPLING = {  # of generation_config.json -> of general.sampling, and a form for both
    "temperature": ("temp", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "repetition_penalty": ("penalty_repeat", float),
}
log = logging.getLogger(__name__)
FACTORS = "rope_freqs.weight"


def open_file(path: Path) -> Checkpoint:
    """Return what lies in a GGUF file, each matrix in the type that it has there; InputError naming
    what is missing, or what minillm does not compute."""
    contents = gguf.read(path, tokens=False)
    metadata, found = contents.metadata, contents.tensors
    factors = found[FACTORS].read().ravel().tolist() if FACTORS in found else None
    config = _config(path, metadata, {n: tensor.shape for n, tensor in found.items()}, factors)
    family = families.of(config)
    _say_what_is_widened(found)
    ours = {theirs: name for name, theirs in names(family, config).items()}
    memory = _Memory(sum(tensor.raw.nbytes for tensor in found.values()))
    tensors = {
        ours.get(name, name): _tensor(path, family, config, ours.get(name), tensor, memory)
        for name, tensor in found.items()
        if name != FACTORS
    }
    return Checkpoint(
        path,
        family,
        config,
        tensors,
        lambda: _tokenizer(gguf.read_header(path)[0], path),
        as_stored=True,
        read_about=lambda: {k: v for k, v in metadata.items() if k.startswith("general.")},
    )


def header(path: Path) -> tuple[Any, str]:
    """The config of a GGUF file of which the beginning is there, without its factors of RoPE; and
    how its matrices are stored, as Checkpoint.stored."""
    metadata, found = gguf.read_header(path)
    config = _config(path, metadata, {name: shape for name, (shape, _) in found.items()}, None)
    ours = {theirs: name for name, theirs in names(families.of(config), config).items()}
    return config, most_stored(
        config,
        (
            (ours.get(name, name), KIND.get(kind, "float32"), prod(shape))
            for name, (shape, kind) in found.items()
        ),
    )


def _config(path: Path, metadata, shapes, factors):
    """The config that the settings and the shapes of a file describe."""
    try:
        if metadata.get("split.count", 0) not in (0, 1):
            raise InputError("one of several parts; join them with llama-gguf-split --merge")
        form = families.by_gguf(_text(metadata, "general.architecture")).gguf
        settings = Settings(form.architecture, metadata, shapes, factors)
        config = form.read(settings)
        settings.rest()
        return replace(config, generation=_sampling_read(metadata))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _sampling_read(metadata: Mapping[str, object]) -> dict | None:
    """What generation_config.json would say, or None."""
    values = {}
    for name, (key, form) in SAMPLING.items():
        if (value := metadata.get(f"general.sampling.{key}")) is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(
                    f"the key general.sampling.{key} is {short(value)}; it is a number"
                )
            values[name] = value if form is int else float(str(np.float32(value)))
    return {"do_sample": values.get("temperature") != 0, **values} if values else None


def _sampling_written(generation: Mapping) -> dict[str, object]:
    if not generation.get("do_sample"):
        return {}
    known = {f"general.sampling.{key}": (generation.get(n), f) for n, (key, f) in SAMPLING.items()}
    return {key: form(value) for key, (value, form) in known.items() if value is not None}


def names(family: Family, config) -> dict[str, str]:
    """{our name of a parameter: GGUF's}."""
    pairs = ((name, *name.rpartition(".")[::2]) for name in config.layout)
    return {n: f"{family.name_elsewhere('gguf', scope)}.{leaf}" for n, scope, leaf in pairs}


def _text(metadata: Mapping[str, object], key: str) -> str:
    if not isinstance(value := metadata.get(key), str):
        raise InputError(f"the key {key} is {short(value)}; needed: a text")
    return value


def _tokenizer(metadata: Mapping[str, object], path: Path) -> Tokenizer | None:
    none = metadata.get("tokenizer.ggml.model", "no_vocab") in ("no_vocab", "none")
    return None if none else Tokenizer(*tokenizers.read(metadata, path))


def _say_what_is_widened(found: Mapping[str, gguf.Tensor]) -> None:
    sizes: dict[str, int] = {}
    for tensor in found.values():
        if tensor.type not in KIND:
            sizes[tensor.type] = sizes.get(tensor.type, 0) + 4 * int(np.prod(tensor.shape))
    for kind, nbytes in sizes.items():
        log.info("%s widened to float32: %s MB", kind, f"{nbytes / 1e6:,.0f}")


class _Memory:
    """One Arena for all blocks of a file, made when the first is read; what does not fit any more,
    as when a tensor is read again, gets memory of its own."""

    def __init__(self, nbytes: int):
        self.nbytes, self.arena = 2 * nbytes, None  # panels are filled up; untouched pages are free

    def __call__(self, shape, dtype) -> np.ndarray:
        self.arena = self.arena or Arena(self.nbytes)
        needed = Arena.rounded(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        if self.arena.used + needed > self.nbytes:
            return np.empty(shape, dtype)
        return self.arena(shape, dtype)


def _tensor(path: Path, family: Family, config, name, found: gguf.Tensor, memory) -> Tensor:
    """A tensor of the file as a parameter `name` of the model; None for one that is none."""
    parameter = config.layout.get(name)
    matrix = parameter is not None and parameter.role == MATRIX
    kind = KIND.get(found.type, "float32")
    blocks = kind not in FLOATS and parameter is not None and parameter.role in (MATRIX, TABLE)

    def read():  # when it is known to have the parameter's shape
        order = _halves(found.shape[0], config.sizes.D) if _is_paired(family, name) else None
        if blocks:
            raw = found.raw if order is None else found.raw[order]
            release = partial(forget, found.raw)
            return KINDS[kind].from_ggml(raw, found.shape[-1], memory, matrix, release)
        if found.type in DTYPE:
            array = found.raw.view(DTYPE[found.type]).reshape(found.shape)
        else:
            array = found.read()
        array = array if order is None else array[order]
        return array.T if matrix else array

    shape = found.shape[::-1] if matrix else found.shape
    kept = kind if blocks or kind in FLOATS else "float32"
    return Tensor(path, found.name, shape, kept, found.raw.nbytes, read)


def _is_paired(family: Family, name: str | None) -> bool:
    """Whether rows of a parameter stand in pairs in a file."""
    scope = family.local_name(name)[1].rpartition(".")[0] if name else None
    return scope in family.gguf.paired


def _halves(n: int, D: int) -> np.ndarray:
    """Which row of a file, pairs 2i and 2i + 1 of each head, stands where in halves i and i + D/2:
    [n]."""
    return np.arange(n).reshape(-1, D // 2, 2).swapaxes(1, 2).reshape(-1)


def _pairs(n: int, D: int) -> np.ndarray:
    """The way back."""
    return np.arange(n).reshape(-1, 2, D // 2).swapaxes(1, 2).reshape(-1)


# ---- writing


def save_file(
    model: Model,
    path: Path,
    dtype: str | None = None,
    tokenizer: Tokenizer | None = None,
    about: Mapping[str, object] | None = None,
    show_progress: bool = False,
) -> None:
    """Write a model, and its tokenizer, as a GGUF file that llama.cpp runs.

    dtype: what matrices and tables become, one of KINDS; None keeps what they are, float64 as
    float32. Rows that are no whole blocks become F16; vectors and positions are F32. about: other
    keys, such as general.name. Raises InputError for a model that llama.cpp's graph does not
    describe.
    """
    family, config = model.family, model.config
    if dtype is not None and dtype not in TYPE:
        raise InputError(f"GGUF files hold {', '.join(TYPE)}; {short(dtype)} is none of them")
    if family.gguf is None:
        raise InputError(f"llama.cpp has no {family.title}, as far as minillm writes")
    if why := family.inexpressible("llama.cpp", config):
        raise InputError(f"llama.cpp has no {family.title} {why}")
    theirs, entries, odd = names(family, config), [], 0
    counts: dict[str, int] = {}
    for name, p in model.parameters.items():
        table, matrix = (model.layout[name].role == role for role in (TABLE, MATRIX))
        kind = "float32"
        if table or matrix:
            kind = dtype or getattr(p, "kind", str(p.dtype))
            kind = kind if kind in TYPE else "float32"
            if kind not in FLOATS and p.shape[1 if table else 0] % BLOCK:
                kind, odd = "float16", odd + 1
            counts[kind] = counts.get(kind, 0) + p.size
        order = _pairs(p.shape[-1], config.sizes.D) if _is_paired(family, name) else None
        shape = p.shape[::-1] if matrix else p.shape

        def raw(p=p, kind=kind, turned=matrix, order=order):
            return _raw(p, kind, turned, order)

        entries.append((theirs[name], shape, TYPE[kind], raw))
    if (factors := family.gguf.factors(config)) is not None:
        entries.append((FACTORS, factors.shape, "F32", lambda: factors))
    said = {f"{family.gguf.architecture}.{k}": v for k, v in family.gguf.write(config).items()}
    words = {"tokenizer.ggml.model": "no_vocab"}
    if tokenizer is not None:
        words = tokenizers.metadata(tokenizer, config.sizes.V)
    most = TYPE[max(counts, key=counts.__getitem__)]
    metadata = {
        **(about or {}),
        "general.architecture": family.gguf.architecture,
        "general.file_type": FILE_TYPE[most],
        "general.quantization_version": 2,
        **_sampling_written(model.generation_config),
    }
    metadata.pop("general.alignment", None)
    if odd:
        matrices = "matrix has" if odd == 1 else "matrices have"
        log.info("%s %s rows that are no multiple of %s: stored as F16", odd, matrices, BLOCK)
    with progress_bar("tensors", show_progress) as update:
        gguf.write(
            path,
            metadata | said | words,
            entries,
            update=lambda done: update(path.name, done, len(entries)),
        )


def _raw(p, kind: str, turned: bool, order) -> np.ndarray:
    """A parameter as a file holds it, rows first, in `order`. turned: whether it is a matrix
    [in,out]."""
    if kind not in FLOATS:
        if getattr(p, "kind", None) != kind:
            p = store(p if isinstance(p, Weight) else np.asarray(p), kind, table=not turned)
        assert isinstance(p, Blocks)
        rows = p.to_ggml()
    else:
        array = np.asarray(p).T if turned else np.asarray(p)
        if kind == "bfloat16":
            rows = BFloat16.to_stored(array.astype(np.float32))
        else:
            rows = array.astype(kind, copy=False)
    return rows if order is None else rows[order]
