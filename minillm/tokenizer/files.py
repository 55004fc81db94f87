"""The files of a byte-level tokenizer: tokenizer.json, or a vocabulary and its merges; and writing.

tokenizer.json is the format of the `tokenizers` library, and all that transformers 5 writes. It
describes many kinds of tokenizer: what a file asks for and Tokenizer cannot do is refused by name.
Ignored are `truncation` and `padding`, as in transformers, `trim_offsets`, which changes no id,
and, where every byte is a token, `unk_token` and `byte_fallback`. A byte that has no token is
dropped before merging, as the library does. tokenizer_config.json may stand beside all of these
files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from operator import add
from pathlib import Path
from typing import NamedTuple

from ..checkpoints.find import ADDED, PAIRS, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG
from ..errors import InputError, short
from ..machine.files import read_bytes, read_json, write_atomically
from .byte_level import byte_to_char, char_to_byte
from .patterns import GPT2_PATTERN, PATTERNS, why_not
from .specials import END_OF_TEXT, named_token, unusable_specials

ENDS = ("bos_token", "eos_token")
MOST_IDS = 1 << 20  # a higher id is a mistake: every id below it takes memory

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}  # beside its pattern


class Parts(NamedTuple):
    """What files say of a tokenizer: the arguments of `Tokenizer`, in their order."""

    tokens: list[bytes | None]
    merges: list[tuple[int, int]]
    special_tokens: dict[str, int]
    added_tokens: Mapping[str, int]
    normalized: Collection[str]
    config: Mapping
    pattern: tuple[str, ...] = PATTERNS["gpt-2"]
    normalizer: str | None = None
    ignore_merges: bool = False
    gaps: bool = False
    template: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in `folder`."""
    return any((folder / name).exists() for name in (TOKENIZER, *(vocab for vocab, _ in PAIRS)))


def read(folder: Path) -> Parts:
    """Read tokenizer.json in `folder`; without it vocab.json and merges.txt; without them
    encoder.json and vocab.bpe.

    Raises InputError naming the file and what is wrong: an id that two tokens have, an unusable
    merge, something that only another kind of tokenizer can do.
    """
    config = _read_config(folder)
    file = folder / TOKENIZER
    if file.exists():
        data = _table(file, read_json(file))
        model = _table(file, data.get("model"))
        kind = _kind(file, data, model)
        added = _list(file, {"added_tokens": []} | data, "added_tokens")
        merges = pairs_of(file, _list(file, model, "merges"))
        whole = kind["ignore_merges"]
        parts = byte_level(file, model.get("vocab"), merges, file, added, config, whole=whole)
        parts = parts._replace(**kind)
        _check_template(file, parts)
        _refuse_unknown(file, model, parts)
        return _with_ends(folder / TOKENIZER_CONFIG, parts)
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
    parts = byte_level(vocab_file, vocab, merges, file, added, config, unmade_are_special=True)
    return _with_ends(folder / TOKENIZER_CONFIG, parts)


def _read_config(folder: Path) -> dict:
    """Return what tokenizer_config.json says, with the chat template that lies beside it."""
    file, template = folder / TOKENIZER_CONFIG, folder / TEMPLATE
    config = _table(file, read_json(file)) if file.exists() else {}
    if config.get("add_prefix_space"):
        raise InputError(f"{file}: add_prefix_space is set; minillm adds no space to a text")
    for name in ENDS:
        if not isinstance(named_token(config, name), str | None):
            raise InputError(f"{file}: {name} is {config[name]!r:.60}; it must be a token's text")
    if template.exists():
        config["chat_template"] = _text(template)
    return config


def _with_ends(file: Path, parts: Parts) -> Parts:
    """Return `parts`; InputError where tokenizer_config.json adds another id to a text than
    tokenizer.json does."""
    for end, around in zip(("bos", "eos"), parts.template):
        token = parts.special_tokens.get(named_token(parts.config, f"{end}_token") or "")
        if parts.config.get(f"add_{end}_token") and around != (token,):
            raise InputError(
                f"{file}: add_{end}_token is set; minillm adds what the post_processor of"
                f" {TOKENIZER} does, {short(around)}"
            )
    return parts


