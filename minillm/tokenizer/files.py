"""The files of a byte-level tokenizer: tokenizer.json, or a vocabulary and its merges; and writing.

tokenizer.json is the format of the `tokenizers` library, and all that transformers 5 writes. It
describes many kinds of tokenizer: what a file asks for and Tokenizer cannot do is refused by name.
Ignored are `truncation` and `padding`, as in transformers, and what changes no id where every byte
is a token (`trim_offsets`, `unk_token`, `byte_fallback`). tokenizer_config.json may stand beside
all of these files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..checkpoints.find import ADDED, PAIRS, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG
from ..errors import InputError
from ..machine.files import read_bytes, read_json, write_atomically
from .byte_level import GPT2_PATTERN, byte_to_char, char_to_byte
from .specials import END_OF_TEXT, named_token, unusable_specials

ENDS = ("bos_token", "eos_token")
MOST_IDS = 1 << 20  # a higher id is a mistake: every id below it takes memory

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
SPLIT = {
    "type": "Split",
    "pattern": {"Regex": GPT2_PATTERN},
    "behavior": "Isolated",
    "invert": False,
}


class Parts(NamedTuple):
    """What files say of a tokenizer: the arguments of `Tokenizer`, in their order."""

    tokens: list[bytes | None]
    merges: list[tuple[int, int]]
    special_tokens: dict[str, int]
    added_tokens: Mapping[str, int]
    normalized: Collection[str]
    config: Mapping


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in `folder`."""
    return any((folder / name).exists() for name in (TOKENIZER, *(vocab for vocab, _ in PAIRS)))


def read(folder: Path) -> Parts:
    """Read tokenizer.json in `folder`; without it vocab.json and merges.txt; without them
    encoder.json and vocab.bpe.

    Raises InputError naming the file and what is wrong: a missing byte, an id that two
    tokens have, an unusable merge, something that only another kind of tokenizer can do.
    """
    config = _read_config(folder)
    file = folder / TOKENIZER
    if file.exists():
        data = _table(file, read_json(file))
        model = _table(file, data.get("model"))
        _refuse_other_kinds(file, data, model)
        added = _list(file, {"added_tokens": []} | data, "added_tokens")
        merges = _pairs_of_json(file, _list(file, model, "merges"))
        return _byte_level(file, model.get("vocab"), merges, file, added, config)
    found = [pair for pair in PAIRS if any((folder / name).exists() for name in pair)]
    if not found:
        raise InputError(f"{folder} has no {TOKENIZER}, nor {' and '.join(PAIRS[0])}")
    vocab_file, merges_file = (folder / name for name in found[0])
    file, added = folder / TOKENIZER_CONFIG, []
    if "added_tokens_decoder" in config:
        declared = _table(file, config["added_tokens_decoder"])
        added = [_table(file, token) | {"id": _number(i)} for i, token in declared.items()]
    elif (folder / ADDED).exists():
        file = folder / ADDED
        added = [{"id": i, "content": token} for token, i in _table(file, read_json(file)).items()]
    vocab, merges = read_json(vocab_file), _pairs_of_lines(merges_file)
    return _byte_level(vocab_file, vocab, merges, file, added, config, unmade_are_special=True)


def _read_config(folder: Path) -> dict:
    """Return what tokenizer_config.json says, with the chat template that lies beside it."""
    file, template = folder / TOKENIZER_CONFIG, folder / TEMPLATE
    config = _table(file, read_json(file)) if file.exists() else {}
    for name in ("add_prefix_space", "add_bos_token", "add_eos_token"):
        if config.get(name):
            raise InputError(f"{file}: {name} is set; minillm adds nothing to a text by itself")
    for name in ENDS:
        if not isinstance(named_token(config, name), str | None):
            raise InputError(f"{file}: {name} is {config[name]!r:.60}; it must be a token's text")
    if template.exists():
        config["chat_template"] = _text(template)
    return config


