"""What the forward keeps for the backward: every intermediate, or only what enters each block."""

from __future__ import annotations

from ..steps import Trace


class Activations(Trace):
    """A Trace that asks for nothing which is formed merely to be seen: what backward needs, and no
    scores."""

    times_only = True


class Recompute(Activations):
    """Keeps only what enters each block: backward forms the rest again, one block at a time,
    exactly as it was.

    Memory for one block's intermediates instead of L, for about a third more time. Source: Chen et
    al., "Training Deep Nets with Sublinear Memory Cost" (2016).
    """

    def __call__(self, name: str, value):
        inside = name.startswith("h.") and not name.endswith(".mlp.residual")
        return value if inside else super().__call__(name, value)
