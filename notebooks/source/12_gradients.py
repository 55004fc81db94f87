# %% [markdown] id="12-title"
r"""
# 12 · Gradients

A model is a heap of numbers, and nobody chose them. How does one find numbers that make it guess well? By knowing, for
each of them, which way to turn it. After this chapter you can

- find out by trying which way to turn a number, and how far to trust the answer,
- say it for all numbers at once, and walk downhill,
- calculate it instead of trying, one link of a chain after another,
- do so for softmax with cross-entropy, and for a linear map, on paper,
- check every such calculation.

You need chapters 00 to 05. The next chapter trains a whole model with this.
"""

# %% id="12-imports"
import re
import time

import numpy as np
from matplotlib import pyplot

import minillm
from minillm import plots
from minillm.decoding import Options, Request, generate_batch
from minillm.exercises.catalogue.answers import central_difference
from minillm.ops import cross_entropy, softmax
from minillm.ops_backward import cross_entropy_backward, linear_backward
from minillm.training.language import LanguageModel

model, tokenizer = minillm.load()

# %% [markdown] id="12-two-numbers"
r"""
## A model with two numbers

The smallest model that learns something: how many letters of a word have come so far, and does the word end here? It
has two numbers, $w$ and $b$. After $n$ letters the logit of *goes on* is always 0, and the logit of *ends* is

$$z = w n + b$$

Softmax makes probabilities of the two, and cross-entropy says how good they are, as in [chapter
02](02_a_guess_is_a_row_of_numbers.ipynb). The words are from tales that our model writes; put a file of your own here
if you like.
"""

# %% id="12-in-words"
start = [tokenizer.eot_id]  # <|endoftext|>, after which a new tale begins
options = [Options(max_new_tokens=120, temperature=0.9, min_p=0.02, seed=seed, stop_tokens=()) for seed in range(32)]
tales = [[] for _ in options]
for number, moment in generate_batch(model, [Request(start, o) for o in options], rows=32):
    tales[number].append(moment.id)
story = " ".join(tokenizer.decode(ids) for ids in tales).replace("<|endoftext|>", " ")
# story = open("my_file.txt", encoding="utf-8").read()

letters = re.sub("[^a-z]+", " ", story.lower())[:8000]
words = letters.split()
n = np.array([so_far for word in words for so_far in range(1, len(word) + 1)], dtype=np.float64)  # letters so far
ends = np.array([so_far == len(word) for word in words for so_far in range(1, len(word) + 1)]).astype(int)
print(f"{len(words)} words, {len(n)} questions. The first word, {words[0]!r}, asks {len(words[0])} of them:")
for so_far, end in zip(n[: len(words[0])], ends):
    print(f"    after {words[0][: int(so_far)]!r}: n = {so_far:.0f}, it {'ends' if end else 'goes on'}")


def loss(wb):
    """The mean cross-entropy, in nats, of the model whose two numbers are wb = [w, b]."""
    z = wb[0] * n + wb[1]
    return float(cross_entropy(np.stack([np.zeros_like(z), z], axis=-1), ends).mean())  # logits [N, 2]


here = np.array([0.0, 0.0])
print(f"\nloss with w = 0, b = 0: {loss(here):.4f} nats; ln 2 = {np.log(2):.4f}")
assert np.isclose(loss(here), np.log(2))

# %% [markdown] id="12-derivative"
r"""
With both at 0 the model says one half, always. **Guess, then run**: we turn $w$ and leave $b$ at 0. Is a small $w$ above
0 better than 0, or one below? (A word asks a question after each of its letters, and ends once.)
"""

# %% id="12-one-dial"
ws = np.linspace(-0.6, 0.5, 100)
h = 0.01
slope = (loss(here + [h, 0]) - loss(here - [h, 0])) / (2 * h)
_, ax = pyplot.subplots(figsize=(6.5, 3.8), layout="constrained")
ax.plot(ws, [loss(np.array([w, 0.0])) for w in ws], color="black", label="loss")
near = np.array([-0.22, 0.22])
ax.plot(near, loss(here) + slope * near, "--", color="black", label=f"straight line with the slope at w = 0: {slope:.3f}")
ax.plot(0, loss(here), "o", color="black")
ax.set(xlabel="w (b stays 0)", ylabel="loss (nats a question)", title="One number is turned")
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)
plots.show(ax, f"The loss against w: a curve with one lowest point. At w = 0 a straight line touches it, of slope {slope:.3f}.")
assert loss(here - [0.05 * np.sign(slope), 0]) < loss(here)

