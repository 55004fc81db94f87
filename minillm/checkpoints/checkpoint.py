"""A checkpoint as a value: what a file or a folder holds of a model, found out without reading it.

Whoever reads a format makes a Checkpoint; a model asks it for its parameters when their shapes are
known to fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, short
from ..families import Family
from ..families.family import MATRIX, TABLE
from ..weights import KINDS, Weight, store_parameters, to_array
from ..weights.weight import slabs
from .safetensors import forget

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

FLOATS = ("float64", "float32", "float16", "bfloat16")  # what holds one number beside the other


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file, which is read when it is asked for.

    name: what the file calls it. shape: as multiplied, tables [rows,C] and matrices [in,out]. kind:
    how it is stored, one of FLOATS or a Weight's. nbytes: what it takes in the file. read() -> an
    array, where it lies in the mapped file if that is possible, or a Weight.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: str
    nbytes: int
    read: Callable[[], np.ndarray | Weight]

    @property
    def where(self) -> str:
        """The file and the name, as the beginning of an error."""
        return f"{self.file}: tensor {self.name!r:.100}"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers it stands for."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """What lies at `path`: the family and the config of a model, its tensors by canonical name, and
    its tokenizer, which is read when it is first asked for.

    as_stored: whether a model of it keeps floating-point numbers as they lie there, too, where no
    dtype is asked for. about: name, licence and the like, by GGUF's keys.
    """

    path: Path
    family: Family
    config: Any
    tensors: dict[str, Tensor] = field(repr=False)
    read_tokenizer: Callable[[], Tokenizer | None] = field(repr=False)
    as_stored: bool = False
    read_about: Callable[[], dict[str, Any]] = field(default=dict, repr=False)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, or None where there is none."""
        return self.read_tokenizer()

    @property
    def stored(self) -> str:
        """In which form the matrices lie, or most of their numbers."""
        return most_stored(self.config, ((n, t.kind, t.size) for n, t in self.tensors.items()))

    @property
    def about(self) -> dict[str, Any]:
        """What is known of the model besides, such as general.license."""
        return self.read_about()


class Unread(dict):
    """The parameters of a model to be, {canonical name: Tensor}: it reads them when it has seen
    that they fit. `path`: where they lie."""

    def __init__(self, checkpoint: Checkpoint, dtype: str | None, panels: bool):
        """dtype: float64, one of KINDS, or None, which keeps blocks as they are and takes float32
        for all else, unless the checkpoint is to be kept as stored. panels: whether float32
        matrices are put into a Weight, too."""
        super().__init__(checkpoint.tensors)
        self.path, self.config = checkpoint.path, checkpoint.config
        self.dtype, self.as_stored, self.panels = dtype, checkpoint.as_stored, panels

    def read(self) -> dict[str, np.ndarray | Weight]:
        """Return {name: array or Weight}, each read and converted after the other, so that it takes
        little more memory than the result. Of arrays that are used where the file is mapped there
        are matrices only: all else is copied."""
        layout, found = self.config.layout, dict[str, Any](self)
        kinds = {n: self._kind(t) for n, t in self.items() if layout[n].role in (MATRIX, TABLE)}
        for kind in {*kinds.values()} & {*KINDS} - ({"float32"} if not self.panels else set()):
            names = [name for name in kinds if kinds[name] == kind]
            read = {n: self[n].read() if self[n].kind == kind else self[n] for n in names}
            found |= store_parameters(read, kind, layout, read=_read, release=forget)
        working = np.dtype("float64" if self.dtype == "float64" else "float32")
        for name, p in found.items():
            p = _read(p)
            if not isinstance(p, Weight) or p.kind != kinds[name]:
                p = to_array(p, working, release=forget)
                p = p if name in kinds else _copied(p)
            found[name] = p
        return found

    def _kind(self, tensor: Tensor) -> str:
        """What a matrix becomes."""
        if self.dtype is not None or (tensor.kind in FLOATS and not self.as_stored):
            return self.dtype or "float32"
        return tensor.kind


def most_stored(config, tensors: Iterable[tuple[str, str, int]]) -> str:
    """How most numbers of matrices are stored; tensors: name, kind and size of each."""
    sizes: dict[str, int] = {}
    for name, kind, size in tensors:
        if (parameter := config.layout.get(name)) and parameter.role == MATRIX:
            sizes[kind] = sizes.get(kind, 0) + size
    return max(sizes, key=sizes.__getitem__, default="float32")


def dtype_name(dtype) -> str | None:
    """np.float32, "float32" or np.dtype("float32") -> "float32"; the stored precisions are names
    already."""
    try:
        return dtype if dtype is None or isinstance(dtype, str) else str(np.dtype(dtype))
    except (TypeError, ValueError):
        raise InputError(f"dtype is {short(dtype)}; it must be a type's name") from None


def by_canonical_name(tensors: Iterable[Tensor], family: Family, config) -> dict[str, Tensor]:
    """Return a file's tensors by the names of the family's parameters; InputError for what holds no
    floating-point numbers.

    What is there under two names must be the same, which is seen when it is read.
    """
    found: dict[str, Tensor] = {}
    for tensor in tensors:
        if (name := family.canonical(tensor.name, config)) is None:
            continue
        if tensor.kind not in (*FLOATS, *KINDS):
            raise InputError(
                f"{tensor.where} holds {tensor.kind}; parameters are floating-point numbers"
            )
        parameter = config.layout.get(name)
        if family.turned and parameter and parameter.role == MATRIX and tensor.kind in FLOATS:
            tensor = _turned(tensor)
        found[name] = _same(found[name], tensor) if name in found else tensor
    return found


def _turned(tensor: Tensor) -> Tensor:
    """A matrix that a file holds as [out,in], as [in,out]."""
    return replace(tensor, shape=tensor.shape[::-1], read=lambda: tensor.read().T)


def _read(p):
    return p.read() if isinstance(p, Tensor) else p


def _copied(array: np.ndarray) -> np.ndarray:
    """A copy of what may be mapped, whose pages are given back."""
    copy = np.array(array)
    forget(array)
    return copy


def _same(one: Tensor, other: Tensor) -> Tensor:
    """One parameter that a file holds twice: `read` finds out whether it is the same."""

    def read():
        if _equal(found := one.read(), other.read()):
            return found
        raise InputError(
            f"{other.where} differs from {one.name!r:.100}; to the config both are one parameter"
        )

    return replace(one, read=read)


def _equal(a, b) -> bool:
    """Whether two tensors hold the same numbers; a slab at a time, so that it takes little
    memory."""
    a, b = (p.T if isinstance(p, Weight) and p.transposed else p for p in (a, b))
    return a.shape == b.shape and all(
        np.array_equal(rows, others, equal_nan=True)
        for (_, rows), (_, others) in zip(slabs(a, forget), slabs(b, forget))
    )
