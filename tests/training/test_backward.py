"""Every gradient written out by hand against central differences in float64."""

import numpy as np
import pytest

from minillm import GPT2, ops
from minillm.families.gpt2 import step_names
from minillm.families.gpt2.config import ACTIVATIONS
from minillm.families.gpt2.forward import block
from minillm.layers import attention
from minillm.layers.feed_forward import feed_forward
from minillm.steps import Patch, Trace
from minillm.training import backward
from minillm.training.backward import flat, gpt2_backward
from minillm.training.language import LanguageModel, trainable

from .central import batch_of, central_differences, relative, small_model

# Relative to the largest number of a gradient. Central differences are exact to about 1e-10; worst
# seen 1.7e-9.
TOLERANCE = 1e-8


def arrays(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def check(forward, backward_gives, given):
    """forward(**given) -> y; backward_gives(dy, y) -> {name: gradient}: compare each with central
    differences."""
    y = forward(**given)
    dy = np.random.default_rng(9).standard_normal(y.shape)
    for name, gradient in backward_gives(dy, y).items():
        expected = central_differences(lambda: (forward(**given) * dy).sum(), given[name])
        assert relative(gradient, expected) < TOLERANCE, name


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 4, 3)], ids=str)
def test_linear(shape):
    a = arrays(1, x=shape, weight=(3, 5), bias=(5,))

    def gradients(dy, y):
        dx, rest = backward.linear_backward(dy, a["x"], a["weight"])
        return {"x": dx, **rest}

    check(ops.linear, gradients, a)


def test_unembed():
    a = arrays(2, x=(2, 3, 4), table=(7, 4))
    check(
        lambda x, table: ops.linear(x, table.T),
        lambda dy, y: dict(zip(a, backward.unembed_backward(dy, **a))),
        a,
    )


@pytest.mark.parametrize("shape", [(4,), (5, 1), (2, 3, 6)], ids=str)
def test_layer_norm(shape):
    a = arrays(3, x=shape, weight=shape[-1:], bias=shape[-1:])
    a["x"] *= 0.01  # so small that eps counts

    def gradients(dy, y):
        dx, rest = backward.layer_norm_backward(dy, a["x"], a["weight"], eps=1e-3)
        return {"x": dx, **rest}

    check(lambda **a: ops.layer_norm(**a, eps=1e-3), gradients, a)


def test_softmax():
    a = arrays(4, x=(2, 3, 5))
    check(ops.softmax, lambda dy, y: {"x": backward.softmax_backward(dy, y)}, a)


def test_softmax_behind_a_mask():
    a = arrays(4, x=(3, 3))
    mask = np.tri(3, dtype=bool)

    def masked(x):
        return ops.softmax(np.where(mask, x, -np.inf))

    check(masked, lambda dy, y: {"x": backward.softmax_backward(dy, y)}, a)
    assert (backward.softmax_backward(np.ones((3, 3)), masked(**a))[~mask] == 0).all()


@pytest.mark.parametrize("name", ["gelu_new", "gelu", "relu"])
def test_activations(name):
    a = {"x": np.random.default_rng(5).standard_normal((3, 20)) * 3}
    check(
        getattr(ops, name),
        lambda dy, y: {"x": getattr(backward, f"{name}_backward")(dy, a["x"])},
        a,
    )


@pytest.mark.parametrize("x", [-100.0, -20.0, 0.0, 20.0, 100.0])
def test_activations_far_out(x):
    """Slopes of 0 and 1, and no NaN."""
    for name in ("gelu_new", "gelu"):
        slope = getattr(backward, f"{name}_backward")(np.ones(1), np.array([x]))
        assert slope == pytest.approx(0.5 if x == 0 else float(x > 0), abs=1e-15)


def test_cross_entropy():
    a, targets = arrays(6, logits=(2, 3, 5)), np.array([[0, 4, 2], [1, 1, 3]])
    check(
        lambda logits: ops.cross_entropy(logits, targets),
        lambda dy, y: {"logits": backward.cross_entropy_backward(dy, a["logits"], targets)},
        a,
    )


def test_cross_entropy_of_huge_logits_and_of_padding():
    """exp must not overflow, and a loss that counts nothing gives exactly nothing."""
    d = backward.cross_entropy_backward(
        np.array([1.0, 0.0]), np.array([[1e4, 0.0], [3.0, 4.0]]), np.array([1, 0])
    )
    assert d.tolist() == [[1, -1], [0, 0]]


def test_embedding_adds_up_where_an_id_comes_twice():
    a, ids = arrays(7, table=(4, 3)), np.array([[0, 2, 2], [3, 2, 0]])
    check(
        lambda table: table[ids],
        lambda dy, y: {"table": backward.embedding_backward(dy, ids, np.zeros((4, 3)))},
        a,
    )
    so_far = np.full((4, 3), 2.0)
    assert backward.embedding_backward(np.ones((2, 3, 3)), ids, so_far) is so_far
    assert so_far[:, 0].tolist() == [4, 2, 5, 3]


