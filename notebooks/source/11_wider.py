# %% [markdown] id="11-wider"
r"""
# 11 · Wider

One text, one token after another, one core: that is the narrowest way to run a model. This chapter makes it wider in
every direction in which it goes: pieces of a text, many texts at once, several threads, several tokens for one pass.
Some of these ways are exact. One, which is in print, is not.
"""

# %% [markdown] id="11-what-you-will-do"
r"""
## What you will be able to do

- show what goes wrong when a text is cut and its pieces are run alone, and how to cut it rightly;
- predict how the speed grows when many texts share a pass, and where the growth ends;
- say what a second thread helps, and what it cannot;
- let a small model guess for a large one without changing what comes out, and calculate whether it pays.

You need chapters [06](06_one_token_at_a_time.ipynb), [07](07_choosing_the_next_word.ipynb) and
[08](08_where_the_cycles_go.ipynb). About 30 minutes.
"""

# %% id="11-setup"
import matplotlib.pyplot as plt
import numpy as np

import minillm
from minillm import GPT2, GPT2Config, kernels, plots
from minillm.clock import Clock, groups, measure, step_costs, total
from minillm.decoding import ModelDraft, NGramDraft, Options, Request, acceptance, generate_batch
from minillm.decoding.cycle import Continuation, run_cycle
from minillm.decoding.segments import run_segments
from minillm.decoding.speculative import accept
from minillm.steps import local_name
from minillm.twins import set_threads
from minillm.weights import store_parameters

model, tokenizer = minillm.load("tales")

T, n_texts = 257, 12
asked = [
    Request([tokenizer.eot_id], Options(max_new_tokens=T, temperature=1.0, min_p=0, seed=seed, stop_tokens=()))
    for seed in range(n_texts)
]
texts = [[] for _ in asked]
for number, moment in generate_batch(model, asked, rows=n_texts):
    texts[number].append(moment.id)
print(f"{n_texts} texts of {T} tokens, written by the model itself; the first begins:")
print(tokenizer.decode(texts[0][:60]))

# %% [markdown] id="11-cut-the-text"
r"""
## Cut the text?

> **Find the mistake.** In print: *"Cut the text in pieces, run each piece alone, and join the outputs: the same result,
> for less computation, since attention is quadratic in the length."*

The last clause is true: $T$ tokens in pieces of $n$ have $Tn/2$ pairs to look at instead of $T^2/2$. But is it the same
result? `run_segments` runs a text both ways: each piece alone, or with the KV cache carried from piece to piece.

**Guess, then run.** The text is cut into pieces of 32 tokens, and we ask at every position for the likeliest next
token. In which pieces will the answer differ from that of the whole text? At how many of 100 positions?
"""

# %% id="11-pieces-against-whole"
ids, length = np.array(texts[0][: T - 1]), 32
whole = model(ids)
alone = np.concatenate([model(ids[start : start + length]) for start in range(0, len(ids), length)])
differs = (whole.argmax(axis=-1) != alone.argmax(axis=-1)).reshape(-1, length)
for number, piece in enumerate(differs):
    print(f"piece {number}: another next token at {piece.sum():>2} of {length} positions  {'#' * int(piece.sum())}")
assert not differs[0].any() and differs[1:].any()

# %% [markdown] id="11-the-first-piece"
r"""
The first piece is right: it has everything before it. All others are not. Each begins as if a text began there, with
nothing before it, and at position 0.

Now what this costs. The loss of each token is sorted by how far after a cut it stands, and averaged over all pieces of
all texts. (Even the right loss goes up and down, since a dozen texts are few. The difference is steadier: it compares the
same tokens.)

**Guess, then run.** How many bits does the token right after a cut lose? After how many tokens has a piece recovered?
"""