# %% [markdown] id="12-derivative-read"
r"""
Seen from near enough, the curve is a straight line. The slope of that line is the **derivative** of the loss by $w$,
written $\partial L / \partial w$: how much the loss changes for a small change of $w$, divided by that change. Its sign
says which way to turn: where the line rises to the right, turn $w$ to the left.

Here it is better to the left: most questions are answered "goes on", so one half is too much for *ends*. With $b$ held
at 0, a negative $w$ is the only way to say so.

## Trying it out, and how far to trust it

The slope between two points on either side, $h$ away from $x$, is the **central difference**:
"""

# %% [markdown] id="12-central-differences"
r"""
$$f'(x) \approx \frac{f(x + h) - f(x - h)}{2h}$$

One might as well take the point itself and one neighbour, $\frac{f(x + h) - f(x)}{h}$. Let us try both where we know
the answer: $f(x) = e^x$ has the derivative $e^x$, so at $x = 1$ it is $e$.

**Guess, then run.** If $h$ becomes ten times smaller, how much smaller does the error of each become? And is
$h = 10^{-12}$ better than $h = 10^{-5}$?
"""

# %% id="12-central-differences-error"
hs = 10.0 ** np.arange(-1, -14, -1)
one_sided = [abs((np.exp(1 + h) - np.exp(1)) / h - np.e) for h in hs]
central = [abs(central_difference(lambda x: float(np.exp(x[0])), np.array([1.0]), h)[0] - np.e) for h in hs]

_, ax = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
ax.plot(hs, one_sided, "s--", color="black", mfc="white", label="one side: (f(x + h) - f(x)) / h")
ax.plot(hs, central, "o-", color="black", label="both sides: (f(x + h) - f(x - h)) / 2h")
ax.set(xscale="log", yscale="log", xlabel="h", ylabel="error of the slope", title="Smaller is better, up to a point")
ax.legend(frameon=False, loc="upper center")
ax.spines[["top", "right"]].set_visible(False)
plots.show(
    ax,
    "Errors against h, both logarithmic. Both curves fall towards the left and rise again. One side: lowest error "
    f"{min(one_sided):.0e} at h = {hs[np.argmin(one_sided)]:.0e}; both: {min(central):.0e} at {hs[np.argmin(central)]:.0e}.",
)
assert min(central) < min(one_sided) / 10 and central[-1] > 1000 * min(central)
assert 9 < one_sided[0] / one_sided[1] < 11 and 90 < central[0] / central[1] < 110

# %% [markdown] id="12-central-differences-read"
r"""
From the right to the left: with one side the error falls like $h$, with both sides like $h^2$, since what bends the
curve upwards on one side is taken off again on the other. Then both rise: the two values of $f$ agree in nearly all
their digits, and what is left after subtracting is the rounding of the computer, divided by a tiny $h$. With float64
numbers an $h$ around $10^{-5}$ is good; float32 has so few digits that one should not try.
"""

# %% [markdown] id="12-gradient"
r"""
## Two numbers: a landscape

For each $w$ and $b$ there is a loss. Think of it as a height: a landscape, the **loss surface**, of which we see our
nearest surroundings only. At every point there are two slopes, one towards larger $w$, one towards larger $b$. The
vector of all slopes is the **gradient**:

$$\nabla L = \left( \frac{\partial L}{\partial w}, \frac{\partial L}{\partial b} \right)$$

It points to where the surface rises fastest, and the way down is the opposite one. To go there in small steps is
**gradient descent**:

$$(w, b) \leftarrow (w, b) - \eta \, \nabla L$$

The factor $\eta$ (eta) is the **learning rate**.

**Guess, then run.** From $(0, 0)$, with $\eta$ = 0.1, 0.5 and 1: which gets nearest to the lowest point? And will $w$ end
below 0, where its slope sends it first?
"""


