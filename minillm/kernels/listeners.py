"""Who is told that a kernel is being compiled; Numba is not needed to ask for it."""

from __future__ import annotations

from collections.abc import Callable

# Called with the name of each kernel that is about to be compiled, because it is not on disk yet.
compile_listeners: list[Callable[[str], object]] = []