def _kind(file: Path, data: dict, model: dict) -> dict:
    """Return what tokenizer.json says beside its tokens, as arguments of Tokenizer.

    Raises InputError for whatever would make other ids than Tokenizer does.
    """

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
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            refuse(f"the model's {name}", model[name], "has nothing like it")
    if not isinstance(ignore_merges := model.get("ignore_merges") or False, bool):
        refuse("the model's ignore_merges", ignore_merges, "needs true or false")
    for step in (normalizers := steps("normalizer")):
        if step.get("type") != "NFC":
            refuse("normalizer", step, "changes no text before it is split, but to NFC")
    *splits, last = steps("pre_tokenizer") or [{}]
    pattern = []
    for step in splits:
        part = _cut_by(file, step)
        if part is None:
            refuse("pre_tokenizer", step, "cuts text by Digits, and by Split (Regex, Isolated)")
        if why := why_not(part):
            refuse("pre_tokenizer", step, f"cannot cut by it: it {why}")
        pattern.append(part)
    if last.get("use_regex", True):
        pattern.append(GPT2_PATTERN)
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") is not False or not pattern:
        splitting = (
            "splits text by a pattern, GPT-2's or others (ByteLevel, add_prefix_space false)"
        )
        refuse("pre_tokenizer", data.get("pre_tokenizer"), splitting)
    before: list[int] = []
    after: list[int] = []
    for step in steps("post_processor"):
        if step.get("type") != "ByteLevel" and step.get("type") != "TemplateProcessing":
            refuse("post_processor", step, "adds ids to a text by TemplateProcessing alone")
        if step.get("type") == "TemplateProcessing":
            first, then = _around(file, step)
            before, after = first + before, after + then
    for step in steps("decoder"):
        if step.get("type") != "ByteLevel":
            refuse("decoder", step, "joins the bytes of the tokens (ByteLevel)")
    return {
        "pattern": tuple(pattern),
        "normalizer": "NFC" if normalizers else None,
        "ignore_merges": ignore_merges,
        "template": (tuple(before), tuple(after)),
    }


def _cut_by(file: Path, step: dict) -> str | None:
    """Return the regular expression by which a pre-tokenizer cuts, None for one that does not."""
    if step.get("type") == "Digits" and isinstance(step.get("individual_digits", False), bool):
        return r"\p{N}" if step.get("individual_digits") else r"\p{N}+"
    if all(step.get(name) == value for name, value in SPLIT.items()):
        found = _table(file, step.get("pattern")).get("Regex")
        return found if isinstance(found, str) else None
    return None


def _around(file: Path, step: dict) -> tuple[list[int], list[int]]:
    """Return the ids that a template puts before and after one text."""
    ids: list[int] = []
    known, at = _table(file, step.get("special_tokens", {})), None
    for piece in _list(file, step, "single"):
        if _table(file, piece).keys() == {"Sequence"} and at is None:
            at = len(ids)
            continue
        name = _table(file, piece.get("SpecialToken", {})).get("id")
        stored = known.get(name) if isinstance(name, str) else None
        if stored is None:
            raise InputError(f"{file}: post_processor has {piece!r:.60}, but no ids for it")
        ids += _list(file, _table(file, stored), "ids")
    if at is None:
        raise InputError(f"{file}: post_processor is {step!r:.120}; minillm needs the text in it")
    return ids[:at], ids[at:]


def _check_template(file: Path, parts: Parts) -> None:
    for i in (*parts.template[0], *parts.template[1]):
        if type(i) is not int or not 0 <= i < len(parts.tokens) or parts.tokens[i] is None:
            raise InputError(f"{file}: post_processor adds the id {i!r:.60}, which is no token")


def _refuse_unknown(file: Path, model: dict, parts: Parts) -> None:
    """Raise InputError where bytes without a token would become other ones."""
    single = {token for token in parts.tokens if token and len(token) == 1}
    for name in ("unk_token", "byte_fallback"):
        if len(single) < 256 and model.get(name):
            raise InputError(
                f"{file}: the model's {name} is {model[name]!r:.60}; minillm drops bytes without a"
                f" token ({256 - len(single)} here)"
            )


class Pairs(NamedTuple):
    """The merges of a file, the earliest learnt first: their left and right parts, and where the
    i-th of them stands."""

    lefts: Sequence[str]
    rights: Sequence[str]
    where: Callable[[int], str]


def pairs_of(file: Path, merges: list) -> Pairs:
    """The merges of tokenizer.json, "a b" (up to version 0.19 of the library) or ["a", "b"]."""
    if {*map(type, merges)} == {str} and {merge.count(" ") for merge in merges} == {1}:
        parts = " ".join(merges).split(" ")  # all at once, as there are many
    else:
        parts = []
        for i, merge in enumerate(merges):
            pair = merge.split(" ") if isinstance(merge, str) else merge
            if not isinstance(pair, list) or [*map(type, pair)] != [str, str]:
                raise InputError(f"{file}, merge {i}: {merge!r:.60} is not a pair of tokens")
            parts += pair
    return Pairs(parts[::2], parts[1::2], lambda i: f"{file}, merge {i}")


def _pairs_of_lines(file: Path) -> Pairs:
    """The merges of merges.txt, one a line, after a #version line or without one."""
    lines = {i: line.rstrip("\r") for i, line in enumerate(_text(file).split("\n"), 1)}
    if lines[1].startswith("#version"):
        del lines[1]
    numbers = [i for i, line in lines.items() if line]
    cut = [lines[i].partition(" ") for i in numbers]
    lefts, rights = [left for left, _, _ in cut], [right for _, _, right in cut]
    return Pairs(lefts, rights, lambda i: f"{file}, line {numbers[i]}")


