# %% [markdown] id="08-where-the-cycles-go"
r"""
# 08 · Where the cycles go

A model is a list of sums. This chapter asks what the sums cost, which part of the machine they wait for, and what
happens to the bill when the text gets longer. Before each measurement you will have counted, with pencil and paper,
what it should be.
"""

# %% [markdown] id="08-what-you-will-do"
r"""
## What you will be able to do

- time every operation of a forward pass, and say where a token's time goes;
- count the arithmetic and the bytes of a pass, and tell from the two which of them it waits for;
- explain why reading a prompt is cheaper a token than writing one;
- say how the cost grows with the text, both terms of it, and check this on a measurement;
- refute two claims that are in print, with numbers.

You need chapters [05](05_against_the_reference.ipynb) (the forward pass) and [06](06_one_token_at_a_time.ipynb)
(moments, cycles, the KV cache). About 25 minutes.

Every number below was measured on the machine that ran this notebook, and will be different on yours. The text
therefore never quotes one. It says what to look for.
"""

# %% id="08-setup"
import inspect
from time import perf_counter, perf_counter_ns

import matplotlib.pyplot as plt
import numpy as np

import minillm
from minillm import plots
from minillm.clock import Clock, ClockReport, measure, step_costs, total
from minillm.clock.diagram import diagram
from minillm.clock.growth import NARROW, measure_growth
from minillm.clock.limits import describe_machine
from minillm.layers.attention import scaled_dot_product_attention
from minillm.steps import Trace, identity

model, tokenizer = minillm.load("tales")
config = model.config
machine = describe_machine()
print(f"{machine['processor']}, {machine['cores']} cores, {machine['system']}")
print(model)

# %% [markdown] id="08-a-clock-in-five-lines"
r"""
## A clock in five lines

Chapter 05 introduced `step`: the model hands every intermediate to it, with its name. So far we looked at the
values. Now we ignore them and look at the watch instead: whoever writes down *when* each name comes by has timed the
whole pass.
"""

# %% id="08-first-clock"
passed = []


def watch(name, value):
    passed.append((name, perf_counter_ns()))
    return value  # hand it on unchanged


ids = tokenizer.encode("Once upon a time there was a king who had three daughters.")
model(ids, step=watch)  # once for nothing: what is compiled or loaded at the first use is not what we want to time
passed.clear()
start = perf_counter_ns()
model(ids, step=watch)

before = start
for name, now in passed[:12]:
    print(f"{name:<22}{(now - before) / 1000:8.1f} us")
    before = now
print(f"... and {len(passed) - 12} more; {len(ids)} tokens in {(passed[-1][1] - start) / 1e6:.2f} ms")

# %% [markdown] id="08-interval"
r"""
Each interval belongs to the name that *ends* it: what stands beside `h.0.attn.c_attn` is the time that this matrix
product took. The intervals leave no gap, so their sum is the time of the whole pass.

`minillm.clock.Clock` is the same idea, made careful. It reads a finer counter, subtracts what the looking itself
costs, knows where one cycle ends and the next begins, and it promises the model not to look at values, so that the
model may use its fast path (which never forms some of them).
"""

# %% [markdown] id="08-one-token"
r"""
## One token, in processor cycles

> **Find the mistake.** In print: *"One step of the model is one clock cycle of the processor."*

A cycle of our diagrams (chapter 06) is one pass of the model. Is it one tick of the processor's clock as well?

**Guess, then run.** How many ticks does the processor make while the model forms one token? Put your guess below.
"""

# %% id="08-ticks-guess"
guess = 1  # as the claim has it: change it to yours

# %% id="08-generate-under-the-clock"
list(minillm.generate(model, tokenizer, ids, max_new_tokens=4, temperature=0, step=Clock()))  # warm up

