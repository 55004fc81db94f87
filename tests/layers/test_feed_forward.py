"""The feed forward of each family against its definition, and backward against differences."""

import numpy as np
import pytest

from minillm.layers.feed_forward import (
    feed_forward,
    feed_forward_backward,
    swiglu,
    swiglu_backward,
)
from minillm.names import flat
from minillm.steps import Patch, Trace
from tests.central import TOLERANCE, arrays, check_layer, layers, relative


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


SHAPES = {"gate_proj": (4, 7), "up_proj": (4, 7), "down_proj": (7, 4)}


@pytest.mark.parametrize("bias", [False, True], ids=["no biases", "biases"])
def test_swiglu(bias):
    tree, by_name = layers(SHAPES, 12, bias)
    x = np.random.default_rng(13).standard_normal((2, 3, 4))
    check_layer(
        lambda x, step, **tree: swiglu(x, **tree, step=step),
        lambda dy, kept: swiglu_backward(dy, x, kept, **tree),
        tree,
        by_name,
        x,
    )


def test_the_steps_of_swiglu():
    """Names as in the seam; what enters the last product is the gated one."""
    tree, _ = layers(SHAPES, 14, bias=False)
    x, trace = arrays(15, x=(2, 3, 4))["x"], Trace()
    out = swiglu(x, **tree, step=trace)
    assert list(trace) == ["gate", "up", "act", "out"]
    gate, up = (x @ tree[f"{name}_proj"]["weight"] for name in ("gate", "up"))
    np.testing.assert_allclose(trace["act"], gate / (1 + np.exp(-gate)) * up, rtol=1e-13)
    np.testing.assert_allclose(out, trace["act"] @ tree["down_proj"]["weight"], rtol=1e-13)


def test_gradients_of_swiglu_pass_under_the_names_of_the_forward():
    """Along one direction for each, the intermediate replaced by a Patch. Worst seen 6e-11."""
    tree, _ = layers(SHAPES, 16, bias=False)
    given = arrays(17, x=(2, 3, 4), dy=(2, 3, 4))
    x, kept, seen = given["x"], Trace(), Trace()
    swiglu(x, **tree, step=kept)
    swiglu_backward(given["dy"], x, kept, **tree, step=seen)
    assert set(seen) == {"gate", "up", "act"}
    for name, gradient in seen.items():
        direction = np.random.default_rng(18).standard_normal(gradient.shape)
        sums = [
            (swiglu(x, **tree, step=Patch({name: kept[name] + h * direction})) * given["dy"]).sum()
            for h in (1e-5, -1e-5)
        ]
        expected = (sums[0] - sums[1]) / 2e-5
        assert (gradient * direction).sum() == pytest.approx(expected, rel=TOLERANCE, abs=1e-8)


@pytest.mark.live
def test_swiglu_against_transformers():
    """Forward and backward of LlamaMLP, in float64. Worst seen 2e-16 of the largest number."""
    torch = pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(hidden_size=24, intermediate_size=40, num_attention_heads=2)
    theirs = llama.LlamaMLP(config).double()
    tree = {
        name: {"weight": layer.weight.detach().numpy().T}
        for name, layer in theirs.named_children()
        if name.endswith("_proj")
    }
    given = arrays(19, x=(2, 5, 24), dy=(2, 5, 24))
    x, kept = torch.tensor(given["x"], requires_grad=True), Trace()
    y = theirs(x)
    y.backward(torch.tensor(given["dy"]))
    assert relative(swiglu(given["x"], **tree, step=kept), y.detach().numpy()) < 1e-10
    dx, gradients = swiglu_backward(given["dy"], given["x"], kept, **tree)
    assert relative(dx, x.grad.numpy()) < 1e-10
    for name, gradient in flat(gradients).items():
        expected = theirs.get_parameter(name).grad.numpy().T
        assert relative(gradient, expected) < 1e-10, name
