# %% [markdown] id="13-title"
r"""
# 13 · Training

In the last chapter we learnt which way to turn every number of a model. Now we turn them, until a heap of random numbers
tells tales. After this chapter you can

- follow the slopes back through attention, every number included,
- say what plain descent does badly, and take one step of what is used instead by hand,
- keep one bad batch from spoiling everything,
- train a small GPT-2 from nothing, and say how much better it could get,
- tell what was learnt from what was learnt by heart.

You need [chapter 12](12_gradients.ipynb).
"""

# %% id="13-imports"
import re

import numpy as np
from matplotlib import pyplot

from minillm import GPT2, Tokenizer, plots
from minillm.decoding import Options, Request, generate_batch
from minillm.exercises.catalogue.answers import central_difference
from minillm.layers.attention import (
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)
from minillm.steps import Trace
from minillm.training.language import IGNORED, LanguageModel
from minillm.training.optimizers import adamw_update, clip_by_global_norm, learning_rate, sgd_update
from minillm.training.settings import Settings
from minillm.training.trainer import METRICS, Trainer, read_metrics

# %% [markdown] id="13-attention-backward"
r"""
## Back through attention

Forwards there were four steps: scores, mask, weights, mean. Let us take the three tokens of [chapter
03](03_attention.ipynb) and walk back. Say the loss has told us `d_context`, its slope by every number that attention
returned. Here only *sat* matters, and it wants more of its first number and less of its last; the two others are left
alone. ($d$ in front of a name means: slope of the loss by it.)

**Guess, then run.** *The* can look at itself only. What will the slopes of its scores be?
"""

# %% id="13-attention-backward-run"
tokens = ["The", "cat", "sat"]
q = np.array([[2.0, 0, 0, 0], [0, 2, 1, 0], [1, 3, 0, 0]])  # [T, D], as in chapter 03
k = np.array([[1.0, 0, 1, 0], [0, 2, 0, 0], [2, 0, 1, 2]])
v = np.array([[1.0, 0, 0, 2], [0, 1, 0, 4], [0, 0, 1, 6]])
d_context = np.array([[0.0, 0, 0, 0], [0, 0, 0, 0], [-1, 0, 0, 1]])  # [T, D]

where = {"positions": np.arange(3)[None], "scale": 1 / 2}  # 1 / sqrt(D)
forwards, backwards = Trace(), Trace()
q, k, v, d_context = (x[None, None] for x in (q, k, v, d_context))  # [T, D] -> [1, 1, T, D]
scaled_dot_product_attention(q, k, v, **where, step=forwards)
kept = {"q": q, "k": k, "v": v, "weights": forwards["weights"]}
dq, dk, dv = scaled_dot_product_attention_backward(d_context, kept, **where, step=backwards)

weights, d_weights, d_scores = (table[0, 0] for table in (kept["weights"], backwards["weights"], backwards["scores"]))
figure, axes = pyplot.subplots(1, 3, figsize=(10.5, 3.4), layout="constrained")
panels = {"weights, forwards": weights, "slopes by the weights": d_weights, "slopes by the scores": d_scores}
for ax, (title, values) in zip(axes, panels.items()):
    plots.heat_map(values + 0.0, tokens, tokens, ".3f", ax=ax)
    ax.set(title=title, xlabel="is looked at (key)", ylabel="looks (query)")
plots.show(
    figure,
    "Three tables of 3 by 3 numbers. Weights: the last row "
    + ", ".join(f"{w:.3f}" for w in weights[2])
    + ". Slopes by the weights: zero but for the last row, "
    + ", ".join(f"{w:.0f}" for w in d_weights[2])
    + ". Slopes by the scores: zero but for the last row, "
    + ", ".join(f"{w:.3f}" for w in d_scores[2])
    + ".",
)
assert (d_scores[0] == 0).all() and np.allclose(d_scores.sum(axis=-1), 0)

