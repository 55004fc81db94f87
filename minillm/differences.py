"""Two passes compared, step by step: where they differ first, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .errors import require_kind, several


@dataclass(frozen=True)
class Difference:
    """One step compared: `largest` = max |ours - theirs| at `index`; `relative` = that over max
    |theirs|."""

    name: str
    status: str  # OK, DIFF, SHAPE, MISSING
    largest: float = 0.0
    relative: float = 0.0
    index: tuple[int, ...] = ()
    ours: float = 0.0
    theirs: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        where = self.note or f"{list(self.index)}: {self.ours:.9g}, reference {self.theirs:.9g}"
        return (
            f"{self.name:<20} {self.status:<7} largest {self.largest:.1e} relative"
            f" {self.relative:.1e} at {where}"
        )


class StepDifferences(list):
    """The differences of all steps, in order."""

    @property
    def ok(self) -> bool:
        """Whether every step is OK; an empty report is not."""
        return bool(self) and all(d.status == "OK" for d in self)

    @property
    def first(self) -> Difference | None:
        """The first step that is not OK, or None."""
        return next((d for d in self if d.status != "OK"), None)

    @property
    def worst(self) -> Difference | None:
        """The step with the largest relative difference, or None where nothing was compared."""
        return max(self, key=lambda d: d.relative, default=None)

    def __str__(self) -> str:
        return "\n".join(map(str, self))


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b| in float64: 0 where both are the same, infinities too, and inf where either is
    NaN."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(np.asarray(a, np.float64) - b)
    return np.where(a == b, 0.0, np.nan_to_num(distance, nan=np.inf, posinf=np.inf))


def sizes(x: np.ndarray) -> np.ndarray:
    """|x|, and 0 where it is not finite: what a tolerance may be a share of."""
    return np.where(np.isfinite(x), np.abs(x), 0)


def diff(
    trace: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    tolerance: float | Callable[[str], float] = 1e-5,
    names: Iterable[str] | None = None,
) -> StepDifferences:
    """Compare a trace with a reference, step by step, in the reference's order (or that of
    `names`).

    A step is OK when max |ours - theirs| <= tolerance * max |theirs|, of finite numbers;
    `tolerance` may depend on the step's name. A NaN on either side is a DIFF, and so is an infinity
    that the other lacks.
    """
    for what, given in (("trace", trace), ("reference", reference)):
        require_kind(what, given, Mapping, "{step name: array}")
    report = StepDifferences()
    for name in several("names", reference if names is None else names, "several step names"):
        if name not in trace or name not in reference:
            report.append(
                Difference(
                    name,
                    "MISSING",
                    note="not in the " + ("trace" if name not in trace else "reference"),
                )
            )
            continue
        ours, theirs = np.asarray(trace[name]), np.asarray(reference[name])
        if ours.shape != theirs.shape:
            report.append(Difference(name, "SHAPE", note=f"{ours.shape}, reference {theirs.shape}"))
            continue
        distance = apart(ours, theirs)
        index = np.unravel_index(distance.argmax(), distance.shape) if distance.size else ()
        largest = float(distance[index]) if distance.size else 0.0
        scale = float(sizes(theirs).max(initial=0.0))
        limit = tolerance(name) if callable(tolerance) else tolerance
        report.append(
            Difference(
                name,
                "OK" if largest <= limit * scale else "DIFF",
                largest,
                largest / scale if scale else largest,
                tuple(int(i) for i in index),
                float(ours[index]) if distance.size else 0.0,
                float(theirs[index]) if distance.size else 0.0,
            )
        )
    return report
