"""What several subcommands share: the model option, text from an argument or standard input,
tables."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from traceback import format_exception

from ..errors import InputError
from ..machine.files import read_text, require_place


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="tales",
        help="a folder, a GGUF file, a bundled name or a hub name (default: %(default)s)",
    )


def add_compute(parser: argparse.ArgumentParser, precision: bool = True) -> None:
    """The options for how to compute, which `load` reads; --precision, unless the command has its
    own."""
    parser.add_argument(
        "--kernels",
        metavar="NAME",
        help=(
            "which functions: auto, numba, numpy, or a folder of exercises for your own (default:"
            " auto, or $MINILLM_KERNELS)"
        ),
    )
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help="float32, float64, bfloat16, float16, int8, int4 or int4_min",
    )
    if precision:
        parser.add_argument(
            "--precision",
            choices=("float32", "bfloat16"),
            help=(
                "bfloat16: matrices are stored in it, and what they multiply is rounded to it, too,"
                " as in training; sums stay float32 (default: float32, that is not rounded)"
            ),
        )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="how many threads (default: $NUMBA_NUM_THREADS, or all cores)",
    )


def join():
    """Return the processes that mpiexec started (distributed.World), or this one alone.

    From here on rank 0 alone prints; each computes with its share of the cores, unless the
    environment says how many; and one that ends in a traceback ends all, since the others would
    wait for it for ever.
    """
    from ..machine.distributed import world

    ranks = world()
    if ranks.size > 1:
        from ..twins.threads import chosen, set_threads

        if ranks.rank:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        sys.excepthook = lambda *error: ranks.fail("".join(format_exception(*error)), 1)
        if not chosen():
            set_threads(ranks.cores)
    return ranks


def warn_of_no_number() -> None:
    """Keep NumPy from warnings: what is not finite is told when it is used."""
    import numpy as np

    np.seterr(over="ignore", invalid="ignore")


def dtype_of(args: argparse.Namespace) -> str | None:
    """What --dtype and --precision say together of how matrices are stored."""
    if args.precision != "bfloat16":
        return args.dtype
    if args.dtype in (None, "bfloat16", "bfloat16_rounded"):
        return "bfloat16_rounded"
    raise InputError(
        f"--precision bfloat16 is of matrices in bfloat16, not in {args.dtype}: leave out --dtype"
    )


def load(args: argparse.Namespace):
    """Return (model, tokenizer) as the options ask for."""
    import minillm

    from ..twins.threads import set_threads

    dtype = dtype_of(args)
    if args.threads is not None:
        set_threads(args.threads)
    warn_of_no_number()
    return minillm.load(args.model, dtype, args.kernels)


class Said(logging.Handler):
    """What the library logs is a line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr)


@contextmanager
def log_on_stderr() -> Iterator[None]:
    """Say what the library logs, until the block is left."""
    logger, said = logging.getLogger("minillm"), Said()
    level = logger.level
    logger.addHandler(said)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(said)
        logger.setLevel(level)


def say_when_compiling() -> None:
    """On a terminal, say once that kernels are being compiled: somebody waits, and wonders why."""
    if not sys.stderr.isatty():
        return
    from ..kernels.listeners import compile_listeners

    def say(kernel: str) -> None:
        compile_listeners.remove(say)
        print(
            "compiling kernels, this once (a few seconds; `minillm warmup` compiles all of them)",
            file=sys.stderr,
        )

    compile_listeners.append(say)


def add_text(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("text", nargs="?", help=f"{what}; from standard input if left out or -")


def text_of(args: argparse.Namespace) -> str:
    """Return the text argument, or standard input, whose last line end is dropped."""
    if args.text not in (None, "-"):
        return args.text
    if sys.stdin is None or (args.text is None and sys.stdin.isatty()):
        raise InputError("no text: give it as an argument, or pipe it in")
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InputError(
            f"standard input is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None


def asked(prompt: str) -> str:
    """Return what is typed on the terminal; UTF-8 also where its encoding is another that lacks
    what was typed, as ASCII does. InputError for what is no text."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    line = input(prompt)
    if not any("\udc80" <= c <= "\udcff" for c in line):
        return line
    try:
        return line.encode(sys.stdin.encoding, "surrogateescape").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"what was typed is not UTF-8 text ({error.reason})") from None


def text_of_file(file: Path) -> str:
    """Return what a UTF-8 file holds, without the byte order mark that some editors begin with."""
    return read_text(file)


PICTURES = (".png", ".svg", ".pdf", ".jpg", ".eps")


def check_output(option: str, path, formats: Sequence[str] = ()) -> None:
    """Raise InputError, before anything is measured, for a file that could not be written to `path`
    (None is none)."""
    if path is None:
        return
    require_place(path := Path(path))
    if formats and path.suffix.lower() not in formats:
        raise InputError(f"{option} {path}: the name must end in one of {', '.join(formats)}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{option} {path}: there is no such folder")
    if path.is_dir():
        raise InputError(f"{option} {path}: it is a folder; name a file in it")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise InputError(f"{option} {path}: it cannot be written")


def check_stem(option: str, stem: str | Path | None, endings: Iterable[str]) -> None:
    """The same for files of one name and several endings."""
    if stem is not None and (not Path(stem).name or str(stem)[-1] in "/" + os.sep):
        raise InputError(f"{option} {stem}: it is a folder; name what the files in it begin with")
    for ending in endings if stem else ():
        check_output(option, f"{stem}{ending}")


def require_new(path: Path, force: bool, how: str = "--force") -> None:
    """Raise InputError where something is there already that --force does not give up.

    For what no command makes again as it was: a model, a run with its times, a conversation. What
    the same command makes again, a picture or a table, is written over.
    """
    if path.exists() and not force:
        raise InputError(f"{path} is there; {how} writes over it")


def say(text: str) -> None:
    """Print what is no answer, at once, with nothing in it that acts on a terminal."""
    sys.stdout.flush()
    print(harmless(text), file=sys.stderr, flush=True)


def say_written(*paths) -> None:
    """Say on stderr, where it is no part of the result, which files are there now; None is none."""
    for path in paths:
        if path is not None:
            print(f"{path}: written", file=sys.stderr)


def say_next(folder: Path, command: str) -> None:
    """Say on stderr that a run is finished, and what takes its folder."""
    print(f"{folder}: written; next: {command}", file=sys.stderr)


def write(text: str, end: str = "\n") -> None:
    """Print now, with a question mark for whatever the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), end=end, flush=True)