# %% [markdown] id="13-attention-backward-read"
r"""
From right to left:

- **The mean**, $\text{context} = W V$, is a product, so both sides get slopes as in a linear map: $dV = W^\top\,
  d\text{context}$ and $dW = d\text{context}\, V^\top$. The second says: a larger weight on a token is as good as that
  token's value agrees with what is wanted. (A slope is positive where more is worse.)
- **Softmax.** Its row adds up to 1, so more for one is less for the others. What counts is how much a weight's slope
  lies above the row's own mean, $\sum_j w_j\, dw_j$:

  $$ds_i = w_i \left( dw_i - \textstyle\sum_j w_j\, dw_j \right)$$

  The slopes of a row add up to 0. *The* has but one weight, which is 1 whatever its score is: slope 0.
- **The mask** needs nothing: where a weight is 0, so is the slope of its score.
- **The scores**, $S = QK^\top / \sqrt D$, are a product again: $dQ = dS\, K / \sqrt D$, $dK = dS^\top Q / \sqrt D$.

And is it right? Chapter 12 has told us how to find out.
"""


# %% id="13-attention-backward-checked"
def wanted(q, k, v):
    """What the slopes are of: the sum of d_context times what attention returns."""
    context = scaled_dot_product_attention(q, k, v, **where)
    return float((d_context * context).sum())


for name, calculated, tried in (
    ("dq", dq, central_difference(lambda q: wanted(q, k, v), q, 1e-5)),
    ("dk", dk, central_difference(lambda k: wanted(q, k, v), k, 1e-5)),
    ("dv", dv, central_difference(lambda v: wanted(q, k, v), v, 1e-5)),
):
    _, cat, sat = calculated[0, 0].round(4) + 0.0
    print(f"{name} of sat {sat}, of cat {cat}; "
          f"largest difference to what was tried {np.abs(calculated - tried).max():.0e}")  # fmt: skip
    assert np.allclose(calculated, tried, atol=1e-8)

# %% [markdown] id="13-all-of-it"
r"""
Only *sat* looked, so only its query gets a slope; its keys and values are everybody's, and the slopes of those go to
every token that was looked at. Attention carries information forwards from token to token, and blame backwards.

The rest is short. A residual adds a branch to $x$: used twice, so the slopes add up. Layer norm and GELU have one line
each, linear maps we know. Walking back through a block is as long as walking forwards; it stands in
`minillm/families/gpt2/backward.py`, to be read beside `forward.py`.

## From slopes to steps

In chapter 12 plain descent had two troubles: valleys, steep across and level along, and rare letters, whose slopes are
so small that they hardly move. Both are one trouble: *every number needs a step of its own size.*
"""

# %% [markdown] id="13-adamw"
r"""
**AdamW** gives it one. For each number it remembers two running means: $m$ of the slopes $g$, and $v$ of their squares.

$$m \leftarrow \beta_1 m + (1 - \beta_1)\, g \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2$$

Both start at 0, so at first they are too small; dividing by $1 - \beta^t$ in step $t$ = 1, 2, ... puts that right. Then

$$p \leftarrow (1 - \eta \lambda)\, p \; - \; \eta\, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$

Mean slope divided by usual size of the slope: whatever units $g$ had, they cancel. A number whose slopes agree moves by
about $\eta$ in each step; one whose slopes change sign all the time hardly moves. ($\epsilon$ is tiny and keeps us from
dividing by 0. The *weight decay* $\lambda$ pulls a number towards 0 unless the loss pulls back.)

**Guess, then run.** Two numbers, both 1. The slope of the first is 10, that of the second 0.001. $\eta = 0.1$, no decay.
Where are they after one step of plain descent? Of AdamW?
"""

# %% id="13-adamw-by-hand"
slopes = np.array([10.0, 0.001])
plain, momentum = np.ones(2), np.zeros(2)
sgd_update(plain, slopes, momentum, lr=0.1, beta=0.0)

adam, m, v = np.ones(2), np.zeros(2), np.zeros(2)
adamw_update(adam, slopes, m, v, lr=0.1, step=1)
print("plain descent", plain)
print("AdamW        ", adam)
print("m", m, " v", v, " put right:", m / (1 - 0.9), v / (1 - 0.999))
assert np.allclose(adam, 0.9, atol=1e-5) and np.allclose(plain, [0, 0.9999])