clock = Clock()
n_new = config.n_positions - len(ids)
sampled = {"max_new_tokens": n_new, "temperature": 0.8, "min_p": 0, "seed": 1, "stop_tokens": ()}
story = list(minillm.generate(model, tokenizer, ids, step=clock, **sampled))
decode = [cycle for cycle in clock.cycles() if cycle.kind == "decode"]
ticks = np.array([(cycle.end - cycle.start) * clock.ticks_per_second / 1e9 for cycle in decode])
past = np.array([cycle.past for cycle in decode])

print(f"counter: {clock.source}, {clock.ticks_per_second / 1e9:.2f} ticks a nanosecond")
print(f"your guess: {guess:,} ticks for one token")
print(f"measured:   {np.median(ticks):,.0f} (the median of {len(ticks)} tokens)")
print(f"the guess is wrong by a factor of {max(np.median(ticks) / guess, guess / np.median(ticks)):,.1f}")

# %% [markdown] id="08-ticks-counted"
r"""
It is not one, and cannot be. Counting shows it without any clock. The model multiplies by every weight once a token,
and one multiplication with its addition is 2 floating-point operations, 2 **FLOP**. How many of these can a core do in
one tick? A generous answer for today's processors is 64: two units, each multiplying and adding 16 numbers at once.
"""

# %% id="08-ticks-by-counting"
FLOP_A_TICK = 64  # of one core with 512-bit vectors, two units, 2 FLOP each: few are better
for n in (16, config.n_positions - 1):
    flops = total(step_costs(config, T=1, past=n).values()).flops
    print(f"after {n:>4} tokens: {flops / 1e6:6.2f} MFLOP, at least {flops / FLOP_A_TICK:,.0f} ticks of one core")

assert np.median(ticks) > 10_000, "one step of the model is far more than one tick"

early, late = ticks[past < past.min() + 100], ticks[past > past.max() - 100]
print(f"measured, the first 100 tokens: {np.median(early):,.0f} ticks; the last 100: {np.median(late):,.0f}")

# %% [markdown] id="08-mistake-7"
r"""
**What is true.** One pass takes at least as many ticks as were just counted, shared among the cores, and GPT-2 itself
has some twenty times as many weights. The number also *grows with the context*: every new token looks at one more key in
each head of each layer. The word *cycle* in this course means one pass of the model. It borrows the picture from the
processor, not the duration.
"""

# %% [markdown] id="08-where-does-it-go"
r"""
## Where does it go?

Now all of a cycle, phase by phase. The prompt is the first part of the story just written, so that it is long enough
to be interesting.

**Guess, then run.** Of a decode cycle, which phase takes the most time: embed, attend, feed forward, unembed or
choose? Count first: attention has $4C^2$ weights a layer, the feed forward $8C^2$.
"""

# %% id="08-report"
prompt = [*ids, *(moment.id for moment in story)][:96]
list(minillm.generate(model, tokenizer, prompt, max_new_tokens=4, temperature=0, step=Clock()))  # warm up
clock = Clock()
moments = list(minillm.generate(model, tokenizer, prompt, max_new_tokens=48, temperature=0, stop_tokens=(), step=clock))
weights = sum(p.nbytes for p in model.parameters.values())
limits = measure(model.ops, ["float32"], sizes=[weights])  # what this machine can do at best: used further below
report = ClockReport(clock, config, limits=limits, texts=[moment.text for moment in moments])
print("\n".join(diagram(report, width=90).splitlines()[:11]))
print()
for row in report.rows:
    share = row.decode / report.rows[-1].decode
    print(f"{'    ' + row.part if row.part else row.phase.upper():<34}{row.decode / 1e6:8.3f} ms  {'#' * round(40 * share)}")

# %% [markdown] id="08-read-the-diagram"
r"""
A column is a cycle, a row a phase, and the height of a cell how much of that moment the phase was at work. Attend and
feed forward take turns, once a layer. Lines in capitals are sums of the lines below them.

Did the phase with the most weights win? If not, look at its neighbours' parts: small operations with hardly any weights
take their time as well.
"""

