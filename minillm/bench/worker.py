"""One peer in its own process: `python -m minillm.bench.worker PEER FOLDER THREADS`, spoken to in lines of JSON.

Answers {"versions", "threads"} or {"missing"} once, then, for each line {"ids": prompt, "new": n}, the seconds of
prefill and of n decode cycles, the tokens, and the peak memory so far.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter

from .peers import PEERS


def main() -> None:
    name, folder, threads = sys.argv[1:]
    peer = PEERS[name]()
    try:
        peer.load(folder, int(threads))
    except ImportError as error:
        print(json.dumps({"missing": f"{error.name} is not installed"}), flush=True)
        return
    print(json.dumps({"versions": peer.versions, "threads": peer.threads}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = perf_counter()
        tokens = [peer.prefill(request["ids"])]
        first = perf_counter()
        for _ in range(request["new"]):
            tokens.append(peer.decode(tokens[-1]))
        end = perf_counter()
        answer = {"prefill_s": first - start, "decode_s": end - first, "tokens": tokens, "peak_bytes": peak_bytes()}
        print(json.dumps(answer), flush=True)


def peak_bytes() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
