# %% [markdown] id="10-smaller"
r"""
# 10 · Smaller

Chapter 08 ended with a hint: a decode cycle waits for memory, so that only fewer *bytes* make it faster. This chapter
takes bytes away in three ways: it rounds the weights, leaves some out, or writes a matrix as a product of two smaller
ones. Each changes the model. So every saving has a price, and the art is to measure both.
"""

# %% [markdown] id="10-what-you-will-do"
r"""
## What you will be able to do

- round weights to 8 and 4 bits by hand, and predict the error before you measure it;
- explain why a scale is shared by 32 weights and not by a whole matrix;
- tell apart leaving out single weights, heads, neurons and layers, and say which of these a processor can use;
- decide from the singular values of a matrix whether two thin matrices could replace it;
- read a ledger of speed, memory and quality, and find what is worth having in it.

You need chapters [05](05_against_the_reference.ipynb) and [08](08_where_the_cycles_go.ipynb). About 30 minutes.
"""

# %% id="10-setup"
import matplotlib.pyplot as plt
import numpy as np

import minillm
from minillm import plots
from minillm.bench.ledger import frontier, ledger
from minillm.compression import break_even_rank, errors_by_matrix, prune_magnitude, quantize, round_to_int8
from minillm.model import GPT2
from minillm.ops import log_softmax
from minillm.weights import KINDS, store

model, tokenizer = minillm.load("tales")
textbook, _ = minillm.load("tales", kernels="numpy")  # the same weights as plain arrays, to look at
W = textbook.parameters["h.3.mlp.c_fc.weight"]
print(f"{model.n_parameters:,} parameters, {model.n_parameters * 4 / 1e6:.1f} MB in float32")
print(f"we look at one matrix, {W.shape}: from {W.min():.3f} to {W.max():.3f}")

# %% [markdown] id="10-int8-grid"
r"""
## Rounding by hand

A number of 8 bits can be one of 256 values. The format used here takes the whole numbers $q$ from $-127$ to $127$, and
one **scale** $d$ that says what a step is worth:

$$q = \text{round}\left(\frac{w}{d}\right), \qquad w' = d\,q, \qquad d = \frac{\max |w|}{127}$$

This is **quantisation**. With this $d$ the largest weight just meets the end of the grid.

**Guess, then run.** How far can $w'$ be from $w$ at most, in units of $d$?
"""

# %% id="10-one-block"
block = W[:32, 0]  # 32 weights that share a scale
d = np.abs(block).max() / 127
q = np.rint(block / d).astype(np.int8)
back = d * q

print(f"scale d = {d:.6f}\n")
print("        w     q        w'   error/d")
for number in range(8):
    error = (back[number] - block[number]) / d
    print(f"{block[number]:9.5f}{q[number]:6d}{back[number]:10.5f}{error:10.3f}")
print("...")
print(f"largest error of the 32: {np.abs(back - block).max() / d:.3f} d")
assert np.abs(back - block).max() <= 0.5001 * d

# %% [markdown] id="10-count-the-bytes"
r"""
Half a step: that is all that rounding can lose. And the bytes? 32 weights in float32 are 128. Now they are 32 bytes,
and 2 for the scale, which is kept as a float16: 34.

The package stores weights in just this way. Its blocks, unpacked, should be our numbers:
"""

# %% id="10-blocks-of-the-package"
stored = store(W, "int8")
print(f"{stored}; in float32 {W.nbytes / 1e6:.1f} MB, {W.nbytes / stored.nbytes:.2f} times as much")
unpacked = stored.dense()[:32, 0]
print(f"largest difference to the block by hand: {np.abs(unpacked - back).max() / d:.3f} d (the scale is rounded, too)")
assert np.abs(unpacked - back).max() < 0.1 * d

# %% [markdown] id="10-the-grid"
r"""
## The grid over the weights

What do weights look like? If they were spread evenly between the smallest and the largest, every step of the grid would
be used equally.

**Guess, then run.** Are they? Which share of all weights lies in the middle tenth of the grid?
"""

