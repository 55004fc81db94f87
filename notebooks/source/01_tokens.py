# %% [markdown] id="01-title"
r"""
# 01 · Tokens

A model computes with numbers, and you write letters. After this chapter you can

- turn any text into tokens and back, by hand,
- learn a list of tokens from a text, as GPT-2's was learnt,
- say why a space, a digit, a dragon or a Chinese character costs what it costs.
"""

# %% id="01-imports"
from collections import Counter
from itertools import pairwise

import regex
from matplotlib import pyplot

import minillm
from minillm import plots
from minillm.tokenizer import GPT2_PATTERN, Tokenizer

model, tokenizer = minillm.load(kernels="numpy")

# %% [markdown] id="01-bytes"
r"""
## Text is bytes already

In memory and on disk a text is a row of **bytes**, numbers from 0 to 255. Which bytes stand for which character is a
convention, and nearly all the world uses one: **UTF-8**. It writes the 128 oldest characters (English letters, digits,
signs) with one byte and all others with two, three or four.

**Guess, then run.** How many bytes has each of these: `a`, `é`, `中`, `🐉`? And the astronaut `👩‍🚀`?
"""

# %% id="01-bytes-shown"
for character in ["a", " ", "é", "中", "🐉", "👩‍🚀"]:
    data = character.encode("utf-8")
    print(f"{character!r:<6} {len(character)} character(s), {len(data):>2} byte(s): {' '.join(map(str, data))}")

assert [len(c.encode()) for c in "aé中🐉"] == [1, 2, 3, 4]

# %% [markdown] id="01-merge"
r"""
The astronaut is one picture on your screen, and three characters: a woman, an invisible *joiner*, and a rocket.

So a model could simply read bytes: a list of 256 pieces, and no text in the world is unknown. What speaks against it is
length. Every piece is a step of work, and a letter says little. The other end would be whole words: short texts, but
endless lists, and a word that is not in the list cannot be read at all.

## In between: merge what often stands together

The idea of **byte-pair encoding** (BPE): begin with the bytes, and give the pair of neighbours that occurs most often a
name of its own. Then look again, with the new name as one piece, and go on until there are as many names as you wanted.
Each such step is a **merge**; the list of all names is the **vocabulary**; a token's number in that list is its **id**.

**Guess, then run.** Here is a text to learn from. Which two neighbours stand together most often? (A space counts.)
"""

# %% id="01-pairs"
text = "the low, the lower, the lowest; the new, the newer, the newest"

pieces = regex.findall(GPT2_PATTERN, text)  # what this does comes below: pairs are only counted within a piece
print(pieces)

pairs = Counter(pair for piece in pieces for pair in pairwise(piece))
for (left, right), count in pairs.most_common(6):
    print(f"{left!r} {right!r}  {count} times")

# %% [markdown] id="01-first-merge"
r"""
Two pairs lead with six each. Which of equals is taken is a rule that each learner makes for itself; ours takes the one
with the lower ids. Let it learn one merge, two merges, three and so on, and see how the text is cut after each.

**Guess, then run.** After how many merges will ` the` be one piece? (It has four bytes.)
"""

# %% id="01-merges-one-by-one"
most = 10
for n_merges in range(most + 1):
    small = Tokenizer.train([text], vocab_size=256 + n_merges, special_tokens=[])
    new = small.tokens[-1].decode() if n_merges else ""
    cut = "|".join(small.decode([i]) for i in small.encode(text))
    print(f"{n_merges:>2} merges {new!r:>8}  {len(small.encode(text)):>2} tokens  {cut}")

assert small.decode(small.encode(text)) == text

# %% [markdown] id="01-encode"
r"""
Each row is one merge longer than the one above, and the text a few tokens shorter. Nothing was said about words, and
yet pieces of words come out. ` the` took three merges: a name for $n$ bytes always needs $n - 1$ merges, because each
joins two into one.

A new text is cut by replaying this: write it as bytes, then make **the merges that were learnt, the earliest learnt
first**, until none fits any more.

**Guess, then run.** The text above has no *slow* and no *newt*. How will they be cut? And *wolf*?
"""

