# %% [markdown] id="06-title"
r"""
# 06 · One token at a time

A language model writes one token, looks at all that is there, and writes the next. This chapter looks at that loop as one
looks at a clock: what happens in each turn, what has to wait for what, what is kept and what is thrown away. The trick that
makes it affordable is explained here, and proven to change nothing.

On the way you meet five claims that are in print and wrong. Each time, find the flaw before you read on.

After this chapter you can

- give the probability of a sentence, and of a word that is several tokens;
- draw the timing diagram of a generation, and say which work is done side by side and which in turn;
- say what is kept from one turn to the next, prove that nothing is lost by it, and count what it saves;
- correct five statements about all this.

30 minutes, exercises apart.
"""

# %% id="06-setup"
import hashlib
from time import perf_counter

import numpy as np
from matplotlib import pyplot

import minillm
from minillm import plots
from minillm.clock import Clock, ClockReport, step_costs, total
from minillm.clock.diagram import diagram
from minillm.decoding import Options
from minillm.decoding.scoring import continuation_logprob, next_logprobs, score
from minillm.layers.cache import KVCache
from minillm.page.drawing import drawing
from minillm.twins import set_threads

set_threads(1)  # the matrices are small: a second thread would mostly wait
model, tokenizer = minillm.load("tales", kernels="numpy")  # the readable functions
exact = model.astype(np.float64)  # the same weights, for proofs: rounding is below 1e-10
config, L, C, V = model.config, model.config.n_layer, model.config.n_embd, model.config.vocab_size
print(model)


def tokens(ids):
    return [repr(tokenizer.decode([i])) for i in ids]


# %% [markdown] id="06-chain"
r"""
## The probability of a sentence

Each pass gives $P(\text{next token} \mid \text{all before})$. The probability of a whole text is their product; this is the
**chain rule** of probability, with no approximation in it:

$$P(w_1, \ldots, w_T) = P(w_1)\,\prod_{t=2}^{T} P(w_t \mid w_1, \ldots, w_{t-1})$$

The products get tiny, so one adds logarithms instead. GPT-2 says nothing about the first token, so we take it as given: $T$
tokens, $T - 1$ predictions.

**Guess, then run.** "The cat sat on the": which token was the hardest to foresee, and which the easiest, for a model that
has read nothing but fairy tales?
"""

# %% id="06-chain-run"
cat = tokenizer.encode("The cat sat on the")
cat_score = score(model, cat)
for name, logprob, rank in zip(tokens(cat)[1:], cat_score.logprobs, cat_score.ranks):
    print(f"{name:8} P = {np.exp(logprob):8.4%}   log P = {logprob:7.3f}   {rank} in the ranking of {V:,}")
print(f"product {np.exp(cat_score.logprob):.3e}   sum of logarithms {cat_score.logprob:.3f}")
assert len(cat_score.logprobs) == len(cat) - 1
assert np.isclose(np.exp(cat_score.logprobs.astype(np.float64)).prod(), np.exp(cat_score.logprob))

# %% [markdown] id="06-mat"
r"""
## Find the mistake: mat, hat, mat

What comes next? In print one finds this:

> *For "The cat sat on the", the model considers the candidates "mat", "hat", "mat", and takes the most probable.*

**Find the flaws** (there are at least three). Then guess: in how many pieces does our tokenizer write " mat"?
"""

# %% id="06-mat-run"
following = next_logprobs(model, cat)  # [V]: log P of every token
names = tokens(range(V))
print(f"{len(following):,} candidates, {len(set(tokenizer.tokens)):,} of them different; P sums to {np.exp(following).sum():.4f}")
for word in (" mat", " hat", " ground", " throne"):
    pieces = tokenizer.encode(word)
    logprob = continuation_logprob(model, cat, pieces)
    print(f"P({word!r:9}) = {np.exp(logprob):.4%} in {len(pieces)} tokens: {' '.join(tokens(pieces))}")

mat = tokenizer.encode(" mat")
by_hand = sum(next_logprobs(model, cat + mat[:i])[token] for i, token in enumerate(mat))
assert len(following) == len(set(tokenizer.tokens)) == V and np.isclose(np.exp(following).sum(), 1, atol=1e-4)
assert np.isclose(by_hand, continuation_logprob(model, cat, mat), atol=1e-4)

