"""The fused decode step: the whole of GPT-2 for one row and one new position, in one call of one kernel.

The second of the two forwards; the readable one is model.py, and tests hold both equal. All threads run `decode_kernel`
side by side on a workspace made beforehand. Each owns a share of every product's outputs and of the heads; what is cheap
(norms, rounding a product's input to 8 bits) every thread does for itself, because that is faster than waiting for
another to do it. So a block has five places where all must `meet`.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from .compile import jit
from .matrices import flat_panels
from .mathematics import exp
from .memory import array_at, ticks
from .products import float_matvec, int4_matvec, int8_matvec, quantize
from .rows import exponentials, maximum, normalize_row
from .threads import meet, n_threads, together

KINDS = ("float32", "bfloat16", "float16", "int8", "int4", "int4_min")
FLOAT32, BFLOAT16, FLOAT16, INT8, INT4, INT4_MIN = range(6)
ACTIVATIONS = ("gelu_new", "gelu", "relu")
MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")  # of a block, in the order of their use
KIND, PANELS, INPUTS, WIDTH, VALUES, SCALES, MINIMA, BIAS = range(8)  # columns of the table of matrices
# What is finished at each time stamp; of a block, and after all blocks.
BLOCK_STAMPS = ("ln_1", "attn.c_attn", "attn.context", "attn.residual", "ln_2", "mlp.act", "mlp.residual")
LAST_STAMPS = ("ln_f", "logits")


@jit
def share(n, thread, threads):
    """The first and the one-after-last of n that belong to a thread."""
    return n * thread // threads, n * (thread + 1) // threads


@jit
def multiply(matrix, h, q, q_scales, q_sums, biases, y, thread, threads):
    """This thread's share of y = W h + bias, for a row of the table of matrices; returns its columns' bounds.

    h: float32 [>= K], filled with zeros up to whole blocks; q, q_scales, q_sums: room of this thread's own.
    """
    kind, panels, k, width = matrix[KIND], matrix[PANELS], matrix[INPUTS], matrix[WIDTH]
    first, end = share(panels, thread, threads)
    column = 16 * first
    bias = biases[matrix[BIAS] : matrix[BIAS] + 16 * panels]
    if kind == FLOAT32:
        float_matvec(array_at(matrix[VALUES], panels, width, np.float32)[first:end], h[:k], bias, y, column)
    elif kind == BFLOAT16:
        float_matvec(array_at(matrix[VALUES], panels, width, np.uint16)[first:end], h[:k], bias, y, column)
    elif kind == FLOAT16:
        float_matvec(array_at(matrix[VALUES], panels, width, np.int16)[first:end], h[:k], bias, y, column)
    else:
        blocks = (k + 31) // 32
        q, q_scales, q_sums = q[:blocks], q_scales[:blocks], q_sums[:blocks]
        quantize(h[: 32 * blocks].reshape(blocks, 32), q, q_scales, q_sums)
        words = q.reshape(32 * blocks).view(np.int32)
        values = array_at(matrix[VALUES], panels, width, np.uint8)[first:end]
        scales = array_at(matrix[SCALES], panels, 16 * blocks, np.int16)[first:end]
        if kind == INT8:
            int8_matvec(values, scales, words, q_scales, q_sums, bias, y, column)
        else:
            minima = array_at(matrix[MINIMA], panels, 16 * blocks if kind == INT4_MIN else 0, np.int16)[first:end]
            int4_matvec(values, scales, minima, words, q_scales, q_sums, bias, y, column)
    return column, 16 * end


@jit
def attend(q, keys, values, scale, scores, context):
    """One head's new position: context = softmax(q keys^T * scale) values. q, context: [D]; keys, values: [S, D]."""
    for s in range(keys.shape[0]):
        key, total = keys[s], np.float32(0)
        for d in range(q.shape[0]):
            total += q[d] * key[d]
        scores[s] = total * scale
    total = exponentials(scores, maximum(scores), scores)
    for d in range(context.shape[0]):
        context[d] = 0
    for s in range(keys.shape[0]):
        value, weight = values[s], scores[s] / total
        for d in range(context.shape[0]):
            context[d] += weight * value[d]


