# %% [markdown] id="04-title"
r"""
# 04 · The block

Attention, of the last chapter, lets every position gather from the ones before it. GPT-2 wraps it into a *block* with four
more things, and stacks the same block $L$ times. Each of the four is small, and each repairs something: without it, either
the model cannot tell one sentence from another, or its numbers run away, or its depth is worth nothing.

After this chapter you can

- show that attention alone cannot tell "the fox saw the hen" from "the hen saw the fox", and say what GPT-2 does about it;
- take the vector that enters the last step apart into the $1 + 2L$ vectors that were added up to form it;
- normalise a row of numbers by hand, and say where two common versions of that go wrong;
- show that two matrices in a row are worth one, and what has to stand between them;
- read GPT-2's block, six lines, and compute it yourself from the weights.

25 minutes, exercises apart. Shapes use the letters of the course: $B$ rows, $T$ positions, $C$ numbers in a vector, $H$ heads
of $D = C / H$ numbers, $L$ layers.
"""

# %% id="04-setup"
import inspect

import numpy as np
from matplotlib import pyplot

import minillm
from minillm import ops, plots
from minillm.families.gpt2 import forward as gpt2
from minillm.layers.feed_forward import feed_forward
from minillm.page.drawing import drawing
from minillm.steps import Patch, Trace

model, tokenizer = minillm.load("tales", kernels="numpy")  # the readable functions
L, C, H = model.config.n_layer, model.config.n_embd, model.config.n_head
print(model)

# %% [markdown] id="04-order"
r"""
## An average does not know an order

Here are two sentences of the same tokens. The last token of both is the full stop.
"""

# %% id="04-two-sentences"
one, other = (tokenizer.encode(text) for text in ("The fox saw the hen.", "The hen saw the fox."))
for ids in (one, other):
    print([tokenizer.decode([i]) for i in ids])
assert sorted(one) == sorted(other) and one[-1] == other[-1] and one != other

# %% [markdown] id="04-order-guess"
r"""
In the first layer the full stop gathers, with attention, from all tokens of its sentence.

**Guess, then run.** Suppose that each token came in as its own vector and nothing else, so that the two foxes are the same
vector, wherever they stand. Will the full stop gather the same from both sentences, something similar, or something quite
different?

`Patch` runs the model with some intermediates replaced. Here it replaces `wpe`, which we come to next, by zeros.
"""


# %% id="04-order-run"
def gathered_by_last(ids, layer, replacements):
    """What the last token gathers in one layer: [H, D]."""
    trace = Trace()
    model(np.atleast_2d(ids), step=Patch(replacements, then=trace))
    return trace[f"h.{layer}.attn.context"][0, :, -1]


def difference(layer, replacements):
    a, b = (gathered_by_last(ids, layer, replacements) for ids in (one, other))
    return np.abs(a - b).max() / np.abs(a).max()


without, usual = difference(0, {"wpe": np.zeros_like}), difference(0, {})
print(f"relative difference, tokens alone: {without:.1e}")
print(f"relative difference, as GPT-2 is:  {usual:.1e}")
assert without < 1e-5 < 1e-3 < usual

# %% [markdown] id="04-order-why"
r"""
The same, up to rounding. What a head gathers is a weighted average, $\sum_s w_s v_s$, and a sum does not know in which order
its terms were written down. The weights do not help: each depends on the full stop's query and one key, not on where that key
stands. To attention alone a sentence is a bag of tokens.

So GPT-2 says where each token stands. It has a second table of learnt vectors, one for each position, called `wpe` (weights
of position embeddings) beside `wte` (of token embeddings). A **position embedding** is simply added:

$$x_p = W_{te}[\mathrm{id}_p] + W_{pe}[p] \qquad p = 0, 1, 2, \ldots$$

A fox in place 1 and a fox in place 4 are now two different vectors, and so are their keys and values.
"""

