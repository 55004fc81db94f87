"""What an exercise is: a function of the package to write or to mend, or a number to predict, and
how it is checked."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .. import kernels
from . import source
from .compare import Problem, describe, problem, written
from .inputs import Given

BEGIN, END = "# BEGIN SOLUTION NO PROMPT\n", "# END SOLUTION\n"
TRIED = 1000  # the numbers to predict are smaller
RIGHT, TODO, SKIPPED = "right", "todo", "skipped"
LINE = 160  # characters of the inputs that are written out


@dataclass(frozen=True)
class Mistake:
    """A classic mistake: what to change in the right answer, and what someone who made it should be
    told.

    change: {old text: new text} of the body, or a new body; for a number to predict, the wrong
    number.
    """

    name: str
    change: Mapping[str, str] | str | float
    says: str


@dataclass
class Result:
    """The outcome of one check: status is right, todo, skipped or a kind of compare.Problem.

    message: the line for a person. where: the inputs it happened on. mistake: the gallery's name of
    the mistake that the output is exactly that of, diagnosis what it says; cell: of the notebooks,
    to read again. printed: what the code printed.
    """

    name: str
    status: str
    message: str = ""
    where: str = ""
    mistake: str = ""
    diagnosis: str = ""
    cell: str = ""
    printed: str = ""

    @property
    def right(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status in (RIGHT, SKIPPED)

    def __str__(self) -> str:
        """What a student reads of it."""
        if self.status == RIGHT:
            return self.headline
        lines = [self.headline]
        if self.where:
            lines.append(f"  on: {self.where}")
        if self.diagnosis:
            lines.append(f"  most likely: {self.diagnosis}")
        if self.cell:
            lines.append(
                f"  read again: chapter {self.cell[:2]}, cell {self.cell}; or: minillm exercises"
                f" hint {self.name}"
            )
        if self.printed:
            lines += [
                "  your code printed:",
                *(f"    {line}" for line in self.printed.splitlines()),
            ]
        return "\n".join(lines)

    @property
    def headline(self) -> str:
        """The first line of that."""
        if self.status == RIGHT:
            return f"{self.name}: right"
        state = {TODO: "to do", SKIPPED: "skipped"}.get(self.status, self.status.upper())
        return f"{self.name}: {state}: {self.message.removeprefix(f'{self.name}: ')}"


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What all exercises have. cell: the notebook cell that explains it; unlocks: what a right
    answer is good for."""

    name: str
    chapter: int
    minutes: int
    difficulty: int  # 1 to 3
    cell: str
    unlocks: str
    hints: tuple[str, ...]
    mistakes: tuple[Mistake, ...]
    needs: str = ""  # a library without which there is nothing to check
    seconds: int = 10  # that a check may take

    kind = ""

    def stub(self) -> str:
        """Return what the student starts with, as the text of a file without its heading."""
        raise NotImplementedError

    def master(self) -> str:
        """Return the stub with the right answer in it, between the lines by which nbgrader and
        otter cut it out again."""
        raise NotImplementedError

    def check(self, namespace: Mapping[str, object], seed: int = 0) -> Result:
        """Return how far what is defined in `namespace` is right."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            return Result(
                self.name,
                SKIPPED,
                f"{self.needs} is not installed: python -m pip install {self.needs}",
            )
        return self._check(namespace, seed)

    def found(self, problem: Problem, where: str = "", mistake: Mistake | None = None) -> Result:
        """The result for a problem, with its diagnosis if it is a known one."""
        known = {"mistake": mistake.name, "diagnosis": mistake.says} if mistake else {}
        return Result(self.name, problem.kind, problem.says, where, cell=self.cell, **known)


@dataclass(frozen=True, kw_only=True)
class Predict(Exercise):
    """A number, or a few, to predict: `digest` is that of the right answer, rounded to `decimals`."""

    question: str
    decimals: int
    digest: str

    kind = "predict"

    def stub(self) -> str:
        question = "\n".join(
            textwrap.wrap(self.question, 118, initial_indent="# ", subsequent_indent="# ")
        )
        return (
            f"{question}\n# Guess before you compute; rounded to {self.decimals} decimals is"
            " enough.\nanswer = ...\n"
        )

    def right(self) -> float:
        """The answer: the number whose hash is the right one, found by trying all from 0 to TRIED."""
        tried = (i / 10**self.decimals for i in range(TRIED * 10**self.decimals + 1))
        return next(number for number in tried if self.digest_of(number) == self.digest)

    def master(self) -> str:
        return f"{self.stub()}{BEGIN}answer = {self.right():g}\n{END}"

    def digest_of(self, answer) -> str:
        """The hash of an answer, rounded."""
        text = f"{self.name} {round(float(answer), self.decimals) + 0.0:.{self.decimals}f}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _check(self, namespace, seed) -> Result:
        answer = namespace.get("answer")
        if answer is None or answer is ...:
            return self.found(Problem(TODO, f"{self.name}: yours to predict (answer = ...)"))
        try:
            digest = self.digest_of(answer)
        except (TypeError, ValueError):
            return self.found(Problem("shape", f"answer is {describe(answer)}; needed: one number"))
        if digest == self.digest:
            return Result(self.name, RIGHT)
        known = next((m for m in self.mistakes if self.digest_of(m.change) == digest), None)
        return self.found(
            Problem("wrong", f"{answer} is not it (to {self.decimals} decimals)"), mistake=known
        )


@dataclass
class Outcome:
    """What one call gave: values by where they stand, the inputs it changed, or what it raised."""

    values: dict | None = None
    mutated: tuple[str, ...] = ()
    raised: Problem | None = None
    error: str = ""  # its type


@dataclass(frozen=True, kw_only=True)
class Code(Exercise):
    """A function to write, or, where `mend` names one of the mistakes, to repair.

    answer: the right one, the package's own. inputs(given) yields (where, arguments) or (where,
    arguments, the reference's result), the arguments in order or by name. example: a call for the
    docstring, and the first inputs. changes: parameters that it is meant to change. last: one more
    check of a function whose values are right.
    """

    answer: Callable
    example: str
    inputs: Callable[[Given], Iterable[tuple]]
    mend: str = ""
    changes: tuple[str, ...] = ()
    hides: tuple[Callable, ...] = ()  # what in the package does the same
    last: Callable[[Callable], Problem | None] = field(default=lambda function: None)

    @property
    def kind(self) -> str:
        return "mend" if self.mend else "write"

    # ---- what the student gets

    @cached_property
    def _source(self) -> str:
        return source.source_of(self.answer, self.name)

    def source(self, mistake: str = "") -> str:
        """Return the right answer, or the one with a mistake made."""
        return (
            source.edited(self._source, self._mistake(mistake).change) if mistake else self._source
        )

    def function(self, mistake: str) -> Callable:
        """Return the answer with a mistake made, as a function."""
        return source.compiled(self.source(mistake), self.name, self.answer)

    def _mistake(self, name: str) -> Mistake:
        return next(m for m in self.mistakes if m.name == name)

    def stub(self) -> str:
        return self.file_with(self.begun())

    def begun(self) -> str:
        """Return the body that the student starts with."""
        if self.mend:
            return source.parts(self.source(self.mend))[2]
        return f'    raise NotImplementedError("{self.name}: yours to write")\n'

    def file_with(self, body: str) -> str:
        """Return a student's file, without its heading, that has this body."""
        signature, doc, _ = source.parts(self.source())
        with np.printoptions(precision=4, suppress=True):
            shown = repr(eval(self.example, {"np": np, "math": math, self.name: self.answer}))
        call = textwrap.fill(
            f">>> {self.example}", 114, subsequent_indent="...     ", break_on_hyphens=False
        )
        function = source.joined(signature, f"{doc}\n\nExample:\n{call}\n{shown}", body)
        return f"{source.imports(self.answer, self.example + function)}\n\n\n{function}"

    def master(self) -> str:
        right = source.parts(self.source())[2]
        return self.file_with(
            textwrap.indent(BEGIN, "    ") + right + textwrap.indent(END, "    ") + self.begun()
        )

    # ---- the check

    def cases(self, seed: int = 0) -> list[tuple]:
        """Return (where, arguments by name, expected result or None), the same ones at every call."""

        def call(*args, **kwargs) -> dict:
            return inspect.signature(self.answer).bind(*args, **kwargs).arguments

        example = eval(self.example, {"np": np, "math": math, self.name: call})
        cases = [("the example in the docstring", example), *self.inputs(Given(seed))]
        named = [
            (where, args if isinstance(args, dict) else call(*args), *rest)
            for where, args, *rest in cases
        ]
        return [(where, args, rest[0] if rest else None) for where, args, *rest in named]

    def run(
        self, function: Callable, seed: int = 0, file: str = "", closed: bool = False
    ) -> list[Outcome]:
        """Call `function` on every case, up to one that stops it; `closed`: while the package's own
        raises. An error names the line of `file`."""
        cases, pristine = self.cases(seed), self.cases(seed)
        with hidden(self.name, self.answer, *self.hides) if closed else nullcontext():
            outcomes = []
            for (_, args, _), (_, before, _) in zip(cases, pristine):
                outcomes.append(self._called(function, args, before, file))
                if outcomes[-1].raised and outcomes[-1].raised.kind in (TODO, "stopped"):
                    break
            return outcomes

    def _called(self, function, args, pristine, file) -> Outcome:
        try:
            with np.errstate(all="ignore"):
                result = function(**args)
        except (Exception, SystemExit) as error:
            return Outcome(raised=raised(error, file), error=type(error).__name__)
        changed = tuple(
            n
            for n in args
            if n not in self.changes and _contents(args[n]) != _contents(pristine[n])
        )
        return Outcome(
            {"": result, **{f"{name} afterwards": args[name] for name in self.changes}}, changed
        )

    def wanted(self, seed: int = 0) -> list[Outcome]:
        """What is right in every case: the reference's own result where there is one."""
        outcomes = self.run(self.answer, seed)
        for outcome, (_, _, expected) in zip(outcomes, self.cases(seed)):
            if expected is not None:
                outcome.values[""] = expected
        return outcomes

    def _check(self, namespace, seed) -> Result:
        function = namespace.get(self.name)
        if not callable(function):
            return self.found(Problem("missing", f"there is no function {self.name}"))
        if says := self._signature_problem(function):
            return self.found(Problem("signature", says))
        wanted = self.wanted(seed)
        outcomes = self.run(function, seed, str(namespace.get("__file__", "")), closed=True)
        bad = self._first(outcomes, wanted, seed)
        if bad is None:
            worse = self.last(function)
            return self.found(worse) if worse else Result(self.name, RIGHT)
        if bad.kind == TODO:
            return self.found(bad)
        if self.mend and source.same(
            function, source.compiled(self.stub(), self.name, self.answer)
        ):
            return self.found(
                Problem(TODO, f"{self.name}: the mistake is still in it. {bad.says}"), bad.where
            )
        return self.found(
            bad,
            bad.where,
            None if bad.kind == "stopped" else self.diagnose(outcomes, bad.case, seed),
        )

    def _signature_problem(self, function) -> str:
        needed = inspect.signature(self.answer)
        try:
            own = inspect.signature(getattr(function, "py_func", function))
        except (TypeError, ValueError):
            return ""  # a builtin says nothing of itself
        shared = [name for name in own.parameters if name in needed.parameters]
        optional = [
            p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            for p in own.parameters.values()
        ]
        must_be = [
            name not in needed.parameters or needed.parameters[name].default is not needed.empty
            for name in own.parameters
        ]
        if shared == [*needed.parameters] and all(o or not m for o, m in zip(optional, must_be)):
            return ""
        plain = [str(s.replace(return_annotation=s.empty)) for s in (own, needed)]
        return f"{self.name}{plain[0]}; needed: {self.name}{plain[1]}"

    def _first(self, outcomes, wanted, seed) -> FirstProblem | None:
        for i, (got, want, (where, args, _)) in enumerate(zip(outcomes, wanted, self.cases(seed))):
            if bad := got.raised or problem(got.values, want.values, got.mutated):
                return FirstProblem(bad.kind, bad.says, f"{where} ({_arguments(args)})", i)
        return None

    def _agrees(self, outcomes, others, case=None) -> int:
        """In how many cases two functions do the same; 0 if not in `case`."""
        same = [
            a.error == b.error
            and a.mutated == b.mutated
            and (bool(a.error) or problem(a.values, b.values) is None)
            for a, b in zip(outcomes, others)
        ]
        return sum(same) if case is None or same[case] else 0

    def diagnose(self, outcomes, case: int, seed: int = 0) -> Mistake | None:
        """Return the known mistake whose outputs are most often the same, and are so in `case`;
        None if there is none."""
        agreed = {
            m.name: self._agrees(outcomes, self.run(self.function(m.name), seed), case)
            for m in self.mistakes
        }
        best = max(agreed, key=agreed.get)
        return self._mistake(best) if agreed[best] else None


