"""A student's functions on the page: their cycles beside the textbook's and the kernels', and the
first step that differs. Their code runs in a process of its own, never here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..exercises.student.folder import require
from ..exercises.student.recorded import recorded
from ..loading import load
from ..record import record
from ..recording import Recording

TRIES = 3  # of the timed run
TWINS = ("numba", "numpy")  # beside whom; the textbook is the last, and so the nearest


class Own:
    """Makes the recordings of a text: the kernels', the textbook's, and last that of `folder`.

    name: of the model; options: of record.
    """

    def __init__(self, folder: Path, name: str, options: Mapping[str, Any]):
        require(folder)
        self.folder, self.name, self.options = folder, name, dict(options)
        self.models: dict[str, Any] = {}
        for twin in TWINS:
            with suppress(InputError):  # Numba is missing
                self.models[twin], self.tokenizer = load(name, kernels=twin)

    @property
    def model(self) -> Any:
        """The textbook's."""
        return self.models["numpy"]

    def __call__(
        self,
        prompt: str | list[int],
        drawing: Mapping[str, Any],
        told: Callable[[dict], None],
        again: bool = False,
    ) -> Iterator[Recording]:
        """Yield the recordings; drawing: options that a page asks for; again: only the folder's,
        whose InputError, if something is wrong with it, comes after the others."""
        options = {"seed": 1, **self.options, **drawing}  # alike for all, to compare their texts
        told({"prompt": prompt if isinstance(prompt, str) else self.tokenizer.readable(prompt)})
        for model in () if again else self.models.values():
            yield record(
                model,
                self.tokenizer,
                prompt,
                name=self.name,
                every_step=True,
                tries=TRIES,
                **options,
            )
        yield recorded(self.folder, self.name, prompt, options | {"tries": TRIES})

    def state(self) -> list:
        """What changes when a file of the folder is saved."""
        found = []
        for file in sorted(self.folder.glob("*.py")):
            with suppress(OSError):  # it is being replaced
                about = file.stat()
                found.append((file.name, about.st_mtime_ns, about.st_size))
        return found
