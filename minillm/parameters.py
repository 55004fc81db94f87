"""Parameters: those that fit a model, and mappings whose entries stay what it computes with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .errors import InputError, UnknownName, near_names, short


class FixedEntries(dict):
    """{name: array} whose arrays can be written to, while what computes with them holds the same
    ones: an entry that is replaced would not be seen, and raises InputError."""

    says = "an entry cannot be replaced: write into the array, parameters[name][:] = array"

    def _refuse(self, *args, **kwargs):
        raise InputError(self.says)

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self):
        return type(self), (dict(self),)


class Parameters(FixedEntries):
    """A model's parameters, {checkpoint name: array or Weight}, to look at: neither the mapping nor
    its arrays can be written to.

    An unknown name raises UnknownName (a KeyError) with the names near it; an entry that is
    replaced raises InputError; an array that is written to raises NumPy's
    ValueError, "assignment destination is read-only". Either way `model.with_parameters({name:
    array})` returns a changed model, which shares all other parameters.
    """

    says = (
        "a model's parameters are read-only: model.with_parameters({name: array}) returns a"
        " changed model, which shares the others"
    )

    def __missing__(self, name):
        near = near_names(name, self)
        hint = f"near it: {', '.join(near)}" if near else f"known: {', '.join([*self][:4])}, ..."
        raise UnknownName(f"there is no parameter {short(name)} among {len(self)}; {hint}")

    def __repr__(self) -> str:
        return (
            f"Parameters({len(self)} arrays, read-only; model.with_parameters({{name: array}})"
            " returns a changed model)"
        )


def check_shapes(parameters: Mapping, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise InputError unless there is an array, or a tensor of a file, of every shape by name, and
    nothing else."""

    def where(name: str) -> str:
        return getattr(parameters[name], "where", f"parameter {name}")

    if surplus := parameters.keys() - shapes.keys():
        name = min(surplus, key=str)
        wrapped = str(name).startswith(("_orig_mod.", "module."))
        hint = "; save the model that the wrapper (compile, parallel) holds" if wrapped else ""
        raise InputError(
            f"{where(name)} has no place in this config; {len(surplus)} are too many{hint}"
        )
    if missing := [name for name in shapes if name not in parameters]:
        at, first = getattr(parameters, "path", ""), missing[0]
        raise InputError(
            f"{at}{': ' if at else ''}parameter {first} is missing; this config needs"
            f" {shapes[first]}; {len(missing)} of {len(shapes)} are not there"
        )
    for name, shape in shapes.items():
        p = parameters[name]
        found = getattr(p, "shape", None)
        if found != shape:
            has = f"of type {type(p).__name__}" if found is None else f"has shape {found}"
            turned = found == shape[::-1]
            hint = " (turned: GPT-2's Conv1D stores [in, out])" if turned else ""
            raise InputError(f"{where(name)} {has}; this config needs {shape}{hint}")
        if isinstance(p, np.ndarray) and (p.dtype.kind != "f" or p.itemsize > 8):
            raise InputError(f"{where(name)} is {p.dtype}; it must be float16, float32 or float64")


def check_types(parameters: Mapping, table: str) -> None:
    """Raise InputError unless all arrays have the dtype of the parameter `table`, and no Weight a
    wider one: then logits have it, too."""
    working = parameters[table].dtype
    for name, p in parameters.items():
        found = getattr(p, "dtype", working)
        if found != working and (isinstance(p, np.ndarray) or not np.can_cast(found, working)):
            raise InputError(
                f"parameter {name} is {found} and {table} {working}; give all in one dtype:"
                " array.astype(...)"
            )
