"""Machine code is kept, loaded without Numba, made anew where it cannot be used; and so is a whole
generation."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from minillm import kernels
from minillm.kernels import machine_code, processor
from minillm.weights import store

ROOT = Path(__file__).parents[2]
LOGARITHM = """
import sys
import numpy as np
from minillm import kernels
print(kernels.log_softmax(np.zeros((2, 4), np.float32)).sum(), "numba" in sys.modules)
"""


def run(program=LOGARITHM, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_numba_has_compiled_is_there_without_it(tmp_path):
    """For each processor by itself."""
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    for environment in (folder, folder | {"NUMBA_CPU_NAME": "generic"}):
        for numba in ("True", "False"):
            value, found = run(**environment)
            assert abs(float(value) + 8 * math.log(4)) < 1e-5 and found == numba
    assert len([*tmp_path.glob("*.code")]) == 2


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The file of a kernel that was kept."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new"))
    machine_code.keep("norm.any", "symbol", CODE, ["memcpy"])
    assert machine_code.read("norm.any") == ("symbol", CODE)
    return tmp_path / "new" / machine_code.file_of("norm.any")


CODE = bytes(range(256))


def test_what_is_damaged_is_not_read(kept):
    data = kept.read_bytes()
    head = data.partition(b"\n")[0]
    renamed = data.replace(b"symbol", b"cymbal")
    made_of_nothing = (b"", b"nonsense", b"\xff", b"[]\n" + CODE, b"{}\n" + CODE, b"5\n" + CODE)
    for damaged in (*made_of_nothing, head, data[:-1], renamed):
        kept.write_bytes(damaged)
        assert machine_code.read("norm.any") is None
    machine_code.keep("norm.any", "symbol", CODE, [])
    assert machine_code.read("norm.any") == ("symbol", CODE)


def test_what_is_another_kernels_is_not_read(kept):
    kept.rename(kept.with_name(machine_code.file_of("norm.other")))
    assert machine_code.read("norm.other") is None


def test_a_ctrl_c_while_code_is_written_leaves_nothing_behind(kept, monkeypatch):
    def interrupt(*names):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        machine_code.keep("norm.other", "symbol", CODE, [])
    assert [*kept.parent.iterdir()] == [kept]


def test_what_was_made_of_other_sources_or_otherwise_is_not_read(kept, monkeypatch):
    for name in ("NUMBA_OPT", "NUMBA_CPU_FEATURES"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            patch.setattr(machine_code, "MADE", machine_code.made())
            assert machine_code.read("norm.any") is None
    assert machine_code.read("norm.any")
    monkeypatch.setattr(machine_code, "STAMP", "another")
    monkeypatch.setattr(machine_code, "MADE", machine_code.made())
    assert machine_code.read("norm.any") is None


def test_what_calls_a_function_that_is_not_there_is_not_linked(kept):
    machine_code.keep("norm.any", "symbol", CODE, ["memcpy", "not_a_function"])
    assert machine_code.read("norm.any") is None


def test_where_nothing_can_be_written_nothing_is_kept(monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    machine_code.keep("norm.any", "symbol", CODE, [])
    assert machine_code.read("norm.any") is None


def test_who_forks_waits_until_llvm_has_made_the_machine_code(monkeypatch, tmp_path):
    """LLVM has a lock of its own, which would stay taken in the child."""
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler_lock import global_compiler_lock

    from minillm.kernels.compile import entry

    locked, pointer = [], JITCodeLibrary.get_pointer_to_function

    def noted(library, name):
        locked.append(global_compiler_lock.is_locked())
        return pointer(library, name)

    monkeypatch.setattr(JITCodeLibrary, "get_pointer_to_function", noted)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert machine_code.compiled("norm.none", entry(lambda a, b: None)) and all(locked)
    assert locked and machine_code.read("norm.none")


def test_a_ctrl_c_while_llvm_is_at_work_is_not_lost(monkeypatch, tmp_path, capfd):
    """LLVM hands the code to a function of Python's, which cannot raise."""
    from numba.core.codegen import JITCodeLibrary

    from minillm.kernels.compile import entry

    def interrupted(library, code):
        if code is not None:
            raise KeyboardInterrupt

    handed = property(lambda library: None, interrupted)
    monkeypatch.setattr(JITCodeLibrary, "_compiled_object", handed, raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt):
        machine_code.compiled("norm.none", entry(lambda a, b: None))
    assert sys.unraisablehook is hook and capfd.readouterr().err == ""


def test_generate_needs_no_numba_once_its_kernels_are_there():
    program = """
import sys, minillm
from minillm.cli import main
main(["generate", "Once", "--max-new-tokens", "2", "--threads", "2"])
print("|", "numba" in sys.modules)
"""
    run(program)
    assert run(program)[-1] == "False"


def test_halves_are_known_without_numba():
    assert machine_code.HAS_HALVES == processor.HAS_HALVES
    assert machine_code.HAS_PAIRS == processor.HAS_PAIRS


def test_a_processor_without_pairs_is_told_once(monkeypatch, caplog):
    """By whoever rounds first: a product, the fused step, or training."""
    weight = store(np.ones((3, 2), np.float32), "bfloat16_rounded")
    for has_pairs, said in ((True, 0), (False, 1)):
        monkeypatch.setattr(machine_code, "HAS_PAIRS", has_pairs)
        for first in (lambda: kernels.linear(np.ones((1, 3), np.float32), weight), training):
            machine_code.say_without_pairs.cache_clear()
            caplog.clear()
            for work in (first, first, training):
                work()
            assert ["no products of bfloat16" in m for m in caplog.messages] == [True] * said


def training():
    kernels.Training("bfloat16")
