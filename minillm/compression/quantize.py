"""Quantisation: fewer bits a weight, so that a decode cycle, which reads every weight once, reads
less."""

from __future__ import annotations

import numpy as np

from ..errors import require_one_of
from ..families.family import MATRIX, TABLE
from ..protocol import AnyModel, Model, require_model
from ..weights import KINDS, store_parameters
from .parts import dense, relative_error


def quantize(model: AnyModel, kind: str, head: bool = True) -> AnyModel:
    """Return `model` with every matrix that multiplies stored as `kind`; the rest stays as it is.

    int8: blocks of 32 inputs share a float16 scale, w = d q, -127 <= q <= 127 (the numbers of
    ggml's Q8_0); int4: w = d (q - 8), 0 <= q <= 15 (Q4_0); int4_min: w = d q + m (Q4_1); bfloat16,
    float16, float32: rounded; bfloat16_rounded: so is whatever they multiply, y = bfloat16(x)
    bfloat16(W), summed up in float32. Already stored weights are stored anew from what they hold;
    low-rank and sparse ones stay as they are. head: the output head too (with GPT-2's tied head,
    the token table with it); without it the last, most sensitive product keeps its precision. Not
    exact: the rounding error is at most half a step, d / 2 a weight. Raises InputError for another
    kind.
    """
    require_model(model)
    require_one_of("kind", kind, KINDS)
    layout = model.layout
    chosen = {n: p for n, p in model.parameters.items() if head or layout[n].role != TABLE}
    return model.with_parameters(store_parameters(chosen, kind, layout))


def round_to_int8(model: AnyModel, per: str = "row", head: bool = True) -> AnyModel:
    """Return `model` with every matrix rounded to 255 steps of one scale per "row" (an output) or
    per "tensor".

    w -> d round(w / d), d = max|w| / 127 of the row or of the tensor. Simulated: the result is kept
    as the floats that it stands for, and shows what a coarser scale costs in quality. One outlier
    makes the steps of everything that shares its scale coarse: why practice shares it among 32
    weights only (`quantize`). Source: Dettmers et al., "LLM.int8()" (2022).
    """
    require_model(model)
    require_one_of("per", per, ("row", "tensor"))  # per block of 32: quantize
    parameters = {}
    for name, p in model.parameters.items():
        role = model.layout[name].role
        if role == MATRIX or (role == TABLE and head):
            w = dense(p)
            # the axis that a row sums over
            outputs = None if per == "tensor" else 1 if role == TABLE else 0
            scale = np.abs(w).max(axis=outputs, keepdims=True) / 127 + np.finfo(w.dtype).tiny
            parameters[name] = np.rint(w / scale) * scale
    return model.with_parameters(parameters)


def errors_by_matrix(model: Model, changed: Model) -> dict[str, float]:
    """Return |W' - W| / |W| (Frobenius) of every matrix of the blocks and the head, by name.

    Errors of what flows through a layer rather than of its weights: steps.diff(changed.trace(ids),
    model.trace(ids)).
    """
    require_model(model)
    require_model(changed)
    names = [
        n
        for n, p in model.parameters.items()
        if p.ndim == 2 and changed.parameters[n].shape == p.shape
    ]
    return {
        name: relative_error(dense(changed.parameters[name]), dense(model.parameters[name]))
        for name in names
    }
