"""Fixed items and their rules: what is right is right, what is wrong is not, and both are shown."""

from pathlib import Path

import pytest

from minillm import InputError
from minillm.tasks import prompts
from minillm.tasks.prompts import RULES, Marked, has, only_functions, page, prompt_of, tasks

CASES = {  # rule: (answer, accepted, labels, right)
    "question": [
        ("Three goats.", ["three", "3"], True),
        ("She keeps 3.", ["three", "3"], True),
        ("Thirty-three", ["3"], False),
        ("freedom", ["free"], False),
        ("three " + "very " * 25, ["three"], False),
    ],
    "summary": [
        ("Bees dance.", ["bees", "dance|dances"], True),
        ("Bees fly.", ["bees", "dance|dances"], False),
        ("Bees dance " * 13, ["bees", "dance"], False),
    ],
    "translation": [
        ("bonjour !", ["Bonjour"], True),
        ("Ou est la gare ?", ["Où est la gare"], False),
        ("Bonjour means good morning.", ["Bonjour"], False),
    ],
    "label": [
        ("It is Positive.", ["positive"], True),
        ("positive or negative", ["positive"], False),
        ("good", ["positive"], False),
    ],
}
CODE = {
    "def f(n):\n    return 2 * n": True,
    "Here:\n```python\ndef f(n):\n    return sum([n, n])\n```\nIt adds.": True,
    "```\ndef f(n):\n    return n": False,
    "import os\ndef f(n):\n    return 2 * n": False,
    "def f(n):\n    return ().__class__": False,
    "def f(n):\n    open('x')\n    return 2 * n": False,
    "def f(n):\n    while True: pass": False,
    "def f(n): return 'a' * 10 ** 11": False,
    "f = 2": False,
    "no code": False,
}


@pytest.mark.parametrize("rule", CASES)
def test_rules(rule):
    for answer, accepted, right in CASES[rule]:
        labels = ["positive", "negative"]
        assert RULES[rule](answer, accepted, labels) is right, answer


@pytest.mark.parametrize("answer", CODE)
def test_code_is_tried(answer, monkeypatch):
    monkeypatch.setattr(prompts, "SECONDS", 2 if "while" in answer else 30)
    assert RULES["code"](answer, ["f(2) == 4", "f(0) == 0"], []) is CODE[answer]


def test_items_are_a_hundred_and_fit_their_rules():
    assert [len(task["items"]) for task in tasks().values()] == [20] * 5
    for name, task in tasks().items():
        for item in task["items"]:
            prompt_of(name, **item["values"])
            first = [group.split("|")[0] for group in item["accepted"]]
            labels = item["values"].get("labels", "").split(", ")
            if name == "code":
                assert all(compile(check, "", "eval") for check in item["accepted"])
            else:
                assert RULES[name](" ".join(first), item["accepted"], labels) or first[1:], item
            if name == "question":
                assert item["values"]["question"].endswith("?")
    assert only_functions("def f(): pass") and has("A, b", "b")


def test_a_page_shows_every_answer():
    wrong = Marked("Why?", ["so"], "<b>no</b>\n\n# not a heading", False)
    text = page("a model", {"question": [wrong, Marked("Who?", ["me"], "me", True)]}, "greedy")
    assert "| question | 1 | 2 |" in text and "### 1. wrong" in text and "### 2. right" in text
    assert (
        "\n    <b>no</b>\n\n    # not a heading\n" in text
        and tasks()["question"]["rule"].split(",")[0] in text
    )


def test_what_a_prompt_needs():
    assert prompt_of("translation", text="{language}", language="French").endswith("{language}")
    with pytest.raises(InputError, match="the task translation needs --language"):
        prompt_of("translation", text="a")
    with pytest.raises(InputError, match="task is 'x'; it must be one of question, summary"):
        prompt_of("x")


def test_the_page_in_docs_is_of_these_items():
    text = (Path(__file__).parents[2] / "docs" / "ask-smollm2.md").read_text("utf-8")
    for name, task in tasks().items():
        for item in task["items"]:
            asked = "\n".join(prompts.quoted(prompt_of(name, **item["values"])))
            assert f"{asked}\n\nAccepted: `{'; '.join(item['accepted'])}`\n" in text
        assert task["rule"] in " ".join(text.split())
