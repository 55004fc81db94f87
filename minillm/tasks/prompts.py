"""What people ask of a model that answers: questions about a text, summaries, translations, code,
labels. A task is a prompt, twenty fixed items, and a rule by which an answer is right.

All of it stands in prompts.json: sentences made for this, and the accepted answers of each.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TypedDict

from ..errors import InputError, require_one_of
from ..machine.child import Ended, ask_once
from ..machine.files import read_json
from .chat import Chat

MOST_WORDS = 25  # of an answer or a summary
SECONDS = 5  # for an answer's code
WIDTH = 100  # of a page


class Item(TypedDict):
    """What is put into the prompt, and what is accepted as an answer."""

    values: dict[str, str]
    accepted: list[str]


class Task(TypedDict):
    """A prompt with {names}, the rule of marking in words, and the items."""

    prompt: str
    rule: str
    items: list[Item]


@dataclass(frozen=True)
class Marked:
    """An answer to an item, and whether it is right by the task's rule."""

    prompt: str
    accepted: list[str]
    answer: str
    right: bool


def tasks() -> dict[str, Task]:
    """All tasks by name."""
    return read_json(Path(__file__).with_suffix(".json"), dict[str, Task])


def prompt_of(task: str, **values: str) -> str:
    """The prompt of a task with your own text, question, language or labels put in; InputError for
    one that is missing, and for one that the task has no use for."""
    known = tasks()
    prompt = known[require_one_of("task", task, known)]["prompt"]
    needed = re.findall(r"\{(\w+)\}", prompt)
    if missing := [name for name in needed if not values.get(name)]:
        raise InputError(f"the task {task} needs --{' and --'.join(missing)}")
    if surplus := [name for name in values if values[name] and name not in needed]:
        raise InputError(f"the task {task} does nothing with --{surplus[0]}: leave it out")
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], prompt)


def mark(chat: Chat, task: str) -> Iterator[Marked]:
    """Ask each item of a task in a conversation of its own, and mark the answer."""
    for item in tasks()[task]["items"]:
        chat.reset()
        prompt = prompt_of(task, **item["values"])
        answer = chat.ask(prompt)
        labels = item["values"].get("labels", "").split(", ")
        right = RULES[task](answer, item["accepted"], labels)
        yield Marked(prompt, item["accepted"], answer, right)


# ---- the rules


def has(answer: str, words: str) -> bool:
    """Whether `words` are in an answer as whole words, capitals aside."""
    return bool(re.search(rf"(?<!\w){re.escape(words)}(?!\w)", answer, re.IGNORECASE))


def _question(answer: str, accepted: list[str], _) -> bool:
    return len(answer.split()) <= MOST_WORDS and any(has(answer, a) for a in accepted)


def _summary(answer: str, accepted: list[str], _) -> bool:
    groups = (group.split("|") for group in accepted)
    return len(answer.split()) <= MOST_WORDS and all(
        any(has(answer, word) for word in group) for group in groups
    )


def _translation(answer: str, accepted: list[str], _) -> bool:
    def bare(text: str) -> str:
        return " ".join(re.findall(r"\w+", text.casefold()))

    return bare(answer) in map(bare, accepted)


def _code(answer: str, accepted: list[str], _) -> bool:
    block = re.search(r"```\w*\n(.*?)(?:```|\Z)", answer, re.DOTALL)
    source = block[1] if block else answer
    if not only_functions(source):
        return False
    message = {"source": source, "checks": accepted}
    try:
        return ask_once("minillm.tasks.trial", message, SECONDS).get("right") is True
    except Ended:
        return False


def only_functions(source: str) -> bool:
    """Whether source is nothing but functions, without imports or names that begin with _."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names = [getattr(n, "attr", getattr(n, "id", "")) for n in ast.walk(tree)]
    return (
        all(isinstance(n, ast.FunctionDef) for n in tree.body)
        and not any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(tree))
        and not any(name.startswith("_") for name in names)
    )


def _label(answer: str, accepted: list[str], labels: list[str]) -> bool:
    return [label for label in labels if has(answer, label)] == accepted


RULES: Mapping[str, Callable[[str, list[str], list[str]], bool]] = {
    "question": _question,
    "summary": _summary,
    "translation": _translation,
    "code": _code,
    "label": _label,
}


# ---- the page


def page(name: str, results: Mapping[str, list[Marked]], how: str) -> str:
    """All answers as Markdown, the wrong ones too, as the model gave them. how: how it computed and
    chose."""
    known, n = tasks(), sum(map(len, results.values()))
    right = {task: sum(m.right for m in marked) for task, marked in results.items()}
    lines = [
        f"# What {name} answers",
        "",
        *wrap(
            f"{n} fixed items: {how}. Each was asked once, in a conversation of its own. Marks are"
            " by the rule above the answers, and answers are as they came, the wrong ones too.",
            WIDTH,
        ),
        "",
        "| task | right | of |",
        "| --- | ---: | ---: |",
        *(f"| {task} | {right[task]} | {len(marked)} |" for task, marked in results.items()),
    ]
    for task, marked in results.items():
        lines += ["", f"## {task.capitalize()}", "", *wrap(known[task]["rule"], WIDTH)]
        for number, m in enumerate(marked, 1):
            verdict = "right" if m.right else "wrong"
            accepted = "; ".join(m.accepted)
            lines += ["", f"### {number}. {verdict}", "", *quoted(m.prompt)]
            lines += ["", f"Accepted: `{accepted}`", "", *quoted(m.answer or "(nothing)")]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> Iterator[str]:
    """A text's lines, set as they are."""
    return (f"    {line}".rstrip() for line in text.split("\n"))