# %% id="10-histogram-figure"
scale = np.abs(W).max() / 127  # one for the whole matrix, to draw it
figure, (whole, near) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
whole.hist(W.ravel(), bins=120, color="0.8", edgecolor="0.5", lw=0.3)
whole.set(xlabel="weight", ylabel="how many", title="all weights; lines: every 16th step of int8")
near.hist(W.ravel(), bins=np.arange(-6, 6.01, 0.125) * scale, color="0.8", edgecolor="0.5", lw=0.3)
near.set(xlabel="weight", title="the middle; lines: every step", xlim=(-6 * scale, 6 * scale))
near.locator_params(axis="x", nbins=5)
for ax, steps in ((whole, range(-112, 113, 16)), (near, range(-6, 7))):
    for step in steps:
        ax.axvline(step * scale, color="black", lw=0.8, ls="-" if step == 0 else ":")
plots.show(
    figure,
    "Two histograms of the weights of one matrix. Left, all of them: a bell around zero with long thin tails, and dotted "
    "lines at every sixteenth step of the int8 grid. Right, the middle enlarged: twelve steps of the grid with many "
    "weights between two neighbouring lines, all of which are rounded to the nearer one.",
)
steps = np.rint(W / scale)
print(f"{(np.abs(steps) <= 12).mean():.0%} of the weights lie in the middle tenth of the grid")
assert (np.abs(steps) <= 12).mean() > 0.1

# %% [markdown] id="10-histogram-lesson"
r"""
A bell with long tails. The few largest weights decide how wide the steps are, and all the others must do with the
middle of the grid. Keep this picture in mind: it is the reason for nearly everything below.
"""

# %% [markdown] id="10-predict-the-error"
r"""
## The error, predicted

Where a weight falls between two steps is as good as random: look at the right picture. The error is then spread evenly
from $-d/2$ to $d/2$, and the root of its mean square is

$$\sqrt{\frac{1}{d}\int_{-d/2}^{d/2} e^2\, de} = \frac{d}{\sqrt{12}} \approx 0.29\, d.$$

4 bits leave 16 values instead of 256, so that the steps are about 16 times as wide.

**Guess, then run.** The relative error of the matrix, $|W' - W| / |W|$, is some number in 8 bits. By what factor is it
larger in 4?
"""

# %% id="10-errors-measured"
predicted = scale / np.sqrt(12)
measured = np.sqrt(np.mean((np.rint(W / scale) * scale - W) ** 2))
print(f"one scale for the matrix: error predicted {predicted:.6f}, measured {measured:.6f}\n")
assert 0.9 < measured / predicted < 1.1

relative = {}
for kind in KINDS:
    weight = store(W, kind)
    relative[kind] = np.linalg.norm(weight.dense() - W) / np.linalg.norm(W)
    print(f"{kind:<10}{weight.nbytes / W.size:7.4f} bytes a weight {100 * relative[kind]:9.4f} % relative error")
print(f"\nint4 / int8: {relative['int4'] / relative['int8']:.1f}")
assert 8 < relative["int4"] / relative["int8"] < 32

# %% [markdown] id="10-who-shares-a-scale"
r"""
Another bit less, twice the error: that is all the theory one needs. (Should `float16` show an error of 0, the weights
were stored in it on disk already.)

## Who shares a scale?

The smaller the group that shares a scale, the finer its steps, and the more scales there are to store. Large models
have a few weights far larger than all others. Let us make one such *outlier*.

**Guess, then run.** One weight of the matrix is made 40 times the largest. What happens to the error of all the *other*
weights, if a scale is shared by the whole matrix? By a row (the 256 inputs of one output)? By a block of 32?
"""

# %% id="10-outlier"
outlier = W.copy()
outlier[100, 500] = 40 * np.abs(W).max()
others = np.ones(W.shape, bool)
others[100, 500] = False


def rounded(w, axis):
    """w rounded to 8 bits with one scale for all numbers along `axis` (None: for all)."""
    d = np.abs(w).max(axis=axis, keepdims=True) / 127
    return np.rint(w / d) * d


error = {}
print("relative error of all other weights, %   as it was   with an outlier")
for name, change in (
    ("one scale for the matrix", lambda w: rounded(w, None)),
    ("one for each output", lambda w: rounded(w, 0)),
    ("one for each block of 32", lambda w: store(w, "int8").dense()),
):
    error[name] = [np.linalg.norm((change(w) - w)[others]) / np.linalg.norm(w[others]) for w in (W, outlier)]
    print(f"{name:<39}{100 * error[name][0]:11.3f}{100 * error[name][1]:18.3f}")
matrix, row, small = (errors[1] for errors in error.values())
assert matrix > row > small

