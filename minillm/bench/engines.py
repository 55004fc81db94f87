"""An engine of others step by step against minillm, and which of its switches explain what
differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..checkpoints.checkpoint import Checkpoint
from ..differences import apart
from ..engines import Engine
from ..machine.progress import progress_bar
from ..model import Model
from .rounding import Compared, Judge, Side


@dataclass(frozen=True)
class Outcome:
    """One way to start the engine: the switches that were set, its title, every step compared (a is
    minillm's, formed from the engine's inputs), and max |difference| of the logits where each goes
    its own way."""

    switches: tuple[str, ...]
    title: str
    steps: list[Compared]
    logits: float

    @property
    def differing(self) -> list[Compared]:
        """The steps that differ beyond rounding, in order."""
        return [step for step in self.steps if step.differs]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return vars(self) | {
            "steps": [asdict(step) | {"differs": step.differs} for step in self.steps]
        }


def compare_engine(
    kind: type[Engine], checkpoint: Checkpoint, model: Model, ids: Sequence[int]
) -> list[Outcome]:
    """Compare one pass over ids in an engine and in minillm's model of the same file; while a step
    differs beyond rounding, once more with one more of the engine's switches."""
    ours, outcomes = Side(model), list[Outcome]()
    logits, options = model(ids), dict[str, Any]()
    switches = {"": {}, **kind.switches}  # as it is, and with one more at a time
    with progress_bar("ways") as update:
        for number, (switch, more) in enumerate(switches.items()):
            update("comparing", number, len(switches), switch or "as it is")
            options |= more
            engine = kind(checkpoint, **options)
            steps = Judge(ours, Side(engine), len(ids)).read(ids, last=False)
            far = float(apart(logits, engine(ids)).max())
            outcomes.append(Outcome(tuple(switches)[1 : number + 1], engine.title, steps, far))
            if not outcomes[-1].differing:
                break
    return outcomes
