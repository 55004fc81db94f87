"""What is public: what minillm exports, and what README, TEACHING and the notebooks import. It is
listed in docs/api.md, which `python tests/test_api.py` writes; and what version 0.1.0 had keeps
working under its old name."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE, OLD = ROOT / "docs" / "api.md", ROOT / "tests" / "data" / "v0_1" / "names.txt"
ABOUT = """# The public names

What minillm exports, and what the README and the notebooks import, by module. These names keep
working for one version after they have moved, and a FutureWarning says where they are. All others
may change at any time. `python tests/test_api.py` writes this page.
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


def described(value: object) -> str:
    """The first sentence about a module, a function or a class; of other values what they are."""
    if isinstance(value, ModuleType) or callable(value):
        first = (value.__doc__ or "").strip().partition("\n\n")[0]
        sentence = re.split(r"(?<=[.?!])\s", " ".join(first.split()), maxsplit=1)[0]
        return sentence.removesuffix(".")
    if isinstance(value, Mapping):
        return f"a table of {', '.join(map(str, value))}"
    return f"`{value!r}`" if len(repr(value)) < 80 else f"a {type(value).__name__}"


def page() -> str:
    """What docs/api.md should hold."""
    lines, before = [ABOUT.rstrip()], ""
    for module, name in public():
        if module != before:
            about = described(import_module(module)).removeprefix("minillm: ")
            lines += [f"## {module}", "", *wrap(f"{about}.", 100), ""]
            before = module
        if name:
            line = f"- `{name}`: {described(value_of(module, name))}"
            lines += wrap(line, 100, subsequent_indent="  ", break_on_hyphens=False)
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
