"""What a structured file must look like, declared: the readers in files.py check it before anything
uses what others may have written.

A form is a type as Python writes it: int, float, str, bool, `int | None`, `list[str]`, `dict[str,
int]`, a Literal, a TypedDict (a table with these keys; others are ignored) or a dataclass (a table
whose known keys, if there, have the fields' types). Whole numbers have 64 bits. Whatever does not
fit is one InputError: file, place, value, and what is needed.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing

from ..errors import InputError, short

__all__ = ["build", "check", "short"]

T = typing.TypeVar("T")


def check(value: typing.Any, form: object, where: object = None) -> typing.Any:
    """Return `value`, which has the form; InputError, beginning with `where`, if it has not."""
    if wrong := _misfit(value, form, ""):
        place, found, needed = wrong
        raise InputError(_at(where, f"{place or 'what it holds'} is {found}; it must be {needed}"))
    return value


def build(cls: type[T], values: typing.Any, where: object = None) -> T:
    """Return the dataclass `cls` of a table's known keys; InputError for a missing or wrong one."""
    check(values, cls, where)
    fields = [f for f in dataclasses.fields(typing.cast(typing.Any, cls)) if f.init]
    for f in fields:
        if f.name not in values and f.default is f.default_factory:  # both are MISSING
            raise InputError(_at(where, f"{f.name} is missing"))
    try:
        return cls(**{f.name: values[f.name] for f in fields if f.name in values})
    except InputError as error:
        raise InputError(_at(where, str(error))) from None


def _at(where, message: str) -> str:
    return message if where is None else f"{where}: {message}"


@functools.cache
def _fields(cls) -> list[tuple[str, object, bool]]:
    """The name and the form of each field of a class, and whether a table must have it."""
    total = typing.is_typeddict(cls) and cls.__total__
    return [
        (name, typing.get_args(form)[0], False)
        if typing.get_origin(form) is typing.NotRequired
        else (name, form, total)
        for name, form in typing.get_type_hints(cls, include_extras=True).items()
    ]


def _misfit(value, form, place: str) -> tuple[str, str, str] | None:
    """Return where, what and what is needed, of the first thing that does not fit; None if all
    does."""
    origin, parts = typing.get_origin(form), typing.get_args(form)
    if form in (object, typing.Any):
        return None
    if typing.is_typeddict(form) or dataclasses.is_dataclass(form):
        if not isinstance(value, dict):
            return place, short(value), "a table"
        for name, part, required in _fields(form):
            inside = f"{place}.{name}" if place else name
            if name in value:
                if wrong := _misfit(value[name], part, inside):
                    return wrong
            elif required:
                return inside, "missing", _named(part)
        return None
    if origin in (typing.Union, types.UnionType):
        fits = any(_misfit(value, part, place) is None for part in parts)
    elif origin is typing.Literal:
        fits = isinstance(value, str) and value in parts
    elif origin is list and isinstance(value, list):
        items = (_misfit(v, parts[0], f"{place}[{n}]") for n, v in enumerate(value))
        return next(filter(None, items), None)
    elif origin is dict and isinstance(value, dict):
        inner = ((_misfit(v, parts[1], f"{place}[{short(k)}]")) for k, v in value.items())
        return next(filter(None, inner), None)
    elif form in (int, float) and type(value) is int:
        fits = abs(value) < 1 << 63
    elif form in (None, type(None)):
        fits = value is None
    else:
        kind = origin or form
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if fits:
        return None
    too_long = form is int and type(value) is int
    return place, short(value), "a whole number of 64 bits" if too_long else _named(form)


def _named(form) -> str:
    if typing.get_origin(form) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(form)))}"
    if form is dict or typing.is_typeddict(form) or dataclasses.is_dataclass(form):
        return "a table"
    return f"of type {getattr(form, '__name__', form) if isinstance(form, type) else form}"
