"""The gradient of a block and of the whole model against central differences in float64."""

import numpy as np
import pytest

from minillm import GPT2, ops_backward
from minillm.families.gpt2 import step_names
from minillm.families.gpt2.backward import block_backward, gpt2_backward
from minillm.families.gpt2.config import ACTIVATIONS
from minillm.families.gpt2.forward import block
from minillm.names import flat
from minillm.steps import Patch, Trace
from minillm.training.language import LanguageModel, trainable
from tests.central import (
    TOLERANCE,
    batch_of,
    central_differences,
    check_layer,
    relative,
    small_model,
)


def test_block():
    model = small_model(scale_attn_by_inverse_layer_idx=True)
    tree = model.weights["h"][1]
    x = np.random.default_rng(14).standard_normal((2, 3, 4))
    run = {"config": model.config, "layer": 1, "positions": np.arange(3)[None].repeat(2, 0)}
    check_layer(
        lambda x, step, **tree: block(x, **tree, **run, step=step),
        lambda dy, kept: block_backward(dy, x, kept, **tree, **run),
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


@pytest.mark.parametrize("case", WHOLE)
def test_the_whole_model(case):
    """Every number of every parameter, from what was kept and from what is formed again; worst seen
    1.2e-9."""
    changes = dict(WHOLE[case])
    padding = changes.pop("padding", ())
    model = small_model(**changes)
    objective, batch = LanguageModel(model), batch_of(model.config, padding=padding)
    n = (batch[1] != -100).sum()
    loss, gradients = objective.loss_and_gradients(batch)
    loss_again, formed_again = LanguageModel(model, recompute=True).loss_and_gradients(batch)
    assert loss == loss_again == pytest.approx(objective.losses(batch).sum() / n, abs=1e-14)
    assert list(gradients) == list(formed_again) == list(model.parameters)
    for name, parameter in objective.parameters.items():
        expected = central_differences(lambda: objective.losses(batch).sum() / n, parameter)
        assert relative(gradients[name], expected) < TOLERANCE, name
        assert relative(formed_again[name], expected) < TOLERANCE, name


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
        name: getattr(ops_backward, name)
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
            patched.setattr(ops_backward, name, slip)
            test_the_whole_model("tied")


def test_float32_stays_float32():
    model = GPT2.random(small_model().config)
    batch = batch_of(model.config)
    for recompute in (False, True):
        _, gradients = LanguageModel(model, recompute).loss_and_gradients(batch)
        assert {g.dtype for g in gradients.values()} == {np.dtype(np.float32)}