# %% [markdown] id="10-outlier-lesson"
r"""
With one scale for everything a single weight spoils the matrix: most of the others fall onto the step 0. In a block it
spoils at most its 31 neighbours. This is why practice shares a scale among 32 weights, and accepts 34 bytes for 32.
"""

# %% [markdown] id="10-a-text-to-judge-by"
r"""
## What it costs in words

A small error of the weights need not be a small error of the text. The judge is the loss, here in bits for each byte
of a text (chapter 02 had it in nats a token; a byte is the same for every tokenizer).

For a text we let the model write one, drawing every token with the probability that the model gives it. (Nothing that is
unlikely is left out, as it was in chapter 07, so this text is wilder than a story for reading.) For such a text
there is a theorem: in the mean *no* distribution has a lower loss than the one that it was drawn from. What a changed
model $q$ loses against the original $p$ is the **Kullback-Leibler divergence**

$$D(p \,\|\, q) = \sum_x p(x) \log_2 \frac{p(x)}{q(x)} \ge 0,$$

in bits a token. It is 0 only if $q = p$.
"""

# %% id="10-sample-a-text"
stories = []
for seed in range(3):
    chosen = {"max_new_tokens": 500, "temperature": 1.0, "min_p": 0, "seed": seed, "stop_tokens": ()}
    stories.append("".join(m.text for m in minillm.generate(model, tokenizer, "Once upon a time", **chosen)))
text = "\n\n".join("Once upon a time" + story for story in stories)
print(text[:300], "...")
ids = np.array(tokenizer.encode(text)[:400])

# %% [markdown] id="10-loss-guess"
r"""
**Guess, then run.** In 8 bits every weight of the model is wrong by about half a percent, in 4 bits by several
percent. By how many percent does the loss rise?
"""

# %% id="10-loss-of-rounding"


def divergence(changed: GPT2) -> float:
    """D(p || q) of the changed model, in bits a token, over the text's positions."""
    p, q = log_softmax(model(ids)), log_softmax(changed(ids))
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean() / np.log(2))


def bits(of: GPT2) -> float:
    """The loss on the text, in bits a token."""
    return float(-log_softmax(of(ids[:-1]))[np.arange(len(ids) - 1), ids[1:]].mean() / np.log(2))


print(f"{'':<22}{'weights':>10}{'loss':>10}{'rise':>10}{'D(p || q)':>12}")
print(f"{'float32':<22}{'':>10}{bits(model):10.4f}")
lost = {}
for name, changed in (
    ("int8, blocks of 32", quantize(model, "int8")),
    ("int8, a scale a matrix", round_to_int8(model, "tensor")),
    ("int4, blocks of 32", quantize(model, "int4")),
):
    off = np.mean(list(errors_by_matrix(model, changed).values()))
    lost[name] = divergence(changed)
    rise = bits(changed) / bits(model) - 1
    print(f"{name:<22}{100 * off:9.2f}%{bits(changed):10.4f}{100 * rise:9.3f}%{lost[name]:12.5f}")
assert 0 <= lost["int8, blocks of 32"] < lost["int4, blocks of 32"]
assert lost["int8, blocks of 32"] < 0.05

# %% [markdown] id="10-why-so-little"
r"""
Far less than the weights' error suggests. Each output of a matrix is a sum of hundreds of products. The rounding errors
in it have either sign, and mostly cancel: of $n$ independent errors the sum grows like $\sqrt{n}$ only. Nor do all bits
of a weight matter to what the model has learnt.

The column of the rise can even be *negative*: on a finite text a changed model may be lucky. The divergence never is
negative, and it is what to compare small changes by.
"""

# %% [markdown] id="10-leave-out"
r"""
## Leaving out: single weights

The histogram showed many weights near 0. Do they do anything? **Pruning** leaves them out. The simplest rule drops the
smallest by $|w|$, here half of every matrix in the blocks.

A matrix with holes must also say *where* its numbers are: a kept weight takes 4 bytes for itself and 2 for its place.

**Guess, then run.** Half of all weights gone. How many bytes are saved? What happens to the loss, compared with 8 bits,
which saves nearly three quarters?
"""

