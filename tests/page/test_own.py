"""A student's functions on the page: computed elsewhere, beside the textbook; a recording of them
says which step is the first that differs."""

import json
import os
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from minillm import InputError
from minillm.cli import main
from minillm.exercises.catalogue import EXERCISES
from minillm.exercises.student.folder import file_of
from minillm.page.own import Own
from minillm.page.server import Server

RIGHT = """
import numpy as np


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
"""
WRONG = RIGHT.replace("e / e.sum", "1.01 * e / e.sum")
HERE = "import os\nopen({!r}, 'w').write(str(os.getpid()))\n"


def write(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    file_of(folder, EXERCISES["softmax"]).write_text(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The recordings of a wrong softmax, and where its code ran."""
    folder = tmp_path_factory.mktemp("folder") / "mine"
    write(folder, HERE.format(str(folder.parent / "pid")) + WRONG)
    own = Own(folder, "tales-draft", {"max_new_tokens": 3})
    return [*own("The king", {}, lambda said: None)], (folder.parent / "pid").read_text()


def test_the_first_step_that_differs_is_known(made):
    recordings, pid = made
    assert int(pid) != os.getpid()
    *others, mine = recordings
    assert [r.header["model"]["twin"] for r in others][-1] == "numpy"
    assert mine.header["model"]["twin"] == "mine: softmax"
    assert mine.header["compared"]["against"] == "textbook"
    assert all(r.header["names"] == mine.header["names"] for r in others)  # step by step
    names = [step["name"] for step in mine.header["steps"]]
    distances = dict(zip(names, mine.arrays["distances"]))
    assert max(distances[n][0] for n in names[: names.index("attn.weights")]) <= 2e-5
    np.testing.assert_allclose(distances["attn.weights"][0], 0.01, rtol=1e-3)
    assert distances["logits"][0] > 2e-5


@pytest.mark.parametrize(
    "text, says",
    [
        ("def softmax(x):\n    return x[0]\n", "softmax.py"),
        ("def softmax(x):\n    raise ValueError('\\x1b[31m')\n", "ValueError"),
        ("def softmax(x:\n", "SyntaxError"),
        ("import os\nos._exit(3)\n", "exit code 3"),
    ],
)
def test_what_goes_wrong_there_is_one_line(text, says, tmp_path):
    write(tmp_path / "mine", text)
    own = Own(tmp_path / "mine", "tales-draft", {"max_new_tokens": 2})
    with pytest.raises(InputError) as error:
        [*own("The king", {}, lambda said: None, again=True)]
    assert says in str(error.value) and "\n" not in str(error.value) and "\x1b" not in str(error)


def test_a_saved_file_is_computed_anew(tmp_path):
    """The request stays open: after its recordings, one more whenever a file is saved."""
    write(tmp_path / "mine", WRONG)
    own = Own(tmp_path / "mine", "tales-draft", {"max_new_tokens": 2})
    own.models.pop("numba", None)  # it would compile

    def answer(prompt, asked, told):
        return own(prompt, {}, told, asked.get("again", False))

    server = Server("a page", answer, state=own.state)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    body = json.dumps({"text": "The king"}).encode()
    request = urllib.request.Request(server.address + "run", body)
    with urllib.request.urlopen(request, timeout=60) as lines:
        said, n = [], 0
        for line in lines:
            said.append(next(iter(json.loads(line))))
            if said.count("recording") == 2 and said[-1] == "watching" and not n:
                n = len(said)
                write(tmp_path / "mine", RIGHT)
            if said.count("recording") == 3:
                break
    server.shutdown()
    server.server_close()
    assert "error" not in said and n


def test_the_command_says_what_does_not_go_together(tmp_path, capsys):
    write(tmp_path / "mine", RIGHT)
    for args, says in (
        (["--watch"], "give --kernels FOLDER"),
        (["--kernels", str(tmp_path / "mine"), "--beside", "int8", "--save", "a.html"], "--beside"),
        (["--kernels", str(tmp_path / "mine"), "--dtype", "int8"], "--dtype"),
        (["--kernels", str(tmp_path)], "no exercises"),
    ):
        assert main(["explore", "a", *args]) == 2
        assert says in capsys.readouterr().err