# %% id="12-descent"
def descend(eta, steps, place=here, h=1e-5):
    """The places [steps + 1, 2] that gradient descent passes through."""
    places = [place]
    for _ in range(steps):
        places.append(places[-1] - eta * central_difference(loss, places[-1], h))
    return np.array(places)


paths = {0.1: descend(0.1, 40), 0.5: descend(0.5, 40), 1.0: descend(1.0, 9)}
ends_at = {eta: loss(path[-1]) for eta, path in paths.items()}
for eta, path in paths.items():
    print(f"learning rate {eta}: losses {', '.join(f'{loss(p):.3f}' for p in path[:6])} ...; "
          f"after {len(path) - 1} steps {ends_at[eta]:.3f}, w = {path[-1, 0]:.2f}")  # fmt: skip
assert ends_at[0.5] < ends_at[0.1] < loss(here) and ends_at[1.0] > ends_at[0.5]
assert paths[0.5][1, 0] < 0 < paths[0.5][-1, 0]

# %% id="12-loss-surface"
wide, high = np.linspace(-0.8, 0.8, 41), np.linspace(-2.8, 0.5, 41)
surface = np.array([[loss(np.array([w, b])) for w in wide] for b in high])  # [b, w]

_, ax = pyplot.subplots(figsize=(7.5, 5.2), layout="constrained")
levels = surface.min() + np.array([0.001, 0.005, 0.015, 0.04, 0.08, 0.14, 0.25, 0.45, 0.8, 1.3])
lines = ax.contour(wide, high, surface, levels, colors="0.5", linewidths=0.9)
ax.clabel(lines, fmt="%.2f", fontsize=8)
for (eta, path), (style, face) in zip(paths.items(), (("o-", "black"), ("s--", "white"), ("^:", "0.7"))):
    ax.plot(*path.T, style, color="black", mfc=face, ms=4, lw=1, label=f"learning rate {eta}")
lowest = np.unravel_index(surface.argmin(), surface.shape)
lowest = wide[lowest[1]], high[lowest[0]]
ax.plot(*lowest, "*", color="black", ms=16, mfc="white", label="lowest point")
ax.set(xlim=wide[[0, -1]], ylim=high[[0, -1]], xlabel="w", ylabel="b", title="Loss surface (nats a question), and three paths")
ax.figure.legend(loc="outside lower center", ncols=4, frameon=False)
plots.show(
    ax,
    "Contour lines of the loss over w and b: a long narrow valley that runs slantwise to its lowest point, near "
    f"w = {lowest[0]:.2f}, b = {lowest[1]:.2f}. The paths start at 0, 0 and go to the left first, into the valley. With 0.1 the "
    f"path creeps along the valley, to a loss of {ends_at[0.1]:.3f} in 40 steps; with 0.5 it gets further along, to "
    f"{ends_at[0.5]:.3f}; with 1.0 it jumps from one side of the valley to the other.",
)

# %% [markdown] id="12-loss-surface-read"
r"""
A line joins places of equal height. The surface is a valley: steep across, nearly level along. The gradient does not
know where the lowest point is. It knows the slope *here*, so the paths first go down the steep side, where $w$ becomes
negative, and turn round when $b$ has followed. At the lowest point $w$ is positive: the longer a word is already, the likelier
it ends.

Valleys are the usual shape, also for models with millions of numbers, and they make descent slow. Steps that would be
right for the level way are too large for the steep one, and swing from side to side instead of getting on. ([Chapter
13](13_training.ipynb) has a remedy.)

## Without trying: the chain rule

Trying costs two runs of the model *for every number*. For two numbers that is nothing; our model has millions. But we
wrote the calculation ourselves, so we know what each part of it does to a small change. It is a chain:

$$w \;\longrightarrow\; u = w n \;\longrightarrow\; z = u + b \;\longrightarrow\; L = \ell(z)$$

If $u$ changes $n$ times as fast as $w$, and $z$ as fast as $u$, and $L$ changes $\ell'(z)$ times as fast as $z$, then
$L$ changes $\ell'(z) \cdot 1 \cdot n$ times as fast as $w$. Rates multiply, like those of gear wheels. That is the chain
rule (of calculus; with the chain rule of probability it shares the name only):

$$\frac{\partial L}{\partial w} = \frac{\partial L}{\partial z} \cdot \frac{\partial z}{\partial u} \cdot
\frac{\partial u}{\partial w}$$

**Guess, then run.** One question, $n = 3$ letters, and the word ends. $w = 0.5$, $b = -1$. Which two of the links can
you say without a calculation?
"""