# %% id="10-prune-weights"
sparse = prune_magnitude(textbook, 0.5)
kept = sparse.parameters["h.3.mlp.c_fc.weight"]
error_of_half = np.linalg.norm(kept.dense() - W) / np.linalg.norm(W)
print(f"{kept.size / W.size:.0%} of the weights kept, {kept.nbytes / W.nbytes:.0%} of the bytes")
print(f"relative error of the matrix {100 * error_of_half:.1f} %; in 8 bits it was {100 * relative['int8']:.1f} %")
lost["half of all weights"] = divergence(sparse)
print(f"D(p || q) = {lost['half of all weights']:.4f} bits a token; in 8 bits {lost['int8, blocks of 32']:.4f}")
assert kept.nbytes / W.nbytes > 0.7 and lost["half of all weights"] > lost["int8, blocks of 32"]

# %% [markdown] id="10-parts-instead"
r"""
Half of the weights, three quarters of the bytes, and a far larger loss than rounding all of them. Worse, the kept numbers
have to be picked out one by one, where chapter 09 taught us to take 16 neighbours at once: the ledger below will show
what this does to the speed.

So one leaves out *whole parts* instead, and what remains is an ordinary, smaller model: heads, neurons of the feed
forward, or layers. Which? Those that add least to the residual stream on some text.
"""

# %% [markdown] id="10-low-rank"
r"""
## Two thin matrices for one

Every matrix is a sum of simple ones, sorted by importance, its *singular value decomposition*:

$$W = \sum_{i} s_i\, u_i v_i^T, \qquad s_1 \ge s_2 \ge \dots \ge 0.$$

Stop after $r$ terms, and $W$ becomes a product of two thin matrices, $[K, r]$ and $[r, N]$: a **low rank** approximation, with
$r(K+N)$ numbers instead of $KN$. Of all matrices of rank $r$ it is the nearest to $W$, and the squared error is exactly
the sum of the $s_i^2$ left out.

**Guess, then run.** Up to which $r$ does this save anything for a matrix of $256 \times 1024$? And which share of
$\sum s_i^2$ is kept at that rank? (If weights were as compressible as a photograph, it would be nearly all.)
"""

# %% id="10-singular-values-figure"
u, s, vt = np.linalg.svd(W, full_matrices=False)
random = np.linalg.svd(np.random.default_rng(0).permutation(W.ravel()).reshape(W.shape), compute_uv=False)
r = break_even_rank(W.shape)
_, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
rank = np.arange(1, len(s) + 1)
ax.plot(rank, 100 * np.cumsum(s**2) / (s**2).sum(), color="black", label="the trained matrix")
ax.plot(rank, 100 * np.cumsum(random**2) / (random**2).sum(), "--", color="0.5", label="the same weights, shuffled")
ax.axvline(r, color="black", lw=0.8, ls=":")
ax.annotate(f"above rank {r} \nthe two are larger than the one ", (r, 5), fontsize="small", ha="right")
ax.set(xlabel="rank r", ylabel="share of the sum of squares kept (%)", ylim=(0, 101), xlim=(0, len(s)))
ax.legend(loc="upper left")
plots.show(
    ax,
    "The share of the sum of squares that is kept, over the rank, for the trained matrix (solid) and the same weights "
    "shuffled (dashed). The solid line rises somewhat faster, but both reach one hundred percent only at full rank. A "
    "dotted vertical line marks the rank above which nothing is saved.",
)
share = (s[:r] ** 2).sum() / (s**2).sum()
print(f"rank {r}: {share:.0%} of the sum of squares kept, relative error {100 * np.sqrt(1 - share):.0f} %")
print(f"in 4 bits, a seventh of the bytes: {100 * relative['int4']:.1f} %")
left, right = u[:, :r] * s[:r], vt[:r]  # the two thin matrices
assert left.size + right.size < W.size
assert abs(np.linalg.norm(left @ right - W) / np.linalg.norm(W) - np.sqrt(1 - share)) < 1e-3, "the theorem holds"
assert np.sqrt(1 - share) > relative["int4"]

# %% [markdown] id="10-low-rank-lesson"
r"""
Compare with the shuffled matrix, whose weights have no structure at all. Training gives the matrix *some* structure, and
not nearly enough: all its directions are in use. Low rank pays for what is *added* to a trained matrix when it learns
more (this is called LoRA), not for the matrix itself.
"""

