"""The process in which code that a model wrote is tried: few names, so much memory."""

from __future__ import annotations

import builtins

from ..machine.child import answering, limit_memory, listening

MEMORY = 1 << 30  # bytes
UNKNOWN = (
    "open exec eval compile input breakpoint exit quit help globals locals vars getattr setattr"
)


def holds(source: str, checks: list[str]) -> bool:
    """Whether all checks, expressions of Python, are true after the code has run."""
    unknown = {*UNKNOWN.split(), "delattr", "memoryview"}
    known = {n: v for n, v in vars(builtins).items() if n[0] != "_" and n not in unknown}
    names: dict = {"__builtins__": known}
    exec(source, names)
    return all(eval(check, names) is True for check in checks)


if __name__ == "__main__":
    limit_memory(MEMORY)
    listen, answer = listening()[0], answering()
    asked = listen()
    try:
        answer({"right": holds(asked["source"], asked["checks"])})
    except Exception:  # whatever a model may write
        answer({"right": False})
