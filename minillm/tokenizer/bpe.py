"""Byte-level byte-pair encoding, as in GPT-2: text -> ids -> text, and how it got there.

Text is cut into pieces by a pattern, each piece is written as UTF-8 bytes, and neighbouring parts
are merged in the order in which the merges were learnt, until no learnt pair is left. No text is
unknown where every byte is a token, as in GPT-2. A byte that has none, as some in SmolLM2, is
dropped.

Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units"
(2016); Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.2.
Reference: Hugging Face tokenizers.
"""

from __future__ import annotations

import heapq
import math
import operator
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import regex

from ..errors import InputError, require, require_kind, several, short, whole_number
from ..machine.files import as_path
from ..machine.progress import Update, progress_bar
from . import files
from .byte_level import byte_to_char
from .patterns import GPT2_PATTERN, NAMES, cutter, pattern_of
from .specials import (
    END_OF_TEXT,
    cut_at_ends,
    named_token,
    split_at_specials,
    unusable_specials,
    well_formed,
)
from .tokens import Token, Tokens

# Pieces remembered by encode(); English prose has about 60,000 different ones in 38 MB.
CACHED_PIECES = 1 << 17
CACHED_LENGTH = 64  # longer pieces (rulers, base64) hardly ever come back


def merge_by_hand(data, ranks):
    """Cut bytes into tokens by byte-pair encoding: merge the pair learnt earliest, the leftmost of
    these, until none is left.

    A byte that no pair holds stays by itself; whether it is a token, the vocabulary says.
    data: bytes of one piece of text; ranks: {(left, right): rank}, both parts bytes, rank 0 learnt
    first -> list of bytes. Source: Sennrich, Haddow, Birch (2016), algorithm 1.
    """
    tokens = [data[i : i + 1] for i in range(len(data))]
    while len(tokens) > 1:
        pairs = list(pairwise(tokens))
        best = min(pairs, key=lambda pair: ranks.get(pair, math.inf))
        if best not in ranks:
            break
        i = pairs.index(best)
        tokens[i : i + 2] = [best[0] + best[1]]
    return tokens


@dataclass(frozen=True)
class Merge:
    """One merge at work: parts `left` and `right` at index `at` become one, by the merge learnt
    `rank`-th."""

    rank: int
    at: int
    left: bytes
    right: bytes


@dataclass(frozen=True)
class Piece:
    """One piece of a text and its tokens: `data` the UTF-8 bytes, `merges` in the order in which
    they were made. The tokens make up `data`, without those bytes that have no token."""

    text: str
    data: bytes
    merges: tuple[Merge, ...]
    ids: tuple[int, ...]
    tokens: tuple[bytes, ...]


