"""Files: all or nothing when written, one line that names them when unreadable."""

from __future__ import annotations

import os
import re

import pytest

from minillm.errors import InputError
from minillm.files import atomic_file, read_bytes, read_json, write_atomically


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.json"


def test_json_is_read_as_utf8(path):
    path.write_bytes('{"é": [1, null]}'.encode())
    assert read_json(path) == {"é": [1, None]}


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"a": 1,}', b"\xff", b'"\xe9"', b"[" * 10**6, b"1" * 10**4, b"1 2"],
    ids=lambda data: repr(data[:9]),
)
def test_what_is_no_json_is_refused(path, data):
    path.write_bytes(data)
    with pytest.raises(InputError, match=re.escape(f"{path}: not valid JSON")) as error:
        read_json(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", [read_bytes, read_json])
def test_missing_file_is_named(path, read):
    with pytest.raises(InputError, match=re.escape(f"{path}: there is no such file")):
        read(path)


def test_written_file_is_whole_and_alone(path):
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


def test_file_appears_only_when_all_is_written(path):
    with atomic_file(path) as file:
        file.write(b"x" * 10**6)
        file.flush()
        assert not path.exists()
    assert path.stat().st_size == 10**6


def test_interrupted_writing_keeps_the_old_file(path):
    write_atomically(path, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_folder_that_is_not_there_is_an_os_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_atomically(tmp_path / "nowhere" / "file", b"")
