"""A class's work as it comes: students' folders, zips, and what Moodle and Canvas give to download.

Nothing is unpacked onto the disk: of a zip, only files that are named like exercises are read, into
memory, within limits. What one student hands in has a limit of its own, so that it ends nobody
else's.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ...errors import InputError
from ..catalogue import EXERCISES

KB, MB = 1 << 10, 1 << 20
FILE = 256 * KB  # of one student's file
OWN = 64 * MB  # unpacked of what one student handed in, zips included
TOGETHER = 256 * MB  # unpacked of one zip, beyond twice its size
DIRECTORY = 4 * MB  # of what a zip says of its entries
ENTRIES = 20_000  # of one zip: 450 students with every exercise
NAME = 1_000  # characters of an entry's name
NOTES = 10  # of one student's files that could not be used
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
    """What one student handed in: files {exercise: source}; notes say what could not be used."""

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


@dataclass
class Left:
    """How many bytes may still be unpacked, and how many were, by whose folder it is."""

    together: int
    own: Counter = field(default_factory=Counter)

    def take(self, size: int, who: tuple[str, ...]) -> None:
        """Count what is about to be unpacked; Unusable if it is too much."""
        if self.own[who] + size > OWN:
            raise Unusable(f"was not read: with the rest it unpacks to more than {OWN // MB} MB")
        if size > self.together:
            raise Unusable("was not read: the whole unpacks to more than is read")
        self.own[who] += size
        self.together -= size


class Opening:
    """A zip being opened: of what it says of its entries, no more than DIRECTORY is read."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.open = stream, False

    def read(self, n: int = -1) -> bytes:
        if n > DIRECTORY and not self.open:
            raise Unusable(f"its list of entries is larger than {DIRECTORY // MB} MB")
        return self.stream.read(n)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


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
    """Add a student's files: of several of an exercise the one handed in last, or highest."""
    own.late |= any(f.student is not None and bool(f.student["late"]) for f in files)
    problems = [f.problem for f in files if f.problem]
    own.notes += problems[:NOTES]
    if len(problems) > NOTES:
        own.notes.append(f"and {len(problems) - NOTES:,} more that could not be used")
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


def shown(text: str) -> str:
    """Return the same, cut where it is long."""
    return text if len(text := printable(text)) <= 100 else f"{text[:96]} ..."


def _read(path: Path) -> list[Found]:
    """Everything below one argument."""
    if path.is_dir():
        return list(_folder(path))
    if not path.exists():
        raise InputError(f"{path}: there is no such folder or zip")
    if path.suffix.lower() != ".zip" or not path.is_file():
        raise InputError(f"{path}: needed is a folder or a .zip")
    try:
        return _zip(path.open("rb"), (), Left(TOGETHER + 2 * path.stat().st_size), DEPTH)
    except (Unusable, OSError) as why:
        raise InputError(f"{path}: {why}") from None


def _folder(folder: Path) -> Iterator[Found]:
    unread: list[OSError] = []
    walk = os.walk(folder, onerror=unread.append)
    for file in sorted(Path(where, name) for where, _, names in walk for name in names):
        place = file.relative_to(folder).parts
        if _hidden(place) or not (file.is_symlink() or file.is_file()):
            continue
        found = Found(place)
        if file.is_symlink():
            found.problem = f"{shown(file.name)}: is a link, which is not followed"
            yield found
            continue
        try:
            size = file.stat().st_size
            if file.suffix.lower() == ".zip":
                yield from _zip(file.open("rb"), place, Left(TOGETHER + 2 * size), DEPTH)
                continue
            if found.exercise and size > FILE:
                raise Unusable(f"is larger than {FILE // KB} kB")
            if found.exercise:
                found.data = file.read_bytes()
        except Unusable as why:
            found.problem = f"{shown(file.name)}: {why}"
        except OSError as error:
            found.problem = f"{shown(file.name)}: cannot be read ({error.strerror})"
        yield found
    for error in unread:
        place = Path(error.filename).relative_to(folder).parts
        if not place:
            raise InputError(f"{folder}: cannot be read ({error.strerror})")
        yield Found((*place, "."), problem=f"the folder cannot be read ({error.strerror})")


def _zip(stream: BinaryIO, place: tuple[str, ...], left: Left, depth: int, who=()) -> list[Found]:
    """The files of a zip, in its order, all of one student `who` or of several; the smallest are
    read first, so that large ones take nothing away from them."""
    if not depth:
        raise Unusable("zips within zips within zips are not read")
    found: dict[int, list[Found]] = {}
    try:
        with stream, zipfile.ZipFile(opening := Opening(stream)) as archive:
            opening.open = True
            entries = [(info, info.filename.replace("\\", "/")) for info in archive.infolist()]
            if len(entries) > ENTRIES:
                raise Unusable(f"it holds {len(entries):,} entries; at most {ENTRIES:,} are read")
            for _, name in entries:
                if len(name) > NAME:
                    raise Unusable(f"an entry's name has {len(name):,} characters")
                if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
                    raise Unusable(
                        f"an entry leads out of it ({shown(name)}), so nothing of it was read"
                    )
            for i in sorted(range(len(entries)), key=lambda i: entries[i][0].file_size):
                info, name = entries[i]
                here = place + PurePosixPath(name).parts
                if len(here) > len(place) and not info.is_dir() and not _hidden(here):
                    found[i] = _in_zip(archive, info, here, left, depth, who)
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"it cannot be read ({shown(str(error)) or type(error).__name__})") from None
    return [f for i in sorted(found) for f in found[i]]


def _in_zip(archive, info: zipfile.ZipInfo, here, left: Left, depth: int, who) -> list[Found]:
    """One file of a zip, or those of a zip in it; where it is unusable, that is its student's
    problem."""
    found = Found(here)
    who = who or (found.student and found.student.group("name", "id")) or here[:-1] or here
    try:
        if here[-1].lower().endswith(".zip"):
            data = io.BytesIO(_entry(archive, info, OWN, left, who))
            return [found, *_zip(data, here, left, depth - 1, who)]
        if found.exercise:
            found.data = _entry(archive, info, FILE, left, who)
    except Unusable as why:
        found.problem = f"{shown(here[-1])}: {why}"
    return [found]


def _entry(archive, info: zipfile.ZipInfo, limit: int, left: Left, who) -> bytes:
    """What one entry holds. It cannot be more than it claims: so much is unpacked."""
    if info.flag_bits & 1:
        raise Unusable("is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unusable(
            f"is packed by method {info.compress_type}; 0 (stored) and 8 (deflated) are read"
        )
    if info.file_size > limit:
        raise Unusable(f"unpacks to more than {limit // KB:,} kB")
    left.take(info.file_size, who)
    try:
        with archive.open(info) as file:
            return file.read(info.file_size)
    except Exception as error:  # a broken one raises whatever the decoder stumbles on
        raise Unusable(f"cannot be read ({shown(str(error)) or type(error).__name__})") from None


def _hidden(place: tuple[str, ...]) -> bool:
    """Whether a system or an editor put it there: __MACOSX, .ipynb_checkpoints and the like."""
    return any(part.startswith((".", "__")) for part in place)
