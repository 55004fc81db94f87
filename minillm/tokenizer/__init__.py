"""The tokenizer: byte-pair encoding (bpe), and the files that hold one (files)."""

from .bpe import (
    END_OF_TEXT,
    GPT2_PATTERN,
    Merge,
    Piece,
    Tokenizer,
    byte_to_char,
    cut_at_ends,
    split_at_specials,
    well_formed,
)
from .tokens import Token, Tokens

__all__ = [
    "END_OF_TEXT",
    "GPT2_PATTERN",
    "Merge",
    "Piece",
    "Token",
    "Tokenizer",
    "Tokens",
    "byte_to_char",
    "cut_at_ends",
    "split_at_specials",
    "well_formed",
]
