# %% [markdown] id="15-looking-inside"
r"""
# 15 · Looking inside

A trained model is a heap of numbers that nobody wrote. What do they do? This chapter looks into the forward pass in four
ways, two that only watch and two that intervene. The order matters: watching gives ideas, and only intervening tests
them.
"""

# %% [markdown] id="15-what-you-will-do"
r"""
## What you will be able to do

- draw what every head attends to, and say what such a map does not prove;
- read off what the model would say after each layer;
- switch off a head, and measure what it was good for;
- carry single activations from one run into another, and so find *where* a piece of information is.

You need chapter [05](05_against_the_reference.ipynb) only. About 30 minutes.

All four use the one seam of this package: every intermediate passes through `step(name, value)`, which may look at
it or return something else. `Trace` writes everything down, `Patch` replaces. No other code is needed.
"""

# %% id="15-setup"
import matplotlib.pyplot as plt
import numpy as np

import minillm
from minillm import plots
from minillm.decoding.scoring import next_logprobs
from minillm.ops import cross_entropy, log_softmax
from minillm.steps import Patch, Trace

model, tokenizer = minillm.load("tales")
config = model.config
L, H = config.n_layer, config.n_head


def words(ids):
    """Each token's text."""
    return [tokenizer.decode([i]) for i in ids]


print(model)

# %% [markdown] id="15-a-question"
r"""
## A question that it can answer

We need something that the model *knows*, small enough to follow. Who is sad here: she or he?

**Guess, then run.** The two sentences differ in one word, near the beginning. What comes next in each?
"""

# %% id="15-she-or-he"
queen, king = (np.array(tokenizer.encode(f"The {who} was sad, and")) for who in ("queen", "king"))
she, he = (tokenizer.encode(word)[0] for word in (" she", " he"))
assert len(queen) == len(king) and (queen != king).sum() == 1, "the sentences differ in one token"

for ids in (queen, king):
    logp = next_logprobs(model, ids)
    best = ", ".join(f"{tokenizer.decode([i])!r} {np.exp(logp[i]):.1%}" for i in np.argsort(-logp)[:4])
    print(f"{tokenizer.decode(ids)!r:<28} {best}; she: {np.exp(logp[she]):.1%}, he: {np.exp(logp[he]):.1%}")


def she_minus_he(logits):
    """How much the model prefers she: the difference of the two logits after the last token."""
    return float(logits[-1, she] - logits[-1, he])


for_queen, for_king = she_minus_he(model(queen)), she_minus_he(model(king))
print(f"logit of she minus logit of he: {for_queen:+.2f} for the queen, {for_king:+.2f} for the king")
assert for_queen > for_king

# %% [markdown] id="15-the-question"
r"""
The difference of the two logits is what we will measure by. $e$ to its power is how many times likelier *she* is than
*he*. At the last position the model sees only "and" and what attention brings. So the queen must have travelled:
from position 1 to the end. When, and by which heads?
"""

# %% [markdown] id="15-attention-maps"
r"""
## Attention maps

The first idea is to look where the heads look. `h.3.attn.weights` are the attention weights of layer 3, a row for each
position, the sum of a row 1. A picture of them is an **attention map**.

**Guess, then run.** In the row of the last token, "and": which tokens should be dark?
"""

# %% id="15-one-map-figure"
trace = model.trace(queen)
to_noun = np.array([trace[f"h.{i}.attn.weights"][0, :, -1, 1] for i in range(L)])  # [L,H]: last token -> the noun
layer, head = np.unravel_index(to_noun.argmax(), to_noun.shape)
names = words(queen)
_, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
weights = np.where(np.tri(len(queen), dtype=bool), trace[f"h.{layer}.attn.weights"][0, head], np.nan)
plots.heat_map(weights, names, names, ".2f", ax)
ax.set(xlabel="looked at", ylabel="looks", title=f"layer {layer}, head {head}")
plots.show(
    ax,
    "The attention weights of one head as a triangle of numbers in grey cells, a row for each token that looks, a column "
    "for each token looked at; the part above the diagonal is hatched, since the future is masked. In the last row the "
    "cell of the second token has the largest weight that any head gives it.",
)
print(f"of all heads, this one gives the noun the largest weight from the last token: {to_noun.max():.2f}")
print(f"the mean head gives it {to_noun.mean():.2f}; an even spread would be {1 / len(queen):.2f}")

