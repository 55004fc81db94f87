# %% [markdown] id="14-title"
r"""
# 14 · Putting it to work

So far the model answered with a token. Often one wants another kind of answer: is this review a good one, is this
letter an invoice, is this text in order? And it was not always a Transformer that answered. After this chapter you can

- make a classifier of a language model's body, and judge it fairly,
- take one step of the Transformer's forerunner by hand,
- pick the right vector out of a padded batch, and mend a mistake that is in print,
- compare the two: how often they are right, and how long they take, as texts grow longer.

You need [chapter 13](13_training.ipynb).
"""

# %% id="14-imports"
from pathlib import Path

import numpy as np
from matplotlib import pyplot

import minillm
from minillm import plots
from minillm.decoding import Options, Request, generate_batch
from minillm.exercises.catalogue.answers import last_state, lstm_cell
from minillm.tasks.classify import train_classifier
from minillm.tasks.examples import rectangle
from minillm.tasks.lstm import LSTM, LSTMConfig
from minillm.tasks.trials import times_by_length

model, tokenizer = minillm.load()

# %% [markdown] id="14-task"
r"""
## A question with an answer

To give each text one of a few labels is **classification**. Ours: *is this a piece of a tale, or the same words
shuffled?* The tales are by our model, so that nothing else is needed. (Your own question:
`minillm classify train --data FILE`, with a text and a label on every line.)

Pieces of 4, 8, 16 and 32 words are cut out of the tales. Those to learn from and those to test with come from different
tales; else a test would ask for what was learnt by heart.
"""

# %% id="14-tales"
start = [tokenizer.eot_id]  # <|endoftext|>, after which a new tale begins
options = [Options(max_new_tokens=320, temperature=0.9, min_p=0.02, seed=seed, stop_tokens=()) for seed in range(56)]
told = [[] for _ in options]
for number, moment in generate_batch(model, [Request(start, o) for o in options], rows=32):
    told[number].append(moment.id)
tales = [tokenizer.decode(ids).replace("<|endoftext|>", " ").split() for ids in told]  # lists of words
tales = [words for words in tales if len(set(words)) > 64]  # now and then the model gets stuck at a word: not that

LENGTHS = (4, 8, 16, 32)
rng = np.random.default_rng(0)


def pieces(tales, number):
    """[(text, label)]: `number` pieces of every length, each as it is and shuffled."""
    examples = []
    for length in LENGTHS:
        for _ in range(number):
            tale = tales[rng.integers(len(tales))]
            begin = rng.integers(len(tale) - length)
            words = tale[begin : begin + length]
            examples += [(" ".join(words), "tale"), (" ".join(rng.permutation(words)), "shuffled")]
    return examples


def write(name, examples):
    Path(name).write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in examples), encoding="utf-8")


learn, test = pieces(tales[:-12], 500), pieces(tales[-12:], 60)
write("learn.tsv", learn)
write("test.tsv", test)
print(f"{len(tales)} tales, {sum(map(len, tales))} words; {len(learn)} pieces to learn from, {len(test)} to test with\n")
for text, label in (test[0], test[1], test[-2], test[-1]):
    print(f"{label:>8}: {text}")

# %% [markdown] id="14-bag"
r"""
## The simplest classifier

A **bag of words** asks only *which* words are there: each has a weight for and against, and they are added up. For many
questions that is hard to beat, which is why one should always try it first.

**Guess, then run.** How often will it be right here?
"""

# %% id="14-bag-trained"
bag, bag_result, seconds = train_classifier(Path("bag"), Path("learn.tsv"), test=Path("test.tsv"), model="bag-of-words", epochs=3)
print(f"bag of words: right in {bag_result.accuracy:.1%} of {len(test)} tests, after {seconds:.1f} s of training")
assert bag_result.accuracy == 0.5

# %% [markdown] id="14-bag-read"
r"""
Exactly half. A piece and its shuffled copy have the same words, so it must say the same of both, and is right of one.
That makes our question a good one: whoever does better looks at the order.

## A memory that is carried along

Before there were Transformers, order was read like this: go through the text from left to right, one token at a time,
and carry a memory along. Each step takes the next token and the memory so far, and makes the next memory of them. A
network that feeds on its own last result is **recurrent**.

The best known kind is the **LSTM** (*long short-term memory*). It carries two vectors of $N$ numbers: a memory $c$, and
what it shows of it, $h$.
"""

