# %% [markdown] id="00-title"
r"""
# 00 · Five minutes

After this chapter you have

- checked that everything works on your machine,
- let a language model write a fairy tale,
- watched it choose one word-piece after another, with the numbers it chose by,
- solved the first exercise.

You need Python and a little NumPy, and no machine learning. Run a cell with Shift+Enter, from top to bottom. Now and
then you will read **Guess, then run**: stop there and say your guess aloud, or write it down. A wrong guess that you
made teaches more than a right answer that you read.
"""

# %% [markdown] id="00-check"
r"""
## Does everything work?
"""

# %% id="00-environment"
import os
import platform

import numpy as np

import minillm
from minillm import plots

model, tokenizer = minillm.load()
print("Python    ", platform.python_version(), "on", platform.system(), platform.machine())
print("NumPy     ", np.__version__)
print("minillm   ", minillm.__version__, "computing with", model.ops.__name__)
print("processors", os.cpu_count())
print("model     ", model)

# %% [markdown] id="00-environment-read"
r"""
If those lines appeared, it works. `minillm.kernels` means that the fast functions are in use; without Numba it says
`minillm.ops`, everything works just as well, and takes longer.

The last line describes the model. Its *parameters* are numbers, some millions of them, that were adjusted while it read
old fairy tales; the whole model is those numbers and a few pages of arithmetic. Nothing here uses a network: the model
came with the package.

## Let it write

The first run may pause for some seconds: the fast functions are being compiled, this once. (What `temperature` and
`min_p` do is told in [chapter 07](07_choosing_the_next_word.ipynb).)
"""

# %% id="00-write"
story = "Once upon a time"
print(story, end="")
for moment in minillm.generate(model, tokenizer, story, max_new_tokens=80, temperature=0.8, min_p=0.05, seed=1):
    print(moment.text, end="", flush=True)

# %% [markdown] id="00-write-read"
r"""
It sounds like a tale and means little. The model is tiny beside those behind well-known assistants, and it has read
nothing but tales. But it works in the same way, and everything that happens in it can be looked at. Change `story` or
`seed` and run the cell again.

## What just happened?

Text appeared bit by bit, and that was no show: the model cannot do otherwise. It knows a fixed list of text pieces. One
such piece is a **token**: a word with the space before it, a part of a word, a sign. All that the model ever does is
this: *given the tokens so far, say for each token in its list how likely it is to come next.* A program then chooses
one, writes it after the text, and asks again.

**Guess, then run.** The text so far is *The cat sat on the*. The model has read only fairy tales. Which words do you
think it finds likeliest? How sure is it of its first choice: 5 %, 50 %, 95 %?
"""

# %% id="00-ten-likeliest"
from minillm.decoding.scoring import next_logprobs

text = "The cat sat on the"
ids = tokenizer.encode(text)
probabilities = np.exp(next_logprobs(model, ids))

names = [repr(tokenizer.decode([i])) for i in range(tokenizer.vocab_size)]
ax = plots.likeliest(np.log(probabilities), names)
ax.set_title(f"{text} ...")
ten = np.argsort(-probabilities)[:10]
plots.show(ax, "The ten likeliest next tokens: " + ", ".join(f"{names[i]} {probabilities[i]:.2%}" for i in ten))

# %% [markdown] id="00-ten-likeliest-read"
r"""
The quotation marks show where a token begins with a space: the space belongs to it. The model is far from sure: even
its favourite is a small part of the whole. What about all the other tokens in its list?
"""

# %% id="00-all"
print("tokens in the list              ", len(probabilities))
print("all probabilities together      ", probabilities.sum())
print("of these, the ten in the picture", probabilities[ten].sum())
print("the least likely token          ", names[probabilities.argmin()], probabilities.min())

assert abs(probabilities.sum() - 1) < 1e-4
assert 0 < probabilities.min() < probabilities.max() < 0.5

# %% [markdown] id="00-all-read"
r"""
So the answer is never a word. It is one number for *every* token, none of them zero, all of them together 1.

## Choosing one

How does one token come out of so many numbers? Lay the probabilities end to end on a line of length 1, each a stretch
as long as its probability. Draw a number $u$ between 0 and 1, and take the token in whose stretch it falls. Likely
tokens have long stretches.
"""

# %% id="00-choose"
from minillm.decoding.filters import choose

rng = np.random.default_rng(seed=4)
for _ in range(8):
    u = rng.random()
    token = choose(probabilities, u)
    print(f"u = {u:.3f}  ->  {names[token]:<14} P = {probabilities[token]:.3%}")

# %% [markdown] id="00-choose-read"
r"""
Look at the probabilities on the right: unlikely tokens come up all the time, because there are so many of them. `seed`
decides which numbers $u$ are drawn, so the same seed gives the same tale.

**Guess, then run.** Here is the loop itself, four times round: ask, choose, append. Which part of the printed text is
new each time? Will the model, in the second round, still know what the first word was?
"""

# %% id="00-loop"
rng = np.random.default_rng(seed=4)
for _ in range(4):
    probabilities = np.exp(next_logprobs(model, ids))  # ask
    token = choose(probabilities, rng.random())  # choose
    ids = [*ids, token]  # append
    print(f"{names[token]:<12} P = {probabilities[token]:7.3%}   {tokenizer.decode(ids)!r}")

# %% [markdown] id="00-loop-read"
r"""
That is the whole of text generation; [chapter 06](06_one_token_at_a_time.ipynb) makes it fast, and [chapter
07](07_choosing_the_next_word.ipynb) makes it choose better. And yes: the whole text goes in each time, the first word
too.
"""

