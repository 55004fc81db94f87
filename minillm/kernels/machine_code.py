"""Kernels as machine code: kept on disk, loaded without Numba, and called by their address.

To import Numba takes longer than all else that a small model needs for its first word. So what the
fused step and the choice of a token run, `entry` functions, is kept as the object code that Numba
made of it, and LLVM's linker, which comes with Numba (llvmlite), puts it into memory. Where there
is none on disk, or not of these sources and for this processor, Numba is imported and compiles it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

log = logging.getLogger(__name__)
COMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"  # else kernels run as Python
SVML = {"win32": "svml_dispmd", "darwin": "libsvml.dylib"}
with contextlib.suppress(RuntimeError):  # there is no such file: few have Intel's library
    llvm.load_library_permanently(SVML.get(sys.platform, "libsvml.so"))
    import numba  # noqa: F401 (tells LLVM to use it, before all else)


def source_stamp() -> str:
    """A hash of all kernel sources: Numba itself would look only at the one file that a kernel is
    in."""
    files = sorted(Path(__file__).parent.glob("**/*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def processor() -> tuple[str, str]:
    """The processor that Numba compiles for, and what it can, "+avx2,-amx": of
    NUMBA_CPU_NAME=generic nothing that NUMBA_CPU_FEATURES does not name."""
    cpu = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES", "" if cpu.lower() == "generic" else None)
    with contextlib.suppress(RuntimeError):  # LLVM does not know it
        features = llvm.get_host_cpu_features().flatten() if features is None else features
    return cpu, features or ""


def made() -> str:
    """A hash of all that machine code depends on: sources, processor, system, versions, and how
    Numba was told to compile."""
    if (numba := find_spec("numba")) is None or numba.origin is None:
        raise ImportError("Numba is not installed")
    version = Path(numba.origin).with_name("_version.py").read_text(encoding="utf-8")
    told = (f"{n}={v}" for n, v in sorted(os.environ.items()) if n.startswith("NUMBA_"))
    told = [t for t in told if not t.startswith(("NUMBA_NUM_THREADS=", "NUMBA_CACHE_DIR="))]
    everything = (STAMP, *PROCESSOR, SYSTEM, version, llvmlite.__version__, *told)
    return hashlib.sha256("\0".join(everything).encode()).hexdigest()


STAMP, PROCESSOR, SYSTEM = source_stamp(), processor(), llvm.get_process_triple()
MADE = made()
# Whether one instruction turns float16 into float32 and back.
HAS_HALVES = bool({"+f16c", "+fullfp16"} & {*PROCESSOR[1].split(",")})
# Whether one instruction multiplies pairs of bfloat16.
HAS_PAIRS = "+avx512bf16" in PROCESSOR[1].split(",")


@cache
def say_without_pairs() -> None:
    """Say once, where both sides of products are to be rounded to bfloat16, that this makes nothing
    faster on this processor."""
    if not HAS_PAIRS:
        log.warning(
            "this processor has no products of bfloat16 (AVX512_BF16): what is rounded to it is"
            " multiplied as float32, no faster"
        )


# ---- on disk


def folders() -> Iterator[Path]:
    """Where code is kept: in the first of these folders that can be written to, as Numba does."""
    if own := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(own)
        return
    yield Path(__file__).parent / "__pycache__"
    with contextlib.suppress(RuntimeError):  # nobody knows the user's home
        of_user = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
        yield Path(of_user or Path.home() / ".cache") / "minillm"


def file_of(name: str) -> str:
    """A file for each processor and system: they may share a folder."""
    of = "".join((*PROCESSOR, SYSTEM))
    return f"{name}.{hashlib.sha256(of.encode()).hexdigest()[:8]}.code"


def mark(name: str, symbol: str, calls: list[str], code: bytes) -> str:
    """A hash of all that is kept of a kernel, and of what it was made of."""
    return hashlib.sha256(json.dumps([MADE, name, symbol, calls]).encode() + code).hexdigest()


def read(name: str) -> tuple[str, bytes] | None:
    """The symbol and the object code of a kernel; None where they are not kept, or are damaged, or
    of another kernel or other sources, or where the system lacks a function that they call."""
    for folder in folders():
        with contextlib.suppress(OSError, ValueError, TypeError):
            head, _, code = (folder / file_of(name)).read_bytes().partition(b"\n")
            hash, symbol, calls = json.loads(head)
            if hash == mark(name, symbol, calls, code) and all(map(llvm.address_of_symbol, calls)):
                return symbol, code
    return None


def keep(name: str, symbol: str, code: bytes, calls: list[str]) -> None:
    """Write the code of a kernel where `read` finds it, if a folder can be written to."""
    head = json.dumps([mark(name, symbol, calls, code), symbol, calls])
    for folder in folders():
        file = folder / file_of(name)
        own = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        with contextlib.suppress(OSError):  # not writable, or full
            try:
                folder.mkdir(parents=True, exist_ok=True)
                own.write_bytes(head.encode() + b"\n" + code)
                os.replace(own, file)
                return
            finally:  # also after a Ctrl-C
                own.unlink(missing_ok=True)


# ---- in memory

_addresses: dict[str, int] = {}
interpreted: dict[int, Callable] = {}  # where kernels are not compiled: address -> function
_one_at_a_time = threading.Lock()
_engine: llvm.ExecutionEngine | None = None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_one_at_a_time.acquire,
        after_in_parent=_one_at_a_time.release,
        after_in_child=_one_at_a_time.release,
    )


def address(name: str, kernel: Callable[[], Callable]) -> int:
    """Where the machine code of a kernel begins. kernel() -> the `entry`, all of whose arguments
    are integers; it is called only where Numba must compile it.

    What is called by its address is compiled by itself, once; called by its name it would be
    compiled anew as a part of every kernel that calls it.
    """
    if not linked(name):
        _addresses[name] = compiled(name, kernel())  # not within the lock: Numba has its own
    return _addresses[name]


def linked(name: str) -> bool:
    """Whether a kernel is in memory, or on disk: then it is put into memory."""
    with _one_at_a_time:
        if name not in _addresses and COMPILED and (kept := read(name)) is not None:
            symbol, code = kept
            engine().add_object_file(llvm.ObjectFileRef.from_data(code))
            engine().finalize_object()
            _addresses[name] = engine().get_function_address(symbol)
        return name in _addresses


def engine() -> llvm.ExecutionEngine:
    """What holds the code that was on disk."""
    global _engine
    if _engine is None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
        _engine = llvm.create_mcjit_compiler(llvm.parse_assembly(OWN), machine)
        _engine.finalize_object()
    return _engine


def compiled(name: str, kernel) -> int:
    """Let Numba compile a kernel, and keep the code."""
    if not hasattr(kernel, "overloads"):  # NUMBA_DISABLE_JIT
        interpreted[id(kernel)] = kernel
        return id(kernel)
    from numba.core.compiler_lock import global_compiler_lock

    # who forks waits for the lock: LLVM is at work to the end
    with global_compiler_lock, heard():
        kernel.compile(f"({', '.join(['int64'] * kernel.py_func.__code__.co_argcount)})")
        [result] = kernel.overloads.values()
        library, symbol = result.library, result.fndesc.llvm_func_name
        at = library.get_pointer_to_function(symbol)
        module, code = library._final_module, library._get_compiled_object()
        calls = [f.name for f in (*module.functions, *module.global_variables) if f.is_declaration]
    calls = [name for name in calls if not name.startswith("llvm.")]
    if not any("numba" in name or "NRT" in name for name in calls):  # which only Numba provides
        keep(name, symbol, code, calls)
    return at


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end for a Ctrl-C that came while LLVM called Python, where it
    is written down and forgotten."""
    lost: list[object] = []
    tell = sys.unraisablehook

    def note(what) -> None:
        if what.exc_type is KeyboardInterrupt:
            lost.append(what.exc_type)
        else:
            tell(what)

    sys.unraisablehook = note
    try:
        yield
    finally:
        sys.unraisablehook = tell
        if lost:
            raise KeyboardInterrupt from None


