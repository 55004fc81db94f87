"""Text that streams: no half characters, nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from ..errors import InputError, several, short
from ..tokenizer import Tokenizer


class TextStream:
    """Tokens in, text out as soon as it is certain.

    Bytes that begin a character wait for its end; text that may begin a stop string waits until it
    cannot. From a stop string on, nothing is shown.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] | str = ()):
        what = "text of at least one character, or several"
        self.stop = (stop,) if isinstance(stop, str) else tuple(several("stop", stop, what))
        if not all(isinstance(s, str) and s for s in self.stop):
            raise InputError(f"stop is {short(stop)}; it must be {what}")
        self.tokenizer, self.stopped = tokenizer, False
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting = ""

    def push(self, token: int, last: bool = False) -> str:
        """Return the text that `token` makes certain; with `last`, all that is left. Sets `stopped`
        at a stop string."""
        return self._release(self.tokenizer.decode_bytes([token]), last)

    def flush(self) -> str:
        """Return all that is left, when the text ended in a token that is not text."""
        return self._release(b"", last=True)

    def _release(self, data: bytes, last: bool) -> str:
        self._waiting += self._decoder.decode(data, final=last)
        found = [at for s in self.stop if (at := self._waiting.find(s)) >= 0]
        if found:
            self.stopped = True
            certain = min(found)
        else:
            certain = len(self._waiting) - (0 if last else self._begun())
        text, self._waiting = self._waiting[:certain], self._waiting[certain:]
        return text

    def _begun(self) -> int:
        """The length of the longest end of the waiting text with which a stop string begins."""
        longest = max((len(s) for s in self.stop), default=1) - 1
        ends = range(min(longest, len(self._waiting)), 0, -1)
        return next(
            (n for n in ends if any(s.startswith(self._waiting[-n:]) for s in self.stop)), 0
        )
