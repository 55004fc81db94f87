"""What loading, and decoding after it, take at their highest: the weights as wanted, and little
beside them.

MINILLM_MEMORY=all tries every stored type with every wanted one: 98 processes, some minutes.
"""

import os
import subprocess
import sys

import pytest

from minillm import GPT2, GPT2Config
from minillm.checkpoints.opening import save_checkpoint
from minillm.weights import KINDS

SMALL = GPT2Config(vocab_size=8192, n_positions=512, n_embd=512, n_layer=3, n_head=8)
WANTED = ("float64", *KINDS)
STORED = [kind for kind in WANTED if kind != "bfloat16_rounded"]
USUAL = {(kind, kind) for kind in STORED} | {("bfloat16", "bfloat16_rounded")}
USUAL |= {(half, wanted) for half in ("float16", "bfloat16") for wanted in ("float32", "int8")}
LOAD = """
import sys
import numpy, minillm, minillm.kernels, minillm.compression
from minillm.loading import load_model
from minillm.machine.memory import peak_bytes
folder, wanted, ops = sys.argv[1:]
before = peak_bytes()  # everything imported, nothing loaded
model = load_model(folder, wanted, ops)
print(peak_bytes() - before, sum(p.nbytes for p in model.parameters.values()))
"""


DECODE = """
import sys
from minillm.bench.peers import PEERS
from minillm.machine.memory import peak_bytes
peer = PEERS[sys.argv[2]]()
peer.load(sys.argv[1], 1)
peer.measure(list(range(400)), 8)
weights = sum(p.nbytes for p in peer.model.parameters.values())
workspace = sum(rows.nbytes for rows in peer.model._step._workspace)
print(peak_bytes() - peer.libraries, weights + peer.cache.nbytes + workspace)
"""


def measured(*arguments) -> list[int]:
    """The numbers that a program prints, in a process of its own."""
    ran = [sys.executable, "-c", *map(str, arguments)]
    return [*map(int, subprocess.run(ran, check=True, capture_output=True).stdout.split())]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A function that gives a file or a folder with 14 million numbers, stored in some way."""
    model, folder = GPT2.random(SMALL), tmp_path_factory.mktemp("small")

    def stored(kind: str):
        path = folder / (f"{kind}.gguf" if kind in ("int8", "int4") else kind)
        if not path.exists():
            save_checkpoint(model, path, kind)
        return path

    return stored


@pytest.mark.parametrize(
    "kind, wanted, most", [("float32", "int8", 12), ("float16", "float32", 10), ("int8", "int8", 4)]
)
def test_what_is_loaded_is_held_once(small, kind, wanted, most):
    """Beside the weights: of a folder a matrix, 4 MB, of which columns are read from all pages, and
    ten or fewer steps of a conversion, a MB each; of blocks a slab as it is."""
    peak, weights = measured(LOAD, small(kind), wanted, "numpy")
    assert peak <= weights + most * 1e6, f"{peak / 1e6:.1f} MB for {weights / 1e6:.1f} MB"


def test_decode_takes_weights_cache_and_workspace(small):
    """And 10 MB for machine code and what goes with it: 7 measured."""
    for library in ("numba", "threadpoolctl"):
        pytest.importorskip(library)
    for _ in range(2):  # a process that compiles takes far more
        peak, due = measured(DECODE, small("float32"), "minillm-int8")
    assert peak <= due + 10e6, f"{peak / 1e6:.1f} MB, where {due / 1e6:.1f} are due"


@pytest.fixture(scope="module", params=STORED)
def stored(request, tmp_path_factory):
    """A folder with GPT-2 124M's shape, stored in each way."""
    folder, model = tmp_path_factory.mktemp("stored"), GPT2.random(GPT2Config())
    if request.param.startswith("int"):
        model.quantize(request.param).save_pretrained(folder)
    else:
        model.save_pretrained(folder, request.param)
    yield request.param, folder
    (folder / "model.safetensors").unlink()  # up to a gigabyte


@pytest.mark.live
@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("ops", ["numpy", "numba"])
def test_loading_takes_the_weights_and_one_matrix(stored, wanted, ops):
    """Ten per cent more is allowed; measured: 30 MB more than the weights, 100 MB with kernels,
    whose own code is 70 MB."""
    kind, folder = stored
    if (kind, wanted) not in USUAL and os.environ.get("MINILLM_MEMORY") != "all":
        pytest.skip("one of all pairs: MINILLM_MEMORY=all")
    if ops == "numba":
        pytest.importorskip("numba")
    peak, weights = measured(LOAD, folder, wanted, ops)
    largest = 4 * GPT2Config().vocab_size * GPT2Config().n_embd
    assert peak <= 1.1 * (weights + largest), f"{peak / 1e6:.0f} MB for {weights / 1e6:.0f} MB"
