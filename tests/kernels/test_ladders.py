"""Every rung of the ladders gives what ops gives."""

import pytest

pytest.importorskip("numba")

from minillm.kernels.ladders import MATMUL, SOFTMAX

from .validator import check_ladders, failures


def test_rungs():
    assert not failures(check_ladders())


def test_climbing_order():
    assert list(MATMUL) == ["naive", "reordered", "tiled", "register_blocked", "parallel"]
    assert list(SOFTMAX) == ["two_pass", "fused", "polynomial", "parallel"]
