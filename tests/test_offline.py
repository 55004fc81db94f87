"""Nothing leaves the machine: in no process of a command is a socket opened or a host looked up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WATCH = """
import sys

WATCHED = (
    "socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind", "urllib.", "http."
)

def refuse(event, args):
    if event.startswith(WATCHED):
        with open({log!r}, "a") as log:
            log.write(f"{{event}} {{args}}\\n")
        raise PermissionError(event)

sys.addaudithook(refuse)
"""


@pytest.fixture
def run(tmp_path):
    """Run Python, its children too, where every use of the network is noted and refused; return
    what was noted."""
    (tmp_path / "sitecustomize.py").write_text(WATCH.format(log=str(tmp_path / "log")))
    path = os.pathsep.join(
        [str(tmp_path), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )

    def run(*args):
        done = subprocess.run(
            [sys.executable, *args],
            env=os.environ | {"PYTHONPATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        noted = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
        return done, noted

    return run


def test_no_command_of_a_student_or_teacher_uses_the_network(run):
    for args in (
        ["generate", "Once", "--max-new-tokens", "2"],
        ["exercises", "start", "--folder", "anna"],
        ["exercises", "check", "softmax", "--folder", "anna"],
        ["exercises", "report", "anna", "--chapter", "0"],
        ["exercises", "export", "--format", "otter", "3", "assignments"],
        ["exercises", "exam"],
        ["course", "course", "--no-open"],
    ):
        done, noted = run("-m", "minillm", *args)
        assert done.returncode == (1 if "check" in args else 0), (args, done.stderr)
        assert not noted, (args, noted)


def test_the_watch_would_notice(run):
    child = "import socket; socket.create_connection(('127.0.0.1', 9))"
    assert (
        "socket.getaddrinfo"
        in run("-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")[
            1
        ]
    )
