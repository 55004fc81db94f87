"""The checkpoints of a run: the last one, and some before it, each with a checksum."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
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
    for n in reversed(range(1, min(keep, len(kept(folder)) + 1))):
        if nth(folder, n - 1).exists():
            nth(folder, n - 1).replace(nth(folder, n))
    metadata = {"format": "pt", "step": str(step)}
    metadata["sha256"] = checksum(arrays, metadata)
    safetensors.write(nth(folder, 0), arrays, metadata)
    for path in kept(folder)[keep:]:
        path.unlink()


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a checkpoint; InputError where its checksum says that
    they are not, to the last bit, what was written."""
    arrays, metadata = safetensors.read(path)
    if metadata.get("sha256") not in (None, checksum(arrays, metadata)):
        raise InputError(f"{path}: damaged, and so not a checkpoint of this run any more")
    return arrays, metadata


def checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 of all other metadata, and of every array's name, shape, dtype and numbers."""
    others = {name: text for name, text in metadata.items() if name != "sha256"}
    forms = [(name, str(a.dtype), a.shape) for name, a in sorted(arrays.items())]
    digest = hashlib.sha256(json.dumps([others, forms], sort_keys=True).encode())
    for name, _, _ in forms:
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