POSITIONS = {
    "in order": np.arange(4)[None].repeat(2, 0),
    "ragged": np.array([[0, 1, 2, 3], [2, 3, 3, 0]]),
}


@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
def test_scaled_dot_product_attention(positions):
    a = arrays(8, q=(2, 3, 4, 5), k=(2, 3, 4, 5), v=(2, 3, 4, 5))

    def gradients(dy, y):
        attention.scaled_dot_product_attention(
            **a, positions=positions, scale=0.7, step=(kept := Trace(a))
        )
        return dict(
            zip("qkv", backward.scaled_dot_product_attention_backward(dy, kept, positions, 0.7))
        )

    check(
        lambda q, k, v: attention.scaled_dot_product_attention(q, k, v, positions, 0.7),
        gradients,
        a,
    )


def layers(names, seed):
    """Parameters as the model has them, {"c_attn": {"weight": ..., "bias": ...}}, and all of them
    by one name."""
    tree = {
        name: arrays(seed + i, weight=shape, bias=shape[-1:])
        for i, (name, shape) in enumerate(names.items())
    }
    return tree, flat(tree)


def check_layer(forward, backward_gives, tree, by_name, x):
    """As check, for functions that take parameters in dictionaries; forward(x, step, **tree)."""
    kept = Trace()
    dy = np.random.default_rng(9).standard_normal(forward(x, kept, **tree).shape)
    dx, gradients = backward_gives(dy, kept)
    gradients = {"x": dx} | flat(gradients)
    assert set(gradients) == {"x", *by_name}
    for name, array in {"x": x, **by_name}.items():
        expected = central_differences(lambda: (forward(x, ignore, **tree) * dy).sum(), array)
        assert relative(gradients[name], expected) < TOLERANCE, name


def ignore(name, value):
    return value


POSITION = np.arange(3)[None].repeat(2, 0)


def test_causal_self_attention():
    tree, by_name = layers({"c_attn": (4, 12), "c_proj": (4, 4)}, 10)
    x = np.random.default_rng(11).standard_normal((2, 3, 4))
    how = {"n_head": 2, "scale": 0.6, "positions": POSITION}
    check_layer(
        lambda x, step, **tree: attention.causal_self_attention(x, **tree, **how, step=step),
        lambda dy, kept: backward.causal_self_attention_backward(dy, x, kept, **tree, **how),
        tree,
        by_name,
        x,
    )


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
def test_feed_forward(activation):
    tree, by_name = layers({"c_fc": (4, 7), "c_proj": (7, 4)}, 12)
    x = np.random.default_rng(13).standard_normal((2, 3, 4))
    check_layer(
        lambda x, step, **tree: feed_forward(x, **tree, activation=activation, step=step),
        lambda dy, kept: backward.feed_forward_backward(dy, x, kept, **tree, activation=activation),
        tree,
        by_name,
        x,
    )


def test_block():
    model = small_model(scale_attn_by_inverse_layer_idx=True)
    tree = model.weights["h"][1]
    x = np.random.default_rng(14).standard_normal((2, 3, 4))
    run = {"config": model.config, "layer": 1, "positions": POSITION}
    check_layer(
        lambda x, step, **tree: block(x, **tree, **run, step=step),
        lambda dy, kept: backward.block_backward(dy, x, kept, **tree, **run),
        tree,
        flat(tree),
        x,
    )


# ---- the whole model

WHOLE = {
    "tied": {},
    "a head of its own": {"tie_word_embeddings": False},
    "padded": {"padding": (4, 0, 1)},
    "one row is all padding": {"padding": (5,)},
    "wider feed-forward": {"n_inner": 9},
    "attention scaled by layer": {"scale_attn_by_inverse_layer_idx": True},
    "without 1/sqrt(D)": {"scale_attn_weights": False},
    "narrow heads": {"head_size": 3},
    **{name: {"activation_function": name} for name in ACTIVATIONS},
}


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("case", WHOLE)
def test_the_whole_model(case, recompute):
    """Every number of every parameter; worst seen 1.2e-9."""
    changes = dict(WHOLE[case])
    padding = changes.pop("padding", ())
    model = small_model(**changes)
    objective, batch = LanguageModel(model, recompute), batch_of(model.config, padding=padding)
    n = (batch[1] != -100).sum()
    loss, gradients = objective.loss_and_gradients(batch)
    assert loss == pytest.approx(objective.losses(batch).sum() / n, abs=1e-14)
    assert list(gradients) == list(model.parameters)
    for name, parameter in objective.parameters.items():
        expected = central_differences(lambda: objective.losses(batch).sum() / n, parameter)
        assert relative(gradients[name], expected) < TOLERANCE, name


