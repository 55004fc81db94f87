"""The one seam for looking, timing and intervening: every function that forms an intermediate
passes it to `step`.

`step(name, value) -> value`. A Trace records what passes, a Patch returns something else, a Relay
compares and hands on the reference's value. Names follow the checkpoint (`h.0.attn.scores`), so
that none has to be learnt twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from html import escape

import numpy as np

from .errors import InputError

Step = Callable[[str, np.ndarray], np.ndarray]

# The names of one block in the order in which they are formed; q, k, v: [B,H,T,D], scores and
# weights: [B,H,T,S].
BLOCK_PHASES = {
    "ln_1": "attend",
    "attn.c_attn": "attend",
    "attn.q": "attend",
    "attn.k": "attend",  # as computed, before caching
    "attn.v": "attend",
    "attn.scores": "attend",  # scaled, not yet masked
    "attn.weights": "attend",
    "attn.context": "attend",
    "attn.out": "attend",
    "attn.residual": "attend",
    "ln_2": "feed forward",
    "mlp.c_fc": "feed forward",
    "mlp.act": "feed forward",
    "mlp.out": "feed forward",
    "mlp.residual": "feed forward",
}
OUTER_PHASES = {
    "wte": "embed",
    "wpe": "embed",
    "embed": "embed",  # their sum
    "ln_f": "unembed",
    "logits": "unembed",
    "probs": "choose",
    "next": "choose",
}


def phase_of(name: str) -> str:
    """Return the phase of a cycle that a step belongs to: embed, attend, feed forward, unembed or
    choose."""
    if name in OUTER_PHASES:
        return OUTER_PHASES[name]
    return BLOCK_PHASES[name.split(".", 2)[2]]


def step_names(n_layer: int) -> list[str]:
    """Return the name of every intermediate of one forward pass, in the order in which they are
    formed."""
    blocks = [f"h.{i}.{name}" for i in range(n_layer) for name in BLOCK_PHASES]
    return ["wte", "wpe", "embed", *blocks, "ln_f", "logits"]


def identity(name: str, value):
    """Look at nothing: the default step."""
    return value


def times_only(step: Step) -> bool:
    """Whether `step` looks at no value: identity, and a Clock. Then nothing is formed merely to be
    seen."""
    return step is identity or getattr(step, "times_only", False)


def under(prefix: str, step: Step) -> Step:
    """Return `step` with `prefix` before each name; identity stays identity."""
    if step is identity:
        return step

    def prefixed(name, value):
        return step(prefix + name, value)

    prefixed.times_only = times_only(step)
    return prefixed


class UnknownStep(InputError, KeyError):
    """No step has this name; the message is one line with the names that are near."""

    __str__ = Exception.__str__  # KeyError's own would quote the line


def unknown_step(name, known: Iterable[str]) -> UnknownStep:
    """Return the error that says that `name` is not one of the `known` steps."""
    known = [str(k) for k in known]
    if name in ("probs", "next"):
        hint = "it is formed only where tokens are generated one by one, without beams"
    elif near := get_close_matches(str(name), known, cutoff=0.5):
        hint = f"near it: {', '.join(near)}"
    else:
        hint = f"known: {known[0]} to {known[-1]}" if known else "none was formed"
    return UnknownStep(f"there is no step {name!r:.80} among {len(known)}; {hint}")


def checked(step: Step, formed: Callable[[], Iterable[str]]) -> Step:
    """Return `step` for a pass that forms these names; UnknownStep where it asks for another.

    What a step asks for is its attribute `names`. The step returned has none: it is checked.
    InputError for what cannot be called, as a dict of new values, which Patch takes.
    """
    if isinstance(step, type) or not callable(step):
        raise InputError(
            f"step is {step!r:.60}; it must be called as step(name, value) and return the value:"
            " Trace(), Patch({name: new}) or a function"
        )
    if not hasattr(step, "names"):
        return step
    known = list(formed())
    for name in step.names:
        if name not in known:
            raise unknown_step(name, known)
    return under("", step)


class Trace(dict):
    """A mapping from step name to array that fills itself: pass it as `step`.

    It keeps references, not copies: the forward never writes into an array that has passed. A name
    that it lacks raises UnknownStep, a KeyError.
    """

    def __call__(self, name: str, value):
        self[name] = value
        return value

    def __missing__(self, name):
        raise unknown_step(name, self)

    def __repr__(self) -> str:
        ends = [f"{name} {np.shape(self[name])}" for name in [*self][:1] + [*self][1:][-1:]]
        return f"{type(self).__name__}({len(self)} steps{': ' if ends else ''}{' to '.join(ends)})"

    def _repr_html_(self) -> str:
        """A table of names, shapes and the largest magnitudes, for notebooks."""
        rows = "".join(
            f"<tr><td>{escape(str(name))}</td><td>{np.shape(value)}</td>"
            f"<td>{np.abs(value).max(initial=0):.4g}</td></tr>"
            for name, value in self.items()
        )
        return (
            f"<table><tr><th>step</th><th>shape</th><th>largest magnitude</th></tr>{rows}</table>"
        )


class Patch:
    """A step that replaces values: `replacements` maps a name to a new array or to a function of
    the old one.

    A new value has the old one's shape, and takes its dtype. Raises InputError where it has not,
    and, before the pass, for a name that the pass does not form.
    """

    def __init__(self, replacements: Mapping[str, np.ndarray | Callable], then: Step = identity):
        if not isinstance(replacements, Mapping):
            raise InputError(
                f"the replacements are {replacements!r:.60}; they must be {{step name: new value}}"
            )
        self.replacements, self.then = replacements, then

    @property
    def names(self) -> list[str]:
        """The steps that must be formed, those of `then` among them."""
        return [*self.replacements, *getattr(self.then, "names", ())]

    def __call__(self, name: str, value):
        if name in self.replacements:
            new = self.replacements[name]
            value = _like(value, new(value) if callable(new) else new, name)
        return self.then(name, value)


def _like(value, new, name: str):
    """Return `new` in the dtype of `value`, whose place it takes."""
    if new is None:
        raise InputError(
            f"the patch of {name} returned None: it must return the new value (and change a copy)"
        )
    (old, new), wanted = map(np.asarray, (value, new)), np.shape(value)
    if new.shape != wanted or not np.can_cast(new.dtype, old.dtype, "same_kind"):
        raise InputError(
            f"the patch of {name} is {new.dtype} {new.shape}; the step is {old.dtype} {wanted}"
        )
    return new.astype(old.dtype, copy=False)


class Relay:
    """A step that records and hands on the *reference's* value, so that one mistake reddens one
    step only.

    `trace` holds what was computed at each step from the reference's own inputs; compare it with
    `diff`. Raises InputError, before the pass, for a name of the reference that the pass does not
    form.
    """

    def __init__(self, reference: Mapping[str, np.ndarray]):
        self.reference, self.trace = reference, Trace()

    @property
    def names(self) -> list[str]:
        """The steps that must be formed."""
        return [*self.reference]

    def __call__(self, name: str, value):
        self.trace(name, value)
        return (
            np.asarray(self.reference[name], dtype=value.dtype) if name in self.reference else value
        )


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


def diff(
    trace: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    tolerance: float | Callable[[str], float] = 1e-5,
    names: Iterable[str] | None = None,
) -> StepDifferences:
    """Compare a trace with a reference, step by step, in the reference's order (or that of
    `names`).

    A step is OK when max |ours - theirs| <= tolerance * max |theirs|; `tolerance` may depend on the
    step's name. A NaN on either side is a DIFF.
    """
    report = StepDifferences()
    for name in reference if names is None else names:
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
        with np.errstate(invalid="ignore"):
            distance = np.abs(ours.astype(np.float64) - theirs)
        distance[np.isnan(distance)] = np.inf
        index = np.unravel_index(distance.argmax(), distance.shape) if distance.size else ()
        largest = float(distance[index]) if distance.size else 0.0
        scale = float(np.abs(theirs).max()) if theirs.size else 0.0
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
