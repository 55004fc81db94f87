"""Llama: config, forward, backward, and the layout that says what it consists of; Qwen2 and Qwen3,
which are Llama but for what qwen.py says."""

from dataclasses import replace

from ..family import Family, register
from . import backward, forward, gguf, layout, qwen
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
        equations=layout.equations,
        canonical=layout.canonical,
        turned=True,
        elsewhere={"gguf": layout.GGUF},
        projections=layout.projections,
        turned_by_position=layout.turned_by_position,
        inexpressible=layout.inexpressible,
        gguf=gguf.FORMAT,
        knobs=layout.KNOBS,
        sized_by=("num_hidden_layers", "num_attention_heads", "hidden_size"),
    )
)

QWEN2 = register(
    replace(
        LLAMA,
        name="qwen2",
        title="Qwen2",
        architectures=("Qwen2ForCausalLM",),
        config=qwen.Qwen2Config,
        inexpressible=qwen.inexpressible,
        gguf=qwen.QWEN2_GGUF,
        knobs={},
    )
)

QWEN3 = register(
    replace(
        QWEN2,
        name="qwen3",
        title="Qwen3",
        architectures=("Qwen3ForCausalLM",),
        config=qwen.Qwen3Config,
        steps=qwen.normed_steps,
        equations=qwen.normed_equations,
        program=qwen.normed_program,
        elsewhere={"gguf": qwen.NORMED_GGUF},
        gguf=qwen.QWEN3_GGUF,
    )
)
