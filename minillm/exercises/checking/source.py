"""From the package's own functions to stubs, mistakes and mended code: their source is the only
copy."""

from __future__ import annotations

import ast
import dis
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, ModuleType

from ...errors import InputError
from .reach import GLOBAL, nested


def source_of(function: Callable, name: str) -> str:
    """Return the source of `function`, defined as `name`."""
    source = textwrap.dedent(inspect.getsource(function))
    return re.sub(rf"^def {function.__name__}\b", f"def {name}", source, count=1)


def parts(source: str) -> tuple[str, str, str]:
    """Return a function's signature, docstring and body, each as text; the body ends with a line
    end."""
    definition, lines = ast.parse(source).body[0], source.splitlines(keepends=True)
    assert isinstance(definition, ast.FunctionDef)
    doc = definition.body[0]
    return (
        "".join(lines[: doc.lineno - 1]),
        ast.get_docstring(definition) or "",
        "".join(lines[doc.end_lineno :]),
    )


def joined(signature: str, doc: str, body: str) -> str:
    """The inverse of `parts`."""
    single = "\n" not in doc
    doc = textwrap.indent(
        f'"""{doc}"""' if single else f'"""{doc}\n"""', "    ", lambda line: bool(line.strip())
    )
    return f"{signature}{doc}\n{body}"


def edited(source: str, edits: Mapping[str, str] | str) -> str:
    """Return `source` with its body edited: {old text: new text}, every occurrence; or a new body
    as a whole."""
    signature, doc, body = parts(source)
    if isinstance(edits, str):
        return joined(
            signature, doc, textwrap.indent(textwrap.dedent(edits).strip("\n"), "    ") + "\n"
        )
    for old, new in edits.items():
        if old not in body:
            raise InputError(f"{old!r} is not in {signature.strip()}")
        body = body.replace(old, new)
    return joined(signature, doc, body)


def compiled(source: str, name: str, like: Callable) -> Callable:
    """Return the function that `source` defines, in the surroundings of `like`."""
    namespace = dict(like.__globals__)
    exec(compile(source, f"<{name}>", "exec"), namespace)
    return namespace[name]


def code_of(source: str | bytes, name: str) -> CodeType | None:
    """Return the code of the function `name` in a file, which is not run; None if there is none."""
    module = compile(source, f"<{name}>", "exec")
    own = (c for c in reversed(module.co_consts) if isinstance(c, CodeType) and c.co_name == name)
    return next(own, None)


def same(one: CodeType | None, other: CodeType | None) -> bool:
    """Whether two functions are compiled to the same: layout, comments, docstring and local names
    may differ."""

    def what_counts(code):
        docs = isinstance(code.co_consts[:1] and code.co_consts[0], (str, type(None)))
        return code.co_code, code.co_names, code.co_consts[docs:]

    return bool(one and other) and what_counts(one) == what_counts(other)


def imports(function: Callable, also: str = "") -> str:
    """Return the import lines that `function`, and code that is to stand in its place, needs:
    modules, then names."""
    lines = set()
    for name in {*_names(function.__code__), *re.findall(r"\b(?:np|math)\b", also)}:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            alias = value.__name__.rpartition(".")[2] != name
            lines.add(f"import {value.__name__}" + (f" as {name}" if alias else ""))
        elif callable(value):
            lines.add(f"from {value.__module__} import {value.__name__}")
    libraries = sorted({line for line in lines if "minillm" not in line} | {"import numpy as np"})
    own = sorted(line for line in lines if "minillm" in line)
    return "\n".join([*libraries, *([""] if own else []), *own])


def _names(code: CodeType) -> Iterator[str]:
    """What code looks up among its globals; attributes may have the same names."""
    for inner in nested(code):
        yield from (i.argval for i in dis.get_instructions(inner) if i.opname in GLOBAL)
