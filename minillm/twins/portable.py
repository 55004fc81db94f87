"""What pickle and deepcopy take along of a twin: its name, since its functions are no values."""

from __future__ import annotations

import importlib
import pickle
from types import ModuleType
from typing import Any

from ..errors import InputError
from .choose import NAMES, twin
from .threads import keep_to_quota
from .twin import Twin, abilities


class Portable:
    """A twin, as others hold it while they are pickled (by name) or copied (the same one)."""

    def __init__(self, ops: Twin):
        self.ops = ops

    def __deepcopy__(self, memo: object) -> Portable:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.ops, ModuleType):
            return _named, (abilities(self.ops).name, self.ops.__name__)
        try:
            pickle.dumps(self.ops)
        except Exception as error:
            raise InputError(
                f"what computes with functions of your own ({type(self.ops).__name__}) cannot be"
                f" pickled ({error}): use a twin with a name, or put them into a module"
            ) from None
        return Portable, (self.ops,)


def _named(name: str, module: str) -> Portable:
    keep_to_quota()
    return Portable(twin(name) if name in NAMES else importlib.import_module(module))


class Twinned:
    """Base of what computes with a twin, `ops`: pickle and deepcopy take it along as Portable."""

    ops: Any

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"ops": Portable(self.ops)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"ops": state["ops"].ops})
