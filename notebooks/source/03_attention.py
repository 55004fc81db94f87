# %% [markdown] id="03-title"
r"""
# 03 · Attention

After this chapter you can

- compute by hand how one token gathers from the ones before it, every number included,
- say what each part of the formula is for, and what breaks without it,
- read a picture of what a token looks at,
- mend five claims that are wrong in print.
"""

# %% id="03-imports"
import time

import numpy as np
from matplotlib import pyplot

import minillm
from minillm import plots
from minillm.decoding.scoring import score
from minillm.layers.attention import causal_mask, scaled_dot_product_attention, split_heads
from minillm.ops import softmax
from minillm.steps import Trace

model, tokenizer = minillm.load(kernels="numpy")

# %% [markdown] id="03-idea"
r"""
## What is missing

An embedding is the same wherever its token stands. But *it* means one thing after "the king lost his crown" and another
after "the wolf came in". The vector at *it* has to take up something from the tokens before it, and from the right
ones.

A table with a row for every possible context is too large ([chapter 02](02_a_guess_is_a_row_of_numbers.ipynb)).
**Attention** does it with a mean: every token takes a weighted mean of what the tokens up to itself have to offer. All
it needs is a way to find the weights. For that, each token has three vectors:

- a **query** $q$: what it is looking for,
- a key $k$: what it can be found by,
- a value $v$: what it hands on to whoever looks at it.

How much one token looks at another is decided by the dot product of *its* query with *the other's* key: do they agree?
"""

# %% [markdown] id="03-by-hand"
r"""
## By hand, three tokens

The text is *The cat sat*. Its vectors have four numbers each, chosen so that everything can be followed with pencil and
paper. (Where they come from in a model, we shall see.)
"""

# %% id="03-by-hand-vectors"
tokens = ["The", "cat", "sat"]
q = np.array([[2, 0, 0, 0], [0, 2, 1, 0], [1, 3, 0, 0]])  # [T, D]: a row for each token
k = np.array([[1, 0, 1, 0], [0, 2, 0, 0], [2, 0, 1, 2]])
v = np.array([[1, 0, 0, 2], [0, 1, 0, 4], [0, 0, 1, 6]])
T, D = q.shape

# %% [markdown] id="03-scores"
r"""
### First: scores

Each query with each key: nine dot products. Then all are divided by $\sqrt{D} = \sqrt 4 = 2$; why, we ask below.

**Guess, then run.** Which token does *sat* look at most?
"""

# %% id="03-scores-by-hand"
scores = np.zeros((T, T))
for i in range(T):
    for j in range(T):
        products = [f"{a}·{b}" for a, b in zip(q[i], k[j])]
        scores[i, j] = q[i] @ k[j] / np.sqrt(D)
        print(f"{tokens[i]} looks at {tokens[j]}: ({' + '.join(products)}) / 2 = {q[i] @ k[j]} / 2 = {scores[i, j]}")

assert np.array_equal(scores, q @ k.T / np.sqrt(D))  # all nine at once: [T, D] @ [D, T] -> [T, T]

# %% [markdown] id="03-mask"
r"""
### Second: nobody looks ahead

The model is asked for the next token after *every* token, all at once. After *The* it should guess *cat*; if *The*
could look at *cat*, that would be no guess. So what stands to the right is hidden, by the **causal mask**: its scores
become $-\infty$, and since $e^{-\infty} = 0$ they get no weight.

### Third: weights

Softmax turns every row of scores into weights that are positive and add up to 1.

**Guess, then run.** What are the weights in the first row, without calculating?
"""

# %% id="03-weights-by-hand"
masked = np.where(np.tri(T, dtype=bool), scores, -np.inf)
weights = softmax(masked)
print(weights.round(4))
assert np.allclose(weights.sum(axis=-1), 1) and weights[0, 0] == 1

figure, axes = pyplot.subplots(1, 3, figsize=(10.5, 3.4), layout="constrained")
for ax, values, title in zip(axes, (scores, masked, weights), ("scores", "after the mask (hatched: −∞)", "weights")):
    plots.heat_map(values, tokens, tokens, ".3f" if values is weights else ".1f", ax=ax)
    ax.set(title=title, xlabel="is looked at (key)", ylabel="looks (query)")