# %% [markdown] id="14-lstm-cell"
r"""
### One step

From the token's vector $x$ and the last $h$, one linear map makes four vectors of $N$ numbers:

$$[\, i \mid f \mid g \mid o \,] = x W_x + h W_h + b$$

Three of them are **gates**: $\sigma(z) = 1 / (1 + e^{-z})$ squeezes each of their numbers between 0, shut, and 1, open.
The fourth is what might be written, squeezed by $\tanh$ between $-1$ and $1$.

$$c \leftarrow \sigma(f) \cdot c + \sigma(i) \cdot \tanh(g) \qquad\qquad h \leftarrow \sigma(o) \cdot \tanh(c)$$

All place by place: $f$ says how much of the old memory is kept, $i$ how much is written, $o$ how much is shown.

Here is a memory of one number whose weights we set ourselves. $x$ has two numbers: a 1 in the first means *remember
this*, a 1 in the second means *forget*. **Guess, then run.** What does $c$ do from step 3 to step 12, when nothing comes
in?
"""

# %% id="14-latch"
w_x = np.array([[10.0, 0, 4, 0], [0, -10, 0, 0]])  # [C=2, 4N]: "remember" opens i and writes; "forget" shuts f
w_h, bias = np.zeros((1, 4)), np.array([-5.0, 5, 0, 5])  # else: i shut, f open, nothing to write, o open
steps = np.zeros((20, 2))
steps[3, 0] = steps[13, 1] = 1

h, c, memory = np.zeros((1, 1)), np.zeros((1, 1)), []
for x in steps:
    h, c = lstm_cell(x[None], h, c, w_x, w_h, bias)
    memory.append(c.item())

_, ax = pyplot.subplots(figsize=(7.5, 3.4), layout="constrained")
ax.plot(memory, "o-", color="black", ms=4)
for step, word in ((3, "remember"), (13, "forget")):
    ax.axvline(step, color="black", linestyle=":")
    ax.annotate(word, (step, 1.08), xytext=(4, 0), textcoords="offset points")
ax.set(xlabel="step", ylabel="memory c (a number)", ylim=(-0.05, 1.2), xticks=range(0, 20, 2), title="An LSTM of one number")
ax.spines[["top", "right"]].set_visible(False)
plots.show(
    ax,
    f"The memory is 0 up to step 3, rises to {memory[3]:.2f} at the word remember, stays nearly so until step 12, "
    f"{memory[12]:.2f}, and falls to {memory[13]:.2f} at the word forget.",
)
assert memory[2] == 0 and memory[12] > 0.9 * memory[3] > 10 * memory[13]

# %% [markdown] id="14-forgetting"
r"""
It keeps it, almost: each step multiplies by $\sigma(5)$, a little less than 1. In a trained LSTM the gates are seldom so
wide open, and what multiplies the memory on the way forwards multiplies its slope on the way back.

**Guess, then run.** A gate is open by nine tenths. How much of a memory is left after 8, 32, 128 steps?
"""

# %% id="14-forgetting-shown"
for gate in (0.9, 0.99, 1 / (1 + np.exp(-5.0))):
    print(f"gate {gate:.4f}: " + ", ".join(f"after {n:>3} steps {gate**n:.6f}" for n in (8, 32, 128)))

# %% [markdown] id="14-two-readers"
r"""
That is the LSTM's trouble with long texts; attention has it not, since every token looks at every earlier one directly.
The other trouble is time: step 100 needs the $h$ of step 99. A Transformer works on all steps side by side.

## From many vectors to one answer

LSTM or Transformer, for a text of $T$ tokens the *body* makes $T$ vectors. A classifier needs one. The usual choices are
the last, which has seen the whole text, and the mean of all; here the LSTM gets the one and the Transformer the other,
as each does best with. A small linear map $[C, 2]$ makes the two labels' logits of it. Then softmax, cross-entropy,
backward pass, AdamW: nothing in [chapter 13](13_training.ipynb) has to change. The `Trainer` never knew that it trained
a language model.

**Guess, then run.** Which is right more often, a Transformer of two blocks or an LSTM of one layer, with vectors of 64
numbers each? Both begin with random numbers, and see every piece four times.
"""

