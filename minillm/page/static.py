"""The page as one file: every module, style and text inside, and a recording to look at.

Nothing is fetched, and what may run is named by its hash: whatever a text holds, it stays text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from .. import families
from ..recording import Recording, to_bytes
from .drawing import CSS, drawing, words_of

FILES = Path(__file__).with_name("js")
MODULES = ("words", "recording", "scope", "views", "main")  # each imports from those before it
LANGUAGES = ("en", "zh")


def page(recording: Recording) -> str:
    """Return a page that shows a recording, which is inside it: one file that needs nothing."""
    family = families.described(described := recording.header["model"]["config"])
    return html(family.config.from_dict(described), recording)


def html(config: Any, recording: Recording | None = None, ask: dict | None = None) -> str:
    """Return the page of a model with this config; ask: what it asks the server that it comes from
    for, before anybody types another text."""
    style, script = _file("style.css") + CSS, bundle()
    policy = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "base-uri": "'none'",
        "form-action": "'none'",
        **({"connect-src": "'self'"} if ask else {}),
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
        "recording": base64.b64encode(to_bytes(recording)).decode() if recording else "",
        "map": "".join(maps),
    }
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], _file("index.html"))


def bundle() -> str:
    """All modules as one script, each in a function of its own that returns what it exports."""
    parts = []
    for name in MODULES:
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
