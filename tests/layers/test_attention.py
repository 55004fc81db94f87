"""Attention against numbers worked out by hand, and the mask from positions."""

import numpy as np

from minillm.layers.attention import (
    causal_mask,
    merge_heads,
    scaled_dot_product_attention,
    split_heads,
)


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
