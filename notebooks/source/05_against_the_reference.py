# %% [markdown] id="05-title"
r"""
# 05 · The whole of GPT-2, against the reference

You have every part. This chapter puts them together: all of GPT-2 fits on one screen. Then it asks the question that
matters more than any line of code: *how do you know that it is right?* A language model with a small mistake in it still
writes sentences. So we compare not the text, and not only the last numbers, but every number on the way, with those of
another program.

After this chapter you can

- read GPT-2's forward pass from ids to logits, with the shape of every intermediate;
- write the loop that turns it into a text generator, in four lines;
- tell rounding from a mistake, and say why the comparison is made twice, in two types of number;
- find the first step that is wrong, where the text alone shows nothing;
- name what is missing in the picture of GPT-2 that is most often drawn.

25 minutes, exercises apart.
"""

# %% id="05-setup"
import dataclasses
import inspect
from types import SimpleNamespace

import numpy as np
from matplotlib import pyplot

import minillm
from minillm import ops, plots
from minillm.checkpoints import find_folder
from minillm.differences import diff
from minillm.families.gpt2 import forward as gpt2
from minillm.families.gpt2 import step_names
from minillm.reference import TOLERANCES, Reference, verify
from minillm.steps import Patch, Relay

model, tokenizer = minillm.load("tales", kernels="numpy")  # the readable functions
config, L, V = model.config, model.config.n_layer, model.config.vocab_size
print(model)

# %% [markdown] id="05-forward"
r"""
## One screen

$$\mathrm{ids} \to W_{te} + W_{pe} \to \underbrace{\mathrm{block} \to \ldots \to \mathrm{block}}_{L} \to \mathrm{norm} \to
\mathrm{logits}$$

Here are the functions that run: `forward` calls `hidden`, and that `embed`, and a block for each layer. Comments give the shapes
(`[B,T,C]`: rows, positions, numbers in a vector). `cache`, `past` and `keep` belong to later chapters; read past them.
"""

# %% id="05-forward-source"
for function in (gpt2.embed, gpt2.hidden, gpt2.unembed, gpt2.forward):
    print(inspect.getsource(function))

# %% [markdown] id="05-embed"
r"""
In `embed` the lines `wte`, `wpe` and `embed` form the embedding. Mind where the positions come from: they are an
argument, one for each token. For a whole text they are $0, 1, 2, \ldots$; but if some tokens have gone through before, the
first new one comes *after* them, and not at 0 ([chapter 06](06_one_token_at_a_time.ipynb)). Then each block reads
what the one before it returned.
"""

# %% [markdown] id="05-unembed"
r"""
At the end two things are new. After the last block stands one more layer norm, `ln_f`. And then the **unembedding**: the
vector at each position becomes $V$ logits, one for every token. In GPT-2 there is no separate matrix for that. It is the
table of token embeddings again, transposed; one says that the two are *tied*:

$$\mathrm{logits} = \mathrm{norm}_f(x)\; W_{te}^{\top} \qquad [B,T,C] \cdot [C,V] \to [B,T,V]$$

So a logit is a dot product: how well the final vector fits the vector of that token.

**Guess, then run.** For one row of $T = 6$ tokens, what are the shapes of `h.0.attn.scores` and of `logits`? And how many
intermediates are formed in all, with 15 in each block?
"""

# %% id="05-shapes"
ids = tokenizer.encode("The fox saw the hen.")
trace = model.trace(ids)
names = step_names(L)
for name in names:
    if not name.startswith("h.") or name.startswith("h.0."):
        print(f"{name:18} {trace[name].shape}")
        if name == "h.0.mlp.residual":
            print(f"... and so on, to layer {L - 1}")
print(f"{len(names)} intermediates = 3 + 15 x {L} + 2")
assert len(names) == len(trace) == 3 + 15 * L + 2
assert trace["h.0.attn.scores"].shape == (1, config.n_head, 6, 6) and trace["logits"].shape == (1, 6, V)

x, wte = trace["ln_f"][0, -1], model.parameters["wte.weight"]
assert np.allclose([x @ wte[token] for token in range(5)], trace["logits"][0, -1, :5], rtol=1e-4, atol=1e-4)

# %% [markdown] id="05-loop"
r"""
## The loop

A forward pass gives logits for the next token, no more. To write, take the likeliest token, put it after the text, and
pass the longer text through again. That is the whole of a text generator. (It does far more work than it needs to; [chapter
06](06_one_token_at_a_time.ipynb) mends that.)
"""

# %% id="05-loop-run"
text = tokenizer.encode("Once upon a time there was")
for _ in range(12):
    logits = model(text)  # [T] -> [T,V]
    text.append(int(logits[-1].argmax()))  # the last position's guess: what comes next
