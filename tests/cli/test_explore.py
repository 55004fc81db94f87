"""`minillm explore`: a page in a file, or served until Ctrl-C."""

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minillm.cli import main
from minillm.cli.explore import can_open
from minillm.recording import read, to_bytes


def test_the_command_writes_a_page(tmp_path, capsys):
    args = ["explore", "Once </script>", "--model", "tales-draft", "--no-limits"]
    file = tmp_path / "a.html"
    assert main([*args, "--max-new-tokens", "2", "--save", str(file)]) == 0
    assert file.read_text("utf-8").startswith("<!doctype html>")
    file.write_text("mine", "utf-8")
    assert main([*args, "--save", str(file)]) == 2
    assert "a.html is there; --force writes over it" in capsys.readouterr().err
    assert file.read_text("utf-8") == "mine"
    assert main([*args, "--max-new-tokens", "2", "--save", str(file), "--force"]) == 0
    assert file.read_text("utf-8").startswith("<!doctype html>")
    assert main([*args, "--save", str(tmp_path / "a.png")]) == 2
    assert "the name must end in one of .html" in capsys.readouterr().err


def test_a_lever_that_is_none_is_refused_before_anything_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr("minillm.cli.explore.load", None)
    assert main(["explore", "--save", "a.html", "--beside", "int8", "--beside", "intt8"]) == 2
    assert "lever 'intt8' is not known; known: no-cache, " in capsys.readouterr().err
    assert main(["explore", "--save", "a.html", "--beside", "engine:vllm"]) == 2
    assert "engine is 'vllm'; it must be one of llama.cpp" in capsys.readouterr().err


def test_recordings_are_shown_without_what_made_them(tmp_path, capsys):
    """Those of two engines, neither of which is needed."""
    data, page = Path(__file__).parents[1] / "data", tmp_path / "a.html"
    engines = [data / "engines" / f"tales-llama-{n}.recording" for n in ("phases", "steps")]
    args, save = [part for file in engines for part in ("--recording", str(file))], ["--save"]
    assert main(["explore", *args, *save, str(page)]) == 0
    for file in engines:
        assert base64.b64encode(to_bytes(read(file))).decode() in page.read_text("utf-8")
    assert capsys.readouterr().err == f"{page}: written\n"
    another = str(data / "recordings" / "tales.recording")
    for wrong, message in (
        (args, "--recording is for --save page.html"),
        (["The king", *args], "leave out text"),
        ([*args, "--recording", another, *save, "b.html"], f"other shapes than {engines[0]}"),
        (["--recording", f"{another}.no", *save, "b.html"], "tales.recording.no"),
        (["--recording", "king.html", *save, "b.html"], "this is a page, not a recording"),
    ):
        assert main(["explore", *wrong]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


@pytest.mark.parametrize(("command", "words"), [("explore", 40), ("ask", 200), ("generate", 64)])
def test_help_says_how_many_words_this_command_writes(capsys, command, words):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"tokens to add, or as many as fit (default: {words})" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a child")
def test_ctrl_c_ends_the_command():
    args = [sys.executable, "-m", "minillm", "explore", "--no-open", "--model", "tales-draft"]
    environment = os.environ | {"MINILLM_KERNELS": "numpy", "JUPYTERHUB_USER": "somebody"}
    with subprocess.Popen(
        args,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in background
    ) as process:
        address = process.stdout.readline()
        hub = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert address.startswith("http://127.0.0.1:") and "explore --save" in hub
    assert "minillm.explore(TEXT)" in hub
    assert (process.returncode, errors) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_a_browser_is_opened_where_somebody_sees_it(monkeypatch):
    for name in ("SSH_CONNECTION", "SSH_TTY", "WSL_DISTRO_NAME", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not can_open()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert can_open()
    for name in ("SSH_CONNECTION", "WSL_DISTRO_NAME"):
        with monkeypatch.context() as there:
            there.setenv(name, "x")
            assert not can_open()
