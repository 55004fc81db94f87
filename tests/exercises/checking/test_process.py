"""Students' accidents, in the process of their own: one clear line each, and the next exercise goes
on."""

import queue
import shutil
import subprocess
import sys
import textwrap

import pytest

from minillm.exercises import check, exercise
from minillm.exercises.checking import process
from minillm.exercises.checking.process import StudentProcess, check_folder
from minillm.exercises.student.folder import file_of, start
from minillm.machine import child
from tests.exercises.answers import with_body_of


@pytest.fixture
def folder(tmp_path):
    start(tmp_path)
    return tmp_path


def write(folder, name, text):
    file_of(folder, exercise(name)).write_text(text, encoding="utf-8")


ACCIDENTS = {
    "argmax": (
        "import os\ndef argmax(scores):\n    os._exit(3)\n",
        "stopped",
        "it ended the interpreter (exit code 3)",
    ),
    "likeliest": (
        "import sys\ndef likeliest(probs, n):\n    sys.exit(1)\n",
        "stopped",
        "it called sys.exit(1)",
    ),
    "replace_pair": (
        "import ctypes\ndef replace_pair(ids, pair, new_id):\n    ctypes.string_at(0)\n",
        "stopped",
        "it crashed",
    ),
    "encode": (
        "def encode(data, ranks):\n    while True:\n        pass\n",
        "stopped",
        "still running after 1 s",
    ),
    "log_softmax": (
        "def log_softmax(x):\n    while True:\n        print('x')\n",
        "stopped",
        "it prints without end",
    ),
    "softmax": ("def softmax(x):\n    return softmax(x)\n", "raised", "RecursionError"),
    "cross_entropy": (
        "def cross_entropy(logits, targets)\n    pass\n",
        "raised",
        "SyntaxError: expected ':' (line 1)",
    ),
    "causal_mask": (
        "def causal_mask(positions, n_keys):\n    return input()\n",
        "raised",
        "EOFError",
    ),
    "split_heads": ("raise SystemExit\n", "stopped", "it called sys.exit(None)"),
    "merge_heads": (
        "import nosuchmodule\n",
        "raised",
        "ModuleNotFoundError: No module named 'nosuchmodule' (line 1)",
    ),
    "layer_norm": ("x = 1\n", "missing", "there is no function layer_norm"),
    "gelu_new": (
        "import os\ndef gelu_new(x):\n    os.write(1, b'{}')\n    return None\n",
        "shape",
        "returned None",
    ),
}


def test_every_accident_is_one_line_and_the_next_goes_on(folder, monkeypatch):
    monkeypatch.setattr(type(exercise("encode")), "seconds", 1, raising=False)
    object.__setattr__(exercise("encode"), "seconds", 1)
    try:
        for name, (text, _, _) in ACCIDENTS.items():
            write(folder, name, text)
        write(folder, "block", with_body_of(exercise("block")))
        results = {r.name: r for r in check_folder(folder, [*ACCIDENTS, "block"])}
    finally:
        object.__setattr__(exercise("encode"), "seconds", 10)
    for name, (_, status, message) in ACCIDENTS.items():
        if name == "replace_pair" and sys.platform == "win32":
            continue  # ctypes turns the crash into an exception there
        assert results[name].status == status and message in results[name].message, results[name]
        assert "\n" not in results[name].message
    assert results["block"].right


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the memory of a process is limited on Linux only"
)
@pytest.mark.parametrize(
    "body", ["np.zeros((10**6, 10**6))", "[bytes(10**8) for _ in range(10**4)]"]
)
def test_memory_is_limited(folder, body):
    write(folder, "softmax", f"import numpy as np\ndef softmax(x):\n    return {body}\n")
    result = check("softmax", folder)
    assert (result.status, result.message) == (
        "stopped",
        "it asked for more memory than an exercise may have",
    )


