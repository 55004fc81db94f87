"""The course: where its notebooks lie, and a copy of them in a folder of the user's own."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from ..errors import InputError
from ..machine.files import write_atomically

PACKAGE = Path(__file__).resolve().parent.parent
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FOLDERS = (PACKAGE / "bundled" / "course", PACKAGE.parent / "notebooks")  # a wheel's; a checkout's


def chapters() -> list[Path]:
    """Return the built notebooks in course order."""
    found = next(
        (found for folder in FOLDERS if (found := sorted(folder.glob("[0-9][0-9]_*.ipynb")))), None
    )
    if found is None:
        raise InputError(f"the notebooks are not in {FOLDERS[0]}: install minillm-gpt2 again")
    return found


def heading(cell: str) -> str:
    """Return the heading above a cell, in quotes: what a reader sees and finds."""
    above = ""
    with suppress(InputError):  # of notebooks that are not there
        for chapter in chapters():
            if chapter.name[:2] == cell[:2]:
                for each in json.loads(chapter.read_bytes())["cells"]:
                    if each["cell_type"] == "markdown":
                        above = [above, *HEADING.findall("".join(each["source"]))][-1]
                    if each["id"] == cell:
                        return f'"{above}"'
    return f"cell {cell}"


def copy_chapters(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Copy the notebooks into `folder`, made if need be; what is there is never overwritten:
    (copied, kept)."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; the notebooks need a folder")
    folder.mkdir(parents=True, exist_ok=True)
    copied, kept = [], []
    for chapter in chapters():
        own = folder / chapter.name
        if own.exists():
            kept.append(own)
        else:
            write_atomically(own, chapter.read_bytes())
            copied.append(own)
    return copied, kept