# %% id="01-unseen"
for word in [" slow", " newt", " wolf", " lowest"]:
    print(f"{word!r:<9} {[small.decode([i]) for i in small.encode(word)]}")

# %% [markdown] id="01-unseen-read"
r"""
No word is unknown. At worst it falls apart into bytes.

## The tokenizer of our model

The part of a program that does this is the **tokenizer**. That of our model learnt its merges from the tales that the
model has read. `explain` shows its work.
"""

# %% id="01-explain"
(piece,) = tokenizer.explain("unbelievable")
parts = [bytes([b]) for b in piece.data]
print(f"{len(tokenizer.merges)} merges were learnt, numbered in the order in which they were learnt.\n")
print(" " * 12, *(part.decode() for part in parts))
for merge in piece.merges:
    parts[merge.at : merge.at + 2] = [merge.left + merge.right]
    print(f"merge {merge.rank:>4}  ", *(part.decode() for part in parts))
print("\nids", *piece.ids)

ranks = [merge.rank for merge in piece.merges]
assert ranks == sorted(ranks)
assert len(parts) == len(piece.data) - len(piece.merges) == len(piece.ids)

# %% [markdown] id="01-tree-intro"
r"""
The same as a picture. A dot is a merge; the two lines below it lead to what it joins; its number is its place in the
order of learning. What has no dot above it is a token.

**Guess, then look.** Could the merge at the top of a tree ever have been learnt before one below it?
"""

# %% id="01-tree"


def merge_tree(piece, ax):
    """Draw how the bytes of a piece become its tokens: time upwards, a dot and its number for each merge."""
    tops = [(x, 0, bytes([b])) for x, b in enumerate(piece.data)]
    for x, _, byte in tops:
        ax.annotate(byte.decode(), (x, 0), xytext=(0, -6), textcoords="offset points", ha="center", va="top", fontsize=13)
    for time, merge in enumerate(piece.merges, 1):
        (x1, y1, left), (x2, y2, right) = tops[merge.at : merge.at + 2]
        x = (x1 + x2) / 2
        ax.plot([x1, x, x2], [y1, time, y2], color="0.4", marker="o", markevery=[1], markerfacecolor="black")
        ax.annotate(f"{(left + right).decode()}  ({merge.rank})", (x, time), xytext=(7, 3), textcoords="offset points")
        tops[merge.at : merge.at + 2] = [(x, time, left + right)]
    ax.set(xlim=(-0.7, len(piece.data)), ylim=(-1, len(piece.merges) + 0.8), ylabel="merges made so far", xticks=[])
    ax.set_yticks(range(len(piece.merges) + 1))
    ax.set_title("tokens: " + " | ".join(token.decode() for _, _, token in tops))
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    return ax


_, ax = pyplot.subplots(figsize=(7.5, 4), layout="constrained")
steps = ", then ".join(f"{m.left.decode()} + {m.right.decode()}" for m in piece.merges)
plots.show(merge_tree(piece, ax), f"A tree over the letters of unbelievable. Merges, from below: {steps}.")

# %% [markdown] id="01-tree-read"
r"""
It could not: a merge joins two names, and both must have existed when it was learnt. So the numbers in brackets grow on
every way up. Since the earliest learnt goes first, they grow with time as well: cutting a word replays what learning
did, on this word alone.

## The pattern: where merges must stop

If merges could join anything, the vocabulary would fill up with ` dog.`, ` dog,`, ` dog!`. So GPT-2 first cuts the text
into *pieces* with a pattern (a *regular expression*), and merges only within a piece. Taken apart:
"""

