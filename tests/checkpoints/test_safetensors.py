"""The safetensors reader and writer: every dtype, every header field wrong in turn; live: the
library as the oracle."""

from __future__ import annotations

import json
import math
import os
import sys

import numpy as np
import pytest

from minillm.checkpoints import safetensors
from minillm.errors import InputError
from minillm.weights.weight import BF16, widened

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "I16", "shape": [4], "data_offsets": [24, 32]}
DATA = bytes(range(32))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def assemble(header: dict | bytes, data: bytes = DATA) -> bytes:
    """A file by hand: the header's length, the header (JSON or any bytes), the data."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        # strict: shape and dtype too
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def examples() -> dict[str, np.ndarray]:
    """One tensor of every dtype, and the odd ones: scalar, empty, transposed, strided, a strange
    name."""
    rng = np.random.default_rng(0)
    tensors = {
        dtype.name: rng.integers(0, 2, (3, 5)).astype(dtype)
        for dtype in safetensors.NAMES
        if dtype != BF16  # the library's NumPy side has none
    }
    f32 = rng.standard_normal((4, 6), np.float32)
    special = np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)
    return tensors | {
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 3), np.float16),
        "empty last": np.zeros((2, 0), np.int8),
        "transposed": f32.T,
        "strided": f32[::2, ::-3],
        "special values": special,
        "ünïcödé\n\"'": np.arange(3, dtype=np.uint8),
    }


# ---- reading what was written


def test_every_dtype_comes_back(path):
    safetensors.write(path, examples(), {"format": "pt", "é": "\n"})
    tensors, metadata = safetensors.read(path)
    assert len(safetensors.NAMES) == 13
    assert_equal(tensors, examples())
    assert metadata == {"format": "pt", "é": "\n"}


def test_no_tensors_at_all_come_back(path):
    safetensors.write(path, {})
    assert safetensors.read(str(path)) == ({}, {})


def test_layout_is_the_documented_one(path):
    path.write_bytes(assemble({"b": B, "__metadata__": {"k": "v"}, "a": A}))
    tensors, metadata = safetensors.read(path)
    assert_equal(
        tensors,
        {"a": np.frombuffer(DATA[:24], "<f4").reshape(2, 3), "b": np.frombuffer(DATA[24:], "<i2")},
    )
    assert metadata == {"k": "v"}


def test_tensors_are_written_aligned(path):
    tensors = {
        "bytes": np.ones(3, np.int8),
        "doubles": np.ones(2),
        "halves": np.ones(5, np.float16),
    }
    safetensors.write(path, tensors)
    assert all(array.flags.aligned for array in safetensors.read(path)[0].values())


def test_unaligned_tensors_are_read(path):
    for spaces in range(4):
        path.write_bytes(assemble(json.dumps({"a": A, "b": B}).encode() + b" " * spaces))
        np.testing.assert_array_equal(
            safetensors.read(path)[0]["a"].ravel(), np.frombuffer(DATA[:24], "<f4")
        )


@pytest.mark.parametrize(
    "bits, value",
    [
        (0x3F80, 1.0),
        (0xC000, -2.0),
        (0x8000, -0.0),
        (0x0001, 2.0**-133),
        (0x7F7F, 255 * 2.0**120),
        (0xFF80, -math.inf),
    ],
)
def test_bfloat16_is_read_as_the_same_number(path, bits, value):
    path.write_bytes(
        assemble(
            {"x": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}},
            bits.to_bytes(2, "little"),
        )
    )
    stored = safetensors.read(path)[0]
    assert_equal({"x": widened(stored["x"])}, {"x": np.array(value, np.float32)})
    safetensors.write(path, stored)
    assert_equal(safetensors.read(path)[0], stored)


def test_tensors_are_read_only_views_of_the_mapped_file(path):
    safetensors.write(path, {"x": np.zeros(4, np.float32)})
    x = safetensors.read(path)[0]["x"]
    assert not x.flags.writeable and not x.flags.owndata
    with open(path, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(7).tobytes())
    assert x.tolist() == [0, 0, 0, 7]  # no copy: the array is the file


# ---- a wrong file: one line that says which file and which tensor


def changed(**fields) -> dict:
    """A header in which tensor 'a' differs in these fields; None leaves the field out."""
    return {"a": {k: v for k, v in (A | fields).items() if v is not None}, "b": B}


@pytest.mark.parametrize(
    "header, message",
    [
        (changed(dtype=None), "'a'.*must have dtype, shape"),
        (changed(shape=None), "'a'.*must have dtype, shape"),
        (changed(data_offsets=None), "'a'.*must have dtype, shape"),
        (changed(more=1), "'a'.*must have dtype, shape"),
        ({"a": [A], "b": B}, "'a'.*must have dtype, shape"),
        ({"a": None, "b": B}, "'a'.*must have dtype, shape"),
        (changed(dtype="F33"), "'a'.*dtype 'F33' is unknown"),
        (changed(dtype=32), "'a'.*dtype 32 is unknown"),
        (changed(dtype=["F32"]), "'a'.*is unknown"),
        (changed(dtype="F64"), r"'a'.*shape \[2, 3\] of F64 takes 48 bytes, not 24"),
        (changed(shape=[2, -3]), r"'a'.*shape \[2, -3\] must be"),
        (changed(shape=[-2, -3]), r"'a'.*shape \[-2, -3\] must be"),
        (changed(shape=[2, 3.0]), r"'a'.*shape \[2, 3.0\] must be"),
        (changed(shape=[6, True]), r"'a'.*shape \[6, True\] must be"),
        (changed(shape=["6"]), "'a'.*shape .* must be"),
        (changed(shape=6), "'a'.*shape 6 must be"),
        (changed(shape=[math.nan]), "'a'.*shape .* must be"),
        (changed(shape=[2, 4]), r"'a'.*shape \[2, 4\] of F32 takes 32 bytes, not 24"),
        (changed(shape=[0]), "'a'.*takes 0 bytes, not 24"),
        (changed(shape=[2**62, 2**62]), "'a'.*shape"),
        (changed(shape=[10**4000] * 3), "'a'.*shape"),
        (changed(shape=[2, 3] + [1] * 70), "'a'.*shape"),
        (changed(shape=[0, 10**30], data_offsets=[0, 0]), "'a'.*shape"),
        (changed(shape=[0, 2**62, 2**62], data_offsets=[0, 0]), "'a'.*shape"),
        (changed(data_offsets=[24, 0]), r"'a'.*\[24, 0\] lie outside"),
        (changed(data_offsets=[8, 32]), r"begins at byte"),
        (changed(data_offsets=[-24, 0]), r"'a'.*must be a list"),
        (changed(data_offsets=[0.0, 24]), r"'a'.*must be a list"),
        (changed(data_offsets=[0, 24, 32]), r"'a'.*must be \[begin, end\]"),
        (changed(data_offsets=[24]), r"'a'.*must be \[begin, end\]"),
        (changed(data_offsets={"0": 24}), r"'a'.*must be a list"),
        (changed(data_offsets=[32, 56]), r"'a'.*\[32, 56\] lie outside"),
        (changed(data_offsets=[10**30, 10**30 + 24]), r"'a'.*lie outside"),
        (
            {"a": A, "b": B | {"data_offsets": [24, 36], "shape": [6]}},
            r"'b'.*lie outside.*32 bytes",
        ),
        (
            {"a": A, "b": B | {"data_offsets": [16, 24]}},
            "'b' begins at byte 16, the one before ends at 24",
        ),
        ({"a": A, "b": A}, "'b' begins at byte 0, the one before ends at 24"),
        (
            {"a": A, "b": B | {"data_offsets": [26, 32], "shape": [3]}},
            "'b' begins at byte 26, the one before ends at 24",
        ),
        ({"b": B}, "'b' begins at byte 24"),
        ({"a": A}, "end at byte 24 of 32"),
        ({}, "end at byte 0 of 32"),
        (changed() | {"__metadata__": {"k": 1}}, "__metadata__: .* must be "),
        (changed() | {"__metadata__": ["k"]}, "__metadata__: .* must be "),
        (changed() | {"__metadata__": None}, "__metadata__: .* must be "),
        (b'{"a":%(A)s,"b":%(B)s,"a":%(A)s}', "'a' occurs twice"),
        (
            b'{"b":%(B)s,"a":{"dtype":"F32","shape":[2,3],"shape":[2,3],"data_offsets":[0,24]}}',
            "'shape' occurs twice",
        ),
        (b"[]", "must be a table"),
        (b"null", "must be a table"),
        (b"", "not valid JSON"),
        (b'{"a":', "not valid JSON"),
        (b'{"a\xff":%(A)s,"b":%(B)s}', "not valid JSON"),
        (b'{"a\xed\xa0\x80":%(A)s,"b":%(B)s}', "not valid JSON"),
        ('{"a":%(A)s,"b":%(B)s}', "not valid JSON"),
        (b"\0{}", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"a":' * 200_000, "not valid JSON"),
        (
            b'{"a":{"dtype":"F32","shape":[1' + b"0" * 10_000 + b'],"data_offsets":[0,24]}}',
            "not valid JSON",
        ),
    ],
    ids=lambda value: ascii(value)[:50],
)
def test_wrong_header_is_refused(path, header, message):
    if isinstance(header, str):  # text stands for UTF-16, which Python's json would take
        header = (header % {"A": json.dumps(A), "B": json.dumps(B)}).encode("utf-16")
    elif isinstance(header, bytes) and b"%(" in header:
        header = header % {b"A": json.dumps(A).encode(), b"B": json.dumps(B).encode()}
    path.write_bytes(assemble(header))
    with pytest.raises(InputError, match=message) as error:
        safetensors.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_the_unchanged_header_is_accepted(path):
    path.write_bytes(assemble(changed()))
    assert list(safetensors.read(path)[0]) == ["a", "b"]


@pytest.mark.parametrize(
    "length, size, message",
    [
        (0, 200, "not valid JSON"),
        (40, 200, "not valid JSON"),
        (193, 200, "the header claims 193 bytes of a file of 200"),
        (2**64 - 1, 200, "the header claims 18,446,744,073,709,551,615 bytes of a file of 200"),
        (
            10**8 + 1,
            10**8 + 100,
            "a header of 100,000,001 bytes; at most 16,000,000",
        ),  # the file is sparse
    ],
)
def test_wrong_header_length_is_refused(path, length, size, message):
    path.write_bytes(length.to_bytes(8, "little") + assemble(changed())[8:])
    os.truncate(path, size)
    with pytest.raises(InputError, match=rf"model\.safetensors: .*{message}"):
        safetensors.read(path)


def test_every_truncation_and_a_trailing_byte_are_refused(path):
    whole = assemble(changed())
    for content in [*(whole[:n] for n in range(len(whole))), whole + b"\0"]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"model\.safetensors"):
            safetensors.read(path)


def test_a_header_with_flipped_bytes_is_read_or_refused(path):
    whole = assemble({"__metadata__": {"format": "pt"}} | changed())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = np.frombuffer(whole, np.uint8).copy()
        at = rng.integers(0, len(whole) - len(DATA), rng.integers(1, 4))
        content[at] = rng.integers(0, 256, at.size)
        path.write_bytes(content.tobytes())
        try:
            for array in safetensors.read(path)[0].values():
                array.sum()
        except InputError as error:
            refused += 1
            assert str(path) in str(error)
    # a changed letter of a name is no error; whatever else happens fails the test
    assert 200 < refused < 300


# ---- writing


@pytest.mark.parametrize(
    "wrong",
    [np.array(["text"]), np.ones(2, complex), np.array([None]), np.ones(2, ">f4")],
    ids=repr,
)
def test_dtype_that_the_format_lacks_is_refused(path, wrong):
    with pytest.raises(InputError, match=r"model.safetensors: tensor 'x' has dtype"):
        safetensors.write(path, {"x": wrong})
    assert not list(path.parent.iterdir())


def test_a_tensor_cannot_be_called_metadata(path):
    with pytest.raises(InputError, match="__metadata__"):
        safetensors.write(path, {"__metadata__": np.ones(2)})


def test_writing_leaves_only_the_file(path):
    safetensors.write(path, {"x": np.ones(2)})
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows does not replace a file that is mapped"
)
def test_file_is_replaced_while_it_is_mapped(path):
    safetensors.write(path, {"x": np.ones(2)})
    before = safetensors.read(path)[0]
    safetensors.write(path, {"x": before["x"] + 1})
    assert (before["x"].tolist(), safetensors.read(path)[0]["x"].tolist()) == ([1, 1], [2, 2])


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_failed_writing_keeps_the_old_file(path, monkeypatch, fails):
    def full(*args):
        raise OSError("no space left")

    safetensors.write(path, {"x": np.ones(2)})
    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="no space left"):
        safetensors.write(path, {"x": np.zeros(2)})
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]
    assert safetensors.read(path)[0]["x"].tolist() == [1, 1]


# ---- live: the library is the oracle

ORACLE = "the oracle: pip install safetensors torch (extra: reference)"


@pytest.mark.live
def test_library_reads_what_we_write(path):
    library = pytest.importorskip("safetensors.numpy", reason=ORACLE)
    safetensors.write(path, examples(), {"format": "pt"})
    assert_equal(library.load_file(path), examples())
    with pytest.importorskip("safetensors", reason=ORACLE).safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.live
def test_we_read_what_the_library_writes(path):
    library = pytest.importorskip("safetensors.numpy", reason=ORACLE)
    tensors = {
        name: np.ascontiguousarray(array).reshape(array.shape) for name, array in examples().items()
    }
    library.save_file(tensors, path, {"é": "ü"})
    assert_equal(safetensors.read(path)[0], examples())
    assert safetensors.read(path)[1] == {"é": "ü"}


@pytest.mark.live
def test_we_read_the_bfloat16_of_torch(path):
    torch = pytest.importorskip("torch", reason=ORACLE)
    library = pytest.importorskip("safetensors.torch", reason=ORACLE)
    # every bfloat16 there is
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    tensor = bits.view(torch.bfloat16).reshape(256, 256)
    library.save_file({"x": tensor}, path)
    assert_equal({"x": widened(safetensors.read(path)[0]["x"])}, {"x": tensor.float().numpy()})
