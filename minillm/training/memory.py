"""Whether a step fits in memory, before it is tried."""

from __future__ import annotations

from math import prod

from ..errors import count
from ..families.family import MATRIX
from ..machine.quota import require_memory


def step_bytes(config, rows: int, T: int, recompute: bool = False) -> int:
    """Return about how many bytes of float32 one training step takes beyond the tokens: parameters
    with gradients and two arrays of the optimiser; what forward keeps of each block (of a position
    what its matrices form, C numbers 6 times, and H D and F once), of one block only with
    recompute; and logits with their gradient.
    """
    s = config.sizes
    layout = config.layout.values()
    n_parameters = sum(prod(p.shape(s)) for p in layout)
    formed = sum(s.width(p.axes[-1]) for p in layout if p.role == MATRIX) // s.L
    block = rows * T * (formed + 6 * s.C + s.H * s.D + s.F)
    kept = block + s.L * rows * T * s.C if recompute else s.L * block
    return 4 * (4 * n_parameters + kept + 2 * block + 3 * rows * T * s.V)


def check_memory(config, rows: int, T: int, recompute: bool = False) -> None:
    """Raise InputError for a step that cannot fit."""
    smaller = "a smaller --batch-size, --accumulate" + ("" if recompute else ", --recompute")
    what = f"{count(rows, 'window')} of {T}"
    require_memory(what, step_bytes(config, rows, T, recompute), smaller)
