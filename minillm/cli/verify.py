"""Compare a model with the reference: every intermediate, and what is published of its weights.

minillm verify                  all bundled models against their stored references
minillm verify FOLDER --all     every step of one model
minillm verify gpt2             OpenAI's weights against published facts
minillm verify gpt2 --live      and every step against an installed transformers
minillm verify tales --engine transformers "The king"    every step as an engine forms it now, each
                                from the engine's inputs, and which of its switches explain what
                                differs
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InputError, count
from .common import table, warn_of_no_number, write, write_json

LIVE_TEXT, LIVE_GREEDY = "Once upon a time there was a king who had", 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        help="a folder, a GGUF file, a bundled name or a hub name (default: all bundled models)",
    )
    parser.add_argument(
        "text", nargs="?", help=f"with --engine: what both read (default: {LIVE_TEXT!r})"
    )
    parser.add_argument(
        "--engine", metavar="NAME", help="against an engine of others: transformers or llama.cpp"
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

    warn_of_no_number()
    if args.engine:
        if args.live:
            raise InputError("--live is against transformers as well: leave out one of both")
        results = [check_engine(args)]
    elif args.text is not None:
        raise InputError(f"the text {args.text!r:.60} is for --engine: give that, too")
    else:
        results = [check(name, args) for name in ([args.model] if args.model else bundled_names())]
    if args.json:
        write_json(results)
    return 0 if all(result["ok"] for result in results) else 1


def check(name: str, args: argparse.Namespace) -> dict:
    """Verify one model, print what a person wants to see, and return all as JSON-able values."""
    from ..loading import load_model, open_checkpoint
    from ..published import facts_of
    from ..reference import REFERENCE_FILE

    checkpoint = open_checkpoint(name)
    model, folder = load_model(checkpoint, kernels=args.kernels), checkpoint.path
    tokenizer = checkpoint.tokenizer
    published = facts_of(name)
    say = write if not args.json else lambda *_: None
    result = {"folder": str(folder), "ok": True}
    if args.live or published is None or (folder / REFERENCE_FILE).exists():
        result |= check_steps(name, folder, model, tokenizer, args, say)
    if published is not None:
        facts = check_facts(published, model, tokenizer, say)
        result |= {"ok": result["ok"] and all(f["ok"] for f in facts), "published": facts}
    say("")
    return result


def check_engine(args: argparse.Namespace) -> dict:
    """Compare every step with an engine of others, by its switches one after another."""
    import numpy as np

    from ..bench.engines import compare_engine
    from ..engines import engine
    from ..loading import load_model, open_checkpoint

    kind = engine(args.engine)
    name = args.model or "tales"
    checkpoint = open_checkpoint(name)
    model, tokenizer = load_model(checkpoint, kernels=args.kernels), checkpoint.tokenizer
    text = LIVE_TEXT if args.text is None else args.text
    ids = tokenizer.encode_prompt(text) if tokenizer else np.arange(8).tolist()
    outcomes = compare_engine(kind, checkpoint, model, ids)
    if not args.json:
        write(f"{name} against {outcomes[0].title}: {count(len(ids), 'id')}")
        where = "" if args.all else ", where it is most in any layer"
        write(f"how far apart a step is, in rounding of both{where}; blank: it is within another")
        for number, switch in enumerate(outcomes[-1].switches, 1):
            write(f"+{number}: {switch}" + (", and those above" if number > 1 else ""))
        write("\n" + in_rounding([o.steps for o in outcomes], by_kind=not args.all) + "\n")
        before = ""
        for number, outcome in enumerate(outcomes):
            first = next(iter(outcome.differing), None)
            verdict = f"the first beyond rounding is {first}" if first else "all within rounding"
            if first and first.name == before:
                verdict = f"again {first.name}, {first.times:,.1f} times the rounding of both"
            before = first.name if first else ""
            how = f"+{number}" if number else "as it is"
            write(f"{how}: {verdict}; logits of both {outcome.logits:.1e} apart")
        if rest := {kind_of(step.name) for step in outcomes[-1].differing}:
            write(f"no switch explains {', '.join(sorted(rest))}")
    return {
        "model": str(checkpoint.path),
        "engine": outcomes[0].title,
        "ok": not outcomes[-1].differing,
        "ids": ids,
        "outcomes": [outcome.to_dict() for outcome in outcomes],
    }


def check_steps(name: str, folder: Path, model, tokenizer, args, say) -> dict:
    """Compare every step and a greedy continuation with the reference, stored or run now."""
    import numpy as np

    from ..loading import convert
    from ..reference import Reference, record, verify

    if args.live:
        n_greedy = min(LIVE_GREEDY, model.config.sizes.P // 2)
        ids = (
            tokenizer.encode_prompt(LIVE_TEXT)
            if tokenizer
            else np.arange(n_greedy) % model.config.sizes.V
        )
        with TemporaryDirectory(ignore_cleanup_errors=True) as place:
            theirs = folder
            if folder.is_file():  # transformers reads folders
                convert(folder, theirs := Path(place) / "model", "float32")
            references = {t: record(theirs, ids, n_greedy, t) for t in ("float32", "float64")}
        source = "transformers, run now"
    else:
        references = dict.fromkeys(("float32", "float64"), Reference.load(folder))
        source = "the stored reference"
    reference = references["float64"]
    reports = {t: verify(model, r, np.dtype(t)) for t, r in references.items()}
    greedy, failure = [], ""
    if reference.greedy.size:
        try:
            continued = model.generate(reference.ids[0], len(reference.greedy), do_sample=False)
            greedy = continued[reference.ids.shape[1] :]
        except InputError as error:  # a step above is red, and says why
            failure = f": {error}"
    same = bool(np.array_equal(greedy, reference.greedy)) if reference.greedy.size else None
    say(f"{name} against {source}: ids of shape {list(reference.ids.shape)}\n")
    say(comparison(reports, by_kind=not args.all) + "\n")
    for dtype, report in reports.items():
        first = "every step OK" if report.ok else f"the first step that is not OK is {report.first}"
        say(f"{dtype}: {first}")
    if same is not None:
        verdict = "the same" if same else "NOT the same"
        say(f"greedy continuation, {count(len(reference.greedy), 'token')}: {verdict}{failure}")
        if tokenizer:
            texts = map(tokenizer.readable, (reference.ids[0], greedy))
            say("  " + " -> ".join(map(repr, texts)))
    return {
        "ok": all(r.ok for r in reports.values()) and same is not False,
        "source": source,
        "greedy_equal": same,
        "steps": {dtype: [vars(d) for d in report] for dtype, report in reports.items()},
    }


def check_facts(published: dict, model, tokenizer, say) -> list[dict]:
    """Check what is published of these weights, a line for each fact."""
    from ..machine.progress import progress_bar
    from ..published import check

    say("published facts (sources: minillm/published.json)\n")
    facts = []
    with progress_bar("passes") as update:
        for fact in check(published, model, tokenizer, update):
            found = f"; here: {fact.difference}" if fact.difference else ""
            say(f"{'OK' if fact.ok else 'DIFF':<6}{fact.what}{found}")
            facts.append(vars(fact))
    return facts


def in_rounding(outcomes: list, by_kind: bool) -> str:
    """A line for every step, or for the worst of its kind over all layers: how far apart it is, in
    the rounding of both; one outcome beside another."""
    columns: list[dict] = []
    for steps in outcomes:
        worst: dict = {}
        for step in steps:
            kind = kind_of(step.name) if by_kind else step.name
            worst[kind] = max(worst.get(kind, step), step, key=lambda s: s.times)
        columns.append({k: f"{s.times:,.2f} {'DIFF' * s.differs:<4}" for k, s in worst.items()})
    kinds = max(columns, key=len)
    rows = [(kind, *(column.get(kind, "") for column in columns)) for kind in kinds]
    headings = ["step", "as it is     "]
    headings += [f"+{number}     " for number in range(1, len(outcomes))]
    return table(headings, rows, "<" + ">" * len(outcomes))


def kind_of(name: str) -> str:
    """A step's name over all layers: h.3.ln_1 -> h.*.ln_1."""
    return re.sub(r"^h\.\d+\.", "h.*.", name)


def comparison(reports: dict, by_kind: bool) -> str:
    """A line for every step, or for the worst of its kind over all layers; dtypes side by side."""
    kinds = {d.name: kind_of(d.name) if by_kind else d.name for d in next(iter(reports.values()))}
    rows = []
    for kind in dict.fromkeys(kinds.values()):
        row = [kind]
        for report in reports.values():
            worst = max(
                (d for d in report if kinds[d.name] == kind),
                key=lambda d: (d.status != "OK", d.relative),
            )
            row += [worst.status, f"{worst.largest:.1e}", f"{worst.relative:.1e}"]
        rows.append(row)
    headings = ["step", *(cell for dtype in reports for cell in (dtype, "largest", "relative"))]
    return table(headings, rows, "<" + "<>>" * len(reports))
