"""The twins of ops.py in Numba: the same names and signatures, for speed. `GPT2(..., ops=kernels)`
computes with them.

Numba is imported, and kernels are compiled, when a name is first used: importing this room costs
nothing and works without Numba. Kernels are plain loops over one thread's share; threads.py shares
the work out.
"""

from __future__ import annotations

import importlib
import importlib.util

name, stores_panels = "numba", True  # what twins/twin.py asks for, beside the functions below

# Name -> the file it lives in; what needs no kernel is ops' own. No file may bear one of these
# names: importing it would set the module in its place. `attention` streams over the keys;
# `DecodeStep` is the fused step of a whole model; `Training` is the twin to train with; `now`
# reads the processor's clock.
ROOMS = {
    "linear": "matrices",
    "layer_norm": "rows",
    "rms_norm": "rows",
    "softmax": "distributions",
    "log_softmax": "distributions",
    "cross_entropy": "rows",
    "gelu_new": "elementwise",
    "gelu": "elementwise",
    "relu": "elementwise",
    "silu": "elementwise",
    "causal_mask": ".ops",
    "split_heads": ".ops",
    "merge_heads": ".ops",
    "attention": "streaming",
    "DecodeStep": "decode",
    "now": "machine_code",
    "layer_norm_backward": "gradients",
    "rms_norm_backward": "gradients",
    "gelu_new_backward": "gradients",
    "silu_backward": "gradients",
    "cross_entropy_backward": "gradients",
    "embedding_backward": "gradients",
    "attention_backward": "gradients",
    "lstm": "recurrent",
    "lstm_backward": "recurrent",
    "adamw_update": "gradients",
    "Training": "blocked",
    "csr_matmul": "sparse",
    "read_everything": "limits",
    "row_product": "limits",
    "launch": "limits",
    "meet_often": "limits",
    "n_threads": "threads",
    "set_threads": "threads",
}
__all__ = [*ROOMS, "available"]


def available() -> bool:
    """Whether Numba is installed."""
    return importlib.util.find_spec("numba") is not None


def __getattr__(name: str):
    if name not in ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f".{ROOMS[name]}", __name__), name)
    return globals()[name]
