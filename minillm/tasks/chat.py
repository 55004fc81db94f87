"""A conversation: messages in, answers out; what the model has read stays in the KV cache.

For every answer the chat template writes the whole conversation anew. Only what differs from the
text in the cache is read: most often the new message, after `edit` or `system` what follows the
place that has changed. An answer keeps the ids that it was generated as.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from ..decoding.cycle import Continuation, Moment, shown, stop_tokens
from ..decoding.options import Options
from ..decoding.plain import one_by_one
from ..decoding.text import TextStream
from ..errors import InputError, count, require_kind, short, whole_number
from ..layers.cache import KVCache, position_bytes
from ..machine.files import as_path, read_json, write_atomically
from ..machine.quota import require_memory
from ..protocol import Model, require_model
from ..tokenizer import Tokenizer, require_tokenizer
from ..tokenizer.specials import named_token
from ..tokenizer.templates import CHATML, END, Marks, render, require_renderer, template_of

LONGEST = 4096  # positions of a context, unless asked for; less where the model has less
ANSWER = 512  # tokens of an answer, unless asked for
FIRST = 256  # positions of the first cache; it grows by doubling
CHUNK = 512  # positions read at once, so that a long text can be interrupted
ENDS = ("eos_token", "eot_token")  # of the tokenizer's config, beside those of the model's
log = logging.getLogger(__name__)


class Message(TypedDict):
    """One message: who speaks, and what is said."""

    role: Literal["system", "user", "assistant"]
    content: str


class Conversation(TypedDict):
    """What a file of a conversation holds: a system message or none, then question and answer in
    turn."""

    messages: list[Message]


@dataclass(frozen=True)
class Stats:
    """Tokens of the last answer: `kept` were in the cache, `read` were read, `written` came after
    them. used: positions of the cache now, of `room`, which may grow to `context`."""

    kept: int
    read: int
    written: int
    used: int
    room: int
    context: int


class Chat:
    """A conversation with a model: `send(text)` yields the answer's moments as they come, `ask`
    returns it whole.

    system: a message that stands before all others; None leaves it to the template. template:
    "chatml", or Jinja; None takes the model's own. context: the most positions that are read, from
    which the oldest turns are dropped when they are full. stop: strings before which to end.
    options: those of decoding.Options that choose tokens; what is not given, the model's
    generation_config.json says. `messages` is the conversation, of which the first `dropped` are no
    longer read. Raises InputError for a model without template, and for what does not fit it or
    the machine.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        system: str | None = None,
        *,
        template: str | None = None,
        context: int | None = None,
        stop: Sequence[str] | str = (),
        **options,
    ):
        require_model(model)
        require_tokenizer(tokenizer)
        self.model, self.tokenizer = model, tokenizer
        found = template_of({"chat_template": template} if template else tokenizer.config)
        if found is None:
            raise InputError(
                "the model has no chat template: it goes on with a text, and answers nobody; use"
                " minillm generate, or the template chatml (--template chatml)"
            )
        require_renderer(found)
        self.template = found
        if (V := model.config.sizes.V) < tokenizer.vocab_size:
            raise InputError(f"the tokenizer has {tokenizer.vocab_size} tokens and the model {V}")
        self.stop = TextStream(tokenizer, stop).stop  # checked
        if self.template == CHATML and END not in tokenizer.special_tokens:
            self.stop += (END,)  # no token ends an answer, but text may
        self._options = self._checked_options(options)
        self.context = self._checked_context(context)
        self.system = system
        self.reset()

    def _checked_context(self, context: int | None) -> int:
        sizes = self.model.config.sizes
        context = min(LONGEST, sizes.P) if context is None else whole_number("context", context, 2)
        if context > sizes.P:
            raise InputError(f"context is {context}; the model has {sizes.P} positions")
        dtype = self._options.get("cache_dtype", self.model.dtype)
        needed = context * position_bytes(self.model.config, dtype)
        require_memory(f"a context of {context} positions", needed, "a smaller --context")
        return context

    def _checked_options(self, options: Mapping) -> dict[str, Any]:
        """The options of an answer. Ends are those of the model and of its tokenizer together."""
        applied = Options(**options).on(self.model)
        applied.require_plain("chat")
        if "max_length" in applied.given:
            raise InputError("max_length counts the conversation, too: give max_new_tokens")
        known, config = self.tokenizer.special_tokens, self.tokenizer.config
        given: dict[str, Any] = {"max_new_tokens": applied.max_new_tokens or ANSWER, "chunk": CHUNK}
        given |= applied.given
        if "stop_tokens" not in given:
            names = [named_token(config, name) for name in ENDS]
            names += [END] if self.template == CHATML else []
            ends = {known[name] for name in names if name in known}
            given["stop_tokens"] = sorted(ends.union(stop_tokens(self.model, applied)))
        return given

    # ---- the conversation

    @property
    def system(self) -> str | None:
        """The message before all others; a new one counts from the next answer on."""
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        self._system = None if text is None else require_kind("system", text, str, "text")

    def reset(self) -> None:
        """Forget all messages; the same seed draws the same again."""
        self._close()
        self.messages: list[Message] = []
        self.dropped, self.stats = 0, Stats(0, 0, 0, 0, 0, self.context)
        self._rng = np.random.default_rng(self._options.get("seed"))
        self._cache = self._new_cache(FIRST)
        self._ids: list[int] = []  # that the cache holds
        self._ends: list[tuple[str, list[int]]] = []  # up to each answer's end: the text, its ids
        self._unanswered: str | None = None

    def send(self, text: str) -> Iterator[Moment]:
        """Say `text`, and yield the moments of the answer. Whoever leaves the loop early keeps
        what has come; without any, only `edit` and `last` know that something was said."""
        self._close()
        return self._said(self.messages, text)

    def _said(self, before: list[Message], text: str) -> Iterator[Moment]:
        require_kind("the message", text, str, "text")
        self._answering = self._answer([*before, {"role": "user", "content": text}])
        return self._answering

    def ask(self, text: str) -> str:
        """Say `text`, and return the whole answer."""
        return "".join(moment.text for moment in self.send(text))

    def edit(self, text: str) -> Iterator[Moment]:
        """Say `text` instead of the last message, whose answer is forgotten."""
        self._close()
        if self.last is None:
            raise InputError("no message yet: there is nothing to edit")
        return self._said(self.messages[: None if self._unanswered else -2], text)

    @property
    def last(self) -> str | None:
        """The last message that was sent, or None."""
        answered = self.messages[-2]["content"] if self.messages else None
        return self._unanswered or answered

    def written(self, text: str) -> str:
        """What the model reads where `text` is the first message: the template's words around
        it."""
        prompt, marks = self._written([{"role": "user", "content": text}])
        return marks.show(prompt)

    # ---- files

    def save(self, path: str | Path) -> None:
        """Write the conversation as JSON: {"messages": [{"role": ..., "content": ...}, ...]}."""
        table = {"messages": self._with_system(self.messages)}
        data = json.dumps(table, ensure_ascii=False, indent=2) + "\n"
        write_atomically(as_path(path, "path"), data.encode("utf-8", "replace"))

    def load(self, path: str | Path) -> None:
        """Go on with a conversation that was saved; InputError where it is none."""
        messages = read_json(path, Conversation)["messages"]
        begins = bool(messages) and messages[0]["role"] == "system"
        system = messages.pop(0)["content"] if begins else None
        roles = [message["role"] for message in messages]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise InputError(f"{path}: the roles are {short(roles)}; user and assistant take turns")
        self.reset()
        self.system, self.messages = system, messages

    def _with_system(self, messages: list[Message]) -> list[Message]:
        if self.system is None:
            return messages
        return [{"role": "system", "content": self.system}, *messages]

    # ---- an answer

    def _close(self) -> None:
        """End an answer that somebody has not read to its end."""
        if (answering := getattr(self, "_answering", None)) is not None:
            answering.close()

    def _answer(self, messages: list[Message]) -> Generator[Moment, None, None]:
        """Yield the moments of the answer to `messages`; at the end both are in self.messages."""
        self._unanswered = messages[-1]["content"] or None
        prompt, marks, ids = self._fitting(messages)
        most = min(self._options["max_new_tokens"], self.context - len(ids) + 1)
        options = Options(**self._options | {"max_new_tokens": most})
        text = Continuation(self.model, ids, options, self.tokenizer, self._rng)
        kept = self._keep(ids)
        answer, stream = "", TextStream(self.tokenizer, self.stop)
        moment: Moment | None = None
        moments = one_by_one(self.model, text, cache=self._cache)
        try:
            while moment is None or not moment.finish:
                self._make_room(len(text.ids))
                moment = shown(next(moments), stream)
                answer += moment.text
                yield moment
        finally:
            used = int(self._cache.lengths[0])
            self._ids, written = text.ids[:used], len(text.ids) - len(ids)
            if moment is None or not moment.finish:
                answer += stream.flush()
            room = self._cache.capacity
            self.stats = Stats(kept, len(ids) - kept, written, used, room, self.context)
            if written:
                self.messages = [*messages, {"role": "assistant", "content": answer}]
                self._unanswered = None
                end = len(text.ids) - (moment is not None and moment.finish == "eos")
                if self.tokenizer.decode(text.ids[len(ids) : end]) == answer:
                    self._ends.append((prompt + marks.hide(answer), text.ids[:end]))

    def _fitting(self, messages: list[Message]) -> tuple[str, Marks, list[int]]:
        """The conversation as text, its marks and ids. Once an answer does not fit after it, the
        oldest turns are dropped until it fills half of the context: reading it anew takes time."""
        room = self.context - min(self._options["max_new_tokens"], self.context // 4)
        turns = range(self.dropped, len(messages), 2)

        def written(first: int) -> tuple[str, Marks, list[int]]:
            prompt, marks = self._written(messages[first:])
            return prompt, marks, self._encoded(prompt, marks)

        if len((whole := written(turns[0]))[-1]) <= room:
            return whole
        fit = bisect_left(turns, -self.context // 2, key=lambda first: -len(written(first)[-1]))
        first = turns[min(fit, len(turns) - 1)]
        whole = written(first)
        if (n := len(whole[-1])) >= self.context:
            raise InputError(
                f"the message has {count(n, 'token')}, with what stands around it; the context is"
                f" {self.context:,}: shorten it, or ask for a longer context (--context)"
            )
        if first > self.dropped:
            log.info(
                "the context of %s is full: the oldest %s no longer read, up to %s",
                count(self.context, "token"),
                "turn is" if (n := (first - self.dropped) // 2) == 1 else f"{n} turns are",
                short(messages[first - 2]["content"]),
            )
        self.dropped = first
        return whole

    def _written(self, messages: list[Message]) -> tuple[str, Marks]:
        messages = self._with_system(messages)
        marks = Marks(self.tokenizer.special_tokens, [m["content"] for m in messages])
        hidden = [{**m, "content": marks.hide(m["content"])} for m in messages]
        if text := render(self.template, hidden, self.tokenizer.config):
            return text, marks
        raise InputError("the chat template writes nothing: give another one (--template)")

    def _encoded(self, prompt: str, marks: Marks) -> list[int]:
        """The ids of a text: those that are known of the answer, up to which it is the same, and
        new ones of the rest."""
        while self._ends and not prompt.startswith(self._ends[-1][0]):
            self._ends.pop()
        known, ids = self._ends[-1] if self._ends else ("", [])
        return ids + marks.encode(self.tokenizer, prompt[len(known) :])

    def _keep(self, ids: list[int]) -> int:
        """Cut the cache to where it holds `ids`, of which at least the last is read anew; return
        how many it holds."""
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._ids, ids[:-1])))
        self._ids = self._ids[:same]  # first: whatever happens now, the cache holds these
        self._cache.truncate(same)
        return int(self._cache.lengths[0])

    def _make_room(self, n: int) -> None:
        """Let the cache grow until it has room for n positions."""
        if n > self._cache.capacity:
            self._cache.grow_into(self._new_cache(1 << (n - 1).bit_length()))

    def _new_cache(self, capacity: int) -> KVCache:
        capacity = min(max(capacity, FIRST), self.context)
        return self.model.new_cache(capacity=capacity, dtype=self._options.get("cache_dtype"))