def _refuse_other_kinds(file: Path, data: dict, model: dict) -> None:
    """Raise InputError for whatever in tokenizer.json would make other ids than Tokenizer does."""

    def steps(part: str) -> list[dict]:
        inner = {"pre_tokenizer": "pretokenizers", "post_processor": "processors"}
        if data.get(part) is None:
            return []
        whole = _table(file, data[part])
        if whole.get("type") != "Sequence":
            return [whole]
        return [_table(file, step) for step in _list(file, whole, inner.get(part, f"{part}s"))]

    def refuse(part: str, value, instead: str):
        raise InputError(f"{file}: {part} is {value!r:.120}; minillm {instead}")

    if model.get("type", "BPE") != "BPE":
        refuse("the model's type", model["type"], "reads byte-level BPE")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(name):
            refuse(f"the model's {name}", model[name], "has nothing like it")
    for step in steps("normalizer"):
        refuse("normalizer", step, "changes no text before it is split")
    *splits, last = steps("pre_tokenizer") or [{}]
    plain = [all(step.get(name) == value for name, value in SPLIT.items()) for step in splits]
    if (
        last.get("type") != "ByteLevel"
        or last.get("add_prefix_space") is not False
        or plain != ([] if last.get("use_regex", True) else [True])
    ):
        splitting = "splits text by GPT-2's pattern (ByteLevel, add_prefix_space false)"
        refuse("pre_tokenizer", data.get("pre_tokenizer"), splitting)
    for step in steps("post_processor"):
        template = _list(file, step, "single") if step.get("type") == "TemplateProcessing" else []
        pieces = [_table(file, piece).keys() for piece in template]
        if step.get("type") != "ByteLevel" and pieces != [{"Sequence"}]:
            refuse("post_processor", step, "adds nothing to a text by itself")
    for step in steps("decoder"):
        if step.get("type") != "ByteLevel":
            refuse("decoder", step, "joins the bytes of the tokens (ByteLevel)")


Pairs = Iterator[tuple[str, str, str]]  # (where it stands, left, right)


def _pairs_of_json(file: Path, merges: list) -> Pairs:
    """The merges of tokenizer.json, "a b" (up to version 0.19 of the library) or ["a", "b"]."""
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        where = f"{file}, merge {number}"
        if not isinstance(pair, list) or [*map(type, pair)] != [str, str]:
            raise InputError(f"{where}: {merge!r:.60} is not a pair of tokens")
        yield where, *pair


def _pairs_of_lines(file: Path) -> Pairs:
    """The merges of merges.txt, one a line, after a #version line or without one."""
    for number, line in enumerate(_text(file).split("\n"), 1):
        line = line.rstrip("\r")
        if line and not (number == 1 and line.startswith("#version")):
            left, _, right = line.partition(" ")
            yield f"{file}, line {number}", left, right


