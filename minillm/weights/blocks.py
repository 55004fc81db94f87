"""Weights in blocks: 32 neighbouring inputs share a float16 scale, as in the formats Q8_0, Q4_0 and
Q4_1 of ggml.

The numbers of a block are the format's own; only their order in memory is that of panels
(weight.py): 4 bytes of each of 16 rows side by side, which is one VNNI instruction's fill. Scales
are kept as int16, float16's bits, for Numba.
"""

from __future__ import annotations

import numpy as np

from .weight import LANES, Weight, slab

BLOCK = 32
HALF_MAX = np.nextafter(np.float32(65520), np.float32(0))  # rounds to float16's largest, 65504


def bounded(x):
    """x, at most what float16 can hold either way; ggml has infinity there."""
    return np.clip(x, -HALF_MAX, HALF_MAX)


def halves(x):
    """float32 [..., 1] -> float16's bits as int16 [...]."""
    return bounded(x)[..., 0].astype(np.float16).view(np.int16)


def floats(x):
    """float16's bits -> float32."""
    return x.view(np.float16).astype(np.float32)


def in_steps(x, step):
    """x / step as ggml has it: times 1 / step, with the step not yet rounded to float16.

    0 where the step is 0 (a block of zeros) or so small that it has no reciprocal.
    """
    with np.errstate(divide="ignore", over="ignore"):
        inverse = 1 / bounded(step)
    return x * np.where(np.isinf(inverse), np.float32(0), inverse)


def unsigned(q, most):
    """Whole numbers as uint8, at most `most`; NaN, whose block has NaN for its scale, as 0."""
    return np.where(q > 0, np.minimum(q, most), 0).astype(np.uint8)


def in_rows(x):
    """What in_panels gave -> what it was given."""
    if x.ndim == 3:
        return x.swapaxes(1, 2).reshape(-1, x.shape[1])
    return x.transpose(0, 3, 1, 2, 4).reshape(-1, x.shape[1], x.shape[2] * 4)


