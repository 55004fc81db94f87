"""The feed forward and its backward, against differences."""

import numpy as np
import pytest

from minillm.layers.feed_forward import feed_forward, feed_forward_backward
from tests.central import check_layer, layers


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
def test_feed_forward(activation):
    tree, by_name = layers({"c_fc": (4, 7), "c_proj": (7, 4)}, 12)
    x = np.random.default_rng(13).standard_normal((2, 3, 4))
    check_layer(
        lambda x, step, **tree: feed_forward(x, **tree, activation=activation, step=step),
        lambda dy, kept: feed_forward_backward(dy, x, kept, **tree, activation=activation),
        tree,
        by_name,
        x,
    )