# %% id="11-loss-after-the-cut-figure"
cut = {carry: [run_segments(model, text, length, carry) for text in texts] for carry in (False, True)}
bits = {carry: np.mean([run.by_position() for run in runs], axis=0) / np.log(2) for carry, runs in cut.items()}
lost = bits[False] - bits[True]
figure, (both, gap) = plt.subplots(2, 1, figsize=(8, 5.6), sharex=True, layout="constrained")
after = np.arange(1, length + 1)
both.plot(after, bits[False], "o-", color="black", label="each piece alone")
both.plot(after, bits[True], "s--", color="0.5", markerfacecolor="white", label="with the cache carried")
both.set(ylabel="loss of the next token (bits)", title=f"Loss after the cut, pieces of {length}")
both.legend()
gap.bar(after, lost, color="0.75", edgecolor="black")
gap.set(xlabel="tokens of the piece that the model has seen", ylabel="lost by the cut (bits)", xlim=(0, length + 1))
plots.show(
    figure,
    "Two panels over the number of tokens seen since the cut. Above, the loss in bits: the solid line, pieces run alone, "
    "begins far above the dashed line, pieces with the cache carried over; both go up and down together, since some places "
    "have harder tokens. Below, bars of the difference: highest after the cut, then falling, but not to zero.",
)
print(
    f"the first token after a cut loses {lost[0]:.2f} bits, the mean token {lost.mean():.2f}, the last of a piece {lost[-1]:.2f}"
)
assert lost[0] > lost[length // 2 :].mean() and lost.mean() > 0

# %% [markdown] id="11-what-was-saved"
r"""
And what did we get for it? `run_segments` counts the multiplications.

**Guess, then run.** Attention's pairs fall to an eighth. By how many percent does the whole work fall? (Remember $6C$
of chapter 08.)
"""

# %% id="11-multiplications-saved"
work = {carry: sum(run.multiply_adds for run in runs) for carry, runs in cut.items()}
print(f"whole: {work[True] / n_texts / 1e6:.0f} million multiply-adds a text; in pieces: {work[False] / n_texts / 1e6:.0f}")
print(f"saved: {1 - work[False] / work[True]:.1%}; the bend at 6C = {6 * model.config.n_embd} tokens is far away")
assert work[False] < work[True]

# %% [markdown] id="11-mistake-10"
r"""
**What is true.** Later pieces lose their context, and the loss shows it. What is joined is *not* the same text. A cut is
harmless only if the keys and values of everything before it are kept: then the pieces are one text again.
"""

# %% [markdown] id="11-chunks"
r"""
## The right way to cut: chunks

With the cache carried, reading a text in pieces is called **chunked prefill**. It does the same work in smaller
portions: less memory for activations, and other texts can have their turn in between.

**Guess, then run.** In float64, how large is the largest difference between the logits in chunks and in one pass? Does
it depend on the size of the chunks?
"""

# %% id="11-chunks-are-exact"
precise, _ = minillm.load("tales", dtype="float64", kernels="numpy")
part = ids[:100]
reference = precise(part)
for chunk in (1, 7, 32):
    cache = precise.new_cache()
    logits = np.concatenate([precise(part[start : start + chunk], cache) for start in range(0, len(part), chunk)])
    difference = np.abs(logits - reference).max()
    print(f"chunks of {chunk:>2}, cache carried: largest difference {difference:.1e}")
    assert difference < 1e-10
alone = np.concatenate([precise(part[start : start + 32]) for start in range(0, len(part), 32)])
print(f"pieces of 32, each alone:  largest difference {np.abs(alone - reference).max():.1e}")
assert np.abs(alone - reference).max() > 0.1

# %% [markdown] id="11-chunks-why"
r"""
Rounding, nothing else. Causality is the reason: what a position computes depends on earlier positions only through
their keys and values, and these are in the cache. Where one cuts cannot matter.
"""

# %% [markdown] id="11-batching"
r"""
## Many texts in one pass

Chapter 09 showed that a second row through a matrix costs almost nothing, because the time goes into reading the
weights. One text has only one row to offer in a decode cycle. But a server has many users! Let their texts share the
pass: **batching**.

The model for this measurement has GPT-2's width and four layers, so that its weights do not fit into a cache. They
are random, which is enough: the cost does not depend on their values.

**Guess, then run.** One text makes some number of tokens a second. How many times as many do 4 texts together make? 16?
64? Where does it end, and why?
"""

# %% id="11-batch-measured"
config = GPT2Config(vocab_size=4096, n_positions=256, n_embd=768, n_layer=4, n_head=12)
wide = GPT2.random(config)
if model.ops is kernels:  # which read weights in an order of their own
    wide = GPT2(config, store_parameters(wide.parameters, "float32", wide.layout), kernels)
limits = measure(wide.ops, ["float32"])
past, sizes, cycle_ms, least_ms = 16, (1, 2, 4, 8, 16, 32, 64), [], []
for rows in sizes:
    cache, clock = wide.new_cache(rows, 64), Clock()
    wide(np.ones((rows, past), int), cache, last=True)
    for _ in range(7):
        cache.truncate(past)
        run_cycle(wide, np.ones((rows, 1), int), cache, clock)
    cycle_ms.append(min(cycle.end - cycle.start for cycle in clock.cycles()[1:]) / 1e6)
    cost = total(step_costs(config, 1, past, rows, kept=1, choose=False).values())
    reading, computing = cost.weights / limits.bandwidth_at(cost.weights), cost.products / limits.rows["float32"]
    least_ms.append(1e3 * max(reading, computing))
    print(f"{rows:>3} texts: a cycle {cycle_ms[-1]:7.2f} ms, {1e3 * rows / cycle_ms[-1]:8,.0f} tokens/s")
attention = np.median(groups(clock.cycles()[1:], local_name)["attn.context"]) / 1e6
print(f"of a cycle of {rows} texts, attention itself takes {attention:.2f} ms, {attention / cycle_ms[-1]:.0%}")
assert sizes[-1] / cycle_ms[-1] > 1 / cycle_ms[0]

# %% id="11-batch-figure"
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(sizes, 1e3 * np.array(sizes) / cycle_ms, "o-", color="black", label="measured")
left.plot(sizes, 1e3 * np.array(sizes) / least_ms, "--", color="0.5", label="limit: memory, then arithmetic")
left.plot(sizes, 1e3 * np.array(sizes) / cycle_ms[0], ":", color="0.5", label="in proportion")
left.set(xlabel="texts in the batch", ylabel="tokens/s of all together", title="throughput")
right.plot(sizes, cycle_ms, "o-", color="black", label="measured")
right.plot(sizes, least_ms, "--", color="0.5", label="limit: memory, then arithmetic")
right.set(xlabel="texts in the batch", ylabel="ms from token to token", title="what each user waits")
for ax in (left, right):
    ax.set(xscale="log", yscale="log", xticks=sizes, xticklabels=sizes)
    ax.set_xticks([], minor=True)
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.legend(fontsize="small")
right.yaxis.set_minor_formatter("{x:g}")
plots.show(
    figure,
    "Two panels over the number of texts, all axes logarithmic. Left: tokens a second of all texts together rise at first "
    "and then flatten, below the limit, which is a rising line that becomes level. Right: the milliseconds from one token to "
    "the next rise slowly for few texts and steeply for many.",
)

# %% [markdown] id="11-batch-lesson"
r"""
Two regimes again, those of chapter 09. While reading the weights is what a cycle waits for, each further text is almost
free. Once arithmetic is, the cycle grows with every text, and only the waiting grows.

The measured curve stays below the limit. The limit counts the weights only, which are shared. Attention is not:
each text has keys and values of its own, and its heads are work of its own, as the last line above shows.

There may be steps in the curve, where another program takes over. A single text and a batch of not too many run in the
*fused step*, one kernel for all layers, but one row is multiplied by another loop than several; and a large batch runs in
the readable forward, operation by operation. An average hides such steps, a curve does not.

What is exact here? Everything: rows do not see each other. Each has its own positions and its own mask, and
`generate_batch` gives each text what it would have been alone.
"""

# %% [markdown] id="11-threads"
r"""
## Threads

A processor has several cores. Does the model run twice as fast on two?

**Guess, then run.** For the decode of one token, and for the prefill of 128, how many times as fast are all threads
as one?
"""

# %% id="11-threads-measured"


def cycle_times(threads: int) -> tuple[float, float]:
    """Milliseconds of a prefill of 128 tokens and of a decode cycle, the shortest of 6."""
    set_threads(threads)
    clock = Clock()
    for _ in range(7):
        cache = wide.new_cache(1, 160)
        run_cycle(wide, np.ones((1, 128), int), cache, clock)
        run_cycle(wide, [[1]], cache, clock)
    cycles = clock.cycles()[2:]
    return tuple(min(c.end - c.start for c in cycles if c.kind == kind) / 1e6 for kind in ("prefill", "decode"))


n = limits.threads
one, all_ = cycle_times(1), cycle_times(n)
for kind, a, b in zip(("prefill of 128", "decode"), one, all_):
    print(f"{kind:<15} 1 thread {a:7.2f} ms, {n} threads {b:7.2f} ms: {a / b:.2f} times as fast")
assert one[0] / 128 < one[1], "a token that is read is cheaper than one that is written"

# %% [markdown] id="11-threads-lesson"
r"""
Prefill gains wherever a second core is free, for it waits for arithmetic, and each core brings its own. (On a machine
busy with something else there is no free core, and you see 1.0 twice.) Decoding gains little or nothing wherever
one core alone can already ask for all that memory delivers: memory is shared.

And even in prefill it is not quite the number of cores. If a share $s$ of the work cannot be divided, $n$ cores are at
most $1 / (s + (1-s)/n)$ times as fast (Amdahl's law).
"""

# %% [markdown] id="11-speculation"
r"""
## Several tokens from one pass

While a cycle waits for memory, further rows are nearly free, but one text has only one row to offer, since each token
needs the one before. Unless one *guesses*! Let a
small, quick model, the **draft**, guess the next $k$ tokens. The large model then *checks* all of them in one pass, as it
would read a prompt. Guesses that it agrees with are kept. This is **speculative decoding**.

For greedy decoding "agrees" is simple: the guess is the argmax. When sampling, the result must have the *distribution* $p$ of
the large model, though guesses come from the draft's $q$. The rule:

- keep a guess $x$ with probability $\min(1, p(x)/q(x))$;
- else draw from what $p$ has and $q$ lacks: $\max(p - q, 0)$, divided by its sum.

**Guess, then run.** Three tokens. The draft thinks $q = (0.1, 0.3, 0.6)$, the model $p = (0.5, 0.3, 0.2)$. How often is
a guess kept? And how are the tokens distributed that come out?
"""

# %% id="11-accept-by-hand"
p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
kept = np.minimum(p, q)  # q(x) min(1, p(x)/q(x))
lacking = np.maximum(p - q, 0)
print("kept, by token:          ", kept, f"together {kept.sum():.1f}")
print("drawn instead, by token: ", (1 - kept.sum()) * lacking / lacking.sum())
print("sum:                     ", kept + (1 - kept.sum()) * lacking / lacking.sum(), "which is p")
assert np.allclose(kept + (1 - kept.sum()) * lacking / lacking.sum(), p)

text = Continuation(model, [0], Options(temperature=1.0, min_p=0, seed=0))
guesses = np.random.default_rng(1).choice(3, size=20_000, p=q)
came_out = np.bincount([accept(p, guess, q, text) for guess in guesses], minlength=3) / len(guesses)
print("tried 20,000 times:      ", came_out.round(3))
assert np.abs(came_out - p).max() < 0.02

# %% [markdown] id="11-exact-whatever-the-draft"
r"""
Exactly $p$, whatever $q$ is: a bad draft makes it slow, never wrong. The share of guesses kept is
$\sum_x \min(p(x), q(x))$, the overlap of the two distributions.
"""

# %% [markdown] id="11-drafts-measured"
r"""
### Does it pay?

Three drafts for our model: a smaller model trained on the same tales, the model itself in 4 bits, and no model at all
but a look-up (what followed, the last time that these words occurred in the text?).

**Guess, then run.** Which share of its guesses does each get right? Which of them makes the model faster?
"""

# %% id="11-speculation-measured"
small, _ = minillm.load("tales-draft")
k = 4
drafts = {
    "none": None,
    "tales-draft": ModelDraft(small, k),
    "int4": ModelDraft(model.quantize("int4"), k),
    "look-up": NGramDraft(),
}
prompt = texts[0][:32]
greedy = {"max_new_tokens": 120, "temperature": 0, "stop_tokens": ()}
rate, share, ms, best = dict.fromkeys(drafts, 0.0), {}, {}, {}
for _ in range(3):  # in turn, so that a disturbance hits all alike; the quickest of each counts
    for name, draft in drafts.items():
        moments = list(minillm.generate(model, tokenizer, prompt, draft=draft, **greedy))
        tokens_a_second = (len(moments) - 1) / (moments[-1].time - moments[0].time) * 1e9
        if tokens_a_second > rate[name]:
            rate[name], best[name] = tokens_a_second, moments

for name, moments in best.items():
    cycles = dict.fromkeys(cycle for m in moments for cycle in (*m.before, m.cycle))
    for kind in ("decode", "draft", "verify"):
        of_kind = [(c.end - c.start) / 1e6 for c in cycles if c.kind == kind and c.positions <= k + 1]
        ms[name, kind] = np.median(of_kind) if of_kind else np.nan
    right, checked = acceptance(moments)
    share[name] = right / checked if checked else np.nan
    said = f"{right} of {checked} guesses right ({share[name]:.0%})" if checked else ""
    print(f"{name:<14}{rate[name]:8,.0f} tokens/s  {said}")
out = {name: [m.id for m in moments] for name, moments in best.items()}
same = [name for name in out if out[name] == out["none"]]
print("the same text as without a draft:", ", ".join(same))
print(tokenizer.decode(out["none"][:40]))

# %% [markdown] id="11-greedy-repeats"
r"""
Greedy texts repeat themselves (chapter 07), which flatters the look-up. Try it on a sampled text.

(In float32 a pass over several rows may round otherwise than one over a single row. If two tokens are as good as equally
likely, the greedy text may then part: that, and nothing else, is allowed to make a text differ.)
"""

# %% [markdown] id="11-calculate-it"
r"""
### Calculate it beforehand

Let each guess be right with probability $a$, if those before it were. (This is more than the share above: after a wrong
guess the rest of a round is thrown away, and there it was counted as not right.) A round of $k$ guesses then yields in the
mean

$$1 + a + a^2 + \dots + a^k = \frac{1 - a^{k+1}}{1 - a}$$

tokens (the 1 is the large model's own). It costs $k$ cycles of the draft and one pass of $k+1$ rows. With $c$ the draft's
cycle and $v$ the checking pass, both in units of a decode cycle, the gain is

$$\frac{1 - a^{k+1}}{(1 - a)\,(k c + v)}.$$

**Guess, then run.** If rows were free ($v = 1$) and the draft cost a tenth ($c = 0.1$), which $a$ would be needed to break even?
What does the formula say of *our* $a$, $c$ and $v$, measured above?
"""

# %% id="11-gain-figure"
a = np.linspace(0, 0.999, 400)


def gain(a, k, c, v):
    return (1 - a ** (k + 1)) / ((1 - a) * (k * c + v))


decode = ms["none", "decode"]
c, v = ms["tales-draft", "draft"] / decode, ms["tales-draft", "verify"] / decode
checks = [m.cycle for m in best["tales-draft"] if m.cycle.kind == "verify"]  # a pass stands here once for each of its tokens
kept = len(checks) - len(set(checks))  # all but the one token of a pass that is the large model's own
wrong = sum(checks.count(cycle) < cycle.positions for cycle in set(checks))  # passes that met a wrong guess: one each
here = kept / (kept + wrong), rate["tales-draft"] / rate["none"]
_, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
ax.plot(100 * a, gain(a, k, 0.1, 1.0), "-", color="black", label="rows free, draft costs a tenth")
ax.plot(100 * a, gain(a, k, c, v), "--", color="black", label=f"as measured here: c = {c:.2f}, v = {v:.2f}")
ax.axhline(1, color="0.6", lw=0.8)
ax.plot(100 * here[0], here[1], "o", color="black", ms=8, label="tales-draft, measured")
ax.set(xlabel="a: guesses right, of those that were reached (%)", ylabel="times as fast as without", ylim=(0, None))
ax.set_title(f"Speculation with k = {k} guesses")
ax.legend()
plots.show(
    ax,
    "How many times as fast speculation is, over the probability of a right guess. The solid line, free rows and a cheap draft, "
    "rises above one early. The dashed line has the costs as measured. A dot marks the measured draft, near the dashed "
    "line. A grey horizontal line marks one, the break-even.",
)
print(f"of {kept + wrong} guesses that were reached {kept} were right: a = {here[0]:.2f}")
print(f"by the formula {gain(here[0], k, c, v):.2f} times as fast, measured {here[1]:.2f}")
assert gain(0.99, k, 0.1, 1.0) > gain(0.5, k, 0.1, 1.0) > gain(0.1, k, 0.1, 1.0)

# %% [markdown] id="11-speculation-lesson"
r"""
Speculation pays where a decode cycle waits for the memory of a *large* model, so that checking five rows costs hardly
more than one, and the draft is many times smaller. Compare $v$ and $c$ in the picture with that. The weights of a small
model like ours may lie in a cache; then there is little to wait for, each row costs its arithmetic, and $v$ is nearer to
$k + 1$ than to 1. Even a draft that is nearly always right cannot make up for that if its own cycles cost much. A look-up
has $c$ near 0, so that it loses least, and gains where a text repeats itself. The formula knows all this before anybody
has written a line of code.
"""

# %% [markdown] id="11-summary"
r"""
## What to remember

- A cut text is the same text only if the cache is carried across the cut; then it is exact.
- In a batch the weights are read once for all. It helps until arithmetic is the limit.
- Threads bring arithmetic, not memory.
- A guess that is checked costs a row: speculation is exact, and pays if rows are cheap, and guesses cheap and good.
"""

# %% [markdown] id="11-exercises"
r"""
## Exercises

    minillm exercises check verified
    minillm exercises check accept

First a function to mend. Then you write the rule that keeps a guess or draws another token, and the distribution of what
comes out is checked.

To go on: `minillm compare FILE --levers batch:2 batch:8 ngram draft:tales-draft window:64` on a text of your own, and
`--levers threads:1 threads:2`, which fits the share $s$ of Amdahl's law.
"""

# %% [markdown] id="11-sources"
r"""
## Sources

- [SARATHI: Efficient LLM Inference by Piggybacking Decodes with Chunked Prefills](https://arxiv.org/abs/2308.16369),
  Agrawal et al. 2023.
- [Orca: A Distributed Serving System for Transformer-Based Generative
  Models](https://www.usenix.org/conference/osdi22/presentation/yu), Yu et al. 2022: batches that texts enter and leave.
- Validity of the single processor approach to achieving large scale computing capabilities, Amdahl 1967.
- [Fast Inference from Transformers via Speculative Decoding](https://arxiv.org/abs/2211.17192), Leviathan, Kalman, Matias
  2022: the rule and the formula.
- [Prompt Lookup Decoding](https://github.com/apoorvumang/prompt-lookup-decoding), Saxena 2023.
"""
