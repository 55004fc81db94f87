"""Llama: config, forward, backward, and the layout that says what it consists of; Qwen2 and Qwen3,
which are Llama but for what qwen.py says."""

from dataclasses import replace

from ..family import Family, register
from . import backward, forward, gguf, layout
from .config import LlamaConfig
from .program import program
from .qwen import Qwen2Config, Qwen3Config, normed_program, normed_steps

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
    )
)

QWEN2 = register(
    replace(
        LLAMA,
        name="qwen2",
        title="Qwen2",
        architectures=("Qwen2ForCausalLM",),
        config=Qwen2Config,
    )
)

QWEN3 = register(
    replace(
        LLAMA,
        name="qwen3",
        title="Qwen3",
        architectures=("Qwen3ForCausalLM",),
        config=Qwen3Config,
        steps=normed_steps,
        program=normed_program,
    )
)
