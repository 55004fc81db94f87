"""Weights in blocks: 32 neighbouring inputs share a float16 scale, as in the formats Q8_0, Q4_0 and
Q4_1 of ggml.

The numbers of a block are the format's own; only their order in memory is that of panels
(weight.py): 4 bytes of each of 16 rows side by side, which is one VNNI instruction's fill. Scales
are kept as int16, float16's bits, for Numba.
"""

from __future__ import annotations

import numpy as np

from .weight import LANES, Weight

BLOCK = 32
HALF_MAX = 65504.0


def halves(x):
    """float32 -> float16's bits as int16, at most 65504 either way."""
    return np.clip(x, -HALF_MAX, HALF_MAX).astype(np.float16).view(np.int16)


def floats(x):
    """float16's bits -> float32."""
    return x.view(np.float16).astype(np.float32)


def divided(x, scale):
    """x / scale, 0 where the scale is 0 (a block of zeros)."""
    return np.divide(x, scale, out=np.zeros_like(x), where=scale != 0)


def in_panels(x):
    """[16P, B, n] -> [P, B, n/4, 16, 4], or scales [16P, B] -> [P, B, 16]."""
    if x.ndim == 2:
        return x.reshape(-1, LANES, x.shape[1]).swapaxes(1, 2)
    return x.reshape(-1, LANES, x.shape[1], x.shape[2] // 4, 4).transpose(0, 2, 3, 1, 4)


class Int8(Weight):
    """8 bits a weight and a scale for 32 (Q8_0): w = (q - 128) d, 1.0625 bytes a weight.

    {"values": uint8 [P, B, 8, 16, 4], "scales": [P, B, 16]} for B blocks. Q8_0 keeps q - 128 as a
    signed number; unsigned is what vpdpbusd takes for its first factor.
    """

    kind, block = "int8", BLOCK

    @classmethod
    def layout(cls, k):
        return {
            "values": ((k // BLOCK, 8, LANES, 4), np.uint8),
            "scales": ((k // BLOCK, LANES), np.int16),
        }

    @classmethod
    def encode(cls, rows):
        x = rows.reshape(len(rows), -1, BLOCK)  # [16P, B, 32]
        scales = halves(np.abs(x).max(axis=-1) / 127.0)
        q = np.clip(np.rint(divided(x, floats(scales)[..., None])), -127, 127) + 128
        return {"values": in_panels(q.astype(np.uint8)), "scales": in_panels(scales)}

    def decode(self, panel, lane):
        q = self.stored["values"][panel, :, :, lane].astype(np.float32) - 128  # [..., B, 8, 4]
        d = floats(self.stored["scales"][panel, :, lane])  # [..., B]
        return (q.reshape(*d.shape, BLOCK) * d[..., None]).reshape(*d.shape[:-1], -1)


class Int4(Weight):
    """4 bits a weight and a scale for 32 (Q4_0): w = (q - 8) d, 0.5625 bytes a weight.

    {"values": uint8 [P, B, 4, 16, 4], "scales": [P, B, 16]}; a byte holds inputs i (low half) and i
    + 16 (high half). d = the number of largest size / -8, so that this one number, whatever its
    sign, meets a step of the grid -8..7.
    """

    kind, block = "int4", BLOCK

    @classmethod
    def layout(cls, k):
        return {
            "values": ((k // BLOCK, 4, LANES, 4), np.uint8),
            "scales": ((k // BLOCK, LANES), np.int16),
        }

    @classmethod
    def grid(cls, x):
        """x [16P, B, 32] -> {scales and so on [16P, B]}, steps: x in units of the grid, to be
        rounded to 0..15."""
        low, high = x.min(axis=-1), x.max(axis=-1)
        scales = halves(np.where(-low > high, low, high) / -8.0)
        return {"scales": scales}, divided(x, floats(scales)[..., None]) + 8

    @classmethod
    def encode(cls, rows):
        scales, steps = cls.grid(rows.reshape(len(rows), -1, BLOCK))
        q = np.clip(np.floor(steps + 0.5), 0, 15).astype(np.uint8)
        values = in_panels(q[..., :16] | q[..., 16:] << 4)
        return {"values": values, **{name: in_panels(s) for name, s in scales.items()}}

    def steps(self, panel, lane):
        """The stored 0..15 as float32 [..., B, 32]."""
        q = self.stored["values"][panel, :, :, lane]  # [..., B, 4, 4]
        q = q.reshape(*q.shape[:-2], 16)
        return np.concatenate([q & 15, q >> 4], axis=-1).astype(np.float32)

    def decode(self, panel, lane):
        d = floats(self.stored["scales"][panel, :, lane])  # [..., B]
        return ((self.steps(panel, lane) - 8) * d[..., None]).reshape(*d.shape[:-1], -1)


class Int4Min(Int4):
    """4 bits a weight, a scale and a minimum for 32 (Q4_1): w = q d + m, 0.625 bytes a weight."""

    kind = "int4_min"

    @classmethod
    def layout(cls, k):
        return {**super().layout(k), "minima": ((k // BLOCK, LANES), np.int16)}

    @classmethod
    def grid(cls, x):
        low = halves(x.min(axis=-1))
        scales = halves((x.max(axis=-1) - x.min(axis=-1)) / 15.0)
        return {"scales": scales, "minima": low}, divided(
            x - floats(low)[..., None], floats(scales)[..., None]
        )

    def decode(self, panel, lane):
        d, m = (
            floats(self.stored[name][panel, :, lane])[..., None] for name in ("scales", "minima")
        )  # [..., B, 1]
        return (self.steps(panel, lane) * d + m).reshape(*d.shape[:-2], -1)
