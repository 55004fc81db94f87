"""minillm: GPT-2 from scratch in NumPy, to read, to check against the reference, and to time."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from . import moved
from .twins.folder import opened_by
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .decoding.generate import generate as generate
    from .errors import InputError as InputError
    from .families.gpt2.config import GPT2Config as GPT2Config
    from .families.llama.config import LlamaConfig as LlamaConfig
    from .loading import load as load
    from .model import GPT2 as GPT2
    from .model import Llama as Llama
    from .page.notebook import explore as explore
    from .tasks.chat import Chat as Chat
    from .tokenizer import Tokenizer as Tokenizer
    from .twins.twin import Twin

# Public name -> the room it lives in, which is imported when the name is first used: `minillm
# --help` needs no NumPy.
ROOMS = {
    "Chat": "tasks.chat",
    "GPT2": "model",
    "GPT2Config": "families.gpt2.config",
    "InputError": "errors",
    "Llama": "model",
    "LlamaConfig": "families.llama.config",
    "Tokenizer": "tokenizer",
    "explore": "page.notebook",
    "generate": "decoding",
    "load": "loading",
}
__all__ = [*ROOMS]
moved.install()


def __getattr__(name: str) -> object:
    if name not in ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(import_module(f".{ROOMS[name]}", __name__), name)
    return globals()[name]


def _of_exercises(folder: Path) -> "Twin":
    """A folder of exercises as a twin."""
    from .exercises.student.own import of_folder

    return cast("Twin", of_folder(folder))  # whose attributes are the functions found there


opened_by(_of_exercises)


def __dir__() -> list[str]:
    return sorted({*globals(), *ROOMS})
