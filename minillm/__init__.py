"""minillm: GPT-2 from scratch in NumPy, to read, to check against the reference, and to time."""

from .checkpoints import load
from .config import GPT2Config
from .decoding import generate
from .errors import InputError
from .model import GPT2
from .tokenizer import Tokenizer

__version__ = "0.1.0"
__all__ = ["GPT2", "GPT2Config", "InputError", "Tokenizer", "generate", "load"]