plots.show(
    figure,
    "Three tables of 3 by 3 numbers. Scores: The 1, 0, 2; cat 0.5, 2, 0.5; sat 0.5, 3, 1. The mask hides the three above the "
    f"diagonal. Weights: The 1; cat {weights[1, 0]:.3f}, {weights[1, 1]:.3f}; sat {weights[2, 0]:.3f}, {weights[2, 1]:.3f}, "
    f"{weights[2, 2]:.3f}.",
)

# %% [markdown] id="03-context"
r"""
A row says where a token looks: *sat* mostly at *cat*. The numbers in the third table are **attention weights**.

### Fourth: the mean

The result for each token is the mean of the values, weighted by its row.
"""

# %% id="03-context-by-hand"
context = weights @ v  # [T, T] @ [T, D] -> [T, D]
parts = " + ".join(f"{w:.3f}·{list(map(int, row))}" for w, row in zip(weights[2], v))
print(f"sat: {parts} = {context[2].round(3)}\n")
print(context.round(4))

# %% [markdown] id="03-attention"
r"""
That is all of it. In one line, $M$ being the mask (0 where one may look, $-\infty$ elsewhere):

$$\operatorname{attention}(Q, K, V) = \operatorname{softmax}\!\left(\frac{Q K^\top}{\sqrt{D}} + M\right) V$$

The library's function does these four steps and no others; it takes whole batches, $[B, H, T, D]$, and says where each
token stands. Its `step` argument shows what it computes on the way.
"""

# %% id="03-same"
trace = Trace()
batch = [x[None, None].astype(np.float64) for x in (q, k, v)]  # [T, D] -> [B=1, H=1, T, D]
result = scaled_dot_product_attention(*batch, positions=np.arange(T)[None], scale=1 / np.sqrt(D), step=trace)
print("steps:", *trace)

assert np.allclose(trace["scores"][0, 0], scores)
assert np.allclose(trace["weights"][0, 0], weights)
assert np.allclose(result[0, 0], context)

# %% [markdown] id="03-mistake-numbers"
r"""
## Find the mistake: 24 divided by the root of 32

In print, as a worked example:

> *$Q = [1, 2, 3]$, $K = [4, 5, 6]$, $V = [7, 8, 9]$ give $24/\sqrt{32}$.*

The 32 is $QK^\top = 1 \cdot 4 + 2 \cdot 5 + 3 \cdot 6$, and the 24 is $7 + 8 + 9$. Where does it leave the four steps?
Before you read on: there is one query and one key. How many weights are there, and what must they add up to?
"""

# %% id="03-mistake-numbers-shown"
Q, K, V = np.array([[1.0, 2, 3]]), np.array([[4.0, 5, 6]]), np.array([[7.0, 8, 9]])
score_32, d_k = (Q @ K.T).item(), Q.shape[1]
one = softmax(Q @ K.T / np.sqrt(d_k))
print(f"in print:            {24 / np.sqrt(32):.4f}")
print(f"one token, D = {d_k}:    score {score_32:.0f}, weight {one.item()}, result {(one @ V)[0]}")

rows = [x.T[None, None] for x in (Q, K, V)]  # [T=3, D=1]
three = scaled_dot_product_attention(*rows, positions=np.arange(3)[None], scale=1.0)[0, 0, :, 0]
print(f"three tokens, D = 1: {three.round(4)}")
assert np.array_equal(one @ V, V) and np.allclose(three, [7, 7.8808, 8.9480], atol=5e-5)

# %% [markdown] id="03-mistake-numbers-true"
r"""
**What is true.** 32 is a *score*, and was used as $D$, which is 3. There was no softmax. And the numbers *within* a
value were added up, where the mean goes over *tokens*. With one key its weight is 1, whatever the score, and the result
is $[7, 8, 9]$. If the three numbers are meant as three tokens with $D = 1$, the results are 7, 7.8808 and 8.9480: the
first can only look at itself, and the scores grow so fast that the others look nearly only at themselves.

## Why divide by $\sqrt{D}$?

A dot product of $D$ places is a sum of $D$ terms, and sums of more terms spread further. If the numbers in $q$ and $k$
have mean 0 and variance 1, each product has variance 1 and the sum has variance $D$: it deviates by $\sqrt{D}$.

**Guess, then run.** Sixteen keys, all random. How large is the largest of the sixteen weights, on average, without the
division? And with it?
"""