# %% id="08-phases-figure"
_, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
plots.phases_by_token(report, ax)
plots.show(
    ax,
    "Stacked bars, one for each token after the prompt, in milliseconds. The bar of the prompt is cut off and "
    "labelled with its height; the first few others may be "
    "higher than the rest, which are much alike. Attend (dark) and feed forward (light) make up "
    "most of each bar.",
)

# %% [markdown] id="08-prefill-and-decode"
r"""
## Prefill and decode

The first bar is the *prefill*, the pass that reads the whole prompt at once. All others are *decode* cycles, one token
each.

**Guess, then run.** The prompt has 96 tokens, and each of them needs as much arithmetic as a token that is
generated. Does the prefill take 96 times as long as one decode cycle? More? Less?
"""

# %% id="08-prefill-against-decode"
prefill_ns, decode_ns = report.prefill.end - report.prefill.start, report.rows[-1].decode
print(f"prefill of {len(prompt)} tokens: {prefill_ns / 1e6:7.2f} ms, {prefill_ns / len(prompt) / 1e3:7.1f} us a token")
print(f"decode of one token:    {decode_ns / 1e6:7.2f} ms, {decode_ns / 1e3:7.1f} us a token")
print(f"a token that is read costs 1/{decode_ns / (prefill_ns / len(prompt)):.0f} of one that is written")
assert prefill_ns < len(prompt) * decode_ns

# %% [markdown] id="08-decode-cost"
r"""
Why? The arithmetic is the same, so something else must be shared. Take one matrix with $K$ inputs and $N$ outputs,
and let $T$ tokens pass through it together:

- arithmetic: $2TKN$ FLOP, for every token anew;
- bytes: $4KN$ for the weights **once**, however many tokens there are, and $4T(K+N)$ for what goes in and comes out.

The quotient, FLOP for each byte, is called the **arithmetic intensity**. With $T = 1$ it is just below
$2KN / 4KN = 1/2$. Every weight travels from memory to be used once.

**Guess, then run.** What is the intensity for 8 tokens? For 512?
"""

# %% id="08-intensity"
print("tokens   MFLOP      MB   FLOP a byte")
for T in (1, 8, 64, 512):
    cost = step_costs(config, T)["h.0.mlp.c_fc"]
    print(f"{T:>6}{cost.flops / 1e6:8.1f}{cost.bytes / 1e6:8.2f}{cost.intensity:14.2f}")
intensities = [step_costs(config, T)["h.0.mlp.c_fc"].intensity for T in (1, 8, 64, 512)]
assert intensities == sorted(intensities) and intensities[0] < 0.6

# %% [markdown] id="08-roofline"
r"""
## The roofline

The picture of this section is called a **roofline**. A machine has two limits: it reads at most $B$ bytes and computes
at most $P$ FLOP a second. An operation that needs both cannot be faster than either allows:

$$\text{time} \ge \max\left(\frac{\text{bytes}}{B}, \frac{\text{FLOP}}{P}\right)$$

So with an intensity of $I$ FLOP a byte, at most $\min(P, B I)$ FLOP a second are possible: a slope that ends in a flat
roof. The corner lies at $I = P/B$. Left of it an operation is *bound by memory*, and a faster multiplier would not
help. Right of it, it is *bound by arithmetic*.

We measured $B$ and $P$ of this machine above, with the simplest programs that do nothing but read, or nothing but
multiply.

**Guess, then run.** On which side of the corner do the decode cycles lie, on which the prefill of 96 tokens?
"""

