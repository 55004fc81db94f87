"""The fused decode step: the whole of GPT-2 for one new position, or a few, in one call of one kernel.

The second of the two forwards; the readable one is model.py, and tests hold both equal. New positions may be of one text
(a chunk of the prompt, guesses to verify) or of several (a batch): one or the other, each knows its own place in the cache.
All threads run `decode_kernel` side by side on a workspace made beforehand. Each owns a share of every product's outputs
and of the heads; what is cheap (norms, rounding a product's input to 8 bits) every thread does for itself, because that is
faster than waiting for another to do it. So a block has five places where all must `meet`.
"""

from __future__ import annotations

import math
import threading
from itertools import accumulate

import numpy as np
from numba import types
from numba.extending import overload

from .compile import helper, jit
from .mathematics import exp
from .matrices import flat_panels
from .memory import array_at, ticks
from .processor import HAS_HALVES
from .products import float_matmul, float_matvec, int4_matmul, int4_matvec, int8_matmul, int8_matvec, quantize
from .rows import normalize_row
from .streaming import attend
from .threads import Team, called_again, meet, n_threads
from .vectors import stored_like

# Every kind of weight that the step multiplies by, and a type to tell it by: for floats the one that they are stored in.
SAMPLES = {
    "float32": np.float32, "bfloat16": np.uint16, "float16": np.int16,
    "int8": np.uint8, "int4": np.int8, "int4_min": np.int8,
}  # fmt: skip
ACTIVATIONS = ("gelu_new", "gelu", "relu")
MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")  # the four products of a block
TABLES = ("wte.weight", "lm_head.weight")
BLOCK_WEIGHTS = tuple(f"{name}.weight" for name in MATRICES)
PANELS, INPUTS, WIDTH, VALUES, SCALES, MINIMA, BIAS = range(7)  # columns of the table of matrices
# The job of one call: new positions, those of them whose logits are wanted; of the cache: heads, places in a row, numbers in
# a key, bytes from one layer's keys to the next layer's, and from one head's to the next head's.
JOB = ROWS, KEPT, HEADS, CAPACITY, HEAD_DIM, LAYER_BYTES, HEAD_BYTES = range(7)
# Of each new position: where its row of the cache begins, its position; and apart from that, the r-th whose logits are wanted.
PLACE = KEYS_AT, VALUES_AT, POSITION, KEEP = range(4)
# What is finished at each time stamp: of a block, and after all blocks.
BLOCK_STAMPS = ("ln_1", "attn.c_attn", "attn.context", "attn.residual", "ln_2", "mlp.act", "mlp.residual")
LAST_STAMPS = ("ln_f", "logits")


def float_product(sample, matrix, first, end, h, q, q_scales, q_sums, bias, y):
    """Panels first to end of y = h W + bias for a float type, that of `sample`. h: [R, inputs or more]; y: [R, outputs or
    more], as far as the panels reach."""
    panels = array_at(matrix[VALUES], matrix[PANELS], matrix[WIDTH], sample.dtype)[first:end]
    if len(h) == 1:
        float_matvec(panels, h[0, : matrix[INPUTS]], bias, y[0], 16 * first)
    else:
        float_matmul(panels, h, bias, y, 16 * first)


def int8_product(sample, matrix, first, end, h, q, q_scales, q_sums, bias, y):
    """Panels first to end of y = h W + bias for blocks of 8 bits; q, q_scales, q_sums: room for h in 8 bits."""
    panels, R, blocks = matrix[PANELS], len(h), (matrix[INPUTS] + 31) // 32
    q, q_scales, q_sums = q[: R * blocks], q_scales[: R * blocks], q_sums[: R * blocks]
    quantize(h.reshape(R * blocks, 32), q, q_scales, q_sums)
    values = array_at(matrix[VALUES], panels, matrix[WIDTH], np.uint8)[first:end]
    scales = array_at(matrix[SCALES], panels, 16 * blocks, np.int16)[first:end]
    whole = q.reshape(R * 32 * blocks).view(np.int32)
    if R == 1:
        int8_matvec(values, scales, whole, q_scales, q_sums, bias, y[0], 16 * first)
    else:
        shape = R, blocks
        int8_matmul(
            values, scales, whole.reshape(R, 8 * blocks), q_scales.reshape(shape), q_sums.reshape(shape), bias, y, 16 * first
        )