# %% id="12-chain-links"
def ell(z):
    """The loss of one question whose answer is "ends": logits 0 and z."""
    return float(cross_entropy(np.array([0.0, z[0]]), np.array(1)))


letters_so_far, w, b = 3.0, 0.5, -1.0
u = w * letters_so_far
z = u + b
links = {
    "dL/dz": central_difference(ell, np.array([z]), 1e-5)[0],
    "dz/du": central_difference(lambda u: u[0] + b, np.array([u]), 1e-5)[0],
    "du/dw": central_difference(lambda w: w[0] * letters_so_far, np.array([w]), 1e-5)[0],
}
whole = central_difference(lambda w: ell(w * letters_so_far + b), np.array([w]), 1e-5)[0]
print("u =", u, "  z =", z, "  L =", round(ell([z]), 4))
print(" · ".join(f"{name} {value:.4f}" for name, value in links.items()), f"= {np.prod(list(links.values())):.4f}")
print(f"tried on the whole chain: dL/dw {whole:.4f}")
assert np.isclose(np.prod(list(links.values())), whole)

# %% [markdown] id="12-backward"
r"""
Two more rules, and that is all of it:

- **What is used twice gets the sum.** If a number goes two ways to the loss, a change of it arrives both ways, and the
  two effects add up. Here $w$ is used by *every* question; its slope is the sum over the questions.
- **Begin at the end.** $\partial L / \partial z$ is needed for $w$ and for $b$. Who goes from the loss backwards
  calculates every link once, and meets all numbers of the model on the way. This walk is the **backward pass**. It
  multiplies about as much as two runs forwards, *for all numbers together*.

So all that we need is: for each operation, how the slope by its *result* becomes the slopes by *what went in*. In the
library an operation `f` has for this its `f_backward`, whose first argument `dy` is the slope of the loss by what `f`
returned. A language model needs few. Two of them now, and those of attention in the next chapter.
"""

# %% [markdown] id="12-softmax-cross-entropy"
r"""
## Softmax and cross-entropy

Where every backward pass begins. The loss of one guess with logits $x$, if token $t$ comes, is

$$L = -\ln \operatorname{softmax}(x)_t = -x_t + \ln \sum_j e^{x_j}$$

The first term gives $-1$ to logit $t$ and nothing to the others. The second, by the chain rule, gives to each logit
$\frac{1}{\sum_j e^{x_j}} \cdot e^{x_i}$. That is a softmax again! So

$$\frac{\partial L}{\partial x_i} = \operatorname{softmax}(x)_i - [i = t]$$

where $[i = t]$ is 1 for the token that came and 0 for the others: *what it said, minus what came*.

**Guess, then run.** The logits are 2, 1 and 0, and the second token came. Which logits should fall, which should rise?
What do the three slopes add up to?
"""

# %% id="12-softmax-cross-entropy-checked"
logits, target = np.array([2.0, 1.0, 0.0]), np.array(1)
tried = central_difference(lambda x: float(cross_entropy(x, target)), logits, 1e-5)
calculated = cross_entropy_backward(np.array(1.0), logits, target)
print("softmax         ", softmax(logits).round(4))
print("minus what came ", (softmax(logits) - [0, 1, 0]).round(4), " sum", (softmax(logits) - [0, 1, 0]).sum().round(12) + 0.0)
print("the library's   ", calculated.round(4))
print("tried           ", tried.round(4))
assert np.allclose(calculated, softmax(logits) - [0, 1, 0]) and np.allclose(calculated, tried, atol=1e-8)