@dataclass(frozen=True)
class FirstProblem(Problem):
    """A problem, the inputs and the number of the case that showed it."""

    where: str
    case: int


def _arguments(args: Mapping[str, object]) -> str:
    """The arguments of a call, functions left out: written out where that fits into a LINE, else in
    a few words each."""
    values = {name: value for name, value in args.items() if not callable(value)}
    full, short = (
        ", ".join(f"{name}: {say(value)}" for name, value in values.items())
        for say in (written, describe)
    )
    return full if len(full) <= LINE else short


def raised(error: BaseException, file: str = "") -> Problem:
    """An exception in a sentence, with the line of the student's file."""
    if isinstance(error, NotImplementedError):
        return Problem(TODO, str(error))
    if isinstance(error, SystemExit):
        return Problem(
            "stopped",
            f"it called sys.exit({error.code!r}): a function returns, and does not end the program",
        )
    if isinstance(error, MemoryError):
        return Problem("stopped", "it asked for more memory than an exercise may have")
    line, frame = None, error.__traceback__
    if isinstance(error, SyntaxError):
        line = error.lineno
    while frame is not None:
        if file and frame.tb_frame.f_code.co_filename == file:
            line = frame.tb_lineno
        frame = frame.tb_next
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return Problem(
        "raised", f"{type(error).__name__}: {text}" + (f" (line {line})" if line else "")
    )


def _contents(value) -> list:
    """What the arrays in an argument hold, to see whether it was changed."""
    if isinstance(value, np.ndarray):
        return [(value.shape, value.tobytes())]
    if isinstance(value, (dict, list)):
        return [
            c for v in (value.values() if isinstance(value, dict) else value) for c in _contents(v)
        ] + [len(value)]
    return []


@contextmanager
def hidden(name: str, *functions: Callable) -> Iterator[None]:
    """Let the package's own functions, and the kernel of that name, raise: whoever holds them,
    under whatever name."""
    says, space = f"{name}: minillm's own is closed while yours is being checked", {}
    exec(f"def closed(*args, **kwargs):\n    raise RuntimeError({says!r})", space)
    codes = [function.__code__ for function in functions]
    kernel = vars(kernels).get(name)
    for function in functions:
        function.__code__ = space["closed"].__code__
    setattr(kernels, name, space["closed"])
    try:
        yield
    finally:
        for function, code in zip(functions, codes):
            function.__code__ = code
        delattr(kernels, name)
        if kernel is not None:
            setattr(kernels, name, kernel)