# %% id="04-embed"
ids = tokenizer.encode("Once upon a time there was an old king who had three daughters")
trace = model.trace(ids)  # every intermediate of one pass, by name
T = len(ids)
x = model.parameters["wte.weight"][ids] + model.parameters["wpe.weight"][np.arange(T)]  # [T,C] + [T,C]
print(x.shape, "equal to the model's own:", np.array_equal(x, trace["embed"][0]))
assert np.array_equal(x, trace["embed"][0])

# %% [markdown] id="04-mask-leaks"
r"""
**A detail for the curious.** Does a model without `wpe` know nothing at all of order, then? Guess what the same difference
will be in the *second* layer, still without `wpe`.
"""

# %% id="04-mask-leaks-run"
for layer in range(L):
    print(f"layer {layer}, without wpe: {difference(layer, {'wpe': np.zeros_like}):.1e}")
assert difference(1, {"wpe": np.zeros_like}) > 1000 * difference(0, {"wpe": np.zeros_like})

# %% [markdown] id="04-mask-leaks-why"
r"""
It is no longer zero. The causal mask gave it away: the second token could only look at two tokens, and the fifth at five.
So after one layer the two foxes have gathered from different company and are different vectors. The mask leaks some
order; the position embeddings state it plainly.
"""

# %% [markdown] id="04-residual"
r"""
## The residual stream

Look at what happens to $x$ next. A block does not replace it. It computes something from $x$ and *adds* it, twice:

$$x \leftarrow x + \mathrm{attention}(\mathrm{norm}_1(x)) \qquad
x \leftarrow x + \mathrm{feed\ forward}(\mathrm{norm}_2(x))$$

The vector that is carried through like this, one for each position, is called the **residual stream**. Every part reads
from it and adds to it; nothing is ever erased, only outweighed. That is what makes deep stacks trainable: a part that does
not know anything yet can add almost nothing, and the rest gets through.

**Guess, then run.** With $L$ layers, how many vectors have been added up by the end of the last block? Write the number down
for this model's $L$ before you run the cell.
"""

# %% id="04-residual-sum"
parts = ["embed", *(f"h.{i}.{part}" for i in range(L) for part in ("attn.out", "mlp.out"))]
total = sum(trace[name].astype(np.float64) for name in parts)  # each [1,T,C]
last = trace[f"h.{L - 1}.mlp.residual"]
error = np.abs(total - last).max() / np.abs(last).max()
print(f"{len(parts)} vectors; their sum and the last block's output differ by {error:.1e}, relatively")
assert len(parts) == 1 + 2 * L and error < 1e-5

# %% [markdown] id="04-layer-norm"
r"""
One for the embedding and two for each layer: $1 + 2L$. The end of the model sees the sum of them all, and can be taken apart
again, term by term. ([Chapter 15](15_looking_inside.ipynb) does.)

## Layer norm

A sum of many vectors may become long. Then the same part, with the same weights, would get numbers of quite different
sizes, depending on the position and on the layer. So in front of each part stands a **layer norm**: it gives every row of
$C$ numbers mean 0 and variance 1, and then a learnt scale and shift:

$$\mathrm{norm}(x) = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \cdot w + b \qquad \mu = \frac{1}{C}\sum_i x_i \qquad
\sigma^2 = \frac{1}{C}\sum_i (x_i - \mu)^2$$

One row by hand, $x = (1, 2, 3, 6)$, with $w = 1$, $b = 0$ and, to begin with, $\epsilon = 0$. The mean is $12 / 4 = 3$.
The distances from it are $-2, -1, 0, 3$. Their squares are $4, 1, 0, 9$, so that $\sigma^2 = 14 / 4 = 3.5$ and $\sigma
\approx 1.871$. The result:

$$(-2, -1, 0, 3) / 1.871 \approx (-1.069, -0.535, 0, 1.604)$$

**Guess, then run.** What will become of $(10, 20, 30, 60)$, of $(101, 102, 103, 106)$ and of $(-1, -2, -3, -6)$?
"""

