"""The safetensors format, read through a memory map and written whole.

Layout: 8 bytes, the header's length as a little-endian unsigned integer; the header, JSON, from
each name to {"dtype", "shape", "data_offsets": [begin, end]} counted from the header's end,
"__metadata__" holding text; then the data, without gaps. Source: the format's description in
huggingface/safetensors. The library's NumPy side has no bfloat16 and copies, hence our own.
"""

from __future__ import annotations

import json
import math
import mmap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..machine.files import MOST_BYTES, atomic_file, open_regular, parse_json
from ..machine.forms import check, short
from ..weights import BF16, Weight

DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": BF16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
MAX_DIMENSIONS = 64  # NumPy's


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors by name and the metadata of a safetensors file.

    Arrays are read-only views of the mapped file, in the stored dtype (bfloat16: weights.BF16).
    Where the file is cut short or copied over while they are in use, the process ends (SIGBUS): it
    may be replaced by renaming only. Raises InputError, naming the file and the tensor, for
    whatever does not agree with itself.
    """
    with open_regular(path) as file:
        size = file.seek(0, 2)
        if size < 8:
            raise InputError(
                f"{path}: {size} bytes are no safetensors file; copy or download it again"
            )
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    n_header = int.from_bytes(data[:8], "little")
    if n_header > size - 8:
        raise InputError(
            f"{path}: the header claims {n_header:,} bytes of a file of {size:,}: truncated or not"
            " safetensors"
        )
    if n_header > MOST_BYTES:
        raise InputError(f"{path}: a header of {n_header:,} bytes; at most {MOST_BYTES:,} are read")
    where = f"{path}: the header"
    header = parse_json(data[8 : 8 + n_header], dict, where, _no_duplicates)
    metadata = check(header.pop("__metadata__", {}), dict[str, str], f"{where}: __metadata__")

    n_data, tensors, spans = size - 8 - n_header, {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _checked_entry(path, name, entry, n_data)
        spans.append((begin, end, name))
        array = np.frombuffer(data, dtype, math.prod(shape), 8 + n_header + begin)
        tensors[name] = array.reshape(shape)
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise InputError(
                f"{path}: tensor {name!r} begins at byte {begin}, the one before ends at {position}"
            )
        position = end
    if position != n_data:
        raise InputError(
            f"{path}: the tensors end at byte {position:,} of {n_data:,} bytes of data"
        )
    return tensors, metadata


def read_exactly(path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return copies of the tensors of a file that minillm wrote: these names and shapes, of
    float32, and no others; InputError else."""
    tensors, _ = read(path)
    for name in sorted(shapes.keys() | tensors.keys()):
        found = tensors.get(name)
        if found is None or found.shape != shapes.get(name) or found.dtype != np.float32:
            found = "missing" if found is None else f"{found.dtype} {found.shape}"
            needed = f"float32 {shapes[name]}" if name in shapes else "no such tensor"
            raise InputError(f"{path}: tensor {short(name)} is {short(found)}; needed: {needed}")
    return {name: np.array(array) for name, array in tensors.items()}


def _no_duplicates(pairs):
    table = dict(pairs)
    if len(table) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r:.100} occurs twice")
    return table


def _checked_entry(path, name, entry, n_data: int):
    """Return dtype, shape, begin and end of one tensor, after checking that they agree with each
    other."""

    def wrong(what: str) -> InputError:
        return InputError(f"{path}: tensor {name!r:.100}: {what}")

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong("its entry must have dtype, shape and data_offsets")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise wrong(f"dtype {entry['dtype']!r:.100} is unknown; known: {', '.join(DTYPES)}")
    for key in ("shape", "data_offsets"):
        if not isinstance(entry[key], list) or not all(
            type(n) is int and n >= 0 for n in entry[key]
        ):
            raise wrong(f"{key} {entry[key]!r:.100} must be a list of whole numbers of at least 0")
    if len(entry["data_offsets"]) != 2:
        raise wrong(f"data_offsets {entry['data_offsets']!r:.100} must be [begin, end]")
    dtype, shape, (begin, end) = (
        np.dtype(DTYPES[entry["dtype"]]),
        entry["shape"],
        entry["data_offsets"],
    )
    if len(shape) > MAX_DIMENSIONS or math.prod(n or 1 for n in shape) * dtype.itemsize >= 2**63:
        raise wrong(
            f"shape {shape!r:.100} is more than an array can have"
        )  # an empty one, [0, 2**63], too
    if not begin <= end <= n_data:
        raise wrong(
            f"data_offsets {[begin, end]} lie outside the file's {n_data:,} bytes of data:"
            " truncated?"
        )
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise wrong(
            f"shape {shape} of {entry['dtype']} takes {math.prod(shape) * dtype.itemsize:,} bytes,"
            f" not {end - begin:,}"
        )
    return dtype, shape, begin, end


def forget(parameter: np.ndarray | Weight) -> None:
    """Give back the memory that the file mapped for an array or a Weight takes, where the system
    can; it is read again when needed."""
    arrays = parameter.arrays.values() if isinstance(parameter, Weight) else (parameter,)
    for base in arrays:
        while isinstance(base, np.ndarray | memoryview):
            base = base.base if isinstance(base, np.ndarray) else base.obj
        if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
            base.madvise(mmap.MADV_DONTNEED)


def write(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file, all or nothing: the tensors in their own dtypes (bfloat16:
    weights.BF16), each aligned to its size."""
    header, arrays = _laid_out(path, tensors, metadata)
    with atomic_file(Path(path)) as file:
        file.write(header)
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)


def to_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return what `write` writes."""
    header, arrays = _laid_out("a file", tensors, metadata)
    return header + b"".join(array.tobytes() for array in arrays)


def _laid_out(
    path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None
) -> tuple[bytes, list[np.ndarray]]:
    """The beginning of a file, up to the data, and the arrays in the order in which they follow."""
    entries: dict = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    ordered = sorted(
        tensors.items(), key=lambda item: -item[1].dtype.itemsize
    )  # the widest first: all stay aligned
    for name, array in ordered:
        if name == "__metadata__":
            raise InputError(
                f"{path}: no tensor can be called {name!r}: there the format keeps its metadata"
            )
        if array.dtype not in NAMES:
            raise InputError(
                f"{path}: tensor {name!r} has dtype {array.dtype}, which safetensors cannot hold"
            )
        offsets = [position, position + array.nbytes]
        entries[name] = {
            "dtype": NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": offsets,
        }
        position += array.nbytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header, [array for _, array in ordered]