# %% id="14-trained"
shared = {"test": Path("test.tsv"), "eval_every": 1000, "seed": 1}
fresh = {"n_embd": 64, "vocab_size": 1024, "context": 80, "epochs": 4}
classifiers, right = {"bag of words": bag}, {"bag of words": bag_result.accuracy}


def learn_to_classify(name, file, **settings):
    """Train one classifier and say how it does."""
    folder = Path(name.replace(" ", "-"))
    classifiers[name], result, seconds = train_classifier(folder, Path(file), **shared, **settings)
    right[name] = result.accuracy
    size = sum(p.size for p in classifiers[name].parameters.values())
    print(f"{name:<20} {size:>9,} parameters, {right[name]:.1%} right, {seconds:.1f} s of training")


learn_to_classify("LSTM", "learn.tsv", model="lstm", n_layer=1, pool="last", lr=3e-3, **fresh)
learn_to_classify("Transformer", "learn.tsv", model="transformer", n_layer=2, n_head=4, pool="mean", lr=1e-3, **fresh)
assert right["LSTM"] > 0.65 and right["LSTM"] > right["Transformer"]

# %% [markdown] id="14-fine-tuned"
r"""
Not what the fame of the Transformer makes one expect! To an LSTM it is given by its build that the token before is near
and the first one far. A Transformer can look anywhere, and must *find out* that neighbours matter. In chapter 13 that
took it hundreds of steps, with a target at every token; here there is one label for a whole piece, and far too few of
them.

But *there* is the way out. What words do next to each other can be learnt from plain text, without labels, and our
model has learnt it. So begin with it instead of random numbers: **fine-tuning**. It is one argument, `start`.

**Guess, then run.** It gets a tenth of the pieces, and sees each twice. Is that enough?
"""

# %% id="14-fine-tuned-run"
few = [example for n in range(0, len(learn), 20) for example in learn[n : n + 2]]  # each tenth piece, and its shuffled copy
write("few.tsv", few)
learn_to_classify("Transformer, tuned", "few.tsv", start="tales", epochs=2, batch_size=16, lr=5e-4, pool="mean")
assert right["Transformer, tuned"] > 0.65 and right["Transformer, tuned"] > right["Transformer"]

# %% [markdown] id="14-by-length"
r"""
## By length

**Guess, then run.** Is a long piece easier to judge than a short one, or harder?
"""

# %% id="14-by-length-shown"
styles = {
    "Transformer, tuned": ("o-", "black"),
    "LSTM": ("s--", "white"),
    "Transformer": ("v:", "black"),
    "bag of words": ("^:", "0.7"),
}
_, ax = pyplot.subplots(figsize=(7.5, 4.4), layout="constrained")
told_of = []
for shift, (name, (style, face)) in zip((0.955, 0.985, 1.015, 1.045), styles.items()):
    shares = []
    for length in LENGTHS:
        some = [(text, label) for text, label in test if len(text.split()) == length]
        said = classifiers[name].log_probabilities([text for text, _ in some]).argmax(axis=-1)
        shares.append(np.mean([classifiers[name].labels[i] == label for i, (_, label) in zip(said, some)]))
    shares = np.array(shares)
    error = 2 * np.sqrt(shares * (1 - shares) / len(some))  # two standard errors of a share of len(some)
    ax.errorbar(np.array(LENGTHS) * shift, 100 * shares, 100 * error, fmt=style, color="black", mfc=face, capsize=3, label=name)
    told_of.append(f"{name} " + ", ".join(f"{a:.0%}" for a in shares))
    print(f"{name:<20} " + ", ".join(f"{n} words: {a:.0%}" for n, a in zip(LENGTHS, shares)))
    assert name not in ("LSTM", "Transformer, tuned") or shares[-1] > shares[0]