# %% id="04-norm-rows"
rows = np.array([[1, 2, 3, 6], [10, 20, 30, 60], [101, 102, 103, 106], [-1, -2, -3, -6]], dtype=np.float64)
for row, normed in zip(rows, ops.layer_norm(rows, 1.0, 0.0, eps=0.0)):
    print(f"{row!s:28} -> {normed.round(3)}")
normed = ops.layer_norm(rows, 1.0, 0.0, eps=0.0)
assert np.allclose(normed[0], [-1.069, -0.535, 0, 1.604], atol=5e-4)
assert np.allclose(normed[1:3], normed[0]) and np.allclose(normed[3], -normed[0])

# %% [markdown] id="04-norm-invariance"
r"""
A layer norm forgets the row's mean and its length, $\mathrm{norm}(a x + c) = \mathrm{norm}(x)$ for $a > 0$, and keeps its
*direction*: the pattern of which numbers are large and which small. (A negative $a$ turns the pattern round.)

### Two mistakes that look right

What is $\epsilon$ for? Two versions of layer norm are often written by mistake. One divides the sum of squares by $C - 1$
(NumPy's `ddof=1`). The other puts $\epsilon$ outside the root: $(x - \mu) / (\sigma + \epsilon)$.

**Guess, then run.** Three rows follow: an ordinary one; one of tiny numbers, $\sigma$ about $10^{-3}$; and one of four
equal numbers, $\sigma = 0$. On which will each mistake show? GPT-2's $\epsilon$ is $10^{-5}$.
"""


# %% id="04-norm-mistakes"
def with_ddof_1(x, eps=1e-5):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True, ddof=1) + eps)


def with_eps_outside(x, eps=1e-5):
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + eps)


three = np.array([[1, 2, 3, 6], [1e-3, 2e-3, 3e-3, 6e-3], [5, 5, 5, 5]], dtype=np.float64)
right = ops.layer_norm(three, 1.0, 0.0)
for name, wrong in (("right", right), ("ddof=1", with_ddof_1(three)), ("eps outside", with_eps_outside(three))):
    print(f"{name:12}", *(str(row.round(3)).ljust(30) for row in wrong))
wide = np.random.default_rng(0).standard_normal((1, C))
ratio = np.abs(with_ddof_1(wide)).max() / np.abs(ops.layer_norm(wide, 1.0, 0.0)).max()
print(f"\nddof=1 on a row of C = {C} numbers: every result {100 * (1 - ratio):.2f} % too small")
assert np.abs(with_ddof_1(three) - right)[0].max() > 0.1 and np.abs(with_eps_outside(three) - right)[1].max() > 0.1
assert np.abs(with_eps_outside(three) - right)[0].max() < 1e-4

# %% [markdown] id="04-norm-mistakes-why"
r"""
- `ddof=1` is wrong on every row: by the factor $\sqrt{(C - 1) / C}$. For $C = 4$ one sees it at once. For a row as wide as
  the model's it is a small fraction of a per cent: the model still writes sentences, and nobody notices. ([Chapter
  05](05_against_the_reference.ipynb) notices.)
- $\epsilon$ outside is wrong where $\sigma$ is small. Inside the root, $\epsilon = 10^{-5}$ acts like a least deviation of
  $\sqrt{10^{-5}} \approx 0.003$; outside like one of $0.00001$.
- On the row of equal numbers all three give zeros. That is what $\epsilon$ is there for: with $\epsilon = 0$ it would be $0
  / 0$.

## The activation

The second half of a block is the **feed forward**, which GPT-2's weights call `mlp`, for multilayer perceptron: a matrix
that expands each vector to $F = 4C$ numbers, an **activation**, a function of each number by itself whose graph is no
straight line, and a matrix that contracts it again.

$$\mathrm{feed\ forward}(x) = \mathrm{act}(x W_{fc} + b_{fc})\, W_{proj} + b_{proj}$$

Why the activation, `act`? Leave it out, and two matrices follow each other.

**Guess, then run.** Take a random $8 \times 32$ matrix, then a random $32 \times 8$ one. Can a single $8 \times 8$ matrix
do what both do? (Differences are printed relative to the largest value.)
"""

