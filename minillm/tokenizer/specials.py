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


def split_at_specials(text: str, specials: dict[str, int]) -> Iterator[tuple[str, int | None]]:
    """Cut `text` at every special, the longest first where several fit: (text, None) or (special,
    id)."""
    if not specials:
        yield text, None
        return
    pattern = "|".join(regex.escape(s) for s in sorted(specials, key=len, reverse=True))
    for part in regex.split(f"({pattern})", text):
        if part:
            yield part, specials.get(part)
