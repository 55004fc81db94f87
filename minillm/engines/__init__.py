"""Engines of others, unmodified, as models that minillm's clock, trace and patch look into."""

from ..errors import require_one_of
from .engine import Engine
from .llama_cpp import LlamaCpp

__all__ = ["ENGINES", "Engine", "LlamaCpp", "engine"]

ENGINES: dict[str, type[Engine]] = {LlamaCpp.name: LlamaCpp}  # by the name that --engine takes


def engine(name: str) -> type[Engine]:
    """Return the class of the engine that is called so; InputError for another name."""
    return ENGINES[require_one_of("engine", name, ENGINES)]
