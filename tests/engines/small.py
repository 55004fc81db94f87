"""A small model of each family that llama.cpp has, whose layers all matter."""

from pathlib import Path

from minillm import GPT2Config, LlamaConfig
from minillm.families.llama.qwen import Qwen2Config, Qwen3Config
from minillm.model import Model
from tests.families.able import lively

L = 2
SHAPE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "num_hidden_layers": L,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "gpt2": GPT2Config(300, n_positions=64, n_embd=64, n_layer=L, n_head=4),
    "llama": LlamaConfig(**SHAPE),
    "llama-biased": LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=32),
}


def saved(name: str, folder: Path) -> Model:
    """The model of this name, which is written into a folder, too."""
    model = lively(CONFIGS[name])
    model.save_pretrained(folder)
    return model
