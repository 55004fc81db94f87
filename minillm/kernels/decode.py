"""The fused decode step: the whole of GPT-2 for one new position, or a few, in one call of one
kernel.

The second of the two forwards; the readable one is model.py, and tests hold both equal. New
positions may be of one text (a chunk of the prompt, guesses to verify) or of several (a batch): one
or the other, each knows its own place in the cache. All threads run `decode_kernel` side by side on
a workspace made beforehand. Each owns a share of every product's outputs and of the heads; what is
cheap (norms, rounding a product's input to 8 bits) every thread does for itself, because that is
faster than waiting for another to do it. So a block has five places where all must `meet`.
"""

from __future__ import annotations

import math
import os
import threading
from itertools import accumulate
from weakref import WeakSet

import numpy as np

from ..layers.cache import check_fits
from .checks import require, row_numbers
from .compile import entry, helper, jit
from .mathematics import exp
from .matrices import flat_panels
from .memory import array_at, call, kernel_at, row_at, ticks
from .processor import HAS_HALVES
from .products import (
    float_matmul,
    float_matvec,
    int4_matmul,
    int4_matvec,
    int8_matmul,
    int8_matvec,
    quantize,
)
from .rows import normalize_row
from .streaming import attend
from .threads import Team, called_again, meet, threads_now
from .vectors import stored_like

MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")  # the four products of a block
TABLES = ("wte.weight", "lm_head.weight")
# The columns of the table of matrices: which kernel multiplies; panels, inputs, numbers in a panel;
# where values, scales, minima and biases are; where the rows to be multiplied are (0: in the
# thread's own room), where their products go, widths.
MATRIX = (
    PRODUCT,
    PANELS,
    INPUTS,
    WIDTH,
    VALUES,
    SCALES,
    MINIMA,
    BIAS,
    FROM,
    FROM_WIDTH,
    TO,
    TO_WIDTH,
) = tuple(range(12))
# The job: first what is the same at every call, then the call's own. Which kernel bends the hidden
# layer; of the heads: how many, numbers in one, their scales, where q, k and v and the results are,
# widths. New positions, those of them whose logits are wanted, which kernel attends; of the cache:
# places in a row, bytes from one layer's keys to the next layer's, and from one head's to the next
# head's.
JOB = ACTIVATE, HEADS, HEAD_DIM, HEAD_SCALES, QKV, QKV_WIDTH, CONTEXT, CONTEXT_WIDTH, *CALL = tuple(
    range(14)
)
ROWS, KEPT, ATTEND, CAPACITY, LAYER_BYTES, HEAD_BYTES = CALL
# Of each new position: where its row of the cache begins, its position; and apart from that, the
# r-th whose logits are wanted.
PLACE = KEYS_AT, VALUES_AT, POSITION, KEEP = tuple(range(4))
# A thread's own room: for a product's rows, for these in blocks of 8 bits with their scales and
# sums, for scores; and whether numbers that are not finite were to be put into such blocks.
ROOM = INPUT, Q, Q_SCALES, Q_SUMS, SCORES, NOT_FINITE = tuple(range(6))
# What is finished at each time stamp: of a block, and after all blocks.
BLOCK_STAMPS = (
    "ln_1",
    "attn.c_attn",
    "attn.context",
    "attn.residual",
    "ln_2",
    "mlp.act",
    "mlp.residual",
)
LAST_STAMPS = ("ln_f", "logits")


# ---- what the step calls by its address: each kernel is compiled when a model first needs it


def float_product(dtype):
    """The product for matrices of float32, of bfloat16 as uint16, or of float16 as int16."""

    @entry
    def product(matrix_at, first, end, R, h_at, room_at):
        """Panels first to end of y = h W + bias, for R rows."""
        matrix = row_at(matrix_at, len(MATRIX), np.int64)
        panels = array_at(matrix[VALUES], matrix[PANELS], matrix[WIDTH], dtype)[first:end]
        h, (bias, y) = (
            array_at(h_at, R, matrix[FROM_WIDTH], np.float32),
            bias_and_outputs(matrix, R),
        )
        if R == 1:
            float_matvec(panels, h[0, : matrix[INPUTS]], bias, y[0], 16 * first)
        else:
            float_matmul(panels, h, bias, y, 16 * first)

    return product


