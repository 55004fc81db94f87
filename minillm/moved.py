"""Modules and names of 0.1 by their old places: they are found for one more version, and a warning
says where they live now."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

MODULES = {  # old name -> new name, inside the package
    "attention": "layers.attention",
    "bench.limits": "bench.roofline",
    "bench.training": "bench.trainers",
    "cache": "layers.cache",
    "config": "families.gpt2.config",
    "course": "exercises.course",
    "distributed": "machine.distributed",
    "exercises.assignment": "exercises.teacher.assignment",
    "exercises.copies": "exercises.teacher.copies",
    "exercises.exam": "exercises.teacher.exam",
    "exercises.exercise": "exercises.checking.exercise",
    "exercises.folder": "exercises.student.folder",
    "exercises.inputs": "exercises.checking.inputs",
    "exercises.process": "exercises.checking.process",
    "exercises.report": "exercises.teacher.report",
    "exercises.source": "exercises.checking.source",
    "exercises.submissions": "exercises.teacher.submissions",
    "exercises.textbook": "exercises.catalogue.answers",
    "feed_forward": "layers.feed_forward",
    "files": "machine.files",
    "lstm": "tasks.lstm",
    "progress": "machine.progress",
    "quota": "machine.quota",
    "scoring": "decoding.scoring",
    "segments": "decoding.segments",
    "tasks.compare": "tasks.trials",
}

# module, which may be gone -> {name that it had: module that has it now, or module:name}
NAMES = {
    "checkpoints": dict.fromkeys(("load", "load_model", "save_model"), "loading"),
    "clock": {"Report": "clock:ClockReport"},
    "clock.prediction": {"local_name": "steps"},
    "decoding.loop": {
        **dict.fromkeys(("Continuation", "Cycle", "Moment", "read", "run_cycle"), "decoding.cycle"),
        **dict.fromkeys(("generate", "generate_ids", "moments"), "decoding.generate"),
    },
    "model": {"block": "families.gpt2.forward"},
    "steps": {
        **dict.fromkeys(("Difference", "StepDifferences", "diff"), "differences"),
        "step_names": "families.gpt2",
    },
    "training.backward": {
        "cross_entropy_backward": "ops_backward",
        "gpt2_backward": "families.gpt2.backward",
        "linear_backward": "ops_backward",
        "scaled_dot_product_attention_backward": "layers.attention",
    },
}


class OldName(FutureWarning):
    """An old name was used."""


def said(old: str, new: str) -> str:
    return f"{old} is now called {new}; the old name goes with the next version"


def warn(old: str, new: str) -> None:
    """Say where something lives now, as seen by whoever imports it."""
    warnings.warn(said(old, new), OldName, stacklevel=3)


def names_of(module: str) -> Callable[[str], object]:
    """The `__getattr__` of a module some of whose names have moved (NAMES)."""

    def find(name: str):
        if name not in NAMES[module]:
            raise AttributeError(f"module {__package__}.{module} has no attribute {name!r}")
        where, _, its_name = f"{__package__}.{NAMES[module][name]}".partition(":")
        warn(f"{__package__}.{module}.{name}", f"{where}.{its_name or name}")
        return getattr(import_module(where), its_name or name)

    return find


def imported_in(source: str) -> dict[str, str]:
    """Return the old modules that some source code imports, and what there is to say about each."""
    modules = re.findall(rf"^\s*(?:from|import) {__package__}\.([\w.]+)", source, re.MULTILINE)
    return {
        m: said(f"{__package__}.{m}", f"{__package__}.{MODULES[m]}")
        for m in modules
        if m in MODULES
    }


def place_of(module: str, name: str) -> tuple[str, str]:
    """Return where what had a name in an old place is defined today, and what it is called there;
    for any other name what was given."""
    old = module.partition(".")[2]
    if old not in MODULES and name not in NAMES.get(old, ()):
        return module, name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OldName)
        value = getattr(import_module(module), name, None)
    return getattr(value, "__module__", module), getattr(value, "__name__", name)


class Moved(MetaPathFinder, Loader):
    """Finds what no other finder does, if it is called as in MODULES or NAMES."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        known = package == __package__ and (old in MODULES or old in NAMES)
        return ModuleSpec(fullname, self) if known else None

    def exec_module(self, module) -> None:
        old = module.__name__.partition(".")[2]
        if old in NAMES:
            module.__getattr__ = names_of(old)
            return
        new = f"{__package__}.{MODULES[old]}"
        warn(module.__name__, new)
        sys.modules[module.__name__] = import_module(new)


def install() -> None:
    """Let old names be found from now on."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