# %% [markdown] id="10-the-ledger"
r"""
## The ledger

Now all ideas side by side, each measured the same way: tokens a second of decoding, bytes of the weights, change of the
loss. Levers can be combined with `+`.

**Guess, then run.** Which of these will be faster than the plain model, and which will merely be smaller? Which will
nobody want, because another one is both faster *and* better? Write down your three favourites.

- `bfloat16`, `int8`, `int4`: rounded; `int4-body`: without the output head;
- `heads:6`: 6 of the 8 heads of each layer; `neurons:768`: 768 of 1,024 neurons; `skip:1`: one layer less;
- `sparse:0.5`: half of the weights; `low-rank-mlp:96`: two thin matrices for each in the feed forward.
"""

# %% id="10-ledger"
levers = ["bfloat16", "int8", "int4", "int4-body", "heads:6", "neurons:768", "skip:1", "sparse:0.5", "low-rank-mlp:96"]
levers.append("neurons:768+int8")
entries = ledger(model, tokenizer, text, levers, n_prompt=16, n_new=32, rounds=2, quality_tokens=512)
print(f"{'lever':<20}{'tokens/s':>9}{'MB':>8}{'bits/byte':>11}{'change':>10}{'D(p || q)':>11}")
for e in entries:
    numbers = f"{e.rate('decode'):9,.0f}{e.weight_bytes / 1e6:8.1f}{e.bits_per_byte:11.4f}{100 * e.change:9.2f}%"
    print(f"{e.levers:<20}{numbers}{e.divergence:11.4f}")
by_name = {e.levers: e for e in entries}
assert by_name["int4"].weight_bytes < by_name["int8"].weight_bytes < by_name["plain"].weight_bytes
assert by_name["int8"].divergence < by_name["int4"].divergence < by_name["low-rank-mlp:96"].divergence

# %% id="10-ledger-figure"
_, ax = plt.subplots(figsize=(8.5, 6), layout="constrained")
plots.speed_against_quality(entries, ax)
plots.show(
    ax,
    "Each lever is a point: its decode speed in tokens a second to the right, the change of bits per byte upwards. The "
    "rounded models stand at the right and low. Heads, sparse and low rank stand further left and higher. A dashed line, "
    "the frontier, joins those that no other lever beats in both.",
)
print("on the frontier:", ", ".join(e.levers for e in frontier(entries)))

# %% [markdown] id="10-reading-the-ledger"
r"""
Down and right is good: fast, and hardly changed. The dashed *frontier* joins the levers that none beats in both. The
others are dominated, whatever their idea's charm.

Three things to find in your table:

- **Smaller is not faster by itself.** A lever is fast only if there is a kernel for what it leaves. The *fused step*, one
  kernel that generates a token through all layers, multiplies by ordinary stored matrices. Sparse ones have to gather
  their inputs, a product of two thin ones is two calls, and a model with either runs operation by operation. Fewer heads,
  neurons or layers do fit the fused step; look in the column MB how little these take away, and expect no more of the speed.
- **Rounding wins**, because it takes bytes from every weight evenly and leaves the shapes as they were.
- **Levers combine**, and their losses roughly add up: look at `neurons:768+int8` beside its parts.
"""

# %% [markdown] id="10-summary"
r"""
## What to remember

- $w' = d\,\text{round}(w/d)$: the error is at most $d/2$, and $d/\sqrt{12}$ in the mean square.
- The largest number of a group sets the steps of all its members. Small groups, small damage.
- Judge a changed model by what it does to probabilities, not by how far its weights moved.
- Trained matrices are nearly of full rank, and their small weights matter together.
"""

# %% [markdown] id="10-exercises"
r"""
## Exercises

    minillm exercises check bits_of_int8
    minillm exercises check dequantize
    minillm exercises check quantize

A number to say, a function to mend, and one to write, which meets a block of zeros.

To go on: `minillm compare FILE --levers ?` lists all levers. Find a combination that is on the frontier of *your* text.
"""

# %% [markdown] id="10-sources"
r"""
## Sources

- [LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale](https://arxiv.org/abs/2208.07339), Dettmers et al.
  2022: outliers.
- [Learning both Weights and Connections for Efficient Neural Networks](https://arxiv.org/abs/1506.02626), Han et al. 2015:
  pruning by magnitude.
- [Are Sixteen Heads Really Better than One?](https://arxiv.org/abs/1905.10650), Michel, Levy, Neubig 2019.
- [The approximation of one matrix by another of lower rank](https://doi.org/10.1007/BF02288367), Eckart, Young 1936.
- Quantization Noise, Widrow, Kollár 2008, a book: the twelve under the root.
"""
