"""Parameters to look at: mappings whose entries stay what a model computes with."""

from __future__ import annotations

from .errors import InputError


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

    An entry that is replaced raises InputError; an array that is written to raises NumPy's
    ValueError, "assignment destination is read-only". Either way `model.with_parameters({name:
    array})` returns a changed model, which shares all other parameters.
    """

    says = (
        "a model's parameters are read-only: model.with_parameters({name: array}) returns a"
        " changed model, which shares the others"
    )

    def __repr__(self) -> str:
        return (
            f"Parameters({len(self)} arrays, read-only; model.with_parameters({{name: array}})"
            " returns a changed model)"
        )
