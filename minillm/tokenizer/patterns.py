"""How a text is cut into pieces before merging: regular expressions, by the names that GGUF gives.

A pattern is one regular expression or several. Each cuts what the ones before it left: what it
matches becomes a piece, and so does what lies between two matches. Source: OpenAI's encoder.py
(gpt-2), Hugging Face's tokenizer.json of the models, llama.cpp's list of pre-tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import regex

from ..errors import InputError, short

# A contraction, or letters, digits or other signs with at most one space before them, or a run of
# white space (whose last character is left for the piece after it). From OpenAI's encoder.py;
# contractions in lower case only.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _newer(contraction: str, digits: str) -> str:
    """Llama 3's pattern and Qwen2's: any sign may stand before letters, and line ends go with the
    signs or blanks before them."""
    return (
        rf"{contraction}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


# Contractions in both cases, as tokenizer.json writes them and as llama.cpp reads them: the former
# also take the long s, U+017F, for an s.
FOLDED = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPELLED = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"

PATTERNS: dict[str, tuple[str, ...]] = {
    "gpt-2": (GPT2_PATTERN,),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2_PATTERN, r"\p{N}+", "[0-9][0-9][0-9]"),
    "smollm": (r"\p{N}", GPT2_PATTERN),
    "llama-bpe": (_newer(SPELLED, r"\p{N}{1,3}"),),
    "qwen2": (_newer(SPELLED, r"\p{N}"),),
}
NAMES = {pattern: name for name, pattern in PATTERNS.items()} | {
    (_newer(FOLDED, r"\p{N}{1,3}"),): "llama-bpe",
    (_newer(FOLDED, r"\p{N}"),): "qwen2",
}
COVERING = {pattern for pattern in NAMES if len(pattern) == 1}  # leave nothing between matches

LONGEST = 2000  # characters of an expression
# What means the same to `regex` and to Oniguruma, which the tokenizers library uses. Left out are
# what differs (^, $, \w, \b, \h, sets in sets, {2}+), and repeated groups, whose time may explode.
_ESCAPE = r"\\ (?: [pP]\{[A-Z][a-z]?\} | [sSdDrnt] | [^\w\s] )"  # a property, a kind, a sign
COMMON = regex.compile(
    rf"""(?: {_ESCAPE}
        | \[ \^? (?: {_ESCAPE} | (?! && | -- | \|\| | ~~ ) [^\\\[\]] )+ \]
        | {regex.escape(FOLDED)}
        | \( (?: \? (?: : | <?[!=] ) | (?! \? ) )
        | \) (?! [*+{{] )
        | \{{ \d{{1,3}} (?: , \d{{0,3}} )? \}} (?! [+*?{{] )
        | [^\\\[\](){{}}^$] )+""",
    regex.VERBOSE,
)


def pattern_of(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the regular expressions of a name in PATTERNS, or those given, checked.

    Raises InputError for an unknown name, and for an expression that the libraries that read
    tokenizer.json do not understand alike.
    """
    if isinstance(given, str):
        if given not in PATTERNS:
            raise InputError(f"pattern {short(given)} is unknown; known: {', '.join(PATTERNS)}")
        return PATTERNS[given]
    pattern = tuple(given)
    if not pattern:
        raise InputError("pattern is empty; it must be a name or regular expressions")
    for part in pattern:
        if why := why_not(part):
            raise InputError(f"the regular expression {short(part)} {why}")
    return pattern


def why_not(part) -> str | None:
    """Return why text cannot be cut by a regular expression, or None where it can."""
    if not isinstance(part, str) or len(part) > LONGEST or not COMMON.fullmatch(part):
        return "has parts that other libraries may read otherwise; minillm does not guess"
    try:
        empty = regex.compile(part).search("")
    except (regex.error, OverflowError, RecursionError) as error:
        return f"is none ({str(error)[:80]})"
    return "matches where nothing stands" if empty else None


def cutter(pattern: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Return the function that cuts a text into its pieces by a pattern: text -> list of texts."""
    compiled = [regex.compile(part) for part in pattern]
    return compiled[0].findall if pattern in COVERING else partial(_cut, compiled)


def _cut(compiled: list, text: str) -> list[str]:
    pieces = [text]
    for part in compiled:
        pieces = [shorter for piece in pieces for shorter in _isolated(part, piece)]
    return pieces


def _isolated(part, text: str) -> list[str]:
    """What `part` matches in `text`, and what lies between the matches, in order."""
    pieces, at = [], 0
    for found in part.finditer(text):
        pieces += [text[at : found.start()], found[0]]
        at = found.end()
    return [piece for piece in (*pieces, text[at:]) if piece]
