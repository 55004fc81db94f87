"""GGUF files: what is written is read, every block type as ggml reads it, and what is broken is one
line."""

import struct

import numpy as np
import pytest

from minillm import InputError
from minillm.checkpoints import gguf

RNG = np.random.default_rng(0)
HALVES = dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)) | {"Q6_K": (208,)}  # of scales
METADATA = {
    "general.architecture": "gpt2",
    "whole": 5,
    "part": 1.5,
    "flag": True,
    "texts": ["x", "Ġé"],
    "numbers": [1, -2],
    "shares": [1.0, 2.5],
}


def blocks(kind: str, n: int = 12) -> np.ndarray:
    """n random blocks [n, bytes] whose scales are finite."""
    t = gguf.TYPES[kind]
    if t.numbers == 1:
        values = RNG.standard_normal(n).astype(np.float32)
        if kind == "BF16":
            return (values.view(np.uint32) >> 16).astype("<u2").view(np.uint8).reshape(n, 2)
        return values.astype({"F32": "<f4", "F16": "<f2"}[kind]).view(np.uint8).reshape(n, -1)
    raw = RNG.integers(0, 256, (n, t.nbytes), dtype=np.uint8)
    for at in HALVES.get(kind, (0,)):
        raw[:, at : at + 2] = RNG.standard_normal(n).astype("<f2").view(np.uint8).reshape(n, 2)
    return raw


def tensor(name: str, kind: str, rows: int = 3, wide: int = 2):
    """A tensor to write, [rows, wide blocks], and its bytes."""
    raw = blocks(kind, rows * wide)
    return (name, (rows, wide * gguf.TYPES[kind].numbers), kind, lambda: raw), raw


@pytest.fixture
def file(tmp_path):
    """A file with a tensor of every type, and the bytes of each."""
    made = {kind: tensor(kind.lower(), kind) for kind in gguf.TYPES}
    gguf.write(tmp_path / "m.gguf", METADATA, [t for t, _ in made.values()])
    return tmp_path / "m.gguf", {kind: raw for kind, (_, raw) in made.items()}


def test_what_is_written_is_read(file):
    path, raws = file
    contents = gguf.read(path)
    assert contents.metadata == METADATA
    for kind, raw in raws.items():
        t = contents.tensors[kind.lower()]
        assert t.type == kind and t.shape == (3, 2 * gguf.TYPES[kind].numbers)
        assert np.array_equal(t.raw.reshape(raw.shape), raw)
        assert np.array_equal(t.rows(1, 2)[0], t.read()[1]) and t.read().dtype == np.float32


def test_version_2_is_read_alike(file):
    """Only the number differs, as version 3 allows big-endian files besides."""
    path, raws = file
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", 2)
    path.write_bytes(data)
    contents = gguf.read(path)
    assert contents.metadata == METADATA and len(contents.tensors) == len(raws)
    assert np.array_equal(contents.tensors["q6_k"].raw.reshape(-1, 210), raws["Q6_K"])


def test_numbers_of_every_size_are_kept(tmp_path):
    """Other programs write types that we read and do not write: what does not fit takes a wider
    one."""
    numbers = [-1, 2**32 - 1, 2**32, -(2**63), 2**64 - 1, 1e300, [-1, 2**31], [2**63], [1.0, 1e300]]
    metadata = {f"general.{i}": number for i, number in enumerate(numbers)}
    gguf.write(tmp_path / "m.gguf", metadata, [])
    assert gguf.read(tmp_path / "m.gguf").metadata == metadata


def test_q4_1_by_hand():
    """Two halves, then 16 bytes: low nibbles are numbers 0 to 15, high ones 16 to 31."""
    raw = np.zeros((1, 20), np.uint8)
    raw[0, :4] = np.array([0.5, -1.0], "<f2").view(np.uint8)
    raw[0, 4] = 0x73
    expected = np.full(32, -1.0)
    expected[0], expected[16] = 0.5 * 3 - 1, 0.5 * 7 - 1
    assert np.array_equal(gguf.TYPES["Q4_1"].widen(raw)[0], expected)


@pytest.mark.live
@pytest.mark.parametrize("kind", gguf.TYPES)
def test_every_type_is_read_as_ggml_reads_it(kind):
    theirs = pytest.importorskip("gguf")
    raw = blocks(kind, 64)
    as_stored = {"F32": "<f4", "F16": "<f2"}.get(kind)
    given = raw.reshape(4, -1).view(as_stored) if as_stored else raw.reshape(4, -1)
    expected = theirs.quants.dequantize(given, theirs.GGMLQuantizationType[kind])
    assert np.array_equal(gguf.TYPES[kind].widen(raw).reshape(4, -1), expected)


