"""A child is waited for within limits, read within limits, and ended with all that it started."""

import os
import sys
import textwrap
from contextlib import suppress
from time import monotonic, sleep

import pytest

from minillm.machine import child
from minillm.machine.child import NO_ANSWER, THREAD_VARIABLES, Child, Ended

ECHO = """
from minillm.machine.child import answering, listening
answer = answering(printed=2)
listen, _ = listening()
while True:
    said = listen()
    print("this is no answer", flush=True)
    answer({"said": said})
"""


@pytest.fixture
def running():
    """Start a program in Python: running(text, ...) -> Child."""
    started = []

    def start(text, threads=1, **options):
        program = [sys.executable, "-c", textwrap.dedent(text)]
        started.append(Child(program, threads, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_it_answers_what_it_is_asked_and_prints_elsewhere(running, tmp_path):
    with (tmp_path / "messages").open("wb") as messages:
        echo = running(ECHO, messages=messages)
    for message in ({"a": [1, 2.5, None, "ü\n"]}, {"long": "x" * 1_000_000}):
        assert echo.ask(message, 60) == {"said": message}
    echo.close()
    assert (tmp_path / "messages").read_text() == "this is no answer\n" * 2


def test_its_libraries_compute_on_so_many_threads(running):
    say = "import json, os; print(json.dumps(dict(os.environ)))"
    variables = running(say, 3, environment={"OF_OUR_OWN": "1"}).answer(60)
    assert {variables[name] for name in THREAD_VARIABLES} == {"3"}
    assert variables["OF_OUR_OWN"] == "1" and variables["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import os; os._exit(7)", r"it ended the interpreter \(exit code 7\)"),
        ("import os; os.kill(os.getpid(), 9)", "the system killed it: most often for too much"),
        ("import os; os.kill(os.getpid(), 11)", r"it crashed the interpreter \(SIGSEGV\)"),
        ("print('hello', flush=True); input()", "no answer.* It said 'hello'"),
        ("print('[' * 100_000, flush=True); input()", r"no answer.* It said '\[{60}'$"),
        ("import time; time.sleep(60)", "still running after 0.5 s"),
        ("import os\nif os.fork() == 0: input()", r"exit code 0"),  # the pipe is still open
    ],
    ids=lambda value: value[:24],
)
@pytest.mark.skipif(os.name != "posix", reason="signals and forks")
def test_the_end_is_told_in_words(running, program, says):
    with pytest.raises(Ended, match=says):
        running(program).answer(0.5 if "sleep" in program else 60)


def test_what_was_said_before_the_end_is_heard(running):
    """Also where it was dead before anybody asked."""
    last = running("print('{\"a\": 1}')")
    last._process.wait()
    assert last.answer() == {"a": 1}
    with pytest.raises(Ended, match="exit code 0"):
        last.answer()
    with pytest.raises(Ended, match="exit code 0"):
        last.ask({})


def test_a_line_has_a_limit(running, monkeypatch):
    monkeypatch.setattr(child, "LINE", 1000)
    with pytest.raises(Ended, match=r"^what came from its process is no answer"):
        running("print('{' + ' ' * 10_000 + '}')").answer(60)
    assert NO_ANSWER.startswith("what came")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no groups of processes")
def test_its_group_ends_with_it(running):
    program = """
    import json, subprocess, sys
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(json.dumps({"other": other.pid}), flush=True)
    other.wait()
    """
    start, parent = monotonic(), running(program)
    other = parent.answer(60)["other"]
    parent.close()
    with suppress(ProcessLookupError):
        while True:  # until whoever adopts it has waited for it
            os.kill(other, 0)
            sleep(0.01)
            assert monotonic() < start + 30
