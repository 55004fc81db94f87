"""A callback of llama.cpp that notes when nodes were computed; compiled, so that no Python runs
while the engine works.

llama.cpp calls it (cb_eval) twice for a node: with `ask`, in the order of the graph, to hear
whether the node is wanted; and, where it is, after it was computed. Nodes that are not wanted are
computed together with the next one that is.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from ..kernels.memory import ticks

HEAD = 2  # numbers before the three columns: how many nodes were asked for, how many there may be
MOST = 1 << 14  # nodes of a graph; some 30 a layer


@numba.cfunc(types.uint8(types.uintp, types.uint8, types.voidptr))
def stamp(node, ask, data):
    """uint8(ggml_tensor *, bool ask, int64 *book): whether the node is wanted, or to go on."""
    most = numba.carray(data, HEAD, np.int64)[1]
    book = numba.carray(data, HEAD + 3 * most, np.int64)
    if not ask:
        book[HEAD + 2 * most + book[0] - 1] = ticks()
        return 1
    i = book[0]
    book[0] = i + 1
    if i >= most:
        return 0
    book[HEAD + most + i] = node
    return book[HEAD + i]


class Book:
    """What `stamp` reads and writes: wanted, nodes, ticks, int64 [MOST] each, by a node's place in
    the graph."""

    def __init__(self) -> None:
        self.all = np.zeros(HEAD + 3 * MOST, np.int64)
        self.all[1] = MOST
        self.wanted, self.nodes, self.ticks = self.all[HEAD:].reshape(3, MOST)

    def begin(self) -> None:
        """A graph begins."""
        self.all[0] = 0

    @property
    def asked(self) -> np.ndarray:
        """The addresses of the last graph's nodes, in order."""
        return self.nodes[: min(int(self.all[0]), MOST)]
