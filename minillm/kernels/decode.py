"""The fused decode step: the whole of GPT-2 for one row and one new position, in one call of one kernel.

The second of the two forwards; the readable one is model.py, and tests hold both equal. All threads run `decode_kernel`
side by side on a workspace made beforehand. Each owns a share of every product's outputs and of the heads; what is cheap
(norms, rounding a product's input to 8 bits) every thread does for itself, because that is faster than waiting for
another to do it. So a block has five places where all must `meet`.
"""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
from numba import types
from numba.extending import overload

from .compile import helper, jit
from .mathematics import exp
from .matrices import flat_panels
from .memory import array_at, ticks
from .processor import HAS_HALVES
from .products import float_matvec, int4_matvec, int8_matvec, quantize
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
# What is finished at each time stamp: of a block, and after all blocks.
BLOCK_STAMPS = ("ln_1", "attn.c_attn", "attn.context", "attn.residual", "ln_2", "mlp.act", "mlp.residual")
LAST_STAMPS = ("ln_f", "logits")


def float_product(sample, matrix, first, end, h, q, q_scales, q_sums, bias, y):
    """Panels first to end of y = W h + bias for a float type, that of `sample`."""
    panels = array_at(matrix[VALUES], matrix[PANELS], matrix[WIDTH], sample.dtype)[first:end]
    float_matvec(panels, h[: matrix[INPUTS]], bias, y, 16 * first)


def int8_product(sample, matrix, first, end, h, q, q_scales, q_sums, bias, y):
    """Panels first to end of y = W h + bias for blocks of 8 bits; q, q_scales, q_sums: room for h in 8 bits."""
    panels, blocks = matrix[PANELS], (matrix[INPUTS] + 31) // 32
    q, q_scales, q_sums = q[:blocks], q_scales[:blocks], q_sums[:blocks]
    quantize(h[: 32 * blocks].reshape(blocks, 32), q, q_scales, q_sums)
    values = array_at(matrix[VALUES], panels, matrix[WIDTH], np.uint8)[first:end]
    scales = array_at(matrix[SCALES], panels, 16 * blocks, np.int16)[first:end]
    int8_matvec(values, scales, q.reshape(32 * blocks).view(np.int32), q_scales, q_sums, bias, y, 16 * first)


