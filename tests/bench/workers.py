"""Peers made for tests, and where they work: `python -m tests.bench.workers` is a worker that knows
them, `Thread` one that needs no process."""

from __future__ import annotations

import ctypes
import os
import queue
import sys
import threading
from pathlib import Path
from time import sleep

import numpy as np

from minillm import GPT2Config, InputError
from minillm.bench import worker
from minillm.bench.peers import PEERS, Peer
from minillm.machine.child import Ended, how_it_ended

ENDED = "it ended the interpreter (exit code {})"
CONFIG = GPT2Config(vocab_size=97, n_positions=32, n_embd=16, n_layer=2, n_head=2)


class Steady(Peer):
    """Counts: every token is one more than the last; 2 ms a token of the prompt, 4 ms a decode
    step, of one text or of several."""

    def load(self, folder, threads):
        self.versions = {"steady": "1"}
        self.threads = threads
        self.weight_bytes = 1000
        self.cache_bytes = 10

    def prefill(self, ids):
        sleep(0.002 * len(ids))
        return ids[-1] + 1

    def decode(self, token):
        sleep(0.004)
        return token + 1

    def hold(self, prompts, n_new):
        self.prompts = prompts

    def go_back(self, batch, T):
        assert self.prompts.shape[1] == T

    def read_each(self, ids):
        """After token i, that of i + 2 is i / 1000 less likely than the next."""
        logits, rows = np.zeros((len(ids), 2 * CONFIG.vocab_size)), np.arange(len(ids))
        logits[rows, self.decode(ids)], logits[rows, ids + 2] = 1, 1 - ids / 1000
        return logits


class Other(Steady):
    """Gives other tokens from the third on."""

    bits = 8

    def decode(self, token):
        return super().decode(token) + (token > 5)


class Untidy(Other):
    """Leaves a file, and talks where the answers go."""

    def load(self, folder, threads):
        super().load(folder, threads)
        Path(os.environ["TMPDIR"], "left behind").write_text("x")

    def decode(self, token):
        print("chatty")
        ctypes.CDLL(None).puts(b"chatty in C") if os.name != "nt" else None
        return super().decode(token)


class Absent(Steady):
    def load(self, folder, threads):
        import no_such_library  # noqa: F401


class Unable(Steady):
    def load(self, folder, threads):
        raise InputError("this engine has no such GPT-2")


class Broken(Steady):
    def load(self, folder, threads):
        raise RuntimeError("symbol not found")


class Dying(Steady):
    def decode(self, token):
        sys.exit(7)


class Alone(Steady):
    """Does not decode several texts together."""

    hold = Peer.hold


class Babbling(Steady):
    """Breaks the protocol, see the end of this file."""


FAKES = {
    "minillm-steady": Steady,
    "engine-other": Other,
    "engine-absent": Absent,
    "engine-unable": Unable,
}
FAKES |= {"engine-broken": Broken, "engine-dying": Dying, "babbling": Babbling}
FAKES |= {"untidy": Untidy, "alone": Alone}


class Idle(Steady):
    """The machine, which measures nothing."""

    libraries = None

    def measure(self, ids, n_new):
        return {"bandwidth": 1e10, "flops": 1e12}


class Thread:
    """A machine.child.Child whose worker is a thread of this process."""

    def __init__(self, command, *_):
        self.asked, self.answers = queue.Queue(), queue.Queue()
        threading.Thread(target=self.work, args=command[3:], daemon=True).start()

    def work(self, *arguments):
        try:
            worker.serve(self.listen, self.answers.put, *arguments)
            code = 0
        except SystemExit as ended:
            code = ended.code
        except Exception:
            code = 1
        self.answers.put(code)

    def listen(self):
        if (message := self.asked.get()) is None:
            sys.exit()
        return message

    def ask(self, message):
        self.asked.put(message)
        return self.answer()

    def answer(self):
        if isinstance(answer := self.answers.get(), dict):
            return answer
        self.answers.put(answer)  # for who asks again
        raise Ended(how_it_ended(answer))

    def close(self):
        self.asked.put(None)


if __name__ == "__main__":
    if sys.argv[1] == "babbling":
        print("hello", flush=True)
        sys.exit()
    PEERS.update(FAKES)
    worker.Machine = Idle
    worker.main()
