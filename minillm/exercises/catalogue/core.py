"""Exercises of chapters 00 to 07: from text to the next word. An entry is all that an exercise
needs."""

from __future__ import annotations

from functools import partial

import numpy as np

from ... import ops
from ...decoding import filters
from ...families.gpt2 import forward as gpt2
from ...layers import attention
from ...layers.feed_forward import feed_forward
from ...tokenizer.bpe import _replace_pair
from ..check.exercise import Code, Mistake, Predict
from ..check.inputs import B, C, D, Given, H, T, V
from ..check.inputs import model as bundled
from . import textbook

# ---- 00 Five minutes


def argmax_inputs(given: Given):
    yield "V numbers", (given(V),)
    yield "all negative", (-1 - np.abs(given(V)),)
    yield "all far below zero", (-1e12 - 1e11 * np.abs(given(V)),)
    yield "the largest comes last", (np.arange(7.0),)
    yield "several largest", (np.array([0.0, 3.0, 3.0, 1.0, 3.0]),)
    yield "one token", (given(1),)
    yield "logits of tales", (given.step("logits")[0, -1],)


def likeliest_inputs(given: Given):
    yield "V probabilities", (given.probs(V), 4)
    yield "equal ones", (np.array([0.1, 0.2, 0.2, 0.3, 0.2], np.float32), 3)
    yield "n = 1", (given.probs(V), 1)
    yield "as many as there are", (given.probs(7), 7)
    yield "many equal ones", (given.ids(5, 300) / np.float32(600), 100)


# ---- 01 Tokens


def replace_inputs(given: Given):
    yield "nothing to replace", ((1, 2, 3), (2, 1), 9)
    yield "overlapping", ((5, 5, 5, 5, 5), (5, 5), 9)
    yield "side by side", ((1, 2, 1, 2, 4), (1, 2), 9)
    yield "at the end", ((4, 1, 2), (1, 2), 9)
    yield "begun and not finished", ((1, 1, 2, 1), (1, 2), 9)
    yield "one id", ((1,), (1, 1), 9)
    yield "ids whose digits begin or end alike", ((11, 2, 1, 23, 1, 2), (1, 2), 9)
    yield "random ids", (tuple(given.ids(2, 20).tolist()), (0, 1), 9)


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


# ---- 02 A guess is a row of numbers


def rows_inputs(given: Given):
    yield "[B,H,T]", (given(B, H, T),)
    yield "one row", (given(V),)
    yield "a last axis of 1", (given(B, H, 1),)
    yield "scores of 1e4", (given(B, T, V, scale=1e4),)
    yield "float64", (given(B, V, dtype=np.float64),)
    masked = np.where(np.tri(T, dtype=bool), given(B, H, T, T), np.float32(-np.inf))
    yield "masked scores", (masked,)


def softmax_inputs(given: Given):
    yield from rows_inputs(given)
    for layer in (0, 5):
        scores = np.where(
            np.tri(5, dtype=bool), given.step(f"h.{layer}.attn.scores"), np.float32(-np.inf)
        )
        yield f"tales, h.{layer}.attn.weights", (scores,), given.step(f"h.{layer}.attn.weights")


def cross_entropy_inputs(given: Given):
    yield "[B,T,V]", (given(B, T, V), given.ids(V, B, T))
    yield "one position", (given(V), np.int64(3))
    yield "logits of 1e4", (given(B, T, V, scale=1e4), given.ids(V, B, T))
    yield "all equal: log V", (np.zeros((B, V), np.float32), given.ids(V, B))
    yield "float64", (given(B, V, dtype=np.float64), given.ids(V, B))
    yield "logits of tales", (given.step("logits"), given.ids(4096, 1, 5))


# ---- 03 Attention


def mask_inputs(given: Given):
    yield "[B,T], no past", (np.arange(T) + np.zeros((B, 1), np.int64), T)
    yield "a past of 4", (4 + np.arange(T)[None], 4 + T)
    yield "one new token", (np.array([[6]]), 7)
    yield "rows of different lengths", (np.array([[2, 3, 4], [0, 1, 2]]), 5)
    yield "the first token", (np.array([[0]]), 1)


def split_inputs(given: Given):
    yield "[B,T,H*D]", (given(B, T, C), H)
    yield "T = 1", (given(B, 1, C), H)
    yield "one head", (given(B, T, D), 1)
    yield "float64", (given(B, T, C, dtype=np.float64), H)
    yield (
        "tales, h.0.attn.q",
        (given.step("h.0.attn.c_attn")[..., :256], 8),
        given.step("h.0.attn.q"),
    )


def merge_inputs(given: Given):
    yield "[B,H,T,D]", (given(B, H, T, D),)
    yield "T = 1", (given(B, H, 1, D),)
    yield "one head", (given(B, 1, T, D),)
    yield "float64", (given(B, H, T, D, dtype=np.float64),)


def attention_inputs(given: Given):
    start = np.zeros((B, 1), np.int64)
    yield (
        "[B,H,T,D], no past",
        (given(B, H, T, D), given(B, H, T, D), given(B, H, T, D), start + np.arange(T), D**-0.5),
    )
    yield "T = 1", (given(B, H, 1, D), given(B, H, 1, D), given(B, H, 1, D), start, D**-0.5)
    yield (
        "one new token, S = 6",
        (given(B, H, 1, D), given(B, H, 6, D), given(B, H, 6, D), start + 5, D**-0.5),
    )
    rows = np.array([[3, 4], [1, 2]])
    yield (
        "rows of different lengths",
        (given(B, H, 2, D), given(B, H, T, D), given(B, H, T, D), rows, D**-0.5),
    )
    q, k = np.rint(given(B, H, T, D, scale=100)), np.rint(given(B, H, T, D, scale=100))
    yield (
        "scores of 1e4, exact in whatever order",
        (q, k, given(B, H, T, D), start + np.arange(T), 0.5),
    )
    yield (
        "another scale than 1/sqrt(D)",
        (given(B, H, T, D), given(B, H, T, D), given(B, H, T, D), start + np.arange(T), 1.1),
    )
    q, k, v = (given.step(f"h.5.attn.{name}") for name in "qkv")
    yield (
        "tales, h.5.attn.context",
        (q, k, v, np.arange(5)[None], 32**-0.5),
        given.step("h.5.attn.context"),
    )


# ---- 04 The block