# %% [markdown] id="13-adamw-ravine"
r"""
Both by 0.1: in the first step nothing but the *sign* counts. Now the valley. Take $L = (x^2 + 50 y^2) / 2$, with slopes
$x$ and $50 y$: fifty times as steep across as along.

**Guess, then run.** Start at $(-4, 1)$. Plain descent with the largest rate that does not fly off, against AdamW: which
is nearer to the lowest point, $(0, 0)$, after 40 steps?
"""

# %% id="13-ravine"
curvature = np.array([1.0, 50.0])


def path_of(update, steps=40):
    places = [np.array([-4.0, 1.0])]
    for step in range(1, steps + 1):
        place = places[-1].copy()
        update(place, curvature * place, step)
        places.append(place)
    return np.array(places)


momentum, m, v = np.zeros((3, 2))
paths = {
    "plain descent, 0.038": path_of(lambda p, g, step: sgd_update(p, g, momentum, lr=0.038, beta=0.0)),
    "AdamW, 0.2": path_of(lambda p, g, step: adamw_update(p, g, m, v, lr=0.2, step=step)),
}
flies_off = path_of(lambda p, g, step: sgd_update(p, g, momentum, lr=0.042, beta=0.0))

x, y = np.linspace(-4.4, 1.2, 100), np.linspace(-1.2, 1.2, 100)
_, ax = pyplot.subplots(figsize=(8, 3.8), layout="constrained")
height = (curvature[0] * x**2 + curvature[1] * y[:, None] ** 2) / 2
ax.contour(x, y, height, [0.2, 1, 3, 6, 10, 20, 30], colors="0.6", linewidths=0.8)
for (name, path), style in zip(paths.items(), ("s--", "o-")):
    ax.plot(*path.T, style, color="black", mfc="white" if style == "s--" else "black", ms=3.5, lw=0.9, label=name)
    print(f"{name}: after 40 steps at {path[-1].round(3)}, height {(curvature * path[-1] ** 2).sum() / 2:.4f}")
print(f"plain descent, 0.042: after 40 steps at {flies_off[-1].round(1)}: across it overshoots by more each time")
ax.plot(0, 0, "*", color="black", ms=14, mfc="white", label="lowest point")
ax.set(xlabel="x", ylabel="y", title="A valley fifty times as steep across as along")
ax.legend(loc="upper right", framealpha=1)
plots.show(
    ax,
    "Contour lines of a long valley along x, and two paths from its left end. Plain descent jumps from side to side across "
    f"and gets to x = {paths['plain descent, 0.038'][-1, 0]:.2f} in 40 steps. AdamW swings in a curve past the lowest point, "
    f"to x = {paths['AdamW, 0.2'][-1, 0]:.2f}.",
)
assert abs(flies_off[-1, 1]) > 1 > abs(paths["plain descent, 0.038"][-1, 1])

# %% [markdown] id="13-ravine-read"
r"""
For plain descent the steep direction sets the rate: $\eta$ must stay below $2 / 50$, and the level direction, where a
fifty times larger one would do, has to live with it. AdamW steps by about $\eta$ in both at first. The price: it does
not slow down by itself near the goal, and may run past it. So one lets the rate fall towards the end.
"""

# %% [markdown] id="13-schedule"
r"""
A **schedule** says how large $\eta$ is in each step. At first it rises, for some steps: the running means know only a
few slopes yet, and the first ones, of random numbers, are no good guide. Then it falls, so that the end is quiet.
"""

# %% id="13-schedule-shown"
steps = np.arange(600)
rates = [learning_rate(step, 600, lr=0.01, warmup=20, schedule="cosine", final=0.1) for step in steps]
_, ax = pyplot.subplots(figsize=(6.5, 2.6), layout="constrained")
ax.plot(steps, rates, color="black")
ax.set(xlabel="step", ylabel="learning rate η", ylim=(0, 0.011), title="Up in a line, down along half a cosine")
ax.spines[["top", "right"]].set_visible(False)
plots.show(ax, "The learning rate rises in a line to 0.01 within 20 steps and falls along half a cosine to 0.001 at step 600.")
assert np.argmax(rates) in (19, 20) and np.isclose(rates[-1], 1e-3, rtol=0.02)