# %% id="04-bend-needed"
rng = np.random.default_rng(0)
expand, contract, rows = rng.standard_normal((8, 32)), rng.standard_normal((32, 8)), rng.standard_normal((5, 8))
two_steps = (rows @ expand) @ contract
one_step = rows @ (expand @ contract)  # an 8 x 8 matrix
print(f"without an activation, two matrices against one: {np.abs(two_steps - one_step).max() / np.abs(two_steps).max():.0e}")

bent = ops.relu(rows @ expand) @ contract
many = rng.standard_normal((500, 8))  # enough rows to fit the best single matrix to
best = np.linalg.lstsq(many, ops.relu(many @ expand) @ contract, rcond=None)[0]
print(f"with an activation, against the best matrix:     {np.abs(bent - rows @ best).max() / np.abs(bent).max():.0e}")
assert np.allclose(two_steps, one_step) and not np.allclose(bent, rows @ best, rtol=0, atol=0.1 * np.abs(bent).max())

# %% [markdown] id="04-gelu"
r"""
It can: $(x W_1) W_2 = x (W_1 W_2)$. However many matrices one stacks, without activations they are one matrix. An activation
between them makes the second matrix worth its place: no single matrix does the same.

The simplest activation is $\mathrm{relu}(x) = \max(x, 0)$. GPT-2 uses a smooth cousin, **GELU**: $x$ times the probability
$\Phi(x)$ that a standard normal variable is below $x$. $\Phi$ was slow to compute, so GPT-2 was trained with an
approximation, and this one is part of the model:

$$\mathrm{gelu}(x) = x\,\Phi(x) \qquad
\mathrm{gelu\_new}(x) = \tfrac{1}{2} x \left(1 + \tanh\left(\sqrt{2/\pi}\,(x + 0.044715\,x^3)\right)\right)$$

**Guess, then run.** You need no calculator for rough values at $x = -3, -1, 0, 1, 3$: $\Phi$ there is about 0.001, 0.16,
0.5, 0.84 and 0.999. Which value of $x$ gives the smallest result: $-3$, $-1$ or $0$?
"""

# %% id="04-gelu-values"
points = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
for name in ("relu", "gelu", "gelu_new"):
    print(f"{name:9}", *(f"{y:8.4f}" for y in getattr(ops, name)(points)))
assert ops.gelu_new(points).argmin() == 1 and ops.gelu_new(points)[2] == 0

# %% id="04-gelu-picture"
grid = np.linspace(-4, 4, 801)
figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(grid, ops.relu(grid), "--", color="0.5", label="relu")
left.plot(grid, ops.gelu_new(grid), "-", color="black", label="gelu_new (gelu looks the same)")
left.set(xlabel="input x", ylabel="output", title="Two activations")
left.legend(frameon=False)
right.plot(grid, 1e4 * (ops.gelu_new(grid) - ops.gelu(grid)), color="black")
right.set(xlabel="input x", ylabel="difference / 0.0001", title="gelu_new - gelu")
plots.show(
    figure,
    "Left: relu is 0 up to 0 and then the diagonal; gelu_new follows it far from 0, but rounds the corner and dips to about "
    "-0.17 near x = -0.75. Right: gelu_new minus gelu, four bumps of at most 0.0005 in size, zero at 0 and far out.",
)
apart = np.abs(ops.gelu_new(grid) - ops.gelu(grid)).max()
print(f"largest difference of the two: {apart:.1e}")
assert 4e-4 < apart < 5e-4

