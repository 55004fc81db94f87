"""The feed forward (a checkpoint's `mlp`): what happens on each position by itself.

Two linear maps with an activation between them; the forward has its backward under it.
"""

from __future__ import annotations

from .. import ops as numpy_ops
from ..steps import identity
from ..twins.backward import backward_of, linear_layer_backward


def feed_forward(x, c_fc, c_proj, *, activation="gelu_new", step=identity, ops=numpy_ops):
    """Expand, activate, contract: act(x W_fc + b_fc) W_proj + b_proj.

    x: [B,T,C]; c_fc: weight [C,F] and bias; c_proj: weight [F,C] and bias -> [B,T,C].
    """
    expanded = step("c_fc", ops.linear(x, **c_fc))  # [B,T,C] -> [B,T,F]
    activated = step("act", getattr(ops, activation)(expanded))
    return step("out", ops.linear(activated, **c_proj))  # [B,T,F] -> [B,T,C]


def feed_forward_backward(
    d_out, x, kept, c_fc, c_proj, *, activation="gelu_new", step=identity, ops=numpy_ops
):
    """Walk back from the output to x and the parameters.

    d_out, x: [B,T,C]; kept: what the forward formed -> dx [B,T,C], {"c_fc": gradients, "c_proj":
    gradients}.
    """
    # forward was out = linear(act, **c_proj)
    d_act, d_proj = linear_layer_backward(d_out, kept["act"], c_proj, ops)
    # forward was act = activation(c_fc)
    d_expanded = step("c_fc", backward_of(activation, ops)(step("act", d_act), kept["c_fc"]))
    # forward was c_fc = linear(x, **c_fc)
    dx, d_fc = linear_layer_backward(d_expanded, x, c_fc, ops)
    return dx, {"c_fc": d_fc, "c_proj": d_proj}