# %% id="06-mat-picture"
figure, axes = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
plots.likeliest(following, names, 10, axes)
likely = ", ".join(names[i] for i in np.argsort(-following)[:10])
plots.show(figure, f"Bars of the ten likeliest next tokens after 'The cat sat on the', in per cent, from the top: {likely}.")

# %% [markdown] id="06-mat-why"
r"""
**What is true.** Every pass weighs all $V$ tokens of the vocabulary, each of them once; none occurs twice, and none is left
out. They are tokens, not words. A word that is written as several tokens has the product of their probabilities, each given
those before:

$$P(\text{“ mat”} \mid \text{text}) = P(\text{“ m”} \mid \text{text}) \cdot P(\text{“at”} \mid \text{text, “ m”})$$

And the most probable token is taken only if one decides so ([chapter 07](07_choosing_the_next_word.ipynb)).

## Moments and cycles

Two words for the rest of the course. A **cycle** is one pass of the model: ids in, logits out. A **moment** is one emitted
token. They are not the same thing, as you will see at once.

### Find the mistake: character by character

> *The model reads character by character, the prompt too.*

**Find the flaws, then guess.** The prompt below has 63 characters. We let the model write 6 tokens. How many passes will
there be, and how many positions does each read?
"""

# %% id="06-cycles-run"
prompt = "Once upon a time there was an old king who had three daughters,"
ids = tokenizer.encode(prompt)
moments = list(minillm.generate(model, tokenizer, ids, max_new_tokens=6, temperature=0))
print(f"{len(prompt)} characters, {len(ids)} tokens\n")
for moment in moments:
    print(f"moment {moment.index}: {moment.text!r:12} from a cycle: {moment.cycle.kind} of {moment.cycle.positions}")
assert len(prompt) == 63 and [m.cycle.positions for m in moments] == [len(ids), 1, 1, 1, 1, 1]
assert [m.cycle.kind for m in moments] == ["prefill", *["decode"] * 5]

# %% [markdown] id="06-cycles-why"
r"""
It reads tokens. And the whole prompt goes through in **one** pass, all positions side by side, since all its tokens are
known. That cycle is called **prefill**. Its last position gives the first new token. From then on each cycle reads one
position, the token just chosen: these cycles are called **decode**. (The last token of all is never read: nothing after it
is asked for.)

**What is true.** The prompt is one parallel pass; only new tokens wait for each other, because the model cannot read a
token that has not been chosen yet.

How can all positions of a prompt be done at once, when each depends on the ones before? Because each depends on the ones
before only. Look:

**Guess, then run.** We pass the first 3 tokens, the first 4, ... each alone, and keep the last logits. Then all of them at
once. By how much will the logits differ? (The copy of the model in float64 is asked, so that rounding cannot blur the
answer.)
"""

# %% id="06-parallel"
together = exact(ids)  # [T,V]
apart = max(np.abs(exact(ids[:t])[-1] - together[t - 1]).max() for t in range(1, len(ids) + 1))
print(f"{len(ids)} passes against one: largest difference of a logit {apart:.1e}")
assert apart < 1e-10

# %% [markdown] id="06-timing"
r"""
The causal mask is why: a position sees no later one, so the later ones might as well not be there.

## The timing diagram

Electrical engineers draw a clocked circuit with one row for each signal and time from left to right. Here is the loop drawn
like that. Every cycle has five phases: embed, attend, feed forward, unembed, choose.

**Guess, then look.** The first cycle reads the whole prompt, the others one position. How many times longer will the first
one take? As many times as it has positions?
"""


# %% id="06-timing-run"
def timed(prompt_ids, n):
    """The report of one generation under the clock."""
    clock, texts = Clock(), []
    for moment in minillm.generate(model, tokenizer, prompt_ids, max_new_tokens=n, temperature=0, step=clock):
        texts.append(moment.text)
    return ClockReport(clock, config, texts=texts)


reports = [timed(ids, 6) for _ in range(20)]
report = min(reports, key=lambda report: report.wall)  # the one that was disturbed least by the machine's other work
print(diagram(report))

