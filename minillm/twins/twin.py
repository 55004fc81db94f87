"""What a twin is: the functions of ops.py, by their names and signatures, with which a model
computes; and what more it may have.

A twin is a value: a module (ops, kernels) or an object (kernels.blocked.Training, a student's
functions in twins/folder.py). Only here is one asked for what it may lack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol

from ..errors import InputError


class Twin(Protocol):
    """What every twin has; ops.py says what each function computes, and in which shapes."""

    def linear(self, x: Any, weight: Any, bias: Any = ...) -> Any: ...
    def layer_norm(self, x: Any, weight: Any, bias: Any, eps: Any = ...) -> Any: ...
    def rms_norm(self, x: Any, weight: Any, eps: Any = ...) -> Any: ...
    def causal_mask(self, positions: Any, n_keys: Any) -> Any: ...
    def split_heads(self, x: Any, n_head: Any) -> Any: ...
    def merge_heads(self, x: Any) -> Any: ...
    def softmax(self, x: Any) -> Any: ...
    def log_softmax(self, x: Any) -> Any: ...
    def gelu_new(self, x: Any) -> Any: ...
    def gelu(self, x: Any) -> Any: ...
    def relu(self, x: Any) -> Any: ...
    def silu(self, x: Any) -> Any: ...
    def cross_entropy(self, logits: Any, targets: Any) -> Any: ...


MUST = tuple(name for name in vars(Twin) if not name.startswith("_"))


def may(name: str) -> Any:
    """An attribute that a twin may have: read when first asked for, since kernels import then what
    it needs, and kept; None where absent."""
    return cached_property(lambda abilities: getattr(abilities.ops, name, None))


@dataclass(frozen=True, eq=False)
class Abilities:
    """What the twin `ops` may have: each of it once read and never changed, None where absent."""

    ops: Twin

    # A model asks, where positions are computed with a cache and nobody looks at values: a
    # class like kernels.decode.DecodeStep, made of a program, with refusal, fits and run. Without:
    # the readable forward.
    fused = may("DecodeStep")
    # model.new_cache asks, as new_cache(config, batch, capacity, dtype) -> a KVCache, or what is
    # derived from one. Without: a KVCache.
    new_cache = may("new_cache")
    # layers/attention.py asks, where nobody looks at the scores. Without: they are formed.
    attention = may("attention")
    # layers/ ask for a rotation and a gate in one pass. Without: NumPy's, term by term.
    rotate = may("rotate")
    gated = may("gated")
    # Checkpoints and limits ask whether matrices are stored in panels, which its `linear` reads
    # faster. Without: float32 stays an array, mapped from its file.
    stores_panels = may("stores_panels")
    # Pruning asks for the product with a sparse matrix. Without: Sparse.numpy_product.
    csr_matmul = may("csr_matmul")

    # Training asks for a twin that it is faster with: training(precision). Without: this one.
    training = may("Training")
    # AdamW asks for its step, Muon for a b. Without: NumPy's, in training/optimizers.py.
    adamw_update = may("adamw_update")
    product = may("product")
    # The LSTM asks for all its steps at once, forward and (`backward`) back, and for a^T b.
    # Without: one step at a time, and NumPy's product.
    lstm = may("lstm")
    transposed_product = may("transposed_product")

    # threads.n_threads asks how many threads it computes with. Without: as many as BLAS.
    n_threads = may("n_threads")
    # Measuring limits asks, see kernels/limits.py. Without: BLAS's products, and no meetings.
    read_everything = may("read_everything")
    row_product = may("row_product")
    launch = may("launch")
    meet_often = may("meet_often")

    def backward(self, operation: str) -> Callable[..., Any] | None:
        """Its own gradient of an operation, as "linear" or "attention". Training asks; without: the
        textbook's, see backward_of."""
        return getattr(self.ops, f"{operation}_backward", None)

    @cached_property
    def name(self) -> str:
        """What a person calls it (numpy, numba, a student's folder), else its module or type."""
        named = self.ops if isinstance(self.ops, ModuleType) else type(self.ops)
        return str(getattr(self.ops, "name", named.__name__))


_known: dict[int, Abilities] = {}


def abilities(ops: Twin) -> Abilities:
    """Return what a twin may have, read once; InputError for what is no twin."""
    found = _known.get(id(ops))
    if found is None:
        # a module says what it has: to read all of it from kernels is to import Numba
        listed = getattr(ops, "__all__", ()) if isinstance(ops, ModuleType) else ()
        names = [name for name in MUST if name not in listed]
        if lacking := [name for name in names if not callable(getattr(ops, name, None))]:
            raise InputError(
                f"{ops!r:.60} is no twin: it lacks {', '.join(lacking)}; minillm.ops and"
                " minillm.kernels are two, and twin(name) gives one"
            )
        found = _known[id(ops)] = Abilities(ops)  # which keeps the twin, and so its id
    return found


def activation_of(ops: Twin, name: str) -> Any:
    """Return the twin's function that a config calls `name`, as "gelu_new"."""
    return getattr(ops, name)
