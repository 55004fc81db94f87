"""Make the stored references: small random models, and every bundled one, as transformers computes
them in float64.

    python tests/reference/make.py [NAME ...]

Needs torch and transformers (pip install -e ".[reference]"). A random model is written into
tests/reference/NAME in Hugging Face layout, stored as float16, with its reference.npz; a bundled
one gets its reference.npz in weights/NAME.
"""

import sys
from pathlib import Path

import numpy as np

from minillm import GPT2Config, LlamaConfig, Tokenizer
from minillm.families.llama.qwen import Qwen2Config, Qwen3Config
from minillm.model import Model, model_of
from minillm.reference import REFERENCE_FILE, record

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE.parents[1] / "weights"
# A few positions: the arrays are float64 and ship with the weights.
PROMPT = "Once upon a time,"
N_GREEDY = 40
SMALL = dict(vocab_size=61, n_positions=16)
LLAMA = dict(
    vocab_size=61,
    max_position_embeddings=16,
    hidden_size=24,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)

# name: (config, how much larger than GPT-2's start the weights are)
RANDOM = {
    "odd-heads": (GPT2Config(**SMALL, n_layer=2, n_head=3, n_embd=21, n_inner=50), 5),
    "untied-erf": (
        GPT2Config(
            **SMALL,
            n_layer=2,
            n_head=2,
            n_embd=16,
            tie_word_embeddings=False,
            activation_function="gelu",
        ),
        5,
    ),
    "relu-scaled": (
        GPT2Config(
            **SMALL,
            n_layer=3,
            n_head=1,
            n_embd=12,
            activation_function="relu",
            scale_attn_by_inverse_layer_idx=True,
            layer_norm_epsilon=1e-3,
        ),
        10,
    ),
    "unscaled": (GPT2Config(**SMALL, n_layer=1, n_head=5, n_embd=20, scale_attn_weights=False), 5),
    "large-weights": (
        GPT2Config(**SMALL, n_layer=3, n_head=4, n_embd=24),
        50,
    ),  # scores in the hundreds: softmax saturates
    "llama": (LlamaConfig(**LLAMA), 10),
    "llama-llama3": (
        LlamaConfig(
            **LLAMA,
            rope_scaling=LLAMA3,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=False,
        ),
        10,
    ),
    "qwen2": (Qwen2Config(**LLAMA), 10),
    "qwen3": (Qwen3Config(**LLAMA, head_dim=10), 10),
}


def random_model(config, growth: float, seed: int) -> Model:
    """A model with nothing left at its start: norms and biases random too, all weights `growth`
    times larger."""
    rng = np.random.default_rng(seed)
    parameters = {
        name: 1.0 * (p.start == "ones") + 0.02 * growth * rng.standard_normal(p.shape(config.sizes))
        for name, p in config.layout.items()
    }
    return model_of(config, {name: array.astype(np.float32) for name, array in parameters.items()})


def make(name: str) -> None:
    if name in RANDOM:
        folder, (config, growth) = HERE / name, RANDOM[name]
        seed = list(RANDOM).index(name)
        random_model(config, growth, seed).save_pretrained(folder, np.float16)
        reference = record(folder, np.random.default_rng(seed).integers(0, 61, (2, 7)))
    else:
        folder = WEIGHTS / name
        reference = record(folder, Tokenizer.from_pretrained(folder).encode(PROMPT), N_GREEDY)
    reference.save(folder / REFERENCE_FILE)
    size = (folder / REFERENCE_FILE).stat().st_size
    print(f"{folder / REFERENCE_FILE}: {len(reference.steps)} steps, {size / 1e3:.0f} kB")


def stored() -> list[Path]:
    """Every folder with a reference: the random models here, the bundled ones in weights/."""
    return sorted(path.parent for root in (HERE, WEIGHTS) for path in root.glob("*/config.json"))


if __name__ == "__main__":
    for name in sys.argv[1:] or [*RANDOM, *(f.name for f in stored() if f.parent == WEIGHTS)]:
        make(name)
