"""With which functions a twin computes gradients: its own, where it has none the textbook's."""

from __future__ import annotations

from .. import ops_backward
from .twin import abilities


def backward_of(name: str, ops):
    """Return the backward of the operation `name`: the twin's own where it has one, else that of
    ops_backward."""
    return abilities(ops).backward(name) or getattr(ops_backward, f"{name}_backward")


def linear_layer_backward(dy, x, layer, ops, onto=None):
    """Forward was y = ops.linear(x, **layer): dx, and a gradient for each array of the layer, which
    may have no bias.

    onto: the dx of another map of the same x, to which this one is added; a twin may do that in
    place."""
    if (own := abilities(ops).backward("linear_layer")) is not None:
        return own(dy, x, layer, onto)
    dx, gradients = backward_of("linear", ops)(dy, x, layer["weight"])
    dx = dx if onto is None else onto + dx
    return dx, {name: d for name, d in gradients.items() if name != "bias" or name in layer}
