"""The traced run: the same tokens once more, looking at every value."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from linecache import getline
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ..errors import whole_number
from ..ops import softmax
from ..protocol import Model
from ..recording import ONE
from ..steps import Patch, local_name


class Traced:
    """A step that keeps of each position what a recording holds, and hands on the tokens of the
    timed run in the place of those that would be chosen.

    tokens, logits: of the timed run; kept: the positions whose attention is kept; candidates, lens:
    how many words of each moment and of each layer.
    """

    def __init__(
        self,
        model: Model,
        tokens: Sequence[int],
        logits: Sequence[np.ndarray],
        positions: int,
        kept: list[int],
        candidates: int,
        lens: int,
    ):
        self.model, self.tokens, self.timed = model, tokens, logits
        self.candidates = whole_number("candidates", candidates)
        self.lens = whole_number("lens", lens)
        self.shapes: dict[str, dict[str, list[int]]] = {}
        self.places: dict[str, tuple[str, int, str]] = {}
        self.norms = np.zeros((positions, 2 * model.config.sizes.L + 1), np.float32)
        self.attention: dict[int, list[np.ndarray]] = {p: [] for p in kept}
        self.rows: dict[str, list[np.ndarray]] = {}  # of each array that has a row a moment
        self.moment, self.difference = -1, 0.0
        # One block, whose result is replaced by what the lens looks at.
        self.short = model.with_sizes({}, L=1)

    def begin(self, kind: str, rows: int, positions: int, past: int = 0) -> None:
        """A cycle begins, and with it a moment."""
        self.kind, self.past, self.moment = kind, past, self.moment + 1
        self.residuals: list[np.ndarray] = []  # of the last position, L + 1 of [C]

    def __call__(self, name: str, value: Any) -> Any:
        local = local_name(name)
        self.shapes.setdefault(local, {}).setdefault(self.kind, list(np.shape(value)))
        if local not in self.places:
            self.places[local] = _place(sys._getframe(1))
        if local in ("embed", "attn.residual", "mlp.residual"):
            column = 0 if name == "embed" else 2 * int(name.split(".")[1]) + 1
            column += local == "mlp.residual"
            rows = slice(self.past, self.past + value.shape[1])
            self.norms[rows, column] = np.linalg.norm(value[0], axis=-1)
            if local != "attn.residual":
                self.residuals.append(value[0, -1])
        elif local == "attn.weights":
            for position in range(self.past, self.past + value.shape[2]):
                if position in self.attention:
                    rows = value[0, :, position - self.past, : position + 1]  # [H,S]
                    self.attention[position].append(np.round(rows * ONE).astype(np.uint16))
        elif name == "logits":
            self.logits = value[0, -1]
        elif name == "probs":
            self._keep(self.logits, value, self.tokens[self.moment])
        elif name == "next":
            return self.tokens[self.moment]
        return value

    def _keep(self, logits: np.ndarray, after: np.ndarray, token: int) -> None:
        """What a moment is decided by: logits and probabilities [V], and the lens into each layer.

        Source of the lens: nostalgebraist, "interpreting GPT: the logit lens" (2020).
        """
        difference = float(np.abs(logits - self.timed[self.moment]).max())
        self.difference = max(self.difference, difference)
        before, ids = softmax(logits), _largest(logits, self.candidates)
        x = np.stack(self.residuals)[:, None]  # [L+1,1,C]
        first = np.zeros((len(x), 1), np.int64)
        views = softmax(self.short(first, step=Patch({"h.0.mlp.residual": x}))[:, 0])  # [L+1,V]
        words = _largest(views, self.lens)
        rank = (logits > logits[token]).sum()
        row = {
            "candidates.ids": ids,
            "candidates.logits": logits[ids],
            "candidates.before": before[ids],
            "candidates.after": after[ids],
            "chosen": np.array([logits[token], before[token], after[token], rank]),
            "lens.ids": words,
            "lens.probabilities": np.take_along_axis(views, words, -1),
            "lens.chosen": views[:, token],
        }
        for name, values in row.items():
            self.rows.setdefault(name, []).append(values)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was kept, by the names of a recording."""
        found = {
            name: np.stack(rows).astype(np.int32 if name.endswith("ids") else np.float32)
            for name, rows in self.rows.items()
        }
        weights = [np.stack(layers).ravel() for layers in self.attention.values()]  # [L,H,S] each
        found["attention"] = np.concatenate([np.zeros(0, np.uint16), *weights])
        return found | {"norms": self.norms}


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """The indices [..., k] of the largest values along the last axis, the largest first."""
    k = min(k, values.shape[-1])
    some = np.argpartition(-values, k - 1, axis=-1)[..., :k]
    order = np.argsort(-np.take_along_axis(values, some, -1), axis=-1, kind="stable")
    return np.take_along_axis(some, order, -1)


def _place(frame: FrameType | None) -> tuple[str, int, str]:
    """Where a step is formed: file, line, and the lines of the call."""
    while frame is not None and Path(frame.f_code.co_filename).name == "steps.py":
        frame = frame.f_back
    if frame is None:
        return "", 0, ""
    path, package = Path(frame.f_code.co_filename), Path(__file__).parents[1]
    first, last, *_ = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    first = first or frame.f_lineno
    span = range(first, min(last or first, first + 7) + 1)
    lines = [getline(str(path), n).rstrip() for n in span]
    indent = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    inside = path.is_relative_to(package)
    file = path.relative_to(package.parent).as_posix() if inside else path.name
    return file, first, "\n".join(line[indent:] for line in lines)
