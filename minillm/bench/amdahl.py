"""Amdahl's law: what more threads can buy, from what they did.

A token takes t(n) = t(1) (s + (1 - s) / n) on n threads, s being the share of the work that does
not get faster: the speed-up t(1) / t(n) = 1 / (s + (1 - s) / n) never passes 1 / s. What s holds is
more than code that one thread runs alone: threads wait for each other, and they share the memory,
whose speed does not grow with them. Where one thread nearly reaches it, as decoding does, s is
large though all work is shared out.

Source: Amdahl, "Validity of the single processor approach to achieving large scale computing
capabilities" (1967).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import count
from .ledger import Entry


@dataclass(frozen=True)
class Amdahl:
    """How `kind` ("prefill", "decode") of the levers `base` ("plain" for none) speeds up with
    threads [n].

    measured: t(1) / t(n) [rounds,n]; serial: s fitted in each round [rounds].
    """

    base: str
    kind: str
    threads: np.ndarray
    measured: np.ndarray
    serial: np.ndarray

    def line(self, n):
        """The speed-up on n threads by the law, with the median s."""
        s = np.median(self.serial)
        return 1 / (s + (1 - s) / np.asarray(n, float))

    @property
    def fits(self) -> bool:
        """Whether s is a share of the work in every round; else something else took the time."""
        return self.serial.min() >= -0.05 and self.serial.max() <= 1.05

    def __str__(self) -> str:
        s, low, high = np.median(self.serial), self.serial.min(), self.serial.max()
        rates = ", ".join(
            f"{count(n, 'thread')} {rate:.2f}"
            for n, rate in zip(self.threads[1:], np.median(self.measured, axis=0)[1:])
        )
        over = f"({low:.2f} to {high:.2f} over rounds)"
        if not self.fits:
            why = "more threads made it slower" if low >= 1 else "too noisy to fit"
            verdict = f"no serial share, {why} {over}: repeat it while nothing else runs here"
        else:
            most = f"at most {1 / s:.1f} times" if s > 0 else "no bound to be seen"
            verdict = f"serial share {s:.2f} {over}: {most}"
        return f"{self.base}, {self.kind}: {rates}; {verdict}"

    def to_dict(self) -> dict:
        """JSON-able values."""
        measured = np.median(self.measured, axis=0).tolist()
        return {
            "levers": self.base,
            "kind": self.kind,
            "threads": self.threads.tolist(),
            "speed_up": measured,
            "serial_share": self.serial.tolist(),
        }


def serial_shares(threads: Sequence[int], seconds) -> np.ndarray:
    """Return s of each round: least squares of t(n) = a + b / n in seconds [rounds,n], s = a / (a +
    b)."""
    a, b = np.polynomial.polynomial.polyfit(
        1 / np.asarray(threads, float), np.transpose(seconds), 1
    )
    return a / (a + b)


def amdahl(entries: Sequence[Entry]) -> list[Amdahl]:
    """Return a fit for every set of levers that was measured on one thread and on more: "threads:N"
    and the same without.

    Entries in which a round is missing are left out.
    """
    series: dict[str, dict[int, Entry]] = {}
    for e in entries:
        base = (
            "+".join(part for part in e.levers.split("+") if not part.startswith("threads:"))
            or "plain"
        )
        if e.decode and len(e.decode) == len(entries[0].decode):
            series.setdefault(base, {})[e.threads] = e
    fits = []
    for base, by_threads in series.items():
        threads = sorted(by_threads)
        if len(threads) > 1 and threads[0] == 1:
            for kind in ("prefill", "decode"):
                seconds = 1 / np.array([getattr(by_threads[n], kind) for n in threads]).T
                fits.append(
                    Amdahl(
                        base,
                        kind,
                        np.array(threads),
                        seconds[:, :1] / seconds,
                        serial_shares(threads, seconds),
                    )
                )
    return fits