# %% id="03-scale"
rng = np.random.default_rng(0)
print("   D   deviation of q·k   largest of 16 weights: undivided   divided by sqrt(D)")
for size in [1, 4, 16, 64, 256]:
    queries, keys = rng.standard_normal((2000, size)), rng.standard_normal((16, size))
    dots = queries @ keys.T  # [2000, 16]
    plain, divided = softmax(dots).max(axis=-1).mean(), softmax(dots / np.sqrt(size)).max(axis=-1).mean()
    print(f"{size:>4}   {dots.std():16.2f}   {plain:32.2f}   {divided:18.2f}")

assert plain > 0.8 > divided

# %% [markdown] id="03-scale-read"
r"""
Undivided, the longer the vectors, the more a single key takes everything: softmax becomes a choice of one, and a small
change of $q$ either does nothing or tips it over. Divided by $\sqrt{D}$ the scores deviate by 1 for every $D$, and all
sixteen have a say.

## Find the mistake: inside or outside?

In print:

> *$\operatorname{attention}(Q, K, V) = \dfrac{1}{\sqrt{d_k}} \operatorname{softmax}\!\left(\dfrac{QK^\top}{d_k}\right) V$*

($d_k$ is our $D$.) Two things differ from the formula above, besides the missing mask. What does each do to the
weights?
"""

# %% id="03-mistake-outside"
size = 64
dots = rng.standard_normal((2000, size)) @ rng.standard_normal((16, size)).T
right = softmax(dots / np.sqrt(size))
wrong = softmax(dots / size) / np.sqrt(size)
print("              deviation of what goes into softmax   sum of a row   largest over smallest in a row")
for name, inside, rows in (("right", dots / np.sqrt(size), right), ("in print", dots / size, wrong)):
    spread = (rows.max(axis=-1) / rows.min(axis=-1)).mean()
    print(f"{name:<9} {inside.std():40.3f} {rows.sum(axis=-1).mean():14.3f} {spread:32.2f}")

assert np.allclose(wrong.sum(axis=-1), 1 / np.sqrt(size)) and np.isclose((dots / size).std(), 0.125, atol=0.01)

# %% [markdown] id="03-mistake-outside-true"
r"""
**What is true.** $\operatorname{softmax}(QK^\top / \sqrt{d_k} + M)\,V$, the root inside and nothing outside. Outside,
it makes the weights of a row add up to $1/\sqrt{d_k}$ instead of 1, so the result is no mean but an eighth of one at
$d_k = 64$. Inside, dividing by $d_k$ leaves scores that deviate by $\sqrt{64}/64 = 0.125$ only: all weights are nearly
equal, and the token looks everywhere alike.

## Find the mistake: softmax undone

In print, too:

> *$QK^\top = \operatorname{softmax}^{-1}(QK^\top / d_k)$, and
> $\operatorname{softmax}(S) = \operatorname{softmax}(S / d_k) / \sqrt{d_k}$.*

Is there a $\operatorname{softmax}^{-1}$? Look for two rows of scores that give the same weights.
"""

# %% id="03-mistake-inverse"
S = np.array([[1.0, 0.0, 2.0]])
print("softmax of", S[0], "    ", softmax(S)[0].round(4))
print("softmax of", (S + 5)[0], "    ", softmax(S + 5)[0].round(4))
left, right = softmax(S), softmax(S / size) / np.sqrt(size)
print("\nthe two sides of the second claim:", left[0].round(4), "and", right[0].round(4))
print("their sums:                       ", left.sum().round(4), "and", right.sum().round(4))
assert np.allclose(softmax(S), softmax(S + 5)) and not np.allclose(left.sum(), right.sum())

# %% [markdown] id="03-mistake-inverse-true"
r"""
**What is true.** Softmax has no inverse, since $\operatorname{softmax}(x + c) = \operatorname{softmax}(x)$: from
weights, scores can only be known up to a constant. And the second equation can never hold: the rows of its left side
add up to 1, those of its right side to $1/\sqrt{d_k}$.

## Where queries, keys and values come from

In the model every token has one vector $x$ of $C$ numbers. Three tables of adjusted numbers make three vectors of it:
$q = x W_Q$, $k = x W_K$, $v = x W_V$ (and to each a fixed vector is added). GPT-2 keeps the three side by side in one
table called `c_attn`, $[C, 3C]$, and multiplies once.

## Find the mistake: who projects, and who sees whom?

In print:

> *Only $W_Q$ and $W_K$ project the input. Each token then sees all others.*

Ask the model itself. It tells every number on its way by name.
"""