# %% [markdown] id="15-all-maps"
r"""
### All heads at once

One head is an anecdote. Here are all of them, on a longer sentence. Do not read single cells; look for *patterns*: a
dark diagonal (looks at itself), a line below it (at the token before), a dark left column (at the first token), even
grey (at everything).

**Guess, then run.** Will the first layer look more like the even grey, or the last?
"""

# %% id="15-all-maps-figure"
sentence = "The king had a daughter, and the king's daughter was fair. The king said to his"
ids = np.array(tokenizer.encode(sentence))
trace = model.trace(ids)
figure, axes = plt.subplots(L, H, figsize=(9, 9 * L / H + 0.4), layout="constrained")
for (i, h), ax in np.ndenumerate(axes):
    ax.imshow(trace[f"h.{i}.attn.weights"][0, h], cmap="Greys", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    if h == 0:
        ax.set_ylabel(f"layer {i}")
    if i == 0:
        ax.set_title(f"head {h}", fontsize="medium")
plots.show(
    figure,
    f"A grid of small triangular maps, {L} layers by {H} heads, without numbers. Some are evenly grey, some have a dark "
    "diagonal or a dark line beside it, some dark columns.",
)

# %% [markdown] id="15-patterns"
r"""
Eyes find patterns everywhere, so let us count. Over some texts, how much weight does each head give on average to the
token itself, to the one before, and to the first? The texts are drawn from the model.
"""

# %% id="15-patterns-counted"
writing = {"max_new_tokens": 96, "temperature": 1.0, "min_p": 0, "stop_tokens": ()}
texts = np.array([[m.id for m in minillm.generate(model, tokenizer, "Once upon a time", seed=s, **writing)] for s in range(6)])
T = texts.shape[1]
normal = Trace()
logits = model(texts, step=normal)

pattern = {"itself": np.zeros((L, H)), "the one before": np.zeros((L, H)), "the first": np.zeros((L, H))}
for i in range(L):
    w = normal[f"h.{i}.attn.weights"][:, :, 1:]  # [B,H,T-1,T]: position 0 has no choice
    rows = np.arange(T - 1)
    pattern["itself"][i] = w[:, :, rows, rows + 1].mean(axis=(0, 2))
    pattern["the one before"][i] = w[:, :, rows, rows].mean(axis=(0, 2))
    pattern["the first"][i] = w[:, :, :, 0].mean(axis=(0, 2))
for what, share in pattern.items():
    i, h = np.unravel_index(share.argmax(), share.shape)
    print(f"{what:<16} most in layer {i}, head {h}: {share.max():.0%} of its weight; the mean head {share.mean():.0%}")

# %% [markdown] id="15-maps-prove-nothing"
r"""
Attractive, but what have we learnt? A weight says how much of a token's *value* is added. It does not say what is in the
value, or whether anything later uses it. A head may look intently at something and add a vector that no one reads. Keep
the maps as a source of questions. We come back to them with an experiment.
"""

# %% [markdown] id="15-logit-lens"
r"""
## The logit lens

The second way of watching asks the model itself. After every layer there is a vector for each position, the residual
stream. Only the last one is meant to be turned into logits. But all live in the same space, since each layer merely
*adds* to the one before. So let us pretend that the model ended earlier: the **logit lens**.

With `Patch` this is one line. We put an earlier layer's stream in the place of the last one, and the model itself does
the rest, the final norm and the product with the token table.

**Guess, then run.** What will the lens show *before* the first layer, when only the tokens' own vectors are there?
(GPT-2 uses the same table to read and to write tokens.)
"""

# %% id="15-lens"
last = f"h.{L - 1}.mlp.residual"
stages = {"embed": "embed"} | {f"layer {i}": f"h.{i}.mlp.residual" for i in range(L)}
lens = {stage: log_softmax(model(ids, step=Patch({last: trace[name]}))) for stage, name in stages.items()}
for stage, logp in lens.items():
    best = [f"{tokenizer.decode([i])!r:>11} {np.exp(logp[-1, i]):4.0%}" for i in np.argsort(-logp[-1])[:4]]
    print(f"{stage:<8} " + "  ".join(best))
assert np.allclose(lens[f"layer {L - 1}"], log_softmax(model(ids)), atol=1e-3), "the last stage is the model itself"

# %% id="15-lens-figure"
shown = slice(-9, None)  # the last positions: all would be too small to read
best = np.array([logp.argmax(axis=-1) for logp in lens.values()])[::-1, shown]
sure = np.array([np.exp(logp.max(axis=-1)) for logp in lens.values()])[::-1, shown]
_, ax = plt.subplots(figsize=(10, 4), layout="constrained")
plots.heat_map(100 * sure, list(lens)[::-1], words(ids[shown]), ax=ax)
for (row, column), token in np.ndenumerate(best):
    shade = "white" if sure[row, column] > 0.6 * sure.max() else "black"
    ax.annotate(tokenizer.decode([token]).strip() or "⏎", (column, row), ha="center", va="center", color=shade, fontsize="small")
ax.set(xlabel="position: the token that is read there", title="The likeliest next token after each layer; darker is surer")
plots.show(
    ax,
    "A table with a row for each stage, the embedding at the bottom and the last layer on top, and a column for each of "
    "nine positions. Each cell names the likeliest next token, darker where it is surer. The bottom row repeats the tokens "
    "read and is dark; the middle rows change; the top rows mostly agree.",
)
agrees = [np.mean(logp.argmax(axis=-1) == lens[f"layer {L - 1}"].argmax(axis=-1)) for logp in lens.values()]
for stage, share in zip(lens, agrees):
    print(f"{stage:<8} has the final answer at {share:4.0%} of all positions")
assert agrees[-1] == 1 and agrees[0] < 1

# %% [markdown] id="15-lens-lesson"
r"""
Before the first layer the lens mostly shows the token itself, since its own vector is most like its own row of the table.
(A � stands for a token that is only part of a character, ⏎ for a new line.) The
model has to *turn* this into the next token, and does it layer by layer. Often it has the right *kind* of word a layer
or more before the end.

A warning: in the middle of the model the lens reads a vector with a tool made for the end. Where it shows the same
token nearly everywhere in a row, that is the tool more than the model. And what it does not show may be there in another
form.
"""

# %% [markdown] id="15-head-ablation"
r"""
## Switching off a head

Now we intervene. If a head matters, the model must do worse without it: **ablation**.

What is "without"? Setting its output to 0 would put the later layers into a situation that they never met in training.
Gentler: replace the output by its *mean* over many positions. The head then still says something, but always the same,
whatever it looks at. What is lost is the information.

**Guess, then run.** Each head of the model is switched off alone, and the loss on the texts is measured. How many of them
raise it by more than 0.02 bits a token? (A bit is $\ln 2$ nats.) Can the loss also *fall*?
"""

# %% id="15-ablation-measured"
targets = texts[:, 1:]


def loss(logits) -> float:
    """Bits a token."""
    return float(cross_entropy(logits[:, :-1], targets).mean() / np.log(2))


def without(layer: int, *heads: int) -> Patch:
    """A step that replaces some heads' outputs by their means over the texts."""
    name = f"h.{layer}.attn.context"  # [B,H,T,D]
    mean = normal[name].mean(axis=(0, 2), keepdims=True)
    off = np.isin(np.arange(H), heads)[:, None, None]
    return Patch({name: lambda x: np.where(off, mean, x)})


base = loss(logits)
rise = np.array([[loss(model(texts, step=without(i, h))) - base for h in range(H)] for i in range(L)])
print(f"loss of the whole model {base:.3f} bits a token")
print(f"{(rise > 0.02).sum()} of {L * H} heads raise it by more than 0.02 bits; {(rise < 0).sum()} lower it")
assert rise.max() > 0

# %% id="15-ablation-figure"
_, ax = plt.subplots(figsize=(9, 3.8), layout="constrained")
ax.bar(np.arange(L * H), rise.ravel(), color="0.75", edgecolor="black", lw=0.6)
for i in range(1, L):
    ax.axvline(i * H - 0.5, color="0.6", lw=0.8, ls=":")
ax.axhline(0, color="black", lw=0.8)
ax.set_xticks(np.arange(L * H), [str(h) for h in range(H)] * L, fontsize="x-small")
for i in range(L):
    ax.annotate(f"layer {i}", (i * H + H / 2 - 0.5, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom")
ax.set(xlabel="head", ylabel="rise of the loss (bits a token)", xlim=(-1, L * H))
plots.show(
    ax,
    f"A bar for each of the {L * H} heads, grouped by layer: by how many bits a token the loss rises when this head is "
    "replaced by its mean. A few bars are high; most are low; some are at or slightly below zero.",
)

# %% [markdown] id="15-ablation-lesson"
r"""
A few heads carry much, many carry little. A bar below zero is no proof that a head is harmful: on a few hundred tokens, a
small change may be luck. Do heads then hardly matter? Switch off *all* heads of a layer at once before you conclude that.

**Guess, then run.** Is the damage of a whole layer's heads the sum of their single damages, less, or more?
"""

# %% id="15-whole-layers"
for i in range(L):
    together = loss(model(texts, step=without(i, *range(H)))) - base
    print(f"layer {i}: one by one the heads add up to {rise[i].sum():.3f} bits, together {together:.3f}")

# %% [markdown] id="15-maps-against-ablation"
r"""
Where the whole is more than the sum, heads stand in for each other: one alone is not missed.

And the promised test of the maps. If a clear pattern meant importance, heads with one would be those with high bars.

**Guess, then run.** For "looks at the token before": how strongly do the pattern and the damage go together (1: fully, 0: not
at all, negative: in opposition)?
"""

# %% id="15-pattern-against-damage"
for what, share in pattern.items():
    print(f"looks at {what:<16} correlation with the damage {np.corrcoef(share.ravel(), rise.ravel())[0, 1]:+.2f}")

# %% [markdown] id="15-patching"
r"""
So a pattern may be a hint, one kind more than another. Only the experiment could say so, and it speaks of many heads on
average: a single head with a clear pattern may still have a low bar.

## Patching: where is the queen?

Ablation says *that* a part matters. **Activation patching** says *for what*. We run the king's sentence, but at one
place put in the activation from the queen's. If the answer turns from *he* to *she*, the information was there.

- clean run: "The queen was sad, and", which ends in *she*;
- corrupted run: "The king was sad, and", which ends in *he*;
- patched run: the corrupted one with *one* activation of the clean one.

$$\text{restored} = \frac{\text{patched} - \text{corrupted}}{\text{clean} - \text{corrupted}},$$

each being *she* minus *he*. 0: nothing happened. 1: the answer is the queen's.

First the residual stream, at each stage and each position.

**Guess, then run.** Three cells of this table can be known beforehand. What is restored by patching the noun's position
before the first layer? The position before the noun, anywhere? The last position after the last layer?
"""

# %% id="15-patch-the-stream"
clean = model.trace(queen)
noun = int(np.flatnonzero(queen != king)[0])


def restored(replacements) -> float:
    """The share of the difference between clean and corrupted that a patched run restores."""
    return (she_minus_he(model(king, step=Patch(replacements))) - for_king) / (for_queen - for_king)


def at_position(name: str, position: int):
    """A replacement of one position of a stream [B,T,C] by the clean run's."""

    def replace(x):
        x = x.copy()  # what passes is never written into
        x[:, position] = clean[name][:, position]
        return x

    return {name: replace}


table = np.array([[restored(at_position(name, t)) for t in range(len(king))] for name in stages.values()])
assert np.isclose(table[0, noun], 1, atol=1e-2), "before the first layer the noun is all that differs"
assert np.allclose(table[:, :noun], 0, atol=1e-2), "what stands before the noun never heard of it"
assert np.isclose(table[-1, -1], 1, atol=1e-2), "after the last layer only the last position is read"

# %% id="15-patch-the-stream-figure"
_, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
columns = [f"{b}/{a}".replace(" ", "") if a != b else a for a, b in zip(words(queen), words(king))]
plots.heat_map(table[::-1], list(stages)[::-1], columns, "z.2f", ax)
ax.set(xlabel="position that is patched", title="share of the answer restored by one vector of the stream")
plots.show(
    ax,
    "A table of numbers, stages from the embedding at the bottom to the last layer on top, and positions along the "
    "sentence. At the bottom the noun's column has 1, all else 0. Upwards the noun's column falls and the last position's "
    "rises, to 1 on top.",
)
moved = int(np.argmax(table[:, -1] > table[:, noun]))
print(f"from {list(stages)[moved]} on, more of the answer is at the last position than at the noun")

# %% [markdown] id="15-read-the-patch"
r"""
This table is a film of the information. It begins at the noun, and it ends at the last position. Where the one column fades
and the other fills, something has carried it across. Only attention can do that: nothing else moves anything between
positions.

So, which heads? We patch a single head's output at the last position, everything else as it was.

**Guess, then run.** In which layers will they be? Will one head do it all?
"""

# %% id="15-patch-heads"


def of_heads(chosen) -> dict:
    """Replacements of the outputs of some (layer, head) at the last position by the clean run's."""
    replacements = {}
    for i in range(L):
        name, heads = f"h.{i}.attn.context", [h for layer, h in chosen if layer == i]

        def replace(x, name=name, heads=heads):
            x = x.copy()
            x[:, heads, -1] = clean[name][:, heads, -1]
            return x

        if heads:
            replacements[name] = replace
    return replacements


by_head = np.array([[restored(of_heads([(i, h)])) for h in range(H)] for i in range(L)])
ranked = [tuple(map(int, np.unravel_index(n, by_head.shape))) for n in np.argsort(-by_head, axis=None)]
_, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
plots.heat_map(by_head[::-1], [f"layer {i}" for i in range(L)][::-1], [f"head {h}" for h in range(H)], "z.2f", ax)
ax.set_title("share of the answer restored by one head at the last position")
plots.show(
    ax,
    "A table of numbers, layers by heads: the share of the answer that is restored by one head's output at the last "
    "position. Most cells are near zero; one or a few stand out.",
)
for n in (1, 2, 4, 8, L * H):
    print(f"the {n:>2} strongest heads together restore {restored(of_heads(ranked[:n])):.2f}")

# %% [markdown] id="15-what-it-takes"
r"""
What would *all* heads at the last position restore? All of it, for nothing else brings anything here. If few come near
to that, you have found the path by which the queen travels.

**Guess, then run.** Back to the maps once more: does the strongest head look at the noun? More than the others do?
"""

# %% id="15-strongest-head-looks"
for layer, head in ranked[:4]:
    weight = clean[f"h.{layer}.attn.weights"][0, head, -1]
    looks = ", ".join(f"{name!r} {w:.2f}" for name, w in zip(words(queen), weight))
    print(f"layer {layer}, head {head}: restores {by_head[layer, head]:.2f}, looks at {looks}")
assert np.isclose(restored(of_heads(ranked)), 1, atol=1e-2)

# %% [markdown] id="15-limits"
r"""
## What this proves, and what not

- It holds for this model, this sentence and this pair of words. Try others: "boy" and "girl", another verb, a longer way to
  the end. A finding that survives five sentences is worth telling.
- The share restored can be below 0 or above 1, and shares do not add up: later layers bend what they are given.
- Patching compares *two* runs. What both have in common (that a pronoun should follow at all) is invisible to it.
"""

# %% [markdown] id="15-summary"
r"""
## What to remember

- Watching (maps, lens) raises questions; intervening (ablation, patching) answers them.
- The stream starts as the token that is read and is turned, by additions, into the one that follows.
- Heads stand in for each other: a head that is not missed may still be at work.
- Information moves between positions in attention only, and one can see it move.
"""

# %% [markdown] id="15-exercises"
r"""
## Exercises

    minillm exercises check logit_lens
    minillm exercises check ablate_heads

A lens to mend, and a function to write that takes heads out of the pass.

To go on: chapter 10 leaves heads out to make a model smaller. Do `heads:6` and your bars agree on which to drop?
"""

# %% [markdown] id="15-sources"
r"""
## Sources

- [interpreting GPT: the logit lens](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens),
  nostalgebraist 2020.
- [Are Sixteen Heads Really Better than One?](https://arxiv.org/abs/1905.10650), Michel, Levy, Neubig 2019: ablation of
  heads.
- [Attention is not Explanation](https://arxiv.org/abs/1902.10186), Jain, Wallace 2019, and [Attention is not not
  Explanation](https://arxiv.org/abs/1908.04626), Wiegreffe, Pinter 2019.
- [Causal Mediation Analysis for Interpreting Neural NLP: The Case of Gender Bias](https://arxiv.org/abs/2004.12265), Vig et
  al. 2020: patching, with pronouns.
- [A Mathematical Framework for Transformer Circuits](https://transformer-circuits.pub/2021/framework/index.html), Elhage et
  al. 2021: the stream, and heads that add to it.
"""
