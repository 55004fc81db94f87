"""The gradient of every forward operation, written out by hand: what a small change of each number
does to the loss.

Each `f_backward` takes dy, the gradient of the loss L with respect to what f returned (dy = dL/dy,
of y's shape), and what f was given, and returns the gradients of these: the chain rule, dL/dx =
dL/dy dy/dx, one link at a time. Functions stand in the order of the forward: ops.py, attention.py,
feed_forward.py, model.py. Here they are for reading; kernels have faster twins of some, which are
used where a model computes with kernels. Sources: the forward's own, and Rumelhart, Hinton,
Williams, "Learning representations by back-propagating errors" (1986).
"""

from __future__ import annotations

import math

import numpy as np

from .. import ops as numpy_ops
from ..families.gpt2.forward import block
from ..layers.attention import scaled_dot_product_attention
from ..model import Model
from ..steps import Trace, identity, under
from ..twins.twin import abilities

# ---- ops.py


def linear_backward(dy, x, weight):
    """Of y = x W + b: dx = dy W^T, dW = x^T dy, db = the sum of dy's rows, since row r of y is x_r
    W + b.

    dy: [..., out]; x: [..., in]; weight: [in, out] -> dx [..., in], {"weight": [in, out], "bias":
    [out]}. A weight that is no plain matrix (LoRA) answers for itself: weight.backward(dy, x).
    """
    rows, d_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    if hasattr(weight, "backward"):
        dx, gradients = weight.backward(d_rows, rows)
        return dx.reshape(x.shape), gradients
    return (d_rows @ weight.T).reshape(x.shape), {
        "weight": rows.T @ d_rows,
        "bias": d_rows.sum(axis=0),
    }


def unembed_backward(dy, x, table):
    """Of y = x table^T: dx = dy table, d_table = dy^T x. dy: [..., V]; x: [..., C]; table: [V,C] ->
    dx [..., C], [V,C]."""
    rows, d_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return (d_rows @ table).reshape(x.shape), d_rows.T @ rows


