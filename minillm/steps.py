"""The one seam for looking, timing and intervening: every function that forms an intermediate
passes it to `step`.

`step(name, value) -> value`. A Trace records what passes, a Patch returns something else, a Relay
compares and hands on the reference's value. Names follow the checkpoint (`h.0.attn.scores`), so
that none has to be learnt twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from html import escape

import numpy as np

from . import moved
from .errors import InputError

Step = Callable[[str, np.ndarray], np.ndarray]

# Names that all families share, by the phase of a cycle that they belong to; inside of a block, a
# name tells by its first part, without the layer.
PHASE_OF = {
    **dict.fromkeys(("wte", "wpe", "embed"), "embed"),
    **dict.fromkeys(("ln_1", "attn"), "attend"),
    **dict.fromkeys(("ln_2", "mlp"), "feed forward"),
    **dict.fromkeys(("ln_f", "logits"), "unembed"),
    **dict.fromkeys(("probs", "next"), "choose"),
}


def local_name(name: str) -> str:
    """The name of a step without its layer: h.3.attn.q -> attn.q."""
    return name.split(".", 2)[2] if name.startswith("h.") else name


def phase_of(name: str) -> str:
    """Return the phase of a cycle that a step belongs to: embed, attend, feed forward, unembed or
    choose."""
    return PHASE_OF[local_name(name).partition(".")[0]]


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


__getattr__ = moved.names_of("steps")
