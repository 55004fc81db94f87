"""The tokens of a text, to look at: a short line in a terminal, coloured pieces in a notebook."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

LISTED, DRAWN = 8, 2000  # how many tokens a repr and a notebook show
GROUNDS = ("rgba(90,140,255,.3)", "rgba(255,160,60,.3)")  # clear, for light and for dark pages
SEEN = {" ": "␣", "\t": "⇥", "\n": "⏎"}


class Token(NamedTuple):
    """One token: its id, and the bytes that it stands for."""

    id: int
    data: bytes

    def __str__(self) -> str:
        """What a person can read of it: spaces as signs, and what does not print as \\x.."""
        text = self.data.decode("utf-8", "backslashreplace")
        return "".join(SEEN.get(c) or (c if c.isprintable() else ascii(c)[1:-1]) for c in text)


class Tokens(tuple[Token, ...]):
    """The tokens of a text in order. A notebook shows the text cut into them; where the pointer
    rests, it tells the id."""

    __slots__ = ()

    @property
    def ids(self) -> list[int]:
        """What a model takes."""
        return [token.id for token in self]

    def __getitem__(self, index):
        picked = super().__getitem__(index)
        return Tokens(picked) if isinstance(index, slice) else picked

    def __repr__(self) -> str:
        listed = " ".join(f"'{token}'" for token in self[:LISTED])
        return f"Tokens({len(self):,}: {listed}{' ...' if len(self) > LISTED else ''})"

    def _repr_html_(self) -> str:
        pieces = "".join(
            f'<span title="{token.id}" style="background:{GROUNDS[n % 2]}">'
            f"{escape(str(token)).replace('⏎', '⏎<br>')}</span>"
            for n, token in enumerate(self[:DRAWN])
        )
        more = f" and {len(self) - DRAWN:,} more" if len(self) > DRAWN else ""
        return f'<div style="overflow-wrap:anywhere">{pieces}{more}</div>'
