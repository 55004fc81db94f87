"""What a student's code reaches for, read from its compiled form: the package's own functions,
whatever leads to them, and other libraries. Nothing is run.

It is the last question, asked of answers whose values are right; a check in another process leaves
only this way to a mark without work. It finds what a student writes, not what an expert hides.
"""

from __future__ import annotations

import dis
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType

from ...moved import place_of

PACKAGE = "minillm"
LEADS_ANYWHERE = """
    sys os importlib import_module inspect gc ctypes ctypeslib subprocess multiprocessing builtins
    runpy pkgutil pydoc pickle marshal traceback linecache f2py modules _getframe currentframe
    f_back f_locals f_globals f_builtins tb_frame gi_frame cr_frame eval exec compile globals vars
    getattr attrgetter methodcaller breakpoint
"""
OFFERED = """
    numpy numba math cmath __future__ abc array bisect collections contextlib copy dataclasses
    decimal difflib enum fractions functools heapq itertools json numbers operator random re
    statistics string struct textwrap time typing unicodedata warnings
"""  # what an answer may import: it is to be written, and other libraries have it ready
HARMLESS = """
    __name__ __file__ __doc__ __init__ __len__ __call__ __getitem__ __future__ __annotations__
    __version__
"""
ONLY = "an answer imports numpy, math and what else of Python's own computes, no other library"
GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
NAMELESS = ("LOAD_CONST", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE", "LOAD_SPECIAL")

Names = set[tuple[str, str]]  # (module, name)

# What a student's file has imported since its stub was written, by minillm 0.1.
OLD_STUBS: dict[str, Names] = {
    "attention": {("minillm.attention", "causal_mask")},
    "greedy": {("minillm.exercises.textbook", name) for name in ("append", "argmax")},
}


def nested(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and all that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested(constant)


def imported(code: CodeType) -> Names:
    """What is imported from the package, name by name."""
    return {(m, n) for c in nested(code) for m, n, _ in _imports(c) if _of_package(m)}


def of_function(function: Callable) -> tuple[list[CodeType], Names]:
    """Return the code of a function and of those that it calls, and what of the package and of
    other libraries it finds under whatever name among its globals, defaults and closures."""
    codes: list[CodeType] = []
    found: Names = set()
    seen: list[object] = []
    waiting: list = [function]
    while waiting:
        value = waiting.pop()
        if any(value is other for other in seen):
            continue
        seen.append(value)
        value = getattr(value, "py_func", value)  # as Numba wraps it
        if isinstance(value, ModuleType):
            if not _is_offered(value.__name__):
                found.add((value.__name__, ""))
        elif _is_installed(module := _module_of(value)):
            found.add((module, getattr(value, "__name__", type(value).__name__)))
        elif isinstance(value, FunctionType):
            own = [*nested(value.__code__)]
            codes += own
            names = {i.argval for c in own for i in dis.get_instructions(c) if i.opname in GLOBAL}
            waiting += [value.__globals__[n] for n in names if n in value.__globals__]
            waiting += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
            for cell in value.__closure__ or ():
                with suppress(ValueError):  # nothing is in it yet
                    waiting.append(cell.cell_contents)
        elif isinstance(value, MethodType):
            waiting.append(value.__func__)
        elif isinstance(value, type) and value.__module__ == function.__module__:
            waiting += vars(value).values()
        elif isinstance(value, partial):
            waiting += [value.func, *value.args, *value.keywords.values()]
    return codes, found


def borrowed(codes: Iterable[CodeType], found: Names, allowed: Names) -> str:
    """Return, in a sentence, the first that reaches for the package's own beyond `allowed`, or for
    what leads anywhere, or for another library; "" if nothing does."""
    codes = [*codes]
    for module, name in sorted(found - allowed):
        if _of_package(module):
            return f"it uses minillm's own {name or module.partition('.')[2]}"
    for code in codes:
        for module, name, line in _imports(code):
            if _of_package(module) and (module, name) not in allowed:
                return f"line {line} imports minillm's own {name or module}"
        for word, line in _words(code):
            hidden = word.startswith("__") and word not in HARMLESS.split()
            if word in LEADS_ANYWHERE.split() or hidden or _of_package(word):
                return f"line {line} uses {word}, which can lead to minillm's own: leave it out"
    others = [
        *(f"it uses {module}" for module, _ in sorted(found) if not _of_package(module)),
        *(
            f"line {line} imports {module or name}"
            for code in codes
            for module, name, line in _imports(code)
            if not (_of_package(module) or _is_offered(module))
        ),
    ]
    return f"{others[0]}: {ONLY}" if others else ""


def uses(codes: Iterable[CodeType], words: Iterable[str]) -> tuple[str, int] | None:
    """Return the first of `words` that is used, and in which line; "@" is the product."""
    found = [(w, line) for code in codes for w, line in _words(code) if w in words]
    return found[0] if found else None


def loops(codes: Iterable[CodeType]) -> bool:
    """Whether there is a loop in a function."""
    return any(
        i.opname == "FOR_ITER" or "JUMP_BACKWARD" in i.opname
        for code in codes
        if code.co_name != "<module>"
        for i in dis.get_instructions(code)
    )


def _of_package(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def _is_offered(module: str) -> bool:
    return module.partition(".")[0] in OFFERED.split()


def _is_installed(module: str) -> bool:
    """Whether a module is the package's, or of a library that is not offered."""
    file = getattr(sys.modules.get(module.partition(".")[0]), "__file__", None) or ""
    return _of_package(module) or (
        not _is_offered(module) and bool({"site-packages", "dist-packages"} & {*Path(file).parts})
    )


def _module_of(value: object) -> str:
    """The name of the module that a value, or what it is bound to, is defined in."""
    owner = value if getattr(value, "__module__", None) else getattr(value, "__self__", value)
    return str(getattr(owner, "__module__", None) or type(owner).__module__)


def _imports(code: CodeType) -> Iterator[tuple[str, str, int]]:
    """Yield (module, name, line), of an old name today's: name is "" where the module itself, or
    all in it, is taken."""
    module, after = "", False
    for i in dis.get_instructions(code):
        if after and i.opname != "IMPORT_FROM":
            yield module, "", _line(i)
        after = i.opname == "IMPORT_NAME"
        if after:
            module = i.argval
        elif i.opname == "IMPORT_FROM":
            yield *place_of(module, i.argval), _line(i)


def _words(code: CodeType) -> Iterator[tuple[str, int]]:
    """Yield (name, line) of what is looked up, imported, or stands as a string where a name can."""
    before = None
    for i in dis.get_instructions(code):
        if before is not None and i.opname != "STORE_NAME":  # a string that is no docstring
            yield before, _line(i)
        before = None
        if i.opname == "LOAD_CONST":
            if isinstance(i.argval, str) and re.fullmatch(r"__\w+__|minillm(\.\w+)*", i.argval):
                before = i.argval
        elif i.opname == "BINARY_OP" and "@" in i.argrepr:
            yield "@", _line(i)
        elif isinstance(i.argval, str) and (
            i.opname.startswith(("LOAD_", "IMPORT_")) and not i.opname.startswith(NAMELESS)
        ):
            for word in i.argval.split("."):
                if word != PACKAGE:
                    yield word, _line(i)


def _line(instruction: dis.Instruction) -> int:
    return (instruction.positions and instruction.positions.lineno) or 0
