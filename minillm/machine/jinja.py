"""A template of somebody else's, rendered by Jinja in a process of its own, which has so much time
and so much memory. Run as a module, this is that process.

The environment is the one that chat templates are written for: transformers', utils/
chat_template_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec

from ..errors import InputError, short
from .child import Ended, answering, ask_once, limit_memory, listening

SAFE = (3, 1, 6)  # older versions have known ways out of the sandbox
INSTALL = 'python -m pip install "jinja2>=3.1.6"'
SECONDS = 10  # to start, on a slow disk, and to render
MEMORY = 1 << 30  # bytes
MOST_TEMPLATE, MOST_TEXT = 1 << 18, 1 << 19  # characters; a text's fit into child.LINE


def require() -> None:
    """Raise InputError where Jinja is not installed."""
    if find_spec("jinja2") is None:
        raise InputError(
            f"this model's chat template needs jinja2: {INSTALL}; or, where ChatML will do, another"
            " one: --template chatml"
        )


def render(template: str, values: Mapping[str, object]) -> str:
    """Return what `template` says of `values` (JSON's kinds); InputError where it says an error, or
    takes too long, too much memory or more than half a million characters."""
    if len(template) > MOST_TEMPLATE:
        raise InputError(
            f"the chat template has {len(template):,} characters; at most {MOST_TEMPLATE:,}"
        )
    require()
    message = {"template": template, "values": values}
    try:
        answer = ask_once("minillm.machine.jinja", message, SECONDS)
    except Ended as error:
        raise InputError(f"the chat template cannot be rendered: {error}") from None
    if not isinstance(text := answer.get("text"), str):
        raise InputError(f"the chat template says: {answer.get('error', short(answer))}")
    return text


def _environment():
    from datetime import datetime

    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if tuple(int(n) for n in jinja2.__version__.split(".")[:3] if n.isdigit()) < SAFE:
        raise jinja2.TemplateError(f"jinja2 {jinja2.__version__} is too old: {INSTALL}")

    class Generation(Extension):
        """{% generation %} marks an answer for training; what it holds is rendered."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
    }
    return environment


def _rendered(template: str, values: Mapping[str, object]) -> str:
    text = ""
    for part in _environment().from_string(template).generate(**values):
        text += part
        if len(text) > MOST_TEXT:
            raise ValueError(f"more than {MOST_TEXT:,} characters")
    return text


if __name__ == "__main__":
    limit_memory(MEMORY)
    listen, answer = listening()[0], answering()
    asked = listen()
    try:
        reply = {"text": _rendered(asked["template"], asked["values"])}
    except Exception as error:  # of any kind: it is a stranger's program
        reply = {"error": f"{str(error)[:500] or type(error).__name__}"}
    answer(reply)