class Tokenizer:
    """Byte-level BPE: `encode` text to ids, `decode` ids to text, `explain` the way, `train` the
    merges.

    tokens: the bytes of every id, id by id, None for an id without a token. merges: pairs of ids
    (left, right), the earliest learnt first; each makes the token whose bytes are left + right.
    special_tokens: text -> id; never split, and found in a text only where allowed. added_tokens:
    text -> id; found in every text.
    normalized: those of both kinds that are looked for last, between the others. config: what
    tokenizer_config.json says, kept for whoever asks (ends, chat template).
    pattern: a name in PATTERNS, or regular expressions that cut one after the other. normalizer:
    "NFC" where text is first written in that form of Unicode. ignore_merges: whether a piece that
    is a token is taken whole.
    gaps: whether bytes without a token keep the parts on both sides from merging, and of specials
    that overlap the longest counts, as in llama.cpp; otherwise such bytes are dropped before
    merging, and the special that begins first counts, as in the tokenizers library.
    template: the ids before and after a text that encode adds where it is asked to.
    """

    def __init__(
        self,
        tokens: list[bytes | None],
        merges: list[tuple[int, int]],
        special_tokens: dict[str, int],
        added_tokens: Mapping[str, int] = MappingProxyType({}),
        normalized: Collection[str] = (),
        config: Mapping | None = None,
        pattern: str | Iterable[str] = "gpt-2",
        normalizer: str | None = None,
        ignore_merges: bool = False,
        gaps: bool = False,
        template: tuple[tuple[int, ...], tuple[int, ...]] = ((), ()),
    ):
        self.tokens, self.merges, self.special_tokens = tokens, merges, special_tokens
        self.added_tokens, self.normalized = dict(added_tokens), frozenset(normalized)
        self.config = dict(config or {})
        self.pattern, self.normalizer = pattern_of(pattern), normalizer
        self.ignore_merges, self.gaps, self.template = ignore_merges, gaps, template
        if normalizer not in (None, "NFC"):
            raise InputError(f"normalizer is {short(normalizer)}; minillm knows None and 'NFC'")
        self._holes = [i for i, token in enumerate(tokens) if token is None]
        whole = {*special_tokens.values(), *self.added_tokens.values()}
        ids = {tokens[i]: i for i in whole}  # an added token may be one that merges make, too
        ids |= {token: i for i, token in enumerate(tokens) if i not in whole}
        self._byte_ids = [ids.get(bytes([b]), -1) for b in range(256)]
        self._ranks = dict(zip(merges, range(len(merges))))  # (left, right) -> rank
        self._merged = [ids[tokens[a] + tokens[b]] for a, b in merges]  # by rank
        self._split = cutter(self.pattern)
        kept = special_tokens.values()
        self._whole = (
            {token: (i,) for token, i in ids.items() if i not in kept} if ignore_merges else {}
        )
        self._known: dict[str, tuple[int, ...]] = {}

    @property
    def vocab_size(self) -> int:
        """The number of ids, specials and ids without a token included."""
        return len(self.tokens)

    @property
    def eot_id(self) -> int | None:
        """The id that stands between documents: of <|endoftext|>, else of the eos_token that
        `config` names, else None."""
        named = self.special_tokens.get(named_token(self.config, "eos_token"))
        return self.special_tokens.get(END_OF_TEXT, named)

    def __repr__(self) -> str:
        specials = [*self.special_tokens]
        listed = repr(specials[:8])[:-1] + (", ...]" if len(specials) > 8 else "]")
        return (
            f"Tokenizer(vocab_size={self.vocab_size}, special_tokens={listed},"
            f" pattern={short(NAMES.get(self.pattern, self.pattern))})"
        )

    # ---- text -> ids

    def encode(
        self,
        text: str,
        allowed_special: Iterable[str] | str = (),
        add_special_tokens: bool = False,
    ) -> list[int]:
        """Return the ids of `text`; specials in `allowed_special` (one, several, "all") become
        their own id.

        A special that is not allowed is ordinary text. Lone surrogates become U+FFFD. With
        add_special_tokens the ids of `template` stand around it.
        """
        before, after = self.template if add_special_tokens else ((), ())
        ids = [*before]
        for part, special_id in self._parts(text, allowed_special):
            if special_id is not None:
                ids.append(special_id)
            else:
                for piece in self._split(part):
                    ids.extend(self._known.get(piece) or self._encode_piece(piece))
        return [*ids, *after] if after else ids

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of a text that a model is to go on with: specials in it count as such,
        and before it stand the ids that `template` has there, unless it begins with them."""
        before, ids = [*self.template[0]], self.encode(text, "all")
        return ids if ids[: len(before)] == before else before + ids

    def encode_batch(
        self, texts: Iterable[str], allowed_special: Iterable[str] | str = ()
    ) -> list[list[int]]:
        """Return the ids of each text."""
        return [self.encode(text, allowed_special) for text in _several("texts", texts)]

    def tokenize(self, text: str, allowed_special: Iterable[str] | str = ()) -> Tokens:
        """Return the tokens of `text`, each with its id and its bytes; a notebook shows them in
        colours."""
        return Tokens(Token(i, self.tokens[i]) for i in self.encode(text, allowed_special))

    def encode_documents(self, text: str) -> list[int]:
        """Return the ids of a text in which every <|endoftext|> ends a document: its own id, if the
        tokenizer has it, stands for each (see cut_at_ends). First come the ids that `template` has
        before a text, as in a prompt."""
        first, *others = map(self.encode, cut_at_ends(_one_text(text)))
        end = [] if self.eot_id is None else [self.eot_id]
        return [*self.template[0], *first, *(i for ids in others for i in (*end, *ids))]

    def explain(self, text: str, allowed_special: Iterable[str] | str = ()) -> list[Piece]:
        """Return the pieces of `text`, each with its bytes, every merge in order and the ids they
        end in.

        Example: explain("low")[0].merges -> (Merge(rank=.., at=1, left=b"o", right=b"w"), Merge(..,
        left=b"l", ...)).
        """
        pieces = []
        for part, special_id in self._parts(text, allowed_special):
            if special_id is not None:
                data = part.encode()
                pieces.append(Piece(part, data, (), (special_id,), (data,)))
                continue
            for piece in self._split(part):
                merges: list[Merge] = []
                data = piece.encode()
                ids = self._whole.get(data) or self._merge(data, merges.append)
                pieces.append(
                    Piece(piece, data, tuple(merges), ids, tuple(self.tokens[i] for i in ids))
                )
        return pieces

    def _parts(
        self, text: str, allowed_special: Iterable[str] | str
    ) -> Iterator[tuple[str, int | None]]:
        """Cut `text` at the allowed specials: (ordinary text, None) or (special, its id)."""
        text = well_formed(_one_text(text))
        if isinstance(allowed_special, str):
            allowed_special = self.special_tokens if allowed_special == "all" else [allowed_special]
        allowed = list(_several("allowed_special", allowed_special))
        if unknown := [
            s for s in allowed if not isinstance(s, str) or s not in self.special_tokens
        ]:
            raise InputError(
                f"allowed_special {short(unknown[0])} is not a special token; known:"
                f" {[*self.special_tokens]}"
            )
        found = self.added_tokens | {s: self.special_tokens[s] for s in allowed}
        last = {self._normal(s): found.pop(s) for s in self.normalized & found.keys()}
        for part, special_id in split_at_specials(text, found, in_turn=self.gaps):
            if special_id is None:
                yield from split_at_specials(self._normal(part), last)
            else:
                yield part, special_id

    def _normal(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self.normalizer else text

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        data = piece.encode()
        ids = self._whole.get(data) or self._merge(data)
        if len(piece) <= CACHED_LENGTH:
            if len(self._known) >= CACHED_PIECES:
                self._known.clear()
            self._known[piece] = ids
        return ids

    def _merge(self, data: bytes, record: Callable[[Merge], None] | None = None) -> tuple[int, ...]:
        """Return the ids of what `merge_by_hand` makes of one piece's bytes; `record` is told of
        each merge.

        The parts are a linked list and the candidate pairs a heap, so that a piece of n bytes takes
        O(n log n), and not O(n^2) as by hand.
        """
        ids = [self._byte_ids[b] for b in data]  # -1: no token, and in no pair
        if not self.gaps:
            ids = [i for i in ids if i >= 0]
        after = [*range(1, len(ids)), -1]
        before = [*range(-1, len(ids) - 1)]
        alive = bytearray(b"\1") * len(ids)  # counts the parts before one far faster than a loop
        candidates: list[tuple[int, ...]] = []  # (rank, position of the left part, left, right)

        def propose(left: int, right: int) -> None:
            if left >= 0 and right >= 0 and (pair := (ids[left], ids[right])) in self._ranks:
                heapq.heappush(candidates, (self._ranks[pair], left, *pair))

        for i in range(len(ids) - 1):
            propose(i, i + 1)
        while candidates:
            rank, i, left, right = heapq.heappop(candidates)
            j = after[i]
            if ids[i] != left or j < 0 or ids[j] != right:
                continue  # one of the two has meanwhile been merged with another neighbour
            if record:
                record(Merge(rank, alive.count(1, 0, i), self.tokens[left], self.tokens[right]))
            ids[i], ids[j], alive[j] = self._merged[rank], -1, 0
            after[i] = after[j]
            if after[i] >= 0:
                before[after[i]] = i
            propose(before[i], i)
            propose(i, after[i])
        return tuple(i for i in ids if i >= 0)

    # ---- ids -> text

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that `ids` stand for."""
        try:
            return b"".join([self.tokens[i] for i in map(self._checked, ids)])
        except TypeError:
            raise InputError(
                f"decode needs a flat sequence of integer ids, not {ids!r:.60} (encode takes text)"
            ) from None

    def readable(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, in which those without a token are numbers like <4100>."""
        try:
            ids = [operator.index(i) for i in ids]
        except TypeError:
            raise InputError(f"readable needs a flat sequence of ids, not {short(ids)}") from None
        known = [self.tokens[i] if 0 <= i < self.vocab_size else None for i in ids]
        data = b"".join(token or f"<{i}>".encode() for i, token in zip(ids, known))
        return data.decode("utf-8", errors="replace")

    def ids_without_token(self, n: int) -> list[int]:
        """Return which of the ids 0 to n - 1, a model's, are no tokens: padding and holes."""
        return [i for i in self._holes if i < n] + [*range(self.vocab_size, n)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def _checked(self, i: int) -> int:
        if not 0 <= operator.index(i) < len(self.tokens):
            raise InputError(
                f"id {i} is not in the vocabulary of {len(self.tokens)} tokens (0 to"
                f" {len(self.tokens) - 1})"
            )
        if self.tokens[i] is None:
            raise InputError(f"id {i} has no token")
        return i

    # ---- learning the merges

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        show_progress: bool = True,
    ) -> Tokenizer:
        """Learn merges from `texts` until there are `vocab_size` tokens: 256 bytes, the merges, the
        specials.

        Each turn merges the pair of neighbouring tokens that occurs most often (of equal ones, the
        lowest ids), and recounts only in the words that hold it. Specials inside a text cut it and
        are not counted, nor is a line end directly after <|endoftext|> (see cut_at_ends). `texts`
        is read once, and only the count of each different piece is kept. Fewer tokens result where
        no pair occurs twice. A bar shows the progress on a terminal.
        Raises InputError when vocab_size cannot hold the bytes.
        """
        texts, vocab_size = _several("texts", texts), whole_number("vocab_size", vocab_size, 0)
        specials = list(dict.fromkeys(map(_one_text, _several("special_tokens", special_tokens))))
        if wrong := unusable_specials(specials):
            raise InputError(
                f"{wrong[0]!r} cannot be a special token: it is empty or not Unicode text"
            )
        n_merges = vocab_size - 256 - len(specials)
        if n_merges < 0:
            raise InputError(
                f"vocab_size {vocab_size} is too small: 256 bytes and {len(specials)} specials come"
                " first"
            )
        tokens = [bytes([b]) for b in byte_to_char()]
        with progress_bar("characters", show_progress) as update:
            words = [
                list(w) for w in _count_pieces(texts, specials, tokens, update).items()
            ]  # [ids, count] each
        with progress_bar("merges", show_progress) as update:
            merges = _learn_merges(tokens, words, n_merges, update)
        ids_of_specials = {s: len(tokens) + i for i, s in enumerate(specials)}
        return cls([*tokens, *(s.encode() for s in specials)], merges, ids_of_specials)

    # ---- files

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> Tokenizer:
        """Read the tokenizer of a folder or a name, tokenizer.json or GPT-2's own two files, or of
        a GGUF file.

        See minillm.tokenizer.files and gguf. Raises InputError naming the file and what is wrong
        with it.
        """
        from ..checkpoints.find import find_folder, find_model

        if (path := find_model(name_or_path)).suffix.lower() == ".gguf" and path.is_file():
            from ..checkpoints.gguf import read
            from .gguf import read as read_gguf

            return cls(*read_gguf(read(path).metadata, path))
        return cls(*files.read(find_folder(path)))

    def save(self, folder: str | Path) -> None:
        """Write vocab.json and merges.txt, as GPT-2 has them, tokenizer.json and
        tokenizer_config.json into `folder`."""
        files.write(self, as_path(folder))


def _one_text(text) -> str:
    hint = "encode_batch takes several texts, decode ids, and bytes have .decode()"
    return require_kind("text", text, str, f"one text, of type str: {hint}")


def _several(name: str, texts) -> Iterator[str]:
    return several(name, texts, "several texts (encode takes one)")


def require_tokenizer(value) -> None:
    """Raise InputError for what is no Tokenizer."""
    require(
        "tokenizer", value, "decode_bytes", "minillm.load and Tokenizer.from_pretrained give one"
    )


def _count_pieces(texts, specials, tokens, update: Update) -> dict[tuple[int, ...], int]:
    """Count the pieces of all texts, each as the ids of its bytes."""
    split = regex.compile(GPT2_PATTERN).findall
    counts: Counter[str] = Counter()
    specials = dict.fromkeys(specials, 0)
    characters = 0
    for text in texts:
        for document in cut_at_ends(well_formed(_one_text(text))):
            for part, special in split_at_specials(document, specials):
                if special is None:
                    counts.update(split(part))
        characters += len(text)
        update("counting words", characters, None)
    byte_ids = {token[0]: i for i, token in enumerate(tokens)}
    return {tuple(byte_ids[b] for b in piece.encode()): count for piece, count in counts.items()}


def _learn_merges(
    tokens: list[bytes], words: list[list], n_merges: int, update: Update
) -> list[tuple[int, int]]:
    """Append up to `n_merges` tokens to `tokens`, merging them in `words` ([ids, count] each);
    return the pairs."""
    merges: list[tuple[int, int]] = []
    ids_of = {token: i for i, token in enumerate(tokens)}

    pair_counts: Counter[tuple[int, int]] = Counter()
    holders: defaultdict[tuple[int, int], set[int]] = defaultdict(set)  # which words hold the pair
    for w, (ids, count) in enumerate(words):
        for pair in pairwise(ids):
            pair_counts[pair] += count
            holders[pair].add(w)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)
    while len(tokens) < 256 + n_merges and heap:
        negative, pair = heapq.heappop(heap)
        if -negative != pair_counts[pair]:
            if pair_counts[pair] > 0:
                heapq.heappush(heap, (-pair_counts[pair], pair))  # an old count: queue it anew
            continue
        if -negative < 2:
            break
        token = tokens[pair[0]] + tokens[pair[1]]
        new_id = ids_of.setdefault(token, len(tokens))
        if new_id == len(tokens):  # not so where two pairs make the same bytes: a+bc, ab+c
            tokens.append(token)
        merges.append(pair)
        changed: Counter[tuple[int, int]] = Counter()
        for w in holders.pop(pair):
            ids, count = words[w]
            words[w][0] = merged = _replace_pair(ids, pair, new_id)
            for old in pairwise(ids):
                changed[old] -= count
            for new in pairwise(merged):
                changed[new] += count
                if new_id in new:
                    holders[new].add(w)
        for other, change in changed.items():
            if change:
                pair_counts[other] += change
                if change > 0:
                    heapq.heappush(heap, (-pair_counts[other], other))
        update("learning merges", len(tokens) - 256, n_merges)
    return merges


def _replace_pair(ids, pair: tuple[int, int], new_id: int) -> tuple[int, ...]:
    """Replace each occurrence of `pair`, from the left: (1, 2, 3, 1, 2), (1, 2), 9 -> (9, 3, 9)."""
    out, i = [], 0
    while i < len(ids):
        if ids[i : i + 2] == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return tuple(out)
