"""What an exercise is: a function of the package to write or to mend, or a number to predict, and
how it is checked."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from ...errors import not_installed
from ...moved import place_of
from ...reference import TOLERANCES
from ..course import heading
from . import reach, source
from .call import TODO, Outcome, Problem, called
from .inputs import Given
from .run import Here, Student
from .verdict import EXACT, WIDENED, is_widened, problem, written
from .wire import describe

BEGIN, END = "# BEGIN SOLUTION NO PROMPT\n", "# END SOLUTION\n"
TRIED = 1000  # the numbers to predict are smaller
RIGHT, SKIPPED = "right", "skipped"
LINE = 160  # characters of the inputs that are written out
RESEMBLES = 0.5  # of the cases that a mistake gets wrong, or the student: how many must be the same
AGAIN = 2  # times that all is called again, to find out who draws numbers of their own


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
    """The outcome of one check: status is right, todo, skipped or a kind of call.Problem.

    message: the line for a person. where: the inputs it happened on. mistake: the name of the one
    that was made, since every output is exactly that of it, diagnosis what it says; without a name,
    diagnosis is what the outputs resemble. cell: of the notebooks, to read again. printed: what the
    code printed.
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
            lines.append(f"  {'most likely' if self.mistake else 'resembles'}: {self.diagnosis}")
        if self.cell:
            where = f"chapter {self.cell[:2]}, {heading(self.cell)}"
            lines.append(f"  read again: {where}; or: minillm exercises hint {self.name}")
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
            return f"{self.name}: right" + (f"; {self.message}" if self.message else "")
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
        """Return how far what is defined in `namespace` is right. It runs in this process."""
        return self.missing_library() or self.judge(Here(namespace, self.name), seed)

    def missing_library(self) -> Result | None:
        """The result where nothing can be checked, because a library is not installed."""
        if not self.needs or importlib.util.find_spec(self.needs) is not None:
            return None
        return Result(self.name, SKIPPED, not_installed(self.needs))

    def judge(self, student: Student, seed: int = 0) -> Result:
        """Return how far a student's work is right, wherever it runs."""
        return self.found(student.problem) if student.problem else self._judged(student, seed)

    def _judged(self, student: Student, seed: int) -> Result:
        raise NotImplementedError

    def found(self, problem: Problem, where: str = "", mistake: Mistake | None = None) -> Result:
        """The result for a problem, with its diagnosis if it is a known one."""
        known = {"mistake": mistake.name, "diagnosis": mistake.says} if mistake else {}
        return Result(self.name, problem.kind, problem.says, where, cell=self.cell, **known)


@dataclass(frozen=True, kw_only=True)
class Predict(Exercise):
    """A number to predict: `digest` is that of the right answer, rounded to `decimals`."""

    question: str
    decimals: int
    digest: str

    kind = "predict"

    def stub(self) -> str:
        question = "\n".join(
            textwrap.wrap(self.question, 100, initial_indent="# ", subsequent_indent="# ")
        )
        return (
            f"{question}\n# Guess before you compute; rounded to {self.decimals} decimals is"
            " enough.\nanswer = ...\n"
        )

    def right(self) -> float:
        """The answer: the number whose hash is the right one, found by trying all up to TRIED."""
        tried = (i / 10**self.decimals for i in range(TRIED * 10**self.decimals + 1))
        return next(number for number in tried if self.digest_of(number) == self.digest)

    def master(self) -> str:
        return f"{self.stub()}{BEGIN}answer = {self.right():g}\n{END}"

    def digest_of(self, answer) -> str:
        """The hash of an answer, rounded."""
        text = f"{self.name} {round(float(answer), self.decimals) + 0.0:.{self.decimals}f}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _judged(self, student, seed) -> Result:
        answer = student.value
        if answer is None:
            return self.found(Problem(TODO, f"{self.name}: yours to predict (answer = ...)"))
        try:
            digest = self.digest_of(answer)
        except (TypeError, ValueError, OverflowError):
            return self.found(Problem("shape", f"answer is {describe(answer)}; needed: one number"))
        if digest == self.digest:
            if used := reach.uses(student.codes, ("exercises", "minillm.exercises")):
                says = f"right, but line {used[1]} looks it up: the number is yours to find"
                return self.found(Problem("not as asked", says))
            return Result(self.name, RIGHT)
        known = next((m for m in self.mistakes if self.digest_of(m.change) == digest), None)
        says = f"{describe(answer)} is not it (to {self.decimals} decimals)"
        return self.found(Problem("wrong", says), mistake=known)


