"""Compare every intermediate of a model with the reference, Hugging Face transformers.

minillm verify                  all bundled models against their stored references
minillm verify FOLDER --all     every step of one model
minillm verify gpt2 --live      against an installed transformers
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..errors import InputError
from .common import table, write, write_json

LIVE_TEXT, LIVE_GREEDY = "Once upon a time there was a king who had", 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        help="a folder, a bundled name or a hub name (default: all bundled models)",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="against an installed transformers, not the stored reference",
    )
    parser.add_argument(
        "--all", action="store_true", help="a line for every step, not one for each kind"
    )
    parser.add_argument(
        "--kernels",
        choices=("numba", "numpy"),
        default="numpy",
        help="which functions (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from ..checkpoints.find import bundled_names

    results = [check(name, args) for name in ([args.model] if args.model else bundled_names())]
    if args.json:
        write_json(results)
    return 0 if all(result["ok"] for result in results) else 1


def check(name: str, args: argparse.Namespace) -> dict:
    """Verify one model, print what a person wants to see, and return all as JSON-able values."""
    import numpy as np

    from ..checkpoints import find_folder, load_model
    from ..reference import Reference, record, verify
    from ..tokenizer import Tokenizer

    folder = find_folder(name)
    model = load_model(folder, kernels=args.kernels)
    tokenizer = Tokenizer.from_pretrained(folder) if (folder / "vocab.json").exists() else None
    if args.live:
        n_greedy = min(LIVE_GREEDY, model.config.n_positions // 2)
        ids = (
            tokenizer.encode(LIVE_TEXT)
            if tokenizer
            else np.arange(n_greedy) % model.config.vocab_size
        )
        reference, source = record(folder, ids, n_greedy), "transformers, run now"
    else:
        reference, source = Reference.load(folder), "the stored reference"
    reports = {str(np.dtype(t)): verify(model, reference, t) for t in (np.float32, np.float64)}
    greedy, failure = [], ""
    if reference.greedy.size:
        try:
            continued = model.generate(reference.ids[0], len(reference.greedy))
            greedy = continued[reference.ids.shape[1] :]
        except InputError as error:  # a step above is red, and says why
            failure = f": {error}"
    same = bool(np.array_equal(greedy, reference.greedy)) if reference.greedy.size else None
    facts = published_facts(name, model, tokenizer)
    ok = (
        all(r.ok for r in reports.values())
        and same is not False
        and all(f[1] is not False for f in facts)
    )
    if not args.json:
        write(f"{folder} against {source}: ids of shape {list(reference.ids.shape)}\n")
        write(comparison(reports, by_kind=not args.all) + "\n")
        for dtype, report in reports.items():
            write(
                f"{dtype}:"
                f" {'every step OK' if report.ok else f'the first step that is not OK is {report.first}'}"
            )
        if same is not None:
            write(
                f"greedy continuation, {len(reference.greedy)} tokens:"
                f" {'the same' if same else 'NOT the same'}{failure}"
            )
            if tokenizer:
                texts = map(tokenizer.readable, (reference.ids[0], greedy))
                write("  " + " -> ".join(map(repr, texts)))
        for what, holds in facts:
            write(
                f"published GPT-2 124M, {what}:"
                f" {'not checked' if holds is None else 'OK' if holds else 'DIFF'}"
            )
        write("")
    return {
        "folder": str(folder),
        "ok": ok,
        "source": source,
        "greedy_equal": same,
        "steps": {dtype: [vars(d) for d in report] for dtype, report in reports.items()},
    }


def comparison(reports: dict, by_kind: bool) -> str:
    """A line for every step, or for the worst of its kind over all layers; the dtypes side by side."""
    kind_of = {
        d.name: re.sub(r"^h\.\d+\.", "h.*.", d.name) if by_kind else d.name
        for d in next(iter(reports.values()))
    }
    rows = []
    for kind in dict.fromkeys(kind_of.values()):
        row = [kind]
        for report in reports.values():
            worst = max(
                (d for d in report if kind_of[d.name] == kind),
                key=lambda d: (d.status != "OK", d.relative),
            )
            row += [worst.status, f"{worst.largest:.1e}", f"{worst.relative:.1e}"]
        rows.append(row)
    headings = ["step", *(cell for dtype in reports for cell in (dtype, "largest", "relative"))]
    return table(headings, rows, "<" + "<>>" * len(reports))


PROMPT = "Alan Turing theorized that computers would one day become"
CONTINUATION = (  # of the published weights, greedy; source: the README of picoGPT
    " the most powerful machines on the planet.\n\nThe computer is a machine that can perform"
    " complex calculations, and it can perform these calculations in a way that is very similar to"
    " the human brain."
)


def published_facts(name: str, model, tokenizer) -> list[tuple[str, bool | None]]:
    """Check what is known of OpenAI's 124M weights, when `name` (or the folder's name) is gpt2;
    None is not checked."""
    if Path(name).name != "gpt2" or tokenizer is None:
        return [
            ("parameter count, tensors, greedy continuation (for that: minillm verify gpt2)", None)
        ]
    ids = tokenizer.encode(PROMPT)
    expected = tokenizer.encode(CONTINUATION)
    new = model.generate(ids, len(expected))[len(ids) :].tolist()
    return [
        ("124,439,808 parameters", model.n_parameters == 124_439_808),
        ("148 tensors", len(model.parameters) == 148),
        ("greedy continuation of the Turing prompt", new == expected),
    ]