# %% id="06-timing-picture"
figure, axes = pyplot.subplots(figsize=(9.5, 3.4), layout="constrained")
plots.time_line(report, axes)
durations = [(cycle.end - cycle.start) / 1e6 for cycle in report.cycles]
plots.show(
    figure,
    "A timing diagram: time in milliseconds to the right, a row each for embed, attend, feed forward, unembed and choose, "
    "for the first cycles; dotted lines end them. Attend and feed forward alternate, once a layer. The prefill takes "
    f"{durations[0]:.1f} ms, the decode cycles about {np.median(durations[1:]):.1f} ms each.",
)
per_position = min(r.prefill.end - r.prefill.start for r in reports) / 1e6 / len(ids), float(min(durations[1:]))
print(f"time for one position: {per_position[0]:.2f} ms in the prefill, {per_position[1]:.2f} ms in decode")
assert per_position[0] < per_position[1]

# %% [markdown] id="06-timing-why"
r"""
By far not as many times. The weights are fetched from memory once for a cycle, however many positions are read in it. Side
by side is cheaper than in turn. (Chapters 08 and 09 take this apart.)

### Find the mistake: one clock cycle

> *One step of the model is one clock cycle of the processor.*

**Find the flaw, then guess.** A processor's clock ticks a few billion times a second. How many ticks does one decode cycle
of this *small* model take? Does the number depend on how long the text is already?
"""

# %% id="06-ticks-run"
ticks = report.rows[-1].ticks
print(f"one decode cycle, measured: {ticks / 1e6:.2f} million ticks ({report.source})")
lengths = [0, 100, 200, 300, 400, 500]
arithmetic = [total(step_costs(config, 1, past).values()).flops for past in lengths]
for past, flops in zip(lengths, arithmetic):
    print(f"after {past:3} positions: {flops / 1e6:6.2f} million additions, multiplications, exps ...")
steps = np.diff(arithmetic)
assert ticks > 5e5 and (steps > 0).all() and np.allclose(steps, steps[0])

# %% [markdown] id="06-ticks-why"
r"""
**What is true.** A cycle of the model is millions of ticks of the processor, and it grows with the text: each further
position before adds the same amount of work, since the new token's query is compared with one more key in every head of
every layer. (Most of the work is the matrices, and that part does not grow.)

### Find the mistake: it learns while it writes

> *During inference the model back-propagates and updates its parameters for the next step.*

**Find the flaw, then guess.** We take a fingerprint of all parameters, let the model write, and take it again. And what
else could have changed?
"""


# %% id="06-learns-run"
def fingerprint():
    return hashlib.sha256(b"".join(p.tobytes() for p in model.parameters.values())).hexdigest()[:16]


before, cache = fingerprint(), model.new_cache()
for new in (ids, [5], [6]):  # the prompt, and any two tokens
    model(new, cache)
    print(f"after {len(new):2} more tokens: parameters {fingerprint()}, {cache}")
assert fingerprint() == before and cache.lengths.tolist() == [len(ids) + 2]

# %% [markdown] id="06-learns-why"
r"""
**What is true.** Not a bit of any parameter changes; nothing is propagated back, since there is no loss to propagate. What
the model carries from one cycle to the next is its **KV cache**, and that is the rest of this chapter.

## The KV cache

A decode cycle reads one token. Yet attention needs all earlier keys and values (not the queries: a query serves its own
position only). Must they be computed again?

**Guess, then run.** We put one more token after the text. Which of the keys, in all layers, change?
"""

# %% id="06-keys-run"
shorter, longer = exact.trace(ids), exact.trace([*ids, 5])  # 5: any token
T = len(ids)
for what in ("q", "k", "v"):
    change = max(np.abs(longer[f"h.{i}.attn.{what}"][:, :, :T] - shorter[f"h.{i}.attn.{what}"]).max() for i in range(L))
    print(f"{what} of the first {T} positions, all layers: largest change {change:.1e}")
    assert change < 1e-10

# %% [markdown] id="06-cache"
r"""
None of them. (The mask again: what comes after cannot be heard.) So one computes the key and value of each position once,
and keeps them. In a decode cycle the new position's key and value are put after the kept ones, and its one query meets
them all:

$$\mathrm{scores} = q_{\mathrm{new}}\,[\,k_0, k_1, \ldots, k_{\mathrm{new}}\,]^{\top} / \sqrt{D} \qquad
[1, D] \cdot [D, S] \to [1, S]$$

In the drawing of the model the cache stands on the right. Keys and values go into it, and what follows reads them from it,
the scores first:
"""

