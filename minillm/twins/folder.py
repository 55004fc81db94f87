"""A student's functions laid over those of ops, and a folder of them as a twin.

Who knows how such a folder is read and checked says so with `opened_by` (minillm/__init__.py does,
of exercises): nothing of a folder is run here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .twin import Twin

_opener: Callable[[Path], Twin] | None = None


class FolderTwin:
    """The functions of ops, with `own` in the place of those of their names; those of a student's
    folder are pickled as its name, and read again from there."""

    def __init__(self, own: Mapping[str, Callable[..., Any]], folder: Path | None = None):
        from .. import ops

        textbook = {name: f for name, f in vars(ops).items() if not name.startswith("_")}
        vars(self).update(textbook | dict(own))
        self.name, self.folder = str(folder or "your own functions"), folder
        self.own = [*own]  # their names

    def __reduce__(self) -> str | tuple[Any, ...]:
        return super().__reduce__() if self.folder is None else (open_folder, (self.folder,))


def opened_by(opener: Callable[[Path], Twin]) -> None:
    """Let `opener` make a twin of a folder's path from now on."""
    global _opener
    _opener = opener


def open_folder(folder: Path) -> Twin:
    """Return the twin made of a student's folder; InputError for what no model computes with."""
    assert _opener is not None, "minillm/__init__.py names one"
    return _opener(folder)