# %% id="08-roofline-figure"
_, ax = plt.subplots(figsize=(8.5, 6), layout="constrained")
plots.roofline(report, ax)
plots.show(
    ax,
    "Roofline: GFLOP per second over arithmetic intensity, both logarithmic. Two slopes end in flat roofs. The "
    "filled points of the decode products stand together at the left, at about half a FLOP per byte, near the "
    "slopes. The open squares of the prefill's products in the blocks stand far to the right, near the flat roofs; its "
    "logits, of one row only, stand at the left. Norms and other small operations lie far below.",
)
corner = limits.rows["float32"] / report.far_bandwidth
print(f"the corner, many rows from memory: {corner:.1f} FLOP a byte")
intensity = {"decode": report.rows[-1].cost.intensity, "prefill": report.rows[-1].prefill_cost.intensity}
print(f"decode: {intensity['decode']:.2f} FLOP a byte, prefill: {intensity['prefill']:.1f}")
assert intensity["decode"] < corner and intensity["decode"] < intensity["prefill"]

# %% [markdown] id="08-reading-the-roofline"
r"""
Read it like this. A decode product stands far left, under the slope: it waits for memory, and only *fewer bytes* make
it faster. That is what chapter 10 is about. The products of a prefill stand far right: they have many tokens to use
each weight on, and reach for the flat roof. Chapter 11 moves decoding to the right by handling several texts at once.

The dashed roof is for weights that lie in a cache near the core, the solid one for weights from main memory. The
weights of this small model may fit into the processor's last cache, and then its points lie between the two.
"""

# %% [markdown] id="08-predict-the-cycle"
r"""
### Predict a cycle from counting alone

The inequality above, applied to each operation, predicts the time of a whole cycle. Nothing in the prediction comes
from running the model.

**Guess, then run.** Which operations will be furthest from their limit: large ones or small ones?
"""

# %% id="08-against-limits-figure"
_, ax = plt.subplots(figsize=(8, 4), layout="constrained")
plots.against_limits(report, ax)
plots.show(
    ax,
    "Horizontal bars: the measured milliseconds of each part of a decode cycle, with a thick black line at the time"
    " predicted from the machine's limits, and beside it what share of the limit was reached and what binds. The "
    "large matrix products come near their lines, or stay below them; the small operations are far above.",
)
whole = report.rows[-1]
print(f"a decode cycle: measured {whole.decode / 1e6:.2f} ms, predicted {1e3 * whole.predicted:.2f} ms")
assert whole.decode / 1e9 > whole.predicted / 10, "nothing is much faster than the limits allow"

# %% [markdown] id="08-why-over-100"
r"""
Which speed of reading is the limit? Not the main memory's: the weights of this model are so few that part of them still
lies in the processor's last cache from the cycle before, and comes from there several times as fast. So the limit was
measured with an array of exactly as many bytes, read again and again. A share can still pass 100 % by a little: the
memory of a shared machine is faster in one second than in the next, and the two were measured in different seconds.
Where that matters, `minillm clock --predict` measures them in turn.

Small operations have hardly any bytes or arithmetic and still take time: calling a function, waiting for the other
threads. So they reach only a small share of their limit, whichever of the two is named beside it.
"""

# %% [markdown] id="08-does-attention-save-work"
r"""
## Does attention save work?

> **Find the mistake.** In print: *"Attention saves computation by attending only to what matters."*

The sentence sounds right. A head that looks at a single token should have less to do than one that looks at all of
them. Where is the flaw? Recall the equation:

$$\text{softmax}\left(\frac{QK^T}{\sqrt{D}} + \text{mask}\right) V$$

**Guess, then run.** Here are three heads' worth of queries: one that attends to everything equally, one to a part,
one almost to a single token. Which is the fastest, and by how much?
"""

# %% id="08-cost-of-looking"
rng = np.random.default_rng(0)
H, T, D = config.n_head, 384, config.head_dim
q, k, v = rng.standard_normal((3, 1, H, T, D)).astype(np.float32)
positions = np.arange(T)[None]


def attend(sharpness, step=identity):
    return scaled_dot_product_attention(sharpness * q, k, v, positions, D**-0.5, step)


