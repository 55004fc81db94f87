"""What minillm 0.1.0 wrote of models: quantised folders, adapters, a reference; and the logits that
it computed with them.

    git worktree add ../old 16fb6f9
    PYTHONPATH=../old python tests/data/v0_1/make_models.py

The model has 9,000 random parameters. `record` needs torch and transformers.
"""

from pathlib import Path

import numpy as np

import minillm
from minillm import GPT2, GPT2Config
from minillm.reference import record
from minillm.training.lora import save_adapters, with_adapters

HERE = Path(__file__).parent
CONFIG = GPT2Config(vocab_size=70, n_positions=8, n_embd=32, n_layer=1, n_head=2, n_inner=32)
IDS = [3, 1, 4, 1, 5]

if __name__ == "__main__":
    assert minillm.__version__ == "0.1.0", minillm.__version__
    rng, logits = np.random.default_rng(0), {}

    def numbers(*shape):
        return rng.standard_normal(shape, np.float32) / 4

    model = GPT2(CONFIG, {n: numbers(*shape) for n, shape in CONFIG.parameter_shapes().items()})
    model.save_pretrained(HERE / "model", "float16")
    model = GPT2.from_pretrained(HERE / "model", kernels="numpy")
    logits["model"] = model(IDS)
    for kind in ("int8", "int4", "int4_min"):
        model.quantize(kind).save_pretrained(HERE / kind)
        logits[kind] = GPT2.from_pretrained(HERE / kind, kernels="numpy")(IDS)

    adapted = with_adapters(model, 2, matrices="c_attn,mlp.c_proj")
    for weight in adapted.parameters.values():
        if hasattr(weight, "lora_b"):
            weight.lora_b[:] = numbers(*weight.lora_b.shape)
    save_adapters(adapted, HERE / "adapters")
    logits["adapters"] = adapted(IDS)

    record(HERE / "model", [IDS], 3).save(HERE / "model" / "reference.npz")
    np.savez_compressed(HERE / "logits.npz", **logits)
