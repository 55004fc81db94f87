"""RoPE against multiplication of complex numbers, and against transformers."""

import numpy as np
import pytest

from minillm.errors import InputError
from minillm.layers.rope import frequencies, rotate, rotate_backward, rotation
from tests.central import arrays, check

B, H, T, D, THETA = 2, 3, 4, 10, 1e4
POSITIONS = np.array([[0, 1, 2, 3], [700, 5, 5, 8191]])
LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_a_pair_is_a_complex_number_times_a_turn():
    """Angles of up to 8191 rad know their place in the circle to 1e-12."""
    x = arrays(1, x=(B, H, T, D))["x"]
    y = rotate(x, *rotation(POSITIONS, D, THETA, dtype=np.float64))
    for b, h, t, i in np.ndindex(B, H, T, D // 2):
        turn = np.exp(1j * POSITIONS[b, t] * THETA ** (-2 * i / D))
        turned = complex(x[b, h, t, i], x[b, h, t, i + D // 2]) * turn
        assert y[b, h, t, i] == pytest.approx(turned.real, abs=1e-11)
        assert y[b, h, t, i + D // 2] == pytest.approx(turned.imag, abs=1e-11)


def test_products_depend_on_the_distance_alone():
    a = arrays(2, q=(1, 1, 1, D), k=(1, 1, 1, D))

    def score(of_q, of_k):
        turned = (
            rotate(a[name], *rotation(np.array([[position]]), D, THETA, dtype=np.float64))
            for name, position in (("q", of_q), ("k", of_k))
        )
        return np.vdot(*turned)

    assert score(7, 3) == pytest.approx(score(1004, 1000), abs=1e-11)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-3)


def test_backward():
    turn = rotation(POSITIONS, D, THETA, dtype=np.float64)
    check(
        lambda x: rotate(x, *turn),
        lambda dy, y: {"x": rotate_backward(dy, *turn)},
        arrays(3, x=(B, H, T, D)),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_keep_the_dtype(dtype):
    cos, sin = rotation(POSITIONS, D, THETA, LLAMA3, dtype)
    assert cos.dtype == sin.dtype == dtype and cos.shape == (B, T, D // 2)
    assert rotate(np.ones((B, H, T, D), dtype), cos, sin).dtype == dtype


def test_angles_of_float32_are_off_by_what_the_docstring_says():
    """Worst seen 8.1e-5 and 3.5e-4."""
    for position, most in ((2048, 9e-5), (8192, 4e-4)):
        differences = [
            np.subtract(
                *(rotation([[position]], 128, theta, dtype=d) for d in (np.float32, np.float64))
            )
            for theta in (1e4, 1e5, 5e5, 1e6)
        ]
        assert most / 2 < np.abs(differences).max() < most


def test_linear_scaling_makes_positions_count_less():
    np.testing.assert_allclose(
        rotation(POSITIONS, D, THETA, LINEAR, np.float64),
        rotation(POSITIONS / 4, D, THETA, None, np.float64),
        atol=1e-11,
    )


def test_llama3_scaling_leaves_fast_pairs_and_stretches_slow_ones():
    """Of the 32 pairs of D = 64, whose turns in 8192 positions go from 1304 down to 0.17."""
    position, turn = np.ones((1, 1)), 2 * np.pi / 8192
    plain, angles = (
        np.arctan2(sin, cos)[0, 0]
        for cos, sin in (rotation(position, 64, THETA, kind, np.float64) for kind in (None, LLAMA3))
    )
    fast, slow = plain >= 4 * turn, plain <= turn
    between = (angles / plain)[~(fast | slow)]
    assert fast.any() and slow.any() and len(between) > 1
    np.testing.assert_allclose(angles[fast], plain[fast], rtol=1e-13)
    np.testing.assert_allclose(angles[slow], plain[slow] / 8, rtol=1e-13)
    assert ((between > 1 / 8) & (between < 1)).all() and (np.diff(between) < 0).all()


@pytest.mark.parametrize(
    ("scaling", "says"),
    [
        ({"rope_type": "yarn"}, "rope_type is 'yarn'; known are default, linear, llama3"),
        ({"type": ["a"]}, "rope_type is"),
        ("linear", "RoPE scaling: what it holds is 'linear'; it must be a table"),
        ({"rope_type": "linear"}, "RoPE scaling: factor is missing"),
        ({"type": "linear", "factor": "4"}, "factor is '4'; it must be of type float"),
        (LINEAR | {"factor": 0}, r"factor is 0; it must be from 1e-06 to 1e\+12"),
        (LINEAR | {"factor": 1e-300}, "factor is 1e-300"),
        (LLAMA3 | {"factor": 1e300}, r"factor is 1e\+300"),
        ({"rope_type": "factors", "factors": [1e-300]}, "factors are .*numbers from 1e-06 to"),
        (LINEAR | {"factor": float("nan")}, "factor is nan"),
        (LLAMA3 | {"high_freq_factor": 1}, "low_freq_factor is 1.0; it must be below"),
    ],
    ids=str,
)
def test_scalings_that_cannot_be(scaling, says):
    with pytest.raises(InputError, match=says):
        rotation(POSITIONS, D, THETA, scaling)


def test_heads_of_an_odd_size_cannot_be_turned():
    with pytest.raises(InputError, match="size 9"):
        rotation(POSITIONS, 9, THETA)


@pytest.mark.parametrize("scaling", [None, LINEAR, LLAMA3], ids=["default", "linear", "llama3"])
@pytest.mark.live
def test_against_transformers(scaling):
    """In float32, at the positions of a long context. Powers of float32 are a unit in the last
    place apart between libraries and processors (worst seen 1; in position 8192 an angle by 5e-4);
    from the same frequencies the worst seen is 6e-8, where 1e-5 is a tenth of what angles formed in
    float64 would differ."""
    torch = pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(
        hidden_size=3 * 64,
        num_attention_heads=3,
        max_position_embeddings=16384,
        rope_parameters={"rope_theta": 1e5, **(scaling or {"rope_type": "default"})},
    )
    positions = np.array([[0, 1, 2048, 8192]])
    q, k = (a.astype(np.float32) for a in arrays(4, q=(1, 3, 4, 64), k=(1, 3, 4, 64)).values())
    rope = llama.LlamaRotaryEmbedding(config)
    mine, their = frequencies(64, 1e5, scaling), rope.inv_freq.numpy()
    assert mine.dtype == np.float32 and (np.abs(mine - their) <= 2 * np.spacing(their)).all()
    rope.inv_freq = torch.tensor(mine)
    theirs = rope(torch.tensor(q), torch.tensor(positions))
    ours = rotation(positions, 64, 1e5, scaling)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(np.concatenate([a, a], axis=-1), b.numpy(), rtol=0, atol=1e-5)
    turned = llama.apply_rotary_pos_emb(torch.tensor(q), torch.tensor(k), *theirs)
    given = [t.numpy()[..., :32] for t in theirs]
    for x, expected in zip((q, k), turned):  # from the same angles: to the bit
        np.testing.assert_array_equal(rotate(x, *given), expected.numpy())
