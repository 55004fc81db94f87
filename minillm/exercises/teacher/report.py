"""A class's folders checked again, as one table: how far each student is, the commonest mistakes,
near-copies.

Every student's code runs in a process of its own, as in `check`. That contains accidents; it is no
sandbox.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from ..catalogue import EXERCISES
from ..checking.exercise import TODO, Code, Exercise, Result
from ..checking.process import check_folder
from ..student.folder import file_name
from .copies import alike, form_of, near_copies
from .submissions import Submission

STATES = ("not started", "does not run", "wrong shape", "wrong values", "right", "not checked")
STATE_OF = {  # by a result's status
    TODO: "not started",
    "missing": "does not run",
    "signature": "does not run",
    "raised": "does not run",
    "stopped": "does not run",
    "shape": "wrong shape",
    "dtype": "wrong shape",
    "not finite": "wrong values",
    "mutated": "wrong values",
    "wrong": "wrong values",
    "slow": "wrong values",
    "not as asked": "wrong values",
    "right": "right",
    "skipped": "not checked",
}
PACKAGE = "minillm's own"  # the answer in the package, among those that are compared


@dataclass
class Row:
    """One student: results {exercise: Result}; copies {exercise: those whose function is nearly the
    same}."""

    student: str
    id: str
    late: bool
    results: dict[str, Result]
    notes: list[str]
    copies: dict[str, list[str]] = field(default_factory=dict)

    @property
    def right(self) -> int:
        """How many are right."""
        return sum(self.state(name) == "right" for name in self.results)

    def state(self, exercise: str) -> str:
        """One of STATES."""
        return STATE_OF[self.results[exercise].status]


@dataclass(frozen=True)
class Commonest:
    """The mistake of one exercise that most students made, how many, and what one who made it is
    told."""

    mistake: str
    students: int
    says: str


@dataclass(frozen=True)
class ClassReport:
    """A row for each student; the names of the exercises that were checked, and of those in which
    there was no time to compare every two students."""

    rows: list[Row]
    exercises: list[str]
    hurried: list[str] = field(default_factory=list)  # too large a class to compare every two in

    def commonest(self) -> dict[str, Commonest]:
        """Return the commonest mistake of every exercise in which one was diagnosed."""
        found = {}
        for name in self.exercises:
            made = Counter(
                (r.results[name].mistake, r.results[name].diagnosis)
                for r in self.rows
                if r.results[name].mistake
            )
            if made:
                ((mistake, says), students), *_ = made.most_common(1)
                found[name] = Commonest(mistake, students, says)
        return found

    def pairs(self) -> dict[tuple[str, str], list[str]]:
        """Return {(who, who): exercises in which they are nearly the same}, the most first."""
        pairs: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            for exercise, others in row.copies.items():
                for other in others:
                    if exercise not in pairs.get((other, row.student), ()):
                        pairs.setdefault((row.student, other), []).append(exercise)
        return dict(sorted(pairs.items(), key=lambda pair: -len(pair[1])))

    def csv(self) -> str:
        """Return the table: a row for each student, a column for each exercise."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["student", "id", "late", "right", *self.exercises, "near-copies", "notes"])
        for row in self.rows:
            states = [
                row.state(n) + (f" ({m})" if (m := row.results[n].mistake) else "")
                for n in self.exercises
            ]
            copies = "; ".join(
                f"{name}: {', '.join(others)}" for name, others in row.copies.items()
            )
            late = "late" if row.late else ""
            writer.writerow(
                map(
                    _cell,
                    [row.student, row.id, late, row.right, *states, copies, "; ".join(row.notes)],
                )
            )
        return text.getvalue()


def _cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: students choose the names of what they hand
    in."""
    return (
        f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
    )


def report(
    students: Iterable[Submission],
    exercises: Iterable[str] = EXERCISES,
    seed: int = 0,
    update: Callable[..., None] = lambda *args, **kwargs: None,
) -> ClassReport:
    """Check what every student handed in; update(what, done, total, note) is told before each."""
    students, names = list(students), list(exercises)
    rows = []
    for i, s in enumerate(students):
        update("checking", i, len(students), s.student)
        rows.append(Row(s.student, s.id, s.late, _checked(s, names, seed), list(s.notes)))
    written = [e for e in map(EXERCISES.get, names) if e.kind == "write"]  # others: in one way only
    return ClassReport(rows, names, [e.name for e in written if not _compare(e, rows, students)])


def _checked(submission: Submission, names: list[str], seed: int) -> dict[str, Result]:
    """The results of one student; what was not handed in, or is the stub still, need not run."""
    results = {name: Result(name, TODO, "not handed in") for name in names}
    with TemporaryDirectory(prefix="minillm-") as folder:
        begun = [
            name
            for name in names
            if name in submission.files and not _is_stub(EXERCISES[name], submission.files[name])
        ]
        for name in begun:
            (Path(folder) / file_name(EXERCISES[name])).write_bytes(submission.files[name])
        for result in check_folder(Path(folder), begun, seed):
            results[result.name] = result
    return results


def _is_stub(e: Exercise, source: bytes) -> bool:
    """Whether nothing was written into the function, whatever became of the lines around it."""
    return (
        isinstance(e, Code)
        and bool(form := form_of(source, e.name))
        and form == form_of(e.stub(), e.name)
    )


def _compare(e: Code, rows: list[Row], students: list[Submission]) -> bool:
    """Note in every row whose function is nearly the same; return whether time was enough."""
    own = form_of(e.source(), e.name)
    forms = {
        i: form_of(s.files[e.name], e.name) for i, s in enumerate(students) if e.name in s.files
    }
    of_package = {i for i, form in forms.items() if alike(own, form)}
    for i in of_package:
        rows[i].copies[e.name] = [PACKAGE]
    pairs, finished = near_copies({i: f for i, f in forms.items() if i not in of_package})
    for a, b, _ in pairs:
        rows[a].copies.setdefault(e.name, []).append(rows[b].student)
        rows[b].copies.setdefault(e.name, []).append(rows[a].student)
    return finished
