"""A recording: one generation as a value, and the file that holds it (docs/recording.md).

What was generated, when each step of each cycle was finished, what the machine's limits predict,
and what the model thought on the way: candidates, a lens into every layer, attention. The file is
in the safetensors format, whose readers are everywhere: the header is JSON under "recording" in its
metadata, the numbers are its tensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from .checkpoints import safetensors
from .errors import InputError, short
from .machine.files import parse_json
from .machine.forms import check as check_form

VERSION = 1
BINDS = ("memory", "arithmetic", "waiting")  # what predicted.binds numbers
ONE = 65535  # an attention weight of 1, as it is stored
MOST_VALUES = 10**8  # numbers of an array
FARTHEST = 1e9  # the distance of a value that is not finite, or of another shape


class StepEntry(TypedDict):
    """A step by its name without the layer: what it is, where it stands, its shape by cycle."""

    name: str
    phase: str
    label: str
    layered: bool
    equation: str
    letters: str
    file: str
    line: int
    code: str
    shapes: dict[str, list[int]]


class PieceEntry(TypedDict):
    """A piece of the prompt and its merges in order, each [rank, at, left, right]."""

    text: str
    ids: list[int]
    merges: list[list[object]]


class TextEntry(TypedDict):
    """The prompt, and the ids of which it consists; pieces: none where it was given as ids."""

    prompt: str
    ids: list[int]
    pieces: list[PieceEntry]


class MomentEntry(TypedDict):
    """An emitted token; logprob: of the timed run's unfiltered model, in nats."""

    id: int
    text: str
    logprob: float
    cycle: int
    finish: str | None


class CycleEntry(TypedDict):
    """A pass; start and end in ns since the first one began; names: which list of `names` was
    formed; kept, read, written: bytes of keys and values."""

    kind: str
    rows: int
    positions: int
    past: int
    start: float
    end: float
    names: int
    kept: int
    read: int
    written: int


class ModelEntry(TypedDict):
    """Which model, and what computed; bytes: of its parameters."""

    name: str
    family: str
    title: str
    config: dict[str, object]
    sizes: dict[str, int]
    tied: bool
    stored: str
    parameters: int
    bytes: int
    twin: str
    threads: int


class ClockEntry(TypedDict):
    """What read the time, and what one stamp cost in ns, which `times.net` is without."""

    source: str
    ticks_per_second: float
    stamp_ns: float


class LimitsEntry(TypedDict):
    """The machine's limits, see clock.limits; bandwidth by bytes of an array."""

    threads: int
    bandwidth: dict[str, float]
    row: dict[str, float]
    rows: dict[str, float]
    elements: float
    call: float
    launch: float
    meet: float


class RunsEntry(TypedDict):
    """difference: the largest of the two runs' logits; origin: what comes from which run, "timed",
    "traced", or "computed" from config and limits."""

    difference: float
    origin: dict[str, str]


class ComparedEntry(TypedDict):
    """With what every step was compared ("reference", the stored one, or "textbook"), on how many
    positions, and within what share of its largest value a step agrees."""

    against: str
    positions: int
    tolerance: float


class PartingEntry(TypedDict):
    """From which computation each step was told apart, word by word, from the same inputs."""

    name: str
    stored: str
    twin: str


class Header(TypedDict):
    """All that is no array."""

    version: int
    made: str
    machine: dict[str, object]
    model: ModelEntry
    steps: list[StepEntry]
    text: TextEntry
    tokens: dict[str, str]
    options: dict[str, object]
    moments: list[MomentEntry]
    cycles: list[CycleEntry]
    names: list[list[str]]
    attention: list[int]
    clock: ClockEntry
    limits: LimitsEntry | None
    runs: RunsEntry
    compared: NotRequired[ComparedEntry]
    parting: NotRequired[PartingEntry]


