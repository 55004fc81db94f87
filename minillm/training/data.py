"""From text to batches: documents become one long row of token ids in a file, and windows of it the
rows of a batch.

Every <|endoftext|> ends a document; in the row that token follows each of them. A folder holds
train.txt and val.txt, or any *.txt files, whose documents (the end of a file ends one, too) are
split by their own hash. The files are built once and memory-mapped from then on.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..errors import InputError
from ..machine.files import (
    atomic_file,
    map_npy,
    open_regular,
    read_json,
    read_text,
    write_atomically,
)
from ..machine.progress import progress_bar
from ..tokenizer import Tokenizer, cut_at_ends


def documents_of(text: str) -> list[str]:
    """Cut a text after every <|endoftext|>, and leave out what is blank."""
    return [document for document in cut_at_ends(text) if document.strip()]


def text_files(data: Path) -> list[Path]:
    """The file itself, or the *.txt files of a folder; InputError where there is none."""
    if not data.exists():
        raise InputError(f"--data {data}: there is no such folder or file")
    if data.is_dir() and not os.access(data, os.R_OK):
        raise InputError(f"--data {data}: this folder cannot be read")
    files = sorted(data.glob("*.txt")) if data.is_dir() else [data]
    if not files:
        raise InputError(f"--data {data}: no .txt file in this folder")
    return files


def split_documents(data: Path, val_fraction: float) -> tuple[list[str], list[str]]:
    """Return the documents for training and for validation of a folder or a file.

    With train.txt and val.txt these are the two. Else a document is for validation where sha1 of
    its text says so, in val_fraction of all cases; one document alone is cut, and its end is for
    validation.
    """
    files = text_files(data)
    if {"train.txt", "val.txt"} <= {file.name for file in files}:
        train, val = (documents_of(read_text(data / name)) for name in ("train.txt", "val.txt"))
    else:
        documents = [document for file in files for document in documents_of(read_text(file))]
        if len(documents) == 1:
            cut = int(len(documents[0]) * (1 - val_fraction))
            train, val = (
                [part] if part else [] for part in (documents[0][:cut], documents[0][cut:])
            )
        else:
            draws = [
                int(hashlib.sha1(document.encode()).hexdigest(), 16) % 10_000
                for document in documents
            ]
            limit = max(val_fraction * 10_000, min(draws, default=0) + 1)  # one at least
            train = [d for d, draw in zip(documents, draws) if draw >= limit]
            val = [d for d, draw in zip(documents, draws) if draw < limit]
    if not train or not val:
        raise InputError(
            f"--data {data}: there is no text {'to train on' if not train else 'for validation'}"
        )
    return train, val


class Made(TypedDict):
    """What token files were made of: of the text's files the name and the sha256 (version 0.1.0
    wrote the name, the size and the time of its last change)."""

    files: list[list[str | int]]


class Sizes(TypedDict):
    """How many bytes of text the two token files stand for."""

    train: int
    val: int


class Index(TypedDict):
    """tokens.json."""

    made_of: Made
    bytes: Sizes


class Tokens:
    """One row of token ids in a file, `ids` [N] memory-mapped, and the bytes of the text they stand
    for."""

    def __init__(self, path: Path, n_bytes: int, vocab_size: int):
        self.ids, self.n_bytes = map_npy(path), n_bytes
        if self.ids.ndim != 1 or self.ids.dtype not in (np.uint16, np.uint32):
            raise InputError(f"{path}: {self.ids.dtype} {self.ids.shape}: not a row of token ids")
        if n_bytes < 1 or not len(self.ids) or self.ids.max() >= vocab_size:
            raise InputError(
                f"{path}: not the tokens of this run's text: delete {path.parent}, and they are"
                " made anew"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def windows(self, length: int) -> np.ndarray:
        """All windows one after another, [n, length + 1], each sharing its last id with the next
        one's first."""
        n = (len(self.ids) - 1) // length
        return np.lib.stride_tricks.sliding_window_view(self.ids, length + 1)[: n * length : length]


