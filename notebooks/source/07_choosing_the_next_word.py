# %% [markdown] id="07-title"
r"""
# 07 · Choosing the next word

A pass of the model ends in probabilities. It does not say which token to take. That choice is a small piece of code outside
the model, and it decides whether the same model bores, babbles or tells a story.

This chapter tries the usual ways to choose. Then it asks what one could choose *best*, turns the question into one that can
be answered exactly, on a vocabulary so small that all texts can be listed, and judges the usual ways against that answer.

After this chapter you can

- choose a token as the likeliest, by dice, and by dice from a shortened list, and say what each does to the text;
- explain why the most probable text is not the one to wish for;
- state the choice of words as a game of states, actions and rewards, and solve a small one by hand;
- measure how far the usual ways of choosing stay behind the optimum.

30 minutes, exercises apart.
"""

# %% id="07-setup"
import dataclasses
import itertools

import numpy as np
from matplotlib import pyplot

import minillm
from minillm import plots
from minillm.decoding import filters
from minillm.decoding.scoring import score
from minillm.ops import log_softmax, softmax
from minillm.twins import set_threads

set_threads(1)  # the matrices are small: a second thread would mostly wait
model, tokenizer = minillm.load("tales", kernels="numpy")  # the readable functions
config, V = model.config, model.config.vocab_size
start = tokenizer.encode("Once upon a time there was a")
print(model)

# %% [markdown] id="07-greedy"
r"""
## The likeliest, always

The simplest choice is the token with the largest probability, each time. It is called **greedy decoding**.

**Guess, then run.** Let it write a hundred tokens. What will strike you about the text?
"""

# %% id="07-greedy-run"
greedy = model.generate(start, 100, temperature=0).tolist()
print(tokenizer.decode(greedy))


def repeated(ids, n=3):
    """The share of all n-token pieces that have occurred before in the text."""
    pieces = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(pieces)) / len(pieces)


print(f"\npieces of three tokens that are repetitions: {repeated(greedy):.0%}")

# %% [markdown] id="07-sampling"
r"""
It goes round in circles. Once a phrase has been written, it is likelier to come again, and greedy always takes the likeliest.
Some circles it leaves after a few rounds; from others there is no way out. ("The cat sat on the", continued at the end of
[chapter 06](06_one_token_at_a_time.ipynb), fell into one.)

## Throwing dice

The other extreme: draw the token at random, each with the probability that the model gives it. This is **sampling**. To
draw, lay the probabilities end to end on a line from 0 to 1, and let $u$ be a random point on it; the token on whose
stretch $u$ falls is chosen.

**Guess, then run.** Four tokens of probability 0.5, 0.25, 0.15 and 0.1. Which is chosen for $u = 0.1$, $0.6$, $0.95$? And
how often will each come up in 10,000 draws?
"""

# %% id="07-sampling-run"
probs = np.array([0.5, 0.25, 0.15, 0.1])
print([filters.choose(probs, u) for u in (0.1, 0.6, 0.95)])
rng = np.random.default_rng(0)
counts = np.bincount([filters.choose(probs, rng.random()) for _ in range(10_000)], minlength=4)
print("expected", 10_000 * probs, "drawn", counts)
assert [filters.choose(probs, u) for u in (0.1, 0.6, 0.95)] == [0, 1, 3]
assert (np.abs(counts - 10_000 * probs) < 5 * np.sqrt(10_000 * probs * (1 - probs))).all()  # five standard deviations

sampled = model.generate(start, 100, temperature=1.0, min_p=0, seed=1).tolist()
print("\n" + tokenizer.decode(sampled))
print(f"\npieces of three tokens that are repetitions: {repeated(sampled):.0%}; greedy: {repeated(greedy):.0%}")
assert repeated(sampled) < repeated(greedy)

