"""Files: all or nothing when written, one line that names them when unreadable."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minillm.cli.common import check_output
from minillm.errors import InputError
from minillm.machine import files
from minillm.machine.files import (
    as_path,
    atomic_file,
    lines_of,
    read_bytes,
    read_json,
    write_atomically,
)


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


def test_windows_says_that_a_file_is_in_use(path, monkeypatch):
    def refused(source, target):
        raise PermissionError(13, "Access is denied", str(source), 5, str(target))

    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError, match="Access is denied"):
        write_atomically(path, b"new")  # elsewhere it means something else
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(InputError, match=re.escape(f"{path}: the file is in use")):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(path.parent) == [path.name]


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


def test_a_folder_in_the_place_of_a_file_is_named(path):
    path.mkdir()
    with pytest.raises(OSError) as error:
        write_atomically(path, b"new")
    assert error.value.filename == str(path) and not error.value.filename2
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on Windows")
def test_no_file_takes_the_place_of_a_pipe_or_a_device(path):
    """As root, a file that is renamed to /dev/null would stand there for everybody."""
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"a device or a pipe is there, no file"):
        write_atomically(path, b"x")
    assert stat.S_ISFIFO(path.stat().st_mode) and [*path.parent.iterdir()] == [path]
    with pytest.raises(InputError, match="a device or a pipe"):
        check_output("--plot", path)


def test_a_name_holds_no_zero_byte():
    with pytest.raises(InputError, match=r"folder is 'a\\x00b'; it must be the name of a folder"):
        as_path("a\0b")


def test_threads_that_write_the_same_file_do_not_meet(path):
    """Each writes under a name of its own; the last one to rename wins, with all of its bytes."""
    meet, names = threading.Barrier(8), []

    def save(n):
        with atomic_file(path) as file:
            names.append(file.name)
            file.write(bytes([n]) * 5000)
            meet.wait(20)
            file.write(bytes([n]) * 5000)

    threads = [threading.Thread(target=save, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(names) == 8 and len(set(path.read_bytes())) == 1 and path.stat().st_size == 10_000
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "* ?[x]", " .tmp"])
def test_names_of_any_length(tmp_path, name):
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system has no such name")
    write_atomically(tmp_path / name, b"new")
    assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_a_temporary_name_follows_no_link(tmp_path, monkeypatch, target):
    """Not even where somebody guessed it: nothing is written, and the link stays."""
    (tmp_path / "victim").write_bytes(b"years of work")
    monkeypatch.setattr("secrets.token_hex", lambda n: "00" * n)
    guessed = tmp_path / f".minillm-{'0' * 16}.tmp"
    guessed.symlink_to(tmp_path / target)
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", b"new")
    assert sorted(os.listdir(tmp_path)) == [guessed.name, "victim"] and guessed.is_symlink()
    assert (tmp_path / "victim").read_bytes() == b"years of work"


def test_temporary_names_cannot_be_foreseen(path):
    names = set()
    for _ in range(50):
        with atomic_file(path) as file:
            names.add(os.path.basename(file.name))
    assert len(names) == 50 and all(files.TEMPORARY.fullmatch(name) for name in names)


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folder")
def test_the_folder_is_synced_after_the_rename(path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.replace", lambda *names: (done.append("rename"), replace(*names)))
    write_atomically(path, b"new")
    assert done[1] == "rename" and len(done) == 3
    if os.path.exists("/proc/self/fd"):
        assert done == ["file", "rename", "folder"]


def test_lines_end_where_files_have_line_ends():
    """And not at the other places where str.splitlines cuts."""
    inside = "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i"
    assert lines_of(f"{inside}\n\r\n{inside}\rlast") == [inside, "", inside, "last"]
    for text in ("", "a", "a\n", "\n", "a\n\n", "\r\n\r\n"):
        assert lines_of(text) == text.splitlines()


@pytest.mark.parametrize(
    "code",
    [
        "import minillm; minillm.load('tales')",
        "from minillm.cli import main; raise SystemExit(main(['generate', 'Once']))",
    ],
    ids=["library", "command"],
)
def test_a_package_in_an_archive_is_told_to_be_unpacked(tmp_path, code):
    package = Path(files.__file__).parents[1]
    shutil.copytree(
        package, tmp_path / "all" / "minillm", ignore=shutil.ignore_patterns("__pycache__", "js")
    )
    archive = shutil.make_archive(str(tmp_path / "minillm"), "zip", tmp_path / "all")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": archive},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    *_, last = done.stderr.splitlines()
    assert (
        done.returncode and f"imported from the archive {archive}" in last and "unpack it" in last
    )