def _byte_level(
    vocab_file: Path,
    vocab,
    pairs: Pairs,
    added_file: Path,
    added: Iterable[dict],
    config: dict,
    unmade_are_special: bool = False,
) -> Parts:
    """Check the parts of a byte-level tokenizer against each other.

    unmade_are_special: GPT-2's own files do not say which tokens are special; there it is each that
    is neither a byte nor made by a merge.
    """
    vocab = _table(vocab_file, vocab)
    if not all(type(i) is int for i in vocab.values()):
        raise InputError(f"{vocab_file}: not a table of tokens and their ids")
    made = set(byte_to_char().values())
    if missing := sorted(made - vocab.keys()):
        raise InputError(
            f"{vocab_file}: the byte {missing[0]!r} (of 256) is missing: not a byte-level"
            " vocabulary"
        )
    merges, parts = [], {}
    for where, left, right in pairs:
        for token in (left, right, left + right):
            if token not in vocab:
                raise InputError(
                    f"{where}: {left!r:.60} with {right!r:.60} needs {token!r:.60}, which is not in"
                    " the vocabulary"
                )
        merges.append((vocab[left], vocab[right]))
        made.add(left + right)
        parts |= {left: where, right: where}
    if unmade := [token for token in parts if token not in made]:
        raise InputError(
            f"{parts[unmade[0]]}: {unmade[0]!r:.60} is merged, but it is neither a byte nor made by"
            " a merge"
        )

    ids, special, ordinary, normalized = dict(vocab), {}, {}, set()
    if unmade_are_special:
        special = {token: i for token, i in vocab.items() if token not in made}
    for token in added:
        content, i = _table(added_file, token).get("content"), token.get("id")
        if not isinstance(content, str) or type(i) is not int:
            raise InputError(f"{added_file}: the added token {token!r:.100} has no content or id")
        if i != ids.setdefault(content, len(ids)):
            raise InputError(
                f"{added_file}: the added token {content!r:.60} has the id {i}; its place in the"
                f" vocabulary is {ids[content]}"
            )
        if asked := [name for name in ("single_word", "lstrip", "rstrip") if token.get(name)]:
            raise InputError(
                f"{added_file}: the added token {content!r:.60} asks for {asked[0]}; minillm finds"
                " tokens wherever their text stands"
            )
        special.pop(content, None)
        (special if token.get("special", True) else ordinary)[content] = i
        if token.get("normalized"):
            normalized.add(content)
    for end in (named_token(config, name) for name in ENDS):
        if end in ids and end not in ordinary:
            special[end] = ids[end]
    if wrong := unusable_specials([*special, *ordinary]):
        raise InputError(
            f"{vocab_file if wrong[0] in vocab else added_file}: {wrong[0]!r:.60} cannot be a"
            " special token: it is empty or not Unicode text"
        )
    by_id = {i: token for token, i in ids.items()}
    if wrong := [i for i in by_id if not 0 <= i < MOST_IDS]:
        raise InputError(f"{vocab_file}: id {wrong[0]!s:.30}: ids must be 0 to {MOST_IDS - 1:,}")
    if twice := [(token, i) for token, i in ids.items() if by_id[i] != token]:
        token, i = twice[0]
        raise InputError(f"{vocab_file}: {token!r:.60} has the id {i}, and so has {by_id[i]!r:.60}")
    raw, byte_of = {*special, *ordinary} - made, char_to_byte()
    tokens: list[bytes | None] = [None] * (max(by_id) + 1)
    for token, i in ids.items():
        if token in raw:
            tokens[i] = token.encode()
        elif byte_of.keys() >= set(token):
            tokens[i] = bytes(byte_of[char] for char in token)
        else:
            raise InputError(
                f"{vocab_file}: the token {token!r:.60} is not written in the characters of a"
                " byte-level vocabulary"
            )
    return Parts(tokens, merges, special, ordinary, normalized, config)


def write(tokenizer, folder: Path) -> None:
    """Write tokenizer.json, vocab.json, merges.txt and tokenizer_config.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    added = {i: s for s, i in (tokenizer.special_tokens | tokenizer.added_tokens).items()}
    names = {
        i: added[i] if i in added else "".join(byte_to_char()[b] for b in token)
        for i, token in enumerate(tokenizer.tokens)
        if token is not None
    }
    times = Counter(names.values())
    if clash := [s for s in added.values() if times[s] > 1]:
        raise InputError(
            f"the special token {clash[0]!r} is written in vocab.json like another token: rename it"
        )
    vocab = {name: i for i, name in names.items()}
    merges = [f"{names[a]} {names[b]}" for a, b in tokenizer.merges]
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": s,
                **dict.fromkeys(("single_word", "lstrip", "rstrip"), False),
                "normalized": s in tokenizer.normalized,
                "special": s in tokenizer.special_tokens,
            }
            for i, s in sorted(added.items())
        ],
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": BYTE_LEVEL,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
    end = END_OF_TEXT if END_OF_TEXT in tokenizer.special_tokens else None
    config = tokenizer.config or {
        "tokenizer_class": "GPT2Tokenizer",
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), end),
        "add_prefix_space": False,
    }
    lines = "\n".join(["#version: 0.2", *merges]) + "\n"
    write_atomically(folder / "vocab.json", json.dumps(vocab, ensure_ascii=False).encode())
    write_atomically(folder / "merges.txt", lines.encode())
    write_atomically(folder / TOKENIZER, json.dumps(data, ensure_ascii=False).encode())
    write_atomically(folder / TOKENIZER_CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def _text(file: Path) -> str:
    try:
        return read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def _table(file: Path, value) -> dict:
    if not isinstance(value, dict):
        raise InputError(f"{file}: {value!r:.60} is not a table, where one is needed")
    return value


def _list(file: Path, table: dict, name: str) -> list:
    if not isinstance(table.get(name), list):
        raise InputError(f"{file}: {name} is {table.get(name)!r:.60}, not a list")
    return table[name]


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None
