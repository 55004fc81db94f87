"""Compiling and its disk cache: kept, healed when damaged, done without where nothing can be
written."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

import numba

import minillm.kernels
from minillm.kernels import compile
from minillm.kernels.compile import CacheFile, jit

ROOT = Path(__file__).parents[2]
PROGRAM = """
import numpy as np
from minillm import kernels
x = np.zeros((2, 4), np.float32)
y = kernels.softmax(x) + kernels.rms_norm(x, x[0])
from minillm.kernels import rows
from numba.core.runtime import rtsys
hits = rows._rms_norm.stats.cache_hits
print(y.sum(), hits and sum(hits.values()), rtsys._init)
"""


def run(program=PROGRAM, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_second_process_reads_the_cache_and_builds_a_damaged_one_anew(tmp_path):
    """Without what gives kernels memory, which would be compiled: 30 MB of LLVM's own code."""
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert run(**folder)[0] == "2.0"
    assert run(**folder) == ["2.0", "1", "False"]
    for file in tmp_path.rglob("*.nb[ic]"):
        file.write_bytes(b"nonsense")
    assert run(**folder)[0] == "2.0"
    assert run(**folder) == ["2.0", "1", "False"]


def test_every_process_finds_what_is_on_the_disk():
    """What a kernel closes over is part of its name there; of another kernel, that is another name
    in each process."""
    for module in pkgutil.iter_modules(minillm.kernels.__path__, "minillm.kernels."):
        for value in vars(importlib.import_module(module.name)).values():
            for kernel in value.values() if isinstance(value, dict) else [value]:
                for cell in getattr(getattr(kernel, "py_func", None), "__closure__", None) or ():
                    assert not hasattr(cell.cell_contents, "py_func"), kernel


MAKES_ARRAYS = """
import sys
import numpy as np
from minillm.kernels.compile import jit

@jit(makes_arrays=True)
def rows(n):
    return np.ones((n, 2))

print(rows(3).sum(), "numba.np.arraymath" in sys.modules)
if "numba.np.arraymath" not in sys.modules:
    @jit
    def mean(x):
        return x.mean() + rows(2)[1, 1]
    print(mean(rows(4)))
"""


def test_what_is_on_disk_needs_none_of_numbas_tables(tmp_path):
    """Not even kernels that take memory; what is compiled after them finds the tables."""
    (program := tmp_path / "program.py").write_text(MAKES_ARRAYS)
    start = f"import runpy; runpy.run_path({str(program)!r})"
    assert run(start, NUMBA_CACHE_DIR=str(tmp_path)) == ["6.0", "True"]
    assert run(start, NUMBA_CACHE_DIR=str(tmp_path)) == ["6.0", "False", "2.0"]


def twice(x):
    return 2 * x


@pytest.fixture
def read_from_disk(monkeypatch, tmp_path):
    """Compile `twice` anew, or find it on the disk: whether it was there."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def found() -> bool:
        kernel = jit(twice)
        assert kernel(4) == 8
        return bool(sum(kernel.stats.cache_hits.values()))

    assert (found(), found()) == (False, True)
    return found


@pytest.mark.parametrize("which", ["*.nb[ic]", "*.nbc", "*.nbi"])
@pytest.mark.parametrize(
    "damaged",
    [lambda b: b"nonsense", lambda b: b[:-50], lambda b: b"", lambda b: b"\x80\x04nonsense"],
    ids=["nonsense", "cut", "empty", "no pickle"],
)
def test_what_is_damaged_is_built_anew(read_from_disk, tmp_path, which, damaged):
    files = [*tmp_path.rglob(which)]
    assert files
    for file in files:
        file.write_bytes(damaged(file.read_bytes()))
    assert (read_from_disk(), read_from_disk()) == (False, True)


def test_a_changed_source_anywhere_in_the_room_makes_the_cache_stale(read_from_disk, monkeypatch):
    monkeypatch.setattr(compile, "STAMP", "another")
    assert not read_from_disk()


def test_two_processes_that_compile_at_once_keep_each_its_own(read_from_disk, monkeypatch):
    """Both have read the index before either writes it."""
    saved, file = [], jit(twice)._cache._cache_file
    index = file._load_index()
    monkeypatch.setattr(CacheFile, "_load_index", lambda self: dict(index))
    monkeypatch.setattr(CacheFile, "_save_data", lambda self, name, data: saved.append(name))
    for key in ("a kernel", "another"):
        file.save(key, b"")
    assert len({*saved, *index.values()}) == 3


def test_without_any_folder_to_write(tmp_path):
    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("needs a folder that refuses writing, which root does not have")
    tmp_path.chmod(0o500)
    assert run(NUMBA_CACHE_DIR=str(tmp_path / "none"), HOME=str(tmp_path))[0] == "2.0"


def test_importing_the_package_does_not_import_numba():
    assert run(
        "import sys, minillm, minillm.kernels, minillm.weights; print('numba' in sys.modules)"
    ) == ["False"]


def test_everything_else_works_without_numba():
    program = """
import sys; sys.modules["numba"] = None
import numpy as np, minillm.kernels as kernels
from minillm.weights import store
w = store(np.ones((3, 2), np.float32), "int4")
print(kernels.available(), (np.ones((1, 3), np.float32) @ w).sum())
try: kernels.softmax
except ImportError as error: print("ImportError")
"""
    assert run(program) == ["False", "6.0", "ImportError"]
