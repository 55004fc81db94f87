"""What each view of the page rests on: the lines of this package that form what it shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import families
from ..bench.rounding import compared
from ..clock.clock import CycleTimes
from ..clock.prediction import Prediction
from ..compression import quantize
from ..decoding.batch import generate_batch
from ..decoding.beam import best_beams
from ..decoding.options import Options
from ..decoding.plain import greedy_with_cache
from ..decoding.speculative import accept
from ..differences import diff
from ..layers.attention import scaled_dot_product_attention
from ..layers.cache import LayerCache, position_bytes
from ..loading import load
from ..record import Traced
from ..steps import Patch
from ..tokenizer.bpe import merge_by_hand
from ..twins.choose import twin
from ..twins.threads import set_threads

PACKAGE = Path(__file__).parents[1]
MOST_LINES = 60  # of a source that are shown
VIEWS: dict[str, Callable | type | property] = {
    "scope": Prediction,
    "cycle": CycleTimes.gross,
    "candidates": Options.distribution,
    "lens": Traced._keep,
    "attention": scaled_dot_product_attention,
    "norms": Traced.__call__,
    "kept": position_bytes,
    "tokens": merge_by_hand,
    "parting": compared,
    "proof": diff,
    "patch": Patch,
}
LEVERS: dict[str, Callable | type | property] = {  # of two runs that stand beside each other
    "lever.no-cache": greedy_with_cache,
    "lever.stored": quantize,
    "lever.cache": LayerCache.append,
    "lever.draft": accept,
    "lever.batch": generate_batch,
    "lever.beams": best_beams,
    "lever.threads": set_threads,
    "lever.twin": twin,
    "lever.model": load,
    "lever.drawn": Options.distribution,
    "lever.text": CycleTimes.gross,
}


def sources(config: Any) -> dict[str, dict]:
    """Return {view or lever: file, line, code}; the map's is the pass of the model's family."""
    views = VIEWS | LEVERS | {"map": families.of(config).hidden}
    return {name: _place(source) for name, source in views.items()}


def _place(source: Any) -> dict:
    given: Any = source.fget if isinstance(source, property) else source
    function = inspect.unwrap(given)
    lines, first = inspect.getsourcelines(function)
    indent = len(lines[0]) - len(lines[0].lstrip())
    code = "\n".join(line[indent:].rstrip() for line in lines[:MOST_LINES])
    file = Path(inspect.getsourcefile(function) or "")
    inside = file.is_relative_to(PACKAGE)
    name = file.relative_to(PACKAGE.parent).as_posix() if inside else file.name
    return {"file": name, "line": first, "code": code}
