"""For teachers: actions of `minillm exercises` over a class, which exercises.py adds."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path

from ..errors import count
from .common import PICTURES, check_output, say_written, table, write, write_json

SIGNS = {
    "not started": ".",
    "does not run": "!",
    "wrong shape": "s",
    "wrong values": "x",
    "right": "#",
    "not checked": "?",
}
WIDTH = 110
SHOWN_PAIRS = 20  # of near-copies, on the terminal


def add_actions(add) -> None:
    """add(name, what, run) returns the parser of a new action."""
    sub = add(
        "report",
        "check a class's folders or zips (Moodle's and Canvas's too) again, as one table",
        report,
    )
    sub.add_argument(
        "paths", nargs="+", type=Path, metavar="FOLDER_OR_ZIP", help="of a student or of a class"
    )
    sub.add_argument(
        "--chapter",
        type=int,
        action="append",
        metavar="N",
        help="only this chapter's exercises (repeatable)",
    )
    sub.add_argument(
        "--seed", type=int, default=0, metavar="N", help="other inputs (default: %(default)s)"
    )
    sub.add_argument("--json", action="store_true", help="print JSON, with every message")
    sub.add_argument("--csv", type=Path, metavar="FILE", help="write the table for a spreadsheet")
    sub.add_argument("--plot", type=Path, metavar="FILE", help=f"draw it ({', '.join(PICTURES)})")
    sub = add(
        "export",
        "write a chapter with its exercises as an assignment of nbgrader or otter-grader",
        export,
    )
    sub.add_argument("chapter", type=int, help="its number")
    sub.add_argument(
        "assignments",
        type=Path,
        metavar="FOLDER",
        help="nbgrader's course folder, or any for otter",
    )
    sub.add_argument(
        "--format", choices=("nbgrader", "otter"), required=True, help="for which of the two"
    )
    sub.add_argument(
        "--seed", type=int, default=0, metavar="N", help="other inputs (default: %(default)s)"
    )
    sub = add("exam", "print exam questions, and their answers, from a seed", exam)
    sub.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which exam (default: %(default)s)"
    )
    sub.add_argument(
        "--count",
        type=int,
        default=12,
        metavar="N",
        help="how many questions (default: %(default)s)",
    )
    sub.add_argument(
        "--chapter",
        type=int,
        action="append",
        metavar="N",
        help="only of this chapter (repeatable)",
    )
    sub.add_argument("--no-answers", action="store_true", help="the students' paper")
    sub.add_argument("--json", action="store_true", help="print JSON")


def report(args) -> None:
    from ..exercises.teacher.report import report as check_class
    from ..exercises.teacher.submissions import submissions
    from ..machine.files import write_atomically
    from ..machine.progress import progress_bar

    check_output("--plot", args.plot, PICTURES)
    check_output("--csv", args.csv)
    names = of_chapters(args.chapter)
    students = submissions(args.paths)
    with progress_bar("students") as update:
        result = check_class(students, names, args.seed, update)
    if args.csv:
        # with its mark, spreadsheets read names right
        write_atomically(args.csv, result.csv().encode("utf-8-sig"))
    if args.plot:
        from .. import plots

        plots.save(plots.class_table(result).get_figure(), args.plot)
    say_written(args.csv, args.plot)
    if args.json:
        write_json(
            {
                "students": [asdict(row) | {"right": row.right} for row in result.rows],
                "commonest_mistakes": {
                    name: asdict(made) for name, made in result.commonest().items()
                },
                "near_copies_incomplete": result.hurried,
                "near_copies": [
                    {"who": who, "exercises": where} for who, where in result.pairs().items()
                ],
            }
        )
    else:
        write(shown(result))


def of_chapters(chapters: list[int] | None) -> list[str]:
    """The names of these chapters' exercises, or of all."""
    from ..errors import InputError
    from ..exercises import EXERCISES

    names = [e.name for e in EXERCISES.values() if chapters is None or e.chapter in chapters]
    known = {e.chapter for e in EXERCISES.values()}
    if unknown := set(chapters or ()) - known:
        raise InputError(
            f"--chapter {min(unknown)}: the exercises are of the chapters {min(known)} to"
            f" {max(known)}"
        )
    return names


def shown(result) -> str:
    """What a teacher reads: a sign for each exercise, chapter by chapter, then mistakes,
    near-copies and notes."""
    from ..exercises import EXERCISES

    chapters: dict[int, list[str]] = {}
    for name in result.exercises:
        chapters.setdefault(EXERCISES[name].chapter, []).append(name)
    rows = [
        (
            row.student + (" (late)" if row.late else ""),
            f"{row.right}/{len(result.exercises)}",
            *("".join(SIGNS[row.state(name)] for name in names) for names in chapters.values()),
        )
        for row in result.rows
    ]
    text = [
        table(
            ("student", "right", *(f"{c:02}" for c in chapters)), rows, "<>" + "<" * len(chapters)
        )
    ]
    text.append("  ".join(f"{sign} {state}" for state, sign in SIGNS.items()))
    if common := result.commonest():
        text += ["", "commonest mistakes"]
        for name, made in sorted(common.items(), key=lambda item: -item[1].students):
            line = f"{name}: {count(made.students, 'student')}, {made.mistake}: {made.says}"
            text.append(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="      "))
    if pairs := result.pairs():
        text += ["", "near-copies (names and layout apart): a reason to ask, no proof"]
        for (a, b), where in [*pairs.items()][:SHOWN_PAIRS]:
            line = f"{a} and {b}: {', '.join(where)}"
            text.append(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="      "))
        if len(pairs) > SHOWN_PAIRS:
            text.append(f"  and {len(pairs) - SHOWN_PAIRS} more: --json lists all")
    if result.hurried:
        text += ["", f"no time to compare every two: {', '.join(result.hurried)}"]
    if any(row.notes for row in result.rows):
        text += ["", *(f"{row.student}: {note}" for row in result.rows for note in row.notes)]
    return "\n".join(text)


def export(args) -> None:
    from ..exercises.teacher import assignment

    write_assignment = assignment.nbgrader if args.format == "nbgrader" else assignment.otter
    file = write_assignment(args.chapter, args.assignments, args.seed)
    write(f"{file}: written, with the answers in it; the tool makes the students' version")
    write(
        "Next: "
        + assignment.NEXT[args.format].format(folder=args.assignments, file=file, name=file.stem)
    )


def exam(args) -> None:
    from ..exercises.teacher.exam import exam as questions_of

    questions = questions_of(args.seed, args.count, set(args.chapter) if args.chapter else None)
    if args.json:
        write_json([asdict(question) for question in questions])
        return
    text = [
        (
            f"Exam {args.seed}: {count(len(questions), 'question')},"
            f" {count(sum(q.minutes for q in questions), 'minute')}"
        ),
        "",
    ]
    for i, q in enumerate(questions, 1):
        text += [_filled(f"{i}. {q.text} ({q.minutes}\xa0min)"), ""]
    if not args.no_answers:
        text += [
            "Answers",
            "",
            *(
                _filled(f"{i}. (chapter {q.chapter:02}) {q.answer}")
                for i, q in enumerate(questions, 1)
            ),
        ]
    write("\n".join(text).rstrip())


def _filled(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    ).replace("\xa0", " ")
