"""A progress bar for long work: rate and time left on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[..., None]  # update(what, done, total, note="")


@contextmanager
def progress_bar(unit: str, show: bool = True) -> Iterator[Update]:
    """Yield update(what, done, total, note=""): what is being done, how many `unit` so far and of
    how many (None: unknown).

    A new `what` begins a new bar; the note stands behind it. Shown on stderr if that is a terminal,
    and if `show`.
    """
    if not (show and sys.stderr.isatty()):
        yield lambda what, done, total, note="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    printed_above = sys.stdout.isatty()  # else what is printed goes where it is piped to
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=printed_above
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def update(what: str, done: int, total: int | None, note: str = "") -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, rate="", note="")
            task = progress.tasks[tasks[what]]
            rate = f"{task.speed:,.0f}/s" if task.speed else ""
            progress.update(tasks[what], completed=done, total=total, rate=rate, note=note)

        yield update