# %% [markdown] id="12-softmax-cross-entropy-read"
r"""
Downhill is against the slope: the logit of what came rises, all others fall, each by as much as it was believed in. The
sum is 0, because adding the same to all logits changes nothing. And it stops by itself: who gave probability 1 to what
came gets no push at all.

`dy` says how much this one loss counts. In the mean of $N$ losses each counts $1/N$; at a place that is only padding, 0.
"""

# %% [markdown] id="12-linear-backward"
r"""
## A linear map

Nearly all numbers of a model are in tables $W$ that multiply: $y = x W + b$. Row $r$ of $y$ is

$$y_{rj} = \sum_i x_{ri} W_{ij} + b_j$$

Say we know `dy`, the slopes by all $y_{rj}$. Now ask for each number where it is used.

- $x_{ri}$ goes into all places of row $r$, each time multiplied by a weight:
  $dx_{ri} = \sum_j dy_{rj} W_{ij}$, so $dx = dy\,W^\top$.
- $W_{ij}$ goes into place $j$ of *every row*, multiplied by what that row holds at $i$:
  $dW_{ij} = \sum_r x_{ri}\, dy_{rj}$, so $dW = x^\top dy$.
- $b_j$ goes into place $j$ of every row, as it is: $db_j = \sum_r dy_{rj}$.

The shapes nearly force it: a slope has the shape of what it is the slope by.

**Guess, then run.** $x$ has 2 rows of 3 numbers and $W$ makes 2 of 3. Cover the output, and work out $db$ and the first
row of $dW$ by head.
"""

# %% id="12-linear-backward-by-hand"
x = np.array([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]])  # [rows, in]
W = np.array([[1.0, 2.0], [0.0, 1.0], [1.0, -1.0]])  # [in, out]
b = np.array([0.5, 0.0])
dy = np.array([[1.0, 0.0], [2.0, -1.0]])  # [rows, out]

dx, d = linear_backward(dy, x, W)
print("db =", d["bias"], "\ndW =", *d["weight"], "\ndx =", *dx)


def checks(numbers, f, calculated):
    """Whether the slopes of the sum of dy * f(numbers), tried one by one, are the calculated ones."""
    return np.allclose(central_difference(lambda v: float((dy * f(v)).sum()), numbers, 1e-5), calculated)


assert checks(x, lambda x: x @ W + b, dx)
assert checks(W, lambda W: x @ W + b, d["weight"]) and checks(b, lambda b: x @ W + b, d["bias"])

# %% [markdown] id="12-table-learnt"
r"""
## Chapter 02's table, learnt

A linear map and a softmax with cross-entropy: that is already a language model. Take 27 letters, each as a one-hot
vector $x$, and $W$ with 27 rows and 27 columns: the logits of the next letter. In chapter 02 we *counted* such a table.
Now we start with zeros and walk downhill.

First: what does the backward pass spare us? **Guess, then run.** How many times as long does it take to try all slopes
as to calculate them?
"""

# %% id="12-table-cost"
LETTERS = "abcdefghijklmnopqrstuvwxyz "
V = len(LETTERS)
ids = np.array([LETTERS.index(letter) for letter in letters])
this, following = np.eye(V)[ids[:-1]], ids[1:]  # one-hot vectors [N, V], targets [N]
share = np.full(len(following), 1 / len(following))  # each loss in the mean


def loss_and_gradient(W):
    """Forwards, then backwards: the loss of the table of logits W, and its slope by every number of W."""
    logits = this @ W  # [N, V] @ [V, V] -> [N, V]
    d_logits = cross_entropy_backward(share, logits, following)
    return float(cross_entropy(logits, following).mean()), linear_backward(d_logits, this, W)[1]["weight"]


W = np.zeros((V, V))
began = time.perf_counter()
_, gradient = loss_and_gradient(W)
backwards = time.perf_counter() - began

first_row = np.arange(V)[:, None] == 0
began = time.perf_counter()
tried = central_difference(lambda a: float(cross_entropy(this @ np.where(first_row, a, W), following).mean()), W[0], 1e-5)
trying = (time.perf_counter() - began) * V
assert np.allclose(tried, gradient[0], atol=1e-8)
print(f"all {W.size} slopes, calculated: {backwards * 1e3:8.1f} ms")
print(f"tried, {V} times the first row:  {trying * 1e3:8.1f} ms, {trying / backwards:.0f} times as long")
assert trying > 10 * backwards

