"""The one seam for looking, timing and intervening: every function that forms an intermediate
passes it to `step`.

`step(name, value) -> value`. A Trace records what passes, a Patch returns something else, a Relay
compares and hands on the reference's value. Names follow the checkpoint (`h.0.attn.scores`), so
that none has to be learnt twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any, NamedTuple, cast

import numpy as np

from . import moved
from .errors import InputError, UnknownName, count, near_names, require_kind, short

Step = Callable[[str, Any], Any]

# Names that all families share, by the phase of a cycle that they belong to; inside of a block, a
# name tells by its first part, without the layer. A family's own are inside of these, or outside of
# blocks, where they are what it adds to the embedding.
PHASE_OF = {
    **dict.fromkeys(("wte", "embed"), "embed"),
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
    first = local_name(name).partition(".")[0]
    if first not in PHASE_OF and not name.startswith("h."):
        return "embed"
    if first not in PHASE_OF:
        raise InputError(f"step {name!r} is of no phase: its first part is none of {[*PHASE_OF]}")
    return PHASE_OF[first]


def identity(name: str, value: Any) -> Any:
    """Look at nothing: the default step."""
    return value


class Observer(NamedTuple):
    """A step, and what it may have besides being called: read once, by Observer.of(step)."""

    step: Step
    # Told of each cycle before it begins: begin(kind, rows, positions, past=...).
    begin: Callable[..., object] | None = None
    # Told what a fused step has finished, and when: stamps(names, ticks).
    stamps: Callable[..., object] | None = None
    # Whether it looks at no value, as a Clock: then nothing is formed merely to be seen.
    times_only: bool = False
    # The steps that it asks for, each of which must be formed; None for one that takes what comes.
    names: Iterable[str] | None = None
    prefix: str = ""  # what stands before each name, see `under`

    @classmethod
    def of(cls, step: Step) -> Observer:
        """Read what `step` has; InputError for what cannot be called, as a dict of new values,
        which Patch takes."""
        if step is identity:
            return NOBODY
        if isinstance(step, cls):
            return step
        if isinstance(step, type) or not callable(step):
            raise InputError(
                f"step is {short(step)}; it must be called as step(name, value) and return the"
                " value: Trace(), Patch({name: new}) or a function"
            )
        return cls(
            step,
            getattr(step, "begin", None),
            getattr(step, "stamps", None),
            getattr(step, "times_only", False),
            getattr(step, "names", None),
        )

    def __call__(self, name: str, value: Any) -> Any:
        return self.step(self.prefix + name, value)


NOBODY = Observer(identity, times_only=True)


def times_only(step: Step) -> bool:
    """Whether `step` looks at no value: identity, and a Clock."""
    return Observer.of(step).times_only


def under(prefix: str, step: Step) -> Step:
    """Return `step` with `prefix` before each name; identity stays identity."""
    if step is identity:
        return step
    observer = Observer.of(step)
    return cast(Step, Observer(*observer[:-1], observer.prefix + prefix))


class UnknownStep(UnknownName):
    """No step has this name."""


def unknown_step(name: object, known: Iterable[str]) -> UnknownStep:
    """Return the error that says that `name` is not one of the `known` steps."""
    known = [str(k) for k in known]
    if name in ("probs", "next"):
        hint = "it is formed only where tokens are generated one by one, without beams"
    elif near := near_names(name, known):
        hint = f"near it: {', '.join(near)}"
    else:
        hint = f"known: {known[0]} to {known[-1]}" if known else "none was formed"
    return UnknownStep(f"there is no step {name!r:.80} among {len(known)}; {hint}")


def checked(step: Step, formed: Callable[[], Iterable[str]]) -> Step:
    """Return `step` for a pass that forms these names, as an Observer that asks for none any more;
    UnknownStep where it asks for another. While it runs, InputError for a value that it does not
    return, or of another shape."""
    if step is identity:
        return step
    observer = Observer.of(step)
    known = [] if observer.names is None else list(formed())
    for name in observer.names or ():
        if name not in known:
            raise unknown_step(name, known)
    inner = observer.step  # a Clock hands on what it is given
    if not (observer.times_only or observer.begin or isinstance(inner, Answered)):
        inner = cast(Step, Answered(inner))
    return cast(Step, observer._replace(step=inner, names=None))


class Answered(NamedTuple):
    """A step whose values must be able to take the place of the old ones; InputError else."""

    step: Step

    def __call__(self, name: str, value: Any) -> Any:
        new = self.step(name, value)
        return new if new is value else _like(value, new, f"your step of {name}")


class Trace(dict[str, Any]):
    """A mapping from step name to array that fills itself: pass it as `step`.

    It keeps references, not copies: the forward never writes into an array that has passed. A name
    that it lacks raises UnknownStep, a KeyError.
    """

    def __call__(self, name: str, value: Any) -> Any:
        self[name] = value
        return value

    def __missing__(self, name: object) -> Any:
        raise unknown_step(name, self)

    def __repr__(self) -> str:
        ends = [f"{name} {np.shape(self[name])}" for name in [*self][:1] + [*self][1:][-1:]]
        shown = f"{': ' if ends else ''}{' to '.join(ends)}"
        return f"{type(self).__name__}({count(len(self), 'step')}{shown})"

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

    def __init__(self, replacements: Mapping[str, Any], then: Step = identity):
        require_kind("replacements", replacements, Mapping, "{step name: new value}")
        Observer.of(then)  # InputError where it is no step
        self.replacements, self.then = replacements, then

    @property
    def names(self) -> list[str]:
        """The steps that must be formed, those of `then` among them."""
        return [*self.replacements, *(Observer.of(self.then).names or ())]

    def __call__(self, name: str, value: Any) -> Any:
        if name in self.replacements:
            new = self.replacements[name]
            new = new(value) if callable(new) and not isinstance(new, type) else new
            dtype = np.asarray(value).dtype
            value = _like(value, new, f"the patch of {name}").astype(dtype, copy=False)
        return self.then(name, value)

    def __repr__(self) -> str:
        then = "" if self.then is identity else f", then {short(self.then)}"
        return f"Patch({short([*self.replacements])}{then})"


def _like(value: Any, new: Any, what: str) -> np.ndarray:
    """Return `new` as an array; InputError unless it can take the place of `value`."""
    if new is None:
        raise InputError(f"{what} returned None: it must return the value (change a copy)")
    old = np.asarray(value)
    try:
        new = np.asarray(new)
    except ValueError:
        raise InputError(f"{what} gives {short(new)}, which is no array") from None
    if new.shape != old.shape or not np.can_cast(new.dtype, old.dtype, "same_kind"):
        found = f"{new.dtype} {new.shape}"
        raise InputError(f"{what} gives {found}; the step is {old.dtype} {old.shape}")
    return new


class Relay:
    """A step that records and hands on the *reference's* value, so that one mistake reddens one
    step only.

    `trace` holds what was computed at each step from the reference's own inputs; compare it with
    `diff`. Raises InputError, before the pass, for a name of the reference that the pass does not
    form.
    """

    def __init__(self, reference: Mapping[str, np.ndarray]):
        require_kind("reference", reference, Mapping, "{step name: array}")
        self.reference, self.trace = reference, Trace()

    @property
    def names(self) -> list[str]:
        """The steps that must be formed."""
        return [*self.reference]

    def __call__(self, name: str, value: Any) -> Any:
        self.trace(name, value)
        return (
            np.asarray(self.reference[name], dtype=value.dtype) if name in self.reference else value
        )

    def __repr__(self) -> str:
        return f"Relay(a reference of {count(len(self.reference), 'step')})"


__getattr__ = moved.names_of("steps")
