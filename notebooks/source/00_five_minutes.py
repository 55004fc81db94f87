# %% [markdown] id="00-title"
r"""
# Five minutes
"""

# %% [markdown] id="00-one-token"
r"""
A **token** is a piece of text.
"""

# %% id="00-likeliest"
import minillm
from minillm import plots
from minillm.scoring import next_logprobs

model, tokenizer = minillm.load()
names = [repr(tokenizer.decode([i])) for i in range(tokenizer.vocab_size)]
ax = plots.likeliest(next_logprobs(model, tokenizer.encode("The cat sat on the")), names)
plots.show(ax, "Bars of the ten likeliest tokens.")