# %% id="03-mistake-projections"
text = "The cat sat on the mat, because it was tired."
ids = np.array(tokenizer.encode(text))
words = [tokenizer.decode([i]) for i in ids]
trace = model.trace(ids)

x = trace["h.0.ln_1"]  # [1, T, C]: what goes into the first attention
W, b = model.parameters["h.0.attn.c_attn.weight"], model.parameters["h.0.attn.c_attn.bias"]
print("x        ", x.shape)
print("c_attn   ", W.shape, "= three tables side by side")
for name, part, bias in zip("qkv", np.split(W, 3, axis=1), np.split(b, 3)):
    made = split_heads(x @ part + bias, model.config.n_head)
    assert np.allclose(made, trace[f"h.0.attn.{name}"], atol=1e-4)
    print(f"{name} = x W + b is what the model used")

difference = np.abs(split_heads(x, model.config.n_head) - trace["h.0.attn.v"]).max()
print(f"\nlargest difference between v and the x that it comes from: {difference:.2f}")

ahead = np.triu(np.ones((len(ids), len(ids)), dtype=bool), 1)
print(f"largest weight on a token further right, all layers and heads: "
      f"{max(trace[f'h.{i}.attn.weights'][0, :, ahead].max() for i in range(model.config.n_layer))}")  # fmt: skip
assert difference > 0.1
assert all((trace[f"h.{i}.attn.weights"][0][:, ahead] == 0).all() for i in range(model.config.n_layer))

# %% [markdown] id="03-mistake-projections-true"
r"""
**What is true.** $W_V$ projects too (and a fourth table, `c_proj`, projects the result). And a token sees itself and
the ones *before* it: the weights to the right are not small, they are exactly 0.

So what a token further right is cannot matter for what the model says earlier. **Guess, then run.** We exchange the
last word before the full stop. Which rows of the logits change: all, the last one, none?
"""

# %% id="03-causal"
other = ids.copy()
other[-2] = tokenizer.encode(" hungry")[0]
same = [bool(np.array_equal(a, b)) for a, b in zip(model(ids), model(other))]
for word, new, unchanged in zip(words, (tokenizer.decode([i]) for i in other), same):
    print(f"{word!r:<12} {new!r:<12} {'the same' if unchanged else 'changed'}")
assert same == [True] * (len(ids) - 2) + [False] * 2

# %% [markdown] id="03-heads"
r"""
## Heads: several looks at once

One mean can look one way only. A token may need several things: its subject, its neighbour, the last comma. So the $C$
numbers of $q$, $k$ and $v$ are cut into $H$ parts of $D = C/H$ each, and every part does its own attention: an
**attention head**. The results are put side by side again.

Nobody tells a head what to look for. Let us search ours for habits: which looks most at the token just before, which
most at the very first, which most at itself?

**Guess, then run.** A head that looks at all tokens alike gives the token before it $1/2$ in the second row, $1/3$ in
the third and so on. Do you expect heads that are far from alike?
"""

# %% id="03-heads-found"
every = np.concatenate([trace[f"h.{i}.attn.weights"][0] for i in range(model.config.n_layer)])  # [L*H, T, T]
back = np.arange(1, len(ids))
habits = {  # mean weight of each head on one back, on the first token, on itself
    "one back": every[:, back, back - 1].mean(axis=-1),
    "at the first token": every[:, back, 0].mean(axis=-1),
    "at itself": every[:, back, back].mean(axis=-1),
}
alike = (1 / (back + 1)).mean()  # all three, for a head that looks at all alike