# %% [markdown] id="13-clipping"
r"""
## One bad batch

Now and then a few unlucky texts give a gradient ten times as long as usual, and one giant step undoes a hundred good
ones. So the gradient is **clipped**: if it is longer than a limit, it is shortened to that. "It" is the vector of *all*
slopes of the model together, one length and one factor, so that its direction stays.

**Guess, then run.** Two parameters have the slopes $[3, 0]$ and $[4]$, and the limit is 1. What comes out? And if each
were clipped on its own?
"""

# %% id="13-clipping-run"
together = {"w": np.array([3.0, 0.0]), "b": np.array([4.0])}
length = clip_by_global_norm(together, 1.0)
alone = {"w": np.array([3.0, 0.0]), "b": np.array([4.0])}
for name in alone:
    clip_by_global_norm({name: alone[name]}, 1.0)
print("how long it was ", length)
print("clipped together", together, " ratio of b to w", together["b"][0] / together["w"][0])
print("each on its own ", alone, " ratio of b to w", alone["b"][0] / alone["w"][0])
assert length == 5 and np.isclose(together["b"][0] / together["w"][0], 4 / 3)

# %% [markdown] id="13-tales"
r"""
## Something to learn

We want to *see* that something was learnt, and know what is best possible. So a script writes the tales. Some words it
draws freely: who it is about, how many animals, what steals how many. The others follow: *he* or *she*, which animal
again, and how many are left. (For a text of your own, `minillm train --data FOLDER` does all that follows.)
"""

# %% id="13-tales-script"
PEOPLE = dict.fromkeys(["king", "miller", "tailor", "giant"], "he") | dict.fromkeys(["queen", "witch", "princess", "maid"], "she")
MOODS = ["poor", "young", "proud", "kind", "lonely", "clever"]
ANIMALS = ["hens", "geese", "sheep", "goats", "pigs", "ducks", "cows", "horses"]
THIEVES = ["wolf", "fox", "bear", "raven", "dragon", "robber"]
NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
HAD = range(4, 10)


def tale(rng):
    """One tale: six words are drawn, all the rest follows."""
    mood, who, animals, thief = (str(rng.choice(words)) for words in (MOODS, [*PEOPLE], ANIMALS, THIEVES))
    had = int(rng.choice(HAD))
    stolen = int(rng.integers(2, had - 1))  # 2 to had - 2: some are stolen, some are left
    return (
        f"Once there was a {mood} {who} who had {NUMBERS[had]} {animals}. One night a {thief} came and took {NUMBERS[stolen]} "
        f'of the {animals}. Now {PEOPLE[who]} had {NUMBERS[had - stolen]}. "Give them back!" said the {who}, but the {thief} '
        "had eaten them all."
    )


rng = np.random.default_rng(0)
some = [tale(rng) for _ in range(300)]
print(*some[:2], sep="\n\n")

tokenizer = Tokenizer.train(some, 512)
print(f"\n{tokenizer.vocab_size} tokens; a tale is:", [tokenizer.decode([i]) for i in tokenizer.encode(some[0])])

# %% [markdown] id="13-floor"
r"""
Even a perfect model cannot know a word that is drawn. Of eight people each has probability 1/8, so the best possible
loss at that word is $\ln 8$; where the word follows, it is 0. The sum over the drawn words, spread over all tokens of a
tale, is the lowest mean loss there is on new tales: the floor. (Its name is *entropy*.)

**Guess, then run.** With some hundreds of tokens in the vocabulary, what is the loss of a model that knows nothing? How
far below lies the floor?
"""

# %% id="13-floor-shown"
free = sum(np.log(len(words)) for words in (MOODS, PEOPLE, ANIMALS, THIEVES, HAD)) + np.mean([np.log(had - 3) for had in HAD])


def batch_of_tales(texts):
    """Rows of ids and what follows each of them, [B, T]: <|endoftext|>, the tale, <|endoftext|>; padding is not to be learnt."""
    rows = [[tokenizer.eot_id, *tokenizer.encode(text), tokenizer.eot_id] for text in texts]
    longest = max(map(len, rows))
    ids = np.array([row + [0] * (longest - len(row)) for row in rows])
    targets = np.array([row[1:] + [IGNORED] * (longest - len(row)) for row in rows])
    return ids[:, :-1], targets[:, : longest - 1]