# %% [markdown] id="04-gelu-which"
r"""
Far from 0, GELU is relu. Near 0 it is smooth, and a little below 0 it is negative; the minimum is near $x = -0.75$.

The two GELUs look the same and are not: they differ by up to 0.0005. A model trained with one and run with the other is a
slightly different model, and a test that allows an error of 0.01 passes it. Keep this in mind for [chapter
05](05_against_the_reference.ipynb).

## Alone or together?

**Guess, then run.** We shuffle the positions of the input of the feed forward. Its output: the same values, shuffled in the
same way, or other values?
"""


# %% id="04-alone"
def weights_of(layer, name):
    """The weight and bias of one part, as the functions take them."""
    return {kind: model.parameters[f"h.{layer}.{name}.{kind}"] for kind in ("weight", "bias")}


mlp = {"c_fc": weights_of(0, "mlp.c_fc"), "c_proj": weights_of(0, "mlp.c_proj")}
x = trace["h.0.ln_2"]  # [1,T,C]
order = np.random.default_rng(0).permutation(T)
straight, shuffled = feed_forward(x, **mlp), feed_forward(x[:, order], **mlp)
print(f"largest difference after undoing the shuffle: {np.abs(straight[:, order] - shuffled).max():.0e}")
assert np.allclose(straight[:, order], shuffled, rtol=1e-4, atol=1e-4)
assert np.allclose(straight, trace["h.0.mlp.out"], rtol=1e-4, atol=1e-4)  # and it is what the model computed

# %% [markdown] id="04-block"
r"""
The same values. The feed forward treats each position by itself, and so do layer norm and the residual addition. In the
whole block **only attention moves anything from one position to another**; everything else could be done with the other
positions covered up.

## The block, on one screen

You have met every part. This is the function that the model runs; `ops` holds the plain functions, and
each `step("name", value)` hands back its value and lets an onlooker (a trace, a clock, a patch) see it.
"""

# %% id="04-block-source"
print(inspect.getsource(gpt2.block))

# %% [markdown] id="04-block-drawing"
r"""
And this is where these lines stand in the model: each step is a box, and the thick line on the left is the residual stream.
Both halves of the block read it, and both write to it only by a sum. You are at the second of the two.
"""

# %% id="04-block-here"
drawing(model.config, here="mlp.residual")

# %% [markdown] id="04-block-guess"
r"""
**Guess, then run.** Which half of the block holds more parameters, attention or the feed forward? Count: attention has
one matrix $[C, 3C]$ and one $[C, C]$; the feed forward $[C, 4C]$ and $[4C, C]$.
"""

# %% id="04-block-count"
sizes = {}
for name, array in model.parameters.items():
    if name.startswith("h.0."):
        half = name.split(".")[2]
        sizes[half] = sizes.get(half, 0) + array.size
for half, size in sizes.items():
    print(f"{half:5} {size:9,}  {size / sum(sizes.values()):6.1%}")
assert sizes["attn"] == 4 * C * C + 4 * C and sizes["mlp"] == 8 * C * C + 5 * C and sizes["ln_1"] == 2 * C

# %% [markdown] id="04-block-by-hand"
r"""
Two thirds are in the feed forward: $8 C^2$ of $12 C^2$. Layer norms hardly count, $2C$ each.

Now call the block ourselves, with the embedding of our sentence and the weights under their names in the checkpoint, one
block after the other.
"""

# %% id="04-block-run"
x = trace["embed"]  # [1,T,C]
for i in range(L):
    x = gpt2.block(
        x,
        ln_1=weights_of(i, "ln_1"),
        attn={"c_attn": weights_of(i, "attn.c_attn"), "c_proj": weights_of(i, "attn.c_proj")},
        ln_2=weights_of(i, "ln_2"),
        mlp={"c_fc": weights_of(i, "mlp.c_fc"), "c_proj": weights_of(i, "mlp.c_proj")},
        config=model.config,
        layer=i,
        positions=np.arange(T)[None],
    )
    print(f"layer {i}: shape {x.shape}, largest difference from the model's own {np.abs(x - trace[f'h.{i}.mlp.residual']).max()}")
    assert np.array_equal(x, trace[f"h.{i}.mlp.residual"])

