"""Exercises of chapter 01: tokens."""

from __future__ import annotations

from ...tokenizer.bpe import _replace_pair
from ..checking.exercise import Code, Mistake, Predict
from ..checking.inputs import Given
from . import answers

BYTES_OF_A_TEXT = Predict(
    name="bytes_of_a_text",
    chapter=1,
    minutes=3,
    difficulty=1,
    cell="01-bytes",
    unlocks="why some languages cost more",
    question=(
        "Byte-level BPE begins with the UTF-8 bytes. How many tokens is the text 'über 日本' (7 "
        "characters: ü, b, e, r, a space, and two Chinese ones) while nothing has been merged yet?"
    ),
    decimals=0,
    digest="12077fcef736985a",
    hints=(
        "A byte of UTF-8 below 128 is one character; others take two to four bytes.",
        "ü takes 2 bytes, 日 takes 3.",
    ),
    mistakes=(
        Mistake(
            "characters",
            7,
            "That is the number of characters. UTF-8 needs 2 bytes for ü and 3 for each of the two "
            "others.",
        ),
        Mistake(
            "two_each",
            10,
            "You took two bytes for each character beyond ASCII. Chinese characters take three.",
        ),
        Mistake("no_space", 11, "You left out the space, which is a byte like any other."),
        Mistake("three_each", 13, "You took three bytes for ü as well. It takes two."),
    ),
)


def replace_inputs(given: Given):
    yield "nothing to replace", ((1, 2, 3), (2, 1), 9)
    yield "overlapping", ((5, 5, 5, 5, 5), (5, 5), 9)
    yield "side by side", ((1, 2, 1, 2, 4), (1, 2), 9)
    yield "at the end", ((4, 1, 2), (1, 2), 9)
    yield "begun and not finished", ((1, 1, 2, 1), (1, 2), 9)
    yield "one id", ((1,), (1, 1), 9)
    yield "ids whose digits begin or end alike", ((11, 2, 1, 23, 1, 2), (1, 2), 9)
    yield "random ids", (tuple(given.ids(2, 20).tolist()), (0, 1), 9)


REPLACE_PAIR = Code(
    name="replace_pair",
    chapter=1,
    minutes=10,
    difficulty=1,
    cell="01-merge",
    mend="one_step",
    unlocks="learning merges, one after another",
    answer=_replace_pair,
    inputs=replace_inputs,
    example="replace_pair((1, 2, 3, 1, 2), (1, 2), 9)",
    hints=(
        "Two ids go into one: how far must i move after a replacement?",
        "After a replacement both ids are used up, so i moves by 2.",
    ),
    mistakes=(
        Mistake(
            "one_step",
            {"i += 2": "i += 1"},
            "After a replacement you move on by one, so the right half of the pair is read again. "
            "Both are used up: move by two.",
        ),
        Mistake(
            "two_steps",
            {"out.append(ids[i])\n            i += 1": "out.append(ids[i])\n            i += 2"},
            "Where nothing is replaced you skip an id: move by one there.",
        ),
        Mistake(
            "first_only",
            """
            for i in range(len(ids) - 1):
                if ids[i : i + 2] == pair:
                    return (*ids[:i], new_id, *ids[i + 2 :])
            return ids
            """,
            "You replace the first occurrence only. All of them become the new token.",
        ),
        Mistake(
            "left_half",
            {"out.append(new_id)": "out.append(ids[i])"},
            "The left half of the pair stands where the new id should stand.",
        ),
        Mistake(
            "loses_the_end",
            {"while i < len(ids)": "while i < len(ids) - 1"},
            "The last id is lost when it belongs to no pair: the loop ends one too early.",
        ),
        Mistake(
            "from_the_right",
            """
            out, i = [], len(ids)
            while i > 0:
                if i > 1 and ids[i - 2 : i] == pair:
                    out.append(new_id)
                    i -= 2
                else:
                    i -= 1
                    out.append(ids[i])
            return tuple(out[::-1])
            """,
            "You replace from the right. Where occurrences overlap (5 5 5), the left one counts.",
        ),
    ),
)


