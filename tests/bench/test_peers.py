"""What minillm's own peers hold: a model and what computes with it, and nothing that compiles."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from minillm import GPT2
from tests.bench.workers import CONFIG

MEASURED = """
import sys
from minillm.bench.peers import PEERS
from minillm.machine.memory import peak_bytes
peer = PEERS["minillm-int8"]()
peer.load(sys.argv[1], 1)
held = peak_bytes()
peer.measure([1, 2, 3], 2)
peer.measure_batch([[1, 2, 3], [4, 5, 6]], 2, 2)
print("numba" in sys.modules, peer.versions["numba"], (peer.libraries or 0) <= (held or 0))
"""


def test_what_is_not_compiled_yet_is_compiled_in_another_process(tmp_path, monkeypatch):
    """Numba, 60 MB and more, is in nobody's peak, and its seconds in nobody's time."""
    numba = pytest.importorskip("numba")
    from minillm.kernels import machine_code

    for folder in reversed([*machine_code.folders()]):
        for file in folder.glob("*.code"):
            shutil.copy(file, tmp_path)
    for file in tmp_path.glob("product.int8.*"):
        file.unlink()
    GPT2.random(CONFIG).save_pretrained(tmp_path / "model")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["False", numba.__version__, "True"], done.stderr
    assert [*tmp_path.glob("product.int8.*")]