def layer_norm_backward(dy, x, weight, eps=1e-5):
    """Of y = n w + b with n = (x - mean) / s, s = sqrt(variance + eps): dw = sum of dy n, db = sum
    of dy over the rows.

    x moves n directly, through the mean and through s; with g = dy w the three come to dx = (g -
    mean(g) - n mean(g n)) / s. Means are along the last axis. dy, x: [..., C]; weight: [C] -> dx
    [..., C], {"weight": [C], "bias": [C]}.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    s = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    n, g = centred / s, dy * weight
    dx = (g - g.mean(axis=-1, keepdims=True) - n * (g * n).mean(axis=-1, keepdims=True)) / s
    over_rows = tuple(range(dy.ndim - 1))
    return dx, {"weight": (dy * n).sum(axis=over_rows), "bias": dy.sum(axis=over_rows)}


def softmax_backward(dy, y):
    """Of y = softmax(x), given y: dy_i/dx_j = y_i ((i = j) - y_j), so dx = y (dy - sum_j dy_j y_j).

    dy, y: [..., N] -> [..., N]. Where y is 0, as behind a mask, so is dx.
    """
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def gelu_new_backward(dy, x):
    """Of y = 0.5 x (1 + tanh u), u = c (x + a x^3): dx = dy (0.5 (1 + tanh u) + 0.5 x (1 - tanh^2
    u) c (1 + 3 a x^2)).

    dy, x: [...] -> [...]; c = sqrt(2/pi), a = 0.044715.
    """
    c, a = math.sqrt(2.0 / math.pi), 0.044715
    t = np.tanh(c * (x + a * (x * x * x)))
    return dy * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (c * (1.0 + 3.0 * a * (x * x))))


def gelu_backward(dy, x):
    """Of y = x P(x), P the normal distribution function with density p: dx = dy (P(x) + x p(x)).
    dy, x: [...] -> [...]."""
    below = 0.5 * (1.0 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2.0)))
    return dy * (below + x * np.exp(-0.5 * (x * x)) / math.sqrt(2.0 * math.pi))


def relu_backward(dy, x):
    """Of y = max(x, 0): dx = dy where x > 0, else 0. dy, x: [...] -> [...]."""
    return dy * (x > 0)


def cross_entropy_backward(dy, logits, targets):
    """Of the losses -log softmax(logits)[target]: d_logits = dy (softmax(logits) - onehot(target)).

    dy: [...], the weight of each loss in the whole, 0 for padding; logits: [..., V]; targets: [...]
    -> [..., V].
    """
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    d_logits = e * (dy[..., None] / e.sum(axis=-1, keepdims=True))
    rows = d_logits.reshape(-1, logits.shape[-1])
    rows[np.arange(len(rows)), np.ravel(targets)] -= np.ravel(dy)
    return d_logits


def embedding_backward(dy, ids, d_table):
    """Of y = table[ids]: a row of the table gets the sum of dy wherever it was looked up, added to
    d_table in place.

    dy: [..., C]; ids: [...]; d_table: [rows, C], which may hold another gradient already (a tied
    head's) -> d_table.
    """
    np.add.at(d_table, np.ravel(ids), dy.reshape(-1, dy.shape[-1]))
    return d_table


def backward_of(name: str, ops):
    """The backward of the operation `name`: the twin's own where it has one, else the one above."""
    return abilities(ops).backward(name) or globals()[f"{name}_backward"]


# ---- attention.py


def scaled_dot_product_attention_backward(
    d_context, kept, positions, scale, step=identity, ops=numpy_ops
):
    """Of context = W v with W = softmax(q k^T * scale + mask): dv = W^T d_context, dW = d_context
    v^T, and through softmax dS; dq = dS k * scale, dk = dS^T q * scale. The mask needs no line:
    where W is 0, so is dS.

    kept: q, k, v and weights as the forward formed them; where it formed no weights (a twin that
    streams over the keys), they are formed again, by that twin if it can. d_context: [B,H,T,D] ->
    dq, dk, dv, each [B,H,T,D].
    """
    q, k, v = kept["q"], kept["k"], kept["v"]
    if "weights" not in kept:
        if (own := abilities(ops).backward("attention")) is not None:
            return own(d_context, q, k, v, kept["context"], positions, scale)
        scaled_dot_product_attention(q, k, v, positions, scale, kept := Trace(), ops)
    weights = kept["weights"]
    dv = weights.swapaxes(-1, -2) @ d_context  # [B,H,T,T] @ [B,H,T,D] -> [B,H,T,D]
    d_weights = step("weights", d_context @ v.swapaxes(-1, -2))
    d_scores = step("scores", backward_of("softmax", ops)(d_weights, weights))
    return d_scores @ k * scale, d_scores.swapaxes(-1, -2) @ q * scale, dv


def causal_self_attention_backward(
    d_out, x, kept, c_attn, c_proj, *, n_head, scale, positions, step=identity, ops=numpy_ops
):
    """d_out, x: [B,T,C], kept: what the forward formed -> dx [B,T,C], {"c_attn": gradients,
    "c_proj": gradients}."""
    linear_backward = backward_of("linear", ops)
    d_merged, d_proj = linear_backward(d_out, ops.merge_heads(kept["context"]), c_proj["weight"])
    d_context = step("context", ops.split_heads(d_merged, n_head))
    d_qkv = scaled_dot_product_attention_backward(d_context, kept, positions, scale, step, ops)
    d_qkv = [ops.merge_heads(step(name, d)) for name, d in zip("qkv", d_qkv)]
    dx, d_attn = linear_backward(
        step("c_attn", np.concatenate(d_qkv, axis=-1)), x, c_attn["weight"]
    )
    return dx, {"c_attn": d_attn, "c_proj": d_proj}


# ---- feed_forward.py


def feed_forward_backward(
    d_out, x, kept, c_fc, c_proj, *, activation="gelu_new", step=identity, ops=numpy_ops
):
    """d_out, x: [B,T,C], kept: what the forward formed -> dx [B,T,C], {"c_fc": gradients, "c_proj":
    gradients}."""
    linear_backward = backward_of("linear", ops)
    d_act, d_proj = linear_backward(d_out, kept["act"], c_proj["weight"])
    d_expanded = step("c_fc", backward_of(activation, ops)(step("act", d_act), kept["c_fc"]))
    dx, d_fc = linear_backward(d_expanded, x, c_fc["weight"])
    return dx, {"c_fc": d_fc, "c_proj": d_proj}


# ---- model.py


def block_backward(
    dx, x, kept, ln_1, attn, ln_2, mlp, *, config, layer, positions, step=identity, ops=numpy_ops
):
    """A residual adds a branch to x, so the gradient of x is dx itself plus what comes back through
    the branch.

    dx: gradient of the block's result; x: what the block was given; both [B,T,C] -> dx [B,T,C], the
    block's gradients.
    """
    shape = {
        "n_head": config.n_head,
        "scale": config.attention_scale(layer),
        "positions": positions,
        "ops": ops,
    }
    bend = {"activation": config.activation_function, "step": under("mlp.", step), "ops": ops}
    layer_norm_backward, eps = backward_of("layer_norm", ops), config.layer_norm_epsilon
    d_normed, d_mlp = feed_forward_backward(
        step("mlp.out", dx), kept["ln_2"], Under(kept, "mlp."), **mlp, **bend
    )
    through, d_ln_2 = layer_norm_backward(
        step("ln_2", d_normed), kept["attn.residual"], ln_2["weight"], eps
    )
    dx = step("attn.residual", dx + through)
    attention = causal_self_attention_backward(
        step("attn.out", dx),
        kept["ln_1"],
        Under(kept, "attn."),
        **attn,
        **shape,
        step=under("attn.", step),
    )
    through, d_ln_1 = layer_norm_backward(step("ln_1", attention[0]), x, ln_1["weight"], eps)
    return dx + through, {"ln_1": d_ln_1, "attn": attention[1], "ln_2": d_ln_2, "mlp": d_mlp}


def gpt2_backward(
    model: Model, ids, positions, kept: Trace, d_logits=None, d_hidden=None, step=identity
) -> dict:
    """Return the gradient of every parameter by its checkpoint name, from that of the logits or of
    the last hidden state.

    ids, positions: [B,T]; kept: the Trace of the forward; d_logits: [B,T,V]; d_hidden: [B,T,C], the
    gradient of ln_f's result, from a head of somebody else's. A tied head gives wte two gradients,
    which add up. Where `kept` has no intermediates of a block, only its result, they are formed
    again from the block before (see `Checkpoints`).
    """
    config, weights, ops = model.config, model.weights, model.ops
    gradients = {}
    if d_logits is not None:
        head = "wte.weight" if config.tie_word_embeddings else "lm_head.weight"
        unembed_backward = backward_of("unembed", ops)
        d_hidden, gradients[head] = unembed_backward(
            step("logits", d_logits), kept["ln_f"], weights.get("lm_head", weights["wte"])["weight"]
        )
    results = ["embed", *(f"h.{i}.mlp.residual" for i in range(config.n_layer))]
    dx, d_ln_f = backward_of("layer_norm", ops)(
        step("ln_f", d_hidden),
        kept[results[-1]],
        weights["ln_f"]["weight"],
        config.layer_norm_epsilon,
    )
    blocks = {}
    for i in reversed(range(config.n_layer)):
        run = {"config": config, "layer": i, "positions": positions, "ops": ops}
        x, inside = kept[results[i]], Under(kept, f"h.{i}.")
        if "ln_1" not in inside:
            block(x, **weights["h"][i], **run, step=(inside := type(kept)()))
        dx = step(results[i + 1], dx)
        dx, blocks[i] = block_backward(
            dx, x, inside, **weights["h"][i], **run, step=under(f"h.{i}.", step)
        )
    dx = step("embed", dx)
    embedding_backward = backward_of("embedding", ops)
    for name, rows in (
        ("wte.weight", ids),
        ("wpe.weight", np.broadcast_to(positions, np.shape(ids))),
    ):
        so_far = (
            gradients[name]
            if name in gradients
            else np.zeros(model.parameters[name].shape, dx.dtype)
        )
        gradients[name] = embedding_backward(dx, rows, so_far)
    return gradients | flat({"h": blocks, "ln_f": d_ln_f})


# ---- what is kept between forward and backward


class Activations(Trace):
    """A Trace that asks for nothing which is formed merely to be seen: what backward needs, and no
    scores."""

    times_only = True


class Checkpoints(Activations):
    """Keeps only what enters each block: backward forms the rest again, one block at a time,
    exactly as it was.

    Memory for one block's intermediates instead of L, for about a third more time. Source: Chen et
    al., "Training Deep Nets with Sublinear Memory Cost" (2016).
    """

    def __call__(self, name: str, value):
        inside = name.startswith("h.") and not name.endswith(".mlp.residual")
        return value if inside else super().__call__(name, value)


class Under:
    """The part of a mapping whose names begin with `prefix`."""

    def __init__(self, mapping, prefix: str):
        self.mapping, self.prefix = mapping, prefix

    def __getitem__(self, name: str):
        return self.mapping[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.mapping


def flat(tree: dict, prefix: str = "") -> dict:
    """{"ln_f": {"bias": b}} -> {"ln_f.bias": b}."""
    names = {}
    for name, value in tree.items():
        names |= (
            flat(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {f"{prefix}{name}": value}
        )
    return names