# %% id="06-cache-here"
drawing(config, here="attn.scores")

# %% [markdown] id="06-cache-rows"
r"""
What a decode cycle computes is one row of the score matrix. The picture shows who computes which score, for a prompt of 5
tokens and 3 decode cycles. On the right the same generation without a cache, where every cycle reads the whole text again.

**Guess before you look at the right half:** how often is the score in the top left corner computed there?
"""

# %% id="06-cache-picture"
written = model.generate(cat, 3, temperature=0)
T, per_cycle = len(written), [len(cat), 1, 1, 1][: len(written) - len(cat) + 1]
names = tokens(written)
times = np.where(np.tri(T), np.maximum(T - np.maximum(np.arange(T), len(cat) - 1), 0)[:, None], np.nan)
figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 5), layout="constrained")
plots.cached_scores(per_cycle, names, left)
left.set_title("with the cache: in which cycle")
plots.heat_map(times, names, names, ".0f", right)
right.set(title="without: how many times", xlabel="key", ylabel="query")
right.tick_params(axis="x", rotation=60)
plots.show(
    figure,
    f"Two triangular matrices of scores over {T} tokens. Left, with the cache: each is computed once; {len(cat)} rows in "
    "cycle 0, then one row a cycle, whose keys but the last come from the cache. Right, without: rows of the prompt are "
    f"computed {int(np.nanmax(times))} times, later rows less often, the last once.",
)
with_cache, without = int(np.tri(T).sum()), int(np.nansum(times))
print(f"scores in one head: {with_cache} with the cache, {without} without")
assert with_cache == T * (T + 1) // 2 < without

# %% [markdown] id="06-append"
r"""
### A place for each key

What does the cache look like? For each layer there are two arrays with room for many positions, one for keys and one for
values, and a *length* for each row of the batch: how many of its places are in use. To append $T$ new keys is to write them
to the places from the row's length on, and to hand back all $S$ that attention needs: the old ones and the new ones, and
none of the empty places.

**Guess, then run.** A tiny cache for one row, one head, $D = 2$ and four places. First two positions come, then one. Which
shape does each call hand back, and what stands in the array afterwards?
"""

# %% id="06-append-run"
tiny = KVCache(minillm.GPT2Config(vocab_size=2, n_positions=4, n_embd=2, n_layer=1, n_head=1))
for new in (np.array([[1, 1], [2, 2]]), np.array([[3, 3]])):
    k = new[None, None].astype(np.float32)  # [T,D] -> [B,H,T,D]
    keys, values = tiny.layer(0).append(k, 10 * k)
    tiny.advance(len(new))
    print("handed back:", keys.shape, keys[0, 0].tolist(), " values", values[0, 0].tolist())
print("in the array:", tiny.keys[0, 0, 0].tolist(), "length", tiny.lengths)
assert keys.shape == (1, 1, 3, 2) and tiny.lengths.tolist() == [3]

# %% [markdown] id="06-proof"
r"""
### Proven equal

A saving is worth nothing if the numbers change. So cut the prompt at every place: pass the first part with an empty cache,
then the rest after it, and compare all logits with those of one pass. Then token by token.

**Guess, then run.** The largest difference in float64?
"""


# %% id="06-proof-run"
def in_parts(lengths):
    """Logits [T,V] of the prompt, read in parts of these lengths with a cache."""
    cache, cuts = exact.new_cache(), np.cumsum(lengths)[:-1]
    return np.concatenate([exact(part, cache) for part in np.split(np.array(ids), cuts)])


cut_once = [np.abs(in_parts([cut, len(ids) - cut]) - together).max() for cut in range(1, len(ids))]
one_by_one = np.abs(in_parts([1] * len(ids)) - together).max()
print(f"{len(cut_once)} ways to cut once: largest difference {max(cut_once):.1e}; token by token: {one_by_one:.1e}")
assert max(*cut_once, one_by_one) < 1e-10

# %% [markdown] id="06-proof-positions"
r"""
Rounding, no more. But one thing must not be forgotten: the new token's *position*. It is the first of its pass, and not the
first of the text.

**Guess, then run.** A popular bug lets the positions start at 0 in each pass. How much do the logits change?
"""