@dataclass(frozen=True, kw_only=True)
class Code(Exercise):
    """A function to write, or, where `mend` names one of the mistakes, to repair.

    answer: the right one, the package's own. inputs(given) yields (where, arguments) or (where,
    arguments, the reference's result), the arguments in order or by name. example: a call for the
    docstring, and the first inputs.
    """

    answer: Callable
    example: str
    inputs: Callable[[Given], Iterable[tuple]]
    mend: str = ""
    changes: tuple[str, ...] = ()  # parameters that it is meant to change
    once: tuple[str, ...] = ()  # functions that it is given, through which nothing may go twice
    loop_without: tuple[str, ...] = ()  # a loop is asked for, and none of these
    own_dtype: bool = False  # float64 will not do where float32 is right: the docstring says so
    last: Callable[[Callable[..., Outcome]], Problem | None] = field(default=lambda call: None)

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
        with np.printoptions(precision=4, suppress=True, linewidth=70):
            shown = repr(eval(self.example, {"np": np, "math": math, self.name: self.answer}))
        call = textwrap.fill(
            f">>> {self.example}", 96, subsequent_indent="...     ", break_on_hyphens=False
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
        """Return (where, arguments by name, expected result or None): the same at every call."""

        def call(*args, **kwargs) -> dict:
            return inspect.signature(self.answer).bind(*args, **kwargs).arguments

        example = eval(self.example, {"np": np, "math": math, self.name: call})
        cases = [("the example in the docstring", example), *self.inputs(Given(seed))]
        named = (
            (where, args if isinstance(args, dict) else call(*args), rest[0] if rest else None)
            for where, args, *rest in cases
        )
        return [
            (where, {n: Counted.of(v) if n in self.once else v for n, v in args.items()}, expected)
            for where, args, expected in named
        ]

    def run(self, call: Callable[[dict], Outcome], seed: int = 0) -> list[Outcome]:
        """Call with the arguments of every case, up to one that stops it."""
        outcomes = []
        for _, args, _ in self.cases(seed):
            outcomes.append(call(args))
            outcomes[-1].work = tuple(Counted.work_of(args[name]) for name in self.once)
            if outcomes[-1].raised and outcomes[-1].raised.kind in (TODO, "stopped"):
                break
        return outcomes

    def run_own(self, function: Callable, seed: int = 0) -> list[Outcome]:
        """`run` of a function of ours: the answer, or one with a mistake made."""
        return self.run(partial(called, function, changes=self.changes), seed)

    def wanted(self, seed: int = 0) -> list[Outcome]:
        """What is right in every case: the reference's own result where there is one."""
        outcomes = self.run_own(self.answer, seed)
        for outcome, (_, _, expected) in zip(outcomes, self.cases(seed)):
            if expected is not None:
                outcome.values[""] = expected
        return outcomes

    def _judged(self, student, seed) -> Result:
        if student.parameters is None:
            return self.found(Problem("missing", f"there is no function {self.name}"))
        if says := self._signature_problem(student):
            return self.found(Problem("signature", says))
        call = partial(student.call, changes=self.changes)
        outcomes = self.run(call, seed)
        wanted = self.wanted(seed)  # only now: while a student's function runs, nothing holds it
        cases = self.cases(seed)
        problems = [self._problem(*case) for case in zip(outcomes, wanted, cases)]
        i, bad = next(((i, p) for i, p in enumerate(problems) if p), (0, None))
        if bad is None:
            bad = self._not_as_asked(student) or self.last(call)
            word = WIDENED if any(map(_is_widened, outcomes, wanted)) else ""
            return self.found(bad) if bad else Result(self.name, RIGHT, word)
        if bad.kind == TODO:
            return self.found(bad)
        where, args, _ = cases[i]
        where = f"{where} ({_arguments(args)})"
        if self.mend and source.same(student.code, source.code_of(self.stub(), self.name)):
            bad = Problem(TODO, f"{self.name}: the mistake is still in it. {bad.says}")
            return self.found(bad, where)
        if bad.kind == "stopped":
            return self.found(bad, where)
        return self.found(bad, where, self.diagnose(outcomes, wanted, problems, call, seed))

    def _problem(self, got: Outcome, want: Outcome, case: tuple) -> Problem | None:
        """What is wrong with one outcome."""
        if got.raised:
            return got.raised
        exact = TOLERANCES[np.dtype(np.float32)] if _holds_float32(case[1]) else EXACT
        widen = not self.own_dtype
        if bad := problem(got.values, want.values, got.mutated, exact, widen):
            return bad
        if got.cast:
            says = "nan or infinity became an integer: which one differs between machines"
            return Problem("not finite", f"{says} (is there a division by 0?)")
        for name, mine, enough in zip(self.once, got.work, want.work):
            if mine > enough:
                says = f"{mine} numbers went through {name}, and {enough} are enough: each once"
                return Problem("not as asked", f"right values, but {says}")
        return None

    def _not_as_asked(self, student: Student) -> Problem | None:
        """What is wrong with how right values were found."""
        allowed = reach.imported(compile(self.stub(), self.name, "exec"))
        allowed |= {place_of(*name) for name in reach.OLD_STUBS.get(self.name, ())}
        if says := reach.borrowed(student.codes, student.found, allowed):
            return Problem("not as asked", f"right values, but {says}")
        if self.loop_without and student.codes:
            if used := reach.uses(student.codes, self.loop_without):
                says = f"right values, but line {used[1]} uses {used[0]}: a loop is asked for"
                return Problem("not as asked", says)
            if not reach.loops(student.codes):
                return Problem("not as asked", "right values, but a loop is asked for")
        return None

    def _signature_problem(self, student: Student) -> str:
        """How the signature differs from the one needed; "" where every call fits that a check
        makes: the same parameters in order, others only where they may be left out."""
        needed = inspect.signature(self.answer)
        given = {name for name, p in needed.parameters.items() if p.default is p.empty}
        common = [name for name, _ in student.parameters if name in needed.parameters]
        required = {name for name, optional in student.parameters if not optional}
        fits = common == [*needed.parameters] and required <= given
        if fits or not student.signature:  # a builtin says nothing of itself
            return ""
        plain = needed.replace(return_annotation=needed.empty)
        return f"{self.name}{student.signature}; needed: {self.name}{plain}"

    def _agrees(self, a: Outcome, b: Outcome) -> bool:
        """Whether two outcomes are the same, but for rounding."""
        same = (a.error, a.mutated, a.cast, a.work) == (b.error, b.mutated, b.cast, b.work)
        widen = not self.own_dtype
        return same and (bool(a.error) or problem(a.values, b.values, widen=widen) is None)

    def diagnose(self, outcomes, wanted, problems, call, seed: int = 0) -> Mistake | None:
        """Return the mistake that was made: nothing is returned; or one of the known ones, if in
        every case the outcome is its own; or nothing is changed, or it is different each time.

        Without a name, the known mistake that it resembles: of the cases that either gets wrong, at
        least RESEMBLES are the same. None if there is none.
        """
        cases, shares = self.cases(seed), {}
        got, want, before = next(
            (o, w, args) for o, w, p, (_, args, _) in zip(outcomes, wanted, problems, cases) if p
        )
        if got.values and got.values[""] is None and want.values[""] is not None:
            return NO_RETURN
        for mistake in self.mistakes:
            others = self.run_own(self.function(mistake.name), seed)
            same = [self._agrees(a, b) for a, b in zip(outcomes, others)]
            if all(same) and len(outcomes) == len(others):
                return mistake
            wrong = [
                s
                for s, bad, *case in zip(same, problems, others, wanted, cases)
                if bad or self._problem(*case)
            ]
            shares[mistake.name] = sum(wrong) / max(len(wrong), 1)
        for place in (f"{name} afterwards" for name in self.changes if got.values):
            name = place.partition(" ")[0]
            if not problem(got.values[place], before[name]) and problem(
                want.values[place], before[name]
            ):
                return Mistake("not_changed", "", UNCHANGED.format(name=name))
        for _ in range(AGAIN):
            if not all(map(self._agrees, outcomes, self.run(call, seed))):
                return NOT_REPEATABLE
        best = max(shares, key=shares.get)
        return replace(self._mistake(best), name="") if shares[best] >= RESEMBLES else None


@dataclass
class Counted:
    """A function that counts the numbers that go through it (its first argument's)."""

    function: Callable
    work: int = 0

    def __post_init__(self):
        self.__signature__ = inspect.signature(self.function)

    def __call__(self, *args, **kwargs):
        self.work += np.size(next(iter((*args, *kwargs.values())), ()))
        return self.function(*args, **kwargs)

    @classmethod
    def of(cls, value):
        """The function, or every one of a list, counted."""
        return [cls(v) for v in value] if isinstance(value, list) else cls(value)

    @staticmethod
    def work_of(value) -> int:
        """How many numbers went through it, or through all of a list."""
        return sum(v.work for v in value) if isinstance(value, list) else value.work


NO_RETURN = Mistake("no_return", "", "Nothing is returned: is there a `return` at the end?")
NOT_REPEATABLE = Mistake(
    "not_repeatable",
    "",
    "Called again with the same arguments it answers something else: it draws random numbers of its"
    " own, or remembers. All that it needs comes in as arguments.",
)
UNCHANGED = (
    "`{name}` is as it was before the call: `{name} = ...` binds a new array to the name. Change"
    " the array itself: {name}[...] = ..., or *= and +=."
)


def _is_widened(got: Outcome, want: Outcome) -> bool:
    return is_widened(got.values, want.values)


def _holds_float32(value) -> bool:
    """Whether an argument, or one in a structure, is of float32."""
    if isinstance(value, dict):
        return any(map(_holds_float32, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_float32, value))
    return getattr(value, "dtype", None) == np.float32


def _arguments(args: Mapping[str, object]) -> str:
    """The arguments of a call, functions left out: written out where that fits into a LINE, else in
    a few words each."""
    values = {name: value for name, value in args.items() if not callable(value)}
    full, short = (
        ", ".join(f"{name}: {say(value)}" for name, value in values.items())
        for say in (written, describe)
    )
    return full if len(full) <= LINE else short
