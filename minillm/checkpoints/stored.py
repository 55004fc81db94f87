"""Quantised matrices in a safetensors file: each array of a Weight is a tensor, and the metadata
say how to read them.

The key `minillm` of the metadata holds JSON, {name: {"kind", "shape"}}, with the kind of storage
(minillm.weights.KINDS) and the shape as multiplied, tables [rows,C] and matrices [in,out]. The
array `values` of the weight `h.0.attn.c_attn.weight` is the tensor of that name, its `scales` are
`h.0.attn.c_attn.weight.scales`; they are used where they lie in the mapped file. Whoever looks for
a matrix finds the name with another shape, and refuses the file; under a name of its own, as 0.1
had it (`h.0.attn.c_attn.weight.values`, which is read still), the matrix would be missing, and
transformers would draw it at random.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from ..errors import InputError
from ..machine.files import parse_json
from ..machine.forms import short
from ..weights import KINDS, Weight

KEY = "minillm"


class Described(TypedDict):
    """What the metadata say of a weight."""

    kind: Literal["float32", "bfloat16", "float16", "int8", "int4", "int4_min"]  # of KINDS
    shape: list[int]


def pack(weights: Mapping[str, Weight]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors that hold `weights`, and the metadata."""
    tensors = {
        tensor_name(name, part): array
        for name, weight in weights.items()
        for part, array in weight.arrays.items()
    }
    table = {
        name: {"kind": weight.kind, "shape": list(weight.shape)} for name, weight in weights.items()
    }
    return tensors, {KEY: json.dumps(table)} if table else {}


def tensor_name(name: str, part: str) -> str:
    """The name of the tensor that holds one array of a weight."""
    return name if part == "values" else f"{name}.{part}"


def unpack(
    file: Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    is_table: Callable[[str], bool],
) -> dict[str, np.ndarray | Weight]:
    """Return `tensors` with those that belong together put together; InputError naming what does
    not fit. is_table: whether a name is that of a table [rows,C]."""
    found: dict[str, np.ndarray | Weight] = dict(tensors)
    where = f"{file}: the metadata {KEY!r}"
    if KEY not in metadata:
        return found
    for name, entry in parse_json(metadata[KEY], dict[str, Described], where).items():
        kind, shape = KINDS[entry["kind"]], entry["shape"]
        if len(shape) != 2 or not all(0 < n < 2**31 for n in shape):
            raise InputError(
                f"{where}: {short(name)} has the shape {short(shape)}; stored weights are matrices"
            )
        rows, k = shape if is_table(name) else shape[::-1]
        arrays: dict[str, Any] = {}
        for part, (expected, dtype) in kind.shapes(rows, k).items():
            tensor = tensor_name(name, part)
            array = found.pop(tensor, None)
            if array is None:
                array = found.pop(f"{name}.{part}", None)  # the name in 0.1
            if array is None or array.shape != expected or array.dtype != dtype:
                there = "missing" if array is None else f"{array.dtype} {array.shape}"
                needed = f"{np.dtype(dtype)} {expected}"
                raise InputError(
                    f"{file}: tensor {tensor!r} is {there}; {kind.kind} {shape} needs {needed}"
                )
            arrays[part] = array
        found[name] = kind(arrays, rows, k, transposed=not is_table(name))
    return found