best = dict.fromkeys((np.float32(0), np.float32(1), np.float32(8)), np.inf)
for _ in range(60):  # in turn, so that a disturbance hits all three alike; the shortest time of each counts
    for sharpness in best:
        start = perf_counter()
        attend(sharpness)
        best[sharpness] = min(best[sharpness], perf_counter() - start)

tokens_seen = {}
for sharpness, seconds in best.items():
    attend(sharpness, trace := Trace())
    w = trace["weights"][..., -1, :]  # of the last position, which may look at all
    tokens_seen[sharpness] = float(np.exp(-(w * np.log(np.maximum(w, 1e-30))).sum(axis=-1)).mean())
    print(f"queries x {sharpness:.0f}: looks at {tokens_seen[sharpness]:6.1f} tokens, takes {1e3 * seconds:.2f} ms")

assert tokens_seen[0] > 10 * tokens_seen[8]
assert max(best.values()) < 3 * min(best.values())

# %% [markdown] id="08-effective-tokens"
r"""
("Looks at so many tokens" is $e^{\text{entropy}}$ of the weights, as perplexity was in chapter 02: the number of
tokens that, equally weighted, would be as spread out.)

The time does not follow. To know that a weight is nearly 0, its score must have been computed, and the product with
$V$ multiplies by a 0 as patiently as by any other number. You can see it in the function that counts the costs, too:
"""

# %% id="08-costs-know-no-values"
print("step_costs" + str(inspect.signature(step_costs)))

# %% [markdown] id="08-mistake-9"
r"""
**What is true.** The cost of attention depends on how *many* queries and keys there are, never on the weights' values:
no argument above could even tell them. Attention decides how information is *mixed*, and does the full work to decide
it. What does save work is leaving keys out *without looking at them*: the causal mask, when a kernel skips what it
hides, a sliding window, or a cache that keeps old keys from being computed again.
"""

# %% [markdown] id="08-growth"
r"""
## When the text gets longer

One layer's pass over $T$ tokens, in multiplications with addition:

$$\underbrace{12\,T C^2}_{\text{matrices: each token by itself}} + \underbrace{2\,T^2 C}_{\text{attention: pairs of tokens}}$$

The first term is a straight line, the second a parabola. Everybody says that Transformers are quadratic. From where on?

**Guess, then run.** At which $T$ are the two terms equal? (Set them equal and solve. The answer depends on $C$ only.)
"""

# %% id="08-where-terms-are-equal"
for name, C in (("a narrow model, C = 32", 32), ("tales", config.n_embd), ("GPT-2 124M", 768), ("GPT-2 1.5B", 1600)):
    T = 6 * C
    assert 12 * T * C**2 == 2 * T**2 * C
    print(f"{name:<24} equal at T = 6C = {T:,}")

# %% [markdown] id="08-measure-growth"
r"""
GPT-2 reads at most 1,024 tokens. Its cost never leaves the straight part! To *see* the bend on a laptop we need a
narrow model. `measure_growth` takes one with $C = 32$, times passes of many lengths, and fits
$a + b\,T + c\,T^2$ to the times, so that both terms come out of the measurement by themselves. Its weights are random:
that is allowed, since the cost does not depend on them.
"""

# %% id="08-growth-measured"
growth = measure_growth(rounds=20)  # the shortest time of 20 counts: other programs only add
print("\n".join(growth.summary()[:3]))

# %% id="08-prompt-growth-figure"
_, ax = plt.subplots(figsize=(8, 5), layout="constrained")
plots.prompt_growth(growth, ax)
plots.show(
    ax,
    "Milliseconds of one pass over its number of tokens, both axes logarithmic. Measured dots lie on the fitted "
    "curve, which follows the dashed straight term at the left and the steeper dotted quadratic term at the right; "
    "a grey band marks where both are equal. Below, squares: one token with a cache, almost flat.",
)
ratio = growth.passes / growth.predicted_passes
print(f"measured / predicted over all lengths: median {np.median(ratio):.2f}, from {ratio.min():.2f} to {ratio.max():.2f}")
assert growth.pass_fit.r2 > 0.9
assert growth.passes[-1] > growth.passes[0], "longer takes longer"