# %% [markdown] id="04-norm-picture-guess"
r"""
Shape in, same shape out: that is why one function can be stacked. And nothing was hidden: these are the model's own
numbers, to the last bit.

## How long is the stream?

The *norm* of a vector, $\lVert x \rVert = \sqrt{\sum_i x_i^2}$, is its length. The picture shows how long the residual
stream is after each part has added to it, and how long the vector was that it added.

**Guess, then look.** Will the stream grow evenly? And will the lengths of what is added sum up to the length of the stream?
"""

# %% id="04-norm-picture"
figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
plots.residual_norms(trace, axes)
after = {name: float(np.median(np.linalg.norm(trace[name], axis=-1))) for name in trace if name.endswith("residual")}
start, end = float(np.median(np.linalg.norm(trace["embed"], axis=-1))), after[f"h.{L - 1}.mlp.residual"]
plots.show(
    figure,
    f"The length of the residual stream, from embed ({start:.1f}) through attention and feed forward of {L} layers to the end "
    f"({end:.1f}), as a line with a band; bars show the length of what each part added.",
)

# %% id="04-norm-numbers"
added = sum(float(np.median(np.linalg.norm(trace[name], axis=-1))) for name in parts)
print(f"the stream grows from {start:.1f} to {end:.1f}; the lengths of all that was added sum to {added:.1f}")
normed = [float(np.median(np.linalg.norm(trace[f"h.{i}.ln_1"], axis=-1))) for i in range(L)]
before = [start, *(after[f"h.{i}.mlp.residual"] for i in range(L - 1))]
print("before ln_1:", *(f"{n:6.1f}" for n in before), f"  largest / smallest {max(before) / min(before):.1f}")
print("after ln_1: ", *(f"{n:6.1f}" for n in normed), f"  largest / smallest {max(normed) / min(normed):.1f}")
assert added > end > start and max(normed) / min(normed) < max(before) / min(before)

# %% [markdown] id="04-norm-picture-why"
r"""
The stream ends up much longer than it began, and not evenly: some parts add a lot. But lengths do not sum up like prices.
Vectors that point in different directions add up to less than the sum of their lengths, and a part may also add something
that points *against* the stream and shortens it.

The two printed rows show the layer norm at work. However much the stream grows, the length of what a part receives changes far
less from layer to layer. (Variance 1 alone would make it $\sqrt{C}$ everywhere; the learnt scale $w$ does the rest.)

## In short

- Attention sees a bag of tokens; position embeddings are added so that it sees an order.
- The residual stream is a sum of $1 + 2L$ vectors. Each part reads it through a layer norm and adds to it.
- Layer norm: mean 0, variance 1 (divided by $C$, with $\epsilon$ inside the root), learnt scale and shift.
- The feed forward: expand, activate, contract, each position alone; it holds two thirds of a block's parameters.
- Only attention moves information between positions.

## Exercises

    minillm exercises check layer_norm
    minillm exercises check gelu_new
    minillm exercises check block

**Next:** [chapter 05](05_against_the_reference.ipynb) puts the pieces together into all of GPT-2, and checks every number
against the reference.

## Sources

- [Language Models are Unsupervised Multitask
  Learners](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf), Radford
  et al. 2019, section 2.3: GPT-2's block, with the norm in front.
- [Attention Is All You Need](https://arxiv.org/abs/1706.03762), Vaswani et al. 2017, sections 3.1, 3.3 and 3.5: residuals,
  feed forward, positions.
- [Layer Normalization](https://arxiv.org/abs/1607.06450), Ba, Kiros and Hinton 2016.
- [Gaussian Error Linear Units](https://arxiv.org/abs/1606.08415), Hendrycks and Gimpel 2016: both forms, in section 2.
"""
