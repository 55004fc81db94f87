"""Stored weights: what they hold, how large they are, and that the textbook multiplies by them too."""

import numpy as np
import pytest

from minillm import ops
from minillm.config import GPT2Config
from minillm.model import GPT2
from minillm.weights import KINDS, Float16, Int4, Int4Min, Int8, store, store_parameters

RNG = np.random.default_rng(0)
# Largest error over the largest number of a block of 32: half a step of 1/127 or of 1/8 (int4's +8
# is cut to +7: a whole step); int4_min: half of 1/15 of the range, which is at most twice the
# largest. And float16 scales' 2^-11.
LIMIT = {
    "float32": 0,
    "bfloat16": 2**-8,
    "float16": 2**-10,
    "int8": 0.5 / 127 + 2e-3,
    "int4": 1 / 8 + 1e-3,
    "int4_min": 1 / 15 + 2e-3,
}
BYTES = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int8": 34 / 32,
    "int4": 18 / 32,
    "int4_min": 20 / 32,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (32, 16), (33, 17), (100, 2500), (768, 48)])
def test_holds_the_matrix(kind, shape):
    matrix = RNG.standard_normal(shape).astype(np.float32)
    weight = store(matrix, kind)
    assert (
        weight.shape == shape
        and weight.T.shape == shape[::-1]
        and weight.size == matrix.size
        and weight.ndim == 2
    )
    dense = weight.dense()
    assert dense.dtype == np.float32 and dense.shape == shape
    block = (
        np.abs(np.pad(matrix, ((0, -shape[0] % 32), (0, 0))))
        .reshape(-1, 32, shape[1])
        .max(axis=1)
        .repeat(32, axis=0)
    )
    assert (np.abs(dense - matrix) <= LIMIT[kind] * block[: shape[0]] + 1e-7).all()
    assert np.array_equal(np.asarray(weight.T), dense.T) and weight.astype(np.float32) is weight
    assert weight.astype(np.float64).dtype == np.float64


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_the_formats(kind):
    assert store(np.zeros((768, 160), np.float32), kind).nbytes == 768 * 160 * BYTES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_take_looks_up_rows(kind):
    table = RNG.standard_normal((50, 40)).astype(np.float32)
    weight = store(table, kind, table=True)
    ids = np.array([[0, 49, 7], [16, 15, -1]])
    assert np.array_equal(weight.take(ids, axis=0), weight.dense().take(ids, axis=0))
    assert np.array_equal(
        weight.take([60, -3], mode="clip"), weight.dense().take([60, -3], axis=0, mode="clip")
    )
    assert np.array_equal(weight.take(7), weight.dense()[7])
    with pytest.raises(IndexError, match="50 rows"):
        weight.take([50])
    with pytest.raises(TypeError, match="not transposed"):
        weight.T.take([0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_textbook_multiplies(kind, dtype):
    weight, bias = (
        store(RNG.standard_normal((40, 1500)).astype(np.float32), kind),
        RNG.standard_normal(1500).astype(dtype),
    )
    x = RNG.standard_normal((2, 3, 40)).astype(dtype)
    y, reference = ops.linear(x, weight, bias), ops.linear(x, weight.dense(), bias)
    assert y.dtype == dtype and np.abs(y - reference).max() < (
        1e-4 if dtype == np.float32 else 1e-12
    )
    other = np.ones((2, 1500), dtype) @ weight.T
    assert np.abs(other - np.ones((2, 1500), dtype) @ weight.dense().T).max() < 1e-3


def test_bfloat16_rounds_to_even_and_keeps_infinity_and_nan():
    torch = pytest.importorskip("torch")
    x = np.concatenate(
        [
            RNG.standard_normal(4000) * 10.0 ** RNG.integers(-30, 30, 4000),
            [0, -0.0, np.inf, -np.inf, 3.4e38, 1.00390625],
        ]
    )
    x = x.astype(np.float32)[:, None]
    ours = store(x, "bfloat16").dense()
    assert np.array_equal(ours, torch.from_numpy(x).bfloat16().float().numpy())
    assert np.isnan(store(np.full((1, 1), np.nan, np.float32), "bfloat16").dense()).all()


def test_float16_saturates_instead_of_overflowing():
    x = np.array([[1e6, -1e6, 1e-7, 65504.0]], np.float32)
    dense = Float16.from_matrix(x).dense()
    assert dense[0, :2].tolist() == [65504.0, -65504.0] and np.isfinite(dense).all()


@pytest.mark.parametrize("kind", ["int8", "int4", "int4_min"])
def test_blocks_of_zeros_tiny_and_huge_numbers(kind):
    x = np.zeros((96, 16), np.float32)
    x[32:64], x[64:] = 1e-12, 1e7
    dense = store(x, kind).dense()
    assert np.isfinite(dense).all() and not dense[:32].any() and np.abs(dense[32:64]).max() < 1e-7


def test_q8_0_and_q4_0_hold_the_numbers_of_the_format():
    x = RNG.standard_normal((16, 64)).astype(np.float32)  # 16 rows of two blocks
    weight = Int8.from_table(x)
    q = weight.arrays["values"].transpose(0, 3, 1, 2, 4).reshape(16, 2, 32).astype(int) - 128
    d = weight.arrays["scales"].view(np.float16)[0].T  # [16, 2]
    blocks = x.reshape(16, 2, 32)
    assert np.array_equal(d, (np.abs(blocks).max(-1) / 127).astype(np.float16))
    assert np.array_equal(q, np.rint(blocks / d[..., None].astype(np.float32)).clip(-127, 127))
    weight = Int4.from_table(x)
    bytes_ = weight.arrays["values"].transpose(0, 3, 1, 2, 4).reshape(16, 2, 16)
    q = (
        np.concatenate([bytes_ & 15, bytes_ >> 4], axis=-1).astype(int) - 8
    )  # inputs 0..15 low, 16..31 high
    d = weight.arrays["scales"].view(np.float16)[0].T.astype(np.float32)
    assert np.array_equal((q * d[..., None]).reshape(16, 64), weight.dense())
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)[..., 0]
    assert (q.reshape(16, 2, 32)[np.abs(blocks) == np.abs(largest)[..., None]] == -8).all()


def test_int4_min_serves_numbers_far_from_zero():
    x = (RNG.random((64, 16)) + 10).astype(np.float32)
    error = {c: np.abs(c.from_matrix(x).dense() - x).max() for c in (Int4, Int4Min)}
    assert error[Int4Min] < 0.05 < error[Int4]


def test_a_models_parameters():
    config = GPT2Config(
        vocab_size=40, n_positions=8, n_embd=12, n_layer=2, n_head=2, tie_word_embeddings=False
    )
    model = GPT2.random(config)
    parameters = store_parameters(model.parameters, "int8")
    kinds = {name: getattr(p, "kind", None) for name, p in parameters.items()}
    assert {n for n, k in kinds.items() if k is None} == {
        n for n, p in model.parameters.items() if p.ndim == 1 or n == "wpe.weight"
    }
    stored = GPT2(config, parameters)
    assert stored.dtype == np.float32 and stored.n_parameters == model.n_parameters
    ids = np.arange(8)
    assert np.abs(stored(ids) - model(ids)).max() < 0.02 * np.abs(model(ids)).max()
    assert np.array_equal(
        stored.astype(np.float64).parameters["wte.weight"], parameters["wte.weight"].dense()
    )
    released: list = []
    assert list(store_parameters(model.parameters, "float16", release=released.append)) == list(
        model.parameters
    )
    sizes = [array.size for array in released]
    assert len(sizes) > 4 and sizes == sorted(
        sizes, reverse=True
    )  # so that what is held twice stays small


def test_unknown_kinds_are_refused_by_name():
    with pytest.raises(ValueError, match="'int3'; known: float32, bfloat16"):
        store(np.zeros((2, 2), np.float32), "int3")


def test_arrays_may_come_in_any_order():
    weight = store(RNG.standard_normal((40, 20)).astype(np.float32), "int4_min")
    again = Int4Min(dict(reversed(weight.arrays.items())), weight.n, weight.k, weight.transposed)
    assert list(again.arrays) == ["values", "scales", "minima"] and np.array_equal(
        again.dense(), weight.dense()
    )
