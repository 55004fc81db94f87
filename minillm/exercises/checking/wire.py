"""Values as lines of JSON, between a check and the process in which a student's code runs.

Only data pass: nothing that is read can run. What has no form here (a generator, an object) arrives
as an Other, a description in a few words.
"""

from __future__ import annotations

import numbers
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

ARRAY = 1 << 20  # bytes of an array that a student's function returns
DEPTH = 16  # of lists in lists
NUMBERS = 20_000  # that a student's function may hand to one that it was given, in a call
KINDS = "biufc"  # of arrays: truth values and numbers


@dataclass(frozen=True)
class Other:
    """A value that was not sent: what it is, in a few words."""

    says: str


def describe(value) -> str:
    """A value in a few words: float32 [2, 3], a tuple of 2, 7."""
    if isinstance(value, Other):
        return value.says
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, (tuple, list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if not isinstance(value, (numbers.Real, str, bytes, type(None))):
        return f"a {type(value).__name__}"
    return text if len(text := repr(value)) <= 60 else f"{text[:56]} ..."


def numbers_in(value) -> int:
    """How many numbers are in a value."""
    if isinstance(value, (list, tuple, dict)):
        return sum(map(numbers_in, value.values() if isinstance(value, dict) else value))
    return getattr(value, "size", 1)


def few(*values) -> None:
    """Raise ValueError where there are more than NUMBERS numbers in all."""
    if (n := numbers_in(values)) > NUMBERS:
        raise ValueError(f"{n:,} numbers at once; at most {NUMBERS:,} are taken")


def packed(value, functions: list[Callable] | None = None, depth: int = 0):
    """Return `value` as what JSON holds; functions are added to `functions`, and stand for their
    number in it."""

    def inner(v):
        return packed(v, functions, depth + 1)

    small = functions is not None or getattr(value, "nbytes", 0) <= ARRAY
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in KINDS and small:
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {kind: [value.dtype.str, value.shape, b64encode(value.tobytes()).decode()]}
    if isinstance(value, (np.ndarray, np.generic)) or depth > DEPTH:
        return {"other": describe(value)}
    if isinstance(value, (bool, str, float, type(None))):
        return value
    if isinstance(value, int) and value.bit_length() <= 64:
        return int(value)
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, bytes):
        return {"bytes": b64encode(value).decode()}
    if isinstance(value, list):
        return [inner(v) for v in value]
    if isinstance(value, tuple):
        return {"tuple": [inner(v) for v in value]}
    if isinstance(value, dict):
        return {"dict": [[inner(k), inner(v)] for k, v in value.items()]}
    if callable(value) and functions is not None:
        functions.append(value)
        return {"function": len(functions) - 1}
    return {"other": describe(value)}


def unpacked(data, function: Callable[[int], Callable] | None = None):
    """Return the value that `packed` made `data` of, arrays anew and writable; ValueError if it did
    not. function(number) is what stands for a function."""
    if not isinstance(data, (dict, list)):
        return data
    if isinstance(data, list):
        return [unpacked(d, function) for d in data]
    try:
        ((kind, data),) = data.items()
        if kind in ("array", "scalar"):
            dtype, shape, text = data
            if np.dtype(dtype).kind not in KINDS:
                raise ValueError(f"an array of {dtype}")
            array = np.frombuffer(b64decode(text, validate=True), dtype).reshape(shape).copy()
            return array if kind == "array" else array[()]
        if kind == "bytes":
            return b64decode(data, validate=True)
        if kind == "tuple":
            return tuple(unpacked(d, function) for d in data)
        if kind == "dict":
            return {unpacked(k, function): unpacked(v, function) for k, v in data}
        if kind == "other":
            return Other(str(data)[:80])
        if kind == "function" and function is not None:
            return function(data)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    raise ValueError(f"no value: {kind!r:.40}")