def encode_inputs(given: Given):
    ranks = {
        (b"l", b"o"): 2,
        (b"o", b"w"): 0,
        (b"e", b"r"): 1,
        (b"l", b"ow"): 3,
        (b"low", b"er"): 5,
        (b"w", b"e"): 4,
    }
    yield "lower", (b"lower", ranks)
    yield "the pair on the left was learnt later", (b"low", ranks)
    yield "the same pair twice", (b"lolo", ranks)
    yield "no pair was learnt", (b"xyz", ranks)
    yield "one byte", (b"l", ranks)
    yield "two bytes", (b"ow", ranks)
    yield "nothing", (b"", ranks)
    yield "a repeated letter", (b"aaaaa", {(b"a", b"a"): 0, (b"aa", b"a"): 1})
    pairs = [(bytes([a]), bytes([b])) for a in range(3) for b in range(3)]
    yield (
        "random bytes",
        (bytes(given.ids(3, 40).tolist()), dict(zip(pairs, given.rng.permutation(9).tolist()))),
    )


ENCODE = Code(
    name="encode",
    chapter=1,
    minutes=20,
    difficulty=2,
    cell="01-encode",
    unlocks="text to ids, with merges of your own",
    answer=answers.encode,
    inputs=encode_inputs,
    example="encode(b'lower', {(b'o', b'w'): 0, (b'l', b'ow'): 1, (b'e', b'r'): 2})",
    hints=(
        "Begin with single bytes: data[i : i + 1] is a byte as bytes, data[i] is an int.",
        "In every turn, of all neighbouring pairs take the one with the lowest rank: min(pairs, "
        "key=...), math.inf for unknown ones.",
        "Replace two tokens by one: tokens[i : i + 2] = [left + right]. Stop when no pair is in "
        "ranks.",
    ),
    mistakes=(
        Mistake(
            "leftmost_first",
            {
                "min(pairs, key=lambda pair: ranks.get(pair, math.inf))": (
                    "next((pair for pair in pairs if pair in ranks), pairs[0])"
                )
            },
            "You merge the leftmost pair that was learnt. The pair learnt earliest (lowest rank) "
            "comes first, wherever it stands.",
        ),
        Mistake(
            "highest_rank",
            {
                "min(pairs, key=lambda pair: ranks.get(pair, math.inf))": (
                    "max(pairs, key=lambda pair: ranks.get(pair, -1))"
                )
            },
            "You merge the pair learnt last (highest rank). The one learnt first has rank 0 and "
            "comes first.",
        ),
        Mistake(
            "merges_once",
            {"while len(tokens) > 1": "if len(tokens) > 1", "break": "return tokens"},
            "You merge once and stop. What a merge makes can be merged again: repeat until no pair "
            "is left.",
        ),
        Mistake(
            "ints",
            {"data[i : i + 1] for": "data[i] for", "best[0] + best[1]": "best[0] + best[1]"},
            "The tokens are numbers: data[i] of bytes is an int. data[i : i + 1] keeps it as "
            "bytes.",
        ),
        Mistake(
            "rightmost",
            {"i = pairs.index(best)": "i = len(pairs) - 1 - pairs[::-1].index(best)"},
            "Where a pair occurs twice you merge the rightmost one first. The leftmost comes "
            "first.",
        ),
        Mistake(
            "whole_pass",
            """
            tokens = [data[i : i + 1] for i in range(len(data))]
            for left, right in sorted(ranks, key=ranks.get):
                i = 0
                while i < len(tokens) - 1:
                    if (tokens[i], tokens[i + 1]) == (left, right):
                        tokens[i : i + 2] = [left + right]
                    i += 2
            return tokens
            """,
            "You skip positions while you look for a pair: move on by one token at a time.",
        ),
    ),
)


EXERCISES = (BYTES_OF_A_TEXT, REPLACE_PAIR, ENCODE)