ax.axhline(50, color="0.6", lw=0.9)
ax.annotate("a coin", (LENGTHS[-1], 50), xytext=(20, 3), textcoords="offset points")
ax.set(
    xscale="log", xlabel="words of the piece", ylabel="right (%)", xlim=(3.5, 45), ylim=(30, 103), title="A tale, or shuffled?"
)
ax.set_xticks(LENGTHS, LENGTHS)
ax.minorticks_off()
ax.legend(frameon=False, loc="upper left", ncols=2)
ax.spines[["top", "right"]].set_visible(False)
lengths = ", ".join(map(str, LENGTHS))
plots.show(ax, f"Share of right answers against length, {lengths} words, with error bars: {'; '.join(told_of)}.")

# %% [markdown] id="14-by-length-read"
r"""
A longer piece has more places where the order can show, so whoever has learnt something finds it easier, as you would.
The bars are two standard errors: with so few tests, shares nearer to each other than that are not to be told apart. One
training from one seed proves little, too; to compare two models in earnest, train each with several seeds.

And mind what this question asks: neighbours give a shuffled text away. A question about words far apart would tell more
of memory.
"""

# %% [markdown] id="14-last-state"
r"""
## Find the mistake: which one is the last?

In print, as an example of *inference with a large language model*:

> *`out, _ = self.lstm(x)` &nbsp; `return self.fc(out[-1])` &nbsp; with data of shape (batch, sequence, features)*

It runs. What does `out[-1]` pick, when the first axis is the batch? What would the other texts of the batch have to do
with the answer? And in which respect is this not how a language model is used at all?

Here is a batch of our tests, as many texts as there are steps in the longest, with the LSTM that we have trained.
"""

# %% id="14-mistake-last"
lstm = classifiers["LSTM"]
longest = max(len(lstm.encode(text)) for text, _ in test)
batch = [test[i] for i in np.random.default_rng(1).permutation(len(test))[: longest - 1]]
batch.append(max(test, key=lambda example: len(lstm.encode(example[0]))))
ids, lengths = rectangle([lstm.encode(text) for text, _ in batch])  # [B, T], padded on the right; [B]
labels = np.array([lstm.labels.index(label) for _, label in batch])
out = lstm.body.hidden(ids)  # [B, T, C]
B, T, C = out.shape
print(f"B = {B} texts, T = {T} steps, C = {C}; of {B * T} places {lengths.sum()} are tokens, the others padding\n")

picked = {
    "out[-1]": out[-1],  # [T, C]: the last TEXT, all its steps
    "out[:, -1]": out[:, -1],  # [B, C]: the last step, mostly padding
    "last_state(out, lengths)": last_state(out, lengths),  # [B, C]: each text's own last step
}
share = {}
for name, states in picked.items():
    said = lstm.ops.linear(states, **lstm.score).argmax(axis=-1)
    share[name] = np.mean(said == labels)
    print(f"{name:<26} {states.shape}, right in {share[name]:.0%}")

others = ids.copy()
others[:-1] = rng.integers(0, lstm.body.config.vocab_size, others[:-1].shape)  # all texts but the last become nonsense
changed = lstm.body.hidden(others)
print("\nall texts but the last are replaced: out[-1] is the same:", np.array_equal(changed[-1], out[-1]))
assert B == T and np.array_equal(changed[-1], out[-1])
assert share["last_state(out, lengths)"] > max(share["out[-1]"], share["out[:, -1]"])

# %% [markdown] id="14-mistake-last-true"
r"""
**What is true.** In batch-first data `out[-1]` is the last *example*, with all its steps. The last *step* is
`out[:, -1]`; and where texts are of different lengths, that is padding for most of them, so each text's own last place is
needed, `out[np.arange(B), lengths - 1]`. (`out[-1]` is right for data with time first, which was once the custom, and
from where the line was copied.) With $B = T$, or a batch of one step, the shapes fit, nothing complains, and the answers
for all texts come from one of them.

And it is no inference with a language model. A classifier gives *one* answer for a whole text, $N$ logits, and is done. A
language model gives a distribution over all $V$ tokens after *every* token, one is chosen, appended, and it goes on from
there ([chapter 06](06_one_token_at_a_time.ipynb)).

The library's LSTM does what yours by hand does. A check, with its parameters in the formula above:
"""

# %% id="14-same-cell"
small = LSTM.random(LSTMConfig(vocab_size=300, n_embd=8), seed=0, dtype=np.float64)
ids = np.array([[5, 17, 8, 200]])
h = c = np.zeros((1, 8))
p = small.parameters
for i in ids[0]:
    h, c = lstm_cell(p["wte.weight"][[i]], h, c, p["l.0.ih.weight"], p["l.0.hh.weight"], p["l.0.ih.bias"])