@jit
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
    thread, threads, state, stamps, matrices, biases, norms, scales, eps, activation, keys, values, position,
    x, qkv, context, out, hidden, logits, own_h, own_q, own_q_scales, own_q_sums, own_scores,
):  # fmt: skip
    """From x, the embedded token, to the logits. Run by every thread; see DecodeStep for the arguments.

    matrices: [4 L + 1, 8]; norms: [2 L + 1, 2, C]; keys, values: [L, H, capacity, D]; own_*: one row for each thread.
    """
    L, H, D, C = keys.shape[0], keys.shape[1], keys.shape[3], x.shape[0]
    h, q, q_scales, q_sums = own_h[thread], own_q[thread], own_q_scales[thread], own_q_sums[thread]
    head, end_head = share(H, thread, threads)
    for layer in range(L):
        normalize_row(x, norms[2 * layer, 0], norms[2 * layer, 1], eps, h)
        stamp(stamps, 7 * layer, thread)
        multiply(matrices[4 * layer], h, q, q_scales, q_sums, biases, qkv, thread, threads)
        meet(state, threads)  # a head's q, k and v may come from several threads
        stamp(stamps, 7 * layer + 1, thread)
        for i in range(head, end_head):
            new_key, new_value = keys[layer, i, position], values[layer, i, position]
            for d in range(D):
                new_key[d] = qkv[C + i * D + d]
                new_value[d] = qkv[2 * C + i * D + d]
            attend(
                qkv[i * D : i * D + D], keys[layer, i, : position + 1], values[layer, i, : position + 1],
                scales[layer], own_scores[thread, : position + 1], context[i * D : i * D + D],
            )  # fmt: skip
        meet(state, threads)
        stamp(stamps, 7 * layer + 2, thread)
        first, end = multiply(matrices[4 * layer + 1], context, q, q_scales, q_sums, biases, out, thread, threads)
        add_to(x[first:end], out[first:end])
        meet(state, threads)
        stamp(stamps, 7 * layer + 3, thread)
        normalize_row(x, norms[2 * layer + 1, 0], norms[2 * layer + 1, 1], eps, h)
        stamp(stamps, 7 * layer + 4, thread)
        first, end = multiply(matrices[4 * layer + 2], h, q, q_scales, q_sums, biases, hidden, thread, threads)
        activate(hidden[first:end], activation)
        meet(state, threads)
        stamp(stamps, 7 * layer + 5, thread)
        first, end = multiply(matrices[4 * layer + 3], hidden, q, q_scales, q_sums, biases, out, thread, threads)
        add_to(x[first:end], out[first:end])
        meet(state, threads)
        stamp(stamps, 7 * layer + 6, thread)
    normalize_row(x, norms[2 * L, 0], norms[2 * L, 1], eps, h)
    stamp(stamps, 7 * L, thread)
    multiply(matrices[4 * L], h, q, q_scales, q_sums, biases, logits, thread, threads)
    meet(state, threads)
    stamp(stamps, 7 * L + 1, thread)


@jit
def add_to(x, y):
    """x += y, as far as x goes: the last panel of y may reach beyond."""
    for i in range(x.shape[0]):
        x[i] += y[i]


@jit
def stamp(stamps, i, thread):
    """Write down when step i was finished; the first thread keeps the book."""
    if thread == 0:
        stamps[i] = ticks()


def padded(x, size):
    """x with zeros behind it up to `size`."""
    return np.pad(x, (0, size - len(x)))


