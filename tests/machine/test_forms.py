"""What structured files must look like: what fits, what is refused, and in which words."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import pytest

from minillm.checkpoints import safetensors
from minillm.cli import main
from minillm.errors import InputError
from minillm.families import read_config
from minillm.machine.files import map_npy, read_bytes, read_json, read_npz, read_text, read_toml
from minillm.machine.forms import build, check, short
from minillm.tasks.examples import read_examples


class Entry(TypedDict):
    kind: Literal["a", "b"]
    shape: list[int]
    note: NotRequired[str | None]


@dataclass(frozen=True)
class Shape:
    width: int
    height: float = 1.0


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (3, int),
        (3, float),
        (3.5, float),
        (None, int | None),
        (["a"], list[str]),
        ({"a": [1]}, dict[str, list[int]]),
        ({"kind": "a", "shape": [], "else": 1}, Entry),
        ({"kind": "b", "shape": [1], "note": None}, Entry),
        ({"width": 1, "else": ""}, Shape),
        ([{}, ""], list[Any]),
    ],
    ids=repr,
)
def test_what_fits(value, form):
    assert check(value, form, "file") is value


@pytest.mark.parametrize(
    ("value", "form", "message"),
    [
        (True, int, "what it holds is True; it must be of type int"),
        (1, bool, "what it holds is 1; it must be of type bool"),
        (2**63, int, "what it holds is 9223372036854775808; it must be a whole number of 64 bits"),
        ("1", float, "what it holds is '1'; it must be of type float"),
        ([1, "a"], list[int], r"\[1\] is 'a'; it must be of type int"),
        ({"a": 1}, dict[str, str], r"\['a'\] is 1; it must be of type str"),
        ([], Entry, r"what it holds is \[\]; it must be a table"),
        ({"kind": "a"}, Entry, r"shape is missing; it must be of type list\[int\]"),
        ({"kind": "c", "shape": []}, Entry, "kind is 'c'; it must be one of a, b"),
        ({"kind": ["a"], "shape": []}, Entry, r"kind is \['a'\]; it must be one of a, b"),
        ({"kind": "a", "shape": [None]}, Entry, r"shape\[0\] is None; it must be of type int"),
        ({"width": "1"}, Shape, "width is '1'; it must be of type int"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_named(value, form, message):
    with pytest.raises(InputError, match=f"^file: {message}$"):
        check(value, form, "file")


def test_a_dataclass_is_built_of_the_keys_that_it_knows():
    assert build(Shape, {"width": 2, "depth": 3}) == Shape(2)
    with pytest.raises(InputError, match=r"^file: width is missing$"):
        build(Shape, {"height": 2}, "file")


@pytest.mark.parametrize("n", range(4))
def test_values_are_shortened(n):
    value = ["x" * 10**5, [1] * 10**5, {"a": {"b": ["x" * 10**5]}}, 1 << 10**5][n]
    assert len(short(value)) < 200


def test_no_message_holds_a_hundred_kilobytes(capsys):
    message = str(InputError(f"file: {'x' * 10**5}: what to do"))
    assert len(message) < 1000 and message.startswith("file: x") and message.endswith("what to do")
    for arguments in (["generate", "--model", "x" * 10**5], ["x" * 10**5], ["score", "x" * 10**5]):
        try:
            assert main(arguments) == 2
        except SystemExit as ended:
            assert ended.code == 2
        assert len(capsys.readouterr().err) < 2000


# ---- bounds, before anything loops or allocates


def test_a_config_of_millions_of_layers_is_refused_at_once(tmp_path):
    (tmp_path / "config.json").write_text('{"n_layer": 3000000}')
    with pytest.raises(InputError, match="n_layer is 3000000; minillm takes at most 1,000"):
        read_config(tmp_path)


def test_a_header_of_a_million_empty_tensors_is_refused_unread(tmp_path):
    entry = '"%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(entry % n for n in range(150_000)) + "}").encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="the header: not valid JSON"):
        safetensors.read(tmp_path / "a.safetensors")


def test_an_npz_that_unpacks_to_far_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(40 * 10**6))
    with pytest.raises(InputError, match=r"a\.npz: not a file of numbers \(it unpacks to far more"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("array", [np.array([{}]), np.array(["a"]), np.zeros(2, "f4,i4")])
def test_arrays_of_something_else_are_refused(tmp_path, array):
    np.savez(tmp_path / "a.npz", a=array)
    np.save(tmp_path / "a.npy", array)
    for read, file in ((read_npz, "a.npz"), (map_npy, "a.npy")):
        with pytest.raises(InputError, match=f"{file}: not a file of numbers"):
            read(tmp_path / file)


def test_arrays_come_back(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    np.savez_compressed(tmp_path / "a.npz", a=array, b=np.asfortranarray(array))
    np.save(tmp_path / "a.npy", array)
    found = read_npz(tmp_path / "a.npz")
    for back in (found["a"], found["b"], map_npy(tmp_path / "a.npy")):
        np.testing.assert_array_equal(back, array, strict=True)


# ---- what can be opened


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)])
def test_a_named_pipe_is_not_waited_for_and_a_folder_named(tmp_path, capsys, make):
    make(tmp_path / "a.tsv")
    for read in (read_bytes, read_text, read_json, read_toml, read_npz, map_npy, safetensors.read):
        with pytest.raises(InputError, match=r"a\.tsv: not a regular file"):
            read(tmp_path / "a.tsv")
    if make is not os.mkdir:  # of a folder, its files are the examples
        with pytest.raises(InputError, match="not a regular file"):
            read_examples(tmp_path / "a.tsv")
    assert main(["score", str(tmp_path / "a.tsv")]) == 2
    assert "not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["", "idna", "rot13", "no such", "\0", "undefined", "\ud800"])
def test_what_is_no_encoding_is_said(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(b"a.\xe4.b")
    with pytest.raises(InputError, match=r"there is no such encoding|not IDNA text"):
        read_text(tmp_path / "a.txt", encoding)


def test_too_little_memory_is_one_line(monkeypatch, capsys):
    def no_memory(args):
        raise MemoryError("Unable to allocate 8.00 TiB")

    monkeypatch.setattr("minillm.cli.info.run", no_memory)
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "minillm: not enough memory (Unable to allocate 8.00 TiB)\n"


def test_without_docstrings_and_asserts_it_works():
    """python -OO leaves both out: help texts come from the files then; no check is an assert."""
    minillm = [sys.executable, "-OO", "-m", "minillm"]
    said = subprocess.run([*minillm, "--help"], capture_output=True, text=True, check=True).stdout
    assert "Continue a text, token by token" in said
    run = [*minillm, "generate", "Once", "--max-new-tokens", "2", "--kernels", "numpy"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.startswith("Once")
    wrong = subprocess.run([*minillm, "info", "--model", "/"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json", dict[str, int]) == {"a": 1}
    assert io.BytesIO(read_bytes(tmp_path / "a.json")).read(3) == b"\xef\xbb\xbf"