def int4_product(sample, matrix, first, end, h, q, q_scales, q_sums, bias, y):
    """The same for blocks of 4 bits, with or without minima."""
    panels, R, blocks = matrix[PANELS], len(h), (matrix[INPUTS] + 31) // 32
    q, q_scales, q_sums = q[: R * blocks], q_scales[: R * blocks], q_sums[: R * blocks]
    quantize(h.reshape(R * blocks, 32), q, q_scales, q_sums)
    values = array_at(matrix[VALUES], panels, matrix[WIDTH], np.uint8)[first:end]
    scales = array_at(matrix[SCALES], panels, 16 * blocks, np.int16)[first:end]
    minima = array_at(matrix[MINIMA], panels, 16 * blocks if matrix[MINIMA] else 0, np.int16)[first:end]
    whole = q.reshape(R * 32 * blocks).view(np.int32)
    if R == 1:
        int4_matvec(values, scales, minima, whole, q_scales, q_sums, bias, y[0], 16 * first)
    else:
        whole, shape = whole.reshape(R, 8 * blocks), (R, blocks)
        int4_matmul(values, scales, minima, whole, q_scales.reshape(shape), q_sums.reshape(shape), bias, y, 16 * first)


def product(sample, matrix, first, end, h, q, q_scales, q_sums, bias, y):
    """One of the three above. `sample` is an empty array whose type stands for the kind (SAMPLES): by it Numba chooses
    while it compiles, so that nobody waits for products that the model does not need."""
    chosen = {np.dtype(np.uint8): int8_product, np.dtype(np.int8): int4_product}.get(sample.dtype, float_product)
    chosen(sample, matrix, first, end, h, q, q_scales, q_sums, bias, y)


@overload(product)
def _(sample, matrix, first, end, h, q, q_scales, q_sums, bias, y):
    return {types.uint8: int8_product, types.int8: int4_product}.get(sample.dtype, float_product)


@helper
def activate(x, kind):
    """The bend of the feed forward, in place."""
    if kind == 0:
        slope, cubic = np.float32(-2.0 * math.sqrt(2.0 / math.pi)), np.float32(0.044715)
        for i in range(x.shape[0]):
            x[i] = x[i] / (np.float32(1) + exp(slope * (x[i] + cubic * (x[i] * x[i] * x[i]))))
    elif kind == 1:
        for i in range(x.shape[0]):
            x[i] = np.float32(0.5) * x[i] * (np.float32(1) + math.erf(x[i] * np.float32(math.sqrt(0.5))))
    else:
        for i in range(x.shape[0]):
            x[i] = x[i] if x[i] > 0 else np.float32(0)