ids, targets = batch_of_tales(some)
length = (targets != IGNORED).sum(axis=1).mean()
floor = free / length
print(f"the six drawn words of a tale: {free:.2f} nats; over {length:.1f} tokens: {floor:.3f} nats a token")
print(f"knows nothing: ln {tokenizer.vocab_size} = {np.log(tokenizer.vocab_size):.3f} nats a token")
assert floor < 0.1 * np.log(tokenizer.vocab_size)

# %% [markdown] id="13-before"
r"""
## Before

A GPT-2 of random numbers: two blocks, four heads, 64 numbers a token. What does it tell?
"""

# %% id="13-before-sample"
plan = Settings(
    n_layer=2, n_head=4, n_embd=64, n_positions=80, batch_size=16, steps=600, lr=1e-2, warmup=20,
    log_every=5, eval_every=25, checkpoint_every=300, seed=1,
)  # fmt: skip


def samples(model, number=100):
    """Tales by the model, each token drawn with its own probability, until it ends them or the room is used up."""
    told = [[] for _ in range(number)]
    options = [Options(max_new_tokens=75, temperature=1.0, min_p=0, seed=seed) for seed in range(number)]
    requests = [Request([tokenizer.eot_id], o) for o in options]
    for row, moment in generate_batch(model, requests, rows=number):
        told[row].append(moment.id)
    return [tokenizer.decode(ids).removesuffix("<|endoftext|>") for ids in told]


model = GPT2.random(plan.model_config(tokenizer.vocab_size, tokenizer.eot_id), plan.seed)
before = samples(model, 2)
print(model, "\n")
print(before[0])

# %% [markdown] id="13-train"
r"""
## Training

All parts are there, and one step of training is: a batch, its loss and gradient, clip, one step of AdamW. The `Trainer`
repeats it; it writes down what happens, keeps a checkpoint and can go on after a crash. It takes what it trains, a
function that gives the batch of each step, and one that says how to examine the model. Every batch is sixteen *new*
tales: the script never runs dry.

**Guess, then run.** Will the loss fall evenly? How near will it come to the floor?
"""

# %% id="13-train-run"
held_out = batch_of_tales([tale(np.random.default_rng([9, n])) for n in range(64)])  # never in a batch
watched = batch_of_tales(['Once there was a clever queen who had nine geese. One night a fox came and took four of the geese. '
                          'Now she had five. "Give them back!" said the queen, but the fox had eaten them all.'])  # fmt: skip


def train(model, batch_of, folder, steps=plan.steps):
    """Return the trained model, what was reported, and the watched tale's losses at every examination."""
    learner = LanguageModel(model)
    seen = {0: learner.losses(watched)[0]}

    def examine(last):
        seen[trainer.step] = learner.losses(watched)[0]
        return {"new_tales": float(learner.losses(held_out).sum() / (held_out[1] != IGNORED).sum())}

    trainer = Trainer(learner, batch_of, Settings(**plan.to_dict() | {"steps": steps}), folder, evaluate=examine)
    trainer.run()
    return learner.model, read_metrics(trainer.folder / METRICS), seen


def new_tales(step, rank, size):
    """The batch of one step, a function of its number; rank and size are for several processes at once."""
    rng = np.random.default_rng([1, step])
    return batch_of_tales([tale(rng) for _ in range(plan.batch_size)][rank::size])


model, metrics, seen = train(model, new_tales, "tales-run")
losses = {record["step"]: record["loss"] for record in metrics if "lr" in record}
examined = {record["step"]: record["new_tales"] for record in metrics if "new_tales" in record}
for step in (25, 50, 100, 200, 400, plan.steps):
    print(f"step {step:>4}: loss on new tales {examined[step]:.3f}, floor {floor:.3f}")
assert 0.95 * floor < examined[plan.steps] < 1.5 * floor < examined[25]