# %% [markdown] id="12-table-descent"
r"""
Now downhill, with the gradient of the whole text in every step.

**Guess, then run.** What will the table be like in the end: the same as by counting, better on this text, worse?
"""

# %% id="12-table-descent-run"
counts = np.zeros((V, V))
np.add.at(counts, (ids[:-1], ids[1:]), 1)
rows = counts.sum(axis=1)
counted = counts / np.maximum(rows, 1)[:, None]
with np.errstate(divide="ignore"):
    best = float(-np.log(counted[ids[:-1], ids[1:]]).mean())

losses = []
for _ in range(100):
    table_loss, gradient = loss_and_gradient(W)
    losses.append(table_loss)
    W = W - 10.0 * gradient

_, ax = pyplot.subplots(figsize=(6.5, 3.6), layout="constrained")
ax.plot(np.exp(losses), color="black", label="learnt")
ax.axhline(np.exp(best), color="black", linestyle="--", label=f"counted: {np.exp(best):.2f}")
ax.set(xlabel="steps", ylabel="perplexity on this text", ylim=(0, 28), title="A bigram table, learnt downhill")
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)
plots.show(ax, f"Perplexity falls from 27, first quickly, to {np.exp(losses[-1]):.2f}; by counting it is {np.exp(best):.2f}.")
assert np.isclose(np.exp(losses[0]), V) and best < losses[-1] < losses[20] < losses[0]

distance = np.abs(softmax(W) - counted).sum(axis=1) / 2  # between two rows: 0 the same, 1 nothing in common
for letter in "eaqx":
    i = LETTERS.index(letter)
    print(f"{letter}: occurs {rows[i]:5.0f} times; its row is {distance[i]:.2f} away from the counted one")

# %% [markdown] id="12-table-descent-read"
r"""
The counted table is the lowest point there is: at it, *what it said* and *what came* agree in the mean in every row, so
the gradient is zero. Descent goes there and needs no idea of what a letter is. (That it is lowest on *this* text does
not make it best on another; remember the zeros of chapter 02.)

The rows of rare letters lag far behind. A row's slope is a sum over the places where its letter occurs, so a rare
letter gets a tiny slope, and with it tiny steps. Here is the valley again: steep along the common rows, nearly level
along the rare ones.

## The whole model

Every operation of GPT-2 has its backward, and the next chapter looks at that of attention. The walk through all of them
is in the library: a `LanguageModel` gives the loss of a text and its slope by *every* number.

**Guess, then run.** How long would it take to try them all, minutes or days?
"""

# %% id="12-whole-model"
exact, _ = minillm.load(dtype="float64", kernels="numpy")
text = np.array([tokenizer.encode("Once upon a time there was a king who had three sons, and the youngest was called Jack.")])
batch = text[:, :-1], text[:, 1:]  # what goes in, and what should come out: [1, T - 1] each

learner = LanguageModel(exact)
learner.losses(batch)  # once, so that the weights are read from their file
began = time.perf_counter()
loss_here, gradients = learner.loss_and_gradients(batch)
backwards = time.perf_counter() - began
began = time.perf_counter()
learner.losses(batch)
forwards = time.perf_counter() - began

size = sum(p.size for p in exact.parameters.values())
print(f"loss {loss_here:.4f} nats a token, and {sum(g.size for g in gradients.values()):,} slopes")
print(f"forwards {forwards * 1e3:.0f} ms, forwards and backwards {backwards * 1e3:.0f} ms")
print(f"trying all {size:,}: {2 * size * forwards / 3600:,.0f} hours")
assert {name: g.shape for name, g in gradients.items()} == {name: p.shape for name, p in exact.parameters.items()}
assert 2 * size * forwards > 1000 * backwards  # a backward pass costs a few forwards, not millions

