"""Several processes as one, by MPI: `mpiexec -n 4 python -m minillm score FILE`, and a trainer's
gradients.

Every process (a *rank*, 0 to size - 1) runs the same program; they meet in the methods of
`world()`, which all must call in the same order. Started without mpiexec the world is one process,
its methods cost nothing, and mpi4py is not imported: whoever uses them needs no second way for one
process. Needs the extra `mpi`: mpi4py and an MPI.

Source: Message Passing Interface Forum, "MPI: A Message-Passing Interface Standard" (1994), chapter
4.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, sleep

import numpy as np

from ..errors import InputError, install

# What mpiexec sets in each process: MPICH, Intel's and Microsoft's; PMIx, and with it Open MPI and
# Slurm; old Open MPI.
STARTED_BY_MPI = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
PATIENCE = 5.0  # seconds that a rank which failed waits for the others to fail, too


class World:
    """One process alone: each method does for one rank what it says of all."""

    rank, size = 0, 1

    def barrier(self) -> None:
        """Wait until every rank has come here."""

    def broadcast(self, value):
        """Return rank 0's `value` on every rank: any object, or arrays in any nesting (what others
        give is ignored)."""
        return value

    def all_gather(self, value) -> list:
        """Return every rank's `value`, in the order of ranks, on every rank."""
        return [value]

    def all_reduce_sum(self, arrays: Iterable[np.ndarray]) -> None:
        """Replace each array (float32 or float64, any layout, the same shapes everywhere) by its
        sum over the ranks."""

    def share(self, work: Callable, items: Sequence) -> list:
        """Return [work(item) for item in items] on every rank, item i done by rank i % size.

        Where work raises InputError on any rank, every rank raises it (that of the lowest rank).
        """
        mine, failure = [], None
        try:
            mine = [work(item) for item in items[self.rank :: self.size]]
        except InputError as error:
            failure = error
        results: list = [None] * len(items)
        for rank, (part, failed) in enumerate(self.all_gather((mine, failure))):
            if failed is not None:
                raise failed
            results[rank :: self.size] = part
        return results

    @property
    def cores(self) -> int:
        """How many processor cores are this rank's share of its machine's, at least 1. All must
        ask."""
        return len(_cores())

    def fail(self, message: str, code: int) -> None:
        """Say on stderr why this rank cannot go on: once, where all ranks fail; else end the
        others, which wait for it."""
        print(message, file=sys.stderr, flush=True)


ALONE = World()


class MPIWorld(World):
    """The processes that mpiexec started."""

    def __init__(self, communicator):
        self._all, self.rank, self.size = communicator, communicator.rank, communicator.size

    def barrier(self) -> None:
        self._all.Barrier()

    def broadcast(self, value):
        return self._all.bcast(value)

    def all_gather(self, value) -> list:
        return self._all.allgather(value)

    def all_reduce_sum(self, arrays: Iterable[np.ndarray]) -> None:
        from mpi4py.MPI import IN_PLACE

        for array in arrays:
            total = np.ascontiguousarray(array)
            self._all.Allreduce(IN_PLACE, total)
            array[...] = total

    @property
    def cores(self) -> int:
        from mpi4py import MPI

        here = self.all_gather((MPI.Get_processor_name(), _cores()))
        mine = [cores for name, cores in here if name == here[self.rank][0]]
        return max(1, min(len(_cores()), len(set().union(*mine)) // len(mine)))

    def fail(self, message: str, code: int) -> None:
        if self.rank == 0:
            super().fail(message, code)
        request, deadline = self._all.Ibarrier(), monotonic() + PATIENCE
        while not request.Test():
            if monotonic() > deadline:
                if self.rank:
                    super().fail(f"rank {self.rank}: {message}", code)
                    sleep(0.3)  # what mpiexec has not read when all end is lost
                self._all.Abort(code)
            sleep(0.01)


_world: World | None = None  # what world() has found


def world() -> World:
    """Return the processes that run this program: all that mpiexec started, or this one alone.

    Raises InputError where mpiexec started it and mpi4py, or the MPI that it needs, is not there.
    """
    global _world
    if _world is None:
        _world = _started_by_mpi() if any(name in os.environ for name in STARTED_BY_MPI) else ALONE
    return _world


def fail(message: str, code: int) -> None:
    """World.fail of the world, if it was asked for: else this process is alone."""
    (_world or ALONE).fail(message, code)


def _started_by_mpi() -> World:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise InputError(f"mpiexec needs mpi4py ({error}): {install('mpi4py')}") from None
    return MPIWorld(MPI.COMM_WORLD) if MPI.COMM_WORLD.size > 1 else ALONE


def _cores() -> set[int]:
    """The cores that this process may run on."""
    return (
        os.sched_getaffinity(0)
        if hasattr(os, "sched_getaffinity")
        else set(range(os.cpu_count() or 1))
    )
