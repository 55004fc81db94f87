"""GGUF, the file format of llama.cpp: metadata and tensors in one file, read where they lie and
written, without any library.

A file is a header, key-value pairs, a table of tensors (name, dimensions, type, offset), and their
bytes, each at a multiple of the alignment. Dimensions stand the other way round than here: [in,
out] of a matrix whose rows are outputs. Blocks of few bits: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 hold 32
numbers of a row, Q4_K, Q5_K and Q6_K 256. Source: the specification in ggml (docs/gguf.md) and the
layouts of ggml-common.h.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..machine.files import atomic_file, open_regular
from ..machine.forms import short

MAGIC, VERSIONS = b"GGUF", (2, 3)
ALIGNMENT = 32  # of tensors, where general.alignment says nothing
MOST_KEYS, MOST_TENSORS, MOST_NAME = 10_000, 100_000, 256
MOST_ITEMS = 4_000_000  # of an array in the metadata: a vocabulary has some hundred thousands


# ---- numbers in the metadata

STRING, ARRAY = 8, 9
SCALARS = {  # number of a type -> its format in struct, little-endian
    0: "B",
    1: "b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
WHOLE, REAL = (4, 5, 11, 10), (6, 12)  # types that are written: the first that holds a number


# ---- types of tensors


def _halves(raw: np.ndarray) -> np.ndarray:
    """[n, 2 m] bytes of float16 -> float32 [n, m]."""
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)


def _nibbles(raw: np.ndarray) -> np.ndarray:
    """[n, 16 bytes] -> [n, 32]: first the low halves of all bytes, then the high ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=1)


def _fifth_bits(raw: np.ndarray) -> np.ndarray:
    """[n, 4 bytes] -> [n, 32]: bit i of the block's 32, as 16 or 0."""
    bits = np.ascontiguousarray(raw).view("<u4") >> np.arange(32, dtype=np.uint32)
    return (bits & 1).astype(np.uint8) << 4


def _q4_0(raw):
    return _halves(raw[:, :2]) * (_nibbles(raw[:, 2:]).astype(np.int8) - 8).astype(np.float32)


def _q4_1(raw):
    d, m = _halves(raw[:, :2]), _halves(raw[:, 2:4])
    return d * _nibbles(raw[:, 4:]).astype(np.float32) + m


def _q5_0(raw):
    q = (_nibbles(raw[:, 6:]) | _fifth_bits(raw[:, 2:6])).astype(np.int8) - 16
    return _halves(raw[:, :2]) * q.astype(np.float32)


def _q5_1(raw):
    d, m = _halves(raw[:, :2]), _halves(raw[:, 2:4])
    return d * (_nibbles(raw[:, 8:]) | _fifth_bits(raw[:, 4:8])).astype(np.float32) + m


def _q8_0(raw):
    return raw[:, 2:].view(np.int8).astype(np.float32) * _halves(raw[:, :2])


def _eighths(raw, q):
    """Eight parts of 32: w = d s q - dmin m, with s and m of 6 bits each, packed into 12 bytes."""
    d, dmin = _halves(raw[:, :2]), _halves(raw[:, 2:4])
    first, second, third = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    s = np.concatenate([first & 63, (third & 15) | ((first >> 2) & 48)], axis=1)
    m = np.concatenate([second & 63, (third >> 4) | ((second >> 2) & 48)], axis=1)
    scaled = (d * s.astype(np.float32))[:, :, None] * q.astype(np.float32)
    return (scaled - (dmin * m.astype(np.float32))[:, :, None]).reshape(-1, 256)


def _nibbles_of_eighths(raw):
    """[n, 128 bytes] -> [n, 8, 32]: of every 32 bytes first the low halves, then the high ones."""
    q = raw.reshape(-1, 4, 1, 32) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    return (q & 15).reshape(-1, 8, 32)


def _q4_k(raw):
    return _eighths(raw, _nibbles_of_eighths(raw[:, 16:]))


