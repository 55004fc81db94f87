"""Small mutants of the right answers, and whether the checks kill them: `python -m
tests.exercises.mutants [N] [SEED]`.

A mutant is an answer with one operator, comparison, number, truth value, sign or argument changed.
N of all there are, drawn by SEED, are checked as a student's files would be, in processes of their
own, since some never end.
"""

from __future__ import annotations

import ast
import copy
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minillm.exercises import EXERCISES, Code
from minillm.exercises.checking import source
from minillm.exercises.checking.process import check_folder
from minillm.exercises.student.folder import file_of, start

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}

# Mutants that compute the same: what they are, and why no check can tell them apart.
NEGATIVE = "for NumPy every negative size is the one to be found"
LAST = "the array has four axes (or the axis one place): it is the same one"
SHORTER_SORT = "leaves out of the sort only what must go anyway: speed"
TIE = (
    "differs only where a sum of rounded probabilities equals the bound exactly, or in which of"
    " equal tokens stay"
)
EQUIVALENT = {
    ("argmax", "line 7: 1 -> 0"): "compares the first score with itself",
    ("attention", "line 7: -2 -> 2"): LAST,
    ("cross_entropy", "line 6: 0 -> -1"): LAST,
    (
        "cross_entropy",
        (
            "line 6: np.take_along_axis(log_softmax(logits), np.asarray(targets)[..., None],"
            " axis=-1) -> np.take_along_axis(log_softmax(logits), np.asarray(targets)[..., None])"
        ),
    ): "-1 is the default",
    (
        "clip_by_global_norm",
        "line 4: norm > limit -> norm >= limit",
    ): "the factor is 1 where they are equal",
    ("cross_entropy_backward", "line 8: 1 -> 2"): NEGATIVE,
    ("dequantize", "line 6: 1 -> 2"): NEGATIVE,
    ("linear_backward", "line 7: 1 -> 2"): NEGATIVE,
    (
        "linear_backward",
        "line 9: weight.backward(d_rows, rows) -> weight.backward(rows, d_rows)",
    ): "for LoRA, no plain matrix",
    ("lstm_cell", "line 8: -1 -> 1"): LAST,
    ("merge_heads", "line 3: 1 -> 2"): NEGATIVE,
    ("quantize", "line 7: 1 -> 2"): NEGATIVE,
    ("quantize", "line 9: 1 -> 2"): "a block of zeros is zeros by whatever it is divided",
    ("roofline", "line 8: max(arithmetic, memory) -> max(memory, arithmetic)"): "the same maximum",
    ("split_heads", "line 3: 1 -> 2"): NEGATIVE,
    (
        "top_k",
        "line 3: k >= len(logits) -> k > len(logits)",
    ): "the smallest of all is the k-th then: nothing is below",
    ("top_p", "line 9: 1.0 -> 0.0"): SHORTER_SORT,
    ("top_p", "line 9: probs >= (1.0 - p) / len(probs) -> probs > (1.0 - p) / len(probs)"): TIE,
    (
        "top_p",
        "line 10: np.argsort(probs[candidates], kind='stable') -> np.argsort(probs[candidates])",
    ): TIE,
    (
        "top_p",
        (
            "line 12: tail + np.cumsum(probs[candidates]) <= 1.0 - p -> tail +"
            " np.cumsum(probs[candidates]) < 1.0 - p"
        ),
    ): TIE,
    (
        "top_p",
        (
            "line 13: np.setdiff1d(candidates, out[:len(candidates) - 1], assume_unique=True) -> "
            "np.setdiff1d(candidates, out[:len(candidates) - 1])"
        ),
    ): "only speed",
    ("top_p", "line 13: True -> False"): "only speed",
}


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield (what is changed, the changed copy) for one node."""

    def changed(**fields):
        new = copy.deepcopy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return f"{ast.unparse(node)} -> {ast.unparse(new)}", new

    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in OPERATORS:
        yield changed(op=OPERATORS[type(node.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        yield changed(ops=[OPERATORS[type(node.ops[0])]()])
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield changed(value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield changed(value=node.value + 1)
        yield changed(value=node.value - 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield f"{ast.unparse(node)} -> {ast.unparse(node.operand)}", copy.deepcopy(node.operand)
    elif isinstance(node, ast.Call):
        if node.keywords:
            yield changed(keywords=node.keywords[:-1])
        if (
            len(node.args) == 2
            and isinstance(node.args[0], ast.Name)
            and isinstance(node.args[1], ast.Name)
        ):
            yield changed(args=node.args[::-1])
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            if getattr(node, bound) is not None:
                yield changed(**{bound: None})
    elif isinstance(node, ast.Break):
        yield "break -> pass", ast.Pass()


class Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, new: ast.AST):
        self.target, self.new = target, new

    def visit(self, node):
        return self.new if node is self.target else self.generic_visit(node)


def mutants(e: Code) -> Iterator[tuple[str, str]]:
    """Yield (what was changed, the text of a student's file)."""
    signature, doc, body = source.parts(e.source())
    tree = ast.parse(source.joined(signature, doc, body))
    head = source.imports(e.answer)
    for statement in tree.body[0].body[1:]:
        for node in ast.walk(statement):
            for what, new in changes(node):
                memo_tree = copy.deepcopy(tree)
                originals, copies = list(ast.walk(tree)), list(ast.walk(memo_tree))
                target = copies[originals.index(node)]
                mutated = ast.fix_missing_locations(Replace(target, new).visit(memo_tree))
                yield (
                    f"line {node.lineno - tree.body[0].lineno + 1}: {what}",
                    f"{head}\n\n\n{ast.unparse(mutated)}\n",
                )


def drawn(n: int, seed: int) -> list[tuple[str, str, str]]:
    """Return n of all mutants that are not equivalent: (exercise, what was changed, file)."""
    everything = [
        (e.name, *mutant)
        for e in EXERCISES.values()
        if isinstance(e, Code)
        for mutant in mutants(e)
    ]
    real = [m for m in everything if m[:2] not in EQUIVALENT]
    print(f"{len(everything)} mutants, of which {len(everything) - len(real)} compute the same")
    return [real[i] for i in sorted(np.random.default_rng(seed).permutation(len(real))[:n])]


def survivors(chosen: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Return the (exercise, what was changed) that the checks find right."""
    alive = []
    while chosen:
        now = {
            name: (what, text) for name, what, text in reversed(chosen)
        }  # one of each exercise at a time
        chosen = [m for m in chosen if now[m[0]] != m[1:]]
        with tempfile.TemporaryDirectory() as folder:
            start(Path(folder))
            for name, (_, text) in now.items():
                file_of(Path(folder), EXERCISES[name]).write_text(text, encoding="utf-8")
            alive += [(r.name, now[r.name][0]) for r in check_folder(Path(folder), now) if r.right]
    return alive


if __name__ == "__main__":
    n, seed = (int(a) for a in sys.argv[1:] + ["200", "0"][len(sys.argv) - 1 :])
    chosen = drawn(n, seed)
    alive = survivors(chosen)
    for name, what in alive:
        print(f"alive: {name}: {what}")
    print(f"{len(chosen) - len(alive)} of {len(chosen)} killed")
