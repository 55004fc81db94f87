"""A student's folder: numbered files, one for each exercise, written once and never overwritten."""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import InputError
from ...machine.files import as_path, write_atomically
from ..catalogue import EXERCISES, exercise
from ..checking.exercise import Exercise

DOES = {
    "predict": "predict a number",
    "mend": "mend what is published so: one thing is wrong",
    "write": "write it",
}


def file_name(e: Exercise) -> str:
    """Chapter, place in the chapter and name: 0203_softmax.py."""
    place = 1 + [o.name for o in EXERCISES.values() if o.chapter == e.chapter].index(e.name)
    return f"{e.chapter:02}{place:02}_{e.name}.py"


def file_of(folder: Path, e: Exercise) -> Path:
    """Return the student's file, whatever its number: an older minillm counted otherwise."""
    found = sorted(
        p for p in folder.glob(f"*_{e.name}.py") if re.fullmatch(rf"\d+_{e.name}\.py", p.name)
    )
    return found[0] if found else folder / file_name(e)


def named(folder: Path, name: str) -> Exercise:
    """Return the exercise of a name, or of a student's file: its name or its number alone.
    InputError if there is none."""
    stem = Path(name).name.removesuffix(".py")
    for e in EXERCISES.values():
        file = file_of(folder, e).stem
        if stem in (file, file.partition("_")[0]):
            return e
    return exercise(re.sub(r"^\d+_", "", stem))


def text_of(e: Exercise) -> str:
    """Return what the file holds at the start: a heading and the stub."""
    check = f"minillm exercises check {e.name}"
    heading = (
        f'"""Chapter {e.chapter:02}, about {e.minutes} minutes: {DOES[e.kind]}. Check:'
        f' {check}"""\n\n'
    )
    return heading + e.stub().rstrip("\n") + "\n"


def start(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write every file that is not there yet; return (written, kept)."""
    folder = as_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    kept: list[Path] = []
    for e in EXERCISES.values():
        file = file_of(folder, e)
        (kept if file.exists() else written).append(file)
        if not file.exists():
            write_atomically(file, text_of(e).encode())
    return written, kept


def reset(folder: Path, name: str) -> tuple[Path, Path | None]:
    """Begin one exercise anew; return its file and the copy that was kept of what stood there."""
    e = named(folder, name)
    require(folder)
    file, copy = file_of(folder, e), None
    if file.exists():
        copy = next(c for i in range(1, 10_000) if not (c := file.with_suffix(f".py.{i}")).exists())
        write_atomically(copy, file.read_bytes())
    write_atomically(file, text_of(e).encode())
    return file, copy


def require(folder: Path) -> None:
    """Raise InputError where `folder` holds no exercise."""
    if not any(file_of(folder, e).exists() for e in EXERCISES.values()):
        raise InputError(
            f"{folder.resolve()} holds no exercises: run `minillm exercises start` there, or give"
            " --folder"
        )
