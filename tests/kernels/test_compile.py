"""Compiling and its disk cache: kept, healed when damaged, done without where nothing can be
written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

ROOT = Path(__file__).parents[2]
PROGRAM = """
import numpy as np
from minillm import kernels
y = kernels.relu(kernels.softmax(np.zeros((2, 4), np.float32)))
from minillm.kernels import rows
print(y.sum(), rows._softmax.stats.cache_hits and sum(rows._softmax.stats.cache_hits.values()))
"""


def run(program=PROGRAM, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_second_process_reads_the_cache_and_a_damaged_one_is_rebuilt(tmp_path):
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert run(**folder)[0] == "2.0"
    assert run(**folder) == ["2.0", "1"]
    files = [file for file in tmp_path.rglob("*.nb[ic]")]
    assert len(files) >= 2
    for damage in (
        lambda f: f.write_bytes(b"nonsense"),
        lambda f: f.write_bytes(f.read_bytes()[:-50]),
        lambda f: f.write_bytes(b""),
    ):
        for file in tmp_path.rglob("*.nb[ic]"):
            damage(file)
        assert run(**folder)[0] == "2.0"
        assert run(**folder) == ["2.0", "1"]


def test_data_damaged_behind_a_sound_index_is_rebuilt(tmp_path):
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    run(**folder)
    for file in tmp_path.rglob("*.nbc"):
        file.write_bytes(b"\x80\x04nonsense")
    assert run(**folder)[0] == "2.0"
    assert run(**folder) == ["2.0", "1"]


def test_a_changed_source_anywhere_in_the_room_makes_the_cache_stale(tmp_path):
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    run(**folder)
    changed = "import minillm.kernels.compile as c; c.STAMP = 'another'\n" + PROGRAM
    assert run(changed, **folder)[1] != "1"


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
