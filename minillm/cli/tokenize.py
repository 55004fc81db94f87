"""Show the tokens of a text, and with --explain how they came about.

minillm tokenize "Hello world"
minillm tokenize "unbelievable" --explain
"""

from __future__ import annotations

import argparse

from ..errors import count
from .common import add_model, add_text, shown, table, text_of, write, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_text(parser, "the text")
    add_model(parser)
    parser.add_argument(
        "--explain", action="store_true", help="show the pieces, their bytes and every merge"
    )
    parser.add_argument(
        "--allow-special",
        action="store_true",
        help="read <|endoftext|> as the special token, not as text",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from ..tokenizer import Tokenizer

    text = text_of(args)
    tokenizer = Tokenizer.from_pretrained(args.model)
    pieces = tokenizer.explain(text, allowed_special="all" if args.allow_special else ())
    ids = [i for piece in pieces for i in piece.ids]
    if args.json:
        tokens = [
            {"id": i, "bytes": list(token)}
            for piece in pieces
            for i, token in zip(piece.ids, piece.tokens)
        ]
        write_json({"text": text, "ids": ids, "tokens": tokens})
    elif args.explain:
        for piece in pieces:
            parts = [bytes([b]) for b in piece.data]
            write(f"{shown(piece.data)}: {count(len(piece.data), 'byte')} {piece.data.hex(' ')}")
            for merge in piece.merges:
                parts[merge.at : merge.at + 2] = [merge.left + merge.right]
                write(f"  merge {merge.rank:>5}  {' '.join(map(shown, parts))}")
            write(f"  ids {' '.join(map(str, piece.ids))}")
        write(
            f"{count(len(text), 'character')}, {count(len(pieces), 'piece')},"
            f" {count(len(ids), 'token')}"
        )
    else:
        rows = [(i, shown(token)) for piece in pieces for i, token in zip(piece.ids, piece.tokens)]
        write(table(("id", "token"), rows, "><"))
        write(f"{count(len(text), 'character')}, {count(len(ids), 'token')}")
