"""The tokenizer in the metadata of a GGUF file: read, and written as llama.cpp needs it.

Of the kinds that GGUF knows, Tokenizer is the one that it calls gpt2 (byte-level BPE), with the
pre-tokenizers of `patterns`. As in llama.cpp, a file that names none has "default", llama-bpe takes
a piece that is a token whole, no text is normalised, and a byte without a token lets nothing merge
across it. Source: the specification in ggml (docs/gguf.md); llama.cpp, llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from ..errors import InputError, short
from .files import MOST_IDS, Parts, byte_level, names_of, pairs_of
from .patterns import NAMES, PATTERNS
from .specials import END_OF_TEXT, named_token

KEY = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = range(1, 6)  # types of tokens; 6: a byte, for SPM
WHOLE = {"llama-bpe"}  # pre-tokenizers after which a piece that is a token is not merged
BEGINNING = {"llama-bpe"}  # those after which bos is added where the file says nothing
NAMED = {  # tokenizer_config.json's name -> GGUF's
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
    "eot_token": "eot_token_id",
}
TEMPLATE = "tokenizer.chat_template"


def read(metadata: Mapping[str, object], path: str | Path) -> Parts:
    """Return the tokenizer that the metadata of the GGUF file `path` describes; Tokenizer(*parts).

    Control and unknown tokens are special, those that a user defined are found in every text,
    unused ones are no tokens. Raises InputError for another kind of tokenizer or pre-tokenizer, and
    for lists that do not fit each other.
    """
    path = Path(path)

    def wrong(what: str) -> InputError:
        return InputError(f"{path}: {what}")

    def value(name: str, form: type, default=None):
        found = metadata.get(KEY + name, default)
        if type(found) is not form:
            raise wrong(f"{KEY}{name} is {short(found)}; needed: {form.__name__}")
        return found

    def items(name: str, form: type, default=None) -> list:
        found = value(name, list, default)
        if {*map(type, found)} - {form}:
            raise wrong(f"{KEY}{name} holds {short(found)}; needed: {form.__name__}")
        return found

    if (model := value("model", str)) != "gpt2":
        raise wrong(f"the tokenizer is of the kind {short(model)}; minillm reads gpt2")
    if (pre := value("pre", str, "default")) not in PATTERNS:
        known = ", ".join(PATTERNS)
        raise wrong(f"the pre-tokenizer is {short(pre)}; minillm knows {known}")
    tokens = items("tokens", str)
    types = items("token_type", int, [NORMAL] * len(tokens))
    if len(types) != len(tokens) or len(tokens) > MOST_IDS:
        raise wrong(f"{len(tokens):,} tokens with {len(types):,} types; at most {MOST_IDS:,}")
    if odd := {*types} - {NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED}:
        raise wrong(f"{KEY}token_type has {short(min(odd))}; minillm knows 1 to 5")

    used = [i for i, kind in enumerate(types) if kind != UNUSED]
    vocab = {tokens[i]: i for i in used}
    if len(vocab) < len(used):
        first: dict[str, int] = {}
        i = next(i for i in used if first.setdefault(tokens[i], i) != i)
        raise wrong(f"the tokens {first[tokens[i]]} and {i} are both {short(tokens[i])}")
    added = [
        {"id": i, "content": tokens[i], "special": kind != USER_DEFINED}
        for i, kind in enumerate(types)
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    config: dict[str, object] = {}
    for name, key in NAMED.items():
        if KEY + key in metadata:
            i = value(key, int)
            if not 0 <= i < len(tokens):
                raise wrong(f"{KEY}{key} is {short(i)}; there are {len(tokens):,} tokens")
            config[name] = tokens[i]
    if TEMPLATE in metadata:
        if not isinstance(metadata[TEMPLATE], str):
            raise wrong(f"{TEMPLATE} is {short(metadata[TEMPLATE])}; needed: str")
        config["chat_template"] = metadata[TEMPLATE]

    def adds(name: str, token: str, default: bool) -> tuple[int, ...]:
        if not value(f"add_{name}_token", bool, default):
            return ()
        if token not in config:
            raise wrong(f"{KEY}add_{name}_token is set, but {KEY}{name}_token_id is missing")
        return (cast(int, metadata[KEY + NAMED[token]]),)

    template = (
        adds("bos", "bos_token", pre in BEGINNING and "bos_token" in config),
        adds("eos", "eos_token", False),
    )
    merges, whole = pairs_of(path, items("merges", str)), pre in WHOLE
    parts = byte_level(path, vocab, merges, path, added, config, whole=whole)
    holes: list[bytes | None] = [None] * (len(tokens) - len(parts.tokens))
    return parts._replace(
        tokens=parts.tokens + holes,
        pattern=PATTERNS[pre],
        ignore_merges=whole,
        gaps=True,
        template=template,
    )


def metadata(tokenizer, vocab_size: int | None = None) -> dict[str, object]:
    """Return the metadata that describe a tokenizer to llama.cpp, with `vocab_size` tokens: those
    that the model has beyond the tokenizer's are unused.

    Raises InputError for what llama.cpp has no name for: another pattern, pieces taken whole (or
    not) after a pattern that llama.cpp treats otherwise, other ids around a text than bos and eos.
    Bytes without a token and NFC, which llama.cpp does not apply, are its own way there.
    """
    pre = NAMES.get(tokenizer.pattern)
    if pre is None:
        raise InputError(
            f"GGUF has no name for the pattern {short(tokenizer.pattern)}; it has one for"
            f" {', '.join(PATTERNS)}"
        )
    if tokenizer.ignore_merges != (pre in WHOLE):
        raise InputError(
            f"ignore_merges is {tokenizer.ignore_merges}; llama.cpp has {pre in WHOLE} with the"
            f" pre-tokenizer {pre}"
        )
    n = max(vocab_size or 0, tokenizer.vocab_size)
    names = names_of(tokenizer)
    ordinary = {*tokenizer.added_tokens.values()}
    special = {*tokenizer.special_tokens.values()}
    types = [NORMAL if i in names else UNUSED for i in range(n)]
    for i in special:
        types[i] = CONTROL
    for i in ordinary - special:
        types[i] = USER_DEFINED
    config = {name: named_token(tokenizer.config, name) for name in NAMED}
    if not tokenizer.config and END_OF_TEXT in tokenizer.special_tokens:
        config |= dict.fromkeys(("bos_token", "eos_token"), END_OF_TEXT)
    ids = {name: i for i, name in names.items()}
    ends = {name: ids[token] for name, token in config.items() if token in ids}
    before, after = tokenizer.template
    for which, around, name in (("before", before, "bos_token"), ("after", after, "eos_token")):
        if around and around != (ends.get(name),):
            raise InputError(f"GGUF can add {name} {which} a text, and no ids {short(around)}")
    taken = {*names.values()}
    found = {
        KEY + "model": "gpt2",
        KEY + "pre": pre,
        KEY + "tokens": [names[i] if i in names else _unused(i, taken) for i in range(n)],
        KEY + "token_type": types,
        KEY + "merges": [f"{names[a]} {names[b]}" for a, b in tokenizer.merges],
        KEY + "add_bos_token": bool(before),
        KEY + "add_eos_token": bool(after),
    }
    found |= {KEY + NAMED[name]: i for name, i in ends.items()}
    if isinstance(template := tokenizer.config.get("chat_template"), str):
        found[TEMPLATE] = template
    return found


def _unused(i: int, taken: set[str]) -> str:
    """A name for an id without a token that no token has."""
    name = f"[PAD{i}]"
    while name in taken:
        name += "_"
    return name