@jit
def decode_kernel(
    thread, threads, state, stamps, sample, head_sample, cache_sample, matrices, biases, norms, scales, eps, activation,
    job, places, x, qkv, context, out, hidden, logits, h, q, q_scales, q_sums, scores,
):  # fmt: skip
    """From x, the embedded tokens, to the logits. Run by every thread at once; DecodeStep makes the arguments.

    matrices: [4 L + 1, 7]; norms: [2 L + 1, 2, C]; job: see JOB; places: [R, 4], see PLACE. h, q, q_scales, q_sums and
    scores: this thread's own room; x, qkv, context, out, hidden, logits: everybody's, [R, ...].
    One place in the code for all four products of a block: each place costs a third of a second of compiling.
    """
    L, C, H, D, calls, again = scales.shape[0], x.shape[1], job[HEADS], job[HEAD_DIM], 0, True
    while again:
        R, S, n = job[ROWS], job[CAPACITY], 0
        for i in range(4 * L):
            matrix, j = matrices[i], i % 4
            if j % 2 == 0:  # ln_1 before c_attn, ln_2 before c_fc
                for r in range(R):
                    normalize_row(x[r], norms[i // 2, 0], norms[i // 2, 1], eps, h[r, :C])
                n = stamp(stamps, n, thread)
            source = h if j % 2 == 0 else context if j == 1 else hidden
            target = qkv if j == 0 else hidden if j == 2 else out
            first, end = matrix[PANELS] * thread // threads, matrix[PANELS] * (thread + 1) // threads
            bias = biases[matrix[BIAS] : matrix[BIAS] + 16 * matrix[PANELS]]
            product(sample, matrix, first, end, source[:R], q, q_scales, q_sums, bias, target[:R])
            for r in range(R):
                if j == 2:
                    activate(hidden[r, 16 * first : 16 * end], activation)
                elif j % 2 == 1:  # the residual stream takes up both projections
                    mine, change = x[r, 16 * first : 16 * end], out[r, 16 * first : 16 * end]
                    for c in range(mine.shape[0]):
                        mine[c] += change[c]
            meet(state, threads)
            n = stamp(stamps, n, thread)
            if j == 0:  # a head's q, k and v may have come from several threads
                for head in range(H * thread // threads, H * (thread + 1) // threads):
                    start, there = head * D, (i // 4) * job[LAYER_BYTES] + head * job[HEAD_BYTES]
                    for r in range(R):  # all new keys and values first: a position may be seen by the one behind it
                        place = places[r, POSITION] % S
                        key = array_at(places[r, KEYS_AT] + there, S, D, cache_sample.dtype)[place]
                        value = array_at(places[r, VALUES_AT] + there, S, D, cache_sample.dtype)[place]
                        for d in range(D):
                            key[d] = stored_like(qkv[r, H * D + start + d], key[d])
                            value[d] = stored_like(qkv[r, 2 * H * D + start + d], value[d])
                    for r in range(R):
                        seen = min(places[r, POSITION] + 1, S)
                        all_keys = array_at(places[r, KEYS_AT] + there, seen, D, cache_sample.dtype)
                        all_values = array_at(places[r, VALUES_AT] + there, seen, D, cache_sample.dtype)
                        here = slice(start, start + D)
                        attend(qkv[r, here], all_keys, all_values, scales[i // 4], scores[:seen], context[r, here])
                meet(state, threads)
                n = stamp(stamps, n, thread)
        R = job[KEPT]
        for r in range(R):
            normalize_row(x[places[r, KEEP]], norms[2 * L, 0], norms[2 * L, 1], eps, h[r, :C])
        n = stamp(stamps, n, thread)
        matrix = matrices[4 * L]
        first, end = matrix[PANELS] * thread // threads, matrix[PANELS] * (thread + 1) // threads
        product(head_sample, matrix, first, end, h[:R], q, q_scales, q_sums, biases[matrix[BIAS] :], logits[:R])
        meet(state, threads)
        stamp(stamps, n, thread)
        again = thread > 0 and called_again(state, calls)  # the first thread takes the logits home
        calls += 1


@helper
def stamp(stamps, n, thread):
    """Write down when step n was finished (the first thread keeps the book); returns the next step's number."""
    if thread == 0:
        stamps[n] = ticks()
    return n + 1


def padded(x, size):
    """x with zeros behind it up to `size`."""
    return np.pad(x, (0, size - len(x)))


class DecodeStep:
    """GPT-2 for at most MOST new positions at a time: step(ids [B,T], cache) -> logits [B,T,V].

    config, parameters: the model's; every matrix is a Weight of a kind in SAMPLES (the head may be of another than the blocks),
    everything else float32. `stamps` holds the `ticks` at which each of `names` was finished in the last call, and
    `started` those when the tokens were embedded.
    """

    MOST = 32  # beyond that, products in blocks are faster
    caches = (np.float32, np.float16) if HAS_HALVES else (np.float32,)  # the dtypes of a KVCache that it can use

    def __init__(self, config, parameters):
        refusal = self.refusal(config, parameters)
        if refusal:
            raise ValueError(refusal)
        self.config, self.parameters = config, parameters
        L, C, F, A = config.n_layer, config.n_embd, config.hidden_dim, config.n_head * config.head_dim
        head = parameters["wte.weight" if config.tie_word_embeddings else "lm_head.weight"].T
        names = [f"h.{i}.{m}" for i in range(L) for m in MATRICES]
        matrices = [(parameters[f"{n}.weight"], parameters[f"{n}.bias"]) for n in names] + [(head, np.zeros(0, np.float32))]
        self._stored = [flat_panels(weight) for weight, _ in matrices]  # kept alive: the table holds addresses only
        self._samples = tuple(np.empty(0, SAMPLES[weight.kind]) for weight in (matrices[0][0], head))
        self.matrices, biases = np.zeros((len(matrices), 7), np.int64), []
        for row, (weight, bias), stored in zip(self.matrices, matrices, self._stored):
            row[[PANELS, INPUTS, WIDTH, BIAS]] = len(stored[0]), weight.k, stored[0].shape[1], sum(map(len, biases))
            for column, array in zip((VALUES, SCALES, MINIMA), stored):
                row[column] = array.ctypes.data if array.size else 0
            biases.append(padded(bias, 16 * len(stored[0])))
        self.biases = np.concatenate(biases)
        norms = [f"h.{i}.ln_{j}" for i in range(L) for j in (1, 2)] + ["ln_f"]
        self.norms = np.stack([[parameters[f"{n}.weight"], parameters[f"{n}.bias"]] for n in norms])
        self.scales = np.array([config.attention_scale(i) for i in range(L)], np.float32)
        self.names = [f"h.{i}.{name}" for i in range(L) for name in BLOCK_STAMPS] + list(LAST_STAMPS)
        self.stamps, self.started = np.zeros(len(self.names), np.int64), 0
        self._one_at_a_time = threading.Lock()  # there is one workspace
        self._team, self._last_cache = Team(1), None
        self._job, self._places = np.zeros(len(JOB), np.int64), np.zeros((self.MOST, len(PLACE)), np.int64)
        # Room for whole blocks of 32; what lies behind the inputs stays zero. Memory that is never written is never taken.
        blocks = [-(-n // 32) for n in (3 * A, A, C, F, config.vocab_size)]
        self._shared = tuple(np.zeros((self.MOST, 32 * n), np.float32) for n in blocks)
        self._x, most = np.zeros((self.MOST, C), np.float32), self.MOST * max(blocks[1:4])
        own = [((self.MOST, 32 * blocks[2]), np.float32), ((most, 32), np.int8), ((most,), np.float32), ((most,), np.int32)]
        self._layout, self._own = [*own, ((config.n_positions,), np.float32)], []  # of each thread

    @staticmethod
    def refusal(config, parameters) -> str | None:
        """Why this model cannot be decoded here, or None: then the readable forward serves."""
        if config.activation_function not in ACTIVATIONS:
            return f"the fused step knows {', '.join(ACTIVATIONS)}, not {config.activation_function}"
        for name, p in parameters.items():
            matrix = p.ndim == 2 and name != "wpe.weight"
            if matrix and getattr(p, "kind", None) not in SAMPLES:
                return f"{name} is not a stored weight; the fused step multiplies by {', '.join(SAMPLES)}"
            if matrix and p.transposed == (name in TABLES):
                return f"{name} is stored the other way round: a table as it is, a matrix [in,out] transposed"
            if not matrix and p.dtype != np.float32:
                return f"{name} is {p.dtype}; the fused step computes in float32"
        samples = {SAMPLES[p.kind] for name, p in parameters.items() if name.endswith(BLOCK_WEIGHTS)}
        if len(samples) > 1:
            return f"the blocks' matrices are of {len(samples)} kinds; the fused step takes one, and another for the head"
        return None

    def fits(self, cache, lengths: list[int]) -> bool:
        """Whether it can read `lengths` [B] more ids of each row into this cache."""
        return (
            sum(lengths) <= self.MOST
            and cache.batch == len(lengths)
            and cache.keys.dtype in self.caches
            and cache.keys[0, 0].flags.c_contiguous
            and max(past + n for past, n in zip(cache.lengths.tolist(), lengths)) <= cache.capacity
            and (max(lengths) == 1 or not cache.one_at_a_time)
        )

    def __call__(self, ids, cache, lengths: list[int] | None = None, *, last=False, tell=None) -> np.ndarray:
        """Logits [B,T,V] after more ids [B,T] in every row of a KVCache (float32, or float16), which grows by them.

        Nothing is checked here: ids are of the vocabulary, and the cache `fits`. lengths [B]: how many ids of each row are
        real. last: only the last of these, [B,1,V]; otherwise none may be padding.
        tell: called as tell(names, ticks) with what was finished when, `embed` first.
        """
        (B, T), V = ids.shape, self.config.vocab_size
        lengths = [T] * B if lengths is None else lengths
        tokens = [token for row, n in zip(ids.tolist(), lengths) for token in row[:n]]  # of each new position, as the others
        keys, values, threads = cache.keys, cache.values, n_threads()
        sample = np.empty(0, np.int16 if keys.dtype == np.float16 else np.float32)
        k, v, (_, row_bytes, *_) = keys.ctypes.data, values.ctypes.data, keys.strides
        rows = enumerate(zip(cache.lengths.tolist(), lengths))
        places = [(k + b * row_bytes, v + b * row_bytes, past + t) for b, (past, n) in rows for t in range(n)]
        kept = [end - 1 for end in accumulate(lengths)] if last else range(len(tokens))
        with self._one_at_a_time:
            again = self._team.n == threads and self._last_cache == sample.dtype
            self._team, self._last_cache = self._team if again else Team(threads), sample.dtype
            self._own += [[np.zeros(shape, dtype) for shape, dtype in self._layout] for _ in range(threads - len(self._own))]
            self._job[:] = len(tokens), len(kept), *keys.shape[2:], keys.strides[0], keys.strides[2]
            self._places[: len(tokens), :KEEP], self._places[: len(kept), KEEP] = places, kept
            wte, wpe = self.parameters["wte.weight"], self.parameters["wpe.weight"]
            for x, token, place in zip(self._x, tokens, places):
                np.add(wte.decode(*divmod(token, 16))[: wte.k], wpe[place[POSITION]], out=x)  # what take does, without its checks
            self.started = now()
            common = (
                threads, self._team.state, self.stamps, *self._samples, sample, self.matrices, self.biases, self.norms,
                self.scales, self.config.layer_norm_epsilon, ACTIVATIONS.index(self.config.activation_function),
                self._job, self._places, self._x, *self._shared,
            )  # fmt: skip
            self._team.run(lambda i: decode_kernel(i, *common, *self._own[i]), again)
            cache.advance(lengths)
            if tell:
                tell(["embed", *self.names], [self.started, *self.stamps.tolist()])
            return self._shared[-1][: len(kept), :V].copy().reshape(B, -1, V)


@jit
def now():
    """The ticks of this moment."""
    return ticks()