@pytest.mark.live
def test_other_readers_read_what_is_written(file):
    theirs = pytest.importorskip("gguf")
    path, raws = file
    reader = theirs.GGUFReader(path)
    assert {
        k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF")
    } == METADATA
    for t in reader.tensors:
        assert np.array_equal(
            np.asarray(t.data).view(np.uint8).ravel(), raws[t.tensor_type.name].ravel()
        )


def header(version=3, n_tensors=0, n_keys=0, magic=b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version, n_tensors, n_keys)


def text(s: bytes) -> bytes:
    return struct.pack("<Q", len(s)) + s


def entry(name=b"t", shape=(32,), kind=0, offset=0) -> bytes:
    return (
        text(name)
        + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        + struct.pack("<IQ", kind, offset)
    )


BROKEN = {
    "not GGUF": (b"GGML" + bytes(40), "begins with b'GGML'"),
    "short": (b"GGUF", "4 bytes are no GGUF file"),
    "version": (header(9) + bytes(40), "version 9; minillm reads 2 and 3"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + bytes(40), "written for a big-endian machine"),
    "tensors": (header(n_tensors=1 << 60), "the number of tensors is 1,152,921,504,606,846,976"),
    "keys": (header(n_keys=1 << 60), "the number of keys"),
    "key's length": (header(n_keys=1) + struct.pack("<Q", 1 << 50), "the length of a key"),
    "key twice": (header(n_keys=2) + 2 * (text(b"a") + struct.pack("<II", 4, 1)), "comes twice"),
    "type of a value": (header(n_keys=1) + text(b"a") + struct.pack("<I", 77), "unknown type 77"),
    "array of arrays": (
        header(n_keys=1) + text(b"a") + struct.pack("<IIQ", 9, 9, 1),
        "an array of the type 9",
    ),
    "items": (
        header(n_keys=1) + text(b"a") + struct.pack("<IIQ", 9, 4, 1 << 40),
        "the number of items",
    ),
    "no UTF-8": (header(n_keys=1) + text(b"\xff") + bytes(20), "is no UTF-8"),
    "alignment": (
        header(n_keys=1) + text(b"general.alignment") + struct.pack("<II", 4, 3),
        "needed: a power of two",
    ),
    "ends": (header(n_keys=1) + text(b"a"), "the file ends inside"),
    "dimensions": (header(n_tensors=1) + entry(shape=(1,) * 5) + bytes(64), "has 5 dimensions"),
    "no size": (header(n_tensors=1) + entry(shape=(0,)) + bytes(64), "has the shape (0,)"),
    "unknown type": (header(n_tensors=1) + entry(kind=99) + bytes(64), "of type number 99"),
    "named type": (header(n_tensors=1) + entry(kind=10) + bytes(64), "of type Q2_K; minillm reads"),
    "no whole blocks": (
        header(n_tensors=1) + entry(shape=(31,), kind=2) + bytes(64),
        "rows of 31; Q4_0 needs a multiple of 32",
    ),
    "unaligned": (header(n_tensors=1) + entry(offset=8) + bytes(256), "no multiple of 32"),
    "overlap": (
        header(n_tensors=2) + entry(b"a", (32,)) + entry(b"b", (32,), offset=64) + bytes(512),
        "begins inside the one before it",
    ),
    "cut short": (header(n_tensors=1) + entry(shape=(32, 1000)), "it is cut short"),
    "name twice": (
        header(n_tensors=2) + entry(b"a") + entry(b"a", offset=128) + bytes(512),
        "comes twice",
    ),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line(data, message, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        gguf.read(path)
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_mutated_files_never_end_in_anything_else(file, tmp_path):
    whole = bytearray(file[0].read_bytes())
    for _ in range(300):
        broken = bytearray(whole)
        for at in RNG.integers(0, 600, RNG.integers(1, 5)):
            broken[at] = RNG.integers(0, 256)
        path = tmp_path / "broken.gguf"
        path.write_bytes(broken[: RNG.integers(1, len(broken))] if RNG.random() < 0.3 else broken)
        try:
            for t in gguf.read(path).tensors.values():
                with np.errstate(all="ignore"):
                    t.read()
        except InputError as error:
            assert "\n" not in str(error)


def test_what_does_not_fit_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="3 bytes, where F32 needs 128"):
        gguf.write(tmp_path / "m.gguf", {}, [("t", (32,), "F32", lambda: np.zeros(3, np.uint8))])
    assert not list(tmp_path.iterdir())
