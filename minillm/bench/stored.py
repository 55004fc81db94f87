"""A model after prompts of several lengths, peers in turn; a GGUF file also with its matrices in
one type after another."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.llama_cpp import FILE_TYPE, TYPE
from ..errors import InputError, not_imported
from ..loading import open_checkpoint
from .convert import in_another_process, requantize
from .run import PeerComparison, run_lengths


@dataclass
class InType:
    """What the peers did with a model whose matrices are of one type; a comparison for each length
    of the prompt. As the table of tokens may be of another type, file_bytes says how long the file
    is; None for a folder, of which each engine makes what it reads."""

    type: str
    file_bytes: int | None
    comparisons: list[PeerComparison]


def checked_types(names: str | None) -> list[str] | None:
    """The types in "Q4_0,F16"; None, as the file has them, for None."""
    if names is None:
        return None
    types = [name.strip() for name in names.split(",")]
    if unknown := [name for name in types if name not in FILE_TYPE]:
        raise InputError(f"type {unknown[0]!r} is unknown; known: {', '.join(FILE_TYPE)}")
    return types


def type_of(path: str | Path) -> str:
    """The type that most of a model's matrices have."""
    stored = open_checkpoint(path).stored
    return TYPE.get(stored, stored)


def run(
    path: Path,
    names: str | Sequence[str],
    types: Sequence[str] | None,
    prompts: Sequence[int],
    n_new: int = 64,
    rounds: int = 5,
    threads: int = 2,
    cache_dtype: str | None = None,
) -> list[InType]:
    """Compare peers on a folder or a GGUF file; on a file in each of `types`, unless that is None.
    The rest is as in run_lengths, which raises, too.

    What the file is not, llama.cpp writes anew from it. Raises InputError where that is not
    installed, and for types of a folder.
    """
    if types and path.is_dir():
        raise InputError(
            "--stored is for a model in a GGUF file: minillm convert FOLDER FILE.gguf makes one"
        )
    own, found = type_of(path), []
    for wanted in types or [own]:
        with tempfile.TemporaryDirectory(prefix="minillm-bench-") as folder:
            file = path
            if wanted != own:
                file = Path(folder) / f"{wanted}.gguf"
                try:
                    in_another_process(requantize, path, file, wanted)
                except ImportError as error:
                    why = not_imported(error, "llama_cpp")
                    raise InputError(
                        f"llama.cpp writes {path.name} as {wanted}, and {why}"
                    ) from None
            comparisons = run_lengths(file, names, prompts, n_new, rounds, threads, cache_dtype)
            size = None if file.is_dir() else file.stat().st_size
            found.append(InType(wanted, size, comparisons))
    return found
