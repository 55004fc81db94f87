"""The forms in which kernels take weights, and how much room they need: known to those that call
them without Numba."""

from __future__ import annotations

BLOCK_ROOM = 160  # words for a block of 16 outputs as int4_matmul unpacks it
PAIR_ROOM = 512  # words for 32 inputs of 32 outputs as pair_matmul pairs them
KEYS, QUERIES = 256, 64  # of one tile: its scores are 64 KiB, which stay in the second-level cache


def room_for_tiles(D: int) -> int:
    """How many float32 in_tiles needs."""
    width = (D + 15) // 16 * 16
    return QUERIES * (2 + 2 * width + KEYS) + max(KEYS, width)


def flat_panels(weight, part=slice(None)):
    """The arrays of a weight as kernels take them: [P, all numbers of a panel], of some panels."""
    stored = tuple(a.reshape(len(a), -1)[part] for a in weight.stored.values())
    return (*stored, None) if weight.kind == "int4" else stored  # no minima
