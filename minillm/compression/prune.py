"""Pruning: leave out what matters least. Single weights, heads, neurons of the feed forward, or
whole layers."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np

from ..errors import InputError, short, whole_number
from ..families.family import MATRIX
from ..protocol import AnyModel, Model, require_model
from ..twins.twin import abilities
from ..weights import Sparse
from .parts import chosen_matrices, dense


def prune_magnitude(model: AnyModel, sparsity: float, matrices=None) -> AnyModel:
    """Return `model` without the `sparsity` smallest share of the weights of each of `matrices`
    (None: all of the blocks): |w| decides.

    What is left is stored as values and indices (weights.Sparse). When it pays: a kept float32
    weight takes 6 bytes (2 for its index, 4 where there are more than 65,536 inputs) instead of 4,
    so memory is saved above a sparsity of 1/3; time only where the product is bound by memory and
    the gathering of inputs, one load for each weight, is not slower than reading zeros in 16 lanes:
    `minillm compare` measures where. With several rows or without Numba it hardly ever is. Not
    exact. Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks"
    (2015).
    """
    if not (isinstance(sparsity, Real) and 0 <= sparsity < 1):
        raise InputError(f"sparsity is {short(sparsity)}; it must be at least 0 and below 1")
    require_model(model)
    product = abilities(model.ops).csr_matmul or Sparse.numpy_product
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
    matrices shrink. Where queries share keys and values, `keep` counts such groups, which stay
    whole.

    A head's importance is the mean size of what it adds to the residual stream, |context_h W_h|
    with W_h its D rows of the output matrix; a group's, the sum over its heads. What a dropped head
    adds on average stays, as a part of the bias where there is one. Of GPT-2, c_attn becomes
    [C, 3 keep D], c_proj [keep D, C], the cache keep / H of its size: a smaller GPT-2 with heads of
    the same size (config.head_size), which transformers cannot express. Exact if the dropped heads
    add the same everywhere; otherwise not. Source: Michel, Levy, Neubig, "Are Sixteen Heads Really
    Better than One?" (2019).
    """
    require_model(model)
    s = model.config.sizes
    H, K, D, group = s.H, s.K, s.D, s.H // s.K
    if whole_number("heads to keep", keep) > K:
        raise InputError(f"{short(keep)} heads cannot be kept of {K}: it must be from 1 to {K}")
    trace, parameters = model.trace(ids), dict(model.parameters)
    for i in range(s.L):
        context = (
            trace[f"h.{i}.attn.context"].swapaxes(0, 1).reshape(H, -1, D)
        )  # [B,H,T,D] -> [H,B*T,D]
        out = _reading(model, i, "HD")
        added = context @ dense(parameters[out]).reshape(H, D, -1)  # [H,B*T,C]
        sizes = np.linalg.norm(added, axis=-1).mean(axis=-1).reshape(K, group).sum(axis=1)
        groups = _largest(sizes, keep)
        heads = (groups[:, None] * group + np.arange(group)).ravel()
        numbers = {
            "KD": (groups[:, None] * D + np.arange(D)).ravel(),
            "HD": (heads[:, None] * D + np.arange(D)).ravel(),
        }
        _shrink(model, parameters, i, numbers)
        _add_left_out(parameters, out, added.mean(axis=1), heads)
    return model.with_sizes(parameters, H=keep * group, K=keep, D=D)


def prune_neurons(model: AnyModel, keep: int, ids) -> AnyModel:
    """Return `model` with the `keep` neurons of each feed forward that matter most for ids [T] or
    [B,T].

    A neuron's importance is the mean size of what it adds to the residual stream, mean|act_j| |W_j|
    with W_j its row of the last matrix. What a dropped neuron adds on average stays, as a part of
    the bias where there is one. Of GPT-2, c_fc becomes [C, keep], c_proj [keep, C]: a plain GPT-2
    with n_inner = keep, which every lever and transformers can take from here. Exact if the dropped
    neurons are constant; otherwise not. Source: Sun et al., "A Simple and Effective Pruning
    Approach for Large Language Models" (2023), for size times activation; here for whole neurons.
    """
    require_model(model)
    F = model.config.sizes.F
    if whole_number("neurons to keep", keep) > F:
        raise InputError(f"{short(keep)} neurons cannot be kept of {F}: it must be from 1 to {F}")
    trace, parameters = model.trace(ids), dict(model.parameters)
    for i in range(model.config.sizes.L):
        act = trace[f"h.{i}.mlp.act"].reshape(-1, F)  # [B,T,F] -> [B*T,F]
        out = _reading(model, i, "F")
        w = dense(parameters[out])
        kept = _largest(np.abs(act).mean(axis=0) * np.linalg.norm(w, axis=1), keep)
        _shrink(model, parameters, i, {"F": kept})
        _add_left_out(parameters, out, act.mean(axis=0)[:, None] * w, kept)
    return model.with_sizes(parameters, F=keep)


def skip_layers(model: AnyModel, n: int) -> AnyModel:
    """Return `model` without `n` of its layers, spread over its middle: the first and the last are
    kept.

    A block adds to the residual stream, so the stream without it is still one that later blocks can
    read. Every cost of a layer goes, its cache too. Far from exact alone; as a draft it needs no
    second model and shares all weights. Source: Zhang et al., "Draft & Verify: Lossless LLM
    Acceleration via Self-Speculative Decoding" (2023).
    """
    require_model(model)
    L, family = model.config.sizes.L, model.family
    if whole_number("layers to skip", n, least=0) > max(L - 2, 0):
        raise InputError(f"{short(n)} layers cannot be skipped of {L}: the first and the last stay")
    new_of = {old: new for new, old in enumerate(np.rint(np.linspace(0, L - 1, L - n)).astype(int))}
    moved = {}
    for name, p in model.parameters.items():
        layer, local = family.local_name(name)
        if layer in new_of:
            moved[family.layer_name(new_of[layer], local)] = p
    return model.with_sizes(moved, L=len(new_of))


def _largest(importance, keep: int) -> np.ndarray:
    """The numbers of the `keep` largest, in order."""
    return np.sort(np.argsort(-importance, kind="stable")[:keep])


def _reading(model: Model, layer: int, axis: str) -> str:
    """The name of the matrix of a layer that reads what `axis` counts."""
    layout, family = model.layout, model.family
    return next(
        n
        for n, p in layout.items()
        if family.local_name(n)[0] == layer and p.axes[0] == axis and p.role == MATRIX
    )


def _shrink(model: Model, parameters: dict, layer: int, kept: Mapping[str, np.ndarray]) -> None:
    """Keep of each axis of a layer's parameters, or of its parts, these numbers {axis: numbers}."""
    for name, p in model.layout.items():
        if model.family.local_name(name)[0] != layer:
            continue
        for number, axis in enumerate(p.axes):
            parts = axis.split()
            if not kept.keys() & {*parts}:
                continue
            picked, start = [], 0
            for part in parts:
                width = model.config.sizes.width(part)
                picked.append(start + kept.get(part, np.arange(width)))
                start += width
            array = np.take(dense(parameters[name]), np.concatenate(picked), axis=number)
            parameters[name] = np.ascontiguousarray(array)


def _add_left_out(parameters: dict, matrix: str, added, kept) -> None:
    """Add to the bias of `matrix`, if it has one, the sum of `added` [n,C] over all but `kept`."""
    bias = f"{matrix.removesuffix('weight')}bias"
    if bias in parameters:
        parameters[bias] = parameters[bias] + np.delete(added, kept, axis=0).sum(axis=0)