def norm_inputs(given: Given):
    yield "[B,T,C]", (given(B, T, C) + 3, given(C), given(C))
    yield "T = 1", (given(B, 1, C), given(C), given(C))
    yield "rows of hardly any variance", (given(B, T, C, scale=2e-3), given(C), given(C))
    yield "another eps", (given(B, T, C), given(C), given(C), 0.5)
    yield "numbers of 1e4", (given(B, T, C, scale=1e4), given(C), given(C))
    near = given.ids(9, B, T, C // 2)  # rows whose mean is exact: the same numbers on both sides
    far = np.concatenate([1e4 + near, 1e4 - near, np.full((B, T, 1), 1e4)], axis=-1)
    yield "a mean of 1e4, distances of 1", (far.astype(np.float32), given(C), given(C))
    yield (
        "float64",
        (given(B, C, dtype=np.float64), given(C, dtype=np.float64), given(C, dtype=np.float64)),
    )
    norm = (given.weights("h.0.ln_1")[name] for name in ("weight", "bias"))
    yield "tales, h.0.ln_1", (given.step("embed"), *norm), given.step("h.0.ln_1")


def gelu_inputs(given: Given):
    yield "[B,T,F]", (given(B, T, 11, scale=2),)
    yield "large numbers", (given(B, T, scale=1e4),)
    yield "float64", (given(V, dtype=np.float64),)
    yield "tales, h.0.mlp.act", (given.step("h.0.mlp.c_fc"),), given.step("h.0.mlp.act")


def block_inputs(given: Given):
    a, b, c, d = given(T, T), given(C), given(C, C, scale=0.3), given(C)

    def norm():
        return {"weight": given(C), "bias": given(C)}

    def mixed(x):  # positions meet, and the zero vector does not stay zero
        return a @ x + b

    def bent(x):
        return np.tanh(x @ c + d)

    yield "[B,T,C]", (given(B, T, C), norm(), mixed, norm(), bent)
    yield "numbers of 1e2", (given(B, T, C, scale=100), norm(), mixed, norm(), bent)
    layer, config = bundled().weights["h"][0], bundled().config
    attend = partial(
        attention.causal_self_attention,
        **layer["attn"],
        n_head=config.n_head,
        scale=config.attention_scale(0),
        positions=np.arange(5)[None],
    )
    args = (
        given.step("embed"),
        layer["ln_1"],
        attend,
        layer["ln_2"],
        partial(feed_forward, **layer["mlp"]),
    )
    yield "tales, h.0.mlp.residual", args, given.step("h.0.mlp.residual")


# ---- 05 The whole of GPT-2


def embed_inputs(given: Given):
    yield "[B,T], no past", (given.ids(V, B, T), 0, given(V, C), given(20, C))
    yield "a past of 4", (given.ids(V, B, T), 4, given(V, C), given(20, C))
    yield "one new token", (given.ids(V, B, 1), 9, given(V, C), given(20, C))
    tables = [bundled().parameters[f"{name}.weight"] for name in ("wte", "wpe")]
    yield "tales, embed", (given.reference_ids, 0, *tables), given.step("embed")


def forward_inputs(given: Given):
    a, b = given(C, C, scale=0.3), given(C, C, scale=0.3)

    def block(x):
        return x + np.tanh(x.cumsum(axis=1) @ a)

    def other(x):
        return x * 2 + np.tanh(x @ b)

    ln_f = {"weight": given(C), "bias": given(C)}
    yield "[B,T]", (given.ids(V, B, T), given(V, C), given(20, C), [block, other], ln_f)
    yield "T = 1", (given.ids(V, B, 1), given(V, C), given(20, C), [block, other], ln_f)
    yield "no blocks", (given.ids(V, B, T), given(V, C), given(20, C), [], ln_f)
    tree, config = bundled().weights, bundled().config
    blocks = [
        partial(gpt2.block, **p, config=config, layer=i, positions=np.arange(5)[None])
        for i, p in enumerate(tree["h"])
    ]
    args = (given.reference_ids, tree["wte"]["weight"], tree["wpe"]["weight"], blocks, tree["ln_f"])
    yield "tales, logits", args, given.step("logits")


# ---- 06 One token at a time


class Remembering:
    """A model of V tokens with a cache: the logits depend on every id so far and on where it
    stands."""

    def __init__(self, table):
        self.table, self.seen, self.sum = table, 0, 0.0

    def __call__(self, new_ids, past):
        if past != self.seen:
            raise ValueError(f"{self.seen} positions are in the cache, and you said past = {past}")
        rows = []
        for i in new_ids:
            self.seen += 1
            self.sum = self.sum + np.cos(self.table[int(i)] * self.seen)
            rows.append(self.sum)
        return np.array(rows)


def greedy_inputs(given: Given):
    table = given(V, V, scale=3)
    yield "3 ids, 6 new ones", (Remembering(table), given.ids(V, 3).tolist(), 6)
    yield "one id, one new one", (Remembering(table), given.ids(V, 1).tolist(), 1)
    yield "5 ids, 2 new ones", (Remembering(table), given.ids(V, 5).tolist(), 2)
    yield "2 ids, 9 new ones", (Remembering(table), given.ids(V, 2).tolist(), 9)


def append_inputs(given: Given):
    def case(lengths, T, capacity=11):
        cache = np.zeros((2, len(lengths), H, capacity, D), np.float32)
        for row, n in enumerate(lengths):
            cache[:, row, :, :n] = given(2, H, n, D)
        return (
            *cache,
            np.array(lengths),
            given(len(lengths), H, T, D),
            given(len(lengths), H, T, D),
        )

    yield "an empty cache", case([0, 0], T)
    yield "one token behind 4", case([4, 4], 1)
    yield "rows of different lengths", case([6, 2], 3)
    yield "the other way round", case([1, 5], 2)
    yield "until it is full", case([8, 8], 3)


# ---- 07 Choosing the next word


def top_k_inputs(given: Given):
    yield "k = 4", (given(V), 4)
    yield "k = 1", (given(V), 1)
    yield "several tie with the k-th", (np.array([1, 3, 2, 2, 0, 2], np.float32), 2)
    yield "k is the whole vocabulary", (given(V), V)
    yield "k beyond the vocabulary", (given(V), V + 5)
    yield "logits of tales", (given.step("logits")[0, -1], 40)


def top_p_inputs(given: Given):
    yield "p = 0.7", (given(V), 0.7)
    yield "p = 0.9", (given(V, scale=2), 0.9)
    yield "one token has it all", (given(V, scale=30), 0.5)
    yield "p near 0: one stays", (given(V), 1e-3)
    yield "p = 0: one stays", (given(V), 0.0)
    yield (
        "p hardly above 0, and probabilities that sum to less than 1",
        (np.arange(10, dtype=np.float32) * 1e-3, 1e-9),
    )
    yield "p near 1", (given(V), 0.999)
    yield "logits of 1e4", (given(V, scale=1e4), 0.9)
    yield "logits of tales", (given.step("logits")[0, -1], 0.9)


# fmt: off
CORE = (
    # ---- 00 Five minutes
    Code(
        name="argmax", chapter=0, minutes=5, difficulty=1, cell="00-next-token",
        unlocks="greedy decoding: the first exercise from red to green",
        answer=textbook.argmax, inputs=argmax_inputs, example="argmax(np.array([0.5, -1.0, 2.5, 2.0]))",
        loop_without=("argmax", "nanargmax", "max", "amax", "nanmax", "argsort", "argpartition", "sort", "sorted",
                      "partition", "where", "nonzero", "flatnonzero", "argwhere", "index", "reduce"),
        hints=(
            "Walk through the scores once and remember where the largest so far stood.",
            "Start by taking the first one for the largest, not 0: all scores may be negative.",
            "if scores[i] > scores[best]: best = i",
        ),
        mistakes=(
            Mistake("returns_the_score", {"return best": "return scores[best]"},
                    "You return the largest score itself. The index is needed: that is the token's id."),
            Mistake("last_of_equals", {"> scores[best]": ">= scores[best]"},
                    "Of equal scores you take the last one. The first is needed: only a larger score may replace it (> and "
                    "not >=)."),
            Mistake("starts_from_zero", """
                best, largest = 0, 0.0
                for i in range(len(scores)):
                    if scores[i] > largest:
                        best, largest = i, scores[i]
                return best
                """, "You start from 0 as the largest so far, so negative scores never win. Start from the first score."),
            Mistake("smallest", {"> scores": "< scores"}, "You look for the smallest score: reverse the comparison."),
            Mistake("largest_size", {"scores[i] > scores[best]": "abs(scores[i]) > abs(scores[best])"},
                    "You look for the largest size, so that -3 beats 2: compare the scores as they are."),
            Mistake("stops_early", {"range(1, len(scores))": "range(1, len(scores) - 1)"},
                    "You never look at the last score: range(a, b) ends before b already."),
        ),
    ),
    Code(
        name="likeliest", chapter=0, minutes=5, difficulty=1, cell="00-ten-likeliest", mend="ascending",
        unlocks="the picture of the ten likeliest next tokens",
        answer=textbook.likeliest, inputs=likeliest_inputs, example="likeliest(np.array([0.1, 0.5, 0.15, 0.25]), 2)",
        hints=(
            "np.argsort sorts from the smallest to the largest.",
            "Sort the negated probabilities, and ties keep their order if the sort is stable.",
        ),
        mistakes=(
            Mistake("ascending", {"-probs": "probs"},
                    "These are the least likely tokens: argsort sorts upwards, so negate the probabilities."),
            Mistake("last_n", {"np.argsort(-probs, kind=\"stable\")[:n]": "np.argsort(probs, kind=\"stable\")[-n:]"},
                    "The wrong order: the most probable token must come first, and of equal ones the lower id. Sort -probs "
                    "(stable: equal ones keep their order) and take the first n."),
            Mistake("reversed", {"np.argsort(-probs, kind=\"stable\")[:n]": "np.argsort(probs, kind=\"stable\")[::-1][:n]"},
                    "Turning the sorted order round turns equal ones round too: the lower id must come first. Sort -probs "
                    "instead."),
            Mistake("values", {"np.argsort(-probs, kind=\"stable\")[:n]": "-np.sort(-probs)[:n]"},
                    "You return the probabilities. The ids are needed: argsort, not sort."),
        ),
    ),
    # ---- 01 Tokens
    Predict(
        name="bytes_of_a_text", chapter=1, minutes=3, difficulty=1, cell="01-bytes", unlocks="why some languages cost more",
        question="Byte-level BPE begins with the UTF-8 bytes. How many tokens is the text 'über 日本' "
        "(7 characters: ü, b, e, r, a space, and two Chinese ones) while nothing has been merged yet?",
        decimals=0, digest="12077fcef736985a",
        hints=("A byte of UTF-8 below 128 is one character; others take two to four bytes.", "ü takes 2 bytes, 日 takes 3."),
        mistakes=(
            Mistake("characters", 7,
                    "That is the number of characters. UTF-8 needs 2 bytes for ü and 3 for each of the two others."),
            Mistake("two_each", 10, "You took two bytes for each character beyond ASCII. Chinese characters take three."),
            Mistake("no_space", 11, "You left out the space, which is a byte like any other."),
            Mistake("three_each", 13, "You took three bytes for ü as well. It takes two."),
        ),
    ),
    Code(
        name="replace_pair", chapter=1, minutes=10, difficulty=1, cell="01-merge", mend="one_step",
        unlocks="learning merges, one after another",
        answer=_replace_pair, inputs=replace_inputs, example="replace_pair((1, 2, 3, 1, 2), (1, 2), 9)",
        hints=(
            "Two ids go into one: how far must i move after a replacement?",
            "After a replacement both ids are used up, so i moves by 2.",
        ),
        mistakes=(
            Mistake("one_step", {"i += 2": "i += 1"},
                    "After a replacement you move on by one, so the right half of the pair is read again. Both are used up: "
                    "move by two."),
            Mistake("two_steps", {"out.append(ids[i])\n            i += 1": "out.append(ids[i])\n            i += 2"},
                    "Where nothing is replaced you skip an id: move by one there."),
            Mistake("first_only", """
                for i in range(len(ids) - 1):
                    if ids[i : i + 2] == pair:
                        return (*ids[:i], new_id, *ids[i + 2 :])
                return ids
                """, "You replace the first occurrence only. All of them become the new token."),
            Mistake("left_half", {"out.append(new_id)": "out.append(ids[i])"},
                    "The left half of the pair stands where the new id should stand."),
            Mistake("loses_the_end", {"while i < len(ids)": "while i < len(ids) - 1"},
                    "The last id is lost when it belongs to no pair: the loop ends one too early."),
            Mistake("from_the_right", """
                out, i = [], len(ids)
                while i > 0:
                    if i > 1 and ids[i - 2 : i] == pair:
                        out.append(new_id)
                        i -= 2
                    else:
                        i -= 1
                        out.append(ids[i])
                return tuple(out[::-1])
                """, "You replace from the right. Where occurrences overlap (5 5 5), the left one counts."),
        ),
    ),
    Code(
        name="encode", chapter=1, minutes=20, difficulty=2, cell="01-encode", unlocks="text to ids, with merges of your own",
        answer=textbook.encode, inputs=encode_inputs,
        example="encode(b'lower', {(b'o', b'w'): 0, (b'l', b'ow'): 1, (b'e', b'r'): 2})",
        hints=(
            "Begin with single bytes: data[i : i + 1] is a byte as bytes, data[i] is an int.",
            "In every turn, of all neighbouring pairs take the one with the lowest rank: min(pairs, key=...), math.inf "
            "for unknown ones.",
            "Replace two tokens by one: tokens[i : i + 2] = [left + right]. Stop when no pair is in ranks.",
        ),
        mistakes=(
            Mistake("leftmost_first",
                    {"min(pairs, key=lambda pair: ranks.get(pair, math.inf))":
                     "next((pair for pair in pairs if pair in ranks), pairs[0])"},
                    "You merge the leftmost pair that was learnt. The pair learnt earliest (lowest rank) comes first, "
                    "wherever it stands."),
            Mistake("highest_rank", {"min(pairs, key=lambda pair: ranks.get(pair, math.inf))":
                    "max(pairs, key=lambda pair: ranks.get(pair, -1))"},
                    "You merge the pair learnt last (highest rank). The one learnt first has rank 0 and comes first."),
            Mistake("merges_once", {"while len(tokens) > 1": "if len(tokens) > 1", "break": "return tokens"},
                    "You merge once and stop. What a merge makes can be merged again: repeat until no pair is left."),
            Mistake("ints", {"data[i : i + 1] for": "data[i] for", "best[0] + best[1]": "best[0] + best[1]"},
                    "The tokens are numbers: data[i] of bytes is an int. data[i : i + 1] keeps it as bytes."),
            Mistake("rightmost", {"i = pairs.index(best)": "i = len(pairs) - 1 - pairs[::-1].index(best)"},
                    "Where a pair occurs twice you merge the rightmost one first. The leftmost comes first."),
            Mistake("whole_pass", """
                tokens = [data[i : i + 1] for i in range(len(data))]
                for left, right in sorted(ranks, key=ranks.get):
                    i = 0
                    while i < len(tokens) - 1:
                        if (tokens[i], tokens[i + 1]) == (left, right):
                            tokens[i : i + 2] = [left + right]
                        i += 2
                return tokens
                """, "You skip positions while you look for a pair: move on by one token at a time."),
        ),
    ),
    # ---- 02 A guess is a row of numbers
    Predict(
        name="softmax_by_hand", chapter=2, minutes=5, difficulty=1, cell="02-softmax", unlocks="reading logits",
        question="Two tokens have the logits 0 and log 3 = 1.0986. What probability does softmax give the second?",
        decimals=2, digest="1d7189cc7116952a",
        hints=("exp(0) = 1 and exp(log 3) = 3.", "Divide each by their sum."),
        mistakes=(
            Mistake("no_sum", 3, "That is exp(log 3). Divide by the sum over all tokens: probabilities sum to 1."),
            Mistake("no_exp", 1, "You divided the logits by their sum. Softmax takes exp of each first."),
            Mistake("the_other", 0.25, "That is the probability of the first token."),
            Mistake("half", 0.5,
                    "Half would be right for two equal logits. A difference of log 3 makes one token three times as likely."),
            Mistake("ratio", 0.33, "That is the ratio of the two. Divide by the sum, 1 + 3."),
        ),
    ),
    Code(
        name="log_softmax", chapter=2, minutes=10, difficulty=1, cell="02-log-softmax", mend="log_of_softmax",
        unlocks="log-probabilities that stay finite",
        answer=ops.log_softmax, inputs=rows_inputs, example="log_softmax(np.array([0.0, math.log(3.0)]))",
        hints=(
            "Try it on [0, -200]: what is the logarithm of a probability that underflows to 0?",
            "log(e / sum) = log(e) - log(sum), and log(exp(x)) is x: no logarithm of a quotient is needed.",
        ),
        mistakes=(
            Mistake("log_of_softmax", """
                e = np.exp(x - x.max(axis=-1, keepdims=True))
                return np.log(e / e.sum(axis=-1, keepdims=True))
                """,
                    "A probability that underflows to 0 has the logarithm -inf. x - log(sum) needs no quotient, and stays "
                    "finite."),
            Mistake("no_shift", {"x - x.max(axis=-1, keepdims=True)": "x"},
                    "exp overflows for large scores. Subtract the row's largest first: it changes nothing else."),
            Mistake("shift_once", {"return shifted -": "return x -"},
                    "You subtracted the largest inside the logarithm only: it must leave both terms, or neither."),
            Mistake("all_rows", {".sum(axis=-1, keepdims=True)": ".sum()"},
                    "You sum over all rows together. Each row is a distribution of its own: axis=-1, keepdims=True."),
            Mistake("wrong_axis", {"axis=-1": "axis=0"},
                    "You normalise along the first axis. The last one holds the tokens: axis=-1."),
            Mistake("epsilon", """
                e = np.exp(x - x.max(axis=-1, keepdims=True))
                return np.log(e / e.sum(axis=-1, keepdims=True) + 1e-9)
                """,
                    "A small number inside the logarithm hides the -inf, and makes every improbable token as likely as it is. "
                    "x - log(sum) needs none."),
            Mistake("base_two", {"np.log(": "np.log2("}, "This is the logarithm to base 2. Natural logarithms are needed."),
        ),
    ),
    Code(
        name="softmax", chapter=2, minutes=10, difficulty=1, cell="02-softmax",
        unlocks="attn.weights of the model, and its choices",
        answer=ops.softmax, inputs=softmax_inputs, example="softmax(np.array([0.0, math.log(3.0)]))",
        hints=(
            "exp of every score, divided by the sum along the last axis; keepdims=True lets the division line up.",
            "exp(1e4) is infinite. softmax(x + c) = softmax(x): which c keeps every exponent at 0 or below?",
            "Subtract x.max(axis=-1, keepdims=True) first.",
        ),
        mistakes=(
            Mistake("no_shift", {"x - x.max(axis=-1, keepdims=True)": "x"},
                    "exp overflows for large scores, and inf / inf is nan. Subtract the row's largest first: softmax(x + c) = "
                    "softmax(x)."),
            Mistake("over_queries", {"e.sum(axis=-1": "e.sum(axis=-2 if x.ndim > 1 else -1"},
                    "The columns sum to 1, not the rows: you sum over the queries (axis=-2). Sum over the last axis."),
            Mistake("first_axis", {"axis=-1": "axis=0"},
                    "You normalise along the first axis. The last one holds the scores of a row: axis=-1."),
            Mistake("whole_array", {".max(axis=-1, keepdims=True)": ".max()", ".sum(axis=-1, keepdims=True)": ".sum()"},
                    "You take the whole array for one row: largest and sum are of each row, axis=-1, keepdims=True."),
            Mistake("all_rows", {"e.sum(axis=-1, keepdims=True)": "e.sum()"},
                    "All rows together sum to 1. Each row is a distribution of its own: axis=-1, keepdims=True."),
            Mistake("no_sum", {"return e / e.sum(axis=-1, keepdims=True)": "return e"},
                    "These are not probabilities yet: divide by the sum of the row."),
            Mistake("no_exp", {"np.exp(x - x.max(axis=-1, keepdims=True))": "x"},
                    "You divided the scores themselves by their sum. Take exp of each first."),
            Mistake("log", {"return e / e.sum(axis=-1, keepdims=True)": "return np.log(e / e.sum(axis=-1, keepdims=True))"},
                    "This is the logarithm of softmax: leave the log out."),
            Mistake("global_shift", {"x.max(axis=-1, keepdims=True)": "x.max()"},
                    "You subtract the largest of all rows. A row far below it underflows to 0 / 0: subtract each row's own "
                    "largest."),
        ),
    ),
    Code(
        name="cross_entropy", chapter=2, minutes=15, difficulty=2, cell="02-cross-entropy", unlocks="loss and perplexity",
        answer=ops.cross_entropy, inputs=cross_entropy_inputs,
        example="cross_entropy(np.array([[0.0, math.log(3.0)], [0.0, 0.0]]), np.array([1, 0]))",
        hints=(
            "log_softmax gives the log-probability of every token; the target's own is the one that counts.",
            "np.take_along_axis(a, targets[..., None], axis=-1) picks one number of each row.",
            "The loss is positive: minus the log-probability. Drop the last axis again with [..., 0].",
        ),
        mistakes=(
            Mistake("no_minus", {"return -np": "return np"},
                    "The sign: a log-probability is negative, and the loss is minus that."),
            Mistake("mean", {"[..., 0]": "[..., 0].mean()"},
                    "You return the mean. The loss of every target is needed; whoever wants the mean takes it."),
            Mistake("no_log", {"log_softmax(logits)": "np.exp(log_softmax(logits))"},
                    "That is minus the probability of the target. The loss is minus its logarithm."),
            Mistake("no_softmax", {"log_softmax(logits)": "logits"},
                    "You took the target's logit. Its log-probability is needed: log_softmax first."),
            Mistake("extra_axis", {"[..., 0]": ""}, "There is an axis of length 1 too many at the end: take [..., 0] of it."),
            Mistake("whole_row", """
                return -log_softmax(logits).sum(axis=-1)
                """, "You summed over all tokens. Only the target's log-probability counts: pick it with np.take_along_axis."),
            Mistake("log_of_softmax", """
                e = np.exp(logits - logits.max(axis=-1, keepdims=True))
                p = e / e.sum(axis=-1, keepdims=True)
                return -np.log(np.take_along_axis(p, np.asarray(targets)[..., None], axis=-1)[..., 0])
                """, "A probability that underflows to 0 gives an infinite loss. Use log_softmax, which never forms it."),
        ),
    ),
    # ---- 03 Attention
    Predict(
        name="attention_by_hand", chapter=3, minutes=10, difficulty=2, cell="03-by-hand", unlocks="one head, every number",
        question="Three tokens, one head, d_k = 1: Q = [1, 2, 3], K = [4, 5, 6], V = [7, 8, 9], one number a token. What is the "
        "second token's output of causal attention?",
        decimals=2, digest="5360fadbc9049ba7",
        hints=(
            "Its query is 2; it sees the keys 4 and 5, not 6. The scores are 8 and 10.",
            "softmax([8, 10]) = [0.119, 0.881]; average 7 and 8 with these weights.",
        ),
        mistakes=(
            Mistake("no_mask", 8.85, "The second token saw the third: the mask is missing. It sees itself and the first only."),
            Mistake("uniform", 7.5, "That is the plain mean of 7 and 8. The weights are softmax of the scores 8 and 10."),
            Mistake("scores_as_weights", 7.56,
                    "You used the scores, divided by their sum, as weights. Softmax takes exp of them first."),
            Mistake("printed", 4.24,
                    "That is 24 / sqrt(32): a published slip. 32 is a score, not d_k, and values are averaged, not summed."),
            Mistake("not_averaged", 8, "That is the value of the best key. Attention averages: the other key has a weight too."),
            Mistake("third", 8.95, "That is the third token's output."),
        ),
    ),
    Code(
        name="causal_mask", chapter=3, minutes=10, difficulty=1, cell="03-mask", unlocks="the mask of attention, cached and not",
        answer=attention.causal_mask, inputs=mask_inputs, example="causal_mask(np.array([[1, 2]]), 4)",
        hints=(
            "Compare the number of every key, np.arange(n_keys), with the position of every query.",
            "[S] against [B,T,1] broadcasts to [B,T,S]: positions[..., None].",
        ),
        mistakes=(
            Mistake("no_mask",
                    {"np.arange(n_keys) <= positions[..., None]": "np.arange(n_keys) <= positions[..., None] + n_keys"},
                    "Every query sees every key, the future too. Key s is visible from position p only when s <= p."),
            Mistake("mask_off_by_one", {"<=": "<"}, "A position does not see itself: s <= p, not s < p."),
            Mistake("one_ahead", {"<= positions[..., None]": "<= positions[..., None] + 1"},
                    "A position sees the one after it. Key s is visible when s <= p."),
            Mistake("inverted", {"<=": ">"}, "True where False should be: the mask says what is visible."),
            Mistake("transposed", {"<=": ">="}, "Positions see the future and not the past: reverse the comparison."),
            Mistake("from_zero", {"positions[..., None]": "(np.arange(positions.shape[1]) + 0 * positions)[..., None]"},
                    "You count the queries from 0. Behind a cache they begin later: compare with `positions`."),
        ),
    ),
    Code(
        name="split_heads", chapter=3, minutes=10, difficulty=2, cell="03-heads",
        unlocks="attn.q, attn.k and attn.v of the model",
        answer=attention.split_heads, inputs=split_inputs, example="split_heads(np.arange(12).reshape(1, 2, 6), 2)",
        hints=(
            "Head h owns D neighbouring columns: reshape the last axis into [H,D] first.",
            "[B,T,H,D] must become [B,H,T,D]: swap two axes. A reshape cannot swap.",
        ),
        mistakes=(
            Mistake("heads_mixed", "B, T, C = x.shape\nreturn x.reshape(B, n_head, T, C // n_head)",
                    "The shape is right and the numbers are mixed: a reshape straight to [B,H,T,D] deals out tokens, not "
                    "columns. Reshape to [B,T,H,D], then swap."),
            Mistake("no_swap", {".swapaxes(1, 2)": ""}, "This is [B,T,H,D]. Heads come before positions: swap axes 1 and 2."),
            Mistake("columns_dealt", {"n_head, -1).swapaxes(1, 2)": "-1, n_head).transpose(0, 3, 1, 2)"},
                    "You deal columns out one by one (0, H, 2H, ... to head 0). Head h owns neighbouring columns, h*D to "
                    "(h+1)*D."),
            Mistake("wrong_swap", {".swapaxes(1, 2)": ".swapaxes(1, 3)"},
                    "You swapped positions with columns: swap axes 1 and 2."),
            Mistake("last_axes", {".swapaxes(1, 2)": ".transpose(0, 2, 3, 1)"},
                    "This is [B,H,D,T], k already transposed: [B,H,T,D] is needed."),
        ),
    ),
    Code(
        name="merge_heads", chapter=3, minutes=5, difficulty=1, cell="03-heads", mend="heads_not_merged",
        unlocks="attn.out of the model",
        answer=attention.merge_heads, inputs=merge_inputs, example="merge_heads(np.arange(12).reshape(1, 2, 2, 3))",
        hints=(
            "Which axes does split_heads swap after its reshape? Here the same is undone, in the other order.",
            "First [B,H,T,D] -> [B,T,H,D], then flatten the last two axes.",
        ),
        mistakes=(
            Mistake("heads_not_merged", {".swapaxes(1, 2)": ""},
                    "The shape is right and the numbers are mixed: bring the heads beside their columns, [B,T,H,D], before the "
                    "reshape."),
            Mistake("sum", "return x.sum(axis=1)", "You added the heads up. They are laid side by side: [B,T,H*D]."),
            Mistake("mean", "return x.mean(axis=1)", "You averaged the heads. They are laid side by side: [B,T,H*D]."),
            Mistake("columns_dealt", {"x.swapaxes(1, 2)": "x.transpose(0, 2, 3, 1)"},
                    "The columns of the heads alternate. Head h goes, as a piece, to columns h*D to (h+1)*D."),
            Mistake("flat", {"x.shape[0], x.shape[2], -1": "x.shape[0], -1"},
                    "Positions have been flattened too: [B,T,C] is needed."),
        ),
    ),
    Code(
        name="attention", chapter=3, minutes=25, difficulty=2, cell="03-attention", unlocks="attn.context of the model",
        answer=textbook.attention, inputs=attention_inputs,
        example="attention(np.array([[[[1.0], [2.0]]]]), np.array([[[[4.0], [5.0]]]]), np.array([[[[7.0], [8.0]]]]), "
        "np.array([[0, 1]]), 1.0)",
        hints=(
            "Scores: every query with every key, [B,H,T,D] @ [B,H,D,S]. swapaxes(-1, -2) turns k round.",
            "Where the mask is False the score becomes -inf, before softmax: exp(-inf) is 0.",
            "causal_mask gives [B,T,S]; heads share it: [:, None] makes room for their axis. Then softmax, then @ v.",
        ),
        mistakes=(
            Mistake("no_mask", {"np.where(visible, scores, -np.inf)": "scores"},
                    "Positions see the future: the mask is missing. Set the scores of what is not visible to -inf, before "
                    "softmax."),
            Mistake("mask_after_softmax",
                    {"softmax(np.where(visible, scores, -np.inf)) @ v": "(softmax(scores) * visible) @ v"},
                    "You mask after softmax: the weights no longer sum to 1, and the future has taken its share. Mask the "
                    "scores, with -inf."),
            Mistake("unscaled", {" * scale": ""},
                    "The scale is missing: scores grow with sqrt(D), and softmax saturates. Multiply by `scale`."),
            Mistake("divided_by_scale", {" * scale": " / scale"}, "You divide by the scale. It is 1/sqrt(D) already: multiply."),
            Mistake("scaled_by_d", {" * scale": " * scale * scale"},
                    "You divide by D, not by its root (the scale twice): the scores are nearly equal then."),
            Mistake("scaled_outside", {" * scale": "", ") @ v": ") @ v * scale"},
                    "The scale stands outside softmax, as printed in places: the weights then sum to 1/sqrt(D). Scale the "
                    "scores."),
            Mistake("zero_for_masked", {"-np.inf": "0.0"},
                    "You set masked scores to 0. exp(0) is 1, so the future still counts: -inf is what softmax turns into 0."),
            Mistake("finite_mask", {"-np.inf": "-100.0"},
                    "Masked scores are -100, and scores can lie below that. Only -inf lies below them all."),
            Mistake("from_zero", {"causal_mask(positions, k.shape[2])[:, None]": "np.tri(q.shape[2], k.shape[2], dtype=bool)"},
                    "You count the queries from 0, as np.tri does. Behind a cache they begin later: compare with `positions`."),
            Mistake("k_reversed", {"k.swapaxes(-1, -2)": "k.T"},
                    "k.T turns all four axes round, [D,S,H,B]. Only the last two change places: k.swapaxes(-1, -2)."),
            Mistake("softmax_over_queries", {"softmax(np.where(visible, scores, -np.inf))":
                    "softmax(np.where(visible, scores, -np.inf).swapaxes(-1, -2)).swapaxes(-1, -2)"},
                    "Softmax runs over the queries: every query's weights over the keys must sum to 1."),
            Mistake("averages_keys", {") @ v": ") @ k"},
                    "You averaged the keys. The weights come from the keys, what is averaged are the values."),
            Mistake("no_softmax", {"softmax(np.where(visible, scores, -np.inf))": "np.where(visible, scores, 0.0)"},
                    "Softmax is missing: the scores themselves are no weights. Masked scores must be -inf before it."),
        ),
    ),
    # ---- 04 The block
    Code(
        name="layer_norm", chapter=4, minutes=15, difficulty=2, cell="04-layer-norm", unlocks="ln_1, ln_2 and ln_f of the model",
        answer=ops.layer_norm, inputs=norm_inputs,
        example="layer_norm(np.array([[1.0, 2.0, 3.0]]), np.array([1.0, 1.0, 2.0]), np.array([0.0, 10.0, 0.0]))",
        hints=(
            "Mean and variance are of each row: axis=-1, keepdims=True.",
            "The variance is the mean of the squared distances from the mean, divided by C and not C - 1.",
            "eps stands inside the root: sqrt(variance + eps). Then scale by weight, and add bias.",
        ),
        mistakes=(
            Mistake("unbiased_variance",
                    "return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + eps) * weight + bias",
                    "You divide the squares by C - 1 (ddof=1). Layer norm takes the biased variance, divided by C."),
            Mistake("epsilon_outside",
                    {"keepdims=True) + eps)": "keepdims=True)) + eps)",
                     "centred / np.sqrt(": "centred / (np.sqrt("},
                    "eps stands outside the root. It belongs to the variance: sqrt(variance + eps)."),
            Mistake("no_epsilon", {" + eps": ""},
                    "eps is missing: a row of hardly any variance is blown up. sqrt(variance + eps)."),
            Mistake("epsilon_squared", {" + eps": " + eps * eps"}, "You square eps: it is added to the variance as it is."),
            Mistake("epsilon_as_bound", {"(centred * centred).mean(axis=-1, keepdims=True) + eps":
                    "np.maximum((centred * centred).mean(axis=-1, keepdims=True), eps)"},
                    "You take the larger of variance and eps: they are added."),
            Mistake("cancels", {"np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)":
                    "np.sqrt((x * x).mean(axis=-1, keepdims=True) - x.mean(axis=-1, keepdims=True) ** 2 + eps)"},
                    "The mean of the squares minus the square of the mean: far from 0 the two are nearly equal, and their "
                    "difference is rounding. Subtract the mean first, then square."),
            Mistake("no_root", {"np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)":
                    "((centred * centred).mean(axis=-1, keepdims=True) + eps)"},
                    "You divide by the variance. Its root, the standard deviation, gives every row variance 1."),
            Mistake("rms", {"centred = x - x.mean(axis=-1, keepdims=True)": "centred = x"},
                    "The mean is not subtracted (that is RMSNorm). GPT-2's layer norm centres first."),
            Mistake("over_positions", {"axis=-1": "axis=0"},
                    "Mean and variance run over the first axis. Every row is normed by itself: axis=-1."),
            Mistake("whole_array", {"axis=-1, keepdims=True": ""},
                    "Mean and variance are of the whole array. Every row is normed by itself."),
            Mistake("no_bias", {" + bias": ""}, "The bias is missing at the end."),
            Mistake("no_weight", {" * weight": ""}, "The weight is missing: scale by it before adding the bias."),
            Mistake("fixed_epsilon", {" + eps": " + 1e-5"}, "You wrote 1e-5 where eps should stand: it is an argument."),
        ),
    ),
    Code(
        name="gelu_new", chapter=4, minutes=5, difficulty=1, cell="04-gelu", mend="erf_gelu", unlocks="mlp.act of the model",
        answer=ops.gelu_new, inputs=gelu_inputs, example="gelu_new(np.array([-1.0, 0.0, 1.0]))",
        hints=(
            "There are two GELUs, and they differ by up to 5e-4. Which one does the docstring ask for?",
            "Write the equation of the docstring as it stands: tanh, not erf.",
        ),
        mistakes=(
            Mistake("erf_gelu", "return 0.5 * x * (1.0 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2.0)))",
                    "This is the exact GELU, by erf. GPT-2 was trained with the tanh form, which differs by up to 5e-4."),
            Mistake("no_cube", {" + 0.044715 * (x * x * x)": ""}, "The cubic term 0.044715 x^3 is missing inside tanh."),
            Mistake("square", {"(x * x * x)": "(x * x)"}, "You square x where the equation has its third power."),
            Mistake("no_half", {"0.5 * x": "x"}, "The factor 0.5 is missing: tanh + 1 lies between 0 and 2."),
            Mistake("no_one", {"(1.0 + np.tanh": "(np.tanh"}, "The 1 + before tanh is missing."),
            Mistake("pi_over_two", {"2.0 / math.pi": "math.pi / 2.0"}, "pi/2 stands where 2/pi should stand."),
            Mistake("no_root", {"math.sqrt(2.0 / math.pi)": "(2.0 / math.pi)"}, "The root around 2/pi is missing."),
            Mistake("relu", "return np.maximum(x, 0)", "This is ReLU: GELU bends smoothly, and is slightly negative below 0."),
            Mistake("sigmoid", "return x / (1.0 + np.exp(-1.702 * x))",
                    "This is the sigmoid approximation of GELU. GPT-2 has the tanh form."),
        ),
    ),
    Code(
        name="block", chapter=4, minutes=15, difficulty=2, cell="04-block",
        unlocks="attn.residual and mlp.residual: a layer of your own",
        answer=textbook.block, inputs=block_inputs, once=("attend", "feed_forward"),
        example="block(np.ones((1, 1, 2)), {'weight': np.ones(2), 'bias': np.ones(2)}, lambda x: x + 1, "
        "{'weight': np.ones(2), 'bias': np.zeros(2)}, lambda x: x + 3)",
        hints=(
            "The stream x is never normed itself: each part reads layer_norm(x) and its result is added to x.",
            "x = x + attend(layer_norm(x, **ln_1)), and then the same with the other two.",
        ),
        mistakes=(
            Mistake("post_norm", """
                x = layer_norm(x + attend(x), **ln_1)
                return layer_norm(x + feed_forward(x), **ln_2)
                """,
                    "The norm comes after the addition, as in the first Transformer of 2017. GPT-2 norms what each part "
                    "reads: x + f(norm(x))."),
            Mistake("no_residual", """
                x = attend(layer_norm(x, **ln_1))
                return feed_forward(layer_norm(x, **ln_2))
                """, "Nothing is added: each part must add to the stream, x + f(norm(x))."),
            Mistake("one_residual", {"x = x + attend": "x = attend"}, "The first addition is missing: x + attend(...)."),
            Mistake("no_second_residual", {"return x + feed": "return feed"},
                    "The second addition is missing: x + feed_forward(...)."),
            Mistake("adds_the_normed", """
                x = layer_norm(x, **ln_1)
                x = x + attend(x)
                x = layer_norm(x, **ln_2)
                return x + feed_forward(x)
                """, "You add to the normed copy. The stream itself goes on: norm only what each part reads."),
            Mistake("parallel", "return x + attend(layer_norm(x, **ln_1)) + feed_forward(layer_norm(x, **ln_2))",
                    "Both parts read the same x (as GPT-J does). In GPT-2 the second reads what the first has added to."),
            Mistake("norms_swapped",
                    {"**ln_1": "**ln_2",
                     "feed_forward(layer_norm(x, **ln_2))": "feed_forward(layer_norm(x, **ln_1))"},
                    "The two layer norms have changed places."),
            Mistake("one_norm", {"**ln_2": "**ln_1"}, "The second norm has ln_1's weight and bias: it has its own, ln_2."),
            Mistake("no_norm", "x = x + attend(x)\nreturn x + feed_forward(x)", "The layer norms are missing."),
            Mistake("order", {"attend(": "later(", "feed_forward(": "attend(", "later(": "feed_forward("},
                    "The feed forward comes first: attention comes first, then the feed forward."),
        ),
    ),
    # ---- 05 The whole of GPT-2
    Code(
        name="embed", chapter=5, minutes=5, difficulty=1, cell="05-embed", mend="restarts", unlocks="embed of the model",
        answer=textbook.embed, inputs=embed_inputs,
        example="embed(np.array([[1, 0]]), 1, np.array([[1.0, 2.0], [3.0, 4.0]]), "
        "np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]))",
        hints=(
            "It works for a prompt and fails for what comes behind a cache. What does it not use?",
            "The first new token stands at position `past`, not at 0.",
        ),
        mistakes=(
            Mistake("restarts", {"past + np.arange": "np.arange"},
                    "Positions restart at 0 behind a cache: the first new token stands at position `past`."),
            Mistake("from_one", {"past + np.arange": "past + 1 + np.arange"},
                    "Positions are counted from 1: the first one is 0."),
            Mistake("no_positions", {" + wpe[past + np.arange(ids.shape[1])]": ""},
                    "The positions are missing: without wpe the model could not tell one order of tokens from another."),
            Mistake("one_position", {"wpe[past + np.arange(ids.shape[1])]": "wpe[past]"},
                    "Every token gets the same position: each has its own."),
            Mistake("by_id", {"wpe[past + np.arange(ids.shape[1])]": "wpe[ids]"},
                    "wpe is indexed with the ids: it wants positions."),
            Mistake("product", {"] + wpe": "] * wpe"}, "The two vectors are multiplied. They are added."),
        ),
    ),
    Code(
        name="forward", chapter=5, minutes=20, difficulty=2, cell="05-forward", unlocks="logits: the whole model is yours",
        answer=textbook.forward, inputs=forward_inputs, once=("blocks",),
        example="forward(np.array([[0, 1]]), np.eye(2), np.zeros((2, 2)), [lambda x: 2 * x], "
        "{'weight': np.ones(2), 'bias': np.zeros(2)})",
        hints=(
            "wte[ids] picks a row for each token; wpe[np.arange(T)] one for each position.",
            "x = block(x) for every block, one after another.",
            "After the last block comes layer_norm(x, **ln_f), then the product with wte.T: the head is tied to the embedding.",
        ),
        mistakes=(
            Mistake("no_ln_f", {"layer_norm(x, **ln_f)": "x"}, "The final layer norm is missing before the unembedding."),
            Mistake("no_positions", {" + wpe[np.arange(ids.shape[1])]": ""}, "The position embedding is missing."),
            Mistake("positions_from_one", {"np.arange(ids.shape[1])": "1 + np.arange(ids.shape[1])"},
                    "Positions are counted from 1: the first is 0."),
            Mistake("skips_a_block", {"for block in blocks:": "for block in blocks[1:]:"}, "The first block is left out."),
            Mistake("backwards", {"for block in blocks:": "for block in blocks[::-1]:"}, "The blocks run in the wrong order."),
            Mistake("block_residual", {"x = block(x)": "x = x + block(x)"},
                    "You add x once more around each block: a block returns the stream with its additions already in it."),
            Mistake("norms_first", """
                x = wte[ids] + wpe[np.arange(ids.shape[1])]
                x = layer_norm(x, **ln_f)
                for block in blocks:
                    x = block(x)
                return x @ wte.T
                """, "The final layer norm stands before the blocks: it comes after the last."),
            Mistake("last_only", {"return layer_norm(x, **ln_f)": "return layer_norm(x[:, -1:], **ln_f)"},
                    "You return the last position's logits only: every position has its own."),
            Mistake("same_input", {"x = block(x)": "y = block(x)", "layer_norm(x,": "layer_norm(y if blocks else x,"},
                    "Every block reads the embedding: each must read what the one before it returned."),
        ),
    ),
    # ---- 06 One token at a time
    Predict(
        name="positions_computed", chapter=6, minutes=5, difficulty=2, cell="06-cache", unlocks="what a cache saves",
        question="A prompt of 5 tokens, then 40 new tokens, greedy, with a KV cache. How many positions go "
        "through the model in all?",
        decimals=0, digest="62d579d48924d778",
        hints=(
            "The prompt is one pass of 5 positions, and its last logits give the first new token.",
            "The last new token is never fed back.",
        ),
        mistakes=(
            Mistake("feeds_the_last", 45, "The last new token is never fed back: nothing after it is asked for."),
            Mistake("no_cache", 980, "That is without a cache: 5 + 6 + ... + 44. With one, each position is computed once."),
            Mistake("new_only", 40, "The prompt goes through the model too, in one pass."),
            Mistake("no_prompt", 39, "Those are the decode steps. The prompt's 5 positions go through the model too."),
            Mistake("one_prompt_position", 41, "The prompt's 5 positions are all computed, though in one pass."),
        ),
    ),
    Code(
        name="greedy", chapter=6, minutes=10, difficulty=2, cell="06-cache", mend="feeds_all_again",
        unlocks="generation, with the cache's past in mind",
        answer=textbook.greedy, inputs=greedy_inputs, once=("forward",),
        example="greedy(lambda new_ids, past: np.eye(5)[[(i + 1) % 5 for i in new_ids]], [3], 4)",
        hints=(
            "The model remembers what it has been given. Which ids are new to it in the second turn?",
            "forward(ids[past:], past): only the ids behind the first `past`.",
        ),
        mistakes=(
            Mistake("feeds_all_again", {"forward(ids[past:], past)": "forward(ids, past)"},
                    "All ids are fed in every turn, though the cache holds the earlier ones: they would stand there twice. "
                    "Feed ids[past:]."),
            Mistake("first_logits", {"logits[-1]": "logits[0]"},
                    "You choose from the logits after the first id given: those after the last predict the next token."),
            Mistake("max_length", {"range(n_new)": "range(n_new - len(ids))"},
                    "You count the prompt in (that is max_length): n_new tokens are to follow it."),
            Mistake("forgets", {"past = len(ids)": "past = 0"},
                    "`past` stays 0, as if the model had forgotten: the cache holds all ids given so far."),
            Mistake("feeds_the_last", {"return ids": "forward(ids[past:], past)\n    return ids"},
                    "You feed the last new token too, and nobody asks what follows it: stop after choosing it."),
            Mistake("new_only", {"return ids": "return ids[-n_new:]"},
                    "You return the new ids only: the prompt belongs in front."),
            Mistake("past_too_late", {"        past = len(ids)\n        ids.append(int(logits[-1].argmax()))":
                    "        ids.append(int(logits[-1].argmax()))\n        past = len(ids)"},
                    "`past` counts the token just chosen, which the model has not seen yet: set it before appending."),
        ),
    ),
    Code(
        name="append", chapter=6, minutes=15, difficulty=2, cell="06-append", unlocks="a KV cache",
        answer=textbook.append, inputs=append_inputs, changes=("keys", "values"),
        example="append(np.zeros((1, 1, 3, 1)), np.zeros((1, 1, 3, 1)), np.array([1]), "
        "np.full((1, 1, 1, 1), 5.0), np.full((1, 1, 1, 1), 7.0))",
        hints=(
            "Each row has a length of its own: loop over them, and write keys[row, :, start : start + T].",
            "S is the longest row + T. keys[:, :, :S] is a view: nothing is copied.",
        ),
        mistakes=(
            Mistake("at_the_front", {"start : start + T": ":T"},
                    "You write at the front, over what was there: the new ones go behind each row's length."),
            Mistake("one_length",
                    {"for row, start in enumerate(lengths):": "for row, start in enumerate(lengths * 0 + lengths[0]):"},
                    "All rows are written behind the first row's length: each has its own."),
            Mistake("swapped",
                    {"= k[row]": "= v[row]",
                     "values[row, :, start : start + T] = v[row]": "values[row, :, start : start + T] = k[row]"},
                    "Keys and values are exchanged."),
            Mistake("new_only", {"return keys[:, :, :S], values[:, :, :S]": "return k, v"},
                    "You return the new ones only: all S positions may be attended to."),
            Mistake("old_only", {"lengths.max() + T": "lengths.max()"},
                    "You return what was there before: the new positions count too, S = longest + T."),
            Mistake("whole_capacity", {"return keys[:, :, :S], values[:, :, :S]": "return keys, values"},
                    "You return the whole capacity: cut off after S positions."),
            Mistake("shortest", {"lengths.max()": "lengths.min()"},
                    "S is measured by the shortest row: the longest one needs its keys too."),
            Mistake("one_token",
                    {"start : start + T] = k[row]": "start : start + 1] = k[row, :, :1]",
                     "start : start + T] = v[row]": "start : start + 1] = v[row, :, :1]"},
                    "Only the first new position is written: there are T."),
        ),
    ),
    # ---- 07 Choosing the next word
    Predict(
        name="best_is_not_greedy", chapter=7, minutes=5, difficulty=1, cell="07-prefix-tree", unlocks="why beams can beat greedy",
        question="First token: a with probability 0.6, b with 0.4. After a, the second token is one of three equally likely "
        "ones; after b, c with 0.9. What is the probability of the most probable text of two tokens?",
        decimals=2, digest="4f247cdbd775afd8",
        hints=("Multiply along each path.", "a first: 0.6 / 3. b first: 0.4 * 0.9."),
        mistakes=(
            Mistake("greedy", 0.2, "That is greedy's text: a, then one of three. b followed by c is more probable."),
            Mistake("first_only", 0.6, "That is the first token's probability alone: the second one's multiplies it."),
            Mistake("last_only", 0.9, "That is c's probability after b: multiply by b's own."),
            Mistake("mixed_up", 0.54, "0.6 * 0.9 joins a and c, but 0.9 holds only after b."),
        ),
    ),
    Code(
        name="top_k", chapter=7, minutes=5, difficulty=1, cell="07-top-k", mend="drops_ties", unlocks="sampling from k tokens",
        answer=filters.top_k, inputs=top_k_inputs, example="top_k(np.array([1.0, 3.0, 2.0, 2.0]), 2)",
        hints=(
            "Look at what happens to the k-th largest logit itself.",
            "What is to be dropped is strictly below the k-th: ties with it stay.",
        ),
        mistakes=(
            Mistake("drops_ties", {"logits < np": "logits <= np"},
                    "The k-th token itself is dropped too: only what lies strictly below it goes."),
            Mistake("keeps_the_smallest",
                    {"logits < np.partition(logits, -k)[-k]": "logits > np.partition(logits, k - 1)[k - 1]"},
                    "The k smallest are kept: the k largest are needed."),
            Mistake("zero", {"-np.inf": "0.0"}, "Dropped logits become 0, which still has a probability: -inf has none."),
            Mistake("exactly_k",
                    {"return np.where(logits < np.partition(logits, -k)[-k], -np.inf, logits)":
                     "kept = np.full_like(logits, -np.inf)\n    best = np.argsort(-logits, kind=\"stable\")[:k]\n    "
                     "kept[best] = logits[best]\n    return kept"},
                    "Exactly k are kept: tokens that tie with the k-th stay as well."),
            Mistake("one_more", {"np.partition(logits, -k)[-k]": "np.sort(logits)[-min(k + 1, len(logits))]"},
                    "One token too many is kept."),
            Mistake("only_the_kept", {"np.where(logits < np.partition(logits, -k)[-k], -np.inf, logits)":
                    "logits[logits >= np.partition(logits, -k)[-k]]"},
                    "You return the kept logits alone: ids are lost. The result has a place for every token."),
        ),
    ),
    Code(
        name="top_p", chapter=7, minutes=20, difficulty=3, cell="07-top-p", unlocks="nucleus sampling",
        answer=filters.top_p, inputs=top_p_inputs, example="top_p(np.log(np.array([0.5, 0.3, 0.15, 0.05])), 0.7)",
        hints=(
            "Turn the logits into probabilities and sort them from the largest.",
            "Keep a token if the sum of those before it is still below p: so the one that crosses p stays, and the first "
            "whatever p is.",
            "Undo the sorting: kept[order[mask]] = logits[order[mask]] in an array full of -inf.",
        ),
        mistakes=(
            Mistake("drops_the_crossing", """
                order = np.argsort(-logits, kind="stable")
                keep = order[np.cumsum(softmax(logits)[order]) <= p]
                filtered = np.full_like(logits, -np.inf)
                filtered[keep] = logits[keep]
                return filtered
                """, "The token with which the sum reaches p is dropped: it belongs to those kept, and one always stays."),
            Mistake("none_stays", """
                order = np.argsort(-logits, kind="stable")
                probs = softmax(logits)[order]
                keep = order[np.cumsum(probs) - probs < p]
                filtered = np.full_like(logits, -np.inf)
                filtered[keep] = logits[keep]
                return filtered
                """, "Where p is 0 no token is left: the most likely one always stays."),
            Mistake("one_too_many", """
                order = np.argsort(-logits, kind="stable")
                n = 2 + np.count_nonzero(np.cumsum(softmax(logits)[order]) < p)
                filtered = np.full_like(logits, -np.inf)
                filtered[order[:n]] = logits[order[:n]]
                return filtered
                """, "One token too many is kept: stop with the one that reaches p."),
            Mistake("least_likely", """
                order = np.argsort(logits, kind="stable")
                n = 1 + np.count_nonzero(np.cumsum(softmax(logits)[order]) < p)
                filtered = np.full_like(logits, -np.inf)
                filtered[order[:n]] = logits[order[:n]]
                return filtered
                """, "You collect from the least likely token: begin with the most likely."),
            Mistake("sums_logits", """
                order = np.argsort(-logits, kind="stable")
                n = 1 + np.count_nonzero(np.cumsum(logits[order]) < p)
                filtered = np.full_like(logits, -np.inf)
                filtered[order[:n]] = logits[order[:n]]
                return filtered
                """, "You add up the logits. It is the probabilities that must reach p: softmax first."),
            Mistake("threshold", "return np.where(softmax(logits) < 1 - p, -np.inf, logits)",
                    "You compare each probability with a fixed bound. It is the running sum, from the most likely down, that "
                    "must reach p."),
            Mistake("not_undone", """
                order = np.argsort(-logits, kind="stable")
                n = 1 + np.count_nonzero(np.cumsum(softmax(logits)[order]) < p)
                return np.where(np.arange(len(logits)) < n, logits[order], -np.inf)
                """, "The result is still sorted: put every kept logit back in its own place."),
            Mistake("probabilities", {"= logits[keep]": "= probs[keep]"},
                    "You return probabilities: what is kept stays a logit."),
            Mistake("zero", {"-np.inf": "0.0"}, "Dropped logits become 0, which still has a probability: -inf has none."),
        ),
    ),
)
