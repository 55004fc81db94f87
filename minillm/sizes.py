"""The letters that every shape comment uses, and what a config says in them.

B rows of a batch   T new positions in this call   S all positions seen (past + T)
V vocabulary        P positions                    L layers
C width of the residual stream                     F hidden width of the feed forward
H query heads       K key-value heads (= H unless queries share them in groups)
D size of a head
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """What a model's size is, under the legend's letters, whatever its config calls them."""

    V: int  # vocabulary
    P: int  # positions
    L: int  # layers
    C: int  # width of the residual stream
    H: int  # query heads
    K: int  # key-value heads
    D: int  # size of a head
    F: int  # hidden width of the feed forward

    def width(self, axis: str) -> int:
        """How many numbers an axis has: "C", a product "HD", or some side by side, "HD KD KD"."""
        return sum(math.prod(getattr(self, a) for a in part) for part in axis.split())