def int4_product(sample, matrix, first, end, h, q, q_scales, q_sums, bias, y):
    """The same for blocks of 4 bits, with or without minima."""
    panels, blocks = matrix[PANELS], (matrix[INPUTS] + 31) // 32
    q, q_scales, q_sums = q[:blocks], q_scales[:blocks], q_sums[:blocks]
    quantize(h[: 32 * blocks].reshape(blocks, 32), q, q_scales, q_sums)
    values = array_at(matrix[VALUES], panels, matrix[WIDTH], np.uint8)[first:end]
    scales = array_at(matrix[SCALES], panels, 16 * blocks, np.int16)[first:end]
    minima = array_at(matrix[MINIMA], panels, 16 * blocks if matrix[MINIMA] else 0, np.int16)[first:end]
    int4_matvec(values, scales, minima, q.reshape(32 * blocks).view(np.int32), q_scales, q_sums, bias, y, 16 * first)


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
    thread, threads, state, stamps, sample, head_sample, matrices, biases, norms, scales, eps, activation,
    keys, values, place, x, qkv, context, out, hidden, logits, h, q, q_scales, q_sums, scores,
):  # fmt: skip
    """From x, the embedded token, to the logits. Run by every thread at once; DecodeStep makes the arguments.

    matrices: [4 L + 1, 7]; norms: [2 L + 1, 2, C]; keys, values: [L, B, H, capacity, D]; place: row and position; h, q,
    q_scales, q_sums and scores: this thread's own room; x, qkv, context, out, hidden, logits: everybody's.
    One place in the code for all four products of a block: each place costs a third of a second of compiling.
    """
    L, H, D, C, calls, again = keys.shape[0], keys.shape[2], keys.shape[4], x.shape[0], 0, True
    while again:
        row, position, S, n = place[0], place[1], place[1] + 1, 0
        for i in range(4 * L):
            matrix, j = matrices[i], i % 4
            if j % 2 == 0:  # ln_1 before c_attn, ln_2 before c_fc
                normalize_row(x, norms[i // 2, 0], norms[i // 2, 1], eps, h)
                n = stamp(stamps, n, thread)
            source = h if j % 2 == 0 else context if j == 1 else hidden
            target = qkv if j == 0 else hidden if j == 2 else out
            first, end = matrix[PANELS] * thread // threads, matrix[PANELS] * (thread + 1) // threads
            bias = biases[matrix[BIAS] : matrix[BIAS] + 16 * matrix[PANELS]]
            product(sample, matrix, first, end, source, q, q_scales, q_sums, bias, target)
            if j == 2:
                activate(hidden[16 * first : 16 * end], activation)
            elif j % 2 == 1:  # the residual stream takes up both projections
                mine, change = x[16 * first : 16 * end], out[16 * first : 16 * end]
                for c in range(mine.shape[0]):
                    mine[c] += change[c]
            meet(state, threads)
            n = stamp(stamps, n, thread)
            if j == 0:  # a head's q, k and v may have come from several threads
                for head in range(H * thread // threads, H * (thread + 1) // threads):
                    all_keys, all_values = keys[i // 4, row, head, :S], values[i // 4, row, head, :S]
                    start = head * D
                    for d in range(D):
                        all_keys[position, d] = stored_like(qkv[C + start + d], all_keys[position, d])
                        all_values[position, d] = stored_like(qkv[2 * C + start + d], all_values[position, d])
                    attend(qkv[start : start + D], all_keys, all_values, scales[i // 4], scores[:S], context[start : start + D])
                meet(state, threads)
                n = stamp(stamps, n, thread)
        normalize_row(x, norms[2 * L, 0], norms[2 * L, 1], eps, h)
        n = stamp(stamps, n, thread)
        matrix = matrices[4 * L]
        first, end = matrix[PANELS] * thread // threads, matrix[PANELS] * (thread + 1) // threads
        product(head_sample, matrix, first, end, h, q, q_scales, q_sums, biases[matrix[BIAS] :], logits)
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
    """GPT-2 for one row, one token at a time: step(id, cache) -> logits [V].

    config, parameters: the model's; every matrix is a Weight of a kind in SAMPLES (the head may be of another than the blocks),
    everything else float32. `stamps` holds the `ticks` at which each of `names` was finished in the last call, and
    `started` those when the token was embedded.
    """

    caches = (np.float32, np.float16) if HAS_HALVES else (np.float32,)  # the dtypes of a KVCache that it can use

    def __init__(self, config, parameters):
        refusal = self.refusal(config, parameters)
        if refusal:
            raise ValueError(refusal)
        self.config, self.parameters = config, parameters
        L, C, F = config.n_layer, config.n_embd, config.hidden_dim
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
        self._team, self._last_keys = Team(1), None
        self._place = np.zeros(2, np.int64)  # row and position
        whole = -(-max(C, F) // 32) * 32  # room for whole blocks; what lies behind the inputs stays zero
        self._shared = tuple(np.zeros(-(-n // 32) * 32, np.float32) for n in (3 * C, C, C, F, config.vocab_size))
        self._x = np.zeros(C, np.float32)
        own = [((whole,), np.float32), ((whole // 32, 32), np.int8), ((whole // 32,), np.float32)]
        own += [((whole // 32,), np.int32), ((config.n_positions,), np.float32)]
        self._layout, self._own = own, []  # of each thread

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

    def __call__(self, token: int, cache, row: int = 0, tell=None) -> np.ndarray:
        """Logits [V] after one more token in one row of a KVCache (float32, or float16), which grows by it.

        tell: called as tell(names, ticks) with what was finished when, `embed` first.
        """
        position = int(cache.lengths[row])
        if not 0 <= token < self.config.vocab_size:
            raise ValueError(f"id {token} is outside the vocabulary of {self.config.vocab_size}")
        if position >= min(cache.capacity, self.config.n_positions):
            raise ValueError(f"position {position} does not fit: there is room for {cache.capacity}")
        keys, values = cache.keys, cache.values
        if keys.dtype == np.float16 and HAS_HALVES:
            keys, values = keys.view(np.int16), values.view(np.int16)  # Numba has no float16
        elif keys.dtype != np.float32:
            raise ValueError(f"the cache is {keys.dtype}; the fused step needs float32, or float16 where the processor has it")
        threads = n_threads()
        with self._one_at_a_time:
            again = self._team.n == threads and self._last_keys is not None and self._last_keys() is cache.keys
            self._team, self._last_keys = self._team if again else Team(threads), weakref.ref(cache.keys)
            self._own += [[np.zeros(shape, dtype) for shape, dtype in self._layout] for _ in range(threads - len(self._own))]
            table = self.parameters["wte.weight"]
            embedded = table.decode(*divmod(token, 16))[: table.k]  # what take does, without its checks
            np.add(embedded, self.parameters["wpe.weight"][position], out=self._x)
            self._place[:] = row, position
            self.started = now()
            common = (
                threads, self._team.state, self.stamps, *self._samples, self.matrices, self.biases, self.norms, self.scales,
                self.config.layer_norm_epsilon, ACTIVATIONS.index(self.config.activation_function),
                keys, values, self._place, self._x, *self._shared,
            )  # fmt: skip
            self._team.run(lambda i: decode_kernel(i, *common, *self._own[i]), again)
            cache.lengths[row] += 1
            if tell:
                tell(["embed", *self.names], [self.started, *self.stamps.tolist()])
            return self._shared[-1][: self.config.vocab_size].copy()


@jit
def now():
    """The ticks of this moment."""
    return ticks()
