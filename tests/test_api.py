"""What is public: what minillm exports, and what README, TEACHING and the notebooks import. It is
listed in docs/api.md, which `python tests/test_api.py` writes; and what version 0.1.0 had keeps
working under its old name."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from types import FunctionType, ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE, OLD = ROOT / "docs" / "api.md", ROOT / "tests" / "data" / "v0_1" / "names.txt"
BOUND = (property, cached_property, classmethod, staticmethod)  # what a class may hold, too
ABOUT = """# The public names

What minillm exports, and what the README and the notebooks import, by module; of a class also its
methods and properties, but for those that a class above has, too. These names keep working for one
version after they have moved, and a FutureWarning says where they are. All others may change at any
time. `python tests/test_api.py` writes this page.
"""


def sources() -> Iterable[str]:
    """The code of README.md, TEACHING.md and the notebooks."""
    yield from (p.read_text("utf-8") for p in sorted(ROOT.glob("notebooks/source/*.py")))
    for page in ("README.md", "TEACHING.md", "notebooks/README.md"):
        yield from re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)


def imported(source: str) -> set[tuple[str, str]]:
    """(module, name) of all that some code takes from minillm; name is "" for a module itself."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
    return {(module, name) for module, name in found if module.split(".")[0] == "minillm"}


def public() -> list[tuple[str, str]]:
    exported = {("minillm", name) for name in import_module("minillm").__all__}
    return sorted(exported.union(*map(imported, sources())))


def value_of(module: str, name: str) -> object:
    """What `from module import name` gives, or `import module`."""
    within = import_module(module)
    if not name:
        return within
    return getattr(within, name) if hasattr(within, name) else import_module(f"{module}.{name}")


def first_sentence(doc: str | None) -> str:
    first = " ".join((doc or "").strip().partition("\n\n")[0].split())
    return re.split(r"(?<=[.?!])\s", first, maxsplit=1)[0].removesuffix(".")


def described(value: object) -> str:
    """The first sentence about a module, a function, a class or a property; of other values what
    they are."""
    if isinstance(value, (ModuleType, *BOUND)) or callable(value):
        return first_sentence(value.__doc__)
    if isinstance(value, Mapping):
        return f"a table of {', '.join(map(str, value))}"
    return f"`{value!r}`" if len(repr(value)) < 80 else f"a {type(value).__name__}"


class Default:
    """A default value as the page shows it."""

    def __init__(self, value: object):
        self.value = value

    def __repr__(self) -> str:
        name = getattr(self.value, "__name__", "").rpartition(".")[2]
        shown = name or repr(self.value)
        return shown if len(shown) < 40 and " object at " not in shown else "..."


def signature(value: object) -> str:
    """How something is called, without types; "" for what is not called, or says nothing."""
    if isinstance(value, ModuleType) or not callable(value):
        return ""
    try:
        said = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    empty = inspect.Parameter.empty
    parameters = [
        p.replace(annotation=empty, default=p.default if p.default is empty else Default(p.default))
        for p in said.parameters.values()
        if p.name != "self"
    ]
    return str(said.replace(parameters=parameters, return_annotation=empty))


def members(kind: type) -> Iterable[tuple[str, object]]:
    """(name and signature, what it is) of the public methods and properties of a class, inherited
    from others of the package or its own."""
    found: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.partition(".")[0] == "minillm":
            found |= vars(base)
    for name, value in found.items():
        if isinstance(value, (FunctionType, *BOUND)) and (name[0] != "_" or name == "__call__"):
            yield name.replace("__call__", "") + signature(getattr(kind, name)), value


def page() -> str:
    """What docs/api.md should hold."""
    lines, before, told = [ABOUT.rstrip()], "", []

    def tell(indent: str, name: str, value: object) -> None:
        line = f"{indent}- `{name}`: {described(value)}".removesuffix(": ")
        how = {"break_on_hyphens": False, "break_long_words": False}
        lines.extend(wrap(line, 100, subsequent_indent=f"{indent}  ", **how))

    for module, name in public():
        if module != before:
            about = described(import_module(module)).removeprefix("minillm: ")
            lines += [f"## {module}", "", *wrap(f"{about}.", 100), ""]
            before = module
        if name:
            value = value_of(module, name)
            tell("", name + signature(value), value)
            of_it = members(value) if isinstance(value, type) else ()
            for member, what in of_it:
                if not any(what is other for other in told):  # as of GPT2, Llama's are Model's
                    told.append(what)
                    tell("  ", member, what)
    return "\n".join(lines).replace("\n## ", "\n\n## ") + "\n"


def test_the_page_lists_what_is_public():
    assert PAGE.read_text("utf-8") == page(), "python tests/test_api.py writes it anew"


@pytest.mark.parametrize(("module", "name"), public())
def test_a_public_name_is_there_and_says_what_it_is(module, name):
    assert described(value_of(module, name))


def test_public_are_names_without_underscores():
    assert not [name for module, name in public() if re.search(r"\b_", f"{module} {name}")]


# Takes every public name of 0.1.0 from its old place; answers what is missing, and what has moved
# and does not say so.
TAKE = """
import importlib, json, sys, warnings
from pathlib import Path

missing, silent, root = [], [], Path.cwd()
for line in sys.stdin.read().splitlines():
    module, _, name = line.partition(" ")
    before = set(sys.modules)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            exec(f"from {module} import {name}" if name else f"import {module}")
        except ImportError:
            missing.append(line)
            continue
    path = root / module.replace(".", "/")
    gone = module not in before and not (path.is_dir() or path.with_suffix(".py").is_file())
    if name and not gone and module in sys.modules:
        gone = name not in vars(sys.modules[module])
    if gone and not any(issubclass(w.category, FutureWarning) for w in told):
        silent.append(line)
print(json.dumps([missing, silent]))
"""


def test_public_names_of_0_1_are_found_in_their_old_places():
    done = subprocess.run(
        [sys.executable, "-c", TAKE],
        input=OLD.read_text("utf-8"),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    missing, silent = json.loads(done.stdout)
    assert missing == [], "extend minillm/moved.py"
    assert silent == [], "a FutureWarning names the new place"


def test_no_old_name_is_used_here():
    """What the package, its pages and its notebooks import are the new names."""
    from minillm.moved import MODULES, NAMES

    names = (f"{module}.{name}" for module, moved in NAMES.items() for name in moved)
    old = {f"minillm.{name}" for name in (*MODULES, *names)}
    used = {name for module, name in public() for name in (module, f"{module}.{name}")}
    assert not used & old


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
