"""Pruning: leave out what matters least. Single weights, heads, neurons of the feed forward, or
whole layers."""

from __future__ import annotations

import numpy as np

from .. import kernels
from ..errors import InputError
from ..protocol import AnyModel
from ..weights import Sparse
from .parts import BLOCK_MATRICES, chosen_matrices, dense


def prune_magnitude(model: AnyModel, sparsity: float, matrices=BLOCK_MATRICES) -> AnyModel:
    """Return `model` without the `sparsity` smallest share of the weights of each of `matrices`:
    |w| decides.

    What is left is stored as values and indices (weights.Sparse). When it pays: a kept float32
    weight takes 6 bytes (2 for its index, 4 where there are more than 65,536 inputs) instead of 4,
    so memory is saved above a sparsity of 1/3; time only where the product is bound by memory and
    the gathering of inputs, one load for each weight, is not slower than reading zeros in 16 lanes:
    `minillm compare` measures where. With several rows or without Numba it hardly ever is. Not
    exact. Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks"
    (2015).
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity is {sparsity}; it must be at least 0 and below 1")
    product = Sparse.numpy_product
    if model.ops is kernels:
        from ..kernels.sparse import csr_matmul as product
    parameters = {}
    for name in chosen_matrices(model, matrices):
        w = dense(model.parameters[name])
        dropped = np.argpartition(np.abs(w), int(sparsity * w.size), axis=None)[
            : int(sparsity * w.size)
        ]
        kept = np.ones(w.shape, bool)
        kept.flat[dropped] = False
        parameters[name] = Sparse.from_matrix(np.where(kept, w, 0), product)
    return model.with_parameters(parameters)


def prune_heads(model: AnyModel, keep: int, ids) -> AnyModel:
    """Return `model` with the `keep` heads of each layer that matter most for ids [T] or [B,T]; the
    matrices shrink.

    A head's importance is the mean size of what it adds to the residual stream, |context_h W_h|
    with W_h its D rows of c_proj. What a dropped head adds on average stays, as a part of the bias.
    c_attn becomes [C, 3 keep D], c_proj [keep D, C], the cache keep / H of its size: a smaller
    GPT-2 with heads of the same size (config.head_size), which transformers cannot express. Exact
    if the dropped heads add the same everywhere; otherwise not. Source: Michel, Levy, Neubig, "Are
    Sixteen Heads Really Better than One?" (2019).
    """
    config, H, D = model.config, model.config.n_head, model.config.head_dim
    if not 1 <= keep <= H:
        raise InputError(f"{keep} heads cannot be kept of {H}: it must be from 1 to {H}")
    trace, parameters = model.trace(ids), dict(model.parameters)
    for i in range(config.n_layer):
        context = (
            trace[f"h.{i}.attn.context"].swapaxes(0, 1).reshape(H, -1, D)
        )  # [B,H,T,D] -> [H,B*T,D]
        added = context @ dense(parameters[f"h.{i}.attn.c_proj.weight"]).reshape(
            H, D, -1
        )  # [H,B*T,C]
        kept = _largest(np.linalg.norm(added, axis=-1).mean(axis=-1), keep)
        numbers = (
            kept[:, None] * D + np.arange(D)
        ).ravel()  # of their columns in q, in k, in v, and their rows in c_proj
        columns = np.concatenate([part * H * D + numbers for part in range(3)])
        _shrink(parameters, f"h.{i}.attn.c_attn", columns, f"h.{i}.attn.c_proj", numbers)
        parameters[f"h.{i}.attn.c_proj.bias"] = parameters[f"h.{i}.attn.c_proj.bias"] + _left_out(
            added.mean(axis=1), kept
        )
    return model.with_parameters(parameters, n_head=keep, head_size=D)


def prune_neurons(model: AnyModel, keep: int, ids) -> AnyModel:
    """Return `model` with the `keep` neurons of each feed forward that matter most for ids [T] or
    [B,T].

    A neuron's importance is the mean size of what it adds to the residual stream, mean|act_j| |W_j|
    with W_j its row of c_proj. What a dropped neuron adds on average stays, as a part of the bias.
    c_fc becomes [C, keep], c_proj [keep, C]: a plain GPT-2 with n_inner = keep, which every lever
    and transformers can take from here. Exact if the dropped neurons are constant; otherwise not.
    Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models" (2023),
    for size times activation; here for whole neurons.
    """
    F = model.config.hidden_dim
    if not 1 <= keep <= F:
        raise InputError(f"{keep} neurons cannot be kept of {F}: it must be from 1 to {F}")
    trace, parameters = model.trace(ids), dict(model.parameters)
    for i in range(model.config.n_layer):
        act = trace[f"h.{i}.mlp.act"].reshape(-1, F)  # [B,T,F] -> [B*T,F]
        w = dense(parameters[f"h.{i}.mlp.c_proj.weight"])
        kept = _largest(np.abs(act).mean(axis=0) * np.linalg.norm(w, axis=1), keep)
        _shrink(parameters, f"h.{i}.mlp.c_fc", kept, f"h.{i}.mlp.c_proj", kept)
        means = act.mean(axis=0)[:, None] * w
        parameters[f"h.{i}.mlp.c_proj.bias"] = parameters[f"h.{i}.mlp.c_proj.bias"] + _left_out(
            means, kept
        )
    return model.with_parameters(parameters, n_inner=keep)


def skip_layers(model: AnyModel, n: int) -> AnyModel:
    """Return `model` without `n` of its layers, spread over its middle: the first and the last are
    kept.

    A block adds to the residual stream, so the stream without it is still one that later blocks can
    read. Every cost of a layer goes, its cache too. Far from exact alone; as a draft it needs no
    second model and shares all weights. Source: Zhang et al., "Draft & Verify: Lossless LLM
    Acceleration via Self-Speculative Decoding" (2023).
    """
    L = model.config.n_layer
    if not 0 <= n <= L - 2 and n != 0:
        raise InputError(f"{n} layers cannot be skipped of {L}: the first and the last stay")
    kept = np.rint(np.linspace(0, L - 1, L - n)).astype(int).tolist()
    moved = {}
    for new, old in enumerate(kept):
        prefix = f"h.{old}."
        moved |= {
            f"h.{new}.{name.removeprefix(prefix)}": p
            for name, p in model.parameters.items()
            if name.startswith(prefix)
        }
    return model.with_parameters(moved, n_layer=len(kept))


def _largest(importance, keep: int) -> np.ndarray:
    """The numbers of the `keep` largest, in order."""
    return np.sort(np.argsort(-importance, kind="stable")[:keep])


def _shrink(parameters, first: str, columns, second: str, rows) -> None:
    """Keep some columns of one linear map and the rows of the next that take them."""
    into, out = parameters[f"{first}.weight"], parameters[f"{second}.weight"]
    parameters[f"{first}.weight"] = np.ascontiguousarray(dense(into)[:, columns])
    parameters[f"{first}.bias"] = parameters[f"{first}.bias"][columns]
    parameters[f"{second}.weight"] = np.ascontiguousarray(dense(out)[rows])


def _left_out(means, kept) -> np.ndarray:
    """The sum of means [n,C] over all but `kept`."""
    return np.delete(means, kept, axis=0).sum(axis=0)
