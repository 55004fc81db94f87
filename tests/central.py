"""Central differences: the gradient as a limit, which knows nothing of the chain rule."""

from __future__ import annotations

import numpy as np

from minillm import GPT2, GPT2Config
from minillm.names import flat
from minillm.steps import Trace

H = 1e-5  # the error is of order H^2 = 1e-10, and 1e-16 / H = 1e-11 from rounding


def central_differences(loss, x, h=H):
    """Return d loss() / d x, one number after another: (loss(x + h) - loss(x - h)) / 2h. x,
    float64, is as it was then."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        was, around = x[index], []
        for side in (h, -h):
            x[index] = was + side
            around.append(loss())
        x[index] = was
        gradient[index] = (around[0] - around[1]) / (2 * h)
    return gradient


# Of float32: BLAS may sum a matrix that lies the other way round in memory in another order, as
# OpenBLAS does with AVX-512 (worst seen 6e-7).
REORDERED = 1e-5


def relative(ours, theirs) -> float:
    """The largest difference over the largest number of the reference (or 1e-6, where all of it is
    0)."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max(initial=0) / max(np.abs(theirs).max(initial=0), 1e-6))


SMALLEST = {"vocab_size": 7, "n_positions": 6, "n_embd": 4, "n_head": 2, "n_layer": 2}


def small_model(seed=0, dtype=np.float64, ops=None, **changes) -> GPT2:
    """A model with weights so large that attention is sharp and GELU bent: as it starts it is
    nearly linear."""
    model, rng = GPT2.random(GPT2Config(**SMALLEST | changes), seed), np.random.default_rng(seed)
    parameters = {
        n: (p + 0.5 * rng.standard_normal(p.shape).astype(p.dtype)).astype(dtype)
        for n, p in model.parameters.items()
    }
    return GPT2(model.config, parameters, ops or model.ops)


def batch_of(config, rows=3, T=5, seed=0, padding=()):
    """Random ids and targets [rows,T]; padding: how many targets at the end of each of the first
    rows are ignored."""
    ids, targets = np.random.default_rng(seed).integers(0, config.vocab_size, (2, rows, T))
    for row, n in enumerate(padding):
        targets[row, T - n :] = -100
    return ids, targets


# ---- functions and layers against their differences

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


def layers(names, seed, bias=True):
    """Parameters as the model has them, {"c_attn": {"weight": ..., "bias": ...}}, and all of them
    by one name; names: {name: shape}, without biases where `bias` is False."""
    tree = {
        name: arrays(seed + i, weight=shape, **({"bias": shape[-1:]} if bias else {}))
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
