"""Ask for one thing: a question about a text, a summary, a translation, code, a label.

minillm ask question "Mira keeps three goats." --question "How many goats are there?"
minillm ask summary < letter.txt
minillm ask translation "Good morning." --language French
minillm ask code "double(n) that returns twice n."
minillm ask label "The soup was cold." --labels "positive, negative"
minillm ask all --out docs/ask-smollm2.md      a hundred fixed items, marked by stated rules
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError, short
from .chat import WITHOUT, add_context, add_template, given_template, say_if_cut
from .common import (
    add_compute,
    add_model,
    add_text,
    check_output,
    harmless,
    load,
    say_written,
    table,
    text_of,
    write,
    write_json,
)
from .generate import add_options, given_options

WHAT = ("question", "summary", "translation", "code", "label", "all")
VALUES = ("question", "language", "labels")
LONGEST = 200  # tokens of an answer, unless asked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=WHAT, help="what to ask for")
    add_text(parser, "the text that it is about")
    for name in VALUES:
        parser.add_argument(f"--{name}", metavar="TEXT")
    parser.add_argument("--out", type=Path, metavar="FILE", help="of all: write the answers here")
    parser.add_argument("--json", action="store_true", help="of all: print every answer and mark")
    add_model(parser)
    parser.set_defaults(model="smollm2")
    add_template(parser)
    add_context(parser)
    add_compute(parser)
    add_options(parser, WITHOUT, max_new_tokens=LONGEST)


def run(args: argparse.Namespace) -> None:
    from ..tasks import prompts
    from ..tasks.chat import Chat

    check_output("--out", args.out)
    if args.task == "all" and args.text is not None:
        raise InputError(f"ask all does nothing with the text {short(args.text)}: it has its own")
    others = VALUES if args.task == "all" else ("out", "json")
    if surplus := [name for name in others if getattr(args, name)]:
        raise InputError(f"ask {args.task} does nothing with --{surplus[0]}: leave it out")
    if args.task != "all":
        values = {name: getattr(args, name) for name in VALUES}
        prompt = prompts.prompt_of(args.task, text=text_of(args), **values)
    options, template = given_options(args), given_template(args)
    how = {"context": args.context, "template": template, "max_new_tokens": LONGEST} | options
    chat = Chat(*load(args), **how)
    if args.task == "all":
        return _all(chat, args, options)
    for moment in chat.send(prompt):
        write(harmless(moment.text), end="")
    write("")
    say_if_cut(chat, moment.finish)
    return None


def _all(chat, args: argparse.Namespace, options: dict) -> None:
    from ..decoding.options import Options
    from ..machine.files import write_atomically
    from ..tasks import prompts
    from ..twins.twin import abilities

    results = {}
    for task in prompts.tasks():
        results[task] = list(prompts.mark(chat, task))
    if args.out:
        model = chat.model
        drawn = Options(**options).on(model).temperature > 0
        how = [f"stored as {model.stored}", f"computed by {abilities(model.ops).name}"]
        how += ["drawn" if drawn else "greedy", *(f"{n} {v}" for n, v in options.items())]
        write_atomically(args.out, prompts.page(args.model, results, ", ".join(how)).encode())
        say_written(args.out)
    if args.json:
        return write_json({task: [vars(m) for m in marked] for task, marked in results.items()})
    rows = [(task, sum(m.right for m in marked), len(marked)) for task, marked in results.items()]
    return write(table(("task", "right", "of"), rows, "<>>"))
