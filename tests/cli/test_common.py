"""Tables that fit where they are shown."""

import os
import subprocess
import sys

import pytest

from minillm.cli.common import table

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