@entry
def int8_product(matrix_at, first, end, R, h_at, room_at):
    """The same for blocks of 8 bits; the rows are rounded to 8 bits first."""
    matrix = row_at(matrix_at, len(MATRIX), np.int64)
    (values, w_scales), (q, scales, sums) = (
        stored_blocks(matrix, first, end),
        rounded(matrix, R, h_at, room_at),
    )
    bias, y = bias_and_outputs(matrix, R)
    if R == 1:
        int8_matvec(values, w_scales, q[0], scales[0], sums[0], bias, y[0], 16 * first)
    else:
        int8_matmul(values, w_scales, q, scales, sums, bias, y, 16 * first)


@entry
def int4_product(matrix_at, first, end, R, h_at, room_at):
    """The same for blocks of 4 bits, with or without minima."""
    matrix = row_at(matrix_at, len(MATRIX), np.int64)
    (values, w_scales), (q, scales, sums) = (
        stored_blocks(matrix, first, end),
        rounded(matrix, R, h_at, room_at),
    )
    minima = array_at(
        matrix[MINIMA], matrix[PANELS], w_scales.shape[1] if matrix[MINIMA] else 0, np.int16
    )[first:end]
    bias, y = bias_and_outputs(matrix, R)
    if R == 1:
        int4_matvec(values, w_scales, minima, q[0], scales[0], sums[0], bias, y[0], 16 * first)
    else:
        int4_matmul(values, w_scales, minima, q, scales, sums, bias, y, 16 * first)


