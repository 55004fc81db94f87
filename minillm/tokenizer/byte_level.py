"""What all byte-level tokenizers share: how bytes are written."""

from __future__ import annotations

from functools import cache


@cache
def byte_to_char() -> dict[int, str]:
    """Return the printable character that stands for each of the 256 bytes in vocab.json and
    merges.txt.

    Bytes that Latin-1 prints stand for themselves, in order; the other 68 are numbered upwards from
    U+0100. The order of this table is the order of GPT-2's first 256 ids. Source: OpenAI's
    encoder.py.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


@cache
def char_to_byte() -> dict[str, int]:
    return {char: byte for byte, char in byte_to_char().items()}
