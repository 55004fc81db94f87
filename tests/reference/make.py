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

from minillm import GPT2, GPT2Config, Tokenizer
from minillm.reference import REFERENCE_FILE, record

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE.parents[1] / "weights"
# A few positions: the arrays are float64 and ship with the weights.
PROMPT = "Once upon a time,"
N_GREEDY = 40
SMALL = dict(vocab_size=61, n_positions=16)

# name: (config, how much larger than GPT-2's start the weights are)
RANDOM = {
    "odd-heads": (dict(n_layer=2, n_head=3, n_embd=21, n_inner=50), 5),
    "untied-erf": (
        dict(n_layer=2, n_head=2, n_embd=16, tie_word_embeddings=False, activation_function="gelu"),
        5,
    ),
    "relu-scaled": (
        dict(
            n_layer=3,
            n_head=1,
            n_embd=12,
            activation_function="relu",
            scale_attn_by_inverse_layer_idx=True,
            layer_norm_epsilon=1e-3,
        ),
        10,
    ),
    "unscaled": (dict(n_layer=1, n_head=5, n_embd=20, scale_attn_weights=False), 5),
    "large-weights": (
        dict(n_layer=3, n_head=4, n_embd=24),
        50,
    ),  # scores in the hundreds: softmax saturates
}


def random_model(config: GPT2Config, growth: float, seed: int) -> GPT2:
    """A model with nothing left at its start: norms and biases random too, all weights `growth`
    times larger."""
    rng = np.random.default_rng(seed)
    parameters = {
        name: (
            1.0 * name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))
            + 0.02 * growth * rng.standard_normal(shape)
        )
        for name, shape in config.parameter_shapes().items()
    }
    return GPT2(config, {name: array.astype(np.float32) for name, array in parameters.items()})


def make(name: str) -> None:
    if name in RANDOM:
        folder, (shape, growth) = HERE / name, RANDOM[name]
        seed = list(RANDOM).index(name)
        random_model(GPT2Config(**SMALL, **shape), growth, seed).save_pretrained(folder, np.float16)
        reference = record(
            folder, np.random.default_rng(seed).integers(0, SMALL["vocab_size"], (2, 7))
        )
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
