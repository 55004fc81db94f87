"""A student's code as a check sees it, wherever it runs: in this process, or in one of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Protocol

from .call import Outcome, Problem, called, one_line
from .reach import Names, of_function

Parameters = list[tuple[str, bool]]  # names, and whether one may leave it out


class Student(Protocol):
    """What a check asks for.

    problem: why nothing could be loaded. value: what `answer` is, None where it is `...`.
    parameters, signature: of the function; None where there is none, [] and "" where it does not
    say. code: of the function; codes: of all that belongs to it; found: what of the package it
    holds.
    """

    problem: Problem | None
    value: object
    parameters: Parameters | None
    signature: str
    code: CodeType | None
    codes: list[CodeType]
    found: Names

    def call(self, args: dict, changes: Sequence[str], compiled: int = 0) -> Outcome:
        """Call the function; or, so many times, what Numba makes of it."""
        ...


class Here:
    """A namespace, in this process: a notebook's, or one that a file was loaded into."""

    problem = None

    def __init__(self, namespace: Mapping[str, object], name: str):
        self._function, answer = namespace.get(name), namespace.get("answer")
        self.value = None if answer is ... else answer
        self._file, self._compiled = str(namespace.get("__file__", "")), None
        self.parameters, self.signature = signature_of(self._function)
        plain = getattr(self._function, "py_func", self._function)
        self.code = getattr(plain, "__code__", None)
        self.codes, self.found = of_function(plain) if callable(plain) else ([], set())

    def call(self, args: dict, changes: Sequence[str], compiled: int = 0) -> Outcome:
        if not compiled:
            return called(self._function, args, changes, self._file)
        if self._compiled is None:
            self._compiled = jitted(self._function)
        for _ in range(compiled):
            outcome = called_by_numba(self._compiled, args, changes)
        return outcome


def signature_of(function: object) -> tuple[Parameters | None, str]:
    """Return a function's parameters and how they are written; None for what is no function."""
    if not callable(function):
        return None, ""
    try:
        own = inspect.signature(getattr(function, "py_func", function))
    except (TypeError, ValueError):
        return [], ""  # a builtin says nothing of itself
    plain = str(own.replace(return_annotation=own.empty))
    return [
        (p.name, p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        for p in own.parameters.values()
    ], one_line(plain)


def jitted(function: Callable) -> Callable:
    """Return the function compiled by Numba, and with it those of the same file, which it may
    call."""
    import numba

    function = getattr(function, "py_func", function)
    space = dict(function.__globals__)

    def here(f: FunctionType) -> FunctionType:
        return FunctionType(f.__code__, space, f.__name__, f.__defaults__, f.__closure__)

    for name, f in function.__globals__.items():
        if isinstance(f, FunctionType) and f.__globals__ is function.__globals__:
            space[name] = numba.njit(here(f))
    return numba.njit(here(function))


def called_by_numba(function: Callable, args: dict, changes: Sequence[str]) -> Outcome:
    """`called`, for a compiled function; what Numba cannot compile is one line that names the
    culprit."""
    outcome = called(function, args, changes)
    if outcome.raised and outcome.error.startswith(("TypingError", "LoweringError", "Unsupported")):
        outcome.raised = Problem("raised", f"Numba cannot compile it: {_culprit(outcome.error)}")
    return outcome


def _culprit(error: str) -> str:
    """Of Numba's many lines the one that says what it cannot do, and the line of the file."""
    lines = [line.strip() for line in error.partition(":")[2].splitlines()]
    with suppress(StopIteration):
        says = next(x for x in lines if x and not x.startswith(("Failed in", "During:", "- ")))
        line = next((x for x in lines if x.startswith("File ")), "").rpartition(", line ")[2]
        return one_line(says) + (f" (line {line.strip(':')})" if line else "")
    return one_line(error)


__all__ = ["Here", "Student", "called_by_numba", "jitted", "signature_of"]