ACTING = {"Cc", "Cf", "Zl", "Zp"}  # categories of characters that a terminal obeys, or hides
WITHIN = "\n\t\u200c\u200d"  # of these, those that texts need: joiners make words and emoji


def harmless(text: str) -> str:
    """Return a text in which the characters that move the cursor, ring, colour or turn the writing
    around are written out, as \\x1b."""
    return "".join(
        ascii(c)[1:-1] if unicodedata.category(c) in ACTING and c not in WITHIN else c for c in text
    )


def writes_unicode() -> bool:
    """Whether the output's encoding has every character."""
    return (sys.stdout.encoding or "ascii").lower().startswith("utf")


def write_json(value, indent: int | None = 2) -> None:
    """Print JSON, which has no NaN and no infinity: these are null.

    What a terminal obeys, and what its encoding lacks, is written out, as \\u00f6.
    """
    value = json.loads(json.dumps(value), parse_constant=lambda name: None)
    dumped = json.dumps(value, ensure_ascii=not writes_unicode(), indent=indent)
    write("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in dumped))


def write_json_line(value) -> None:
    """The same in one line."""
    write_json(value, indent=None)


NARROW = 12  # characters that a column of text keeps


def terminal_width(otherwise: int) -> int:
    """How many characters a line may have: $COLUMNS, else the terminal's; `otherwise` where the
    output is no terminal."""
    return shutil.get_terminal_size((otherwise, 24)).columns


def table(headings: Sequence[str], rows: Sequence[Sequence], align: str) -> str:
    """Return aligned columns; `align` has one of < and > for each.

    Where a terminal is too narrow for all, the later ones follow in tables of their own, below the
    first, each of which begins with the columns before the | in `align` (without one, the first);
    and text is wrapped that is too long for that. No number is cut.
    """
    before, bar, _ = align.partition("|")
    keys, align = len(before) if bar else 1, align.replace("|", "")
    cells = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    room, rest = terminal_width(sys.maxsize), [*range(keys, len(widths))]
    tables: list[str] = []
    while rest or not tables:
        few = len(rest)
        while few > 1 and _across(widths[i] for i in (*range(keys), *rest[:few])) > room:
            few -= 1
        of, rest = [*range(keys), *rest[:few]], rest[few:]
        part = [[row[i] for i in of] for row in cells]
        tables.append(_lines(part, [widths[i] for i in of], [align[i] for i in of], room))
    return "\n\n".join(tables)


def _across(widths: Iterable[int]) -> int:
    """How many characters a line of columns has, two blanks between them."""
    return sum(width + 2 for width in widths) - 2


def _lines(cells: Sequence[Sequence[str]], widths: list[int], align: list[str], room: int) -> str:
    """One table, the first row being its headings; the widest columns of text are wrapped first."""
    for n in sorted(range(len(widths)), key=lambda n: -widths[n]):
        if align[n] == "<" and (excess := _across(widths) - room) > 0:
            widths[n] = max(widths[n] - excess, min(widths[n], NARROW))
    drawn = []
    for row in cells:
        wrapped = [_wrapped(c, w) for c, w in zip(row, widths)]
        drawn.append(
            [
                "  ".join(f"{c:{a}{w}}" for c, a, w in zip(line, align, widths)).rstrip()
                for line in zip_longest(*wrapped, fillvalue="")
            ]
        )
    rule = "-" * max(len(line) for lines in drawn for line in lines)
    return "\n".join([*drawn[0], rule, *(line for lines in drawn[1:] for line in lines)])


def _wrapped(cell: str, width: int) -> list[str]:
    """The lines of a cell: those after the first stand two blanks further to the right."""
    further = " " * (len(cell) - len(cell.lstrip()) + 2)
    return wrap(cell, width, subsequent_indent=further) if len(cell) > width else [cell]


def shown(data: bytes) -> str:
    """Return a token's bytes as a person reads them: quoted, spaces visible, odd bytes as \\x.."""
    try:
        text = data.decode("utf-8")
        return repr(text) if text.isprintable() else ascii(text)
    except UnicodeDecodeError:
        return repr(data)[1:]


def token_name(tokenizer, i: int) -> str:
    """What a person reads for an id: its token as `shown`, or the number where it has none."""
    return str(i) if i in tokenizer.ids_without_token(i + 1) else shown(tokenizer.tokens[i])
