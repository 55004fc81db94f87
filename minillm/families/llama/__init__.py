"""Llama: config, forward, backward, and the layout that says what it consists of."""

from ..family import Family, register
from . import backward, forward, gguf, layout
from .config import LlamaConfig
from .program import program

LLAMA = register(
    Family(
        name="llama",
        title="Llama",
        architectures=("LlamaForCausalLM",),
        config=LlamaConfig,
        layers="model.layers.",
        steps=layout.steps,
        hidden=forward.hidden,
        head=forward.unembed,
        backward=backward.llama_backward,
        program=program,
        canonical=layout.canonical,
        stored=layout.stored,
        turned=True,
        elsewhere={"gguf": layout.GGUF},
        projections=layout.projections,
        turned_by_position=layout.turned_by_position,
        inexpressible=layout.inexpressible,
        gguf=gguf.FORMAT,
        knobs=layout.KNOBS,
    )
)