print(tokenizer.decode(text))
assert text == model.generate(text[:-12], 12, temperature=0).tolist()  # the library's own loop writes the same

# %% [markdown] id="05-how-known"
r"""
## How do you know that it is right?

It writes English; so most of it must be right. Is that enough? You will see that it is not.

Beside each model lies a file that was recorded from *another* program: `transformers`, by Hugging Face, whose GPT-2 is used
everywhere and counts as the **reference implementation**. The file holds what that program formed at each step, for one
short text, computed with as many digits as it can. We run our forward on the same ids and compare step by step. For each
step the error is

$$\frac{\max |\,\mathrm{ours} - \mathrm{reference}\,|}{\max |\,\mathrm{reference}\,|}$$
"""

# %% id="05-reference"
reference = Reference.load(find_folder("tales"))
print("ids of shape", reference.ids.shape, repr(tokenizer.decode(reference.ids[0])))
print(len(reference.steps), "steps, for example h.0.attn.weights", reference.steps["h.0.attn.weights"].shape)
assert set(names) == set(reference.steps)

# %% [markdown] id="05-rounding"
r"""
Should the error be zero? A number in a computer has a limited number of digits. **float32** keeps 24 binary digits, about 7
decimal ones: neighbouring numbers near 1 are $2^{-23} \approx 1.2 \cdot 10^{-7}$ apart. **float64** keeps 53, about 16
decimal ones: $2^{-52} \approx 2.2 \cdot 10^{-16}$. Every sum and product is rounded to that.

**Guess, then run.** What is $(10^8 + 1) - 10^8$ in float32, and in float64? Is $(0.1 + 0.2) + 0.3$ the same as $0.1 + (0.2
+ 0.3)$?
"""

# %% id="05-rounding-run"
for dtype in (np.float32, np.float64):
    big, one = dtype(1e8), dtype(1)
    print(f"{dtype.__name__}: ({big:.0f} + 1) - {big:.0f} = {(big + one) - big:.0f}")
print((0.1 + 0.2) + 0.3, 0.1 + (0.2 + 0.3))
assert (np.float32(1e8) + np.float32(1)) - np.float32(1e8) == 0 and (0.1 + 0.2) + 0.3 != 0.1 + (0.2 + 0.3)

# %% [markdown] id="05-rounding-why"
r"""
In float32 the 1 is gone: $10^8 + 1$ needs 27 binary digits. And the *order* of a sum changes its last digits. Two correct
programs that add up the same 256 products in different orders therefore disagree, a little. Rounding errors are no
mistakes. But they set a limit: whatever is smaller than they are cannot be seen.

**Guess, then run.** Our float32 forward, against the reference in float64: about how large will the error be, and at which
step the largest? Then our forward in float64. The function is the same; only the type of the weights changes.
"""

# %% id="05-verify"
reports = {dtype: verify(model, reference, dtype) for dtype in ("float32", "float64")}
for dtype, report in reports.items():
    print(f"{dtype}: every step OK: {report.ok}; the worst is {report.worst.name} with {report.worst.relative:.1e}")
    assert report.ok
assert 1e-8 < reports["float32"].worst.relative < TOLERANCES[np.dtype("float32")]
assert reports["float64"].worst.relative < 1e-6 * reports["float32"].worst.relative

# %% id="05-picture"
figure, axes = pyplot.subplots(figsize=(9.5, 4.2), layout="constrained")
allowed = {dtype: TOLERANCES[np.dtype(dtype)] for dtype in reports}
plots.errors_by_step(reports, allowed, axes)
plots.show(
    figure,
    f"The error of each of {len(names)} steps on a logarithmic scale. float32, filled circles, lies below the allowed "
    f"{allowed['float32']:.0e}; float64, open squares, many powers of ten lower, below the allowed {allowed['float64']:.0e}.",
)

# %% [markdown] id="05-picture-why"
r"""
Two bands, about nine powers of ten apart, which is how far apart the two types are ($2^{-23}$ and $2^{-52}$). Within a band
the very first steps are exact: a row of a table is looked up and nothing is rounded. From there on every step adds a little
rounding of its own to what it was given.

The dashed lines are what is *allowed*: safely above the worst that rounding was seen to do. And that is why both types
are compared. In float32, the type that we use, a small mistake could hide among the rounding. In float64 it stands out: an
error of $10^{-14}$ can only be rounding, and one of $10^{-8}$ can only be a mistake.

## Six changes, planted

Now for the claim that the text is no test. Below are six versions of the model with one thing changed. You know them all
from earlier chapters.

**Guess, then run.** Which of the six will write another continuation of the reference's text? Which will be found by the
comparison? One of them is no mistake at all: which?
"""


