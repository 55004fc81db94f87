"""GPT-2: config, forward, backward, and the layout that says what it consists of."""

from ..family import Family, register
from . import backward, forward, gguf, layout, program
from .config import GPT2Config

GPT2 = register(
    Family(
        name="gpt2",
        title="GPT-2",
        architectures=("GPT2LMHeadModel", "GPT2Model"),
        config=GPT2Config,
        layers="h.",
        steps=layout.steps,
        hidden=forward.hidden,
        head=forward.unembed,
        backward=backward.gpt2_backward,
        canonical=layout.canonical,
        stored=layout.stored,
        elsewhere={"gguf": layout.GGUF, "ctranslate2": layout.CTRANSLATE2},
        projections=layout.projections,
        inexpressible=layout.inexpressible,
        program=program.program,
        gguf=gguf.FORMAT,
        equations=layout.equations,
        knobs=layout.KNOBS,
        sized_by=("n_layer", "n_head", "n_embd"),
    )
)


def step_names(n_layer: int) -> list[str]:
    """The name of every intermediate of a GPT-2's pass, in the order in which they are formed."""
    return [*layout.steps(GPT2Config(n_layer=n_layer))]
