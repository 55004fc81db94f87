"""Labelled texts: read from files or folders, split into what is learnt from and what is held out,
cut into batches."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex

from ..errors import InputError
from ..machine.files import as_path, lines_of, read_text, write_atomically

SEPARATORS = {".tsv": "\t", ".csv": ","}


@dataclass(frozen=True)
class Examples:
    """Texts and the label of each."""

    texts: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def pick(self, wanted: Sequence[bool]) -> Examples:
        """Those for which `wanted` is true."""
        pairs = [pair for pair, yes in zip(zip(self.texts, self.labels), wanted) if yes]
        return Examples([text for text, _ in pairs], [label for _, label in pairs])


def read_examples(data: Path, encoding: str = "utf-8") -> Examples:
    """Return the labelled texts of a .tsv or .csv file of text and label (with a header, in any
    order), or of a folder: of a folder for each label with a text a file, or of a file for each
    label with a text a line.

    A file that is a label is named after what its name does not share with the others:
    rt-polarity.pos and rt-polarity.neg are pos and neg. README files do not count. Raises
    InputError naming the file and the line.
    """
    if not (data := as_path(data, "file or folder")).exists():
        raise InputError(f"{data}: there is no such file or folder")
    pairs = list((folder_pairs if data.is_dir() else table_pairs)(data, encoding))
    if not pairs:
        raise InputError(f"{data}: there are no examples in it")
    return Examples(*(list(column) for column in zip(*pairs)))


def table_pairs(file: Path, encoding: str) -> Iterator[tuple[str, str]]:
    """(text, label) of every line of a .tsv or .csv file."""
    if file.suffix.lower() not in SEPARATORS:
        raise InputError(f"{file}: the name must end in .tsv or .csv, or be a folder's")
    tabs = file.suffix.lower() == ".tsv"  # in which a quotation mark is just that
    csv.field_size_limit(2**31 - 1)  # characters of a cell: csv's own limit is 131,072
    rows = csv.reader(
        io.StringIO(read_text(file, encoding), newline=""),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
    )
    text, label, width = 0, 1, 2
    try:
        for n, row in enumerate(rows):
            names = [cell.strip().lower() for cell in row]
            if n == 0 and {"text", "label"} <= set(names):
                text, label, width = names.index("text"), names.index("label"), len(names)
            elif row:
                if len(row) != width:
                    raise InputError(
                        f"{file}, line {rows.line_num}: {len(row)} columns instead of {width}, text"
                        " and label"
                    )
                if not (row[text].strip() and row[label].strip()):
                    what = "text" if row[label].strip() else "label"
                    raise InputError(f"{file}, line {rows.line_num}: the {what} is empty")
                yield row[text], row[label].strip()
    except csv.Error as error:
        raise InputError(f"{file}, line {rows.line_num}: not {file.suffix} ({error})") from None


def folder_pairs(folder: Path, encoding: str) -> Iterator[tuple[str, str]]:
    """(text, label) of every file of its subfolders, or, where it has none, of every line of its
    files."""
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith((".", "README")))
    if folders := [path for path in entries if path.is_dir()]:
        for path in folders:
            for file in sorted(
                p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")
            ):
                if text := read_text(file, encoding).strip():
                    yield text, path.name
        return
    parts = [file.name.split(".") for file in entries]
    shared = set.intersection(*map(set, parts)) if len(parts) > 1 else {"txt"}
    for file, names in zip(entries, parts):
        for line in lines_of(read_text(file, encoding)):
            if line.strip():
                yield line.strip(), ".".join(name for name in names if name not in shared)


def split(examples: Examples, part: float, where: str) -> tuple[Examples, Examples]:
    """Return what is learnt from and what is held out: of every label the `part` of its texts whose
    sha1 is lowest.

    So the split is always the same, and a text that occurs twice is on one side only. Raises
    InputError for fewer than two labels, and for a label with fewer than two texts.
    """
    known = sorted(set(examples.labels))
    if len(known) < 2:
        raise InputError(
            f"{where}: every example has the label {known[0]!r}; two different ones are needed at"
            " least"
        )
    held_out = set()
    for label in known:
        texts = {text for text, its in zip(examples.texts, examples.labels) if its == label}
        if len(texts) < 2:
            raise InputError(
                f"{where}: label {label!r} has one text only: one to learn from and one to hold out"
                " are needed"
            )
        ordered = sorted(texts, key=lambda text: hashlib.sha1(text.encode()).digest())
        held_out.update(ordered[: max(1, round(part * len(texts)))])
    tests = [text in held_out for text in examples.texts]
    return examples.pick([not test for test in tests]), examples.pick(tests)


class Words:
    """The words of a text, in lower case, as ids: a word of `words` [n] is 1 to n, any other 0. For
    a bag of words."""

    def __init__(self, words: Sequence[str]):
        self.words, self.ids = list(words), {word: i for i, word in enumerate(words, 1)}

    @classmethod
    def of(cls, texts: Sequence[str]) -> Words:
        """All the words of some texts, the most frequent first."""
        return cls(
            [
                word
                for word, _ in Counter(
                    word for text in texts for word in words_of(text)
                ).most_common()
            ]
        )

    @property
    def vocab_size(self) -> int:
        return len(self.words) + 1

    def encode(self, text: str) -> list[int]:
        """The ids of a text's different words."""
        return [self.ids.get(word, 0) for word in dict.fromkeys(words_of(text))]

    def save(self, folder: Path) -> None:
        write_atomically(folder / "words.txt", "\n".join(self.words).encode())

    @classmethod
    def from_pretrained(cls, folder: Path) -> Words:
        return cls(read_text(folder / "words.txt").split("\n"))


def words_of(text: str) -> list[str]:
    """Words and marks: "Don't go!" -> ["don't", "go", "!"]."""
    return regex.findall(r"[\w'’-]+|[^\w\s]", text.lower())


def rectangle(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of different lengths -> ids [B,T], padded on the right with 0, and lengths [B]."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for row, to in zip(rows, ids):
        to[: len(row)] = row
    return ids, lengths


class Batches:
    """Rows of like length together: batch(step) -> ids [B,T], lengths [B], labels [B], a function
    of step and seed only.

    An epoch takes every example once, in an order of its own, but for a rest that fills no batch.
    """

    def __init__(
        self, rows: Sequence[Sequence[int]], labels: Sequence[int], batch_size: int, seed: int
    ):
        self.rows = rows
        self.labels = np.asarray(labels)
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed
        self.steps_of_epoch = len(rows) // self.batch_size
        self._epoch = (-1, np.empty((0, 0), np.int64))

    def order(self, epoch: int) -> np.ndarray:
        """Which examples are in which batch of an epoch, [steps, B]: sorted by length among twenty
        batches, which leaves a tenth of the padding, and these batches in any order."""
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            lengths = np.array([len(row) for row in self.rows])
            order = rng.permutation(len(self.rows))[: self.steps_of_epoch * self.batch_size]
            for start in range(0, len(order), 20 * self.batch_size):
                part = order[start : start + 20 * self.batch_size]
                part[:] = part[np.argsort(lengths[part], kind="stable")]
            self._epoch = (epoch, rng.permutation(order.reshape(-1, self.batch_size)))
        return self._epoch[1]

    def batch(
        self, step: int, rank: int = 0, size: int = 1
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the batch of one step; of `size` processes, `rank` gets every size-th row."""
        epoch, i = divmod(step, self.steps_of_epoch)
        picked = self.order(epoch)[i][rank::size]
        return *rectangle([self.rows[n] for n in picked]), self.labels[picked]