class DecodeStep:
    """GPT-2 for one row, one token at a time: step(id, cache) -> logits [V].

    config, parameters: the model's; every matrix is a Weight of KINDS (also mixed), everything else float32. `stamps`
    holds the `ticks` at which each of `names` was finished in the last call, `started` those at its beginning.
    """

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
        self.matrices, biases = np.zeros((len(matrices), 8), np.int64), []
        for row, (weight, bias), stored in zip(self.matrices, matrices, self._stored):
            addresses = [a.ctypes.data for a in (*stored, stored[0], stored[0])[:3]]
            offset = sum(map(len, biases))
            row[:] = (KINDS.index(weight.kind), len(stored[0]), weight.k, stored[0].shape[1], *addresses, offset)
            biases.append(padded(bias, 16 * len(stored[0])))
        self.biases = np.concatenate(biases)
        norms = [f"h.{i}.ln_{j}" for i in range(L) for j in (1, 2)] + ["ln_f"]
        self.norms = np.stack([[parameters[f"{n}.weight"], parameters[f"{n}.bias"]] for n in norms])
        self.scales = np.array([config.attention_scale(i) for i in range(L)], np.float32)
        self.names = [f"h.{i}.{name}" for i in range(L) for name in BLOCK_STAMPS] + list(LAST_STAMPS)
        self.stamps, self.started, self._state = np.zeros(len(self.names), np.int64), 0, np.zeros(48, np.int64)
        self.threads, self._one_at_a_time = n_threads(), threading.Lock()
        whole = -(-max(C, F) // 32) * 32  # room for whole blocks; what lies behind the inputs stays zero
        self._shared = tuple(np.zeros(-(-n // 32) * 32, np.float32) for n in (3 * C, C, C, F, config.vocab_size))
        self._x = np.zeros(C, np.float32)
        own = [((whole,), np.float32), ((whole // 32, 32), np.int8), ((whole // 32,), np.float32)]
        own += [((whole // 32,), np.int32), ((config.n_positions,), np.float32)]
        self._own = tuple(np.zeros((self.threads, *shape), dtype) for shape, dtype in own)

    @staticmethod
    def refusal(config, parameters) -> str | None:
        """Why this model cannot be decoded here, or None: then the readable forward serves."""
        if config.activation_function not in ACTIVATIONS:
            return f"the fused step knows {', '.join(ACTIVATIONS)}, not {config.activation_function}"
        for name, p in parameters.items():
            matrix = p.ndim == 2 and name != "wpe.weight"
            if matrix and getattr(p, "kind", None) not in KINDS:
                return f"{name} is not a stored weight; the fused step multiplies by {', '.join(KINDS)}"
            if not matrix and p.dtype != np.float32:
                return f"{name} is {p.dtype}; the fused step computes in float32"
        return None

    def __call__(self, token: int, cache, row: int = 0) -> np.ndarray:
        """Logits [V] after one more token in one row of a float32 KVCache, which grows by it.

        The result is a view of the workspace, overwritten by the next call.
        """
        position = int(cache.lengths[row])
        if not 0 <= token < self.config.vocab_size:
            raise ValueError(f"id {token} is outside the vocabulary of {self.config.vocab_size}")
        if position >= min(cache.capacity, self.config.n_positions):
            raise ValueError(f"position {position} does not fit: there is room for {cache.capacity}")
        keys, values = cache.keys[:, row], cache.values[:, row]
        if keys.dtype != np.float32:
            raise ValueError(f"the cache is {keys.dtype}; the fused step needs float32")
        with self._one_at_a_time:  # there is one workspace
            self.started = now()
            np.add(self.parameters["wte.weight"].take(token), self.parameters["wpe.weight"][position], out=self._x)
            common = (
                self._state, self.stamps, self.matrices, self.biases, self.norms, self.scales,
                self.config.layer_norm_epsilon, ACTIVATIONS.index(self.config.activation_function),
                keys, values, position, self._x, *self._shared, *self._own,
            )  # fmt: skip
            together(lambda thread: decode_kernel(thread, self.threads, *common), self.threads, self._state)
            cache.lengths[row] += 1
            return self._shared[-1][: self.config.vocab_size]


@jit
def now():
    """The ticks of this moment."""
    return ticks()
