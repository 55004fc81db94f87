"""Exercises: write GPT-2's functions yourself, and be told where the first wrong number is.

minillm exercises start             writes numbered files here (`start mine`: into mine), and never
                                    overwrites one
minillm exercises check             runs them in order, up to the first that is not right yet
minillm exercises check softmax     one of them, or several; --watch checks again whenever a file
                                    is saved
minillm exercises hint softmax 2    its first two hints
minillm exercises list              what is done, and what it unlocks
minillm exercises run               the bundled model, computed with your functions
minillm exercises reset softmax     begins it anew, and keeps a copy

For teachers (see TEACHING.md):

minillm exercises report CLASS.zip  checks a class again: who is how far, mistakes, near-copies
minillm exercises export --format nbgrader 3 course    chapter 03 as an assignment
minillm exercises exam --seed 7                        exam questions with answers

The right answers are in the package, for all to read. Your code runs in a process of its own, with
limits on time and memory: that contains accidents and is no security sandbox.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from ..errors import count
from . import teaching
from .common import table, write, write_json

if TYPE_CHECKING:
    from ..exercises import Result

POLL = 0.3  # seconds between looks at the files
PROMPT = "Once upon a time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name, what, run):
        sub = actions.add_parser(name, help=what, description=what)
        sub.set_defaults(act=run)
        return sub

    def action(name, what, run):
        sub = add(name, what, run)
        sub.add_argument(
            "--folder",
            type=Path,
            default=Path(),
            metavar="DIR",
            help="where your files are (default: here)",
        )
        return sub

    sub = action("start", "write the files that are not there yet", start)
    sub.add_argument("where", nargs="?", type=Path, metavar="DIR", help="the same as --folder DIR")
    sub = action(
        "check", "check some exercises, or all in order up to the first that is not right", check
    )
    sub.add_argument(
        "names", nargs="*", metavar="name", help="exercises, or their files (default: all)"
    )
    sub.add_argument(
        "--all", action="store_true", help="do not stop at the first that is not right"
    )
    sub.add_argument(
        "--watch", action="store_true", help="check again whenever a file is saved, until Ctrl-C"
    )
    sub.add_argument(
        "--seed", type=int, default=0, metavar="N", help="other inputs (default: %(default)s)"
    )
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = action("hint", "show the first hints of an exercise", hint)
    sub.add_argument("name", help="an exercise, or its file")
    sub.add_argument(
        "number", nargs="?", type=int, default=1, help="how many (default: %(default)s)"
    )
    action("reset", "begin an exercise anew; a copy of yours is kept", reset).add_argument(
        "name", help="an exercise, or its file"
    )
    sub = action(
        "list", "show all exercises: done or to do, minutes, difficulty, what they unlock", list_all
    )
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = action(
        "run",
        "run the bundled model on your functions: the first step that differs, or a story",
        run_own,
    )
    sub.add_argument("--prompt", default=PROMPT, help="how the story begins (default: %(default)s)")
    sub.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another story (default: %(default)s)"
    )
    teaching.add_actions(add)


def run(args: argparse.Namespace) -> int | None:
    return args.act(args)


def start(args) -> None:
    from ..exercises.student import folder

    where = args.where or args.folder
    written, kept = folder.start(where)
    write(
        f"{where.resolve()}: {count(len(written), 'file')} written"
        + (f", {len(kept)} left as they were (to begin one anew: `reset NAME`)" if kept else "")
    )
    there = "" if where.resolve() == Path.cwd() else f"cd {shlex.quote(str(where))}, "
    first = min([*written, *kept]).name
    write(
        f"Next: {there}begin in {first}, and then: minillm exercises check (the answers are in the"
        " package; try without)"
    )


def check(args) -> int:
    if not args.watch:
        return check_once(args)
    seen = None
    while True:
        if (now := state(args.folder)) != seen:
            if seen is not None:
                write("")
            seen = now
            check_once(args)
            if not args.json:
                write("watching; Ctrl-C ends")
        sleep(POLL)


def state(folder: Path) -> list:
    """What changes when a file is saved."""
    return sorted(
        (p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in folder.glob("[0-9]*.py")
    )


def check_once(args) -> int:
    """Check and print; 0 if all that was checked is right."""
    from ..exercises import EXERCISES
    from ..exercises.checking.process import check_folder
    from ..exercises.student.folder import file_of, named, require
    from ..moved import imported_in

    names = [named(args.folder, name).name for name in args.names] or [*EXERCISES]
    require(args.folder)
    results: list[Result] = []
    old_names: dict[str, str] = {}
    for result in check_folder(args.folder, names, args.seed):
        results.append(result)
        file = file_of(args.folder, EXERCISES[result.name])
        with suppress(OSError):
            old_names |= imported_in(file.read_text(encoding="utf-8", errors="replace"))
        if not args.json:
            brief = args.all and len(names) > 1
            write(result.headline if brief else str(result))
            if result.status in ("todo", "missing") and not brief:
                write(f"  file: {file.name}")
        if not (result.right or args.all or args.names):
            break
    if args.json:
        write_json([asdict(r) for r in results])
    elif len(names) > 1:
        write(f"\n{sum(r.right for r in results)} of {len(names)} right")
    for says in old_names.values():
        print(says, file=sys.stderr)
    return 0 if all(r.right for r in results) else 1


def hint(args) -> None:
    from ..errors import InputError
    from ..exercises.student.folder import named

    e = named(args.folder, args.name)
    hints = e.hints
    if args.number < 1:
        raise InputError(f"hint {args.number}: it must be 1 or more")
    for i, text in enumerate(hints[: args.number], 1):
        write(f"{i} of {len(hints)}: {text}")
    if args.number < len(hints):
        write(f"more: minillm exercises hint {e.name} {args.number + 1}")


def reset(args) -> None:
    from ..exercises.student import folder

    file, copy = folder.reset(args.folder, args.name)
    write(f"{file.name} is new" + (f"; what stood there is {copy.name}" if copy else ""))


def list_all(args) -> None:
    from ..exercises import EXERCISES
    from ..exercises.checking.process import check_folder
    from ..exercises.student.folder import file_name, require

    require(args.folder)
    status = {r.name: r.status for r in check_folder(args.folder, EXERCISES)}
    rows: list[dict] = [
        {
            "file": file_name(e),
            "name": e.name,
            "chapter": e.chapter,
            "kind": e.kind,
            "status": status[e.name],
            "minutes": e.minutes,
            "difficulty": e.difficulty,
            "unlocks": e.unlocks,
        }
        for e in EXERCISES.values()
    ]
    if args.json:
        write_json(rows)
        return
    words = {"right": "done", "todo": "to do", "missing": "to do"}
    cells = [
        (
            f"{r['chapter']:02}",
            r["name"],
            r["kind"],
            words.get(r["status"], r["status"]),
            r["minutes"],
            "*" * r["difficulty"],
            r["unlocks"],
        )
        for r in rows
    ]
    write(table(("", "exercise", "do", "state", "min", "", "unlocks"), cells, "<<|<<><<"))


def run_own(args) -> int:
    from ..errors import InputError
    from ..exercises.checking.process import STARTING, StudentProcess, copied
    from ..exercises.student import folder
    from ..machine.child import Ended

    def answer_of(child):
        answer = child.answer(STARTING)
        if "unusable" in answer:
            raise InputError(answer["unusable"])
        return answer

    folder.require(args.folder)
    own = args.folder.resolve()
    try:
        with (
            copied(own) as copy,
            StudentProcess("student.own", own, args.seed, args.prompt, cwd=copy) as child,
        ):
            used = answer_of(child)
            write(
                "yours: "
                + (", ".join(used["own"]) or "none yet")
                + "\nstill the package's: "
                + (", ".join(used["ops"]) or "none")
            )
            steps = answer_of(child)
            if not steps["ok"]:
                write(
                    f"\nsteps that differ from the reference: {len(steps['red'])}; the first:\n"
                    f"{steps['first']}"
                )
                return 1
            write(
                f"\nevery step of the model agrees with the reference. Its story:\n\n{args.prompt}",
                end="",
            )
            while (text := child.answer(STARTING)["text"]) is not None:
                write(text, end="")
            write("")
    except Ended as ended:
        write("")
        print(f"minillm: your code did not come to its end: {ended}", file=sys.stderr)
        return 1
    return 0