# %% id="01-pattern"
sample = "The dragon's 3 heads, all  named Æsop,\n\n  didn't\nSLEEP..."
meanings = {
    r"'s|'t|'re|'ve|'m|'ll|'d": "English endings after an apostrophe, lower case only",
    r" ?\p{L}+": "letters of any script, with one space before them if there is one",
    r" ?\p{N}+": "digits, likewise",
    r" ?[^\s\p{L}\p{N}]+": "whatever is neither space nor letter nor digit, likewise",
    r"\s+(?!\S)": "white space, all but its last character if something follows",
    r"\s+": "white space that is left: one line end or tab before something",
}
assert "|".join(meanings) == GPT2_PATTERN

numbered = "|".join(f"({part})" for part in meanings)  # brackets let us ask which part has matched
found = [(match.lastindex, match[0]) for match in regex.finditer(numbered, sample)]
for number, (part, meaning) in enumerate(meanings.items(), 1):
    print(f"{part:<26} {meaning}\n{'':<26} {[piece for by, piece in found if by == number]}\n")
print([piece for _, piece in found])
assert "".join(piece for _, piece in found) == sample

# %% [markdown] id="01-pattern-read"
r"""
Two details have consequences. The space belongs to the word *after* it, so that a word within a sentence and the same
word at the start of a line are different pieces. And the endings are in lower case: `DON'T` is cut otherwise than
`don't`.

## Surprises

**Guess, then run.** Before each line appears, guess its number of tokens. Nobody gets all of them right.
"""

# %% id="01-surprises"
surprises = [
    " dragon", "dragon", "Dragon", " DRAGON", " dragons", "don't", "DON'T", "a b", "a    b",
    "7", "1234567", "1 + 1 = 2", "é", "中", "🐉", "👩‍🚀",
]  # fmt: skip
print("text           bytes  tokens")
for text in surprises:
    ids = tokenizer.encode(text)
    print(f"{text!r:<14} {len(text.encode()):>5}  {len(ids):>6}  {[tokenizer.tokens[i] for i in ids]}")

assert len(tokenizer.encode(" dragon")) < len(tokenizer.encode("dragon"))
assert not any(len(token) > 1 and token.isdigit() for token in tokenizer.tokens) and len(tokenizer.encode("中")) == 3

# %% [markdown] id="01-surprises-read"
r"""
- **Spaces.** With a space before it a word is what the tales are full of; without one, or with a capital, it is rarer
  and was merged less.
- **Digits.** Fairy tales have few numbers, so no digits were ever merged. A model that meets `1234567` as seven tokens
  and `12` as two cannot see at a glance how long a number is. (In GPT-2's own vocabulary many digits *are* merged, in
  no orderly way, which makes arithmetic no easier.)
- **A Chinese character costs three tokens** because UTF-8 writes it with three bytes and the tales contain no pair of
  these bytes to merge. It is no law: a tokenizer that learns from Chinese text merges them. But whoever pays by token,
  or has a limited number of them, pays for what the vocabulary was learnt from.
- **Emoji** are four bytes each, and the astronaut is two emoji and a joiner.

One more consequence. A single token need not be text at all:
"""

# %% id="01-half"
ids = tokenizer.encode("中")
print("all of it     ", repr(tokenizer.decode(ids)))
print("first two     ", repr(tokenizer.decode(ids[:2])), tokenizer.decode_bytes(ids[:2]))

# %% [markdown] id="01-half-read"
r"""
The sign in the second line is U+FFFD, the *replacement character*: "here were bytes that are no text (yet)". A program
that shows tokens as they come has to wait until a character is complete.

Nothing is lost, though, whatever you feed in:
"""

# %% id="01-round-trip"
for text in ["", "  \t\r\n ", "naïve café 中文 🐉👩‍🚀", "\x00\x07", "x" * 10_000]:
    assert tokenizer.decode(tokenizer.encode(text)) == text

print("every text came back as it went in")

# %% [markdown] id="01-how-much"
r"""
## What it saves

**Guess, then run.** How many bytes does a token of ordinary tale hold, on average? (The model writes the tales itself.)
"""