# %% [markdown] id="07-temperature"
r"""
No circles now, but less sense. Each unlikely token is drawn rarely, but there are thousands of them, and together they come
up often. One odd token then derails what follows.

## Temperature

Between the two extremes lies a dial. Divide the logits by a number $t > 0$, the **temperature**, before softmax:

$$p_i = \frac{e^{z_i / t}}{\sum_j e^{z_j / t}}$$

**Guess, then look.** What becomes of the probabilities as $t \to 0$? As $t \to \infty$? In the picture: will $t = 0.5$
raise or lower the likeliest token?
"""

# %% id="07-temperature-picture"
logits = model(start)[-1]
best = np.argsort(-logits)[:8]
figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
styles = {0.5: {"facecolor": "0.25"}, 1.0: {"facecolor": "0.75"}, 2.0: {"facecolor": "white", "hatch": "///"}}
for place, (t, style) in enumerate(styles.items()):
    p = softmax(filters.temperature(logits, t))
    entropy = -(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum()
    label = f"t = {t}: entropy {entropy:.2f} nats"
    axes.bar(np.arange(8) + 0.27 * (place - 1), 100 * p[best], 0.27, edgecolor="black", lw=0.6, label=label, **style)
axes.set_xticks(range(8), [repr(tokenizer.decode([i])) for i in best])
axes.set(xlabel="the eight likeliest next tokens", ylabel="probability (%)")
axes.legend(frameon=False)
top = [softmax(logits / t).max() for t in styles]
plots.show(
    figure,
    f"Bars of the eight likeliest tokens at three temperatures. The likeliest has {top[0]:.0%} at 0.5, {top[1]:.0%} at 1.0 and "
    f"{top[2]:.0%} at 2.0: a low temperature sharpens, a high one flattens.",
)
assert top[0] > top[1] > top[2]
assert softmax(logits / 1e-4).max() > 0.99 and softmax(logits / 1e6).max() < 1.01 / V

# %% [markdown] id="07-top-k"
r"""
Low temperature sharpens, and at $t \to 0$ all probability goes to the likeliest: greedy. High temperature flattens, and at
$t \to \infty$ all $V$ tokens are alike: noise. The *order* of the tokens never changes.

## Cutting the tail

Temperature treats the whole list alike. But the trouble was the tail: thousands of tokens that hardly fit. Two filters cut
it off; one then samples from what is left.

**Top-k** keeps the $k$ likeliest tokens. The logits of all others become $-\infty$, so that softmax gives them nothing and
shares everything out among the rest.
"""

# %% [markdown] id="07-top-p"
r"""
**Top-p** (or *nucleus*) keeps the fewest likeliest tokens whose probabilities together reach $p$. Go down the list from the
likeliest, add up, and stop with the token that reaches $p$; it stays, too.

**Guess, then run.** After "They were very happ" there is hardly a choice, in the middle of a word; after "He saw a" nearly
anything may follow. How many tokens will top-k with $k = 20$ keep in each case? And top-p with $p = 0.9$?
"""

# %% id="07-filters-run"
figure, axes = pyplot.subplots(figsize=(8.5, 3.8), layout="constrained")
kept = {}
for text, style in (("They were very happ", "-"), ("He saw a", "--")):
    z = model(tokenizer.encode(text))[-1]
    kept[text] = {"top-k": np.isfinite(filters.top_k(z, 20)).sum(), "top-p": np.isfinite(filters.top_p(z, 0.9)).sum()}
    print(f"{text!r:22} kept of {V:,}: {kept[text]['top-k']} by top-k, {kept[text]['top-p']} by top-p")
    axes.plot(np.arange(1, V + 1), np.cumsum(np.sort(softmax(z))[::-1]), style, color="black", label=f"after {text!r}")
axes.axvline(20, color="0.5", lw=1, ls="-.", label="top-k: k = 20")
axes.axhline(0.9, color="0.5", lw=1, ls=":", label="top-p: p = 0.9")
axes.set(xscale="log", ylim=(0, 1.02), xlim=(0.9, V), xlabel="so many likeliest tokens", ylabel="have this probability together")
axes.legend(fontsize="small", loc="lower right")
plots.show(
    figure,
    "The probability of the n likeliest tokens together, over n on a logarithmic scale. After 'They were very happ' it starts "
    f"high and reaches 0.9 with {kept['They were very happ']['top-p']} tokens; after 'He saw a' it climbs slowly and needs "
    f"{kept['He saw a']['top-p']}.",
)
assert kept["They were very happ"]["top-p"] < 20 < kept["He saw a"]["top-p"]

# %% [markdown] id="07-filters-why"
r"""
Top-k always keeps as many: too many where one token is certain, too few where the field is open. Top-p follows the model's
own certainty.

**Guess, then run:** by eye, will you tell these four texts apart?
"""

# %% id="07-filters-text"
for what, options in {
    "temperature 0.7": {"temperature": 0.7},
    "top-k 20": {"temperature": 1.0, "top_k": 20},
    "top-p 0.9": {"temperature": 1.0, "top_p": 0.9},
    "temperature 2": {"temperature": 2.0},
}.items():
    print(f"--- {what}\n{tokenizer.decode(model.generate(start, 40, min_p=0, seed=2, **options))}\n")

# %% [markdown] id="07-beam"
r"""
## The most probable text

All of these choose one token at a time. But a text is judged as a whole. Should we not look for the text with the largest
probability, $\prod_t P(w_t \mid w_{<t})$? Greedy does not find it: a likely first token may lead where nothing likely
follows.

**Beam search** keeps not one text but the $b$ likeliest so far, its *beam*. Each turn it extends all of them by every
token, and again keeps the best $b$. With $b = 1$ it is greedy.

**Guess, then run.** We compare greedy, beams and a sampled text, 40 new tokens each. Which has the largest probability?
Which is the best text?
"""


# %% id="07-beam-run"
def logprob_of_new(ids):
    """log P of each new token, given all before."""
    return score(model, ids).logprobs[len(start) - 1 :]


n, texts = 40, {}
texts["greedy"] = model.generate(start, n, temperature=0, stop_tokens=())
for b in (2, 4, 8):
    texts[f"beam of {b}"] = model.generate(start, n, num_beams=b, stop_tokens=())
texts["sampled"] = model.generate(start, n, temperature=1.0, min_p=0, seed=4, stop_tokens=())
sums = {what: float(logprob_of_new(ids).sum(dtype=np.float64)) for what, ids in texts.items()}
for what, ids in texts.items():
    print(f"--- {what}: log P = {sums[what]:.1f}, repeated {repeated(ids.tolist()):.0%}\n{tokenizer.decode(ids)}\n")
assert min(sums[what] for what in sums if what != "sampled") > sums["sampled"]
assert repeated(texts["beam of 8"].tolist()) > repeated(texts["sampled"].tolist())

# %% id="07-beam-picture"
figure, axes = pyplot.subplots(figsize=(9, 3.2), layout="constrained")
for what, style in (("sampled", "o-"), ("beam of 8", "s--")):
    face = "black" if what == "sampled" else "white"
    surprise = -logprob_of_new(texts[what])
    label = f"{what}: mean {surprise.mean():.2f}"
    axes.plot(np.arange(1, n + 1), surprise, style, color="black", mfc=face, ms=4, lw=0.8, label=label)
axes.set(xlabel="new token", ylabel="surprise, -log P (nats)", ylim=(0, None))
axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
plots.show(
    figure,
    "The surprise of each new token. Sampled, it jumps between 0 and several nats; the text of the beam stays low.",
)

# %% [markdown] id="07-beam-why"
r"""
The searches win by far in probability, and their text is flat and repeats itself. Compare the surprise, $-\log P$: text as
people write it, and as the model samples it, is full of small surprises; that is what makes it worth reading. A text
without any is very probable and says nothing. (Too many make nonsense, as you have read. A better model can afford more.)
So the most probable text is not the best one to *read*. (For translation, say, where one answer is right, a likely text is
a good one, and beams are in use.)

Still: *how* far from the optimum do the searches stay? For $V$ tokens and $H$ turns there are $V^H$ texts. For our model
and 40 turns nobody can list them. So we make the question small, and first state it properly.

## Decoding as a Markov decision process

A **Markov decision process** is a game for one player. In each turn one is in a *state*, takes an *action*, gets a
*reward*, and comes into the next state, which depends on the state and the action only. One wants the largest sum of
rewards. Decoding is such a game:

| | |
| --- | --- |
| state $s$ | the prefix: all tokens so far |
| action $a$ | the next token |
| next state | the prefix with the token after it, $s a$ |
| reward | $\log P(a \mid s)$ |
| end | after $H$ turns, or at a token that ends the text |

By the chain rule the sum of the rewards is $\log P$ of the text. The **value** of a state is the best sum that can still be
had from it. At the end it is 0; before,

$$\mathcal{V}(s) = \max_a \left[\, \log P(a \mid s) + \mathcal{V}(s a) \,\right]$$

This is Bellman's equation. It is solved from the end backwards: to know what an action is worth one must know what comes
after it. Greedy ignores the second term.

## A game to solve by hand

Three tokens, A, B and C; a text starts with A and has three more tokens. In this game the next token depends on the last
one only:

| after | A | B | C |
| --- | --- | --- | --- |
| A | 0.40 | 0.35 | 0.25 |
| B | 0.15 | 0.60 | 0.25 |
| C | 0.05 | 0.10 | 0.85 |

**Solve it before you run:** which text does greedy write, and how probable is it? Which of the 27 texts is the most
probable? (Work with products of probabilities; logarithms do not change the order. Begin at the end: with one token left,
the best that can follow A, B and C has probability 0.40, 0.60 and 0.85.)

To run the library's own search on this table we need a GPT-2 that computes it. One with empty blocks will do: the residual
stream then carries a token's embedding to the end unchanged, and an unembedding of its own, not tied, turns it into a row of
the table.
"""


# %% id="07-table"
def gpt2_of(table):
    """A GPT-2 whose P(next | ... last) is table[last][next]: embeddings one-hot, blocks that add nothing."""
    n = len(table)
    shape = minillm.GPT2Config(
        vocab_size=n, n_positions=8, n_embd=n, n_layer=1, n_head=1, tie_word_embeddings=False, layer_norm_epsilon=0.0
    )
    parameters = {name: np.zeros(size) for name, size in shape.parameter_shapes().items()}
    parameters["wte.weight"] = np.eye(n)
    parameters["ln_f.weight"] += np.std(np.eye(n)[0])  # undoes what the last layer norm does to a one-hot row
    parameters["ln_f.bias"] += 1 / n
    parameters["lm_head.weight"] = np.log(table).T  # [V,C]
    return minillm.GPT2(shape, parameters)


table = np.array([[0.40, 0.35, 0.25], [0.15, 0.60, 0.25], [0.05, 0.10, 0.85]])
game = gpt2_of(table)
print(softmax(game([0, 1, 2])).round(3))
assert np.allclose(softmax(game([0, 1, 2])), table)

# %% [markdown] id="07-enumerate"
r"""
Now Bellman's equation, as it stands: all prefixes of a length at once, from the longest to the shortest.
"""


# %% id="07-enumerate-run"
def solve(model, first, turns, reward=lambda logp: logp):
    """By enumeration: the value of every prefix, and log P of each prefix's last token."""
    n, values, logprobs = model.config.vocab_size, {}, {}
    for length in range(turns, -1, -1):
        states = [(*first, *rest) for rest in itertools.product(range(n), repeat=length)]
        if length == turns:
            values |= dict.fromkeys(states, 0.0)
            continue
        for state, row in zip(states, log_softmax(model(np.array(states)))[:, -1]):  # [states, V]
            values[state] = max(reward(row[a]) + values[(*state, a)] for a in range(n))
            logprobs |= {(*state, a): float(row[a]) for a in range(n)}
    return values, logprobs


def best_text(values, logprobs, first, reward=lambda logp: logp):
    """Follow the action that is worth most, from the first state to an end."""
    state = first
    while actions := [s for s in logprobs if s[:-1] == state]:
        state = max(actions, key=lambda s: reward(logprobs[s]) + values[s])
    return state


def total(text, logprobs):
    """log P of a text: the sum of its rewards."""
    return sum(logprobs[text[:i]] for i in range(1, len(text) + 1) if text[:i] in logprobs)


root = (0,)  # the prefix A
values, logprobs = solve(game, root, 3)
found = {"optimum": best_text(values, logprobs, root)}
for b in (1, 2, 3):
    text = game.generate(root, 3, num_beams=b, temperature=0, stop_tokens=())
    found["greedy" if b == 1 else f"beam of {b}"] = tuple(text.tolist())
for what, text in found.items():
    print(f"{what:10} {''.join('ABC'[a] for a in text)}   P = {np.exp(total(text, logprobs)):.6f}")
assert np.isclose(np.exp(values[root]), 0.25 * 0.85 * 0.85) and np.isclose(np.exp(total(found["greedy"], logprobs)), 0.4**3)
assert found["optimum"] == found["beam of 3"] == (0, 2, 2, 2) and found["beam of 2"] == (0, 1, 1, 1)

# %% [markdown] id="07-prefix-tree"
r"""
Here is the whole game: every prefix is a node. On an edge stands the probability of the token; above a node the value of
the prefix, as a probability, $e^{\mathcal{V}}$; at the right end the probability of the whole text. Follow the three lines.
"""

# %% id="07-tree-picture"
figure, axes = pyplot.subplots(figsize=(9, 9.5), layout="constrained")
beside = {prefix: np.exp(value if len(prefix) < 4 else total(prefix, logprobs)) for prefix, value in values.items()}
drawn = {what: found[what] for what in ("optimum", "greedy", "beam of 2")}
plots.prefix_tree({prefix: np.exp(logp) for prefix, logp in logprobs.items()}, "ABC", beside, drawn, axes)
plots.show(
    figure,
    "A tree of all texts of four tokens from A, B, C that start with A: 3, 9 and 27 nodes. Greedy, dashed, goes A A A A to a "
    "text of probability 0.064; the beam of 2, dotted, A B B B to 0.126; the optimum, thick, A C C C to 0.181.",
)

# %% [markdown] id="07-tree-why"
r"""
Greedy takes A, for 0.40, again and again, and ends with $0.4^3 = 0.064$. What comes after A is worth less than what comes
after C; greedy does not look. The optimum, ACCC, has $0.25 \cdot 0.85^2 = 0.180625$: the *least* likely first step leads to
where the road is good. A beam of 2 has dropped it after one turn, and nothing brings it back. A beam of 3 keeps everything
in the first turn, and finds it.

## Find the mistake: state and reward

> *As a decision process, the state is the position in the text and the reward is accuracy.*

**Find the two flaws.** Then guess: do two prefixes of the same length have the same value? Will the text with the largest
sum of *probabilities* (a score of "how right" each step is) be the most probable text?
"""

# %% id="07-mdp-mistake"
for prefix in ((0, 0), (0, 1), (0, 2)):
    row = ", ".join(f"{'ABC'[a]} {np.exp(logprobs[(*prefix, a)]):.2f}" for a in range(3))
    print(
        f"position 2, prefix {''.join('ABC'[a] for a in prefix)}: next {row}; value as a probability {np.exp(values[prefix]):.4f}"
    )

other, probability = gpt2_of(np.array([[0.45, 0.15, 0.40], [0.05, 0.80, 0.15], [0.35, 0.40, 0.25]])), {}
print()
for what, reward in (("sum of log P", lambda logp: logp), ("sum of P", np.exp)):
    v, logp = solve(other, root, 3, reward)
    text = best_text(v, logp, root, reward)
    probability[what] = np.exp(total(text, logp))
    print(f"another table, best by {what:12} {''.join('ABC'[a] for a in text)}   P of the text {probability[what]:.4f}")
assert probability["sum of P"] < probability["sum of log P"]
assert len({round(values[p], 9) for p in ((0, 0), (0, 1), (0, 2))}) == 3

# %% [markdown] id="07-mdp-true"
r"""
**What is true.** The state is the *prefix*. Prefixes of the same length have different next tokens and different values;
the position alone does not tell what may come. (In this game the last token would be enough. For GPT-2 nothing less than
the whole prefix is, as you will see below.) And the reward is the *log-probability*. While a text is being written there is
no right answer to be accurate about. Nor can one add up probabilities: they multiply, and the sum picks another text than
the most probable one.

## GPT-2 in a tiny world

Now the real model. We take all of its layers, but leave it only five of its tokens: five rows of `wte`, the same for
embedding and unembedding. What it says is then its own opinion, shared out among five words. With 5 turns there are $5^5 =
3125$ texts, and all can be listed.

**Guess, then run.** Will greedy find the best? From which width on *must* a beam find it?
"""


# %% id="07-tiny"
def tiny_world(words):
    """The bundled model with a vocabulary of a few of its tokens."""
    ids = [i for word in words for i in tokenizer.encode(word)]
    assert len(ids) == len(words), "each word must be one token"
    shape = dataclasses.replace(config, vocab_size=len(ids), bos_token_id=None, eos_token_id=None)
    return minillm.GPT2(shape, model.parameters | {"wte.weight": model.parameters["wte.weight"][ids]})


words, turns = ["Once", " upon", " a", " time", " the"], 5
world = tiny_world(words)
values, logprobs = solve(world, root, turns)
optimum = best_text(values, logprobs, root)
print(f"{'optimum':12} {values[root]:.4f}  {''.join(words[a] for a in optimum)}")
for b in (1, 2, 3, 4, 8, 5 ** (turns - 1)):
    text = tuple(world.generate(root, turns, num_beams=b, temperature=0, stop_tokens=()).tolist())
    behind = values[root] - total(text, logprobs)
    what = "greedy" if b == 1 else f"beam of {b}"
    print(f"{what:12} {total(text, logprobs):.4f}  {''.join(words[a] for a in text)}")
    assert behind > -1e-4
assert behind < 1e-4  # so wide that nothing was ever dropped

# %% [markdown] id="07-tiny-state"
r"""
A beam of $5^{4} = 625$ holds all prefixes before the last turn, drops nothing, and must be exact. Smaller ones may or may
not be; in so easy a world even greedy may find the best.

And is the last token enough to know what follows, or the position? Here are prefixes of the same length *and* with the same
last token:
"""

# %% id="07-tiny-state-run"
same = [p for p in values if len(p) == 4 and p[-1] == 4]
for prefix in sorted(same, key=lambda p: -values[p])[:: len(same) // 4]:
    likeliest = max(range(5), key=lambda a: logprobs[(*prefix, a)])
    shown = f"{words[likeliest]!r} with P = {np.exp(logprobs[(*prefix, likeliest)]):.2f}"
    print(f"{''.join(words[a] for a in prefix)!r:28} value {values[prefix]:7.3f}, likeliest next {shown}")
assert max(values[p] for p in same) - min(values[p] for p in same) > 0.1

# %% [markdown] id="07-regret"
r"""
Neither is enough: the values differ, and so do the probabilities of what comes next.

### Many tiny worlds

One world proves little. So take thirty: each of four tokens, drawn by a seeded die from a list of common ones, and four
turns. How far a method stays behind the optimum, $\mathcal{V} - \log P$ of its text, is called its **regret**.

**Guess, then look.** In what share of the worlds is greedy optimal? How wide must the beam be until its mean regret is gone?
"""

# %% id="07-regret-run"
common = [
    " the",
    " and",
    " a",
    " of",
    " to",
    " king",
    " old",
    " said",
    " was",
    " he",
    " she",
    " little",
    " great",
    ".",
    ",",
    " man",
]
rng, widths, worlds, turns = np.random.default_rng(7), (1, 2, 3, 4, 64), 30, 4
regret = np.zeros((worlds, len(widths)))
for number in range(worlds):
    world = tiny_world([common[i] for i in rng.choice(len(common), 4, replace=False)])
    values, logprobs = solve(world, root, turns)
    for column, b in enumerate(widths):
        text = tuple(world.generate(root, turns, num_beams=b, temperature=0, stop_tokens=()).tolist())
        regret[number, column] = values[root] - total(text, logprobs)
regret = np.where(np.abs(regret) < 1e-4, 0.0, regret)  # rounding
assert (regret >= 0).all() and (regret[:, -1] == 0).all()
assert regret[:, 0].mean() > regret[:, 1].mean() and 0 < (regret[:, 0] == 0).sum() < worlds
for b, column in zip(widths, regret.T):
    what = "greedy" if b == 1 else f"beam of {b}"
    print(f"{what:11} optimal in {(column == 0).sum():2} of {worlds} worlds; mean regret {column.mean():.3f} nats")

# %% id="07-regret-picture"
figure, axes = pyplot.subplots(figsize=(7.5, 3.4), layout="constrained")
jitter = np.random.default_rng(0).uniform(-0.12, 0.12, regret.shape)
axes.plot(np.arange(len(widths)) + jitter, regret, "o", color="black", mfc="none", ms=4, mew=0.7)
axes.plot(range(len(widths)), regret.mean(axis=0), "_", color="black", ms=34, mew=2.5)
axes.set_xticks(range(len(widths)), ["greedy", *(f"beam of {b}" for b in widths[1:])])
axes.set(ylabel="regret (nats)", title=f"circles: {worlds} worlds; bars: their mean")
listed = ", ".join(f"{b}: {mean:.3f}" for b, mean in zip(widths, regret.mean(axis=0)))
plots.show(figure, f"The regret of thirty worlds for beams of growing width, a circle each. Means in nats by width: {listed}.")

# %% [markdown] id="07-regret-why"
r"""
Greedy is often optimal, and sometimes far behind. A little width repairs most of it, and the full width, $4^3$, all of it.
A beam in between promises nothing: a wider one can even end with a *worse* text than a narrower one. But remember what the
optimum is worth: it is the most probable text, not the best.

## In short

- The model gives probabilities; choosing is separate. Greedy repeats itself, pure sampling derails, temperature goes
  between the two.
- Top-k and top-p cut off the tail; top-p follows the model's certainty.
- Decoding is a Markov decision process: prefixes, tokens, log-probabilities. Its exact solution is known only where all
  texts can be listed.
- Greedy and beam search are shortcuts without a promise. The most probable text is rarely the one to wish for.

## Exercises

    minillm exercises check best_is_not_greedy
    minillm exercises check top_k
    minillm exercises check top_p

And in a terminal, `minillm generate "Once upon a time" --temperature 0.8 --top-p 0.9 --seed 1`; then try `--num-beams 4`.

**Next:** where the time goes (chapters 08 to 11), or how a model learns (12 to 14).

## Sources

- [The Curious Case of Neural Text Degeneration](https://arxiv.org/abs/1904.09751), Holtzman et al. 2019: top-p, and why
  probable text is dull.
- [Hierarchical Neural Story Generation](https://arxiv.org/abs/1805.04833), Fan, Lewis and Dauphin 2018: top-k.
- [If Beam Search is the Answer, What was the Question?](https://arxiv.org/abs/2010.02650), Meister, Vieira and Cotterell
  2020.
- [On NMT Search Errors and Model Errors: Cat Got Your Tongue?](https://arxiv.org/abs/1908.10090), Stahlberg and Byrne 2019:
  exact search, and what it finds.
- *Dynamic Programming*, Bellman 1957: the equation. *The HARPY Speech Recognition System*, Lowerre 1976: beam search.
"""
