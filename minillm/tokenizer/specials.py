"""Specials: tokens that stand for no text of their own, and the text around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import regex

from ..machine.files import LINE_END

END_OF_TEXT = "<|endoftext|>"


def named_token(config: Mapping, name: str) -> str | None:
    """Return the text that tokenizer_config.json gives for bos_token, eos_token, ..., or None."""
    token = config.get(name)
    return token.get("content") if isinstance(token, dict) else token


def well_formed(text: str) -> str:
    """Return `text` with surrogate pairs joined and lone surrogates, which UTF-8 cannot hold, as
    U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def cut_at_ends(text: str) -> list[str]:
    """Cut a text after every <|endoftext|>, wherever it stands: one line end directly after it
    belongs to it, what follows begins the next document. Example: "a<|endoftext|>\\r\\nb" -> a, b.
    """
    return regex.split(f"{regex.escape(END_OF_TEXT)}(?:{LINE_END})?", text)


def unusable_specials(specials: Iterable[str]) -> list[str]:
    """Return the specials that no text or no file can hold: the empty one, and those with lone
    surrogates."""
    return [s for s in specials if not s or s != well_formed(s)]


def split_at_specials(
    text: str, specials: dict[str, int], in_turn: bool = False
) -> Iterator[tuple[str, int | None]]:
    """Cut `text` at every special: (text, None) or (special, id). Where several fit, the one that
    begins first counts, of these the longest; in_turn: the longest in bytes, wherever it stands."""
    longest = sorted(specials, key=lambda s: len(s.encode()), reverse=True)
    groups = [[s] for s in longest if s in text] if in_turn else [longest] if longest else []
    parts = [text]
    for group in groups:
        pattern = f"({'|'.join(map(regex.escape, group))})"
        parts = [
            part
            for piece in parts
            for part in ([piece] if piece in specials else regex.split(pattern, piece))
            if part
        ]
    yield from ((part, specials.get(part)) for part in parts)
