"""Show one token being born, in time: a page in the browser, or in a file to keep.

minillm explore "Once upon a time"
minillm explore "The king" --model tales-draft --save king.html
minillm explore --save king.html --beside int8 --beside draft:ngram    two ways to compute it, too
minillm explore --save king.html --beside model:./tuned     another model of the same shapes
minillm explore --save king.html --beside engine:llama.cpp     another engine
minillm explore --save king.html --recording king.recording     what `minillm clock --record` wrote
minillm explore --save king.html --live     the page holds the model, too, and goes on by itself
minillm explore --kernels answers --watch    your functions, anew whenever a file is saved
minillm explore --no-open     says the address, for a browser elsewhere
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError
from .common import add_compute, check_output, load, require_new, say_written, write
from .generate import add_options, given_options

TEXT = "Once upon a time, there was a little girl"
PAGES = (".html", ".htm")
WORDS = 40  # how many are written unless told otherwise
SEED = 1  # so that levers draw the same text
HUBS = {
    "JUPYTERHUB_USER": "a hub",
    "COLAB_RELEASE_TAG": "Colab",
    "KAGGLE_KERNEL_RUN_TYPE": "Kaggle",
    "BINDER_SERVICE_HOST": "Binder",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="?", help=f"the prompt (default: {TEXT})")
    parser.add_argument(
        "--model",
        help="a folder, a bundled name or a hub name (default: tales; of --live: tales-draft)",
    )
    add_compute(parser)
    add_options(parser, seed=SEED, max_new_tokens=WORDS)
    parser.add_argument(
        "--save", metavar="FILE", help="write a page with a recording inside, and end"
    )
    parser.add_argument(
        "--recording",
        action="append",
        default=[],
        metavar="FILE",
        help="of --save: show what `minillm clock --record FILE` wrote, and compute nothing; given"
        " often, the recordings of one model beside each other",
    )
    parser.add_argument("--force", action="store_true", help="of --save: write over what is there")
    parser.add_argument(
        "--live",
        nargs="?",
        const="int8",
        choices=("int8", "float16", "float32"),
        help="of --save: put the model inside, its matrices stored so (default: %(const)s)",
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="LEVER",
        help=(
            "of --save: the same text computed in another way, too, on the same time scale:"
            " no-cache, int8 (or another kind of --dtype), cache:float16, draft:HOW (as in"
            " `minillm generate`), batch:N texts at once, beams:N, threads:N, model:NAME, another"
            " one of the same shapes, or engine:NAME, llama.cpp or transformers; where weights or"
            " engines are others it shows where the two part; may be given often"
        ),
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="of --kernels FOLDER: compute anew whenever a file in it is saved",
    )
    parser.add_argument(
        "--limits",
        metavar="FILE",
        help="take the machine's limits from FILE; where there is none, write it",
    )
    parser.add_argument("--no-limits", action="store_true", help="measure and predict nothing")
    parser.add_argument("--no-open", action="store_true", help="open no browser")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="default: any free one")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer to this name, too, as a proxy asks by (NAME or NAME:PORT); may be given often",
    )


def run(args: argparse.Namespace) -> None:
    from ..page.answering import answerer
    from ..page.levers import require_known
    from .clock import limits_of

    text = TEXT if args.text is None else args.text
    check_output("--save", args.save, PAGES)
    check_output("--limits", args.limits)
    if args.save:
        require_new(Path(args.save), args.force)
    if args.recording:
        return replay(args)
    if args.live and not args.save:
        raise InputError("--live puts the model into a page: give --save page.html, too")
    if args.beside and not args.save:
        raise InputError("--beside is for --save page.html; a served page offers its levers")
    for lever in args.beside:
        require_known(lever)
    folder = folder_of(args)
    if args.watch and not folder:
        raise InputError("--watch looks at your functions: give --kernels FOLDER, too")
    if folder and (args.live or args.beside):
        raise InputError("--live and --beside are of a model, not of a folder of your functions")
    args.model = args.model or ("tales-draft" if args.live else "tales")
    options = {"seed": SEED} | given_options(args)
    if not {"max_new_tokens", "max_length"} & options.keys():
        options["max_new_tokens"] = WORDS

    def measure(model, kinds):
        return limits_of(model, args, lambda what, done, total: None, kinds)

    if folder:
        model, answer, state = own_answerer(folder, args, options)
    else:
        model, tokenizer = load(args)
        limits = None if args.no_limits else measure
        reference = reference_of(args.model)
        parting = bool(args.save)  # nobody waits for it on a page
        answer = answerer(model, tokenizer, args.model, options, limits, reference, parting)
        state = None
    if args.save:
        from ..machine.files import write_atomically
        from ..machine.progress import progress_bar
        from ..page.packing import pack
        from ..page.static import page

        packed = pack(model, tokenizer, args.live) if args.live else b""
        made: list[Any] = []
        with progress_bar("runs") as update:
            for n, lever in enumerate(("", *args.beside)):
                update("computing", n, 1 + len(args.beside), lever)
                made += answer(text, {"lever": lever}, lambda said: None)
        if folder:
            made.reverse()
        write_atomically(Path(args.save), page(made, packed).encode())
        say_written(args.save)
        return
    serve(model, text, answer, args, state)


def replay(args: argparse.Namespace) -> None:
    """Write a page of recordings that are there."""
    from ..machine.files import write_atomically
    from ..page.static import page
    from ..recording import read

    others = ("text", "model", "live", "beside", "watch", "limits", "kernels", "dtype", "precision")
    if given := [name for name in others if getattr(args, name)]:
        raise InputError(f"--recording shows what was computed: leave out {given[0]}")
    if not args.save:
        raise InputError("--recording is for --save page.html")
    for path in args.recording:
        if path.lower().endswith(PAGES):
            raise InputError(
                f"--recording {path}: this is a page, not a recording, which `minillm clock"
                " --record FILE` writes; open it in a browser"
            )
    made = [read(path) for path in args.recording]
    shapes = [(one.header["model"]["family"], one.header["model"]["sizes"]) for one in made]
    for path, shape in zip(args.recording, shapes):
        if shape != shapes[0]:
            raise InputError(f"{path} is of a model of other shapes than {args.recording[0]}")
    write_atomically(Path(args.save), page(made).encode())
    say_written(args.save)


def folder_of(args: argparse.Namespace) -> Path | None:
    """The folder of exercises that a model is to compute with, None where it computes with a twin
    of the package's."""
    from ..twins.choose import NAMES

    name = args.kernels or os.environ.get("MINILLM_KERNELS") or "auto"
    return Path(name).resolve() if name not in NAMES and os.path.isdir(name) else None