@dataclass(frozen=True, eq=False)
class Recording:
    """One generation as data: `header` says what was said and done, `arrays` has the numbers by
    name; both as docs/recording.md lists them. InputError where they do not agree."""

    header: Header
    arrays: dict[str, np.ndarray]

    def __post_init__(self):
        check(self.header, self.arrays)

    def __repr__(self) -> str:
        moments, cycles = len(self.header["moments"]), len(self.header["cycles"])
        return (
            f"Recording({moments} moments, {cycles} cycles, {self.header['model']['name']!r:.60})"
        )

    @property
    def text(self) -> str:
        """The prompt and what came after it."""
        return self.header["text"]["prompt"] + "".join(m["text"] for m in self.header["moments"])

    @property
    def seconds(self) -> float:
        """From the beginning of the first cycle to the last token."""
        return (self.header["cycles"][-1]["end"] - self.header["cycles"][0]["start"]) / 1e9

    def intervals(self, cycle: int) -> slice:
        """Which of the intervals in `times.*` and `predicted.*` are those of a cycle."""
        lengths = [len(self.header["names"][c["names"]]) for c in self.header["cycles"]]
        return slice(sum(lengths[:cycle]), sum(lengths[: cycle + 1]))

    def write(self, path: str | Path) -> None:
        """Write it as one file, all or nothing."""
        safetensors.write(path, self.arrays, _metadata(self))


def to_bytes(recording: Recording) -> bytes:
    """Return what `write` writes."""
    return safetensors.to_bytes(recording.arrays, _metadata(recording))


def _metadata(recording: Recording) -> dict[str, str]:
    return {"recording": json.dumps(recording.header, separators=(",", ":"))}


def read(path: str | Path) -> Recording:
    """Return the recording that a file holds; InputError names the file and what is wrong with
    it. Arrays are read-only views of the mapped file, see checkpoints.safetensors."""
    arrays, metadata = safetensors.read(path)
    if "recording" not in metadata:
        raise InputError(f"{path}: no recording, but another safetensors file")
    header = parse_json(metadata["recording"], dict, f"{path}: the recording's header")
    try:
        return Recording(header, arrays)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def shapes(header: Header) -> dict[str, tuple[tuple[int | None, ...], str]]:
    """The shape and the dtype of every array that belongs to a header; None where any length will
    do (how many candidates and words of the lens)."""
    sizes = header["model"]["sizes"]
    L, H = sizes["L"], sizes["H"]
    moments, cycles = len(header["moments"]), len(header["cycles"])
    positions = len(header["text"]["ids"]) + moments - 1
    lengths = [len(names) for names in header["names"]]
    intervals = sum(lengths[c["names"]] for c in header["cycles"])
    weights = L * H * sum(p + 1 for p in header["attention"])
    found: dict[str, tuple[tuple[int | None, ...], str]] = {
        "times.ends": ((intervals,), "float32"),
        "times.net": ((intervals,), "float32"),
        "costs": ((cycles, len(header["steps"]), 5), "float32"),
        "candidates.ids": ((moments, None), "int32"),
        "candidates.logits": ((moments, None), "float32"),
        "candidates.before": ((moments, None), "float32"),
        "candidates.after": ((moments, None), "float32"),
        "chosen": ((moments, 4), "float32"),
        "lens.ids": ((moments, L + 1, None), "int32"),
        "lens.probabilities": ((moments, L + 1, None), "float32"),
        "lens.chosen": ((moments, L + 1), "float32"),
        "norms": ((positions, 2 * L + 1), "float32"),
        "attention": ((weights,), "uint16"),
    }
    if header["limits"] is not None:
        found["predicted.seconds"] = ((intervals,), "float32")
        found["predicted.binds"] = ((intervals,), "uint8")
    if "compared" in header:
        found["distances"] = ((len(header["steps"]), L), "float32")
    if "parting" in header:
        found["parting.steps"] = ((moments, len(header["steps"]), L), "float32")
        found["parting.probabilities"] = ((moments,), "float32")
    return found