# %% id="01-saves"
options = {"max_new_tokens": 200, "temperature": 0.8, "min_p": 0, "stop_tokens": ()}  # () so that it goes on where a tale ends
moments = [m for seed in range(3) for m in minillm.generate(model, tokenizer, "Once upon a time", seed=seed, **options)]
tale = "".join(moment.text for moment in moments if moment.id != tokenizer.eot_id)
ids = tokenizer.encode(tale)
lengths = Counter(len(tokenizer.tokens[i]) for i in ids)

_, ax = pyplot.subplots(figsize=(6, 3), layout="constrained")
ax.bar(lengths.keys(), lengths.values(), color="0.75", edgecolor="black")
ax.set(xlabel="bytes of the token", ylabel="tokens in the tales", xticks=range(1, max(lengths) + 1))
ax.set_title(f"{len(tale.encode())} bytes in {len(ids)} tokens: {len(tale.encode()) / len(ids):.2f} bytes a token")
ax.spines[["top", "right"]].set_visible(False)
commonest = lengths.most_common(1)[0][0]
plots.show(ax, f"How long the tokens of three tales are: from 1 to {max(lengths)} bytes, most often {commonest}.")
assert len(ids) < len(tale.encode()) / 2

# %% [markdown] id="01-mistake"
r"""
## Find the mistake

This claim is in print:

> *The model reads character by character, the prompt too.*

(The **prompt** is the text that you give.) There are two mistakes in it. You can find the first with what you know now.
For the second, look at what the program does: it says for every new token which pass through the model it came from,
and how many tokens went through together in that pass.

**Guess, then run.** A prompt of five tokens, four new ones: how many passes?
"""

# %% id="01-mistake-shown"
prompt = "The cat sat on the"
print(f"a prompt of {len(prompt)} characters, {len(tokenizer.encode(prompt))} tokens\n")
moments = list(minillm.generate(model, tokenizer, prompt, max_new_tokens=4, temperature=0))
for moment in moments:
    print(f"pass of {moment.cycle.positions} token(s) at once  ->  {moment.text!r}")

assert [moment.cycle.positions for moment in moments] == [len(tokenizer.encode(prompt)), 1, 1, 1]

# %% [markdown] id="01-mistake-true"
r"""
**What is true.** The model reads *tokens*. The prompt goes through in *one* pass, all of its tokens side by side. Only
new tokens wait for each other, because each is part of the text that the next one follows. The last one chosen never
went in: nothing was asked after it. So four new tokens take four passes, however long the prompt is; reading character
by character would have taken a pass for each of its characters before the first new one.
"""

# %% [markdown] id="01-exercises"
r"""
## Exercises

In a terminal, in your folder of exercises:

    minillm exercises check bytes_of_a_text
    minillm exercises check replace_pair
    minillm exercises check encode

First a number to predict; then a function to mend, which replaces a pair wherever it stands (mind `aaa`); then the rule
of this chapter to write, earliest merge first.

Without a computer: which merges, in which order, does the text `banana bandana` teach first?
"""

# %% id="01-banana"
banana = Tokenizer.train(["banana bandana"], vocab_size=256 + 4, special_tokens=[])
print([(banana.tokens[left].decode(), banana.tokens[right].decode()) for left, right in banana.merges])

# %% [markdown] id="01-sources"
r"""
## Sources

- [Neural Machine Translation of Rare Words with Subword Units](https://arxiv.org/abs/1508.07909), Sennrich, Haddow and
  Birch 2016: byte-pair encoding for words.
- [Language Models are Unsupervised Multitask
  Learners](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf),
  Radford et al. 2019, section 2.2: from characters to bytes.
- [encoder.py](https://github.com/openai/gpt-2/blob/master/src/encoder.py): the pattern, as GPT-2 has it.
- [UTF-8, RFC 3629](https://www.rfc-editor.org/rfc/rfc3629): how characters become bytes.
"""