def own_answerer(folder: Path, args: argparse.Namespace, options: dict):
    """Return the model, what gives the recordings of the kernels, the textbook and a folder's
    functions, and what changes when one of its files is saved; all of them on one thread."""
    from ..page.own import Own
    from ..twins.threads import set_threads

    for name in ("dtype", "precision"):
        if getattr(args, name):
            raise InputError(
                f"--{name} is of a model that a twin of minillm computes; leave it out"
            )
    set_threads(1 if args.threads is None else args.threads)
    own = Own(folder, args.model, options)

    def answer(prompt: str | list[int], asked, told: Callable[[dict], None]):
        return own(prompt, asked.get("drawing", {}), told, asked.get("again", False))

    return own.model, answer, own.state if args.watch else None


def reference_of(name: str):
    """The reference stored beside a model, None where there is none."""
    from ..checkpoints.find import bundled_names, find_folder
    from ..reference import beside

    there = name in bundled_names() or os.path.isdir(name)
    return beside(find_folder(name)) if there else None


def serve(model, text: str, answer, args: argparse.Namespace, state=None) -> None:
    """Answer until Ctrl-C."""
    from ..page.levers import offered
    from ..page.server import Server
    from ..page.static import html

    levers = offered(model, ("tales-draft",) if args.model == "tales" else ())
    own = bool(folder_of(args))
    ask = {"text": text, "levers": [] if own else levers, "patches": not own}
    more = {"state": state} if state else {}
    server = Server(html(model.config, ask=ask), answer, args.port, args.allow_host, **more)
    try:
        write(f"{server.address}  (Ctrl-C ends it)")
        if hub := next((what for name, what in HUBS.items() if os.environ.get(name)), None):
            write(
                f"This is {hub}, where a browser does not reach this address: in a notebook"
                " `minillm.explore(TEXT)` shows the page as a widget, and `minillm explore --save"
                " page.html` writes one to download"
            )
        elif not args.no_open and can_open():
            import webbrowser

            webbrowser.open(server.address)
        server.serve_forever()
    except KeyboardInterrupt:
        write("")
    finally:
        server.server_close()


def can_open() -> bool:
    """Whether a browser that is opened here is one that somebody sees: not over ssh, not without a
    display, not in WSL."""
    if any(os.environ.get(name) for name in ("SSH_CONNECTION", "SSH_TTY", "WSL_DISTRO_NAME")):
        return False
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform != "linux" or any(os.environ.get(name) for name in screens)
