"""The bar is for terminals, and never in the way of what a program reads."""

import os
import subprocess
import sys

import pytest

from minillm.machine.progress import progress_bar

CODE = """
from minillm.machine.progress import progress_bar
with progress_bar('steps') as update:
    update('training', 1, 3)
    print('{"step": 1}', flush=True)
    update('training', 2, 3)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX terminals")
def test_what_is_printed_goes_to_the_pipe_and_the_bar_to_the_terminal():
    import pty

    ours, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=terminal, text=True
    )
    os.close(terminal)
    assert done.stdout == '{"step": 1}\n'
    shown = os.read(ours, 100_000)
    os.close(ours)
    assert b"training" in shown and b'"step"' not in shown


def test_without_a_terminal_nothing_is_shown(capfd):
    with progress_bar("steps") as update:
        update("training", 1, 3)
    assert capfd.readouterr() == ("", "")