def check(header: Any, arrays: Any) -> None:
    """Raise InputError, in one line, for what is no recording, or does not agree with itself."""
    if not isinstance(header, dict) or header.get("version") != VERSION:
        found = header.get("version") if isinstance(header, dict) else header
        raise InputError(
            f"a recording of version {short(found)}; this minillm reads version {VERSION}"
        )
    check_form(header, Header)
    try:
        json.dumps(header, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the header is not plain JSON: {error}") from None
    _check_header(header)
    needed = shapes(header)  # type: ignore[arg-type]
    for name in sorted(needed.keys() | arrays.keys()):
        array, (shape, dtype) = arrays.get(name), needed.get(name, ((), "no such array"))
        fits = array is not None and array.ndim == len(shape) and array.dtype == dtype
        if not fits or any(n not in (None, m) for n, m in zip(shape, array.shape)):
            found = "missing" if array is None else f"{array.dtype} {array.shape}"
            letters = ", ".join("any" if n is None else str(n) for n in shape)
            raise InputError(f"{short(name)} is {short(found)}; needed: {dtype} ({letters})")
    _check_arrays(header, arrays)


def _check_header(header: dict) -> None:
    """What the forms do not say: nothing negative, every index inside."""
    sizes, moments, cycles = header["model"]["sizes"], header["moments"], header["cycles"]
    missing = [letter for letter in "VPLCHKDF" if letter not in sizes]
    if missing or not all(1 <= sizes[letter] < 2**31 for letter in sizes):
        raise InputError(f"model.sizes are {short(sizes)}; all of V P L C H K D F must be above 0")
    if not moments or not cycles or not header["text"]["ids"]:
        raise InputError("no prompt, no moment or no cycle: nothing was generated")
    known = {step["name"] for step in header["steps"]}
    if len(known) != len(header["steps"]):
        raise InputError("a step occurs twice")
    for names in header["names"]:
        for name in names:
            layer, _, local = name[2:].partition(".") if name.startswith("h.") else ("0", "", name)
            if local not in known or not (layer.isdecimal() and int(layer[:9]) < sizes["L"]):
                raise InputError(f"names has {short(name)}, which is no step")
    before = 0.0
    for number, cycle in enumerate(cycles):
        whole = ("rows", "positions", "past", "kept", "read", "written")
        if not 0 <= cycle["names"] < len(header["names"]) or min(cycle[k] for k in whole) < 0:
            raise InputError(f"cycle {number} is {short(cycle)}: something is out of range")
        if not before <= cycle["start"] <= cycle["end"] < 1e18:
            raise InputError(f"cycle {number} does not follow the one before in time")
        before = cycle["end"]
    for number, moment in enumerate(moments):
        if not 0 <= moment["cycle"] < len(cycles):
            raise InputError(f"moment {number} is of cycle {moment['cycle']}; there is none")
    V, ids = sizes["V"], [*header["text"]["ids"], *(m["id"] for m in moments)]
    if bad := [i for i in ids if not 0 <= i < V]:
        raise InputError(f"id {bad[0]} is outside the vocabulary of {V}")
    attention, positions = header["attention"], len(ids) - 1
    if attention != sorted({*attention}) or any(not 0 <= p < positions for p in attention):
        raise InputError(
            f"attention is {short(attention)}; positions 0 to {positions - 1} in order"
        )
    if sizes["L"] * sizes["H"] * sum(p + 1 for p in attention) > MOST_VALUES:
        raise InputError("attention of too many positions and heads")


def _check_arrays(header: dict, arrays: dict[str, np.ndarray]) -> None:
    """Nothing that is not finite, no id and no number of a limit outside."""
    for name, array in arrays.items():
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise InputError(f"{name} has values that are not finite")
    V = header["model"]["sizes"]["V"]
    for first, others in (
        ("candidates.ids", ("candidates.logits", "candidates.before", "candidates.after")),
        ("lens.ids", ("lens.probabilities",)),
    ):
        ids = arrays[first]
        if ids.size and not 0 <= ids.min() <= ids.max() < V:
            raise InputError(f"{first} has ids outside the vocabulary of {V}")
        for other in others:
            if arrays[other].shape != ids.shape:
                raise InputError(
                    f"{other} has the shape {arrays[other].shape}, {first} {ids.shape}"
                )
    binds = arrays.get("predicted.binds", np.zeros(0, np.uint8))
    if binds.size and binds.max() >= len(BINDS):
        raise InputError(f"predicted.binds has {binds.max()}; there are {len(BINDS)} limits")
