"""Reading and writing files so that nothing is lost and every failure is one line that names the
file."""

from __future__ import annotations

import codecs
import errno
import io
import json
import mmap
import os
import re
import secrets
import stat
import sys
import tomllib
import zipfile
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError, one_line
from .forms import check, short

MOST_BYTES = 16_000_000  # of a structured file; the largest are tokenizers', of a few million
MOST_VALUES = 400_000  # in it: what they take as Python's objects is some hundred bytes each

LINE_END = r"\r\n?|\n"  # str.splitlines cuts at \x0b, \x0c, \x1c, \x85, U+2028 and others, too
TEMPORARY = re.compile(r"\.minillm-[0-9a-f]{16}\.tmp")


def require_unpacked() -> None:
    """Raise InputError where minillm was imported from an archive, as Python's zipimport does: the
    models, texts and tables that come with it are read as files."""
    package = Path(__file__).resolve().parents[1]
    if not package.is_dir():
        raise InputError(
            f"minillm was imported from the archive {package.parent}, but its models and other data"
            " must be files in a folder: unpack it, or install it with python -m pip install"
        )


def as_path(value, name: str = "folder") -> Path:
    """Return `value` as a Path; InputError for what is no name, for one that is too long, and for
    "", which would be the current folder."""
    given = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    if not given or "\0" in given:
        raise InputError(f"{name} is {short(value)}; it must be the name of a {name}")
    path = Path(value)
    try:
        path.exists()
    except OSError as error:
        raise InputError(f"{name} is {short(os.fspath(value))}: {error.strerror}") from None
    return path


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, without their ends."""
    lines = re.split(LINE_END, text)
    return lines if lines[-1] else lines[:-1]


@contextmanager
def open_regular(path: str | Path):
    """Open a file for reading bytes; InputError if it is missing, unreadable, or no regular file (a
    named pipe would be waited for for ever)."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, ValueError, TypeError) as error:  # a zero byte in a name; no name at all
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{one_line(str(path))}: {why}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # first: `open` refuses a folder by number
        os.close(descriptor)
        raise InputError(f"{path}: not a regular file, but a folder, a pipe or a device")
    with open(descriptor, "rb") as file:
        yield file


def read_bytes(path: str | Path, most: int | None = None) -> bytes:
    """Return what the file holds; InputError naming it if it is not there, or larger than `most`
    bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise InputError(f"{path}: {size:,} bytes; such a file has at most {most:,}")
        return file.read(size)


def read_text(path: str | Path, encoding: str | None = None) -> str:
    """Return the text of a file, without a byte order mark; InputError where it is none.

    encoding: what --encoding says, None (UTF-8) for commands that have no such option.
    """
    data, name = read_bytes(path), "utf-8" if encoding is None else encoding
    try:
        return data.decode(name).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        hints = {None: "; save it as UTF-8", "utf-8": "; if it is Latin-1, say --encoding latin-1"}
        hint = hints.get(encoding, "")
        raise InputError(
            f"{path}: not {name.upper()} text ({error.reason} at byte {error.start}){hint}"
        ) from None
    except (LookupError, ValueError):  # unknown, or no encoding of text
        raise InputError(
            f"--encoding {short(encoding)}: there is no such encoding; try utf-8, latin-1 or cp1252"
        ) from None


def read_json(path: str | Path, form=object):
    """Return what a JSON file holds; InputError naming it if it is missing, too large, not JSON, or
    not of the form (see forms)."""
    return parse_json(read_bytes(path, MOST_BYTES).removeprefix(codecs.BOM_UTF8), form, path)


def parse_json(data: bytes | str, form, where, hook=None):
    """Return what JSON text stands for; `hook` is called with the pairs of every table."""
    try:
        text = data if isinstance(data, str) else data.decode()
        if sum(map(text.count, ",[{")) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
        parsed = json.loads(text, object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error})") from None
    return check(parsed, form, where)


def read_toml(path: str | Path, form=object):
    """Return what a TOML file holds, as `read_json` does."""
    data = read_bytes(path, MOST_BYTES // 100)
    try:
        return check(tomllib.loads(data.decode()), form, path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid TOML ({error})") from None


def read_npz(path: str | Path) -> dict:
    """Return {name: array} of a .npz file of numbers, which may unpack to twice its size and 16
    MB."""
    data, arrays = read_bytes(path), {}
    with _numbers_of(path), zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > 2 * len(data) + MOST_BYTES:
            raise ValueError("it unpacks to far more than its size")
        for entry in entries:
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("it is compressed in another way than NumPy's")
            name = entry.filename.removesuffix(".npy")
            arrays[name] = _array(io.BytesIO(archive.read(entry)))
    return arrays


def map_npy(path: str | Path):
    """Return the numbers of a .npy file, memory-mapped."""
    with _numbers_of(path), open_regular(path) as file:
        return _array(file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@contextmanager
def _numbers_of(path):
    """Whatever zipfile, zlib and NumPy make of a damaged file (a dozen kinds) is an InputError."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        why = str(error) or type(error).__name__
        raise InputError(f"{path}: not a file of numbers ({why})") from None


def _array(file, data=None):
    """The numbers of a .npy file, where they lie: in `data`, or in the file's own buffer."""
    import numpy as np  # only here: the command line's help needs no NumPy
    from numpy.lib import format

    version = format.read_magic(file)
    shape, fortran, dtype = (
        format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0
    )(file)
    if dtype.kind not in "fiu":
        raise ValueError(f"an array of {dtype}")
    start, rest = (file.tell(), data) if data else (0, file.read())
    array = np.frombuffer(rest, dtype, offset=start)
    return array.reshape(shape, order="F" if fortran else "C")


def require_place(path: Path) -> None:
    """Raise InputError where a file would take the place of a device or a pipe: renamed to
    /dev/null, as root can, it would stand there for everybody."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: a device or a pipe is there, no file; give another name")


@contextmanager
def atomic_file(path: Path):
    """Open a temporary file beside `path` for writing bytes; rename it to `path` only when all is
    written.

    Each writer, be it a thread or a process, has one of its own, whose name cannot be foreseen. It
    is made anew: where something has its name, be it a link, FileExistsError.
    """
    require_place(path)
    temporary, file = path.with_name(f".minillm-{secrets.token_hex(8)}.tmp"), None
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None  # a full disk names no file
        raise
    finally:
        if file:
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as lasting as its files, where the system can: else a rename may
    be lost with the power."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems without it
            raise
    finally:
        os.close(descriptor)


def replace(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`; InputError where Windows refuses since `path` is in use."""
    try:
        os.replace(temporary, path)
    except OSError:
        if sys.platform != "win32" or not path.exists():
            raise
        raise InputError(
            f"{path}: the file is in use, perhaps by a model that was loaded from it, and Windows"
            " does not replace it; save into another folder, or end what uses it"
        ) from None


def remove_unfinished(folder: Path) -> None:
    """Remove what `atomic_file` left in `folder` itself when its process was killed."""
    if folder.is_dir():
        for entry in os.scandir(folder):
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                Path(entry).unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, all or nothing."""
    with atomic_file(path) as file:
        file.write(data)
