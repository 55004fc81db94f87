"""Reading and writing files so that nothing is lost and every failure is one line that names the
file."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


def read_bytes(path: Path) -> bytes:
    """Return what the file holds; InputError naming it if it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None


def read_json(path: Path):
    """Return what the JSON file holds; InputError naming the file if it is missing or not JSON."""
    data = read_bytes(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None


@contextmanager
def atomic_file(path: Path):
    """Open a temporary file beside `path` for writing bytes; rename it to `path` only when all is
    written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)  # a full disk names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what `atomic_file` left anywhere below `folder` when its process was killed."""
    for temporary in folder.rglob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, all or nothing."""
    with atomic_file(path) as file:
        file.write(data)
