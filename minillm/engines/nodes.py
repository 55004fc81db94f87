"""The nodes of llama.cpp's graphs as minillm's steps: by name, operation and order.

A name can stand for several nodes (`Qcur-3` is the product, then that with the bias, then that
turned by position), and versions differ. So a family lists the nodes that form each step, in order
(families.gguf.GGUF.nodes), and a step ends at the last of them that there is. A node that stands
nowhere there, or out of order, is told of and never guessed at: its time goes to the step that ends
next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..sizes import Sizes
from ..steps import local_name

NOTHING = {"NONE", "VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"}  # operations that compute nothing
WITHIN = {  # on the way to a step's end: a norm before its weights, the cache, rows that are kept
    *("norm:NORM", "norm:RMS_NORM", "norm_w:MUL", "SET_ROWS", "CPY", "CONT", ">GET_ROWS"),
}


class Graph(NamedTuple):
    """What the nodes of a graph are: the step that ends at a node, by its place, and those that
    compute and are not known, with how many of each there are."""

    ends: dict[int, str]
    unknown: dict[str, int]


def graph_of(nodes: Iterable[tuple[str, str]], formed: Mapping[str, str], n_layers: int) -> Graph:
    """Map a graph's nodes, each (name, operation), in order; formed: what forms each step of the
    family (families.gguf.GGUF.nodes)."""
    table = {
        node: (step, place)
        for step, several in formed.items()
        for place, node in enumerate(several.split())
    }
    seen: dict[str, tuple[int, int]] = {}  # step: which of its nodes, and where that is
    unknown: dict[str, int] = {}
    last = ""
    for i, (name, operation) in enumerate(nodes):
        if operation in NOTHING:
            continue
        base, _, layer = name.partition("-")
        keys = [operation, f"{base}:{operation}"]
        if base.startswith("node_"):  # it has no name, and is of the layer of the step before
            keys[1:] = [f">{operation}", f"{local_name(last)}>{operation}"]
            layer = last.removeprefix("h.").partition(".")[0]
        if WITHIN.intersection(keys) and keys[1] not in table:
            continue
        step, place = next((table[key] for key in keys if key in table), ("", 0))
        if step.startswith(("attn.", "mlp.", "ln_1", "ln_2")):
            step = f"h.{layer}.{step}" if layer.isdecimal() and int(layer) < n_layers else ""
        if not step or place <= seen.get(step, (-1, 0))[0]:
            unknown[keys[1]] = unknown.get(keys[1], 0) + 1
        else:
            seen[step], last = (place, i), step
    ends = sorted((i, step) for step, (_, i) in seen.items())
    return Graph(dict(ends), unknown)


def is_last(step: str) -> bool:
    """Whether a step is the last of its phase."""
    return step == "embed" or step.endswith((".attn.residual", ".mlp.residual"))


class Place(NamedTuple):
    """Where a step's value lies in the numbers of a node: `view` has them in our order, as
    `shape`."""

    step: str
    view: np.ndarray
    shape: tuple[int, ...]

    @property
    def value(self) -> np.ndarray:
        """A copy, as minillm's own steps are shaped."""
        return np.array(self.view).reshape(self.shape)

    def put(self, value: np.ndarray) -> None:
        """Write a value into the node's numbers."""
        self.view[:] = value.reshape(self.view.shape)


def places(
    step: str, node: np.ndarray, sizes: Sizes, n_keys: int, paired: bool, within: Sequence[str] = ()
) -> list[Place]:
    """The steps, without their layer, whose values a node's numbers hold, float32 as llama.cpp has
    them: its own, and what lies in it.

    n_keys: S, of which llama.cpp keeps more. paired: whether q and k have neighbours where ours are
    i and i + D/2, as GGUF holds a Llama's. within: the q, k and v that lie in the step's node.
    """
    H, K, D = sizes.H, sizes.K, sizes.D

    def heads(name: str, numbers: np.ndarray) -> Place:
        n = K if name[0] in "kv" else H
        view = numbers.reshape(-1, n, D).swapaxes(0, 1)  # [T,HD] -> [H,T,D]
        shape = (1, *view.shape)
        if paired and name[0] in "qk":
            view = view.reshape(*view.shape[:2], D // 2, 2).swapaxes(2, 3)  # [H,T,2,D/2]
        return Place(f"attn.{name}", view, shape)

    local = step.removeprefix("attn.")
    if local in ("scores", "weights"):
        view = node.reshape(node.shape[-3:])[..., :n_keys]  # [H,T,S]
        return [Place(step, view, (1, *view.shape))]
    if local[0] in "qkv" or local == "context":
        return [heads(local, node)]
    view = node.reshape(-1, node.shape[-1])  # [T,C]
    found = [Place(step, view, (1, *view.shape))]
    if within:
        thirds = np.split(view, np.cumsum([H * D, K * D]), axis=1)
        found += [heads(name.removeprefix("attn."), part) for name, part in zip(within, thirds)]
    return found