# %% [markdown] id="08-reading-the-growth"
r"""
With both axes logarithmic a power is a straight line, and its exponent is the slope. At the left the dots are almost
flat: that is $a$, the calls of Python and NumPy, which cost the same for any $T$. At the right they bend towards the
dotted line, slope 2. Where the two terms are equal was *counted* as $6C$; the measured place may lie lower, because
attention's part contains a softmax, which has few FLOP and takes long for them. The grey band says how sure the fit is.

The crosses are predicted from the roofline alone. Compare their shape with the dots', not only their height.
"""

# %% [markdown] id="08-generating"
r"""
### Generating, with and without a cache

Without a cache, token $n$ costs a whole pass over $n$ tokens. Summed up over a text of $n$ tokens the line becomes a
parabola, $6 n^2 C^2$, and the parabola a cubic, $\frac{2}{3} n^3 C$.

**Guess, then run.** Where are *these* two equal? And by what factor does the cache win at the right end?
"""

# %% id="08-generation-growth-figure"
_, ax = plt.subplots(figsize=(8, 5), layout="constrained")
plots.generation_growth(growth, ax)
plots.show(
    ax,
    "Seconds to generate n tokens over n, both logarithmic. Without a cache the curve bends upwards, ever"
    " steeper, and nears slope three after a grey band; with a cache it stays low and nearly straight with slope one. The gap "
    "widens to the right.",
)
C, n = NARROW.n_embd, 9 * NARROW.n_embd
assert abs(6 * n**2 * C**2 - 2 / 3 * n**3 * C) < 1e-6 * n**3 * C, "equal at n = 9C"
print(f"{growth.lengths[-1]} tokens: {growth.without_cache[-1]:.2f} s without a cache, {growth.with_cache[-1]:.2f} s with one")
assert growth.with_cache[-1] < growth.without_cache[-1]

# %% [markdown] id="08-summary"
r"""
## What to remember

- Time goes where bytes and arithmetic go; both can be counted before anything runs.
- Decoding reads every weight to use it once: about half a FLOP a byte, bound by memory. Prefill uses each weight for
  all tokens of the prompt and is bound by arithmetic.
- One step of the model is many thousand ticks of the processor or millions, and attention costs the same wherever it looks.
- A pass costs $12TC^2 + 2T^2C$ a layer: a straight line up to about $T = 6C$, then a parabola.

Chapter 09 climbs from a plain loop to the roof; chapter 10 takes bytes away; chapter 11 shares them.
"""

# %% [markdown] id="08-exercises"
r"""
## Exercises

In a terminal, in your exercise folder (`minillm exercises start` makes one):

    minillm exercises check tokens_per_second
    minillm exercises check roofline
    minillm exercises check decode_cost

The first asks for a number, the second is a program to mend. In the third you write the function that counts FLOP and
bytes of a decode step.

To go on: `minillm clock "Once upon a time" --every-step` times the textbook's forward, every name by itself, and
`--plot clock.png` puts all pictures of this chapter on one page for any prompt.
"""

# %% [markdown] id="08-sources"
r"""
## Sources

- [Roofline: An Insightful Visual Performance Model for Multicore Architectures](https://doi.org/10.1145/1498765.1498785),
  Williams, Waterman, Patterson 2009.
- [Scaling Laws for Neural Language Models](https://arxiv.org/abs/2001.08361), Kaplan et al. 2020, table 1: the count of
  operations.
- [Efficiently Scaling Transformer Inference](https://arxiv.org/abs/2211.05102), Pope et al. 2022: prefill and decode, and
  what binds each.
"""
