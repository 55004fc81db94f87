"""Whether a step fits in memory, before it is tried."""

from __future__ import annotations

from ..errors import InputError
from ..families.gpt2.config import GPT2Config
from ..machine.quota import free_bytes


def step_bytes(config: GPT2Config, rows: int, T: int, recompute: bool = False) -> int:
    """Return about how many bytes of float32 one training step takes beyond the tokens: parameters
    with gradients and two arrays of the optimiser; what forward keeps of each block (of a position
    C numbers 8 times, A = H D of them 4 times, F twice), of one block only with recompute; and
    logits with their gradient.
    """
    C, A, F = config.n_embd, config.attention_dim, config.hidden_dim
    V, L = config.vocab_size, config.n_layer
    n_parameters = sum(
        shape[0] * (shape[1] if len(shape) > 1 else 1)
        for shape in config.parameter_shapes().values()
    )
    block = rows * T * (8 * C + 4 * A + 2 * F)
    kept = block + L * rows * T * C if recompute else L * block
    return 4 * (4 * n_parameters + kept + 2 * block + 3 * rows * T * V)


def check_memory(config: GPT2Config, rows: int, T: int, recompute: bool = False) -> None:
    """Raise InputError for a step that cannot fit."""
    needed, free = step_bytes(config, rows, T, recompute), free_bytes()
    if free is not None and needed > free:
        smaller = "a smaller --batch-size, --accumulate" + ("" if recompute else ", --recompute")
        raise InputError(
            f"{rows} windows of {T} need about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are"
            f" free: {smaller}"
        )