@helper
def stored_blocks(matrix, first, end):
    """Panels first to end: values uint8 [P, all of a panel], and their scales, float16 as int16 [P,
    16 B]."""
    values = array_at(matrix[VALUES], matrix[PANELS], matrix[WIDTH], np.uint8)[first:end]
    return (
        values,
        array_at(matrix[SCALES], matrix[PANELS], matrix[FROM_WIDTH] // 2, np.int16)[first:end],
    )


@helper
def rounded(matrix, R, h_at, room_at):
    """R rows in blocks of 8 bits, in a thread's room: q, four numbers to an int32 [R, 8 B]; scales
    and sums [R, B]."""
    room, blocks = row_at(room_at, len(ROOM), np.int64), matrix[FROM_WIDTH] // 32
    n = R * blocks
    scales, sums = row_at(room[Q_SCALES], n, np.float32), row_at(room[Q_SUMS], n, np.int32)
    q = array_at(room[Q], n, 32, np.int8)
    if not quantize(array_at(h_at, n, 32, np.float32), q, scales, sums):
        room[NOT_FINITE] = 1
    return (
        array_at(room[Q], R, 8 * blocks, np.int32),
        scales.reshape((R, blocks)),
        sums.reshape((R, blocks)),
    )


@helper
def bias_and_outputs(matrix, R):
    """Where the sums start, [all outputs], and where they go, [R, all outputs or more]."""
    return row_at(matrix[BIAS], 16 * matrix[PANELS], np.float32), array_at(
        matrix[TO], R, matrix[TO_WIDTH], np.float32
    )


def head_attention(dtype):
    """Attention for a cache of float32, or of float16 as int16."""

    @entry
    def attention(head, layer, job_at, places_at, scores_at):
        """One head of one layer, for every new position: put its key and value into the cache, then
        attend."""
        job = row_at(job_at, len(JOB), np.int64)
        R, H, S, D = job[ROWS], job[HEADS], job[CAPACITY], job[HEAD_DIM]
        places, scale = (
            array_at(places_at, R, len(PLACE), np.int64),
            row_at(job[HEAD_SCALES], layer + 1, np.float32)[layer],
        )
        qkv = array_at(job[QKV], R, job[QKV_WIDTH], np.float32)
        context = array_at(job[CONTEXT], R, job[CONTEXT_WIDTH], np.float32)
        start, there = head * D, layer * job[LAYER_BYTES] + head * job[HEAD_BYTES]
        for r in range(
            R
        ):  # all new keys and values first: a position may be seen by the one behind it
            place = places[r, POSITION] % S
            key = array_at(places[r, KEYS_AT] + there, S, D, dtype)[place]
            value = array_at(places[r, VALUES_AT] + there, S, D, dtype)[place]
            for d in range(D):
                key[d] = stored_like(qkv[r, H * D + start + d], key[d])
                value[d] = stored_like(qkv[r, 2 * H * D + start + d], value[d])
        for r in range(R):
            seen, here = min(places[r, POSITION] + 1, S), slice(start, start + D)
            keys = array_at(places[r, KEYS_AT] + there, seen, D, dtype)
            values = array_at(places[r, VALUES_AT] + there, seen, D, dtype)
            attend(
                qkv[r, here],
                keys,
                values,
                scale,
                row_at(scores_at, seen, np.float32),
                context[r, here],
            )

    return attention


@entry
def gelu_new(x_at, n):
    """The bend of the feed forward, in place."""
    x, slope, cubic = (
        row_at(x_at, n, np.float32),
        np.float32(-2.0 * math.sqrt(2.0 / math.pi)),
        np.float32(0.044715),
    )
    for i in range(n):
        y = x[i] / (np.float32(1) + exp(slope * (x[i] + cubic * (x[i] * x[i] * x[i]))))
        x[i] = y if x[i] != -np.inf else np.float32(np.nan)  # as 0 times infinity


@entry
def gelu(x_at, n):
    """The same with erf."""
    x = row_at(x_at, n, np.float32)
    for i in range(n):
        x[i] = (
            np.float32(0.5) * x[i] * (np.float32(1) + math.erf(x[i] * np.float32(math.sqrt(0.5))))
        )


@entry
def relu(x_at, n):
    """The same with a corner."""
    x = row_at(x_at, n, np.float32)
    for i in range(n):
        x[i] = np.float32(0) if x[i] <= 0 else x[i]  # NaN stays


PRODUCTS = {
    "float32": float_product(np.float32),
    "bfloat16": float_product(np.uint16),
    "float16": float_product(np.int16),
    "int8": int8_product,
    "int4": int4_product,
    "int4_min": int4_product,
}
ATTENTION = {
    np.dtype(np.float32): head_attention(np.float32),
    np.dtype(np.float16): head_attention(np.int16),
}
ACTIVATIONS = {"gelu_new": gelu_new, "gelu": gelu, "relu": relu}


# ---- the step


@jit
def decode_kernel(thread, threads, state, stamps, matrices, norms, eps, job, places, x, h, room):
    """From x, the embedded tokens, to the logits. Run by every thread at once; DecodeStep makes the
    arguments.

    matrices: [4 L + 1, 12], see MATRIX, the head last; norms: [2 L + 1, 2, C]; job: see JOB;
    places: [R, 4], see PLACE; x: [R, C]. This thread's own: h, [R, C or more]; room: see ROOM.
    """
    C, last, calls, again = x.shape[1], len(matrices) - 1, 0, True
    while again:
        R, n = job[ROWS], stamp(stamps, 0, thread)
        for i in range(last + 1):
            matrix, j = matrices[i], i % 4
            if j % 2 == 0:  # ln_1 before c_attn, ln_2 before c_fc, ln_f before the head
                R = job[KEPT] if i == last else R
                for r in range(R):
                    row = x[places[r, KEEP] if i == last else r]
                    normalize_row(row, norms[i // 2, 0], norms[i // 2, 1], eps, h[r, :C])
                n = stamp(stamps, n, thread)
            first, end = (
                matrix[PANELS] * thread // threads,
                matrix[PANELS] * (thread + 1) // threads,
            )
            source = matrix[FROM] if matrix[FROM] else room[INPUT]
            call(matrix[PRODUCT], (matrix.ctypes.data, first, end, R, source, room.ctypes.data))
            y = array_at(matrix[TO], R, matrix[TO_WIDTH], np.float32)
            for r in range(R):
                if j == 2:
                    call(job[ACTIVATE], (y[r, 16 * first :].ctypes.data, 16 * (end - first)))
                elif j % 2 == 1:  # the residual stream takes up both projections
                    mine, change = x[r, 16 * first : 16 * end], y[r, 16 * first : 16 * end]
                    for c in range(mine.shape[0]):
                        mine[c] += change[c]
            meet(state, threads)
            n = stamp(stamps, n, thread)
            if j == 0 and i < last:  # a head's q, k and v may have come from several threads
                for head in range(
                    job[HEADS] * thread // threads, job[HEADS] * (thread + 1) // threads
                ):
                    call(
                        job[ATTEND],
                        (head, i // 4, job.ctypes.data, places.ctypes.data, room[SCORES]),
                    )
                meet(state, threads)
                n = stamp(stamps, n, thread)
        again = thread > 0 and called_again(state, calls)  # the first thread takes the logits home
        calls += 1


@helper
def stamp(stamps, n, thread):
    """Write down when step n was finished (the first thread keeps the book); returns the next
    step's number."""
    if thread == 0:
        stamps[n] = ticks()
    return n + 1


class DecodeStep:
    """GPT-2 for at most MOST new positions at a time: step(ids [B,T], cache) -> logits [B,T,V].

    config, parameters: the model's; every matrix is a Weight of a kind in PRODUCTS, everything else
    float32. `stamps` holds the `ticks` at which each of `names` was finished in the last call.
    """

    MOST = 32  # beyond that, products in blocks are faster
    caches = (
        tuple(ATTENTION) if HAS_HALVES else (np.dtype(np.float32),)
    )  # the dtypes of a KVCache that it can use

    def __init__(self, config, parameters):
        for name, shape in config.parameter_shapes().items():
            require(**{name: (parameters.get(name, ()), shape)})
        refusal = self.refusal(config, parameters)
        if refusal:
            raise ValueError(refusal)
        self.config, self.parameters = config, parameters
        L, C, F, A = (
            config.n_layer,
            config.n_embd,
            config.hidden_dim,
            config.n_head * config.head_dim,
        )
        head = parameters["wte.weight" if config.tie_word_embeddings else "lm_head.weight"].T
        names = [f"h.{i}.{m}" for i in range(L) for m in MATRICES]
        weights = [(parameters[f"{n}.weight"], parameters[f"{n}.bias"]) for n in names] + [
            (head, np.zeros(0, np.float32))
        ]
        # Room for whole blocks of 32; what lies behind the inputs stays zero. Memory that is never
        # written is never taken.
        h, qkv, context, out, hidden = rooms = [
            np.zeros((self.MOST, -(-n // 32) * 32), np.float32) for n in (C, 3 * A, A, C, F)
        ]
        ways = [(h, qkv), (context, out), (h, hidden), (hidden, out)] * L + [(h, None)]
        self._matrices, self._kept_alive = (
            np.zeros((len(weights), len(MATRIX)), np.int64),
            rooms,
        )  # tables hold addresses
        for row, (weight, bias), (source, target) in zip(self._matrices, weights, ways):
            stored = flat_panels(weight)
            panels, width = stored[0].shape
            bias = np.pad(bias, (0, 16 * panels - len(bias)))
            self._kept_alive += [*stored, bias]
            row[[PRODUCT, PANELS, INPUTS, WIDTH]] = (
                kernel_at(PRODUCTS[weight.kind]),
                panels,
                weight.k,
                width,
            )
            for column, array in zip((VALUES, SCALES, MINIMA), stored):
                row[column] = array.ctypes.data if array.size else 0
            row[[BIAS, FROM, FROM_WIDTH]] = (
                bias.ctypes.data,
                0 if source is h else source.ctypes.data,
                source.shape[1],
            )
            row[[TO, TO_WIDTH]] = (
                (0, 16 * panels) if target is None else (target.ctypes.data, target.shape[1])
            )
        norms = [f"h.{i}.ln_{j}" for i in range(L) for j in (1, 2)] + ["ln_f"]
        self._norms = np.stack(
            [[parameters[f"{n}.weight"], parameters[f"{n}.bias"]] for n in norms]
        )
        scales = np.array([config.attention_scale(i) for i in range(L)], np.float32)
        self._kept_alive.append(scales)
        self._job, self._places = (
            np.zeros(len(JOB), np.int64),
            np.zeros((self.MOST, len(PLACE)), np.int64),
        )
        self._job[: CALL[0]] = (
            kernel_at(ACTIVATIONS[config.activation_function]),
            config.n_head,
            config.head_dim,
            scales.ctypes.data,
            qkv.ctypes.data,
            qkv.shape[1],
            context.ctypes.data,
            context.shape[1],
        )
        self._x = np.zeros((self.MOST, C), np.float32)
        self.names = [
            "embed",
            *(f"h.{i}.{name}" for i in range(L) for name in BLOCK_STAMPS),
            *LAST_STAMPS,
        ]
        self.stamps = np.zeros(len(self.names), np.int64)
        self._one_at_a_time = threading.Lock()  # there is one workspace
        self._team, self._own = Team(1), [self._room()]
        _steps.add(self)

    @staticmethod
    def refusal(config, parameters) -> str | None:
        """Why this model cannot be decoded here, or None: then the readable forward serves."""
        if config.activation_function not in ACTIVATIONS:
            return (
                f"the fused step knows {', '.join(ACTIVATIONS)}, not {config.activation_function}"
            )
        for name, p in parameters.items():
            matrix = p.ndim == 2 and name != "wpe.weight"
            if matrix and getattr(p, "kind", None) not in PRODUCTS:
                return (
                    f"{name} is not a stored weight; the fused step multiplies by"
                    f" {', '.join(PRODUCTS)}"
                )
            if matrix and p.transposed == (name in TABLES):
                return (
                    f"{name} is stored the other way round: a table as it is, a matrix [in,out]"
                    " transposed"
                )
            if not matrix and p.dtype != np.float32:
                return f"{name} is {p.dtype}; the fused step computes in float32"
        return None

    def fits(self, cache, lengths: list[int]) -> bool:
        """Whether it can read `lengths` [B] more ids of each row into this cache, which is one of
        this config (cache.check_fits)."""
        return (
            sum(lengths) <= self.MOST
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
        check_fits(cache, self.config, B)
        if len(lengths) != B or not 1 <= min(lengths) <= max(lengths) <= T:
            raise ValueError(f"lengths {lengths} do not fit {B} rows of {T} ids")
        if not self.fits(cache, lengths) or not (last or min(lengths) == T):
            raise ValueError(f"{lengths} more ids do not fit into {cache}, or not into one pass")
        ids = row_numbers(ids, self.config.vocab_size, "ids", "tokens")
        return self.run(ids, cache, lengths, last, tell)

    def run(self, ids, cache, lengths: list[int], last: bool, tell) -> np.ndarray | None:
        """The step itself. Nothing is checked here: ids are of the vocabulary, the cache `fits`."""
        B, V = len(ids), self.config.vocab_size
        tokens = [
            token for row, n in zip(ids.tolist(), lengths) for token in row[:n]
        ]  # of each new position, as the others
        keys, threads, past = cache.keys, threads_now(), cache.lengths.tolist()
        k, v, (layer_bytes, row_bytes, head_bytes, *_) = (
            keys.ctypes.data,
            cache.values.ctypes.data,
            keys.strides,
        )
        places = [
            (k + b * row_bytes, v + b * row_bytes, past[b] + t)
            for b, n in enumerate(lengths)
            for t in range(n)
        ]
        kept = [end - 1 for end in accumulate(lengths)] if last else range(len(tokens))
        logits = np.empty((len(kept), int(self._matrices[-1, TO_WIDTH])), np.float32)
        with self._one_at_a_time:
            again = self._team.n == threads
            if not again:
                self._team = Team(threads)
                self._own += [self._room() for _ in range(threads - len(self._own))]
            self._job[CALL[0] :] = (
                len(tokens),
                len(kept),
                kernel_at(ATTENTION[keys.dtype]),
                keys.shape[3],
                layer_bytes,
                head_bytes,
            )
            self._places[: len(tokens), :KEEP], self._places[: len(kept), KEEP] = places, kept
            self._matrices[-1, TO] = logits.ctypes.data
            wte, wpe = self.parameters["wte.weight"], self.parameters["wpe.weight"]
            for x, token, place in zip(self._x, tokens, places):
                np.add(
                    wte.decode(*divmod(token, 16))[: wte.k], wpe[place[POSITION]], out=x
                )  # what take does, without its checks
            common = (
                threads,
                self._team.state,
                self.stamps,
                self._matrices,
                self._norms,
                self.config.layer_norm_epsilon,
                self._job,
                self._places,
                self._x,
            )
            self._team.run(lambda i: decode_kernel(i, *common, *self._own[i]), again)
            room = self._own[0][1]  # every thread rounds all rows: the first one knows, too
            if room[NOT_FINITE]:
                room[NOT_FINITE] = 0
                return None
            cache.lengths[:] = [
                before + n for before, n in zip(past, lengths)
            ]  # `advance`, in half the time
            if tell:
                tell(self.names, self.stamps.tolist())
        return logits[:, :V].reshape(B, -1, V)

    def _start_anew(self) -> None:
        """In the child of a fork: who was at work in this workspace is not there any more."""
        self._one_at_a_time, self._team = threading.Lock(), Team(0)

    def _room(self):
        """What one thread has for itself: h, and the table of where all of it is."""
        widths = self._matrices[:, FROM_WIDTH]  # the first is that of h
        h, blocks = (
            np.zeros((self.MOST, widths[0]), np.float32),
            self.MOST * int(widths.max()) // 32,
        )
        q = (
            np.zeros((blocks, 32), np.int8),
            np.zeros(blocks, np.float32),
            np.zeros(blocks, np.int32),
        )
        room = [h, *q, np.zeros(self.config.n_positions, np.float32)]
        self._kept_alive += room
        return h, np.array([array.ctypes.data for array in room] + [0])


_steps: WeakSet[DecodeStep] = WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [step._start_anew() for step in _steps])