def byte_level(
    vocab_file: Path,
    vocab,
    pairs: Pairs,
    added_file: Path,
    added: Iterable[dict],
    config: dict,
    unmade_are_special: bool = False,
    whole: bool = False,
) -> Parts:
    """Check the parts of a byte-level tokenizer against each other.

    unmade_are_special: GPT-2's own files do not say which tokens are special; there it is each that
    is neither a byte nor made by a merge. whole: pieces may be tokens that no merge makes.
    """
    vocab = _table(vocab_file, vocab)
    if not {*map(type, vocab.values())} <= {int}:
        raise InputError(f"{vocab_file}: not a table of tokens and their ids")
    made = byte_to_char().values() & vocab.keys()
    missing = sorted(set(byte_to_char().values()) - made)
    if missing and (unmade_are_special or not made):  # tokenizer.json and GGUF may lack some
        raise InputError(
            f"{vocab_file}: the byte {missing[0]!r} (of 256) is missing: not a byte-level"
            " vocabulary"
        )
    lefts, rights, where = pairs
    results, parts = [*map(add, lefts, rights)], {*lefts, *rights}
    made.update(results)
    if not (vocab.keys() >= made and vocab.keys() >= parts):
        for i, merge in enumerate(zip(lefts, rights, results)):
            if lacking := [token for token in merge if token not in vocab]:
                raise InputError(
                    f"{where(i)}: {merge[0]!r:.60} with {merge[1]!r:.60} needs {lacking[0]!r:.60},"
                    " which is not in the vocabulary"
                )
    if not whole and not made >= parts:
        of_each = enumerate(zip(lefts, rights))
        i, token = next((i, t) for i, pair in of_each for t in pair if t not in made)
        raise InputError(
            f"{where(i)}: {token!r:.60} is merged, but it is neither a byte nor made by a merge"
        )
    merges = [*zip(map(vocab.__getitem__, lefts), map(vocab.__getitem__, rights))]

    ids, special, ordinary = dict(vocab), dict[str, int](), dict[str, int]()
    normalized: set[str] = set()
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
        if end is not None and end in ids and end not in ordinary:
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
    written = [token for token in ids if token not in raw]
    together = "".join(written)  # one text is turned into bytes far faster than its words
    if not byte_of.keys() >= set(together):
        token = next(token for token in written if not byte_of.keys() >= set(token))
        raise InputError(
            f"{vocab_file}: the token {token!r:.60} is not written in the characters of a"
            " byte-level vocabulary"
        )
    data = together.translate({ord(char): byte for char, byte in byte_of.items()}).encode("latin-1")
    tokens: list[bytes | None] = [None] * (max(by_id) + 1)
    for token, end in zip(written, accumulate(map(len, written))):
        tokens[ids[token]] = data[end - len(token) : end]
    for token in raw:
        tokens[ids[token]] = token.encode()
    return Parts(tokens, merges, special, ordinary, normalized, config)


def names_of(tokenizer) -> dict[int, str]:
    """Return {id: how a file writes its token}: specials and added ones as they are, the others in
    the characters that stand for bytes."""
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
    return names


def write(tokenizer, folder: Path) -> None:
    """Write tokenizer.json, vocab.json, merges.txt and tokenizer_config.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names_of(tokenizer)
    added = {i: s for s, i in (tokenizer.special_tokens | tokenizer.added_tokens).items()}
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
        "normalizer": tokenizer.normalizer and {"type": tokenizer.normalizer},
        "pre_tokenizer": _pre_tokenizer(tokenizer.pattern),
        "post_processor": _post_processor(tokenizer),
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": tokenizer.ignore_merges,
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


def _pre_tokenizer(pattern: tuple[str, ...]) -> dict:
    """What tokenizer.json says of a pattern: GPT-2's is ByteLevel's own."""
    if pattern == PATTERNS["gpt-2"]:
        return BYTE_LEVEL
    splits = [SPLIT | {"pattern": {"Regex": part}} for part in pattern]
    steps = [*splits, BYTE_LEVEL | {"use_regex": False}]
    return {"type": "Sequence", "pretokenizers": steps}


def _post_processor(tokenizer) -> dict:
    """What tokenizer.json says of the ids around a text."""
    if tokenizer.template == ((), ()):
        return BYTE_LEVEL
    named = {i: s for s, i in tokenizer.special_tokens.items()}

    def pieces(which: int, kind: int) -> list[dict]:
        ids = tokenizer.template[which]
        return [{"SpecialToken": {"id": named.get(i, str(i)), "type_id": kind}} for i in ids]

    def around(name: str, kind: int) -> list[dict]:
        text = {"Sequence": {"id": name, "type_id": kind}}
        return [*pieces(0, kind), text, *pieces(1, kind)]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {
            name: {"id": name, "ids": [i], "tokens": [name]}
            for i in (*tokenizer.template[0], *tokenizer.template[1])
            for name in [named.get(i, str(i))]
        },
    }


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