def in_panels(x):
    """[16P, B, n] -> [P, B, n/4, 16, 4], or scales [16P, B] -> [P, B, 16]."""
    if x.ndim == 2:
        return x.reshape(-1, LANES, x.shape[1]).swapaxes(1, 2)
    return x.reshape(-1, LANES, x.shape[1], x.shape[2] // 4, 4).transpose(0, 2, 3, 1, 4)


class Blocks(Weight):
    """What the kinds with blocks share: `ggml` has the arrays of one block in the order of ggml's
    files, {name: bytes}, and `flipped` the bits in which its values differ there."""

    block, flipped = BLOCK, 0
    ggml: dict[str, int]

    @classmethod
    def from_ggml(cls, raw, k: int, allocate=np.empty, transposed: bool = False, release=None):
        """Take over the blocks of a file, raw uint8 [N, bytes of a row of k]: the same numbers.
        release: called when a slab of rows was used."""
        n, size = len(raw), sum(cls.ggml.values())
        arrays = {name: allocate(shape, dtype) for name, (shape, dtype) in cls.shapes(n, k).items()}
        step = slab(k)
        for start in range(0, n, step):
            rows = raw[start : start + step]
            if missing := -len(rows) % LANES:
                rows = np.pad(rows, ((0, missing), (0, 0)))
            rows = rows.reshape(-1, k // BLOCK, size)
            panels, at = slice(start // LANES, (start + len(rows)) // LANES), 0
            for name, width in cls.ggml.items():
                part, to = rows[..., at : at + width], arrays[name][panels]
                if name == "values":  # four bytes side by side stay so: as one number
                    words = part.view(np.uint32).reshape(-1, LANES, k // BLOCK, width // 4)
                    to.view(np.uint32)[..., 0] = words.transpose(0, 2, 3, 1)
                    to ^= np.uint8(cls.flipped)
                else:
                    to[:] = in_panels(part.view("<i2")[..., 0])
                at += width
            if release:
                release()
        return cls(arrays, n, k, transposed)

    def to_ggml(self) -> np.ndarray:
        """The blocks as ggml's files hold them: uint8 [N, bytes of a row]."""
        parts = []
        for name in self.ggml:
            rows = in_rows(self.stored[name])[: self.n]
            if name == "values":
                parts.append(rows ^ np.uint8(self.flipped))
            else:
                parts.append(
                    np.ascontiguousarray(rows, "<i2").view(np.uint8).reshape(*rows.shape, 2)
                )
        return np.concatenate(parts, axis=-1).reshape(self.n, -1)


class Int8(Blocks):
    """8 bits a weight and a scale for 32 (Q8_0): w = (q - 128) d, 1.0625 bytes a weight.

    {"values": uint8 [P, B, 8, 16, 4], "scales": [P, B, 16]} for B blocks. Q8_0 keeps q - 128 as a
    signed number; unsigned is what vpdpbusd takes for its first factor.
    """

    kind, ggml, flipped = "int8", {"scales": 2, "values": 32}, 0x80

    @classmethod
    def layout(cls, k):
        return {
            "values": ((k // BLOCK, 8, LANES, 4), np.uint8),
            "scales": ((k // BLOCK, LANES), np.int16),
        }

    @classmethod
    def encode(cls, rows):
        x = rows.reshape(len(rows), -1, BLOCK)  # [16P, B, 32]
        step = np.abs(x).max(axis=-1, keepdims=True) / np.float32(127)
        q = np.clip(in_steps(x, step), -127, 127)
        whole = np.trunc(q)
        q = whole + np.trunc(2 * (q - whole))  # C's roundf: halves away from 0
        return {"values": in_panels(unsigned(q + 128, 255)), "scales": in_panels(halves(step))}

    def decode(self, panel, lane):
        q = self.stored["values"][panel, :, :, lane].astype(np.float32) - 128  # [..., B, 8, 4]
        d = floats(self.stored["scales"][panel, :, lane])  # [..., B]
        return (q.reshape(*d.shape, BLOCK) * d[..., None]).reshape(*d.shape[:-1], -1)


class Int4(Blocks):
    """4 bits a weight and a scale for 32 (Q4_0): w = (q - 8) d, 0.5625 bytes a weight.

    {"values": uint8 [P, B, 4, 16, 4], "scales": [P, B, 16]}; a byte holds inputs i (low half) and i
    + 16 (high half). d = the number of largest size / -8, so that this one number, whatever its
    sign, meets a step of the grid -8..7.
    """

    kind, ggml = "int4", {"scales": 2, "values": 16}

    @classmethod
    def layout(cls, k):
        return {
            "values": ((k // BLOCK, 4, LANES, 4), np.uint8),
            "scales": ((k // BLOCK, LANES), np.int16),
        }

    @classmethod
    def grid(cls, x):
        """x [16P, B, 32] -> {scales and so on [16P, B]}, levels: where x lies on the grid, plus
        1/2."""
        largest = np.take_along_axis(x, np.abs(x).argmax(axis=-1, keepdims=True), axis=-1)
        step = largest / np.float32(-8)
        return {"scales": halves(step)}, in_steps(x, step) + np.float32(8.5)

    @classmethod
    def encode(cls, rows):
        scales, levels = cls.grid(rows.reshape(len(rows), -1, BLOCK))
        q = unsigned(np.floor(levels), 15)
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

    kind, ggml = "int4_min", {"scales": 2, "minima": 2, "values": 16}

    @classmethod
    def layout(cls, k):
        return {**super().layout(k), "minima": ((k // BLOCK, LANES), np.int16)}

    @classmethod
    def grid(cls, x):
        low, high = (f(axis=-1, keepdims=True) for f in (x.min, x.max))
        step = (high - low) / np.float32(15)
        levels = in_steps(x - bounded(low), step) + np.float32(0.5)
        return {"scales": halves(step), "minima": halves(low)}, levels

    def decode(self, panel, lane):
        d, m = (
            floats(self.stored[name][panel, :, lane])[..., None] for name in ("scales", "minima")
        )  # [..., B, 1]
        return (self.steps(panel, lane) * d + m).reshape(*d.shape[:-2], -1)
