"""How kernels are compiled and kept: `@jit`, a disk cache that heals itself, and why the flags are
what they are."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import numba
from llvmlite import binding
from numba.core import event
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime import rtsys

from .listeners import compile_listeners
from .machine_code import STAMP

# Sums may be reordered, which is what lets LLVM use vectors for them; infinities and NaN keep their
# meaning, because masked scores are -inf. exp must not be reordered at all: its two-part ln 2 would
# be added up first and lost.
SUMS = {"reassoc", "contract", "nsz"}
EXACT = {"contract"}


class Compiling(event.Listener):
    """Tells compile_listeners of each kernel that Numba begins to compile: not of one on disk."""

    def on_start(self, event):
        for tell in compile_listeners:
            tell(event.data["dispatcher"].py_func.__qualname__)

    def on_end(self, event):
        pass


event.register("numba:compile", Compiling())
if hasattr(os, "register_at_fork"):
    # Who forks waits until nobody compiles: what is compiled half would stay so in the child, and
    # Numba's lock taken.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


class CacheFile(IndexDataCacheFile):
    """Numba's files, an index and one of data for each signature, for several processes that
    compile at once: Numba would number the data, and two processes would take the same number for
    different kernels."""

    def save(self, key, data):
        """Keep `data` under a name made of its key, before the index names it. Who overwrites an
        index newer than it read lets a kernel be compiled once more."""
        overloads = self._load_index()
        if not overloads:  # what is there is of other sources
            for file in Path(self._cache_path).glob(Path(self._index_name).stem + ".*.nbc"):
                file.unlink(missing_ok=True)
        digest = hashlib.sha256(repr((key, self._source_stamp)).encode()).digest()
        overloads[key] = self._data_name(int.from_bytes(digest[:8]))
        self._save_data(overloads[key], data)
        self._save_index(overloads)


class Kept(CompileResultCacheImpl):
    """How a kernel comes from the disk: what LLVM knew of it, which takes far more memory than its
    machine code, is read again only where another kernel is compiled that calls it by name."""

    def rebuild(self, target_context, payload):
        compiled, (_, _, (_, bitcode)) = super().rebuild(target_context, payload), payload[0]
        library, compiled.library._shared_module = compiled.library, None
        library._get_module_for_linking = lambda: binding.parse_bitcode(bitcode)
        return compiled


class HealingCache(FunctionCache):
    """Numba's disk cache (the package's __pycache__, or the user's cache folder where that cannot
    be written), in which a damaged or outdated file means compiling again, and a folder that
    refuses writing means doing without."""

    _impl_class = Kept

    def __init__(self, function, makes_arrays: bool):
        super().__init__(function)
        self.makes_arrays = makes_arrays
        self._cache_file = CacheFile(self.cache_path, self._impl.filename_base, STAMP)

    def load_overload(self, signature, target_context):
        # Numba would first fill its tables of types and functions, a quarter of the time to the
        # first word: only compiling needs them, which fills them itself. Memory that kernels take
        # is given by rtsys, which LLVM compiles: 30 MB of its own code.
        try:
            if self.makes_arrays:
                rtsys.initialize(target_context)
            with self._guard_against_spurious_io_errors():
                return self._load_overload(signature, target_context)
        except Exception:  # whatever unpickling garbage may raise
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, signature, data):
        try:
            super().save_overload(signature, data)
        except (
            Exception
        ):  # a full disk, or an index damaged by someone else meanwhile: the kernel itself is fine
            with contextlib.suppress(OSError):
                self.flush()


def helper(function=None, **options):
    """A jit function that becomes a part of the kernels that call it, with their flags, before LLVM
    sees any of it: what LLVM has compiled by itself it would compile again in every caller."""
    return jit(function, no_cpython_wrapper=True, inline="always", **options)


def entry(function):
    """A jit function of integers that is called by its address, by kernels (memory.call) and by
    Python: machine_code.py compiles it, and keeps it on disk."""
    return jit(function, no_cpython_wrapper=True, cached=False)


def typeof_in_any_order(axes):
    """The type of an argument as a kernel compiles it: of an array with so many axes, for whatever
    order its numbers lie in."""

    def typeof(value):
        found = numba.typeof(value)
        such = isinstance(found, numba.types.Array) and found.ndim == axes
        return found.copy(layout="A") if such else found

    return typeof


def jit(
    function=None,
    *,
    fastmath=SUMS,
    makes_arrays=False,
    any_order=None,
    cached=True,
    **options,
):
    """numba.njit without the GIL, cached on disk unless that is off; error_model numpy: 1 / 0 is
    inf and needs no branch.

    makes_arrays: whether the kernel does, or calls one that does. For others nobody need count
    references to arrays, which is a sixth of the time to compile.
    any_order: it is compiled once for arrays of so many axes of any order in memory; else anew for
    each combination of those that lie side by side (as with one head, or one position) and do not.
    """
    if function is None:
        return lambda function: jit(
            function,
            fastmath=fastmath,
            makes_arrays=makes_arrays,
            any_order=any_order,
            cached=cached,
            **options,
        )
    # no_cfunc_wrapper: no entry for C programs, which takes its share of compiling; _nrt: counting
    # references
    flags = {
        "nogil": True,
        "fastmath": fastmath,
        "error_model": "numpy",
        "no_cfunc_wrapper": True,
        "_nrt": makes_arrays,
    }
    options = {**flags, **options}
    kernel = numba.njit(**options)(function)
    if hasattr(
        kernel, "_cache"
    ):  # not so under NUMBA_DISABLE_JIT, where the kernel is the function
        with contextlib.suppress(RuntimeError, OSError):  # no folder at all can be written
            kernel._cache = HealingCache(function, makes_arrays) if cached else kernel._cache
        if any_order:
            kernel.typeof_pyval = typeof_in_any_order(any_order)
    return kernel
