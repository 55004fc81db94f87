"""A class's work as it comes: students' folders, zips, and what Moodle and Canvas give to download.

Nothing is unpacked onto the disk: of a zip, only files that are named like exercises are read, into
memory, within limits.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath

from ..errors import InputError
from . import EXERCISES

MB = 1 << 20
FILE = 1 * MB  # of one student's file
NESTED = 64 * MB  # of a zip within a zip
TOGETHER = 256 * MB  # read from one zip, with what is nested in it
ENTRIES = 100_000  # of one zip
DEPTH = 2  # a zip of the class, and a student's zip in it

EXERCISE = re.compile(
    rf"\d+_({'|'.join(EXERCISES)})(?:-(\d+)| ?\((\d+)\))?\.py"
)  # -1, (1): handed in or downloaded again
MOODLE = re.compile(
    r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)(?P<late>)_?(?P<file>.*)"
)
CANVAS = re.compile(r"(?P<name>.+?)(?P<late>_LATE)?_(?P<id>\d+)_\d+_(?P<file>.+)")


@dataclass
class Submission:
    """What one student handed in: files {exercise: source}; notes say what of it could not be used."""

    student: str
    id: str = ""
    late: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Found:
    """A file: where it lies below the argument, zips being folders, and what it holds or why that
    cannot be read.

    exercise: which one it is, "" for none; again: how often it had been handed in before.
    """

    place: tuple[str, ...]
    data: bytes = b""
    problem: str = ""
    student: re.Match | None = None
    exercise: str = ""
    again: int = 0

    def __post_init__(self):
        name, last = self.place[-1], len(self.place) - 1
        for i, part in enumerate(self.place):
            match = MOODLE.fullmatch(part)
            if match is None and (
                i == 0 or i == last or part.endswith(".zip")
            ):  # of Canvas, files only: in one folder
                match = CANVAS.fullmatch(part)
            if match:
                self.student, name = match, match["file"] if i == last else name
                break
        if exercise := EXERCISE.fullmatch(name):
            self.exercise, self.again = exercise[1], int(exercise[2] or exercise[3] or 0)


class Unusable(Exception):
    """Why a zip, or a file of it, cannot be read, in a few words."""


def submissions(paths: list[Path]) -> list[Submission]:
    """Return what the students handed in, by name; InputError for a path that is unusable as a
    whole."""
    students: dict[tuple[str, str], Submission] = {}
    for path in paths:
        found = _read(path)
        if not any(f.exercise for f in found):
            raise InputError(f"{path}: no exercises in it (files such as 0203_softmax.py)")
        names = _names(found, path)
        taken = {name for name, number in students if not number}
        parts: dict[tuple[str, str], list[Found]] = {}
        for f in found:
            if f.student:
                parts.setdefault((printable(f.student["name"]), f.student["id"]), []).append(f)
            elif (name := names.get(f.place[:-1])) is not None and (f.exercise or f.problem):
                parts.setdefault((f"{path}: {name}" if name in taken else name, ""), []).append(f)
        for key, files in parts.items():
            _hand_in(students.setdefault(key, Submission(*key)), files)
    return sorted(students.values(), key=lambda s: (s.student.casefold(), s.id))


def _names(found: list[Found], path: Path) -> dict[tuple[str, ...], str]:
    """Return {folder: student} where no learning platform says whose it is: the first part of the
    path that differs."""
    label = path.resolve().stem if path.is_file() else path.resolve().name
    folders = {f.place[:-1] for f in found if not f.student and (f.exercise or f.problem)}
    shared = len([*takewhile(lambda parts: len({*parts}) == 1, zip(*folders))])
    one = any(
        len(folder) == shared for folder in folders
    )  # exercises lie there: what is below is the same student's
    return {
        folder: printable(label if one else folder[shared].removesuffix(".zip"))
        for folder in folders
    }


def _hand_in(own: Submission, files: list[Found]) -> None:
    """Add a student's files: of several of one exercise the one handed in last, or lying highest."""
    own.late |= any(f.student is not None and bool(f.student["late"]) for f in files)
    own.notes += [f.problem for f in files if f.problem]
    for name in EXERCISES:
        same = [f for f in files if f.exercise == name and not f.problem]
        if same:
            best = max(same, key=lambda f: (f.again, -len(f.place)))
            if len({f.data for f in same}) > 1:
                own.notes.append(
                    f"{len(same)} files of {name}: {printable('/'.join(best.place))} was taken"
                )
            own.files[name] = best.data


