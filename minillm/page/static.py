"""The page as one file: every module, style and text inside, and a recording to look at.

Nothing is fetched, and what may run is named by its hash: whatever a text holds, it stays text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import families
from ..clock.costs import step_costs, steps_of
from ..recording import Recording, to_bytes
from ..steps import local_name
from .drawing import CSS, drawing, words_of
from .sources import sources

FILES = Path(__file__).with_name("js")
MODULES = (  # each imports from those before it
    *("words", "recording", "scope", "sampling", "views", "handles", "kept", "proof"),
    *("parting", "patch", "map", "main"),
)
ALIVE = (  # and what a page with the model inside has besides
    *("ops", "packed", "attention", "gpt2", "llama", "random", "decoding", "tokenizer", "model"),
    *("live", "patched", "alive"),
)
LANGUAGES = ("en", "zh")


def page(recording: Recording | Sequence[Recording], packed: bytes = b"") -> str:
    """Return a page that shows a recording, which is inside it: one file that needs nothing; of
    several, the first above the second, and the others to choose from.

    packed: a model (packing.pack) that goes along, so that the page continues other texts itself.
    """
    recordings = [recording] if isinstance(recording, Recording) else [*recording]
    return html(configured(recordings[0]), recordings, packed=packed)


def configured(recording: Recording) -> Any:
    """The config of the model that a recording is of."""
    family = families.described(described := recording.header["model"]["config"])
    return family.config.from_dict(described)


def html(
    config: Any,
    recordings: Sequence[Recording] = (),
    ask: dict | None = None,
    packed: bytes = b"",
) -> str:
    """Return the page of a model with this config; ask: what it asks the server that it comes from
    (framed: the page in which it stands) for, before anybody types another text; packed: the model
    itself."""
    style, script = _file("style.css") + CSS, bundle(MODULES + (ALIVE if packed else ()))
    policy = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "base-uri": "'none'",
        "form-action": "'none'",
        **({"connect-src": "'self'"} if ask and not ask.get("framed") else {}),
    }
    texts = {language: json.loads(_file(f"{language}.json")) for language in LANGUAGES}
    maps = (
        f'<div lang="{language}">{drawing(config, words=words_of(language), css=False)}</div>'
        for language in LANGUAGES
    )
    parts = {
        "policy": "; ".join(" ".join(part) for part in policy.items()),
        "style": style,
        "script": script,
        "texts": _json(texts),
        "ask": _json(ask),
        "sources": _json(sources(config)),
        "recording": " ".join(base64.b64encode(to_bytes(r)).decode() for r in recordings),
        "map": "".join(maps),
        "model": _model(config, packed) if packed else "",
    }
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], _file("index.html"))


def _model(config: Any, packed: bytes) -> str:
    """The elements that hold a model, and what its own recordings say besides."""
    about = _json({"costs": cost_forms(config)})
    return (
        f'<script type="application/json" id="about">{about}</script>\n'
        f'<script type="text/plain" id="model">{base64.b64encode(packed).decode()}</script>'
    )


def cost_forms(config: Any) -> list[list[list[float]]]:
    """Coefficients [steps,5,5] of what each step costs in one layer (products, elements, weights,
    cache, values), in float32: of 1, T, past, T past and T^2 for T new positions after `past`."""
    points = [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1)]
    terms = np.array([[1, T, past, T * past, T * T] for T, past in points], np.float64)
    names = {local_name(name): name for name in reversed(steps_of(config))}
    costs = [step_costs(config, T, past, 1, "float32") for T, past in points]
    values = np.array([[[*vars(c[n]).values()] for c in costs] for n in reversed(names.values())])
    return np.linalg.solve(terms, values).swapaxes(1, 2).round(6).tolist()


def bundle(modules: Iterable[str] = MODULES) -> str:
    """The modules as one script, each in a function of its own that returns what it exports."""
    parts = []
    for name in modules:
        source = re.sub(
            r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', r"const \1 = \2_js;", _file(f"{name}.js"),
            flags=re.MULTILINE,
        )  # fmt: skip
        exported = re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", source, re.M)
        source = re.sub(r"^export ", "", source, flags=re.MULTILINE)
        parts.append(
            f"const {name}_js = (() => {{\n{source}\nreturn {{{', '.join(exported)}}};\n}})();\n"
        )
    return "".join(parts)


def _file(name: str) -> str:
    return (FILES / name).read_text("utf-8")


def _json(value: object) -> str:
    """JSON that cannot end the element in which it stands."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