# %% id="13-loss-curve"
_, ax = pyplot.subplots(figsize=(7, 4), layout="constrained")
ax.plot(*zip(*losses.items()), color="0.6", lw=1, label="the batch of the step")
ax.plot(*zip(*examined.items()), "o", color="black", ms=4, label="64 tales kept aside")
for height, name, above in ((np.log(tokenizer.vocab_size), "knows nothing", 4), (floor, "floor: the drawn words", -13)):
    ax.axhline(height, color="black", linestyle="--", lw=0.9)
    ax.annotate(f"{name}, {height:.2f}", (plan.steps, height), xytext=(0, above), textcoords="offset points", ha="right")
ax.set(
    yscale="log",
    ylim=(0.15, 9),
    xlabel="step",
    ylabel="loss (nats a token, logarithmic)",
    title="Training: the loss falls to the floor",
)
ax.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
ax.minorticks_off()
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)
plots.show(
    ax,
    f"Loss against step, logarithmic: from {losses[5]:.2f} nats at step 5, near the line of a model that knows nothing "
    f"({np.log(tokenizer.vocab_size):.2f}), down to {examined[plan.steps]:.3f} at step {plan.steps}; the floor is {floor:.3f}. "
    "It falls steeply, then hardly, then once more. Tales kept aside lie on the same curve.",
)

# %% [markdown] id="13-after"
r"""
## After

The same seeds as before, and then a hundred tales, examined: do they have the form of a tale, is *he* or *she* right,
and does the subtraction come out?
"""

# %% id="13-after-samples"
after = samples(model)
print("before:", before[0][:200], "\n")
print("after: ", *after[:3], sep="\n\n")

FORM = re.compile(
    r"Once there was a \w+ (?P<who>\w+) who had (?P<had>\w+) (?P<animals>\w+)\. One night a (?P<thief>\w+) came and took "
    r"(?P<stolen>\w+) of the (?P<again>\w+)\. Now (?P<pronoun>\w+) had (?P<left>\w+)\. "
    r'"Give them back!" said the (?P<speaker>\w+), but the (?P<eater>\w+) had eaten them all\.'
)
found = [match.groupdict() for match in map(FORM.fullmatch, after) if match]
right = {
    "he or she": [PEOPLE.get(t["who"]) == t["pronoun"] for t in found],
    "the same person, animals and thief to the end": [
        (t["who"], t["animals"], t["thief"]) == (t["speaker"], t["again"], t["eater"]) for t in found
    ],
    "the subtraction": [
        {t["had"], t["stolen"], t["left"]} <= {*NUMBERS}
        and NUMBERS.index(t["had"]) - NUMBERS.index(t["stolen"]) == NUMBERS.index(t["left"])
        for t in found
    ],
}
print(f"\nof {len(after)} tales {len(found)} have the form; of these are right:")
for what, each in right.items():
    print(f"{what:<48} {np.mean(each):.0%}")
assert len(found) > 50 and not any(map(FORM.fullmatch, before))

# %% [markdown] id="13-token-by-token"
r"""
The curve falls twice. What was learnt first, and what so much later? The watched tale was no part of any batch. Here is
the loss at every token of it, at four times.

**Guess, then run.** Which words were learnt in the first fall, which in the second? Where will bars remain, and how high?
"""

# %% id="13-token-by-token-shown"
ids, targets = watched[0][0], watched[1][0]
words = [tokenizer.decode([i]).strip() or "␣" for i in targets[:-1]] + ["end"]
times = [0, 25, 250, plan.steps]
figure, axes = pyplot.subplots(len(times), 1, figsize=(11, 7.5), layout="constrained", sharex=True)
for ax, step in zip(axes, times):
    ax.bar(range(len(words)), seen[step], color="0.75", edgecolor="black", linewidth=0.6)
    ax.set(ylabel="loss (nats)", ylim=(0, 7), title=f"after {step} steps: mean {seen[step].mean():.2f} nats")
    ax.spines[["top", "right"]].set_visible(False)
axes[-1].set_xticks(range(len(words)), words, rotation=90)
peaks = ", ".join(f"{words[i]} {seen[plan.steps][i]:.1f}" for i in np.argsort(-seen[plan.steps])[:6])
plots.show(figure, f"Bars of the loss at each token of a tale, after {times} steps. They sink; the highest in the end: {peaks}.")
assert seen[plan.steps].mean() < seen[25].mean() < 0.5 * seen[0].mean()

