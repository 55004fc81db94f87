"""Weights as floating-point numbers: float32, and two halves of it, one of which may round what it
multiplies, too."""

from __future__ import annotations

import numpy as np

from .weight import BF16, LANES, Weight, narrowed, widened


class FloatWeight(Weight):
    """One number a weight: {"panels": [P, K, 16]} of `element`, converted by `to_stored` and
    `to_float`."""

    element: type

    @classmethod
    def layout(cls, k):
        return {"panels": ((k, LANES), cls.element)}

    @classmethod
    def encode(cls, rows):
        return {
            "panels": cls.to_stored(rows.reshape(-1, LANES, rows.shape[1]).swapaxes(1, 2))
        }  # [16P,K] -> [P,K,16]

    def decode(self, panel, lane):
        return self.to_float(self.stored["panels"][panel, :, lane])

    @staticmethod
    def to_stored(x):
        """float32 -> what is stored."""
        raise NotImplementedError

    @staticmethod
    def to_float(x):
        """What is stored -> float32."""
        raise NotImplementedError


class Float32(FloatWeight):
    """float32, 4 bytes a weight: the same numbers, in panels."""

    kind, element = "float32", np.float32

    @staticmethod
    def to_stored(x):
        return x

    @staticmethod
    def to_float(x):
        return x


class BFloat16(FloatWeight):
    """The upper half of a float32, 2 bytes a weight: its full range, 8 bits of precision. Kept as
    uint16."""

    kind, element = "bfloat16", np.uint16

    @staticmethod
    def to_stored(x):
        bits = np.ascontiguousarray(x).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
        quiet = (bits >> 16) | 0x40  # rounding up would carry a NaN into infinity's bits or beyond
        return np.where(np.isnan(x), quiet, rounded).astype(np.uint16)

    @staticmethod
    def to_float(x):
        return widened(x.view(BF16))


class BFloat16Rounded(BFloat16):
    """The same matrix, which rounds what it multiplies, too: y = bfloat16(x) W, summed up in
    float32."""

    kind = "bfloat16_rounded"

    @property
    def exact(self) -> BFloat16:
        """The same matrix, which takes what it multiplies as it is."""
        return BFloat16(self.stored, self.n, self.k, self.transposed)

    def __rmatmul__(self, x):
        rounded = self.to_float(self.to_stored(x.astype(np.float32, copy=False)))
        return super().__rmatmul__(rounded.astype(x.dtype, copy=False))


class Float16(FloatWeight):
    """IEEE half precision, 2 bytes a weight: 11 bits of precision, up to 65504; larger finite
    numbers stay there.

    Kept as int16, because Numba has no float16: the signed type is what tells kernels apart from
    bfloat16's uint16.
    """

    kind, element = "float16", np.int16

    @staticmethod
    def to_stored(x):
        return narrowed(x, np.float16).view(np.int16)

    @staticmethod
    def to_float(x):
        return x.view(np.float16).astype(np.float32)
