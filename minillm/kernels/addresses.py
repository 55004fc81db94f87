"""Where the kernels are that are called by their address: on disk, or to be compiled, by two
processes where many are, since in one of them Numba compiles one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache

from . import machine_code
from .threads import n_threads

# What takes longest stands at both ends (perform.KERNELS has them all)
ORDER = (
    "attention",
    "tiles",
    "heads",
    "softmax",
    "log_softmax",
    "then",
    "activation",
    "norm",
    "product",
)


@cache
def kernel_at(what: str, name: str) -> int:
    """Where the machine code of a kernel begins: kernel_at("product", "int8")."""

    def kernel():
        from .perform import KERNELS  # and with it Numba

        return KERNELS[what][name]

    return machine_code.address(f"{what}.{name}", kernel)


def have(kernels: Iterable[tuple[str, str]]) -> None:
    """Compile kernels that are not on disk: this process from the one end, and another one, if
    kernels may use two threads, from the other end, until they meet."""
    missing = [kernel for kernel in {*kernels} if not machine_code.linked(".".join(kernel))]
    if len(missing) < 3 or n_threads() == 1 or not sys.executable:
        return
    places = {what: place for place, what in enumerate(ORDER)}
    missing.sort(key=lambda kernel: (places.get(kernel[0], len(places)), kernel))
    command = [sys.executable, "-m", __name__, *map(".".join, reversed(missing))]
    silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        other = subprocess.Popen(command, env=os.environ | paths, **silent)
    except OSError:  # no further process may be started: this one compiles all, as it comes to it
        return
    with other:
        try:
            for kernel in missing:
                kernel_at(*kernel)
        finally:
            other.kill()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if machine_code.linked(name):  # the one who asked has come as far as this
            break
        kernel_at(*name.split("."))