# %% [markdown] id="12-direction"
r"""
(For so short a text the backward pass may take longer than two runs forwards: it has millions of slopes to write down.)

Is it right? Nobody can try them all, but one can try *a direction*: move all numbers at once by a little, $t$ times a
vector $v$. By the chain rule the slope along $v$ is the dot product $\nabla L \cdot v$.

Try two directions of the same length 1: against the gradient, and a random one.

**Guess, then run.** In a space of millions of dimensions, how does the loss change along a random direction?
"""

# %% id="12-direction-tried"
length = np.sqrt(sum((g * g).sum() for g in gradients.values()))
rng = np.random.default_rng(0)
noise = {name: rng.standard_normal(g.shape) for name, g in gradients.items()}
noise_length = np.sqrt(sum((v * v).sum() for v in noise.values()))
directions = {
    "against the gradient": {name: -g / length for name, g in gradients.items()},
    "random": {name: v / noise_length for name, v in noise.items()},
}


def loss_along(direction, t):
    moved = minillm.GPT2(exact.config, {name: p + t * direction[name] for name, p in exact.parameters.items()}, exact.ops)
    return float(LanguageModel(moved).losses(batch).mean())


steps, losses = np.linspace(-0.3, 0.3, 9), {}
_, ax = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
for (name, direction), style in zip(directions.items(), ("o-", "s--")):
    along = losses[name] = [loss_along(direction, t) for t in steps]
    ax.plot(steps, along, style, color="black", mfc="black" if style == "o-" else "white", ms=4, label=name)
    dot = sum((gradients[key] * v).sum() for key, v in direction.items())
    tried = (loss_along(direction, 1e-4) - loss_along(direction, -1e-4)) / 2e-4
    print(f"{name:<21} slope calculated {dot:9.5f}, tried {tried:9.5f}; at t = 0.3 the loss is {along[-1]:.3f}")
    assert np.isclose(dot, tried, rtol=1e-4, atol=1e-6)
    assert (along[-1] < loss_here - 0.1) == (name != "random")
ax.set(xlabel="t, the distance that all parameters move together", ylabel="loss (nats a token)")
ax.set_title("Two directions out of millions")
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)
plots.show(
    ax,
    "The loss of one sentence against how far the parameters have moved. Against the gradient it falls steeply from "
    "{:.2f} to {:.2f} nats; along a random direction it is level.".format(*np.array(losses["against the gradient"])[[0, -1]]),
)

# %% [markdown] id="12-direction-read"
r"""
The calculated slopes agree with what was tried. And the picture says why nobody trains a large model by trying changes
at random: nearly every direction leads nowhere, and the gradient knows the one that leads down.

It knows it for *this sentence* only: a model that walked on here would soon know this one sentence by heart. What to
walk down on, how far, and how to cross valleys: [chapter 13](13_training.ipynb).
"""

# %% [markdown] id="12-exercises"
r"""
## Exercises

    minillm exercises check central_difference
    minillm exercises check linear_backward
    minillm exercises check cross_entropy_backward

The first one is to be mended: it holds one mistake. For the other two, write the shape of each result beside it before
you write the line.

On paper: $y = x W$ with one row, $x = [1, 2]$, $W = \begin{pmatrix} 1 & 0 \\ 1 & 1 \end{pmatrix}$ gives the logits
$[3, 2]$, and the second token comes. What are the logits' slopes, $dx$, and $dW$? (Use $e = 2.718$.) Then run:
"""

# %% id="12-on-paper"
x, W = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
d_logits = cross_entropy_backward(np.ones(1), x @ W, np.array([1]))
dx, d = linear_backward(d_logits, x, W)
print("logits' slopes", d_logits[0].round(3), "  dx", dx[0].round(3), "  dW", *d["weight"].round(3))

# %% [markdown] id="12-sources"
r"""
## Sources

- [Learning representations by back-propagating errors](https://doi.org/10.1038/323533a0), Rumelhart, Hinton and
  Williams 1986: the backward pass, two pages.
- [Automatic Differentiation in Machine Learning: a Survey](https://arxiv.org/abs/1502.05767), Baydin et al. 2018: trying,
  calculating by hand, and letting a program do it.
- [Visualizing the Loss Landscape of Neural Nets](https://arxiv.org/abs/1712.09913), Li et al. 2018: surfaces of large
  models, drawn along two directions.
"""
