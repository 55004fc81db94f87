"""Every twin against ops, in this process and in others with other settings of Numba."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from minillm import kernels
from minillm.bench.run import PROCESSORS
from minillm.kernels import blocked, matrices
from minillm.kernels.processor import FEATURES
from minillm.kernels.products import MANY
from minillm.weights import Float32

from .validator import (
    check_attention,
    check_blocked,
    check_gradients,
    check_linear,
    check_one_pass,
    check_rows,
    failures,
)

HERE = Path(__file__).parent
PLAIN = {"NUMBA_DISABLE_JIT": "1"}  # kernels run as Python


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1])
def test_rows(dtype, seed):
    assert not failures(check_rows(kernels, dtype, seed))


def test_linear():
    assert not failures(check_linear(kernels))


def test_linear_in_pairs(monkeypatch):
    """As many rows of bfloat16 are multiplied where the processor has products of pairs."""
    monkeypatch.setattr(matrices, "HAS_PAIRS", True)
    shapes = ((MANY, 33, 17), (MANY + 1, 1, 50), (70, 96, 64))
    assert not failures(check_linear(kernels, ["bfloat16_rounded"], shapes))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_attention(dtype):
    assert not failures(check_attention(kernels, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1])
@np.errstate(invalid="ignore")
def test_gradients(dtype, seed):
    assert not failures(check_gradients(kernels, dtype, seed))


@pytest.mark.parametrize("in_pairs", [False, True])
def test_blocked_products(in_pairs, monkeypatch):
    """bfloat16 in pairs too, which are formed where the processor multiplies them."""
    monkeypatch.setattr(blocked, "IN_PAIRS", in_pairs)
    assert not failures(check_blocked())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_pass(dtype):
    assert not failures(check_one_pass(np.dtype(dtype)))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(PLAIN, id="without compiling", marks=pytest.mark.live),
        pytest.param(
            {**PLAIN, "NUMBA_CPU_NAME": "znver4", "NUMBA_CPU_FEATURES": "+avx512bf16"},
            id="in pairs of bfloat16",
            marks=pytest.mark.live,
        ),
        pytest.param(PROCESSORS["generic"], id="generic processor", marks=pytest.mark.live),
        pytest.param(
            PROCESSORS["haswell"],
            id="haswell",
            marks=[
                pytest.mark.live,
                pytest.mark.skipif("avx2" not in FEATURES, reason="runs code with AVX2"),
            ],
        ),
    ],
)
def test_in_another_process(settings, tmp_path):
    environment = {
        **os.environ,
        **settings,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(HERE.parents[1]),
    }
    done = subprocess.run(
        [sys.executable, HERE / "validator.py"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 wrong" in done.stdout
    assert "vnni True" not in done.stdout or "NUMBA_DISABLE_JIT" in settings


def test_wrong_twins_are_found():
    class Wrong:
        """Classic mistakes: GELU of the other form, n - 1 in the variance, no maximum subtracted,
        epsilon outside of the root, GELU's slope in SiLU."""

        def __getattr__(self, name):
            return getattr(kernels, name)

        gelu_new = staticmethod(kernels.gelu)

        @staticmethod
        def softmax(x):
            return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)

        @staticmethod
        def layer_norm(x, weight, bias, eps=1e-5):
            return (x - x.mean(-1, keepdims=True)) / np.sqrt(
                x.var(-1, ddof=1, keepdims=True) + eps
            ) * weight + bias

        @staticmethod
        def rms_norm(x, weight, eps=1e-6):
            return x / (np.sqrt((x * x).mean(-1, keepdims=True)) + eps) * weight

        @staticmethod
        def silu(x):
            return (x / (1 + np.exp(-1.702 * x))).astype(x.dtype)

    found = {line.split()[0] for line in failures(check_rows(Wrong(), np.float32))}
    assert found == {"gelu_new", "softmax", "layer_norm", "rms_norm", "silu"}


def test_targets_outside_are_refused():
    with pytest.raises(IndexError, match="10 logits"):
        kernels.cross_entropy(np.zeros((2, 10), np.float32), [3, 10])


def test_unknown_names_are_refused_and_public_ones_exist():
    assert all(callable(getattr(kernels, name)) for name in kernels.__all__)
    with pytest.raises(AttributeError, match="no attribute 'sofmax'"):
        kernels.sofmax  # noqa: B018


def test_a_weight_of_an_unknown_kind_multiplies_by_itself():
    class Doubling(Float32):
        kind = "doubling"

        def __rmatmul__(self, x):
            return 2 * super().__rmatmul__(x)

    x, matrix = np.ones((3, 20), np.float32), np.ones((20, 7), np.float32)
    assert (kernels.linear(x, Doubling.from_matrix(matrix)) == 40).all()


def test_shapes_that_do_not_fit_are_refused():
    weight = Float32.from_matrix(np.ones((20, 7), np.float32))
    with pytest.raises(ValueError, match="x has 19 columns and the weight 20 inputs"):
        kernels.linear(np.ones((3, 19), np.float32), weight)
