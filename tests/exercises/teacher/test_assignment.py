"""Chapters as assignments: what is written, and the round trip through nbgrader and otter-grader
themselves (live)."""

import ast
import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from minillm.cli import main
from minillm.exercises import EXERCISES, Predict
from minillm.exercises.course import chapters
from minillm.exercises.teacher import assignment
from tests.exercises.answers import PREDICTED

CHAPTERS = [int(path.name[:2]) for path in chapters()]
TRIED = 2  # the chapter of the round trip: one to predict, one to mend, two to write
MARKS = sum(e.difficulty for e in EXERCISES.values() if e.chapter == TRIED)


def cells(file):
    return {
        cell["id"]: "".join(cell["source"])
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]
    }


def namespace_of(file):
    """What the exercises' cells of a notebook define, and what their tests say: {exercise: error or
    None}."""
    space, outcomes = {}, {}
    for name, source in cells(file).items():
        if not name.startswith("exercise-") or name in ("exercise-exercises-here",):
            continue
        exercise = name.removeprefix("exercise-").replace("-", "_")
        if exercise in EXERCISES:
            exec(source, space)
        elif exercise.endswith("_check"):
            try:
                exec(source, space)
                if source.startswith("def "):
                    space[f"test_{exercise.removesuffix('_check')}"](space)
                outcomes[exercise.removesuffix("_check")] = None
            except AssertionError as error:
                outcomes[exercise.removesuffix("_check")] = str(error)
    return outcomes


@pytest.mark.parametrize("write", [assignment.nbgrader, assignment.otter])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_with_all_of_its_exercises_answered(tmp_path, chapter, write):
    file = write(chapter, tmp_path)
    names = [e.name for e in EXERCISES.values() if e.chapter == chapter]
    notebook = json.loads(file.read_text(encoding="utf-8"))
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(ids) == len({*ids}) and all(len(name) <= 64 for name in ids)
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    sources = cells(file)
    for name in names:
        assert ast.parse(sources[f"exercise-{name}".replace("_", "-")])


def test_masters_are_right_in_the_check_that_the_command_line_uses(tmp_path):
    for write in (assignment.nbgrader, assignment.otter):
        assert namespace_of(write(TRIED, tmp_path)) == {
            e.name: None for e in EXERCISES.values() if e.chapter == TRIED
        }


PATCHES = {
    "the check": "minillm.exercises.check = lambda *a, **k: SimpleNamespace(status='right')",
    "the exercise": "minillm.exercises.exercise = lambda name: SimpleNamespace(check=right)",
    "the verdict": "minillm.exercises.Code.judge = right",
    "the comparison": "minillm.exercises.exercise.__globals__['EXERCISES'].clear()",
    "all of it": "for m in modules: vars(m).update(dict.fromkeys(vars(m), right))",
}


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("write", [assignment.nbgrader, assignment.otter])
def test_a_cell_that_patches_the_check_gives_no_mark(tmp_path, write, patch):
    """In a process of its own; and what a cell had loaded is the same afterwards."""
    sources = [
        source
        for name, source in cells(write(TRIED, tmp_path)).items()
        if name in ("exercise-softmax", "exercise-softmax-check")
    ]
    code = [
        "import sys, minillm.exercises, minillm.exercises.checking.process",
        "from types import SimpleNamespace",
        "right = lambda *a, **k: SimpleNamespace(status='right')",
        "modules = [m for n, m in sys.modules.items() if n.startswith('minillm')]",
        "before = dict(sys.modules)",
        sources[0].replace("e.sum(axis=-1", "e.sum(axis=0"),
        PATCHES[patch],
        sources[1] + ("\ntest_softmax(globals())" if write is assignment.otter else ""),
    ]
    code[-1] = (
        "try:\n"
        + textwrap.indent(code[-1], "    ")
        + ("\nexcept AssertionError as error:\n    print('refused:', error)")
    )
    code.append(
        "print({n for n in sys.modules if 'minillm' in n and sys.modules[n] is not before[n]})"
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True)
    assert done.stdout.startswith("refused: softmax: WRONG") and done.stdout.endswith("set()\n"), (
        done
    )