def printable(text: str) -> str:
    """Return a name from a student's computer without what would move the cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _read(path: Path) -> list[Found]:
    """Everything below one argument."""
    if path.is_dir():
        return list(_folder(path))
    if not path.exists():
        raise InputError(f"{path}: there is no such folder or zip")
    if path.suffix.lower() != ".zip":
        raise InputError(f"{path}: needed is a folder or a .zip")
    try:
        return _zip(path.open("rb"), (), [TOGETHER], DEPTH)
    except Unusable as why:
        raise InputError(f"{path}: {why}") from None


def _folder(folder: Path) -> Iterator[Found]:
    for file in sorted(folder.rglob("*")):
        place = file.relative_to(folder).parts
        if file.is_symlink() or not file.is_file() or _hidden(place):
            continue
        if file.suffix.lower() == ".zip":
            yield from _nested(file.open("rb"), place, [TOGETHER], DEPTH)
            continue
        found = Found(place)
        if found.exercise and file.stat().st_size > FILE:
            found.problem = f"{file.name} is larger than {FILE // MB} MB"
        elif found.exercise:
            found.data = file.read_bytes()
        yield found


def _nested(stream, place: tuple[str, ...], left: list[int], depth: int) -> list[Found]:
    """The files of a zip that lies among other files; where it is unusable, that is its student's
    problem."""
    try:
        return _zip(stream, place, left, depth)
    except Unusable as why:
        return [Found(place, problem=f"{printable(place[-1])}: {why}")]


def _zip(stream, place: tuple[str, ...], left: list[int], depth: int) -> list[Found]:
    """The files of a zip; `left` [bytes that may still be read] is shared with the zips in it."""
    if not depth:
        raise Unusable("zips within zips within zips are not read")
    found = []
    try:
        with stream, zipfile.ZipFile(stream) as archive:
            entries = [(info, info.filename.replace("\\", "/")) for info in archive.infolist()]
            if len(entries) > ENTRIES:
                raise Unusable(f"it holds {len(entries):,} entries; at most {ENTRIES:,} are read")
            for _, name in entries:
                if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
                    raise Unusable(
                        f"an entry leads out of it ({printable(name)}), so nothing of it was read"
                    )
            for info, name in entries:
                here = place + PurePosixPath(name).parts
                if info.is_dir() or _hidden(here):
                    continue
                found.append(Found(here))
                try:
                    if name.lower().endswith(".zip"):
                        found += _nested(
                            io.BytesIO(_entry(archive, info, NESTED, left)), here, left, depth - 1
                        )
                    elif found[-1].exercise:
                        found[-1].data = _entry(archive, info, FILE, left)
                except Unusable as why:
                    found[-1].problem = f"{printable(here[-1])} {why}"
    except (Unusable, MemoryError):
        raise
    except Exception as error:  # a broken one raises whatever the decoder stumbles on
        raise Unusable(f"it cannot be read ({error or type(error).__name__})") from None
    if left[0] < 0:
        raise Unusable(f"it unpacks to more than {TOGETHER // MB} MB")
    return found


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int, left: list[int]) -> bytes:
    """What one entry holds, whatever size it claims to have."""
    if info.flag_bits & 1:
        raise Unusable("is encrypted")
    with archive.open(info) as file:
        data = file.read(max(0, min(limit, left[0])) + 1)
    left[0] -= len(data)
    if len(data) > limit:
        raise Unusable(f"unpacks to more than {limit // MB} MB")
    return data


def _hidden(place: tuple[str, ...]) -> bool:
    """Whether a system or an editor put it there: __MACOSX, .ipynb_checkpoints and the like."""
    return any(part.startswith((".", "__")) for part in place)
