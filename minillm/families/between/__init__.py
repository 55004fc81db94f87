"""The steps from GPT-2 to Llama, to see what each idea does by itself: the only family whose block
has flags.

Elsewhere a family is one way of computing, to be read from top to bottom beside another one. Here
the flags are the point: a ledger of ideas needs models that differ in one of them and in nothing
else, and four copies of a block would hide what differs. With none of the ideas it computes what
GPT-2 does, with all of them what Llama does, and tests hold it to both.

    idea             what changes                                          what goes
    rms_norm         x / rms(x) * w instead of (x - mean) / std * w + b    the norms' biases
    rope             queries and keys are turned by their positions        wpe, attention's biases
    swiglu           (silu(x Wgate) * (x Wup)) Wdown instead of GELU       the feed forward's biases
    n_kv_head < H    queries share keys and values in groups               keys and values

Llama has no biases; here each goes with the idea that changes its part, so that the last step
changes K alone. What an idea saves or costs in parameters, the width of the feed forward settles:
the presets ideas-1 to ideas-5 have the same number to 1 %.
"""

from ..family import Family, register
from . import backward, forward, layout
from .config import BetweenConfig
from .program import program

BETWEEN = register(
    Family(
        name="between",
        title="a model between GPT-2 and Llama",
        architectures=(),
        config=BetweenConfig,
        layers="h.",
        steps=layout.steps,
        hidden=forward.hidden,
        head=forward.unembed,
        backward=backward.between_backward,
        program=program,
        inexpressible=lambda engine, config: "at all: it is minillm's own",
        knobs=layout.KNOBS,
        sized_by=("n_layer", "n_head", "n_embd"),
        equations=layout.equations,
    )
)