def function(at: int, n: int) -> Callable[..., object]:
    """The kernel that begins at an address as a Python function of n integers, which lets other
    threads run Python meanwhile."""
    if at in interpreted:
        return interpreted[at]
    # Numba's functions have two more arguments, for their result and for an exception: none here
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * n)
    return partial(kind(at), NOTHING, NOTHING)


NOTHING = ctypes.create_string_buffer(8)

# ---- two functions without Numba, in LLVM's own language

# On Arm the cycle counter is not for user programs, but the steady one is; LLVM has that only there
ARM = "aarch64" in llvm.get_process_triple() or "arm64" in llvm.get_process_triple()
COUNTER = "llvm.readsteadycounter" if ARM else "llvm.readcyclecounter"
POINTER = "ptr" if llvm.llvm_version_info[0] > 16 else "i64*"
OWN = f"""
declare i64 @{COUNTER}()
define i64 @now() {{
  %ticks = call i64 @{COUNTER}()
  ret i64 %ticks
}}
define i64 @swap(i64 %at, i64 %expected, i64 %value) {{
  %place = inttoptr i64 %at to {POINTER}
  %pair = cmpxchg {POINTER} %place, i64 %expected, i64 %value seq_cst seq_cst
  %swapped = extractvalue {{ i64, i1 }} %pair, 1
  %result = zext i1 %swapped to i64
  ret i64 %result
}}
"""


def own(name: str, n: int) -> Callable[..., int]:
    """The function of OWN as one of n integers."""
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * n)
    return kind(engine().get_function_address(name))


now = own("now", 0) if COMPILED else time.perf_counter_ns  # the ticks of this moment
# swap(at, expected, value): put `value` at an address if `expected` stands there, as one
# indivisible act; whether it was done
swap = own("swap", 3)
