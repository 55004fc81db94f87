"""Engines of others, unmodified, as models that minillm's clock, trace and patch look into."""

from ..errors import require_one_of
from .engine import Engine
from .llama_cpp import LlamaCpp
from .transformers import Transformers

__all__ = ["ENGINES", "Engine", "LlamaCpp", "Transformers", "engine"]

# by the name that --engine takes
ENGINES: dict[str, type[Engine]] = {cls.name: cls for cls in (LlamaCpp, Transformers)}


def engine(name: str) -> type[Engine]:
    """Return the class of the engine that is called so; InputError for another name."""
    return ENGINES[require_one_of("engine", name, ENGINES)]
