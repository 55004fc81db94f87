"""Texts that come with the package, so that every command can be tried as it is printed.

fables.txt: 42 short tales, each ended by a line <|endoftext|>. moods.tsv: 162 sentences, each
labelled glad or gloomy. Both were written for minillm and have its licence.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parent
SAMPLES = ("fables.txt", "moods.tsv")


def own_or_sample(name: str) -> Path:
    """Return `name` as a path; where nothing lies there and a sample has that name, the sample's,
    and say so."""
    if name not in SAMPLES or os.path.lexists(name):
        return Path(name)
    from ..machine.distributed import world

    if world().rank == 0:
        log.info("%s is not in this folder: the sample of minillm is read", name)
    return FOLDER / name
