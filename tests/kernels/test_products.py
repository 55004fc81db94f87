"""Products in blocks are whole numbers, exactly those of NumPy, also where all are as large as
can be."""

import numpy as np
import pytest

pytest.importorskip("numba")

from minillm import kernels
from minillm.weights import KINDS

ONE = np.float16(1).view(np.int16)


@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("numbers", ["smallest", "largest", "either", "any"])
@pytest.mark.parametrize("kind", ["int8", "int4", "int4_min"])
def test_sums_of_blocks_are_exact(kind, numbers, rows):
    """A block's largest number is 127, so that its scale is 1; all sums are below 2**24."""
    r = np.random.default_rng(0)
    choices = {"smallest": [0], "largest": [255], "either": [0, 255], "any": np.arange(256)}
    weight = KINDS[kind].from_matrix(r.standard_normal((96, 21)).astype(np.float32))
    for name, array in weight.stored.items():
        array[:] = r.choice(choices[numbers], array.shape) if name == "values" else ONE
    matrix = np.array(weight, np.float64)
    for size in ([127], [-127], [-127, 127], np.arange(-127, 128)):
        x = r.choice(size, (rows, 96)).astype(np.float32)
        x[:, ::32] = 127
        np.testing.assert_array_equal(kernels.linear(x, weight), x @ matrix)
