"""What pickle and deepcopy take along of a twin: its name, since its functions are no values."""

from __future__ import annotations

import importlib
import pickle
from types import ModuleType

from .. import kernels, ops
from ..errors import InputError
from .choose import twin

NAMES = {ops: "numpy", kernels: "numba"}


class Twin:
    """A twin, as others hold it while they are pickled (by name) or copied (the same one)."""

    def __init__(self, ops):
        self.ops = ops

    @property
    def name(self) -> str:
        """What a person calls it: numpy, numba, a student's folder, or its type."""
        if isinstance(self.ops, ModuleType):
            return NAMES.get(self.ops, self.ops.__name__)
        return str(getattr(self.ops, "folder", type(self.ops).__name__))

    def __deepcopy__(self, memo) -> Twin:
        return self

    def __reduce__(self):
        if isinstance(self.ops, ModuleType):
            return _named, (NAMES.get(self.ops), self.ops.__name__)
        try:
            pickle.dumps(self.ops)
        except Exception as error:
            raise InputError(
                f"what computes with functions of your own ({type(self.ops).__name__}) cannot be"
                f" pickled ({error}): use a twin with a name, or put them into a module"
            ) from None
        return Twin, (self.ops,)


def _named(name: str | None, module: str) -> Twin:
    return Twin(twin(name) if name else importlib.import_module(module))


class Twinned:
    """Base of what computes with a twin, `ops`: pickle and deepcopy take its Twin along."""

    def __getstate__(self) -> dict:
        return vars(self) | {"ops": Twin(self.ops)}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state | {"ops": state["ops"].ops})
