"""`minillm ask` as it is typed."""

import json

from minillm.cli import main
from minillm.tasks import prompts
from tests.cli.test_chat import file  # noqa: F401  a random model that has a template


def test_one_thing_and_all(file, capsys, tmp_path, monkeypatch):  # noqa: F811
    model = ("--model", str(file), "--max-new-tokens", "3")
    assert main(["ask", "label", "It rains.", "--labels", "true, false", *model]) == 0
    assert capsys.readouterr().out.endswith("\n")
    untaught = ("--model", "tales-draft", "--max-new-tokens", "3")
    assert main(["ask", "code", "double(n)", *untaught]) == 2
    assert "--template chatml" in capsys.readouterr().err
    assert main(["ask", "code", "double(n)", *untaught, "--template", "chatml"]) == 0
    assert capsys.readouterr().out.endswith("\n")
    few = {name: {**task, "items": task["items"][:1]} for name, task in prompts.tasks().items()}
    monkeypatch.setattr(prompts, "tasks", lambda: few)
    out = tmp_path / "page.md"
    assert main(["ask", "all", "--json", "--out", str(out), *model]) == 0
    marks = json.loads(capsys.readouterr().out)
    assert list(marks) == ["question", "summary", "translation", "code", "label"]
    page = out.read_text("utf-8")
    assert "5 fixed items: stored as float32, computed by numpy, greedy, max_new_tokens 3." in page
    assert page.count("\n### 1. ") == 5


def test_what_is_missing_is_said_before_a_model_is_loaded(capsys):
    assert main(["ask", "question", "It rains.", "--model", "nowhere"]) == 2
    assert "the task question needs --question" in capsys.readouterr().err


def test_what_a_task_does_nothing_with_is_said(capsys):
    given = {
        "--question: leave it out": ["summary", "It rains.", "--question", "Where?"],
        "--out: leave it out": ["summary", "It rains.", "--out", "page.md"],
        "--json: leave it out": ["code", "double(n)", "--json"],
        "the text 'It rains.'": ["all", "It rains."],
        "--labels: leave it out": ["all", "--labels", "yes, no"],
    }
    for name, words in given.items():
        assert main(["ask", *words, "--model", "nowhere"]) == 2
        assert f"{words[0]} does nothing with {name}" in capsys.readouterr().err
