"""The fused step: a whole model for one new position, or for hundreds, in one call of one kernel.

The second of the two forwards; the readable one is the family's, and tests hold both equal. New
positions may be of one text (a chunk of the prompt, guesses to verify) or of several (a batch): one
or the other, each knows its own place in the cache. What is computed is the family's program
(program.py), kept as a table of numbers: what an instruction does is a kernel that is called by its
address, and where its arrays are stands beside it. All threads run `perform` side by side on a
workspace made beforehand. Each owns a share of every product's outputs and of the heads; what is
cheap (norms, rounding a product's input to 8 bits) every thread does for itself, because that is
faster than waiting for another to do it. So a block of GPT-2 has five places where all must `meet`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import accumulate, count
from operator import add
from weakref import WeakSet

import numpy as np

from . import machine_code
from .addresses import have, kernel_at
from .checks import require, row_numbers
from .forms import BLOCK_ROOM, KEYS, PAIR_ROOM, QUERIES, flat_panels, room_for_tiles
from .pages import give_back
from .program import Instruction, Program
from .table import FEW, JOB, PLACE, ROW, Job, Place, Row
from .threads import Team, n_threads, threads_now

NOT_FINITE, LANES = int(Job.NOT_FINITE), int(Job.LANES)
# Which kernels there are (perform.py): names, since to import them is to import Numba
NORMS = ("layer_norm", "rms_norm")
PRODUCTS = ("float32", "bfloat16", "bfloat16_rounded", "float16", "int8", "int4", "int4_min")
ACTIVATIONS = ("gelu_new", "gelu", "relu", "silu")
THEN = {"attend": "attend", "residual": "residual", **dict.fromkeys(ACTIVATIONS, "activate")}
CACHES = {np.dtype(name): name for name in ("float32", "float16")}


def prepares(program: Program) -> bool:
    """Whether queries and keys are normed or turned before they meet."""
    return program.rotation is not None or any(step.head_norms for step in program.instructions)


class DecodeStep:
    """A model for at most MOST new positions at a time, of several texts at once at most FEW if any
    has more than one: step(ids [B,T], cache) -> logits [B,T,V].

    program: the family's; every matrix is a Weight of a kind in PRODUCTS, everything else float32.
    `stamps` holds the `ticks` at which each of `names` was finished in the last call.
    """

    MOST = 512
    # the dtypes of a KVCache that it can use
    caches = tuple(CACHES) if machine_code.HAS_HALVES else (np.dtype(np.float32),)

    def __init__(self, program: Program):
        if refusal := self.refusal(program):
            raise ValueError(refusal)
        widths, sizes = program.check(), program.sizes
        have(self.kernels(program))
        self.program, self.names = program, program.stamps
        self.stamps = np.zeros(len(self.names), np.int64)
        # Tables hold addresses: arrays are kept alive. Rows have room for whole blocks of 32;
        # what lies beyond the inputs stays zero. Memory that is never written is never taken.
        self._kept_alive, self._workspace, self._many = [], [], False
        self._widths = {name: -(-width // 32) * 32 for name, width in widths.items()}
        self._buffers = dict.fromkeys(self._widths, 0)
        for name in self._widths.keys() - {"", "logits"}:
            self._buffers[name] = self._at(self._rows(self._widths[name]))
        self._table = np.zeros((len(program.instructions), ROW), np.int64)
        layers = count()
        for row, step in zip(self._table, program.instructions):
            self._fill(row, step, layers)
        self._x = self._rows(sizes.C)
        self._places = np.zeros((self.MOST, PLACE), np.int64)
        self._taken = np.zeros(len(self._table), np.int64)
        self._job = np.zeros(JOB, np.int64)
        self._job_at = self._job.ctypes.data
        # What a call changes, as views: an enumeration's member costs Python 0.2 us
        self._call, self._logits_at = self._job[Job.ROWS :], self._table[-1:, Row.TO]
        self._rows_at, self._keep = self._places[:, : Place.KEEP], self._places[:, Place.KEEP]
        self._logits_width = int(self._table[-1, Row.TO_WIDTH])
        self._job[: Job.COSINES] = (
            self._x.ctypes.data,
            sizes.C,
            self._widths[""],
            sizes.H,
            sizes.K,
            sizes.D,
            self._at(np.array(program.scales, np.float32)),
        )
        self._job[Job.TABLE : Job.ROWS] = (
            self._table.ctypes.data,
            len(self._table),
            self._places.ctypes.data,
            self.stamps.ctypes.data,
            self._taken.ctypes.data,
        )
        if prepares(program):
            self._job[Job.PREPARE] = kernel_at("heads", "prepare")
        self._turned = range(0)  # positions for which there are cosines and sines
        self._tiles = np.empty(0, np.float32)
        self._one_at_a_time = threading.Lock()  # there is one workspace
        self._team, self._rooms = Team(0), []
        self._perform = machine_code.function(kernel_at("pass", "perform"), 2)
        _steps.add(self)

    @staticmethod
    def kernels(program: Program) -> Iterator[tuple[str, str]]:
        """Those that are called up to the first token: what they do, and which."""
        for step in program.instructions:
            if step.norm:
                yield "norm", step.norm.kind
            if step.weight is not None:
                yield "product", step.weight.kind
            if step.then:
                yield "then", THEN[step.then]
            if step.then in ACTIVATIONS:
                yield "activation", step.then
        if prepares(program):
            yield "heads", "prepare"
        yield from [("attention", "float32"), ("pass", "perform")]
        yield from [("softmax", "float32"), ("log_softmax", "float32")]  # of logits

    def _at(self, array) -> int:
        """The address of an array, which is kept alive; 0 where it is empty, or None."""
        self._kept_alive.append(array)
        return array.ctypes.data if array is not None and array.size else 0

    def _rows(self, width: int) -> np.ndarray:
        """Memory for as many rows as there can be, given back after passes of many."""
        self._workspace.append(rows := np.zeros((self.MOST, width), np.float32))
        return rows

    def _turn(self, first: int, end: int) -> None:
        """Have cosines and sines for the positions first to end.

        Up to the model's last position for all from 0 on, each time for at least twice as many as
        before; beyond it, where a sliding window goes on for ever, for as many as the model has.
        """
        if self._turned.start <= first and end <= self._turned.stop:
            return
        P, D = self.program.sizes.P, self.program.sizes.D
        if end <= P:
            first, end = 0, min(end + self._turned.stop, P)
        else:
            end = max(end, first + P)
        turns = self.program.rotation(np.arange(first, end))
        self._turned = range(0)  # none, if a Ctrl-C comes now
        self._turns = [np.array(numbers, order="C") for numbers in turns]
        # the kernel counts from where position 0 would be
        places = [numbers.ctypes.data - 4 * (D // 2) * first for numbers in self._turns]
        self._job[[Job.COSINES, Job.SINES]] = places
        self._turned = range(first, end)

    def _fill(self, row, step: Instruction, layers) -> None:
        """Write an instruction into its row of the table; layers: counts those that attend."""
        row[[Row.TO, Row.TO_WIDTH]] = self._buffers[step.target], self._widths[step.target]
        row[[Row.LOGITS, Row.MEET]] = step.target == "logits", step.meet
        if norm := step.norm:
            bias = np.zeros(len(norm.weight)) if norm.bias is None else norm.bias
            numbers = np.concatenate([norm.weight, bias, [norm.eps]], dtype=np.float32)
            row[[Row.NORM, Row.NORM_NUMBERS]] = kernel_at("norm", norm.kind), self._at(numbers)
        if step.then:
            row[Row.THEN] = kernel_at("then", THEN[step.then])
        if step.then in ACTIVATIONS:
            row[Row.ACTIVATION] = kernel_at("activation", step.then)
            row[Row.GATE] = self._buffers[step.gate]
        if step.then == "attend":
            H, K, D = (getattr(self.program.sizes, letter) for letter in "HKD")
            row[[Row.LAYER, Row.PANELS]] = next(layers), K
            apart = len(step.sources) > 1  # else q, k and v lie side by side
            starts = (0, 0, 0) if apart else (0, H * D, (H + K) * D)
            places = (Row.FROM, Row.KEYS_FROM, Row.VALUES_FROM)
            for place, source, start in zip(places, step.sources * (1 if apart else 3), starts):
                row[place] = self._buffers[source] + 4 * start
                row[place + 1] = self._widths[source]
            for place, norm in zip((Row.QUERY_NORM, Row.KEY_NORM), step.head_norms):
                row[place] = self._at(np.concatenate([norm.weight, [norm.eps]], dtype=np.float32))
            return
        weight, stored = step.weight, flat_panels(step.weight)
        if weight.kind == "bfloat16_rounded":
            machine_code.say_without_pairs()
        panels, width = stored[0].shape
        bias = np.zeros(0, np.float32) if step.bias is None else step.bias
        row[[Row.PRODUCT, Row.PANELS]] = kernel_at("product", weight.kind), panels
        row[[Row.INPUTS, Row.WIDTH]] = weight.shape[0], width
        row[[Row.FROM, Row.FROM_WIDTH]] = self._buffers[step.source], self._widths[step.source]
        row[Row.BIAS] = self._at(np.pad(bias, (0, 16 * panels - len(bias))))
        for column, array in zip((Row.VALUES, Row.SCALES, Row.MINIMA), stored):
            row[column] = self._at(array)
        if step.target == "logits":  # which are another array at every call
            row[Row.TO_WIDTH] = 16 * panels

    @staticmethod
    def refusal(program: Program) -> str | None:
        """Why this program cannot be run here, or None. Then the readable forward serves."""
        steps = program.instructions
        weights = [(step.name, step.weight, True) for step in steps if step.weight is not None]
        for name, p, transposed in [("the table of tokens", program.tokens, False), *weights]:
            if getattr(p, "kind", None) not in PRODUCTS:
                return (
                    f"{name} is not a stored weight; the fused step multiplies by"
                    f" {', '.join(PRODUCTS)}"
                )
            if p.transposed != transposed:
                return (
                    f"{name} is stored the other way round: a table as it is, a matrix [in,out]"
                    " transposed"
                )
        for name, p in program.arrays():
            if p.dtype != np.float32:
                return f"{name} is {p.dtype}; the fused step computes in float32"
        named = [(step.then, THEN) for step in steps if step.then]
        named += [(step.norm.kind, NORMS) for step in steps if step.norm]
        named += [(norm.kind, ("rms_norm",)) for step in steps for norm in step.head_norms]
        for name, known in named:
            if name not in known:
                return f"the fused step knows {', '.join(known)}, not {name}"
        return None

    def fits(self, cache, lengths: list[int]) -> bool:
        """Whether it can read `lengths` [B] more ids of each row into this cache, which is one of
        this model."""
        return (
            sum(lengths) <= (self.MOST if len(lengths) == 1 or max(lengths) == 1 else FEW)
            and len(cache.lengths) == len(lengths)
            and cache.keys.dtype in self.caches
            and max(past + n for past, n in zip(cache.lengths.tolist(), lengths)) <= cache.capacity
            and (max(lengths) == 1 or not cache.one_at_a_time)
        )

    def __call__(
        self, ids, cache, lengths: list[int] | None = None, *, last=False, tell=None
    ) -> np.ndarray | None:
        """Logits [B,T,V] after more ids [B,T] in every row of a KVCache (float32, or float16),
        which grows by them.

        lengths [B]: how many ids of each row are real. last: only the last of these, [B,1,V];
        otherwise none may be padding. tell: called as tell(names, ticks) with what was finished
        when. None, and the cache has not grown, where infinity or NaN met blocks of 8 bits, which
        do not hold them: the readable forward does. Raises ValueError for what does not fit.
        """
        B, T = np.shape(ids)
        lengths = [T] * B if lengths is None else lengths
        self._check_cache(cache, B)
        if len(lengths) != B or not 1 <= min(lengths) <= max(lengths) <= T:
            raise ValueError(f"lengths {lengths} do not fit {B} rows of {T} ids")
        if not self.fits(cache, lengths) or not (last or min(lengths) == T):
            raise ValueError(f"{lengths} more ids do not fit into {cache}, or not into one pass")
        ids = row_numbers(ids, self.program.sizes.V, "ids", "tokens")
        return self.run(ids, cache, lengths, last, tell)

    def _check_cache(self, cache, B: int) -> None:
        """Raise ValueError unless the arrays of a KVCache are those of this model: keys and values
        are written by their address."""
        s, keys, values = self.program.sizes, cache.keys, cache.values
        places = keys.shape[3] if keys.ndim == 5 else 0
        shape = (s.L, B, s.K, places, s.D)
        require(keys=(keys, shape), values=(values, shape, keys.dtype))
        require(lengths=(cache.lengths, (B,), np.int64))
        if (
            not 1 <= places <= min(cache.capacity, s.P)
            or (self.program.positions is not None and cache.capacity > s.P)
            or cache.lengths.min() < 0
            or values.strides != keys.strides
            or keys.strides[3:] != (s.D * keys.itemsize, keys.itemsize)
            or not all(a.flags.behaved for a in (keys, values, cache.lengths))
        ):
            raise ValueError(
                f"the cache has {places} places of {cache.capacity}, the model {s.P}, and lengths"
                f" {cache.lengths.tolist()}; keys and values must be writable and lie in memory"
                " alike, a head's rows in turn"
            )

    def run(self, ids, cache, lengths: list[int], last: bool, tell) -> np.ndarray | None:
        """The step itself. Nothing is checked here: ids are of the vocabulary, the cache `fits`."""
        program = self.program
        # of each new position, as the others
        tokens = [token for row, n in zip(ids.tolist(), lengths) for token in row[:n]]
        keys, threads, past = cache.keys, threads_now(), cache.lengths.tolist()
        (layer_bytes, row_bytes, head_bytes, *_), capacity = keys.strides, keys.shape[3]
        k, v = keys.ctypes.data, cache.values.ctypes.data
        places = [
            (k + b * row_bytes, v + b * row_bytes, past[b] + t, min(past[b] + n, capacity))
            for b, n in enumerate(lengths)
            for t in range(n)
        ]
        kept = [end - 1 for end in accumulate(lengths)] if last else range(len(tokens))
        logits = np.empty((len(kept), self._logits_width), np.float32)
        with self._one_at_a_time:
            again = self._team.n == threads and self._job[LANES] == n_threads()
            if not again:
                self._gather(threads, n_threads())
            # many positions of one text attend in tiles
            many = len(past) == 1 and len(tokens) > FEW
            if self._many and len(tokens) <= FEW:
                for array in (*self._workspace, self._parts, self._tiles):
                    give_back(array)
            self._many = len(tokens) > FEW
            if self.program.rotation is not None:
                self._turn(min(past), max(map(add, past, lengths)))
            self._call[:] = (
                len(tokens),
                len(kept),
                kernel_at("tiles" if many else "attention", CACHES[keys.dtype]),
                capacity,
                layer_bytes,
                head_bytes,
                self._room_for_tiles(places[-1][-1]) if many else 0,
                0,
            )
            self._rows_at[: len(tokens)], self._keep[: len(kept)] = places, kept
            self._logits_at[0] = logits.ctypes.data
            table, positions = program.tokens, program.positions
            for x, token, (_, _, position, _) in zip(self._x, tokens, places):
                # what take does, without its checks
                row = table.decode(*divmod(token, 16))[: table.k]
                if positions is None:
                    x[:] = row
                else:
                    np.add(row, positions[position], out=x)
            if len(tokens) > FEW:
                self._taken[:] = 0
            self._team.run(lambda i: self._perform(self._job_at, self._rooms_at[i]), again)
            if self._job[NOT_FINITE]:
                return None
            # `advance`, in half the time
            cache.lengths[:] = [before + n for before, n in zip(past, lengths)]
            if tell:
                tell(self.names, self.stamps.tolist())
        return logits[:, : program.sizes.V].reshape(len(ids), -1, program.sizes.V)

    def _gather(self, threads: int, lanes: int) -> None:
        """Make a team of so many threads, and room for each, and for stretches in so many lanes."""
        s = self.program.sizes
        self._job[LANES] = 0  # nobody's, if a Ctrl-C comes before all is there
        self._team = Team(threads)
        self._rooms += [self._room(i) for i in range(len(self._rooms), threads)]
        self._rooms_at = [room.ctypes.data for room in self._rooms]
        n_parts = lanes * self.MOST * s.H if s.K % lanes else 0
        self._parts = np.zeros((n_parts, s.D + 2), np.float32)
        state = self._team.state.ctypes.data
        self._job[[Job.THREADS, Job.STATE]] = threads, state
        if n_parts:
            self._job[[Job.PARTS, Job.MERGE]] = self._parts.ctypes.data, kernel_at("heads", "merge")
        self._job[LANES] = lanes

    def _room_for_tiles(self, n_keys: int) -> int:
        """Where one layer's keys and values, so many of each head, have room in tiles."""
        s = self.program.sizes
        size = s.K * -(-n_keys // KEYS) * KEYS * (s.D + -(-s.D // 16) * 16)
        if len(self._tiles) < size:
            self._tiles = np.empty(size, np.float32)
        return self._tiles.ctypes.data

    def _start_anew(self) -> None:
        """In the child of a fork: who was at work in this workspace is not there any more."""
        self._one_at_a_time, self._team = threading.Lock(), Team(0)

    def _room(self, thread: int):
        """What one thread has for itself: see Room."""
        blocks = self.MOST * int(self._table[:, Row.FROM_WIDTH].max()) // 32
        room = [
            self._rows(self._widths[""]),
            self._rows(blocks // self.MOST * 32),  # as float32; as int8 in a fourth of it
            np.zeros(blocks, np.float32),
            np.zeros(blocks, np.int32),
            np.zeros(self.program.sizes.P, np.float32),
            np.zeros(self.program.sizes.D, np.float32),
        ]
        in_tiles = [
            np.zeros((QUERIES, self.program.sizes.D), np.float32),
            np.zeros(room_for_tiles(self.program.sizes.D), np.float32),
            np.zeros(blocks // self.MOST * max(BLOCK_ROOM, PAIR_ROOM), np.int32),
        ]
        addresses = ([self._at(array) for array in arrays] for arrays in (room, in_tiles))
        return np.array([*next(addresses), thread, 0, *next(addresses)])


_steps: WeakSet[DecodeStep] = WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [step._start_anew() for step in _steps])
