"""The LSTM's way through time in one kernel: rows are shared out, steps cannot be. Twins of loops
in lstm.py, float32."""

from __future__ import annotations

import numpy as np

from .blocked import add_matmul, pack_blocks, up
from .checks import require
from .compile import helper, jit
from .mathematics import exp
from .threads import in_parallel


@helper
def sigmoid(x, y):
    one = np.float32(1)
    for n in range(x.shape[0]):
        y[n] = one / (one + exp(-x[n]))


@helper
def tanh(x, y):
    one, two = np.float32(1), np.float32(2)
    for n in range(x.shape[0]):
        y[n] = two / (one + exp(-two * x[n])) - one


@jit(makes_arrays=True)
def _lstm(x, panels, gates, c, h, sums):
    """x, gates: [B,T,4C]; c, h: [B,T,C]; sums: [B, 4C rounded up to 16]; panels: of the weight."""
    (B, T, C), bent, state = (
        c.shape,
        np.empty(c.shape[2], c.dtype),
        np.zeros((c.shape[0], c.shape[2]), c.dtype),
    )
    memory = np.zeros_like(state)
    for t in range(T):
        for b in range(B):
            sums[b, : 4 * C] = x[b, t]
        add_matmul(panels, state, sums, 0, sums[0], False)
        for b in range(B):
            bends = gates[b, t]
            sigmoid(sums[b, : 2 * C], bends[: 2 * C])
            tanh(sums[b, 2 * C : 3 * C], bends[2 * C : 3 * C])
            sigmoid(sums[b, 3 * C : 4 * C], bends[3 * C :])
            for n in range(C):
                memory[b, n] = bends[C + n] * memory[b, n] + bends[n] * bends[2 * C + n]
            tanh(memory[b], bent)
            for n in range(C):
                state[b, n] = bends[3 * C + n] * bent[n]
            c[b, t], h[b, t] = memory[b], state[b]


@jit(makes_arrays=True)
def _lstm_backward(dh, gates, c, panels, d_gates, room):
    """dh, c: [B,T,C]; gates, d_gates: [B,T,4C]; room: [B, C rounded up to 16], zeros; panels: of
    the weight's transpose."""
    (B, T, C), bent, one = c.shape, np.empty(c.shape[2], c.dtype), np.float32(1)
    sums, dc, nothing = (
        np.empty((B, 4 * C), c.dtype),
        np.zeros((B, C), c.dtype),
        np.zeros(C, c.dtype),
    )
    for t in range(T - 1, -1, -1):
        for b in range(B):
            i, f, g, o = (
                gates[b, t, :C],
                gates[b, t, C : 2 * C],
                gates[b, t, 2 * C : 3 * C],
                gates[b, t, 3 * C :],
            )
            before, d, later, out = c[b, t - 1] if t else nothing, dc[b], room[b], sums[b]
            tanh(c[b, t], bent)
            for n in range(C):
                d_h = dh[b, t, n] + later[n]
                d_c = d[n] + d_h * o[n] * (one - bent[n] * bent[n])
                out[n] = d_c * g[n] * i[n] * (one - i[n])
                out[C + n] = d_c * before[n] * f[n] * (one - f[n])
                out[2 * C + n] = d_c * i[n] * (one - g[n] * g[n])
                out[3 * C + n] = d_h * bent[n] * o[n] * (one - o[n])
                d[n] = d_c * f[n]
            d_gates[b, t] = out
        room[:] = 0
        add_matmul(panels, sums, room, 0, room[0], False)


def packed(weight, transposed: bool) -> np.ndarray:
    """The panels of a weight [K,N], or of its transpose."""
    K, N = weight.shape[::-1] if transposed else weight.shape
    panels = np.zeros((1, up(N) // 16, 16 * K), np.float32)
    pack_blocks(weight, transposed, panels, 1, 0, up(N) // 16)
    return panels[0]


def lstm(x, weight):
    """Run an LSTM over time. x: [B,T,4C], what the input adds to the gates; weight: [C,4C], float32
    -> the gates i | f | g | o [B,T,4C], c and h, each [B,T,C]."""
    B, T, C = *np.shape(x)[:2], len(weight)
    require(weight=(weight, (C, 4 * C), np.float32), x=(x, (B, T, 4 * C), np.float32))
    x, panels = np.ascontiguousarray(x), packed(np.ascontiguousarray(weight), False)
    gates, c, h = (np.empty((B, T, width), np.float32) for width in (4 * C, C, C))

    def work(part):
        rows = (x[part], panels, gates[part], c[part], h[part])
        _lstm(*rows, np.zeros((part.stop - part.start, up(4 * C)), np.float32))

    in_parallel(
        work, B, unit=8, cost=B * T * C * 4 * C
    )  # eight rows fill the registers of a product
    return gates, c, h


def lstm_backward(dh, gates, c, weight):
    """Of `lstm`: dh [B,T,C] -> the gradient of x, [B,T,4C]."""
    B, T, C = c.shape
    require(weight=(weight, (C, 4 * C), np.float32), gates=(gates, (B, T, 4 * C), np.float32))
    require(dh=(dh, (B, T, C), np.float32), c=(c, (B, T, C), np.float32))
    dh, gates, c, weight = (np.ascontiguousarray(a) for a in (dh, gates, c, weight))
    d_gates, panels = np.empty_like(gates), packed(weight, True)

    def work(part):
        rows = (dh[part], gates[part], c[part], panels, d_gates[part])
        _lstm_backward(*rows, np.zeros((part.stop - part.start, up(C)), np.float32))

    in_parallel(work, B, unit=8, cost=gates.size * C)
    return d_gates