# %% id="06-restart"
cache = exact.new_cache()
exact(ids[:-1], cache)
restarted = exact.forward(np.array([ids[-1:]]), np.array([[0]]), cache)[0, -1]  # position 0 instead of T - 1
print(f"largest change of a logit: {np.abs(restarted - together[-1]).max():.2f}")
for what, row in (("restarted", restarted), ("right", together[-1])):
    print(f"likeliest next tokens, {what:9}", *tokens(np.argsort(-row)[:5]))
assert np.abs(restarted - together[-1]).max() > 0.1

# %% [markdown] id="06-saving"
r"""
The likeliest token may stay the same, so a short text need not give this bug away; the logits do.

### What it saves, and what it costs

Say the text grows from 1 to $n$ tokens, one a cycle. The last token is chosen and never read, so with the cache $n - 1$
positions go through the model. Without, $1 + 2 + \ldots + (n - 1) = n (n - 1) / 2$. The price is memory: for every position
one key and one value in each layer, $2 L C$ numbers.

**Guess, then run.** For $n = 60$: how many positions with, how many without? How much faster will the cache be, measured?
And how many bytes does this model's cache take for all its positions?
"""

# %% id="06-saving-run"
n = 60
print(f"positions through the model for n = {n}: {n - 1} with the cache, {n * (n - 1) // 2:,} without")
seconds, texts = {}, {}
for use_cache in (True, False):
    start = perf_counter()
    texts[use_cache] = model.generate(ids, n, temperature=0, use_cache=use_cache).tolist()
    seconds[use_cache] = perf_counter() - start
print(f"{n} tokens after {len(ids)}: {seconds[True]:.2f} s with the cache, {seconds[False]:.2f} s without, the same text")
cache = model.new_cache()
print(f"{2 * L * C * 4:,} bytes a position in float32, {cache.nbytes:,} for all {config.n_positions}")
assert texts[True] == texts[False] and seconds[True] < seconds[False]
assert cache.nbytes == 2 * L * C * 4 * config.n_positions

# %% [markdown] id="06-length"
r"""
## Find the mistake: the length

> *With `max_length=50` the program prints the one new word that follows the prompt.*

**Find the flaw, then guess.** A prompt of 5 tokens, and `max_length=50`: how many tokens will be new?
"""

# %% id="06-length-run"
assert len(cat) == 5
result = model.generate(cat, max_length=50, temperature=0)
print(f"{len(cat)} + {len(result) - len(cat)} = {len(result)} tokens:\n{tokenizer.decode(result)}")
one_more = model.generate(cat, max_new_tokens=1, temperature=0)
print(f"max_new_tokens=1: {tokenizer.decode(one_more)}")
allowed = Options(max_length=50).new_tokens(len(cat), config.n_positions)
assert allowed == 45 and len(result) <= 50 and len(one_more) == 6

# %% [markdown] id="06-short"
r"""
**What is true.** `max_length` counts the prompt: up to $50 - 5 = 45$ tokens may follow a prompt of 5 (fewer if the text
ends earlier). One new *token*, which may be less than a word, is `max_new_tokens=1`.

## In short

- The probability of a text is the product of its tokens' conditional probabilities; so is that of a word.
- A cycle is a pass, a moment is a token. The prompt is one cycle, the prefill; then each new token waits for the one before.
- Parameters never change while a text is written; the KV cache does. It holds each position's key and value in every layer.
- With the cache a decode cycle reads one position. The result is the same to rounding, however the text is cut.
- The work of a decode cycle is millions of ticks, and grows with the text.

## Exercises

    minillm exercises check positions_computed
    minillm exercises check greedy
    minillm exercises check append

And in a terminal, `minillm clock "Once upon a time"` draws the diagram of your own text.

**Next:** [chapter 07](07_choosing_the_next_word.ipynb) asks which token to choose; [chapter
08](08_where_the_cycles_go.ipynb) where the ticks go.

## Sources

- [Language Models are Unsupervised Multitask
  Learners](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf), Radford
  et al. 2019, section 2: the chain rule.
- [Efficiently Scaling Transformer Inference](https://arxiv.org/abs/2211.05102), Pope et al. 2022: prefill, decode and the
  KV cache.
- [Fast Transformer Decoding: One Write-Head is All You Need](https://arxiv.org/abs/1911.02150), Shazeer 2019: why decode is
  bound by memory.
"""
