"""One peer in its own process: `python -m minillm.bench.worker PEER FOLDER THREADS [CACHE_DTYPE]`,
spoken to in lines of JSON.

Answers SAID or {"missing": reason} once, then, for each line {"ids": prompt, "n_new": n}, what the
peer's `measure` returns (its `measure_batch` where a "batch" is asked for), or {"missing": reason},
and the peak memory so far. Whatever else the peer's libraries print on
standard output goes to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from ..errors import InputError, not_imported
from ..machine.child import answering, listening
from ..machine.memory import peak_bytes
from .peers import PEERS
from .roofline import MACHINE, Machine
from .trainers import TRAINERS

SAID = ("versions", "threads", "weight_bytes", "cache_bytes", "libraries")  # see peers.Peer


def main() -> None:
    answer = answering(printed=2)
    listen, _ = listening()
    serve(listen, answer, *sys.argv[1:])


def serve(
    listen: Callable[[], dict],
    answer: Callable[[dict], None],
    name: str,
    folder: str,
    threads: str,
    *cache_dtype: str,
) -> None:
    """Be the peer `name`: answer what `listen` hears, until that ends it."""
    peer = Machine() if name == MACHINE else (PEERS | TRAINERS)[name]()
    if cache_dtype:
        peer.cache_dtype = cache_dtype[0]
    try:
        peer.load(folder, int(threads))
    except ImportError as error:
        answer({"missing": not_imported(error, *peer.needs)})
        return
    except InputError as error:
        answer({"missing": str(error)})
        return
    answer({key: getattr(peer, key) for key in SAID})
    while True:
        request = listen()
        try:
            said = (peer.measure_batch if "batch" in request else peer.measure)(**request)
        except InputError as error:
            said = {"missing": str(error)}
        answer(said | {"peak_bytes": peak_bytes()})


if __name__ == "__main__":
    main()