figure, axes = pyplot.subplots(1, 3, figsize=(13, 4.6), layout="constrained", sharey=True)
described = []
for ax, (habit, weight) in zip(axes, habits.items()):
    layer, head = divmod(int(weight.argmax()), model.config.n_head)
    plots.heat_map(np.where(ahead, np.nan, every[weight.argmax()]), words, words, ax=ax)
    ax.set(title=f"most {habit}: layer {layer}, head {head}", xlabel="is looked at")
    ax.tick_params(axis="x", rotation=90)
    described.append(f"layer {layer}, head {head} looks most {habit}")
    print(f"layer {layer}, head {head}: mean weight {habit} {weight.max():.3f}; a head that looks at all alike {alike:.3f}")
    assert weight.max() > alike
axes[0].set_ylabel("looks")
figure.colorbar(axes[-1].images[0], ax=axes, label="attention weight")
plots.show(figure, "Attention weights of three heads as lower triangles, dark is large: " + "; ".join(described) + ".")

# %% [markdown] id="03-heads-read"
r"""
Read a row: where does this token look? A dark line just below the diagonal is "one back", a dark first column "the
first token", a dark diagonal "itself". (Looking at the first token is often a way of looking at nothing: the weights
must add up to 1 somewhere.) Large models have heads that do nearly nothing but one of these; in a small one the habits
are milder, and the lines have gaps.

## What goes wrong when a part is wrong

Now we break the model, one part at a time, in all layers and heads. The `step` argument lets us put other weights in
the place of its own. Everything else stays as it is. How well does it still guess its own tale? The measure is the
cross-entropy of chapter 02; a model that knows nothing has $\ln V$.

**Guess, then run.** Order these from harmless to fatal: no mask; no division by $\sqrt D$; the mask after softmax, so
that rows no longer add up to 1; softmax down the columns instead of along the rows; equal weights for all that may be
seen; heads put together in the wrong order. Does the model without a mask cheat, and get *better*?
"""

# %% id="03-broken"
start = "Once upon a time"
sampled = {"max_new_tokens": 150, "temperature": 0.7, "min_p": 0, "seed": 2, "stop_tokens": ()}
tale = [m.id for m in minillm.generate(model, tokenizer, start, **sampled)]
tale = np.array(tokenizer.encode(start) + tale)
seen = causal_mask(np.arange(len(tale))[None], len(tale))[:, None]  # [1, 1, T, T]
root = np.sqrt(np.float32(model.config.head_dim))
hidden = np.float32(-np.inf)

wrong_weights = {
    "as it should be": lambda s: softmax(np.where(seen, s, hidden)),
    "no mask": softmax,
    "no division by root D": lambda s: softmax(np.where(seen, s * root, hidden)),
    "mask after softmax": lambda s: softmax(s) * seen,
    "softmax down the columns": lambda s: softmax(np.where(seen, s, hidden).swapaxes(-1, -2)).swapaxes(-1, -2),
    "equal weights": lambda s: np.broadcast_to(seen / seen.sum(axis=-1, keepdims=True), s.shape).astype(s.dtype),
}


class WithWeights:
    """A step that computes the weights from the scores in a way of its own."""

    def __init__(self, rule):
        self.rule = rule

    def __call__(self, name, value):
        if name.endswith("attn.scores"):
            self.scores = value
        return self.rule(self.scores) if name.endswith("attn.weights") else value


def heads_mixed(name, value):
    """A step that forgets to swap the axes T and H before the heads are put side by side."""
    if not name.endswith("attn.context"):
        return value
    B, H, T, D = value.shape
    return split_heads(value.reshape(B, T, H * D), H)  # merge_heads then gives value.reshape(B, T, C)


def cross_entropy_with(step):
    logits = model(tale, step=step)[:-1]
    return float(minillm.ops.cross_entropy(logits, tale[1:]).mean())


results = {name: cross_entropy_with(WithWeights(rule)) for name, rule in wrong_weights.items()}
results["heads mixed"] = cross_entropy_with(heads_mixed)
assert np.isclose(results["as it should be"], score(model, tale).cross_entropy, atol=1e-4)
assert all(loss > results["as it should be"] for name, loss in results.items() if name != "as it should be")

_, ax = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
order = sorted(results, key=results.get)
ax.barh(order, [results[name] for name in order], color="0.75", edgecolor="black")
for row, name in enumerate(order):
    ax.annotate(f"{results[name]:.2f}", (results[name], row), xytext=(4, 0), textcoords="offset points", va="center")