# %% id="05-planted"
def with_ops(**changed):
    """The same model, computing with some functions changed."""
    return minillm.GPT2(config, model.parameters, SimpleNamespace(**{**vars(ops), **changed}))


def norm_with_ddof_1(x, weight, bias, eps):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True, ddof=1) + eps) * weight + bias


def norm_with_eps_outside(x, weight, bias, eps):
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + eps) * weight + bias


def softmax_as_written(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)  # the largest score is not subtracted first


planted = {
    "the other GELU (erf)": with_ops(gelu_new=ops.gelu),
    "layer norm with ddof=1": with_ops(layer_norm=norm_with_ddof_1),
    "epsilon outside the root": with_ops(layer_norm=norm_with_eps_outside),
    "softmax as it is written": with_ops(softmax=softmax_as_written),
    "no 1/sqrt(D)": minillm.GPT2(dataclasses.replace(config, scale_attn_weights=False), model.parameters),
    "relu": with_ops(gelu_new=ops.relu),
}

# %% id="05-planted-run"
n = len(reference.greedy)
print(f"{'':26} text of {n}  first step not OK (float32)  its error")
first, same_text = {}, {}
for what, changed in planted.items():
    written = changed.generate(reference.ids[0], n, temperature=0)[-n:]
    same_text[what], first[what] = np.array_equal(written, reference.greedy), verify(changed, reference).first
    found = f"{first[what].name:28} {first[what].relative:.1e}" if first[what] else "every step OK"
    print(f"{what:26} {'same' if same_text[what] else 'other':10}  {found}")

assert first["softmax as it is written"] is None
assert all(wrong for what, wrong in first.items() if what != "softmax as it is written")
assert any(same_text[what] for what, wrong in first.items() if wrong)  # some mistakes leave the text as it was

# %% [markdown] id="05-planted-why"
r"""
Every mistake is found, and the name of the first wrong step says where to look: `ln_1` is the norm, `mlp.act` the activation,
`attn.scores` the scaling. The text would not have told you: some of the changed models write the very same words.

The softmax as it is written is no mistake, mathematically: $\mathrm{softmax}(x + c) = \mathrm{softmax}(x)$. (It is a risk:
for scores near 1000 it overflows. Scores of that size just do not occur here.)

## One mistake, one red line

With a mistake in layer 0, everything after it is wrong as well. Which step is to blame, if there are two mistakes? The
trick is to hand on the *reference's* value after each comparison, so that every step is judged on right inputs. Here that
is a `Relay`.

**Guess, then run.** Take the model with relu. How many of its steps are wrong when each gets what the model itself computed?
How many, when each gets the reference's values?
"""

# %% id="05-relay"
wrong = planted["relu"]
tolerance = TOLERANCES[np.dtype("float32")]
relay = Relay(reference.steps)
wrong(reference.ids, step=relay)
by_itself = [d.name for d in verify(wrong, reference) if d.status != "OK"]
relayed = [d.name for d in diff(relay.trace, reference.steps, tolerance, names) if d.status != "OK"]
print(f"fed with its own values: {len(by_itself)} of {len(names)} steps wrong, from {by_itself[0]} to {by_itself[-1]}")
print(f"fed with the reference's: {len(relayed)} wrong: {', '.join(relayed)}")
assert relayed == [f"h.{i}.mlp.act" for i in range(L)] and len(by_itself) > len(relayed)

# %% [markdown] id="05-relay-why"
r"""
One for each layer: the activation, and nothing else. `minillm exercises check` judges your functions in the same way, and so
one wrong answer does not redden the next.

## Find the mistake: a picture in print

GPT-2 is often drawn like this, in print:

> *Text → attention → feed forward → text.*

**Find the flaws before you read on.** Write down everything in this chapter's one screen that the line leaves out. There
are at least six. Then guess: which of them does the model miss most, and which least?

To measure it, we take text sampled from the model itself and its cross-entropy on it, in nats a token ([chapter
02](02_a_guess_is_a_row_of_numbers.ipynb)). Guessing evenly among $V$ tokens would cost $\ln V$. Then we leave out one thing
at a time.
"""

# %% id="05-left-out"
sampled = model.generate(tokenizer.encode("Once upon a time"), 200, temperature=1.0, min_p=0, seed=6)


def loss(model, step=lambda name, value: value):
    """Cross-entropy on the sampled text, nats a token; infinite where the numbers overflow."""
    with np.errstate(all="ignore"):
        nats = ops.cross_entropy(model(sampled[:-1], step=step), sampled[1:]).mean(dtype=np.float64)
    return float(nats) if np.isfinite(nats) else np.inf


