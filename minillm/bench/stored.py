"""One model's file with its matrices in one type after another; in each the peers that take a file
as it is, in turn, after prompts of several lengths."""

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
    """What the peers did with a file whose matrices are of one type; a comparison for each length
    of the prompt. As the table of tokens may be of another type, file_bytes says how long it is."""

    type: str
    file_bytes: int
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
    """The type that most of a file's matrices have."""
    return TYPE[open_checkpoint(path).stored]


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
    """Compare peers on a GGUF file in each of `types`; the rest is as in run_lengths, which raises,
    too.

    What the file is not, llama.cpp writes anew from it. Raises InputError where that is not
    installed, and for a folder.
    """
    if path.is_dir():
        raise InputError(
            "several prompts, and --stored, are for a model in a GGUF file: minillm convert FOLDER"
            " FILE.gguf makes one"
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
            found.append(InType(wanted, file.stat().st_size, comparisons))
    return found
