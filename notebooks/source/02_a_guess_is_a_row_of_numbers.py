# %% [markdown] id="02-title"
r"""
# 02 · A guess is a row of numbers

A model that guesses the next token gives one number for every token there is. After this chapter you can

- compare two rows of numbers, and say what that means for words,
- turn any row of numbers into probabilities,
- build a guesser of your own by counting,
- say in one number how good a guesser is,
- show why looking at one token is not enough.
"""

# %% id="02-imports"
import re

import numpy as np
from matplotlib import pyplot

import minillm
from minillm import plots
from minillm.decoding import Options, Request, generate_batch
from minillm.decoding.scoring import continuation_logprob, next_logprobs
from minillm.ops import cross_entropy, log_softmax, softmax

model, tokenizer = minillm.load()

# %% [markdown] id="02-vectors"
r"""
## Rows that can be compared

A row of numbers is called a **vector**. Two vectors $a$ and $b$ of the same length are compared by multiplying place by
place and adding up, the **dot product**:

$$a \cdot b = a_1 b_1 + a_2 b_2 + \dots + a_n b_n$$

It is large when both are large in the same places, zero when they have nothing to do with each other, and negative when
one is large where the other is negative.

**Guess, then run.** Suppose an animal is described by three numbers: how large it is, how wild, how fond of milk, each
between $-1$ and $1$. Which two of these agree best?
"""

# %% id="02-dot"
animals = {"cat": [-0.5, 0.0, 1.0], "wolf": [0.5, 1.0, -0.5], "kitten": [-1.0, -0.3, 1.0]}
for first, second in [("cat", "kitten"), ("cat", "wolf"), ("kitten", "wolf")]:
    print(f"{first} · {second} = {np.dot(animals[first], animals[second]):.2f}")

# %% [markdown] id="02-embedding"
r"""
## Every token has a vector

The model does the same, only that nobody chose what its numbers mean. In its table `wte` (*word token embedding*) each
token has a row, its **embedding**; these numbers were adjusted, like all others in the model, while it read.

A long vector makes large dot products. To compare directions only, divide both by their lengths
$\lVert a \rVert = \sqrt{a \cdot a}$ first; the result lies between $-1$ and $1$.

**Guess, then run.** Which tokens point most nearly in the direction of ` king`? of ` three`? of ` gold`?
"""

# %% id="02-neighbours"
table = model.parameters["wte.weight"].take(np.arange(tokenizer.vocab_size), axis=0)  # [V, C]
print("tokens, numbers for each:", table.shape)

directions = table / np.linalg.norm(table, axis=1, keepdims=True)
for word in [" king", " three", " gold", " said", " wolf"]:
    (i,) = tokenizer.encode(word)
    agreement = directions @ directions[i]  # [V, C] @ [C] -> [V]: all dot products at once
    nearest = np.argsort(-agreement)[1:7]  # the first is the token itself
    print(f"{word:>6}: " + ", ".join(f"{tokenizer.decode([j]).strip()} {agreement[j]:.2f}" for j in nearest))
    assert np.isclose(agreement[i], agreement.max()) and agreement.max() < 1.0001

# %% [markdown] id="02-embedding-read"
r"""
Nobody told the model that kings and queens belong together. It read them in similar places, and that made their rows
similar.

## A guesser of your own

Now for guessing. To see every number, take letters as tokens for a while: 26 letters, and one sign for everything else.
The text to learn from is written by our model, since a course needs no other; put a file of your own here if you like.
"""

# %% id="02-text"
start = [tokenizer.eot_id]  # <|endoftext|>, after which a new tale begins
options = [Options(max_new_tokens=450, temperature=0.9, min_p=0.02, seed=seed, stop_tokens=()) for seed in range(16)]
tales = [[] for _ in options]
for number, moment in generate_batch(model, [Request(start, o) for o in options], rows=16):
    tales[number].append(moment.id)