print("largest difference:", np.abs(small.hidden(ids)[:, -1] - h).max())
assert np.allclose(small.hidden(ids)[:, -1], h)

# %% [markdown] id="14-time"
r"""
## How long a step takes

Now the price. The library times one step of training, forwards, backwards and AdamW, of both, on texts of one length.

On paper first. The LSTM does the same for every token, so its work grows like $T$. The Transformer does so too, in its
linear maps, and on top of it compares all pairs of tokens, $T^2$. But the LSTM has to go one step after the other, each a
small product; the Transformer puts all tokens into one large product, and large products are what a processor is good
at.

**Guess, then run.** Which is faster for 16 tokens? For 256? In the picture a level line means that a token takes as long
in a long text as in a short one. (The first run compiles, and takes longer.)
"""

# %% id="14-time-shown"
times = times_by_length((16, 32, 64, 128, 256), rows=(16,), n_embd=64, rounds=3)
_, ax = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
plots.time_by_length(times, ax=ax)
ms = {(t.model, t.length): 1e3 * t.step for t in times}
growth = {model: ms[model, 256] / ms[model, 16] for model in ("transformer", "lstm")}
for model, grows in growth.items():
    each = ", ".join(f"{n} tokens {ms[model, n]:.1f} ms" for n in (16, 64, 256))
    print(f"{model:<12} a step: {each}; from 16 to 256 tokens {grows:.1f} times as long")
waits = np.mean([t.recurrent for t in times if t.model == "lstm"])
print(f"share of the LSTM's forward pass in which one step waits for the other: {waits:.0%}")
plots.show(
    ax,
    "Microseconds a token against the length of the texts, both logarithmic, for Transformer and LSTM, 16 texts at once. From "
    f"16 to 256 tokens a step grows {growth['transformer']:.1f} times for the Transformer and {growth['lstm']:.1f} for the LSTM.",
)
assert min(growth.values()) > 1

# %% [markdown] id="14-time-read"
r"""
Sixteen times the tokens. A factor below 16 is a gain: what a step costs only once, and larger products. One above it
would be the price of the pairs; that comes with still longer texts ([chapter 08](08_where_the_cycles_go.ipynb) says
where).

If the LSTM lies lower in your picture, look at what was compared: it has one layer, the Transformer two blocks, and so
it has less to multiply. On a processor or two that decides. With thousands of them the other thing does: the LSTM's
chain of steps cannot be shared out, only the texts of a batch can, while of the Transformer every token can. That is
why it has taken over. It can learn from *much* more text in the same time, and then, as we have seen, needs few labels.

What the LSTM keeps is a memory of fixed size. While generating, a Transformer's cache grows with the text ([chapter
06](06_one_token_at_a_time.ipynb)); an LSTM carries $2N$ numbers a layer, however long it is.
"""

# %% [markdown] id="14-exercises"
r"""
## Exercises

    minillm exercises check last_state
    minillm exercises check lstm_cell

The first is this chapter's mistake, for you to mend.

On paper: how many parameters has an LSTM layer of $N = 64$ with inputs of $C = 64$? And one Transformer block with
$C = 64$ (without biases and norms: $3C^2 + C^2 + 4C^2 + 4C^2$)? Then run:
"""

# %% id="14-on-paper"
N = C = 64
print("LSTM layer       ", 4 * N * (C + N) + 4 * N)
print("Transformer block", 12 * C * C)

# %% [markdown] id="14-sources"
r"""
## Sources

- [Long Short-Term Memory](https://doi.org/10.1162/neco.1997.9.8.1735), Hochreiter and Schmidhuber 1997; and [Learning to
  Forget](https://doi.org/10.1162/089976600300015015), Gers, Schmidhuber and Cummins 2000: the gate $f$.
- [Improving Language Understanding by Generative
  Pre-Training](https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf), Radford
  et al. 2018, section 3.2: a language model made into a classifier.
- [Baselines and Bigrams](https://aclanthology.org/P12-2018/), Wang and Manning 2012: how hard the simple ones are to beat.
"""
