"""What each view of the page rests on: its equation, and the lines of this package behind it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import families
from ..clock.clock import CycleTimes
from ..clock.prediction import Prediction
from ..decoding.options import Options
from ..decoding.speculative import speculate
from ..layers.attention import scaled_dot_product_attention
from ..layers.cache import position_bytes
from ..record import Traced
from ..steps import Patch
from ..tokenizer.bpe import merge_by_hand

PACKAGE = Path(__file__).parents[1]
MOST_LINES = 60  # of a source that are shown
VIEWS: dict[str, tuple[str, Callable | type | property]] = {
    "scope": ("time = max(bytes / bandwidth, FLOPs / rate) + waiting", Prediction),
    "cycle": ("time = \u03a3 intervals, an interval = end \u2212 the end before", CycleTimes.gross),
    "candidates": ("p = softmax(filters(logits / T))", Options.distribution),
    "lens": ("p_l = softmax(ln_f(x_l) W_U)", Traced._keep),
    "attention": ("w = softmax(q k\u1d40 scale + mask)", scaled_dot_product_attention),
    "norms": ("|x| = \u221a(\u03a3 x_c\u00b2)", Traced.__call__),
    "kept": ("bytes = positions \u00b7 2 L K D \u00b7 bytes of a number", position_bytes),
    "tokens": ("first the pair of least rank", merge_by_hand),
    "beside": ("the same tokens, greedily: argmax p", speculate),
    "patch": ("x \u2190 another x, then the rest of the pass", Patch),
}


def sources(config: Any) -> dict[str, dict]:
    """Return {view: equation, file, line, code}; the map's is the pass of the model's family."""
    residual = "x \u2190 x + attention(norm(x)), x \u2190 x + feed forward(norm(x))"
    views = VIEWS | {"map": (residual, families.of(config).hidden)}
    return {name: {"equation": e, **_place(source)} for name, (e, source) in views.items()}


def _place(source: Any) -> dict:
    function = source.fget if isinstance(source, property) else source
    lines, first = inspect.getsourcelines(function)
    indent = len(lines[0]) - len(lines[0].lstrip())
    code = "\n".join(line[indent:].rstrip() for line in lines[:MOST_LINES])
    file = Path(inspect.getsourcefile(function) or "")
    inside = file.is_relative_to(PACKAGE)
    name = file.relative_to(PACKAGE.parent).as_posix() if inside else file.name
    return {"file": name, "line": first, "code": code}
