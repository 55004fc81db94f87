"""What the fused step runs: a program, the table of instructions that a family hands over.

An instruction is carried out for all new positions at once: norm or none, product or none, then
attention, an activation, a gate, the residual or nothing; and at last all threads meet, or not.
Each thread has its share of a product's outputs, and goes on with this share by itself. Whatever
reads what others wrote comes after a meeting; `check` sees to that.

    Llama's feed forward:  Instruction("h.0.mlp.gate", gate, norm=norm, target="gate", meet=False)
                           Instruction("h.0.mlp.act", up, then="silu", gate="gate", target="act")
                           Instruction("h.0.mlp.residual", down, source="act", then="residual")

This file imports NumPy only, so that a family can be imported without Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import require


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm of the residual stream's rows, or of heads, which each thread does for itself."""

    name: str  # of what is finished with it, for a clock
    kind: str  # "layer_norm" or "rms_norm"
    weight: np.ndarray  # [C], or [D] of heads
    bias: np.ndarray | None = None  # [C], of layer_norm
    eps: float = 1e-5


@dataclass(frozen=True, eq=False)
class Instruction:
    """One row of a program."""

    name: str  # of what is finished at its meeting, for a clock
    weight: Any = None  # a stored Weight [in,out]; None for "attend", which has no product
    bias: np.ndarray | None = None  # [out]
    norm: Norm | None = None  # of the residual stream, before the product
    # The buffer that the product reads; "" for the rows last normed. Of "attend": a buffer with
    # q, k and v side by side, or one for each.
    source: str | Sequence[str] = ""
    target: str = "out"  # the buffer that it writes; "logits" for those of the model
    then: str = ""  # "attend", "residual" (add to the stream), an activation's name, or nothing
    gate: str = ""  # with an activation: the buffer that it is for, times the product
    # With "attend": the rms_norm [D] of each query, and that of each key, before they are turned.
    head_norms: Sequence[Norm] = ()
    meet: bool = True  # whether others may read what was written

    @property
    def sources(self) -> tuple[str, ...]:
        """The buffers that are read."""
        return (self.source,) if isinstance(self.source, str) else tuple(self.source)


@dataclass(frozen=True, eq=False)
class Program:
    """A model for the fused step: tables, and instructions from the embedded tokens to the logits.

    scales: on q k^T, one for each layer. rotation(positions [n]) -> cosines, sines [n,D/2] by which
    q and k are turned at these positions, half-split (numbers i and i + D/2 are a pair); None
    without.
    """

    sizes: Any  # the letters V P L C H K D, see sizes.py
    tokens: Any  # a stored Weight [V,C]
    positions: np.ndarray | None  # [P,C], added to the tokens' rows; None without
    instructions: Sequence[Instruction]
    scales: Sequence[float]
    rotation: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def stamps(self) -> list[str]:
        """The names of what is finished, in order: after each norm and at each meeting."""
        names = ["embed"]
        for step in self.instructions:
            names += ([step.norm.name] if step.norm else []) + ([step.name] if step.meet else [])
        return names

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """All that are there and are no matrices, by name."""
        turn = None if self.rotation is None else np.stack(self.rotation(np.arange(1)))
        everything = [("positions", self.positions), ("rotation", turn)]
        for step in self.instructions:
            everything.append((f"{step.name}.bias", step.bias))
            for norm in [*([step.norm] if step.norm else []), *step.head_norms]:
                everything.append((f"{norm.name}.weight", norm.weight))
                everything.append((f"{norm.name}.bias", norm.bias))
        return ((name, array) for name, array in everything if array is not None)

    def check(self) -> dict[str, int]:
        """Return how wide each buffer is; ValueError for arrays and instructions that do not fit
        together, and where one reads what other threads may still be writing."""
        s, widths, shapes = self.sizes, {"": self.sizes.C}, {}
        fresh, seen = set(), set()  # since the last meeting: what was written, and what was read

        def need(condition: bool, what: str) -> None:
            if not condition:
                raise ValueError(f"{step.name} {what}")

        for step in self.instructions:
            need({*step.sources, step.gate} <= widths.keys(), "reads what nothing has written")
            found = tuple(widths[source] for source in step.sources)
            if step.then == "attend":
                out, parts = s.H * s.D, (s.H * s.D, s.K * s.D, s.K * s.D)
                need(
                    found in (parts, (sum(parts),)), f"reads {found} numbers: q, k, v have {parts}"
                )
            else:
                need(len(found) == 1 and step.weight is not None, "needs a source and a matrix")
                out = int(step.weight.shape[-1])
                require(**{f"{step.name}.weight": (step.weight, (*found, out))})
            before = {widths.get(step.target, out), widths[step.gate] if step.gate else out}
            need(before == {out}, f"makes {out} numbers, where {before} are due")
            need(step.then != "residual" or out == s.C, f"adds {out} numbers to {s.C}")
            widths[step.target] = out
            need(
                len(step.head_norms) in ((0, 2) if step.then == "attend" else (0,)),
                f"has {len(step.head_norms)} norms of heads: attend has none, or two",
            )
            shapes[f"{step.name}.bias"] = (out,)
            for norm in step.head_norms:
                shapes |= {f"{norm.name}.{part}": (s.D,) for part in ("weight", "bias")}
            if step.norm:
                shapes |= {f"{step.norm.name}.{part}": (s.C,) for part in ("weight", "bias")}
            reads = {*step.sources, "x" if step.norm else ""} - {""}
            writes = {step.target, "x" if step.then == "residual" else step.target}
            need(not (reads & fresh or writes & seen), "comes before a meeting that is due")
            fresh, seen = (set(), set()) if step.meet else (fresh | writes, seen | reads)
        last = [step.target == "logits" for step in self.instructions]
        need(last == [False] * (len(last) - 1) + [True] and out == s.V, f"must make {s.V} logits")
        layers = sum(step.then == "attend" for step in self.instructions)
        if not layers == len(self.scales) == s.L or s.H % s.K:
            raise ValueError(f"{layers} layers with {len(self.scales)} scales do not fit {s}")
        shapes |= {"positions": (s.P, s.C), "rotation": (2, 1, s.D / 2)}
        require(tokens=(self.tokens, (s.V, s.C)))
        require(**{name: (array, shapes[name]) for name, array in self.arrays()})
        return widths
