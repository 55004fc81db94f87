"""Stored weights: what they hold, how large they are, and that the textbook multiplies by them."""

import numpy as np
import pytest

from minillm import InputError, ops
from minillm.families.gpt2.config import GPT2Config
from minillm.model import GPT2
from minillm.weights import KINDS, Float16, Int4, Int4Min, LowRank, Sparse, store, store_parameters

RNG = np.random.default_rng(0)
# Largest error over the largest number of a block of 32: half a step of 1/127 or of 1/8 (int4's +8
# is cut to +7: a whole step); int4_min: half of 1/15 of the range, which is at most twice the
# largest. And float16 scales' 2^-11.
LIMIT = {
    "float32": 0,
    "bfloat16": 2**-8,
    "bfloat16_rounded": 2**-8,
    "float16": 2**-10,
    "int8": 0.5 / 127 + 2e-3,
    "int4": 1 / 8 + 1e-3,
    "int4_min": 1 / 15 + 2e-3,
}
BYTES = {
    "float32": 4,
    "bfloat16": 2,
    "bfloat16_rounded": 2,
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


def test_a_stored_matrix_says_what_to_use_instead_of_an_index():
    array = np.zeros((40, 50), np.float32)
    for weight in (store(array, "int8"), Sparse.from_matrix(array), LowRank(array, array.T)):
        for look in (lambda w: w[0], lambda w: list(w), lambda w: 0.0 in w):
            with pytest.raises(
                InputError, match=r"stored matrix.* \.dense\(\) returns it as an arr"
            ):
                look(weight)
        assert weight.dense()[0].shape == (weight.shape[1],)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_textbook_multiplies(kind, dtype):
    weight = store(RNG.standard_normal((40, 1500)).astype(np.float32), kind)
    bias = RNG.standard_normal(1500).astype(dtype)
    x = RNG.standard_normal((2, 3, 40)).astype(dtype)
    enters = store(x.reshape(6, 40), "bfloat16").dense().reshape(x.shape).astype(dtype)
    y = ops.linear(x, weight, bias)
    reference = ops.linear(enters if kind == "bfloat16_rounded" else x, weight.dense(), bias)
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


def as_ggml(weight):
    """The bytes that a GGUF file has for a table: per block float16 numbers, then the values."""
    values = weight.arrays["values"].transpose(0, 3, 1, 2, 4)  # [P, 16, B, n/4, 4]
    values = values.reshape(-1, values.shape[2], values.shape[3] * 4)
    if weight.kind == "int8":
        values = values - np.uint8(128)
    numbers = [
        weight.arrays[name].swapaxes(1, 2).reshape(*values.shape[:2], 1).copy().view(np.uint8)
        for name in ("scales", "minima")
        if name in weight.arrays
    ]
    return np.concatenate([*numbers, values], axis=-1).reshape(len(values), -1)[: weight.n]


def half_bytes(x):
    return list(np.array(x, "<f2").tobytes())


@pytest.mark.parametrize(
    ("kind", "block", "expected"),
    [
        # d = 127/127; a half goes away from zero.
        ("int8", [127, 2.5, -2.5, 0.49], [*half_bytes(1), 127, 3, 256 - 3, 0]),
        # 0.49998 lies at 63.497 by d = 1/127, but at 63.501 by the float16 that is stored.
        ("int8", [1, 0.5, 0.49998, 0], [*half_bytes(1 / 127), 127, 64, 63, 0]),
        # The first of largest size, -16, is step -8 of d = 2; 16 would be step 8; 7 is the last.
        (
            "int4",
            [-16, 16, 1, -1],
            [*half_bytes(2), *(0 | 8 << 4, 15 | 8 << 4, 9 | 8 << 4, 8 | 8 << 4)],
        ),
        (
            "int4",
            [16, -16, 1, -1],
            [*half_bytes(-2), *(0 | 8 << 4, 15 | 8 << 4, 8 | 8 << 4, 9 | 8 << 4)],
        ),
        # From -3 in steps of 2 to 27; 0 lies at 1.5, which rounds to 2.
        (
            "int4_min",
            [-3, 27, 2, 1.9],
            [*half_bytes([2, -3]), *(0 | 2 << 4, 15 | 2 << 4, 3 | 2 << 4, 2 | 2 << 4)],
        ),
        ("int4_min", [0, 0, 0, 0], half_bytes([0, 0]) + [0] * 4),
    ],
)
def test_blocks_hold_the_bytes_of_ggml(kind, block, expected):
    """Four numbers and 28 zeros, worked out by hand from the formulas of ggml-quants.c."""
    table = np.zeros((1, 32), np.float32)
    table[0, :4] = block
    found = as_ggml(KINDS[kind].from_table(table))[0]
    assert found[: len(expected)].tolist() == expected


@pytest.mark.live
@pytest.mark.parametrize(
    ("kind", "name"), [("int8", "Q8_0"), ("int4", "Q4_0"), ("int4_min", "Q4_1")]
)
def test_blocks_equal_ggmls_bit_for_bit(kind, name):
    """gguf.quants claims ggml's own results; where infinite, ours are float16's largest."""
    gguf = pytest.importorskip("gguf", reason="needs the extra bench: pip install -e '.[bench]'")
    normal = RNG.standard_normal((4000, 64))
    tables = {
        "normal": normal,
        "scaled": normal * 10.0 ** RNG.uniform(-36, 3, (4000, 1)),
        "heavy tails": np.clip(RNG.standard_cauchy((4000, 64)), -6e4, 6e4),
        "halves": RNG.integers(-254, 255, (4000, 64)) / 2,
        "ties and signed zeros": RNG.choice([0, -0.0, 1, -1, 0.5, 127, -127], (4000, 64)),
        "zeros": np.zeros((16, 64)),
        "one number": np.repeat(RNG.standard_normal((4000, 1)), 64, axis=1),
    }
    for case, table in tables.items():
        table = table.astype(np.float32)
        weight = KINDS[kind].from_table(table)
        theirs = gguf.quantize(table, gguf.GGMLQuantizationType[name])
        assert np.array_equal(as_ggml(weight), theirs), case
        read = gguf.dequantize(theirs, gguf.GGMLQuantizationType[name])
        assert np.array_equal(weight.dense(), read), case


@pytest.mark.parametrize("kind", ["int8", "int4", "int4_min"])
def test_a_number_that_is_none_stays_visible_in_its_block(kind):
    x = np.ones((64, 16), np.float32)
    x[3] = np.nan
    dense = store(x, kind).dense()
    assert np.isnan(dense[:32]).all() and np.isfinite(dense[32:]).all()


def test_int4_min_serves_numbers_far_from_zero():
    x = (RNG.random((64, 16)) + 10).astype(np.float32)
    error = {c: np.abs(c.from_matrix(x).dense() - x).max() for c in (Int4, Int4Min)}
    assert error[Int4Min] < 0.05 < error[Int4]


def test_a_models_parameters():
    config = GPT2Config(
        vocab_size=40, n_positions=8, n_embd=12, n_layer=2, n_head=2, tie_word_embeddings=False
    )
    model = GPT2.random(config)
    parameters = store_parameters(model.parameters, "int8", model.layout)
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
    assert list(
        store_parameters(model.parameters, "float16", model.layout, released.append)
    ) == list(model.parameters)
    sizes = [array.size for array in released]
    # so that what is held twice stays small
    assert len(sizes) > 4 and sizes == sorted(sizes, reverse=True)


def test_unknown_kinds_are_refused_by_name():
    with pytest.raises(ValueError, match="kind is 'int3'; it must be one of float32, bfloat16"):
        store(np.zeros((2, 2), np.float32), "int3")


def test_arrays_may_come_in_any_order():
    weight = store(RNG.standard_normal((40, 20)).astype(np.float32), "int4_min")
    again = Int4Min(dict(reversed(weight.arrays.items())), weight.n, weight.k, weight.transposed)
    assert list(again.arrays) == ["values", "scales", "minima"] and np.array_equal(
        again.dense(), weight.dense()
    )