# %% [markdown] id="13-token-by-token-read"
r"""
First the phrases that are the same in all tales: for these it is enough to know the place. Then for a long time
nothing seems to happen, until attention has found where to look: the second fall is *she* for a queen, the same animals
once more, and nine minus four. What remains are the drawn words, each about as high as the logarithm of how many there
are to draw from, and no training can take these away.

## Learnt, or learnt by heart?

Now the same model again, from the same random numbers, but with sixteen tales only, the same in every step.

**Guess, then run.** Can the loss on these sixteen fall below the floor? What happens to the loss on new tales?
"""

# %% id="13-by-heart"
sixteen = batch_of_tales(some[:16])
pupil = GPT2.random(model.config, plan.seed)
_, metrics, _ = train(pupil, lambda step, rank, size: sixteen, "sixteen-run", steps=200)
own = {record["step"]: record["loss"] for record in metrics if "lr" in record}
new = {record["step"]: record["new_tales"] for record in metrics if "new_tales" in record}

_, ax = pyplot.subplots(figsize=(7, 3.8), layout="constrained")
ax.plot(*zip(*own.items()), "--", color="black", label="the sixteen tales")
ax.plot(*zip(*new.items()), "o-", color="black", ms=4, label="new tales")
ax.axhline(floor, color="0.5", lw=0.9)
ax.annotate(f"floor, {floor:.2f}", (0, floor), xytext=(0, 4), textcoords="offset points")
ax.set(yscale="log", xlabel="step", ylabel="loss (nats a token, logarithmic)", title="Sixteen tales, learnt by heart")
ax.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2, 5], ["0.05", "0.1", "0.2", "0.5", "1", "2", "5"])
ax.minorticks_off()
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)
plots.show(
    ax,
    f"Two curves of the loss. On the sixteen tales it falls through the floor of {floor:.2f} to {own[200]:.3f}; on new tales it "
    f"falls to {min(new.values()):.2f} at step {min(new, key=new.get)} and then rises to {new[200]:.2f}.",
)
assert own[200] < floor < min(new.values()) < new[200]

# %% [markdown] id="13-by-heart-read"
r"""
Below the floor! To guess a drawn word better than by drawing is possible only for who has seen it drawn. That is
**overfitting**: the loss on what was learnt from goes on falling, and the loss on anything else turns and rises. So
never judge a model by the texts that it learnt from. Keep some aside, and look at those. The remedies: more texts,
fewer steps, a smaller model, more weight decay.
"""

# %% [markdown] id="13-exercises"
r"""
## Exercises

    minillm exercises check clip_by_global_norm
    minillm exercises check adamw_update

The first is to be mended. Both change arrays *in place*: `p -= ...` and not `p = p - ...`. Why does the trainer need
it so?

On paper: AdamW with $\beta_1 = 0.9$, $\beta_2 = 0.999$, and the slopes $+1, -1, +1, -1$ in four steps. How far does the
number move in the second step, in units of $\eta$? Then run:
"""

# %% id="13-on-paper"
p, m, v = np.zeros((3, 1))
for step, slope in enumerate([1.0, -1.0, 1.0, -1.0], 1):
    old = p.copy()
    adamw_update(p, np.array([slope]), m, v, lr=1.0, step=step)
    print(f"step {step}: slope {slope:+.0f}, moves by {(p - old)[0]:+.3f} η")

# %% [markdown] id="13-sources"
r"""
## Sources

- [Adam: A Method for Stochastic Optimization](https://arxiv.org/abs/1412.6980), Kingma and Ba 2014: the two running
  means; and [Decoupled Weight Decay Regularization](https://arxiv.org/abs/1711.05101), Loshchilov and Hutter 2017: the W.
- [On the difficulty of training recurrent neural networks](https://arxiv.org/abs/1211.5063), Pascanu, Mikolov and
  Bengio 2012: why gradients grow too long, and clipping.
- [TinyStories](https://arxiv.org/abs/2305.07759), Eldan and Li 2023: how small a model can be and still tell a story.
"""
