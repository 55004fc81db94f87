"""Modules of 0.1 by their old names: they are found for one more version, and a warning says where
they live now. Of a module that was split, each name is found in its part."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

MODULES = {  # old name -> new name, or several names of its parts, inside the package
    "attention": "layers.attention",
    "cache": "layers.cache",
    "config": "families.gpt2.config",
    "course": "exercises.course",
    "decoding.loop": "decoding.cycle decoding.generate",
    "distributed": "machine.distributed",
    "exercises.exam": "exercises.teacher.exam",
    "exercises.folder": "exercises.student.folder",
    "exercises.inputs": "exercises.check.inputs",
    "exercises.textbook": "exercises.catalogue.textbook",
    "feed_forward": "layers.feed_forward",
    "files": "machine.files",
    "lstm": "tasks.lstm",
    "progress": "machine.progress",
    "scoring": "decoding.scoring",
    "segments": "decoding.segments",
}


class Moved(MetaPathFinder, Loader):
    """Finds what no other finder does, if it is called as in MODULES."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == __package__ and old in MODULES else None

    def exec_module(self, module) -> None:
        old = module.__name__
        new, *more = [f"{__package__}.{m}" for m in MODULES[old.partition(".")[2]].split()]
        if not more:
            _warn(old, new)
            sys.modules[old] = import_module(new)
            return

        def of_a_part(name: str):
            for part in (new, *more):
                if not name.startswith("__") and hasattr(import_module(part), name):
                    _warn(f"{old}.{name}", f"{part}.{name}")
                    return getattr(import_module(part), name)
            raise AttributeError(f"module {old!r} has no attribute {name!r}")

        module.__getattr__ = of_a_part


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"{old} is now called {new}; the old name goes with the next version",
        FutureWarning,
        stacklevel=3,
    )


def install() -> None:
    """Let old names be found from now on."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