FORGED = {
    "an answer in every file": (
        """
        import os
        def softmax(x):
            for fd in range(3, 64):
                try:
                    os.write(fd, b'{"name": "softmax", "status": "right"}\\n{"ended": 0}\\n')
                except OSError:
                    pass
            os._exit(0)
        """,
        "stopped",
    ),
    "an outcome of the kind right": (
        """
        import os
        for fd in range(3, 64):
            try:
                os.write(fd, b'{"raised": ["right", ""], "values": null, "error": "", "cast": 0,'
                             b' "mutated": []}\\n')
            except OSError:
                pass
        def softmax(x):
            return x
        """,
        "stopped",
    ),
    "a line without end": (
        """
        import os
        def softmax(x):
            while True:
                for fd in range(3, 64):
                    try:
                        os.write(fd, b"[" * 100_000)
                    except OSError:
                        pass
        """,
        "stopped",
    ),
    "the frames above": (
        """
        import gc, sys
        def softmax(x):
            frame = sys._getframe()
            while frame:
                for value in frame.f_locals.values():
                    if isinstance(value, list) and value and hasattr(value[0], "values"):
                        return value[0].values[""]
                frame = frame.f_back
            return x
        """,
        "wrong",
    ),
    "a patched checker": (
        """
        import sys
        import minillm.exercises.checking.call as call
        for module in [*sys.modules.values()]:
            for name in ("problem", "called", "judge", "packed"):
                if hasattr(module, name) and "minillm" in str(getattr(module, "__name__", "")):
                    setattr(module, name, lambda *args, **kwargs: None)
        def softmax(x):
            return x
        """,
        "stopped raised",
    ),
    "two processes that answer": (
        """
        import os
        os.fork()
        def softmax(x):
            return x
        """,
        "stopped wrong",
    ),
    "a closed pipe": (
        """
        import os
        def softmax(x):
            os.closerange(3, 256)
            return x
        """,
        "stopped",
    ),
    "another file in its place": (
        """
        import glob, os, sys
        from minillm.ops import softmax as f
        for folder in (".", os.path.dirname(__file__)):
            for file in glob.glob(os.path.join(folder, "*_softmax.py")):
                with open(file, "w") as other:
                    other.write("def softmax(x): pass")
        def softmax(x):
            return f(x)
        """,
        "not-as-asked",
    ),
    "the end of who looks after it": (
        """
        import os
        def softmax(x):
            os.kill(os.getppid(), 9)
            while True:
                pass
        """,
        "stopped",
    ),
    "values without end": (
        """
        def softmax(x):
            y = []
            for _ in range(10_000):
                y = [y]
            return [y, 10**100_000, float("nan"), 1j, object(), {(): 1}, "\\ud800"]
        """,
        "shape",
    ),
    "an error that says nothing": (
        """
        class Silent(BaseException):
            def __str__(self):
                raise self
        def softmax(x):
            raise Silent
        """,
        "raised",
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="they fork, or count on POSIX files")
@pytest.mark.parametrize("case", FORGED)
def test_nothing_that_the_code_says_is_a_mark(folder, case):
    """One line about it, and the next exercise is judged as if nothing had been."""
    text, status = FORGED[case]
    write(folder, "softmax", textwrap.dedent(text))
    write(folder, "argmax", with_body_of(exercise("argmax")))
    first, second = check_folder(folder, ["softmax", "argmax"])
    assert first.status.replace(" ", "-") in status.split() and "\n" not in first.message, first
    assert len(first.message) < 500 and second.right, second


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe there is written to without a limit")
def test_who_does_not_read_is_not_waited_for(monkeypatch):
    """It says that it is ready for megabytes, and sleeps."""
    monkeypatch.setattr(child, "SAYING", 0.5)

    class Deaf(StudentProcess):
        def __init__(self):
            code = [sys.executable, "-c", "import time; time.sleep(60)"]
            self._process = subprocess.Popen(code, stdin=subprocess.PIPE)
            self._to = self._process.stdin

    deaf = Deaf()
    try:
        with pytest.raises(child.Ended, match="no answer"):
            deaf.say("x" * 1_000_000)
    finally:
        deaf._process.kill()
        deaf._process.wait()
        deaf._process.stdin.close()


def sleepers() -> list[str]:
    """The processes below this one, or adopted by somebody, that sleep for 4321 seconds."""
    done = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if line.startswith("sleep 4321")]


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("ps") is None,
    reason="only Linux hands orphans over; elsewhere a session of its own may outlive the check",
)
@pytest.mark.parametrize("end", ["return x", "while True: pass", "os._exit(1)"])
def test_nothing_outlives_the_check(folder, end):
    """Nor in a session of its own, nor where the check is given up."""
    text = f"""
    import os, subprocess
    subprocess.Popen(["sleep", "4321"])
    subprocess.Popen(["sleep", "4321"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "4321"])
        os._exit(0)
    def softmax(x):
        {end}
    """
    write(folder, "softmax", textwrap.dedent(text))
    object.__setattr__(exercise("softmax"), "seconds", 1)
    try:
        assert not check("softmax", folder).right
    finally:
        object.__setattr__(exercise("softmax"), "seconds", 10)
    assert not sleepers()