class WithoutResiduals:
    """A step that hands on what a part computed, instead of the stream with it added."""

    def __call__(self, name, value):
        if name.endswith(".out"):
            self.out = value
        return self.out if name.endswith(".residual") else value


def one_layer(model):
    kept = {name: p for name, p in model.parameters.items() if not name.startswith("h.") or name.startswith("h.0.")}
    return minillm.GPT2(dataclasses.replace(config, n_layer=1), kept, model.ops)


no_positions = {"wpe": np.zeros_like}
no_norms = with_ops(layer_norm=lambda x, weight, bias, eps: x)
losses = {
    "all of GPT-2": loss(model),
    "no positions": loss(model, Patch(no_positions)),
    "no layer norms": loss(no_norms),
    "no residuals": loss(model, WithoutResiduals()),
    "one layer instead of all": loss(one_layer(model)),
    "as in print": loss(one_layer(no_norms), Patch(no_positions, then=WithoutResiduals())),
}
for what, nats in losses.items():
    print(f"{what:26} {nats:8.2f} nats a token")
print(f"{'guessing evenly':26} {np.log(V):8.2f}")
whole = losses.pop("all of GPT-2")
assert all(nats > whole for nats in losses.values()) and losses["as in print"] > whole + 2 and max(losses.values()) > np.log(V)
assert losses["as in print"] < losses["no layer norms"]

# %% id="05-left-out-picture"
figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
shown = {"all of GPT-2": whole, **losses}
top = 1.25 * max([np.log(V), *(nats for nats in shown.values() if nats < 4 * np.log(V))])
axes.barh(list(shown), [min(nats, top) for nats in shown.values()], color="0.75", edgecolor="black")
axes.axvline(np.log(V), color="black", ls="--", lw=1, label=f"guessing evenly: ln {V:,}")
for row, nats in enumerate(shown.values()):
    axes.annotate(f"{nats:.1f}" + (" →" if nats > top else ""), (min(nats, top), row), (-4, 0), textcoords="offset points",
                  ha="right", va="center", fontsize="small")  # fmt: skip
axes.invert_yaxis()
axes.set(xlabel="cross-entropy (nats a token; less is better)", xlim=(0, top))
axes.legend(fontsize="small", loc="upper right")
listed = "; ".join(f"{what} {nats:.1f}" for what, nats in shown.items())
plots.show(figure, f"Bars of the cross-entropy in nats a token, with a line at ln V = {np.log(V):.1f}. {listed}.")

# %% [markdown] id="05-left-out-why"
r"""
Without any one of them this model is worse, and the worst omission makes it worse than guessing evenly: it is confident and
wrong. Nor do losses add up: *as in print*, with most of it left out, does less harm than leaving out the norms alone, whose
absence counts again in every layer. (A model *trained* without positions, say, would do better than this one, which learnt
to rely on them.)

Two things in the line cannot even be left out for a measurement. Without the embedding there are no numbers to begin with.
Without the unembedding there are $C$ numbers at the end and no logits: nothing to choose from. And without a choice and a
loop there is one distribution, and no text.

**What is true:**

> text → tokens → embedding + positions → $L$ times (norm, attention, add; norm, feed forward, add) → norm → unembedding →
> logits → choose a token → put it after the text, and again.

## In short

- GPT-2 is an embedding, $L$ equal blocks, a norm and the unembedding, which is the embedding transposed.
- One pass gives a distribution of the next token; a loop makes a text of it.
- A correct forward agrees with the reference to rounding, at every step, in float32 and in float64.
- Good text proves little. Compare every step, find the first that differs, feed each with right inputs.

## Exercises

    minillm exercises check embed
    minillm exercises check forward

And in a terminal, `minillm verify tales` prints the comparison of this chapter.

With your own `softmax`, `layer_norm`, `attention` and so on, this chapter and any other runs on *them*: begin the first cell
with `%env MINILLM_KERNELS=FOLDER`, the folder of your exercises, and restart. Which step is the first to differ?

**Next:** [chapter 06](06_one_token_at_a_time.ipynb) runs the loop and looks at its clock. [Chapter
15](15_looking_inside.ipynb) (looking inside) needs no more than you know now.

## Sources

- [Language Models are Unsupervised Multitask
  Learners](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf), Radford
  et al. 2019: GPT-2.
- [GPT2LMHeadModel](https://huggingface.co/docs/transformers/model_doc/gpt2), Hugging Face: the reference implementation.
- [Using the Output Embedding to Improve Language Models](https://arxiv.org/abs/1608.05859), Press and Wolf 2017: tied
  embeddings.
- [What Every Computer Scientist Should Know About Floating-Point Arithmetic](https://doi.org/10.1145/103162.103163),
  Goldberg 1991.
"""
