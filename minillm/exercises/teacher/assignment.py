"""A chapter with its exercises as an assignment of nbgrader or of otter-grader: the notebook that
these tools start from.

The exercises stand at its end, each a stub with the answer marked for the tool to cut out, and a
test that is `check` itself. Neither tool is needed to write it. Formats:
https://nbgrader.readthedocs.io (0.9), https://otter-grader.readthedocs.io (7).
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from ...errors import InputError
from ...machine.files import read_json, write_atomically
from ..catalogue import EXERCISES
from ..checking.exercise import Exercise
from ..course import chapters
from ..student.folder import DOES

NEXT = {
    "nbgrader": "cd {folder} && nbgrader generate_assignment {name}",
    "otter": "otter assign {file} {folder}/{name}",
}
TEST = """\
import sys
loaded = {{n: sys.modules.pop(n) for n in [*sys.modules] if n.split(".")[0] == "minillm"}}
from minillm.exercises import check  # as it is on the disk, whatever a cell has made of it
result = check("{name}", {namespace}, seed={seed})
for n in [n for n in sys.modules if n.split(".")[0] == "minillm"]:
    del sys.modules[n]
sys.modules.update(loaded)
assert result.status == "right", result
"""
ASSIGNMENT = """\
# ASSIGNMENT CONFIG
name: {name}
requirements: [minillm-gpt2]
export_cell:
    pdf: false
tests:
    ok_format: false
"""
CONFIG = """\
# Written by minillm exercises export.
c = get_config()  # noqa
# what is to be written, or mended, follows it
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE"}
c.ExecutePreprocessor.timeout = 300  # seconds a cell: some chapters train, or measure
"""


def nbgrader(chapter: int, course: Path, seed: int = 0) -> Path:
    """Write the source version of an assignment into an nbgrader course folder, and a configuration
    if it has none."""
    notebook, name = _chapter(chapter)

    def mark(cell: dict, grade_id: str, **marks) -> dict:
        marks = {"grade": False, "solution": False, "locked": True, "task": False} | marks
        return cell | {
            "metadata": {"nbgrader": {"schema_version": 3, "grade_id": grade_id} | marks}
        }

    for e in _exercises(chapter):
        test = TEST.format(name=e.name, namespace="globals()", seed=seed)
        notebook["cells"] += [
            mark(_cell("markdown", f"{e.name}-task", _task(e)), f"{e.name}-task"),
            mark(_cell("code", e.name, e.master()), e.name, solution=True, locked=False),
            mark(
                _cell("code", f"{e.name}-check", test),
                f"{e.name}-check",
                grade=True,
                points=e.difficulty,
            ),
        ]
    file = _write(notebook, course / "source" / name / f"{name}.ipynb")
    if not (config := course / "nbgrader_config.py").exists():
        write_atomically(config, CONFIG.encode())
    return file


def otter(chapter: int, folder: Path, seed: int = 0) -> Path:
    """Write the master notebook of an otter-grader assignment."""
    notebook, name = _chapter(chapter)
    notebook["cells"].insert(0, _cell("raw", "assignment", ASSIGNMENT.format(name=name)))
    for e in _exercises(chapter):
        test = TEST.format(name=e.name, namespace="env", seed=seed)
        test = f"def test_{e.name}(env):\n{textwrap.indent(test, '    ')}"
        notebook["cells"] += [
            _cell(
                "raw",
                f"{e.name}-begin",
                f"# BEGIN QUESTION\nname: {e.name}\npoints: {e.difficulty}",
            ),
            _cell("markdown", f"{e.name}-task", _task(e)),
            _cell("raw", f"{e.name}-begin-solution", "# BEGIN SOLUTION"),
            _cell("code", e.name, e.master()),
            _cell("raw", f"{e.name}-end-solution", "# END SOLUTION"),
            _cell("raw", f"{e.name}-begin-tests", "# BEGIN TESTS"),
            _cell("code", f"{e.name}-check", test),
            _cell("raw", f"{e.name}-end-tests", "# END TESTS"),
            _cell("raw", f"{e.name}-end", "# END QUESTION"),
        ]
    return _write(notebook, folder / f"{name}.ipynb")


def _chapter(number: int) -> tuple[dict, str]:
    """A chapter's notebook without its outputs, a heading for the exercises at its end, and its
    name."""
    found = {int(path.name[:2]): path for path in chapters()}
    if number not in found:
        raise InputError(f"there is no chapter {number}; there are {', '.join(map(str, found))}")
    notebook = read_json(found[number])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    notebook["cells"].append(_cell("markdown", "exercises-here", "# Exercises"))
    return notebook, found[number].stem


def _exercises(chapter: int) -> list[Exercise]:
    return [e for e in EXERCISES.values() if e.chapter == chapter]


def _task(e: Exercise) -> str:
    return f"### {e.name}\n\nAbout {e.minutes} minutes: {DOES[e.kind]}. Cell {e.cell} explains it."


def _cell(kind: str, name: str, source: str) -> dict:
    code: dict = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {
        "cell_type": kind,
        "id": f"exercise-{name}".replace("_", "-"),
        "metadata": {},
        "source": source.rstrip("\n"),
        **code,
    }


def _write(notebook: dict, file: Path) -> Path:
    if file.exists():
        raise InputError(
            f"{file} is there already, and may have been edited: move it away, or give another"
            " folder"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(notebook, ensure_ascii=False, indent=1).encode() + b"\n")
    return file