def test_a_check_runs_in_a_copy_of_the_folder(folder):
    """What it deletes is not the student's; and its paths are."""
    (folder / "data.txt").write_text("mine")
    text = """
    import glob, os, traceback
    print(open("data.txt").read())
    for file in glob.glob("*"):
        os.remove(file)
    def softmax(x):
        print(__file__, os.getcwd())
        try:
            1 / 0
        except ZeroDivisionError:
            traceback.print_exc()
        open(os.path.join(os.path.dirname(__file__), "nowhere", "x"))
    """
    write(folder, "softmax", textwrap.dedent(text))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    result = check("softmax", folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert result.printed.startswith(f"mine\n{file_of(folder, exercise('softmax'))} {folder}\n")
    assert f'File "{file_of(folder, exercise("softmax"))}", line 9' in result.printed
    assert str(folder) in result.message and "minillm-" not in result.message + result.printed


def test_the_functions_that_it_is_given_are_asked_within_bounds(folder):
    """They are computed where the verdict is made, so that calls are counted there."""
    for text, says in {
        "ids * 100_000, 0": "numbers at once; at most 20,000 are taken",
        "new_ids=ids": "missing 1 required positional argument: 'past'",
        "ids, 0, function=len": "it was given an unknown argument 'function'",
        "'x' * 9, 0": "TypeError",
    }.items():
        write(folder, "greedy", f"def greedy(forward, ids, n_new):\n    forward({text})\n")
        result = check("greedy", folder)
        assert result.status == "raised" and says in result.message, result
    text = "def greedy(forward, ids, n_new):\n    while True:\n        forward([], 0)\n"
    write(folder, "greedy", text)
    result = check("greedy", folder)
    assert result.status == "stopped" and "more than 1,000 times" in result.message, result


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\n", b"[]\n", b"1\n", b"[" * 100_000 + b"\n",
        b'{"values": {"array": ["O", [1], ""]}}\n',
        b'{"values": {"tuple": 1}, "raised": null, "mutated": [], "error": "", "cast": false}\n',
        b'{"values": {"dict": [["", {"array": ["<f8", [1000000000], "AAAA"]}]]}, "raised": null,'
        b' "mutated": [], "error": "", "cast": false}\n',
        b'{"values": {"dict": []}, "raised": null, "mutated": [], "error": "", "cast": false}\n',
        b'{"raised": ["right", ""], "values": null, "mutated": [], "error": "", "cast": false}\n',
        b'{"raised": [[], {}], "values": null, "mutated": [], "error": "", "cast": false}\n',
        b'{"function": {}}\n', b'{"ended": "x"}\n', b'{"ended": [1e400]}\n',
    ],
)  # fmt: skip
def test_whatever_is_answered_is_an_outcome_or_the_end(folder, line):
    """To the first question, or to a call."""

    class Said(StudentProcess):
        def __init__(self, lines):
            self._lines, self._process = queue.Queue(), subprocess.Popen([sys.executable, "-c", ""])
            self._process.wait()
            for one in lines:
                self._lines.put(one)

        def say(self, message):
            pass

    loaded = b'{"value": null, "parameters": [["x", false]], "signature": "(x)"}\n'
    file = file_of(folder, exercise("softmax"))
    for lines in ([line], [loaded, line]):
        result, goes_on = process._checked(Said(lines), exercise("softmax"), file, folder, 0)
        assert not result.right and not goes_on and "\n" not in result.message, result
        assert result.status in ("stopped", "raised", "wrong", "shape", "missing"), result


def test_what_is_printed_is_shown(folder):
    write(folder, "softmax", "def softmax(x):\n    print('shape', x.shape)\n    return x\n")
    result = check("softmax", folder)
    assert result.status == "wrong" and result.printed.startswith("shape (2,)\nshape (2, 3, 5)\n")


def test_errors_name_the_line_of_the_students_file(folder):
    write(
        folder,
        "softmax",
        "import numpy as np\n\ndef softmax(x):\n    y = x.nothing\n    return y\n",
    )
    assert check("softmax", folder).message.endswith("has no attribute 'nothing' (line 4)")


def test_modules_in_the_students_folder_shadow_nothing(folder, monkeypatch):
    (folder / "numpy.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(folder)
    assert check("softmax", folder).status == "todo"


def test_a_grader_that_stops_reading_leaves_no_process(folder):
    results = check_folder(folder, ["softmax", "argmax"])
    assert next(results).name == "softmax"
    results.close()