def test_recomputed_equals_kept_bit_for_bit():
    for dtype in (np.float32, np.float64):
        model = small_model(dtype=dtype)
        batch = batch_of(model.config)
        (loss, kept), (again, formed) = (
            LanguageModel(model, r).loss_and_gradients(batch) for r in (False, True)
        )
        assert loss == again
        for name in kept:
            np.testing.assert_array_equal(kept[name], formed[name], name)
            assert kept[name].dtype == dtype


def test_recomputing_keeps_only_what_enters_each_block():
    model = small_model(n_layer=3)
    kept = backward.Checkpoints()
    ids, _ = batch_of(model.config)
    model.forward(ids, np.broadcast_to(np.arange(5), ids.shape), step=kept)
    assert set(kept) == {
        "wte",
        "wpe",
        "embed",
        "h.0.mlp.residual",
        "h.1.mlp.residual",
        "h.2.mlp.residual",
        "ln_f",
        "logits",
    }


def test_gradients_pass_under_the_names_of_the_forward():
    """The gradient that `step` is given under a name is that of the loss by the intermediate of
    this name: along one direction for each, the intermediate replaced by a Patch. Worst seen 3e-10.
    """
    model, rng = small_model(), np.random.default_rng(3)
    (ids, _), kept, seen = batch_of(model.config), Trace(), Trace()
    positions = np.broadcast_to(np.arange(5), ids.shape)
    weights = rng.standard_normal(model.forward(ids, positions, step=kept).shape)
    gpt2_backward(model, ids, positions, kept, weights, step=seen)
    assert set(seen) == set(step_names(2)) - {"wte", "wpe"}
    for name, gradient in seen.items():
        direction = rng.standard_normal(kept[name].shape)
        loss = [
            (
                model.forward(ids, positions, step=Patch({name: kept[name] + h * direction}))
                * weights
            ).sum()
            for h in (1e-5, -1e-5)
        ]
        expected = (loss[0] - loss[1]) / 2e-5
        assert gradient.shape == direction.shape
        assert (gradient * direction).sum() == pytest.approx(expected, rel=TOLERANCE, abs=1e-7), (
            name
        )


def test_a_patched_gradient_goes_on_from_there():
    model = small_model()
    (ids, _), kept = batch_of(model.config), Trace()
    positions = np.broadcast_to(np.arange(5), ids.shape)
    logits = model.forward(ids, positions, step=kept)
    cut = Patch({"h.1.attn.out": np.zeros_like})
    gradients = gpt2_backward(model, ids, positions, kept, np.ones_like(logits), step=cut)
    assert (
        not gradients["h.1.attn.c_proj.weight"].any() and gradients["h.0.attn.c_proj.weight"].any()
    )


def test_somebody_elses_head_gives_the_gradient_of_the_last_hidden_state():
    (parameters, model), rng = trainable(small_model()), np.random.default_rng(5)
    (ids, _), kept = batch_of(model.config), Trace()
    positions = np.broadcast_to(np.arange(5), ids.shape)
    model.forward(ids, positions, step=kept)
    head = rng.standard_normal(kept["ln_f"].shape)
    gradients = gpt2_backward(model, ids, positions, kept, d_hidden=head)

    def loss():
        model.forward(ids, positions, step=(trace := Trace()))
        return (trace["ln_f"] * head).sum()

    for name in ("wte.weight", "h.0.attn.c_attn.weight", "ln_f.bias"):
        assert relative(gradients[name], central_differences(loss, parameters[name])) < TOLERANCE, (
            name
        )


def test_a_wrong_backward_is_found(monkeypatch):
    """The check can fail: the classic slips, each in the gradient of one operation."""
    right = {
        name: getattr(backward, name)
        for name in ("layer_norm_backward", "softmax_backward", "embedding_backward")
    }

    def first_only(dy, ids, table):  # no adding up
        table[ids] = dy
        return table

    def one_way(dy, x, w, eps):  # not through mean and variance
        return (
            dy * w / np.sqrt(x.var(axis=-1, keepdims=True) + eps),
            right["layer_norm_backward"](dy, x, w, eps)[1],
        )

    slips = {
        "layer_norm_backward": one_way,
        "softmax_backward": lambda dy, y: y * dy,
        "embedding_backward": first_only,
    }
    for name, slip in slips.items():
        with monkeypatch.context() as patched, pytest.raises(AssertionError):
            patched.setattr(backward, name, slip)
            test_the_whole_model("tied", False)


def test_float32_stays_float32():
    model = GPT2.random(small_model().config)
    batch = batch_of(model.config)
    for recompute in (False, True):
        _, gradients = LanguageModel(model, recompute).loss_and_gradients(batch)
        assert {g.dtype for g in gradients.values()} == {np.dtype(np.float32)}