story = "".join(tokenizer.decode(ids) for ids in tales).replace("<|endoftext|>", " ")
# story = open("my_file.txt", encoding="utf-8").read()

LETTERS = "abcdefghijklmnopqrstuvwxyz "
letters = re.sub("[^a-z]+", " ", story.lower())
learn, test = letters[: len(letters) * 7 // 8], letters[len(letters) * 7 // 8 :]
print(f"{len(learn)} letters to learn from, {len(test)} others to test with\n")
print(learn[:300])

# %% [markdown] id="02-bigram"
r"""
The simplest guesser looks at one letter, and has counted what came after it. A pair of neighbours is a **bigram**, and
the counts form a table: row = this letter, column = the next one. Divide every row by its sum and it holds
probabilities.

**Guess, then run.** Which letter follows *q*? What follows *h*? After which letters does a word end most often?
"""

# %% id="02-counts"
V = len(LETTERS)
learn_ids, test_ids = ([LETTERS.index(letter) for letter in text] for text in (learn, test))

counts = np.zeros((V, V))
np.add.at(counts, (learn_ids[:-1], learn_ids[1:]), 1)
assert counts.sum() == len(learn) - 1

P = (counts + 1) / (counts + 1).sum(axis=1, keepdims=True)  # why + 1? See below
assert np.allclose(P.sum(axis=1), 1)

names = [*LETTERS[:-1], "␣"]
_, ax = pyplot.subplots(figsize=(7.5, 6.5), layout="constrained")
plots.heat_map(100 * P, names, names, ax=ax)
ax.set(xlabel="next letter (␣: a space or any other sign)", ylabel="this letter")
ax.figure.colorbar(ax.images[0], label="probability of the next letter (%)")
best = ", ".join(f"{names[i]} by {names[P[i].argmax()]} ({P[i].max():.0%})" for i in range(V))
plots.show(ax, f"Heat map of 27 by 27 letters, dark is likely. Each letter is most often followed thus: {best}.")

# %% [markdown] id="02-guess"
r"""
One row of this picture is a guess. To look a row up by multiplication, write the letter as a vector with a single 1, in
its own place: a **one-hot vector**. Its product with the table adds up the rows, each times 0 except one, and so picks
that row.
"""

# %% id="02-one-hot"
one_hot = np.zeros(V)
one_hot[LETTERS.index("h")] = 1
guess = one_hot @ P  # [V] @ [V, V] -> [V]
assert np.array_equal(guess, P[LETTERS.index("h")])
print("after h:", ", ".join(f"{names[i]} {guess[i]:.1%}" for i in np.argsort(-guess)[:5]))

# %% [markdown] id="02-softmax"
r"""
## From any numbers to probabilities

Counts are probabilities already, almost. But a model multiplies and adds, and what comes out may be any numbers,
negative ones too. Such a score, one for each token, is a **logit**. **Softmax** turns logits into probabilities: make
all positive with $e^x$, then divide by the sum.

$$\operatorname{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$

**Guess, then run.** Three tokens have the logits 2, 1 and 0. Is the first one twice as likely as the second? And what
if the logits are 102, 101, 100?
"""

# %% id="02-softmax-of-three"
for logits in ([2.0, 1.0, 0.0], [102.0, 101.0, 100.0], [20.0, 10.0, 0.0], [0.0, 0.0, 0.0]):
    print(logits, "->", softmax(np.array(logits)).round(4))

ratio = softmax(np.array([2.0, 1.0, 0.0]))[0] / softmax(np.array([2.0, 1.0, 0.0]))[1]
print("\nthe first is", ratio.round(4), "times as likely as the second; e is", round(np.e, 4))
assert np.isclose(ratio, np.e)

# %% [markdown] id="02-softmax-read"
r"""
Only *differences* count: a lead of 1 makes $e$ times as likely, a lead of 10 makes $e^{10}$ times. Adding the same
number to all logits changes nothing, $\operatorname{softmax}(x + c) = \operatorname{softmax}(x)$, because
$e^{x+c} = e^c e^x$ and $e^c$ cancels.

Softmax keeps the order, but it is not "the maximum": the others get their share.

That $c$ is free has a use. **Guess, then run.** What does the formula, typed in as it stands, give for logits around
1000?
"""

# %% id="02-overflow"
logits = np.array([1002.0, 1001.0, 1000.0])
with np.errstate(over="ignore", invalid="ignore"):
    print("as it stands:     ", np.exp(logits) / np.exp(logits).sum())
shifted = logits - logits.max()
print("largest taken off:", np.exp(shifted) / np.exp(shifted).sum())
assert np.allclose(softmax(logits), softmax(shifted))

# %% [markdown] id="02-model-logits"
r"""
$e^{1000}$ is too large for the computer, and infinity divided by infinity is not a number (`nan`). Taking off the
largest logit first avoids it and changes nothing else.

Where do the model's logits come from? All its work ends in one vector $x$ for the text so far, and the logit of a token
is the dot product of $x$ with *that token's embedding*. So the model points in the direction of what it expects.
"""

# %% id="02-model-logits-shown"
ids = tokenizer.encode("The cat sat on the")
trace = model.trace(ids)  # every number on the way, by name
x = trace["ln_f"][0, -1]  # [C]: the last vector, at the last token
logits = table @ x  # [V, C] @ [C] -> [V]
assert np.allclose(logits, trace["logits"][0, -1], atol=1e-3)

probabilities = softmax(logits)
for i in np.argsort(-logits)[:5]:
    print(f"{tokenizer.decode([i])!r:<10} logit {logits[i]:7.3f}   probability {probabilities[i]:.4f}")

# %% [markdown] id="02-cross-entropy"
r"""
## How good is a guess?

The next letter comes, and the guesser had given it a probability $p$. A good guesser gives large $p$ to what really
comes. The usual measure is the **loss** $-\ln p$: nothing lost if it was sure and right ($p = 1$), and more and more
the less it believed in what came. Its unit, with the natural logarithm, is the *nat*.

The mean loss over a text is the **cross-entropy**, and $e^{\text{cross-entropy}}$ the **perplexity**: as many equally
likely choices would be as hard to guess.

**Guess, then run.** A guesser that knows nothing gives $1/27$ to each of 27 letters. What is its perplexity? What will
the bigram table reach on text that it has not counted: 20, 10, 5?
"""

# %% id="02-perplexity"
guessers = {
    "knows nothing": np.full((V, V), 1 / V),
    "letters by how common": np.tile((np.bincount(learn_ids, minlength=V) + 1) / (len(learn_ids) + V), (V, 1)),
    "bigram table": P,
}
perplexity = {}
for name, guesser in guessers.items():
    losses = -np.log(guesser[test_ids[:-1], test_ids[1:]])  # P(next | this), for every pair of the text
    perplexity[name] = np.exp(losses.mean())
    print(f"{name:<22} cross-entropy {losses.mean():.3f} nats, perplexity {perplexity[name]:6.2f}")

assert np.isclose(perplexity["knows nothing"], V)
assert perplexity["bigram table"] < perplexity["letters by how common"] < V

# %% [markdown] id="02-zero"
r"""
Knowing one letter helps. And now the $+ 1$ in the table: without it, a pair that never occurred while counting has
probability 0. If it then comes, the loss is $-\ln 0$, infinite, and one such pair spoils the whole mean. *Never say
never*: softmax cannot, since $e^x > 0$. (The price shows in the pale rows of the picture. A letter as rare as *q* has
been counted so seldom that the $27$ ones drown its few counts.)

On a computer, though, $e^x$ can *become* 0, where $x$ lies far below the largest logit. So one does not compute $p$
first and $\ln p$ then, but the logarithm at once, which needs no small number:

$$\ln \operatorname{softmax}(x)_i = x_i - \ln \sum_j e^{x_j}$$

**Guess, then run.** Two tokens have the logits 0 and $-1000$. What is $\ln p$ of the second, by head? What does the
detour by way of $p$ give?
"""

# %% id="02-log-softmax"
logits = np.array([0.0, -1000.0])
with np.errstate(divide="ignore"):
    print("by way of p:", np.log(softmax(logits)))
print("at once:    ", log_softmax(logits))
assert np.allclose(log_softmax(logits), [0, -1000])

# %% [markdown] id="02-log-softmax-read"
r"""
The library's `cross_entropy` does it so. It takes logits; those of the table are the logarithms of its probabilities:
"""

# %% id="02-cross-entropy-of-logits"
losses = cross_entropy(np.log(P)[test_ids[:-1]], test_ids[1:])  # logits [T-1, V], targets [T-1] -> [T-1]
assert np.allclose(losses, -np.log(P[test_ids[:-1], test_ids[1:]]))
print("largest loss, in nats:", losses.max().round(2))
print("letters in the text:  ", len(test_ids))
print("losses:               ", len(losses))

# %% [markdown] id="02-mistake-count"
r"""
## Find the mistake: how many predictions?

In print:

> *The loss of a text of $T$ tokens is the sum $-\sum_{t=1}^{T} \ln P(w_t \mid w_1 \dots w_{t-1})$.*

Compare with the numbers of letters and of losses above. What would the term for $t = 1$ be?

**What is true.** $T$ tokens give $T - 1$ predictions: nothing stands before the first, so no probability was given to
it. The sum starts at $t = 2$, and the mean divides by $T - 1$. The exception: when texts start with a special token,
here `<|endoftext|>`, it stands before the first, and *it* is the one that is not predicted. What happens if somebody
divides by $T$ all the same?
"""

# %% id="02-mistake-count-shown"
for T in [2, 5, 100]:
    few = losses[: T - 1]
    print(f"{T:>3} letters: right {few.mean():.3f} nats, divided by T {few.sum() / T:.3f}: too low by {1 / T:.0%}")
    assert np.isclose(few.sum() / T, few.mean() * (1 - 1 / T))

# %% [markdown] id="02-one-is-not-enough"
r"""
## One token is not enough

Let the table write: draw a letter from the row of the last one, again and again.

**Guess, then run.** Words? Nearly words?
"""

# %% id="02-babble"
rng = np.random.default_rng(0)
letter, babble = LETTERS.index(" "), ""
for _ in range(150):
    letter = rng.choice(V, p=P[letter])
    babble += LETTERS[letter]
print(babble)

# %% [markdown] id="02-mistake-previous"
r"""
## Find the mistake: what does the next word depend on?

In print:

> *The next word depends on the previous word only.*

That describes the table. Does it describe the model? Here is a test that needs no theory: let the model guess tokens of
its tales, and allow it to see only the last $k$ tokens before each.

**Guess, then run.** If the claim were true, what would the curve look like? What do you expect: after how many tokens
does more no longer help?
"""

# %% id="02-context"
longest = 64
tale = np.array(tokenizer.encode(story)[:450])
places = np.arange(longest, len(tale), 3)  # the tokens to be guessed
ks = [1, 2, 4, 8, 16, 32, longest]
losses = []
for k in ks:
    contexts = tale[places[:, None] - np.arange(k, 0, -1)]  # [B, k]: the k tokens before each place
    logits = np.concatenate([model(rows, last=True)[:, -1] for rows in np.array_split(contexts, 4)])  # [B, V]
    losses.append(cross_entropy(logits, tale[places]).mean())
    print(f"the last {k:>3} tokens: {losses[-1]:.3f} nats, perplexity {np.exp(losses[-1]):8.1f}")

_, ax = pyplot.subplots(figsize=(6.5, 3.8), layout="constrained")
ax.plot(ks, losses, "o-", color="black")
ax.set(xscale="log", xticks=ks, xticklabels=ks, xlabel="tokens the model may see", ylabel="cross-entropy (nats a token)")
ax.minorticks_off()
ax.set_title(f"{len(places)} tokens guessed, from more and more context")
ax.spines[["top", "right"]].set_visible(False)
plots.show(ax, f"A falling curve: cross-entropy {losses[0]:.2f} nats with one token of context, {losses[-1]:.2f} with {longest}.")
assert losses[0] > losses[2] > losses[-1]

# %% [markdown] id="02-mistake-previous-true"
r"""
A flat line would have meant that the claim is true. **What is true:** the next token depends on *all* earlier tokens
that the model can see, its **context**. The nearest matter most, and far ones still help a little.

(One could make the table larger instead: a row for every *two* letters, or three. With 27 letters and three of context
that is $27^3$ rows; with a vocabulary of $V$ tokens and $k$ of context, $V^k$. No text is long enough to fill them.)
The model needs another way to use its context. That is [chapter 03](03_attention.ipynb).

## Find the mistake: which candidates?

In print:

> *For "The cat sat on the" the candidates are: mat, hat, mat.*

Without running anything: what is wrong with the list? Then: how many candidates are there, and is *mat* one of them?
"""

# %% id="02-candidates"
ids = tokenizer.encode("The cat sat on the")
logprobs = next_logprobs(model, ids)
print(f"{len(logprobs)} candidates, all different; together {np.exp(logprobs).sum():.4f}\n")

for word in [" mat", " hat", " throne"]:
    parts = tokenizer.encode(word)
    steps = [np.exp(next_logprobs(model, ids + parts[:n])[part]) for n, part in enumerate(parts)]
    product = " x ".join(f"{p:.5f} ({tokenizer.decode([part])!r})" for p, part in zip(steps, parts))
    print(f"P({word!r}) = {product} = {np.prod(steps):.7f}")
    assert np.isclose(np.log(np.prod(steps)), continuation_logprob(model, ids, parts), atol=1e-3)

# %% [markdown] id="02-candidates-true"
r"""
**What is true.** The candidates are all $V$ tokens of the vocabulary, each exactly once, and their probabilities add up
to 1: *mat* cannot be there twice. And a *word* need not be a candidate at all. If it consists of several tokens, its
probability is a product: that of the first token, times that of the second given the first, and so on:

$$P(w_1 w_2 \mid \text{text}) = P(w_1 \mid \text{text}) \cdot P(w_2 \mid \text{text}, w_1)$$
"""

# %% [markdown] id="02-exercises"
r"""
## Exercises

    minillm exercises check softmax_by_hand
    minillm exercises check log_softmax
    minillm exercises check softmax
    minillm exercises check cross_entropy

Ask yourself for each: what must happen for logits of 1000, and for a whole batch of rows at once?

On paper: a guesser gives the letters that come the probabilities 1/2, 1/4 and 1/8. What are its cross-entropy and
perplexity? (Use $\ln 2 = 0.693$.)
"""

# %% id="02-on-paper"
p = np.array([1 / 2, 1 / 4, 1 / 8])
print(-np.log(p).mean(), "nats, perplexity", np.exp(-np.log(p).mean()))

# %% [markdown] id="02-sources"
r"""
## Sources

- [A Mathematical Theory of Communication](https://doi.org/10.1002/j.1538-7305.1948.tb01338.x), Shannon 1948: tables of
  letter pairs, text drawn from them, and entropy.
- [Speech and Language Processing](https://web.stanford.edu/~jurafsky/slp3/), Jurafsky and Martin, chapter 3: n-grams,
  perplexity, and what to do about zeros.
- [Using the Output Embedding to Improve Language Models](https://arxiv.org/abs/1608.05859), Press and Wolf 2017: why
  the table that reads tokens also guesses them.
"""