def test_the_number_to_predict_is_found():
    for e in EXERCISES.values():
        if isinstance(e, Predict):
            assert round(float(e.right()), e.decimals) == pytest.approx(
                round(float(PREDICTED[e.name]), e.decimals)
            )


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "nbgrader_config.py").write_text("# mine")
    assert main(["exercises", "export", "--format", "nbgrader", "0", str(tmp_path)]) == 0
    assert "nbgrader generate_assignment 00_five_minutes" in capsys.readouterr().out
    assert (tmp_path / "nbgrader_config.py").read_text() == "# mine"
    assert main(["exercises", "export", "--format", "nbgrader", "0", str(tmp_path)]) == 2
    assert "00_five_minutes.ipynb is there already" in capsys.readouterr().err
    assert main(["exercises", "export", "--format", "otter", "99", str(tmp_path)]) == 2
    assert "there is no chapter 99; there are 0, 1," in capsys.readouterr().err


# ---- live: the tools themselves


def tool(name):
    """A tool's command line, as in an activated environment; a skip where it is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: python -m pip install -e '.[graders]'")
    own = {"PATH": Path(sys.executable).parent, "PYTHONPATH": Path(__file__).parents[3]}
    env = os.environ | {
        key: os.pathsep.join([str(path.absolute()), os.environ.get(key, "")])
        for key, path in own.items()
    }

    def run(*args, cwd):
        done = subprocess.run(
            [name, *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def stubs_of(file):
    """The exercises' cells of a students' version, without the line that nbgrader adds."""
    marked = {
        name: source.replace("    # YOUR CODE HERE\n", "").replace("# YOUR CODE HERE", "")
        for name, source in cells(file).items()
    }
    return {
        e.name: f"{marked[f'exercise-{e.name}'.replace('_', '-')].rstrip()}\n"
        for e in EXERCISES.values()
        if e.chapter == TRIED
    }


STUBS = {e.name: e.stub() for e in EXERCISES.values() if e.chapter == TRIED}


@pytest.mark.live
def test_nbgrader_round_trip(tmp_path):
    """Solved with the reference: full marks; the stubs left: zero."""
    nbgrader = tool("nbgrader")
    source = assignment.nbgrader(TRIED, tmp_path)
    name = source.stem
    nbgrader("generate_assignment", name, cwd=tmp_path)
    release = tmp_path / "release" / name / source.name
    assert stubs_of(release) == STUBS
    for student, file in (("solved", source), ("stubs", release)):
        (tmp_path / "submitted" / student / name).mkdir(parents=True)
        shutil.copy(file, tmp_path / "submitted" / student / name)
    nbgrader("autograde", name, cwd=tmp_path)
    nbgrader("export", cwd=tmp_path)
    with open(tmp_path / "grades.csv", encoding="utf-8") as file:
        scores = {
            row["student_id"]: (float(row["score"]), float(row["max_score"]))
            for row in csv.DictReader(file)
        }
    assert scores == {"solved": (MARKS, MARKS), "stubs": (0, MARKS)}


@pytest.mark.live
def test_otter_round_trip(tmp_path):
    """Solved with the reference: full marks (otter checks that already where it makes the students'
    version); stubs: zero."""
    otter = tool("otter")
    master = assignment.otter(TRIED, tmp_path)
    otter("assign", master, "dist", "--no-pdfs", cwd=tmp_path)
    student, solved = (tmp_path / "dist" / who / master.name for who in ("student", "autograder"))
    assert stubs_of(student) == STUBS
    (grader,) = solved.parent.glob("*.zip")
    for submission, marks in ((solved, MARKS), (student, 0)):
        folder = tmp_path / submission.parent.name
        folder.mkdir()
        shutil.copy(submission, folder)
        otter("run", submission.name, "-a", grader, "-o", ".", "--no-logo", cwd=folder)
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["tests"]
        tests = [test for test in found if "score" in test]  # otter 7 adds a summary without one
        assert (
            sum(test["score"] for test in tests) == marks
            and sum(test["max_score"] for test in tests) == MARKS
        )
