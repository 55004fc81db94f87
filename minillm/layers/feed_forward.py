"""The feed forward (a checkpoint's `mlp`): what happens on each position by itself.

GPT-2's is two linear maps with an activation between them, Llama's a third that gates. Each forward
has its backward under it.
"""

from __future__ import annotations

import math

from .. import ops as numpy_ops
from ..steps import identity
from ..twins.backward import backward_of, linear_layer_backward
from ..twins.twin import abilities, activation_of


def feed_forward(x, c_fc, c_proj, *, activation="gelu_new", step=identity, ops=numpy_ops):
    """Expand, activate, contract: act(x W_fc + b_fc) W_proj + b_proj.

    x: [B,T,C]; c_fc: weight [C,F] and bias; c_proj: weight [F,C] and bias -> [B,T,C].
    """
    expanded = step("c_fc", ops.linear(x, **c_fc))  # [B,T,C] -> [B,T,F]
    activated = step("act", activation_of(ops, activation)(expanded))
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


def gated_width(C: int) -> int:
    """F of a gated feed forward whose three matrices hold about what two of 4C do: 8/3 C, in whole
    32s."""
    return math.ceil(8 * C / 3 / 32) * 32


def gated(gate, up, ops=numpy_ops):
    """silu(gate) * up. Both [B,T,F] -> [B,T,F]."""
    own = abilities(ops).gated  # the same in one
    return own(gate, up) if own else ops.silu(gate) * up


def gated_backward(dy, gate, up, ops=numpy_ops):
    """Forward was y = silu(gate) * up. All [B,T,F] -> d_gate, d_up."""
    if (own := abilities(ops).backward("gated")) is not None:
        return own(dy, gate, up)
    return backward_of("silu", ops)(dy * up, gate), dy * ops.silu(gate)


def swiglu(x, gate_proj, up_proj, down_proj, *, step=identity, ops=numpy_ops):
    """Expand twice, let one gate the other, contract: (silu(x W_gate) * (x W_up)) W_down.

    x: [B,T,C]; gate_proj, up_proj: weight [C,F]; down_proj: weight [F,C]; each may have a bias ->
    [B,T,C]. Source: Shazeer, "GLU Variants Improve Transformer" (2020). Reference: LlamaMLP of
    Hugging Face transformers.
    """
    gate = step("gate", ops.linear(x, **gate_proj))  # [B,T,C] -> [B,T,F]
    up = step("up", ops.linear(x, **up_proj))  # [B,T,C] -> [B,T,F]
    act = step("act", gated(gate, up, ops))
    return step("out", ops.linear(act, **down_proj))  # [B,T,F] -> [B,T,C]


def swiglu_backward(d_out, x, kept, gate_proj, up_proj, down_proj, *, step=identity, ops=numpy_ops):
    """Walk back from the output to x, which went into two maps, and the parameters.

    d_out, x: [B,T,C]; kept: what the forward formed -> dx [B,T,C], {"gate_proj": gradients,
    "up_proj": gradients, "down_proj": gradients}.
    """
    # forward was out = linear(act, **down_proj)
    d_act, d_down = linear_layer_backward(d_out, kept["act"], down_proj, ops)
    # forward was act = gated(gate, up)
    d_gate, d_up = gated_backward(step("act", d_act), kept["gate"], kept["up"], ops)
    d_gate, d_up = step("gate", d_gate), step("up", d_up)
    # forward was gate = linear(x, **gate_proj), up = linear(x, **up_proj)
    dx, d_up_proj = linear_layer_backward(d_up, x, up_proj, ops)
    dx, d_gate_proj = linear_layer_backward(d_gate, x, gate_proj, ops, dx)
    return dx, {
        "gate_proj": d_gate_proj,
        "up_proj": d_up_proj,
        "down_proj": d_down,
    }