ax.axvline(np.log(model.config.vocab_size), color="black", linestyle="--")
ax.annotate("knows nothing", (np.log(model.config.vocab_size), -0.4), xytext=(4, 0), textcoords="offset points")
ax.invert_yaxis()
ax.set(xlabel="cross-entropy on its own tale (nats a token)", xlim=(0, 1.2 * max(*results.values(), 9)))
ax.spines[["top", "right"]].set_visible(False)
plots.show(ax, "Bars of the cross-entropy in nats: " + ", ".join(f"{name} {results[name]:.2f}" for name in order) + ".")

# %% [markdown] id="03-broken-read"
r"""
Every one makes it worse, and none of them stops with an error: shapes fit, numbers come out, text is written. That is
the danger, and why this project compares *every* number on the way with a reference ([chapter
05](05_against_the_reference.ipynb)).

Without a mask the model gets worse although it can look at the answers: it has never learnt to read them off. Had it
been *trained* without a mask it would have learnt to copy what comes next, and nothing else.

## Find the mistake: does attention save work?

In print:

> *Attention saves computation, because the model only attends to what matters.*

Here is a row of weights that attends to one token, and one that attends to all alike. **Guess, then run.** How many
multiplications does each need? Which is faster?
"""

# %% id="03-mistake-cost"
T, D = 400, 32
rng = np.random.default_rng(0)
q, k, v = rng.standard_normal((3, 1, 1, T, D), dtype=np.float32)
positions = np.arange(T)[None]


def run(sharpness):
    """One attention, with all scores multiplied by `sharpness`: the seconds it took, and its weights."""
    trace, begin = Trace(), time.perf_counter()
    scaled_dot_product_attention(q, k, v, positions, scale=sharpness / np.sqrt(np.float32(D)), step=trace)
    return time.perf_counter() - begin, trace["weights"]


kinds = {"looks at all alike": 0.0, "as usual": 1.0, "looks at one": 1000.0}
rounds = [{name: run(sharpness) for name, sharpness in kinds.items()} for _ in range(30)]
shortest = {name: min(each[name][0] for each in rounds) for name in kinds}
products = T * T * D + T * T * D  # q with every k; every weight with every v
print("                    weights that count, a row   multiplications   time")
for name in kinds:
    weights = rounds[0][name][1]
    count = (weights > 0.1 * weights.max(axis=-1, keepdims=True)).sum(axis=-1).mean()
    print(f"{name:<18}  {count:25.1f}   {products:15,}   {1e3 * shortest[name]:.2f} ms")

assert max(shortest.values()) < 3 * min(shortest.values())

# %% [markdown] id="03-mistake-cost-true"
r"""
**What is true.** The cost is the same whatever the weights are. To *know* that a weight is nearly zero its score has to
be computed; and then the zero is multiplied like any other number. Attention chooses what *matters*, not what is
*computed*: for $T$ tokens it takes $2T^2D$ multiplications in every head, four times as many for twice the text. What
really saves work is to not compute again what is known already: [chapter 06](06_one_token_at_a_time.ipynb).
"""

# %% [markdown] id="03-exercises"
r"""
## Exercises

    minillm exercises check attention_by_hand
    minillm exercises check causal_mask
    minillm exercises check split_heads
    minillm exercises check merge_heads
    minillm exercises check attention

The inputs use a different length for every letter ($B=2, T=5, H=3, D=7$), so that a swapped axis cannot hide.

On paper: in the example by hand, what are the three weights of *sat* if its query is all zeros? And if it is ten times
as large? Then run:
"""

# %% id="03-on-paper"
for factor in (0, 1, 10):
    print(f"query times {factor:>2}: {softmax(factor * scores[2]).round(4)}")

# %% [markdown] id="03-sources"
r"""
## Sources

- [Attention Is All You Need](https://arxiv.org/abs/1706.03762), Vaswani et al. 2017, section 3.2: the formula, the
  root, the heads.
- [Neural Machine Translation by Jointly Learning to Align and Translate](https://arxiv.org/abs/1409.0473), Bahdanau,
  Cho and Bengio 2014: the idea, before it was all that one needs.
- [Efficient Streaming Language Models with Attention Sinks](https://arxiv.org/abs/2309.17453), Xiao et al. 2023: why
  models look at the first token.
"""