def token_files(
    data: Path, out: Path, tokenizer: Tokenizer, val_fraction: float, changed: bool = True
) -> tuple[Tokens, Tokens]:
    """Return the training and the validation tokens of `data`, from the files in `out` if they are
    of the same text.

    out: gets train.npy, val.npy and tokens.json, which says what they were made of. changed:
    whether the text may be another one than that of the files; else InputError.
    """
    out.mkdir(parents=True, exist_ok=True)
    index = out / "tokens.json"
    known = read_json(index, Index)["made_of"] if index.exists() else None
    mark: Callable[[Path], str | int] = sha256_of
    if known is not None and not changed and any(len(file) == 3 for file in known["files"]):
        known["files"], mark = [file[:2] for file in known["files"]], size_of  # of version 0.1.0
    tokens = sorted(token for token in tokenizer.tokens if token is not None)
    files = [[file.name, mark(file)] for file in text_files(data)]
    made_of = {
        "files": files,
        "tokenizer": hashlib.sha256(repr(tokens).encode()).hexdigest(),
        "val_fraction": val_fraction,
    }
    if known == made_of:
        return open_tokens(out, tokenizer.vocab_size)
    if known is not None and not changed:
        before, now = ({tuple(file) for file in made} for made in (known["files"], files))
        if before != now:
            name = min(before ^ now)[0]
            raise InputError(f"--resume: {name} in {data} is not as it was when the run began")
    parts = dict(zip(("train", "val"), split_documents(data, val_fraction)))
    index.unlink(missing_ok=True)  # from here to its writing the two files may be of two texts
    n_bytes = {name: sum(len(d.encode()) for d in documents) for name, documents in parts.items()}
    for name, documents in parts.items():
        write_tokens(out / f"{name}.npy", documents, tokenizer, name)
    write_atomically(index, json.dumps({"made_of": made_of, "bytes": n_bytes}).encode())
    return open_tokens(out, tokenizer.vocab_size)


def open_tokens(out: Path, vocab_size: int) -> tuple[Tokens, Tokens]:
    """The training and the validation tokens that token_files left in `out`."""
    n = read_json(out / "tokens.json", Index)["bytes"]
    train, val = (Tokens(out / f"{name}.npy", n[name], vocab_size) for name in ("train", "val"))
    return train, val


def sha256_of(file: Path) -> str:
    with open_regular(file) as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def size_of(file: Path) -> int:
    return file.stat().st_size


def write_tokens(path: Path, documents: Iterable[str], tokenizer: Tokenizer, what: str) -> None:
    """Encode every document, each followed by <|endoftext|> if the tokenizer has it, into a .npy
    file of one row."""
    word = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    end = [] if tokenizer.eot_id is None else [tokenizer.eot_id]
    documents, ids = list(documents), []
    with progress_bar("documents") as update:
        for n, document in enumerate(documents):
            ids.append(np.array([*tokenizer.encode(document), *end], word))
            update(f"encoding the {what} text", n + 1, len(documents))
    with atomic_file(path) as file:
        np.save(file, np.concatenate(ids))


class Batches:
    """Rows of `length` ids and what follows each of them: batch(step) -> ids, targets [B,T], a
    function of step and seed only.

    An epoch takes every window that fits, once, in an order of its own, beginning at an offset of
    its own below `length`.
    """

    LEAST = 2  # windows of text of which every epoch has one, wherever it begins

    def __init__(self, tokens: Tokens, length: int, batch_size: int, seed: int):
        self.tokens, self.length, self.batch_size, self.seed = tokens, length, batch_size, seed
        if len(tokens) < self.LEAST * length:
            raise InputError(
                f"the text has {len(tokens):,} tokens; a window of {length} needs"
                f" {self.LEAST * length:,}: more text, or --context"
            )
        self._ends = [0]  # rows up to the end of each epoch; how many it has depends on its offset
        self._epoch = (-1, np.empty(0, np.int64))

    def batch(self, step: int, rank: int = 0, size: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return the batch of one step; of `size` processes, `rank` gets every size-th row."""
        rows = np.array(
            [
                self.row(n)
                for n in range(step * self.batch_size, (step + 1) * self.batch_size)[rank::size]
            ],
            np.int64,
        )
        return rows[:, :-1], rows[:, 1:]

    def row(self, n: int) -> np.ndarray:
        """The n-th window of the whole training, T + 1 ids."""
        while n >= self._ends[-1]:
            self._ends.append(self._ends[-1] + len(self.starts(len(self._ends) - 1)))
        epoch = bisect.bisect_right(self._ends, n) - 1
        start = int(self.starts(epoch)[n - self._ends[epoch]])
        return self.tokens.ids[start : start + self.length + 1]

    def starts(self, epoch: int) -> np.ndarray:
        """Where the windows of an epoch begin, in its order."""
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self.draw(np.random.default_rng([self.seed, epoch])))
        return self._epoch[1]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Where the windows of an epoch with this generator begin, in its order."""
        first = int(rng.integers(self.length))
        n = (len(self.tokens) - 1 - first) // self.length
        return first + self.length * rng.permutation(n)


class BatchesOf01(Batches):
    """The batches of version 0.1.0, for a run that it began: every epoch leaves out the last window
    that would fit, or two."""

    LEAST = 3

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        order = rng.permutation(len(self.tokens) // self.length - 2)
        return int(rng.integers(self.length)) + self.length * order


BATCHES = {1: BatchesOf01, 2: Batches}  # by the format of the run (trainer.FORMAT)
