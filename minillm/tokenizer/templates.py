"""Chat templates: messages -> the one text that a model was taught to go on from -> ids.

A message is {"role": "system" | "user" | "assistant", "content": text}. What a template writes
itself may be a special token; what stands in a message never is. Equal to transformers'
apply_chat_template with add_generation_prompt, which also takes a message's text for specials.

Source: Jinja templates as in tokenizer_config.json; ChatML, OpenAI (2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import regex

from ..errors import InputError, short
from ..machine import jinja
from .specials import named_token, split_at_specials, well_formed

Messages = Sequence[Mapping[str, object]]

BEGIN, END = "<|im_start|>", "<|im_end|>"
CHATML = "chatml"  # the template that needs no Jinja
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
PRIVATE = (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))  # nobody's characters, in Unicode

# The forms in which ChatML is found: with or without a sentence that stands for a system message
# where there is none. Written as `_squeezed` writes them.
FORM = regex.compile(
    r"(\{%if not add_generation_prompt is defined%\}"
    r"\{%set add_generation_prompt = false%\}\{%endif%\})?"
    r"\{%for message in messages%\}"
    r"(\{%if loop\.first and messages\[0\]\['role'\] != 'system'%\}"
    r"\{\{'<\|im_start\|>system\n(?<system>[^'\\{}%]*)<\|im_end\|>\n'\}\}\{%endif%\})?"
    r"\{\{'<\|im_start\|>' ?\+ ?message\['role'\] ?\+ ?'\n' ?\+ ?message\['content'\]"
    r" ?\+ ?'<\|im_end\|>\n'\}\}"
    r"\{%endfor%\}"
    r"\{%if add_generation_prompt%\}\{\{'<\|im_start\|>assistant\n'\}\}\{%endif%\}"
)


def template_of(config: Mapping) -> str | None:
    """The chat template of a tokenizer's config, of several the one called default; None where
    there is none."""
    found = config.get("chat_template")
    if isinstance(found, list):  # [{"name": ..., "template": ...}, ...]
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, Mapping)}
        found = named.get("default", next(iter(named.values()), None))
    if found is not None and not isinstance(found, str):
        raise InputError(f"chat_template is {short(found)}; it must be a text")
    return found or None


def require_renderer(template: str) -> None:
    """Raise InputError for a template that needs Jinja where that is not installed."""
    if template != CHATML and not FORM.fullmatch(_squeezed(template)):
        jinja.require()


def render(template: str, messages: Messages, config: Mapping | None = None) -> str:
    """Return the text of `messages` up to where the answer begins.

    template: Jinja, or "chatml". config: names the tokens that a template asks for, as bos_token.
    Raises InputError for what the template refuses, such as roles that do not take turns.
    """
    if template == CHATML:
        return _chatml(messages, None)
    if form := FORM.fullmatch(_squeezed(template)):
        return _chatml(messages, form["system"])
    tokens = {name: token for name in NAMED if (token := named_token(config or {}, name))}
    values = {"messages": messages, "add_generation_prompt": True, "tools": None, "documents": None}
    return jinja.render(template, values | tokens)


def _chatml(messages: Messages, system: str | None) -> str:
    if system is not None and messages and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    parts = [f"{BEGIN}{m['role']}\n{m['content']}{END}\n" for m in messages]
    return "".join(parts) + f"{BEGIN}assistant\n"


def _squeezed(template: str) -> str:
    """The template without what Jinja drops: a line end after a block, blanks at the edges of a
    tag, and the plus between two literals."""
    template = regex.sub(r"%\}\n", "%}", template.removesuffix("\n")).replace(r"\n", "\n")
    template = regex.sub(r"(?<=\{[{%])\s+|\s+(?=[%}]\})", "", template)
    return regex.sub(r"(?<=>)' ?\+ ?'(?=\n)", "", template)


class Marks:
    """Hides the special tokens that stand in messages from the template's own: their first letters
    become characters that no text has, and come back when the rest has become ids."""

    def __init__(self, specials: Mapping[str, int], texts: Sequence[str]):
        self.specials = dict(specials)
        seen, free = {*"".join(texts)}, (c for c in map(chr, PRIVATE))
        firsts = sorted({special[0] for special in specials})
        self._marks = {first: next(c for c in free if c not in seen) for first in firsts}
        self._letters = {ord(mark): first for first, mark in self._marks.items()}
        starts = "|".join(regex.escape(s) for s in sorted(specials, key=len, reverse=True))
        self._found = regex.compile(f"(?={starts})." if starts else r"(?!)", regex.DOTALL)

    def hide(self, text: str) -> str:
        return self._found.sub(lambda found: self._marks[found[0]], well_formed(text))

    def show(self, text: str) -> str:
        return text.translate(self._letters)

    def encode(self, tokenizer, text: str) -> list[int]:
        """The ids of a text in which only what is not hidden is special."""
        ids: list[int] = []
        for part, special in split_at_specials(text, self.specials):
            ids += tokenizer.encode(self.show(part)) if special is None else [special]
        return ids
