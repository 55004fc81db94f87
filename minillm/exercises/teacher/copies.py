"""Near-copies: two students' functions whose syntax trees agree once everything that is easily
changed has been taken away."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from itertools import combinations
from time import monotonic
from typing import TypeVar

Who = TypeVar("Who")

# share of the two forms in common: above all pairs of ways to write the same, see
# tests/exercises/teacher/test_copies.py
ALIKE = 0.9
# parts of a form: shorter functions are written so by many, since the equation in the docstring
# says how
SHORT = 60
# longer ones, of which a student's comparison could take for ever, are alike where they are equal
LONG = 2_000
SECONDS = 10  # for all pairs of a class's functions, of one exercise


def form_of(source: str | bytes, name: str) -> tuple[str, ...]:
    """Return the normalised body of the function `name` and of all others in a file: () if there is
    none, or no Python.

    Layout, comments, docstrings, annotations and imports are left out, and every name is the number
    of its first appearance; what is left is the shape of the tree, its constants and its
    attributes.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    functions = [f for f in tree.body if isinstance(f, ast.FunctionDef)]
    if name not in [f.name for f in functions]:
        return ()
    names: dict[str, str] = {}
    try:
        return tuple(part for f in functions for part in _parts(f, names))
    except RecursionError:
        return ()


def _parts(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return
    if isinstance(node, ast.FunctionDef):
        for argument in ast.walk(node.args):
            if isinstance(
                argument, ast.arg
            ):  # the signature is the stub's: it only gives names their numbers
                names.setdefault(argument.arg, str(len(names)))
        for statement in (
            node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        ):
            yield from _parts(statement, names)
        return
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        node = ast.Assign([node.target], node.value)
    yield type(node).__name__
    if isinstance(node, ast.Name):
        yield names.setdefault(node.id, str(len(names)))
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Constant):
        yield repr(node.value)
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr_context):
            yield from _parts(child, names)


def alike(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    """Return the share, 0 to 1, that two forms have in common; 0 where it is below ALIKE, or either
    is short."""
    if min(len(a), len(b)) < SHORT:
        return 0.0
    if a == b:
        return 1.0
    if max(len(a), len(b)) > LONG:
        return 0.0
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if matcher.real_quick_ratio() < ALIKE or matcher.quick_ratio() < ALIKE:
        return 0.0
    share = matcher.ratio()
    return share if share >= ALIKE else 0.0


def near_copies(
    forms: Mapping[Who, tuple[str, ...]], seconds: float = SECONDS
) -> tuple[list[tuple[Who, Who, float]], bool]:
    """Return (who, who, share in common) for every two that are alike, and whether there was time
    for all."""
    found: list[tuple[Who, Who, float]] = []
    end = monotonic() + seconds
    for a, b in combinations(forms, 2):
        if monotonic() > end:
            return found, False
        if share := alike(forms[a], forms[b]):
            found.append((a, b, share))
    return found, True
