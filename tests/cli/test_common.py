"""What is printed fits where it is shown, in width and in characters; what is typed is read."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout

import pytest

from minillm.cli import main
from minillm.cli.common import table, write_json

HEADINGS = ("phase", "part", "prefill ms", "decode ms", "bound by")
ROWS = [
    ("embed", "tokens", "0.089", "12,345.032", ""),
    ("attend", "scores + softmax + context", "0.335", "0.090", "memory"),
]


def drawn(monkeypatch, width, align="<<>><"):
    monkeypatch.setenv("COLUMNS", str(width))
    return table(HEADINGS, ROWS, align)


def test_a_table_is_whole_where_no_terminal_is(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "__stdout__", None)
    text = table(HEADINGS, ROWS, "<<>><")
    assert text == (
        "phase   part                        prefill ms   decode ms  bound by\n"
        "--------------------------------------------------------------------\n"
        "embed   tokens                           0.089  12,345.032\n"
        "attend  scores + softmax + context       0.335       0.090  memory"
    )
    assert text == drawn(monkeypatch, 68)


def test_later_columns_stand_below_the_first(monkeypatch):
    assert drawn(monkeypatch, 67) == (
        "phase   part                        prefill ms   decode ms\n"
        "----------------------------------------------------------\n"
        "embed   tokens                           0.089  12,345.032\n"
        "attend  scores + softmax + context       0.335       0.090\n"
        "\n"
        "phase   bound by\n"
        "----------------\n"
        "embed\n"
        "attend  memory"
    )
    second = drawn(monkeypatch, 46, "<<|>><").split("\n\n")[1].splitlines()
    assert second[0].split() == ["phase", "part", "decode", "ms"]


@pytest.mark.parametrize("width", [1, 20, 30, 40, 60])
def test_text_is_wrapped_and_numbers_are_whole(monkeypatch, width):
    text = drawn(monkeypatch, width)
    cells = {cell for row in ROWS for cell in row if cell[:1].isdigit()}
    assert cells <= {*text.split()} and "softmax" in text and "context" in text
    assert width == 1 or max(map(len, text.splitlines())) <= width


def test_wrapped_text_is_no_row_of_its_own(monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    text = table(("step", "ms"), [("  scores + softmax", "0.335"), ("all", "1")], "<>")
    assert text.splitlines()[2:] == [
        "  scores +         0.335",
        "    softmax",
        "all                    1",
    ]


@pytest.mark.skipif(os.name == "nt", reason="POSIX terminals")
def test_the_width_is_that_of_the_terminal_unless_it_is_given():
    import fcntl
    import pty
    import struct
    import termios

    code = "from minillm.cli.common import terminal_width as w; print(w(7))"
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 43, 0, 0))
    for columns, on_terminal, in_pipe in (("", b"43", b"7"), ("5", b"5", b"5")):
        what = {"args": [sys.executable, "-c", code], "env": os.environ | {"COLUMNS": columns}}
        subprocess.run(stdout=terminal, check=True, **what)
        assert os.read(ours, 100).split() == [on_terminal]
        assert subprocess.run(stdout=subprocess.PIPE, check=True, **what).stdout.split() == [
            in_pipe
        ]
    os.close(ours)
    os.close(terminal)


def in_ascii(monkeypatch, print_it) -> str:
    """What is printed on a narrow terminal without colours or characters besides ASCII."""
    for name, value in (("COLUMNS", "30"), ("TERM", "dumb"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    shown = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(shown, "ascii", write_through=True)) as stdout:
        print_it()
        return shown.getvalue().decode(stdout.encoding)


@pytest.mark.parametrize(
    "args",
    [
        ["generate", "K\xf6nig \u65e5\u672c", "--max-new-tokens", "2"],
        ["generate", "K\xf6nig", "--max-new-tokens", "2", "--json"],
        ["probs", "K\xf6nig", "--next", " \xe9"],
        ["tokenize", "K\xf6nig \U0001f642"],
        ["tokenize", "K\xf6nig", "--explain"],
        ["info", "tales-draft"],
        ["clock", "K\xf6nig", "--max-new-tokens", "2", "--no-limits"],
        ["diverge", "tales-draft", "tales-draft", "K\xf6nig", "--max-new-tokens", "2"],
        ["datasheet", "tales-draft", "--machine", "a100"],
        ["compare", "x", "--levers", "?"],
        ["exercises", "exam", "--seed", "7"],
    ],
    ids=lambda args: " ".join(args[:1] + args[2:]),
)
def test_a_command_prints_ascii_where_nothing_else_can_be_shown(monkeypatch, args):
    codes = []
    shown = in_ascii(monkeypatch, lambda: codes.append(main(args)))
    assert codes == [0] and shown.strip() and "\x1b" not in shown


def test_json_loses_no_character(monkeypatch):
    value = {"text": "K\xf6nig \u202e"}
    assert json.loads(in_ascii(monkeypatch, lambda: write_json(value))) == value


def test_json_is_as_it_reads_where_all_can_be_shown(capsys):
    write_json({"text": "K\xf6nig \u202e\x7f", "not finite": float("nan")})
    text = capsys.readouterr().out
    assert "K\xf6nig" in text and not {"\u202e", "\x7f"} & set(text)
    assert json.loads(text) == {"text": "K\xf6nig \u202e\x7f", "not finite": None}


@pytest.mark.skipif(os.name == "nt", reason="POSIX terminals")
@pytest.mark.parametrize(
    "typed, read",
    [
        (b"K\xc3\xb6nig\n", "'K\\xf6nig'"),
        (b"K\xf6nig\n", "InputError('what was typed is not UTF-8 text"),
    ],
    ids=["UTF-8", "no text"],
)
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_is_typed_is_utf8(typed, read, encoding):
    import pty

    code = """
from minillm.cli.common import asked
try:
    print(ascii(asked("> ")))
except ValueError as error:
    print(ascii(error))
"""
    ours, terminal = pty.openpty()
    os.write(ours, typed)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=terminal,
        stdout=terminal,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0
    shown = os.read(ours, 10_000).decode("utf-8", "replace")
    os.close(ours)
    os.close(terminal)
    assert read in shown
