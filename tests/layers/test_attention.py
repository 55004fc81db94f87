"""Attention against numbers worked out by hand, the mask from positions, and backward against
differences."""

import numpy as np
import pytest

from minillm.layers.attention import (
    causal_mask,
    causal_self_attention,
    causal_self_attention_backward,
    merge_heads,
    repeat_heads,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
    split_heads,
)
from minillm.steps import Trace
from tests.central import arrays, check, check_layer, layers


def test_mask_of_a_prompt_is_a_lower_triangle():
    np.testing.assert_array_equal(causal_mask(np.arange(4)[None], 4)[0], np.tri(4, dtype=bool))


def test_mask_counts_from_each_rows_own_position():
    mask = causal_mask(np.array([[2, 3], [0, 1]]), 4)
    np.testing.assert_array_equal(mask[0], [[1, 1, 1, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(mask[1], [[1, 0, 0, 0], [1, 1, 0, 0]])


def test_heads_are_columns_side_by_side_and_come_back():
    x = np.arange(2 * 5 * 12).reshape(2, 5, 12)
    heads = split_heads(x, 3)
    assert heads.shape == (2, 3, 5, 4)
    np.testing.assert_array_equal(heads[1, 2, 3], x[1, 3, 8:12])
    np.testing.assert_array_equal(merge_heads(heads), x)


def test_three_tokens_of_one_number_each():
    """q = 1, 2, 3, k = 4, 5, 6, v = 7, 8, 9: the first sees one key, the later ones nearly only the
    newest."""
    q, k, v = (
        np.array(x, dtype=float).reshape(1, 1, 3, 1) for x in ([1, 2, 3], [4, 5, 6], [7, 8, 9])
    )
    out = scaled_dot_product_attention(q, k, v, np.arange(3)[None], scale=1.0)
    # rounded to four digits
    np.testing.assert_allclose(out.ravel(), [7, 7.8808, 8.9480], atol=5e-5)


def test_equal_scores_average_the_visible_values():
    q, k = np.zeros((1, 1, 4, 2)), np.ones((1, 1, 4, 2))
    v = np.arange(8.0).reshape(1, 1, 4, 2)
    out = scaled_dot_product_attention(q, k, v, np.arange(4)[None], scale=1.0)
    np.testing.assert_allclose(out[0, 0, :, 0], [0, 1, 2, 3], rtol=1e-15)


# ---- backward

POSITIONS = {
    "in order": np.arange(4)[None].repeat(2, 0),
    "ragged": np.array([[0, 1, 2, 3], [2, 3, 3, 0]]),
}


@pytest.mark.parametrize("K", [3, 1])
@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
def test_scaled_dot_product_attention(positions, K):
    a = arrays(8, q=(2, 3, 4, 5), k=(2, K, 4, 5), v=(2, K, 4, 5))

    def gradients(dy, y):
        scaled_dot_product_attention(**a, positions=positions, scale=0.7, step=(kept := Trace(a)))
        return dict(zip("qkv", scaled_dot_product_attention_backward(dy, kept, positions, 0.7)))

    check(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, positions, 0.7),
        gradients,
        a,
    )


def test_causal_self_attention():
    tree, by_name = layers({"c_attn": (4, 12), "c_proj": (4, 4)}, 10)
    x = np.random.default_rng(11).standard_normal((2, 3, 4))
    how = {"n_head": 2, "scale": 0.6, "positions": np.arange(3)[None].repeat(2, 0)}
    check_layer(
        lambda x, step, **tree: causal_self_attention(x, **tree, **how, step=step),
        lambda dy, kept: causal_self_attention_backward(dy, x, kept, **tree, **how),
        tree,
        by_name,
        x,
    )


def test_heads_of_queries_share_those_of_keys_in_turn():
    """As though each key-value head were there once for each of its three heads of queries; its
    gradient is the sum of theirs."""
    r = np.random.default_rng(0)
    q, d = r.standard_normal((2, 2, 6, 5, 4))
    k, v = r.standard_normal((2, 2, 2, 5, 4))
    positions = np.arange(5)[None].repeat(2, axis=0)
    repeated = {name: np.repeat(a, 3, axis=1) for name, a in (("k", k), ("v", v))}
    traces = Trace(q=q, k=k, v=v), Trace(q=q, **repeated)
    contexts = [
        scaled_dot_product_attention(q, t["k"], t["v"], positions, 0.5, step=t) for t in traces
    ]
    np.testing.assert_array_equal(*contexts)
    shared, apart = (
        scaled_dot_product_attention_backward(d, kept, positions, 0.5) for kept in traces
    )
    np.testing.assert_array_equal(shared[0], apart[0])
    for found, theirs in zip(shared[1:], apart[1:]):
        np.testing.assert_allclose(found, theirs.reshape(2, 2, 3, 5, 4).sum(axis=2), rtol=1e-12)


def test_heads_of_their_own_are_not_copied():
    x = np.zeros((2, 3, 5, 4))
    assert np.shares_memory(repeat_heads(x, 3), x)
