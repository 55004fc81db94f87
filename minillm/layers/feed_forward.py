"""The feed forward (GPT-2's `mlp`): two linear maps with a bend between them, on each position by
itself."""

from __future__ import annotations

from .. import ops as numpy_ops
from ..steps import identity
from ..twins.twin import activation_of


def feed_forward(x, c_fc, c_proj, *, activation="gelu_new", step=identity, ops=numpy_ops):
    """Expand, bend, contract: act(x W_fc + b_fc) W_proj + b_proj.

    x: [B,T,C]; c_fc: weight [C,F] and bias; c_proj: weight [F,C] and bias -> [B,T,C].
    """
    expanded = step("c_fc", ops.linear(x, **c_fc))  # [B,T,C] -> [B,T,F]
    bent = step("act", activation_of(ops, activation)(expanded))
    return step("out", ops.linear(bent, **c_proj))  # [B,T,F] -> [B,T,C]
