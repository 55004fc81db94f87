"""A small model as one file for the page: what js/model.js reads and computes with.

The file is in the safetensors format. Matrices lie in rows, an output each, so that a product goes
through the file from one end to the other: in float32, float16, or blocks of 8 bits as ggml has
them (uint8 [rows, 34 for each 32 numbers]: a float16 scale, 32 signed bytes). All other arrays are
float16 where that holds them exactly, else float32. The metadata hold, as JSON under "model":
family, config, sizes and whatever else a forward needs, and the tokenizer's settings; its tokens
and merges are tensors under "tokenizer.".
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import regex

from ..checkpoints import safetensors
from ..compression.parts import dense
from ..errors import InputError, require_one_of, short
from ..families.family import MATRIX, TABLE
from ..layers.rope import frequencies
from ..model import Model
from ..tokenizer import Tokenizer
from ..tokenizer.patterns import FOLDED
from ..weights import Int8, Weight, store

VERSION = 1
KINDS = ("int8", "float16", "float32")
SCRIPTS = Path(__file__).parent / "js"


def pack(model: Model, tokenizer: Tokenizer, kind: str = "int8") -> bytes:
    """Return the file of a model whose matrices are stored as `kind`: int8, float16 or float32.

    The numbers are those of quantize(model, kind). Raises InputError for another kind, a family
    that the page has no forward for, and a tokenizer whose pattern means something else in a
    browser.
    """
    require_one_of("kind", kind, KINDS)
    family, config, layout = model.family, model.config, model.layout
    if not (SCRIPTS / f"{family.name}.js").exists():
        raise InputError(f"the page has no forward for the family {family.name!r}")
    tensors, matrices = {}, {}
    for name, p in model.parameters.items():
        if layout[name].role not in (MATRIX, TABLE):
            tensors[name] = _exact(np.asarray(p, np.float32))
            continue
        if getattr(p, "kind", None) != kind:
            p = store(dense(p).astype(np.float32), kind, table=layout[name].role == TABLE)
        matrices[name] = [p.n, p.k]
        tensors[name] = cast(Int8, p).to_ggml() if kind == "int8" else _rows(p).astype(kind)
    header = {
        "version": VERSION,
        "family": family.name,
        "config": config.to_dict(),
        "generation": config.generation or {},
        "sizes": vars(config.sizes),
        "stored": kind,
        "matrices": matrices,
        "scales": [config.attention_scale(i) for i in range(config.sizes.L)],
        "frequencies": _frequencies(config),
        "tokenizer": _tokenizer(tokenizer, tensors),
    }
    return safetensors.to_bytes(tensors, {"model": json.dumps(header)})


def _rows(weight: Weight) -> np.ndarray:
    """A weight as an array, a row for each output."""
    return (weight.T if weight.transposed else weight).dense()


def _exact(array: np.ndarray) -> np.ndarray:
    """The array as float16 where that changes no number."""
    half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else array


def _frequencies(config: Any) -> list[float] | None:
    """Of the rotation of queries and keys, in float32; None where nothing is rotated."""
    if not hasattr(config, "rope_theta"):
        return None
    return frequencies(config.sizes.D, config.rope_theta, config.rope_scaling).tolist()


def _tokenizer(tokenizer: Tokenizer, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The settings of a tokenizer; its tokens and merges are put beside the weights."""
    tokens = tokenizer.tokens
    lengths = [-1 if token is None else len(token) for token in tokens]
    tensors["tokenizer.bytes"] = np.frombuffer(b"".join(t or b"" for t in tokens), np.uint8)
    tensors["tokenizer.lengths"] = np.array(lengths, np.int32)  # -1: the id has no token
    tensors["tokenizer.merges"] = np.array(tokenizer.merges, np.int32).reshape(-1, 2)
    return {
        "patterns": [for_browsers(pattern) for pattern in tokenizer.pattern],
        "normalizer": tokenizer.normalizer,
        "specials": tokenizer.special_tokens,
        "added": tokenizer.added_tokens,
        "normalized": sorted(tokenizer.normalized),
        "ignore_merges": tokenizer.ignore_merges,
        "gaps": tokenizer.gaps,
        "template": tokenizer.template,
    }


# ---- regular expressions

# What a pattern consists of, see tokenizer.patterns.COMMON.
PART = regex.compile(
    rf"{regex.escape(FOLDED)}|\\[pP]\{{\w+\}}|\\.|\[\^?|\(\?<?[:=!]|[?*+}}]\+|.", regex.DOTALL
)
# In the JavaScript of older browsers no part of an expression ignores case.
SPELLED = "(?:'[sSſ]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"


def for_browsers(pattern: str) -> str:
    """Return the pattern as JavaScript writes it, with the flag "u".

    Kinds of characters (letters, white space) are written out as ranges: browsers know other
    versions of Unicode than the library `regex`, and another \\s. Raises InputError for what
    JavaScript lacks.
    """
    out, inside = [], False
    for part in PART.findall(pattern):
        if part == FOLDED:
            part = SPELLED
        elif part[0] == "\\" and (part[1] in "pP" or part[1] in "sSdD"):
            part = ranges(part) if inside else f"[{ranges(part)}]"
        elif part[0] == "\\" and not part[1].isalnum():
            part = f"\\u{{{ord(part[1]):x}}}"
        elif part == "." and not inside:
            part = "[^\\n]"
        elif len(part) == 2 and part[1] == "+" and part[0] in "?*+}" and not inside:
            raise InputError(
                f"the pattern {short(pattern)} has {part!r}, which JavaScript does not know"
            )
        elif part[0] == "[" and not inside:
            inside = True
        elif part == "]":
            inside = False
        out.append(part)
    return "".join(out)


@cache
def ranges(kind: str) -> str:
    """The characters of a kind ("\\\\p{L}") as ranges for a set, those that no text holds
    (surrogates) left out."""
    found = regex.finditer(f"{kind}+", _all_characters())
    return "".join(
        f"\\u{{{ord(m[0][0]):x}}}" + (f"-\\u{{{ord(m[0][-1]):x}}}" if len(m[0]) > 1 else "")
        for m in found
    )


@cache
def _all_characters() -> str:
    return "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