# %% [markdown] id="00-next-token"
r"""
## Always the likeliest

The simplest way to choose needs no luck: take the token with the largest probability. Where in a row the largest number
stands is called its *argmax*.

**Guess, then run.** Will a story made of the likeliest tokens be better or worse than the one above? (`temperature=0`
means: always the likeliest.)
"""

# %% id="00-greedy"
greedy = [m.text for m in minillm.generate(model, tokenizer, "Once upon a time", max_new_tokens=80, temperature=0)]
print("Once upon a time" + "".join(greedy))

sampled = {"max_new_tokens": 80, "temperature": 1, "min_p": 0, "seed": 1}
drawn = [m.text for m in minillm.generate(model, tokenizer, "Once upon a time", **sampled)]
print(f"\ndifferent tokens of 80: {len(set(greedy))} always the likeliest, {len(set(drawn))} drawn")
assert len(set(greedy)) < len(set(drawn))

# %% [markdown] id="00-greedy-read"
r"""
It turns in circles. Each step takes the best token, and the whole is not the best text. Keep that surprise for [chapter
07](07_choosing_the_next_word.ipynb).
"""

# %% [markdown] id="00-exercise"
r"""
## The first exercise: from red to green

Reading is not yet knowing. To this course belong exercises, in which you write the functions of the model yourself and
a program says where the first wrong number is. They are files, not cells. Here is the first one, in a folder of its own
for this demonstration (`minillm exercises start` writes them):
"""

# %% id="00-exercise-start"
from pathlib import Path

from minillm.cli import main as minillm_command
from minillm.exercises.student import folder

folder.start(Path("five-minutes"))
file, _ = folder.reset(Path("five-minutes"), "argmax")  # as it is at first, also when you run this again
print(file.read_text())

# %% [markdown] id="00-exercise-red"
r"""
Nothing is written yet. What does the check say? (In a terminal you would type `minillm exercises check argmax`. Exit
code 0 means that all is right, 1 that something is not.)
"""

# %% id="00-exercise-to-do"
CHECK = ["exercises", "check", "argmax", "--folder", "five-minutes"]
print("exit code", minillm_command(CHECK))

# %% [markdown] id="00-exercise-try"
r"""
Here is a first attempt: go through all numbers and keep the place of the largest so far.

**Guess, then run.** It is wrong. For which rows of numbers?
"""

# %% id="00-exercise-wrong"
stub = file.read_text()
attempt = """
    best, largest = 0, 0.0
    for i in range(len(scores)):
        if scores[i] > largest:
            best, largest = i, scores[i]
    return best
"""
unwritten = next(line for line in stub.splitlines() if "raise NotImplementedError" in line)
file.write_text(stub.replace(unwritten, attempt.strip("\n")))
print("exit code", minillm_command(CHECK))

# %% [markdown] id="00-exercise-mend"
r"""
It says which input, which number, and what the mistake probably is. So begin with the first number instead of 0:
"""

# %% id="00-exercise-green"
file.write_text(stub.replace(unwritten, attempt.strip("\n").replace("0, 0.0", "0, scores[0]")))
print("exit code", minillm_command(CHECK))

# %% [markdown] id="00-exercise-yours"
r"""
Now yours. In a terminal, in a new folder:

    minillm exercises start
    minillm exercises check

`check` goes through all exercises in order and stops at the first that is not right yet;
`minillm exercises hint argmax` helps. After `argmax` comes `likeliest`, which somebody else wrote, with one mistake for
you to find. When all are right, a model made of *your* functions writes a tale.
"""

# %% [markdown] id="00-map"
r"""
## The map of the course

| | chapter | afterwards you can |
|---|---|---|
| **Core** | [01 Tokens](01_tokens.ipynb) | turn text into numbers and back, by hand |
| | [02 A guess is a row of numbers](02_a_guess_is_a_row_of_numbers.ipynb) | say how good a guess is, in one number |
| | [03 Attention](03_attention.ipynb) | compute how words look at each other |
| | [04 The block](04_the_block.ipynb) | build the unit that the model repeats |
| | [05 The whole of GPT-2, against the reference](05_against_the_reference.ipynb) | prove that a model is right, step by step |
| | [06 One token at a time](06_one_token_at_a_time.ipynb) | generate without computing anything twice |
| | [07 Choosing the next word](07_choosing_the_next_word.ipynb) | choose well, and know what "well" means |
| **Time** | [08 Where the cycles go](08_where_the_cycles_go.ipynb) | predict how long it takes, and measure it |
| | [09 From loops to machine code](09_from_loops_to_machine_code.ipynb) | make a slow loop fast, step by step |
| | [10 Smaller](10_smaller.ipynb) | shrink a model and know the price |
| | [11 Wider](11_wider.ipynb) | do several things at once without changing the result |
| **Learning** | [12 Gradients](12_gradients.ipynb) | find out which way to change a number |
| | [13 Training](13_training.ipynb) | train a model in a minute |
| | [14 Putting it to work](14_putting_it_to_work.ipynb) | sort texts, and compare with what came before |
| **Looking** | [15 Looking inside](15_looking_inside.ipynb) | read, and change, what the model thinks midway |

First the core, in order. Then *Time* or *Learning*, as you like. *Looking* needs only chapter 05.
"""

# %% [markdown] id="00-sources"
r"""
## Sources

- [Language Models are Unsupervised Multitask
  Learners](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf),
  Radford et al. 2019: GPT-2, whose arithmetic this model shares.
- The model's own card, `weights/tales/README.md` in the project: what it has read, and its limits.
"""
