"""The fused step with every array between two pages that nobody may touch: whoever reads or writes
one number too far ends the process.

`python tests/kernels/guarded.py` runs all cases, in a process of its own; with the argument
`overrun` it reads one number too far, to show that this is noticed. POSIX only (mprotect).
"""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
import sys
from itertools import product

import numpy as np
from toy_llama import cache_config, resized
from toy_llama import parameters as llama_parameters
from toy_llama import program as llama_program

from minillm.families.gpt2.config import GPT2Config
from minillm.families.gpt2.program import program
from minillm.kernels import decode, table, threads
from minillm.layers.cache import KVCache, SlidingCache
from minillm.model import GPT2
from minillm.weights import KINDS, store

BASE = GPT2Config(vocab_size=131, n_positions=40, n_embd=36, n_layer=2, n_head=3)
CONFIGS = {
    "": BASE,
    "odd F": dataclasses.replace(BASE, n_inner=45, activation_function="relu"),
    "pruned heads": dataclasses.replace(BASE, n_head=2, head_size=12, n_embd=48),
    "head of its own": dataclasses.replace(BASE, tie_word_embeddings=False, n_embd=33, n_head=1),
    "Llama": cache_config(resized(P=40)),  # with 3 threads its 2 key-value heads go by stretches
}
# Passes of [rows, positions]: one row, several rows and positions, and so many that they attend in
# tiles
PASSES = {"one row": [(1, 1)] * 3, "rows": [(3, 1), (3, 2), (3, 1)], "full": [(1, 35), (1, 5)]}
CACHES = {
    "": lambda config, rows, dtype: KVCache(config, rows, dtype=dtype),
    "sliding": lambda config, rows, dtype: SlidingCache(config, rows, 2, dtype),
}


class Guarded:
    """NumPy, with every new array between two pages that nobody may touch: its end directly before
    the one, or its beginning directly after the other."""

    def __init__(self, at_the_end: bool):
        self.at_the_end, self.places = at_the_end, []
        self.protect = ctypes.CDLL(None).mprotect
        self.protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

    def __getattr__(self, name: str):
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return found

        def call(*arguments, **options):
            result = found(*arguments, **options)
            own = isinstance(result, np.ndarray) and result.base is None
            return self.copy(result) if own else result

        return call

    def copy(self, array):
        if not array.size:
            return array
        page = mmap.PAGESIZE
        length = -(-array.nbytes // page) * page
        memory = mmap.mmap(-1, length + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for guard in (start, start + page + length):
            if self.protect(guard, page, 0):  # PROT_NONE
                raise OSError("mprotect failed")
        offset = page + (length - array.nbytes if self.at_the_end else 0)
        copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
        copy[...] = array
        self.places.append((start + offset, start + offset + array.nbytes))
        return copy

    def holds(self, address) -> bool:
        return any(first <= int(address) < end for first, end in self.places)


def logits_of(a_program, cache, passes):
    """The logits of each pass and the keys at last; and the step."""
    step = decode.DecodeStep(a_program)
    ids = iter(np.random.default_rng(1).integers(0, a_program.sizes.V, (200, 3)))
    results = []
    for rows, positions in passes:
        part = np.array([next(ids)[:rows] for _ in range(positions)]).T
        results.append(step(part, cache))
    return [*results, cache.keys], step


def addresses(step):
    """Where all arrays of a step are, as its tables have it."""
    row = table.Row
    columns = [row.NORM_NUMBERS, row.VALUES, row.SCALES, row.MINIMA, row.BIAS, row.FROM, row.TO]
    columns += [row.GATE, row.KEYS_FROM, row.VALUES_FROM, row.QUERY_NORM, row.KEY_NORM]
    yield from step._table[:, columns].ravel()
    job = table.Job
    yield from step._job[[job.X, job.HEAD_SCALES, job.COSINES, job.SINES, job.STATE, job.PARTS]]
    yield step._tiles.ctypes.data if step._tiles.size else 0
    for room in step._rooms:
        yield from [room.ctypes.data, *room[: table.Room.THREAD], *room[table.Room.QUERIES :]]
    for array in (step._table, step._job, step._places, step.stamps, step._taken):
        yield array.ctypes.data


def of_gpt2(config, kind):
    """A function that makes the program of a random model; copy(array) allocates."""
    model, r = GPT2.random(config), np.random.default_rng(0)
    dense = {
        n: p + r.normal(0, 0.1, p.shape).astype(np.float32) for n, p in model.parameters.items()
    }

    def make(copy):
        parameters = {
            name: store(
                p, kind, table=model.layout[name].role == "table", allocate=allocating(copy)
            )
            if model.layout[name].role in ("table", "matrix")
            else copy(p)
            for name, p in dense.items()
        }
        return program(config, parameters)

    return make


def of_llama(config, kind):
    """The same for the other family."""
    sizes = config.sizes
    return lambda copy: llama_program(
        llama_parameters(sizes, [kind], allocate=allocating(copy)), sizes
    )


def allocating(copy):
    return lambda shape, dtype: copy(np.empty(shape, dtype))


def run(make, config, passes, new_cache, dtype, at_the_end: bool) -> None:
    """One case: first as it is, which compiles the kernels, then guarded: the same to the bit."""
    guarded, rows = Guarded(at_the_end), passes[0][0]
    expected, _ = logits_of(make(lambda a: a), new_cache(config, rows, dtype), passes)
    cache = new_cache(config, rows, dtype)
    for name in ("keys", "values", "lengths"):
        setattr(cache, name, guarded.copy(getattr(cache, name)))
    decode.np = threads.np = guarded
    try:
        found, step = logits_of(make(guarded.copy), cache, passes)
    finally:
        decode.np = threads.np = np
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(guarded.holds(address) for address in addresses(step) if address), "not guarded"


def main() -> None:
    threads.judge = lambda *times: None  # beside busy neighbours there would be fewer threads
    count = 0
    for kind, (_, config), (name, passes), sliding, dtype, (n_threads, at_the_end) in product(
        *(KINDS, CONFIGS.items(), PASSES.items(), CACHES, decode.DecodeStep.caches),
        ((1, True), (1, False), (3, True)),
    ):
        if (
            (sliding and name == "full")
            or (dtype == np.float16 and kind != "float32")
            or (not (n_threads == 1 and at_the_end) and name != "rows")
        ):
            continue
        threads.set_threads(n_threads)
        passes = [(rows, 1) for rows, _ in passes] if sliding else passes
        make = (of_gpt2 if isinstance(config, GPT2Config) else of_llama)(config, kind)
        run(make, config, passes, CACHES[sliding], dtype, at_the_end)
        count += 1
    print(f"{count} cases")


if __name__ == "__main__":
    if "overrun" in sys.argv:
        array = Guarded(True).copy(np.zeros(5, np.float32))
        ctypes.c_float.from_address(array.ctypes.data + array.nbytes).value  # noqa: B018
    main()
