"""Levers of the page: the same text computed in another way, to stand beside the plain one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..bench.diverge import require_alike
from ..compression import quantize
from ..decoding.drafts import named_draft
from ..decoding.speculative import Draft
from ..engines import engine
from ..errors import InputError, short
from ..model import Model
from ..tokenizer import Tokenizer
from ..twins.threads import n_threads, set_threads
from ..weights import KINDS

KNOWN = (
    f"no-cache, {', '.join(KINDS)}, cache:float16, draft:HOW, batch:N, beams:N, threads:N,"
    " model:NAME or engine:NAME"
)

ROWS = {"batch": "batch", "beams": "num_beams"}  # levers that are a number of rows, for `record`
NAMED = ("draft", "cache", "model", "engine")  # levers with a name behind the colon
NUMBER = re.compile("[0-9]{1,4}")


def offered(model: Model, drafts: tuple[str, ...] = ()) -> list[str]:
    """The levers that a page offers for a model; drafts: what could guess for it."""
    found = ["no-cache", *(k for k in ("int8", "int4") if k != model.stored), "cache:float16"]
    found += [*(f"draft:{name}" for name in (*drafts, "ngram")), "batch:8", "beams:4"]
    return [*found, "threads:1"] if n_threads(model.ops) > 1 else found


def require_known(lever: str) -> None:
    """Raise InputError for what is no lever, of whatever model; "" is none."""
    what, _, how = lever.partition(":")
    if what in (*ROWS, "threads"):
        known = bool(NUMBER.fullmatch(how))
    else:
        known = bool(how) if what in NAMED else lever in ("", "no-cache", *KINDS)
    if not known:
        raise InputError(f"lever {short(lever)} is not known; known: {KNOWN}")
    if what == "engine":
        engine(how)  # raises


@contextmanager
def pulled(
    lever: str, model: Model, tokenizer: Tokenizer, load: Callable[..., Any], name: str = ""
) -> Iterator[tuple[Model, Draft | None, dict]]:
    """The model, the draft and the arguments of `record` that a lever asks for, while it is pulled;
    "" is none. load: opens a model by its name; name: what this one is opened by. InputError for
    another lever."""
    require_known(lever)
    what, _, how = lever.partition(":")
    threads = n_threads(model.ops)
    draft: Draft | None = None
    options: dict = {}
    if what == "draft":
        draft = named_draft(how, model, tokenizer, load)
    elif what == "cache":
        options = {"cache_dtype": how}
    elif what in ROWS:
        options = {ROWS[what]: int(how)}
    elif what == "threads":
        set_threads(int(how))
    elif what == "model":
        other, its_tokenizer = load(how)
        require_alike(model, other)
        if its_tokenizer.tokens != tokenizer.tokens:
            raise InputError(f"{short(how)} has another vocabulary: a text is other ids to it")
        model, options = other, {"name": how}
    elif what == "engine":
        options = {"engine": engine(how)(name, threads)}
    elif lever == "no-cache":
        options = {"use_cache": False}
    elif lever:
        model = quantize(model, lever)
    try:
        yield model, draft, options
    finally:
        if what == "threads":
            set_threads(threads)