def _q5_k(raw):
    """The fifth bits of part i are bits i of 32 bytes."""
    fifth = raw[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return _eighths(raw, _nibbles_of_eighths(raw[:, 48:]) | fifth << 4)


def _q6_k(raw):
    """Sixteen parts of 16: w = d s (q - 32), q of 6 bits in two places, s of 8."""
    low, high, scales, d = raw[:, :128], raw[:, 128:192], raw[:, 192:208], _halves(raw[:, 208:])
    low = low.reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    high = high.reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    q = (low & 15).reshape(-1, 8, 32) | ((high & 3).reshape(-1, 8, 32) << 4)
    q = (q.astype(np.int8) - 32).reshape(-1, 16, 16).astype(np.float32)
    d = d * np.ascontiguousarray(scales).view(np.int8).astype(np.float32)
    return (d[:, :, None] * q).reshape(-1, 256)


class Type(NamedTuple):
    """How a tensor is stored: `numbers` of a row take `nbytes` bytes together; `widen` gives their
    float32, of raw [n, nbytes]."""

    number: int
    numbers: int
    nbytes: int
    widen: Callable[[np.ndarray], np.ndarray]


TYPES = {
    "F32": Type(0, 1, 4, lambda raw: np.ascontiguousarray(raw).view("<f4")),
    "F16": Type(1, 1, 2, _halves),
    "Q4_0": Type(2, 32, 18, _q4_0),
    "Q4_1": Type(3, 32, 20, _q4_1),
    "Q5_0": Type(6, 32, 22, _q5_0),
    "Q5_1": Type(7, 32, 24, _q5_1),
    "Q8_0": Type(8, 32, 34, _q8_0),
    "Q4_K": Type(12, 256, 144, _q4_k),
    "Q5_K": Type(13, 256, 176, _q5_k),
    "Q6_K": Type(14, 256, 210, _q6_k),
    "BF16": Type(
        30,
        1,
        2,
        lambda raw: (np.ascontiguousarray(raw).view("<u2").astype(np.uint32) << 16).view(
            np.float32
        ),
    ),
}
BY_NUMBER = {t.number: name for name, t in TYPES.items()}
OTHER_TYPES = {  # known by name, not read
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file: shape as NumPy counts, rows first; `raw` uint8 [rows, bytes of a row],
    where it lies."""

    name: str
    shape: tuple[int, ...]
    type: str
    raw: np.ndarray

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Some rows as float32 [rows, columns]."""
        t, raw = TYPES[self.type], self.raw[start:stop]
        blocks = raw.reshape(-1, t.nbytes)
        return t.widen(blocks).reshape(len(raw), self.shape[-1])

    def read(self) -> np.ndarray:
        """All of it as float32, in its shape."""
        return self.rows().reshape(self.shape)


@dataclass(frozen=True)
class Contents:
    """What a file holds: metadata {key: value} (numbers, texts, lists of either), tensors {name:
    Tensor}."""

    path: Path
    metadata: dict[str, object]
    tensors: dict[str, Tensor]


class Reader:
    """Reads what a file begins with, value by value; whatever lies beyond its end is one line.
    Lists of texts that it does not keep are empty."""

    def __init__(self, data: np.ndarray, path: Path):
        self.data, self.path, self.at, self.keeps_texts = data, path, 0, True

    def wrong(self, what: str) -> InputError:
        return InputError(f"{self.path}: {what}")

    def take(self, n: int, what: str) -> memoryview:
        """The next n bytes."""
        if n > len(self.data) - self.at:
            raise self.wrong(f"the file ends inside {what}, at byte {len(self.data):,}")
        self.at += n
        return self.data[self.at - n : self.at].data

    def number(self, kind: str, what: str):
        """The next number of a format of struct."""
        return struct.unpack(kind, self.take(struct.calcsize(kind), what))[0]

    def count(self, most: int, what: str) -> int:
        """The next number of things, at most so many."""
        n = self.number("<Q", what)
        if n > most:
            raise self.wrong(f"{what} is {n:,}; minillm takes at most {most:,}")
        return n

    def text(self, what: str, most: int = 1 << 24) -> str:
        """The next text."""
        raw = bytes(self.take(self.count(most, f"the length of {what}"), what))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.wrong(f"{what} is no UTF-8") from None

    def texts(self, n: int, what: str) -> list[str]:
        """The next n texts: of a vocabulary, hence without a call for each part of each."""
        view, at, texts, length_at = self.data.data, self.at, [], struct.Struct("<Q").unpack_from
        last = len(view) - 8
        try:
            for _ in range(n):
                start = at + 8
                at = start + length_at(view, at)[0] if at <= last else len(view) + 1
                if at > len(view):
                    raise self.wrong(f"the file ends inside {what}, at byte {len(view):,}")
                if self.keeps_texts:
                    texts.append(str(view[start:at], "utf-8"))
        except UnicodeDecodeError:
            raise self.wrong(f"{what} is no UTF-8") from None
        self.at = at
        return texts

    def value(self, kind: int, what: str):
        """The next value of a type of the metadata."""
        if kind == STRING:
            return self.text(what)
        if kind in SCALARS:
            return self.number(SCALARS[kind], what)
        if kind != ARRAY:
            raise self.wrong(f"{what} has the unknown type {kind}")
        inner = self.number("<I", what)
        n = self.count(MOST_ITEMS, f"the number of items of {what}")
        if inner == STRING:
            return self.texts(n, what)
        if inner not in SCALARS:
            raise self.wrong(f"{what} is an array of the type {inner}; needed: numbers or texts")
        form = "?" if SCALARS[inner] == "?" else np.dtype(SCALARS[inner].replace("b", "i1"))
        size = struct.calcsize(SCALARS[inner])
        return np.frombuffer(self.take(n * size, what), form).tolist()


def read(path: str | Path, tokens: bool = True) -> Contents:
    """Return what a GGUF file holds; its tensors are looked at where they lie, memory-mapped.
    tokens: whether with the tokenizer's lists of texts, which take some MB; `read_header` has them.

    Raises InputError, in one line, for what is no GGUF of version 2 or 3, for counts, lengths,
    types and offsets that cannot be, and for tensors that overlap.
    """
    reader, metadata, described, start = _header(Path(path), tokens)
    return Contents(Path(path), metadata, _tensors(reader, described, start))


def read_header(path: str | Path) -> tuple[dict[str, object], dict[str, tuple[tuple, str]]]:
    """Return the metadata of a file, and shape and type of each tensor: they may be all of it that
    is there. Raises InputError as `read` does."""
    _, metadata, described, _ = _header(Path(path))
    return metadata, {name: (shape, kind) for name, shape, kind, *_ in described}


def _header(path: Path, tokens: bool = True):
    """What stands before the tensors, read: the reader, metadata, table, where they begin."""
    with open_regular(path) as file:
        size = file.seek(0, 2)
        if size < 24:
            raise InputError(f"{path}: {size} bytes are no GGUF file; copy or download it again")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = Reader(np.frombuffer(data, np.uint8), path)
    if (magic := bytes(reader.take(4, "the header"))) != MAGIC:
        raise reader.wrong(f"it begins with {magic!r}, where a GGUF file has b'GGUF'")
    version = reader.number("<I", "the header")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        hint = " (written for a big-endian machine)" if swapped in VERSIONS else ""
        raise reader.wrong(f"GGUF of version {version}{hint}; minillm reads 2 and 3")
    n_tensors = reader.count(MOST_TENSORS, "the number of tensors")
    n_keys = reader.count(MOST_KEYS, "the number of keys")
    metadata: dict[str, object] = {}
    for _ in range(n_keys):
        key = reader.text("a key", 1 << 16)
        if key in metadata:
            raise reader.wrong(f"the key {short(key)} comes twice")
        reader.keeps_texts = tokens or not key.startswith("tokenizer.")
        metadata[key] = reader.value(reader.number("<I", short(key)), f"the value of {short(key)}")
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise reader.wrong(f"general.alignment is {short(alignment)}; needed: a power of two")
    described = [_described(reader, alignment) for _ in range(n_tensors)]
    start = -(-reader.at // alignment) * alignment
    return reader, metadata, described, start


def _described(reader: Reader, alignment: int):
    """The next line of the table of tensors: name, shape, type, bytes of a row, offset."""
    name = reader.text("the name of a tensor", MOST_NAME)
    what = f"tensor {short(name)}"
    if not 1 <= (n := reader.number("<I", what)) <= 4:
        raise reader.wrong(f"{what} has {n} dimensions; needed: 1 to 4")
    shape = tuple(reader.number("<Q", what) for _ in range(n))[::-1]
    number, offset = reader.number("<I", what), reader.number("<Q", what)
    if number not in BY_NUMBER:
        named = OTHER_TYPES.get(number, f"number {number}")
        raise reader.wrong(f"{what} is of type {named}; minillm reads {', '.join(TYPES)}")
    kind = BY_NUMBER[number]
    if not all(0 < size < 1 << 40 for size in shape):
        raise reader.wrong(f"{what} has the shape {short(shape)}")
    if shape[-1] % TYPES[kind].numbers:
        raise reader.wrong(
            f"{what} has rows of {shape[-1]:,}; {kind} needs a multiple of {TYPES[kind].numbers}"
        )
    if offset % alignment:
        raise reader.wrong(f"{what} lies at byte {offset:,}, no multiple of {alignment}")
    return name, shape, kind, shape[-1] // TYPES[kind].numbers * TYPES[kind].nbytes, offset


def _tensors(reader: Reader, described, start: int) -> dict[str, Tensor]:
    """{name: Tensor} of a table whose bytes begin at `start`."""
    tensors, ends, data = {}, 0, reader.data[start:]
    for name, shape, kind, row, offset in sorted(described, key=lambda d: d[4]):
        nbytes = math.prod(shape[:-1]) * row
        if name in tensors:
            raise reader.wrong(f"tensor {short(name)} comes twice")
        if offset < ends:
            raise reader.wrong(f"tensor {short(name)} begins inside the one before it")
        ends = offset + nbytes
        if ends > len(data):
            raise reader.wrong(
                f"tensor {short(name)} ends at byte {start + ends:,}, the file at"
                f" {len(reader.data):,}: it is cut short"
            )
        tensors[name] = Tensor(name, shape, kind, data[offset:ends].reshape(-1, row))
    return {name: tensors[name] for name, *_ in described}


# ---- writing


def write(
    path: str | Path,
    metadata: Mapping[str, object],
    tensors: Iterable[tuple[str, tuple[int, ...], str, Callable[[], np.ndarray]]],
    update: Callable[[int], None] = lambda done: None,
) -> None:
    """Write a GGUF file of version 3: tensors are (name, shape, type, function that gives the bytes
    as an array of any type), asked for one at a time; update: called with how many are written.

    Whole numbers of the metadata are U32, floats F32, lists of texts or numbers arrays (I32, F32),
    those that do not fit of a wider type.
    """
    tensors = list(tensors)
    head = bytearray(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += _text(key) + _value(value)
    offset, lengths = 0, []
    for name, shape, kind, _ in tensors:
        t = TYPES[kind]
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        head += struct.pack("<IQ", t.number, offset)
        lengths.append(math.prod(shape) // t.numbers * t.nbytes)
        offset += -(-lengths[-1] // ALIGNMENT) * ALIGNMENT

    with atomic_file(Path(path)) as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for done, ((name, _, kind, raw), length) in enumerate(zip(tensors, lengths)):
            update(done)
            data = np.ascontiguousarray(raw())
            if data.nbytes != length:
                raise ValueError(f"{name}: {data.nbytes} bytes, where {kind} needs {length}")
            file.write(data.data)
            file.write(bytes(-length % ALIGNMENT))


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "replace")  # a folder's name may be no UTF-8
    return struct.pack("<Q", len(raw)) + raw


def _value(value) -> bytes:
    """A value with its type before it."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if not isinstance(value, list | tuple):
        kind, raw = _packed([value], REAL if isinstance(value, float) else WHOLE)
        return struct.pack("<I", kind) + raw
    head = struct.pack("<I", ARRAY)
    if value and isinstance(value[0], str):
        return head + struct.pack("<IQ", STRING, len(value)) + b"".join(map(_text, value))
    kind, raw = _packed(value, REAL if any(isinstance(v, float) for v in value) else (5, *WHOLE))
    return head + struct.pack("<IQ", kind, len(value)) + raw


def _packed(values, kinds: tuple[int, ...]) -> tuple[int, bytes]:
    """The first of some types of numbers that holds all values, and their bytes."""
    for kind in kinds:
        with suppress(struct.error, OverflowError):
            return kind, struct.pack(f"<{len(values)}{SCALARS[kind][-1]}", *values)
    raise ValueError(f"no type of GGUF holds {short(values)}")
