"""The checkpoints of a run: the last one, and some before it, each with a checksum."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..checkpoints import safetensors
from ..errors import InputError

CHECKPOINT = "checkpoint.safetensors"


def nth(folder: Path, n: int) -> Path:
    """The path of the last checkpoint (n = 0), or of the n-th before it."""
    return folder / (f"checkpoint.{n}.safetensors" if n else CHECKPOINT)


def kept(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the last one first."""
    numbers = re.compile(r"checkpoint(?:\.([1-9][0-9]*))?\.safetensors")
    found = [(numbers.fullmatch(path.name), path) for path in folder.glob("checkpoint*")]
    return [path for _, path in sorted((int(m[1] or 0), path) for m, path in found if m)]


def write(folder: Path, arrays: Mapping[str, np.ndarray], step: int, keep: int) -> None:
    """Write the checkpoint of a step, all or nothing, and keep `keep` in all.

    The older ones move on first, so that there are never more than `keep`, the unfinished one among
    them; who is killed before that is whole goes on from the one before it.
    """
    for n in reversed(range(1, keep)):
        if nth(folder, n - 1).exists():
            nth(folder, n - 1).replace(nth(folder, n))
    metadata = {"format": "pt", "step": str(step), "sha256": checksum(arrays, str(step))}
    safetensors.write(nth(folder, 0), arrays, metadata)
    for path in kept(folder)[keep:]:
        path.unlink()


def read(
    path: Path, like: Callable[[int], Mapping[str, np.ndarray]], steps: int
) -> tuple[dict[str, np.ndarray], int]:
    """Return the arrays and the step of a checkpoint.

    like(step): arrays with the names, shapes and dtypes that those of the run have after so many
    steps. Raises InputError for anything else, a step that is not one of 0 to `steps`, and bytes
    that have changed since they were written.
    """
    arrays, metadata = safetensors.read(path)
    step = metadata.get("step", "")
    if not re.fullmatch("[0-9]{1,18}", step) or int(step) > steps:
        raise InputError(f"{path}: step {step!r:.30} is none of this run's, 0 to {steps}")
    forms, expected = (
        {name: (a.shape, a.dtype) for name, a in given.items()}
        for given in (arrays, like(int(step)))
    )
    if forms != expected:
        raise InputError(f"{path}: not a checkpoint of this run")
    if metadata.get("sha256") != checksum(arrays, step):
        raise InputError(f"{path}: damaged: its checksum is not that of its numbers")
    return arrays, int(step)


def checksum(arrays: Mapping[str, np.ndarray], step: str) -> str:
    """SHA-256 of the step and of every array's name, shape, dtype and numbers."""
    forms = [(name, str(a.dtype), a.shape) for name, a in sorted(arrays.items())]
    digest = hashlib.sha256(json.dumps([step, forms]).encode())
    for name, _, _ in forms:
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8))
    return digest.hexdigest()
