"""The gradient of every operation, written out by hand, against central differences in float64."""

import numpy as np
import pytest

from minillm import ops, ops_backward
from tests.central import arrays, check, relative


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 4, 3)], ids=str)
def test_linear(shape):
    a = arrays(1, x=shape, weight=(3, 5), bias=(5,))

    def gradients(dy, y):
        dx, rest = ops_backward.linear_backward(dy, a["x"], a["weight"])
        return {"x": dx, **rest}

    check(ops.linear, gradients, a)


def test_unembed():
    a = arrays(2, x=(2, 3, 4), table=(7, 4))
    check(
        lambda x, table: ops.linear(x, table.T),
        lambda dy, y: dict(zip(a, ops_backward.unembed_backward(dy, **a))),
        a,
    )


@pytest.mark.parametrize("shape", [(4,), (5, 1), (2, 3, 6)], ids=str)
def test_layer_norm(shape):
    a = arrays(3, x=shape, weight=shape[-1:], bias=shape[-1:])
    a["x"] *= 0.01  # so small that eps counts

    def gradients(dy, y):
        dx, rest = ops_backward.layer_norm_backward(dy, a["x"], a["weight"], eps=1e-3)
        return {"x": dx, **rest}

    check(lambda **a: ops.layer_norm(**a, eps=1e-3), gradients, a)


@pytest.mark.parametrize("shape", [(4,), (5, 1), (2, 3, 6)], ids=str)
def test_rms_norm(shape):
    a = arrays(3, x=shape, weight=shape[-1:])
    a["x"] *= 0.3  # so small that eps counts

    def gradients(dy, y):
        dx, rest = ops_backward.rms_norm_backward(dy, a["x"], a["weight"], eps=0.1)
        return {"x": dx, **rest}

    check(lambda **a: ops.rms_norm(**a, eps=0.1), gradients, a)


def test_softmax():
    a = arrays(4, x=(2, 3, 5))
    check(ops.softmax, lambda dy, y: {"x": ops_backward.softmax_backward(dy, y)}, a)


def test_softmax_behind_a_mask():
    a = arrays(4, x=(3, 3))
    mask = np.tri(3, dtype=bool)

    def masked(x):
        return ops.softmax(np.where(mask, x, -np.inf))

    check(masked, lambda dy, y: {"x": ops_backward.softmax_backward(dy, y)}, a)
    assert (ops_backward.softmax_backward(np.ones((3, 3)), masked(**a))[~mask] == 0).all()


@pytest.mark.parametrize("name", ["gelu_new", "gelu", "relu", "silu"])
def test_activations(name):
    a = {"x": np.random.default_rng(5).standard_normal((3, 20)) * 3}
    check(
        getattr(ops, name),
        lambda dy, y: {"x": getattr(ops_backward, f"{name}_backward")(dy, a["x"])},
        a,
    )


@pytest.mark.parametrize("x", [-100.0, -20.0, 0.0, 20.0, 100.0])
def test_activations_far_out(x):
    """Slopes of 0 and 1, and no NaN."""
    for name, least in (("gelu_new", 1e-15), ("gelu", 1e-15), ("silu", 5e-8)):  # 20 exp(-20)
        slope = getattr(ops_backward, f"{name}_backward")(np.ones(1), np.array([x]))
        assert slope == pytest.approx(0.5 if x == 0 else float(x > 0), abs=least)


def test_silu_where_exp_overflows():
    x = np.array([-1e4, 1e4], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        assert ops.silu(x).tolist() == [0, 1e4]
        assert ops_backward.silu_backward(np.ones_like(x), x).tolist() == [0, 1]


def test_cross_entropy():
    a, targets = arrays(6, logits=(2, 3, 5)), np.array([[0, 4, 2], [1, 1, 3]])
    check(
        lambda logits: ops.cross_entropy(logits, targets),
        lambda dy, y: {"logits": ops_backward.cross_entropy_backward(dy, a["logits"], targets)},
        a,
    )


def test_cross_entropy_of_huge_logits_and_of_padding():
    """exp must not overflow, and a loss that counts nothing gives exactly nothing."""
    d = ops_backward.cross_entropy_backward(
        np.array([1.0, 0.0]), np.array([[1e4, 0.0], [3.0, 4.0]]), np.array([1, 0])
    )
    assert d.tolist() == [[1, -1], [0, 0]]


def test_embedding_adds_up_where_an_id_comes_twice():
    a, ids = arrays(7, table=(4, 3)), np.array([[0, 2, 2], [3, 2, 0]])
    check(
        lambda table: table[ids],
        lambda dy, y: {"table": ops_backward.embedding_backward(dy, ids, np.zeros((4, 3)))},
        a,
    )
    so_far = np.full((4, 3), 2.0)
    assert ops_backward.embedding_backward(np.ones((2, 3, 3)), ids, so_far) is so_far
    assert so_far[:, 0].tolist() == [4, 2, 5, 3]


@pytest.mark.parametrize("op", ["rms_norm", "silu"])
@pytest.mark.live
def test_against_autograd(op):
    """In float64, forward and backward; worst seen 2e-16 of the largest number."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    a = arrays(8, x=(4, 5, 33)) | (arrays(9, weight=(33,)) if op == "rms_norm" else {})
    dy = arrays(10, dy=(4, 5, 33))["dy"]
    theirs = {name: torch.tensor(array, requires_grad=True) for name, array in a.items()}
    if op == "rms_norm":
        y = functional.rms_norm(theirs["x"], (33,), theirs["weight"], eps=1e-5)
        dx, rest = ops_backward.rms_norm_backward(dy, **a, eps=1e-5)
        assert relative(ops.rms_norm(**a, eps=1e-5), y.detach().numpy()) < 1e-10
    else:
        y = functional.silu(theirs["x"])
        dx, rest = ops_backward.silu_backward(dy, a["x"]), {}
        assert relative(ops.silu(a["x"]), y.detach().numpy()) < 1e-10
    y.backward(torch.tensor(dy))
    for name, gradient in {"x": dx, **rest}.items():
        assert relative(gradient, theirs[name].grad.numpy()) < 1e-10, name


@pytest.mark.live
def test_rms_norm_rounds_as_transformers():
    """In float32: the same but for the order in which a row's squares are added up. 90 % of the
    numbers are equal; worst seen 2.8e-7 of a number, two units in its last place."""
    torch = pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    x, weight = (a.astype(np.float32) for a in arrays(11, x=(4, 5, 576), weight=(576,)).values())
    norm = llama.LlamaRMSNorm(576, eps=1e-5)
    norm.weight.data = torch.tensor(weight)
    with torch.no_grad():
        expected = norm(torch.tensor(x)).numpy()
    np.testing.assert_allclose(ops.rms_norm(x, weight, 1e-5), expected, rtol=6e-7)
