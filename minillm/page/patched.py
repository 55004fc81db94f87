"""What follows when one value of a pass is another: the same pass twice, the second time with a
patch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import numpy as np

from ..errors import InputError
from ..model import Model
from ..ops import softmax
from ..steps import Patch, Trace
from ..tokenizer import Tokenizer

BEFORE, AFTER = 6, 2  # of the likeliest words
TOLD = re.compile(r"(attn\.out|mlp\.out|residual|ln_f|logits)$")  # the steps that are told of


class Change(TypedDict):
    """Which value is changed: `part` of a layer, of one head where it is attn.context, at a
    position, or with -1 at all; into 0, or into what it is at the last position of another text."""

    layer: int
    part: Literal["attn.context", "attn.out", "mlp.out", "mlp.residual"]
    head: int
    at: int
    other: str | None


def patched(
    model: Model, tokenizer: Tokenizer, ids: Sequence[int], change: Change
) -> dict[str, list[dict[str, Any]]]:
    """Return the likeliest words before and after a patch, {"words": [{word, before, after}]}, and
    how far each later step moves at the last position, {"changed": [{name, share}]}, as a share of
    its length |x|. InputError for a value that the pass does not form.
    """
    part, head, at = change["part"], change["head"], change["at"]
    H, name = model.config.sizes.H, f"h.{change['layer']}.{part}"
    if not (0 <= head < H and -1 <= at < len(ids)):
        raise InputError(f"head {head} of {H} at {at} of {len(ids)} positions: there is none")
    new: Any = 0

    def of_head(value: np.ndarray) -> np.ndarray:  # [B,H,T,D] -> [B,T,D]; [B,T,C] as it is
        return value[:, head] if part == "attn.context" else value

    if change["other"] is not None:
        if not change["other"]:
            raise InputError("the other text is empty: there is no value in it")
        new = of_head(model.trace(tokenizer.encode_prompt(change["other"]))[name])[:, -1:]

    def put(value: np.ndarray) -> np.ndarray:
        value = value.copy()
        of_head(value)[:, slice(None) if at < 0 else slice(at, at + 1)] = new
        return value

    was, now = Trace(), Trace()
    logits = [model(ids, last=True, step=step)[0] for step in (was, Patch({name: put}, now))]
    before, after = map(softmax, logits)
    likeliest = [*np.argsort(-before)[:BEFORE], *np.argsort(-after)[:AFTER]]
    words = [
        {"word": tokenizer.readable([i]), "before": float(before[i]), "after": float(after[i])}
        for i in map(int, dict.fromkeys(likeliest))
    ]
    later = [*now][[*now].index(name) + 1 :]
    return {
        "words": words,
        "changed": [{"name": n, "share": _moved(was[n], now[n])} for n in later if TOLD.search(n)],
    }


def _moved(old: np.ndarray, new: np.ndarray) -> float:
    """|new - old| / |old| of the last position; of a value of zeros 0."""
    old, new = (value.reshape(-1, value.shape[-1])[-1] for value in (old, new))
    return float(np.linalg.norm(new - old) / (np.linalg.norm(old) or np.inf))
