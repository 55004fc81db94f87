"""The tokenizer: byte-pair encoding (bpe), and the files that hold one (files)."""

from .bpe import Merge, Piece, Tokenizer, merge_by_hand, require_tokenizer
from .byte_level import byte_to_char
from .patterns import GPT2_PATTERN, PATTERNS
from .specials import END_OF_TEXT, cut_at_ends, split_at_specials, well_formed
from .tokens import Token, Tokens

__all__ = [
    "END_OF_TEXT",
    "GPT2_PATTERN",
    "PATTERNS",
    "Merge",
    "Piece",
    "Token",
    "Tokenizer",
    "Tokens",
    "byte_to_char",
    "cut_at_ends",
    "merge_by_hand",
    "require_tokenizer",
    "split_at_specials",
    "well_formed",
]
