"""Where two computations of one text part: each step beside the same step of the other, from the
same inputs, word by word, before the text shows anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..bench.diverge import require_alike
from ..bench.rounding import Judge, Side
from ..model import Model
from ..ops import softmax
from ..recording import FARTHEST, PartingEntry, Recording
from ..steps import local_name
from ..twins.twin import abilities


def parted(recording: Recording, a: Model, b: Any, name: str) -> Recording:
    """Return the recording of what b wrote, a model or an engine with one, and in it how far its
    steps are from a's, in times of the rounding of both (bench.rounding), and how far the
    probabilities of each word.

    name: of a. A step that only one of them forms has -1. The distance of two distributions is half
    the sum of |p_a - p_b| over the vocabulary. InputError for models of other shapes.
    """
    require_alike(a, b)
    header = recording.header
    n, ids = len(header["text"]["ids"]), [*header["text"]["ids"]]
    ids += [moment["id"] for moment in header["moments"]]
    rows = {step["name"]: row for row, step in enumerate(header["steps"])}
    steps = np.full((len(ids) - n, len(rows), header["model"]["sizes"]["L"]), -1, np.float32)
    judge = Judge(Side(a), Side(b), len(ids))
    for table, end in zip(steps, range(n, len(ids))):
        for step in judge.read(ids[:end]):
            local = local_name(step.name)
            layer = 0 if local == step.name else int(step.name.split(".")[1])
            table[rows[local], layer] = min(step.times, FARTHEST)
    p, q = (softmax(model(ids[:-1])[n - 1 :]) for model in (a, b))
    apart = (abs(p - q).sum(-1) / 2).astype(np.float32)
    arrays = {"parting.steps": steps, "parting.probabilities": apart}
    entry: PartingEntry = {"name": name, "stored": a.stored, "twin": abilities(a.ops).name}
    return Recording({**header, "parting": entry}, {**recording.arrays, **arrays})
