"""What a model between GPT-2 and Llama consists of: GPT-2's names, and Llama's for what only Llama
has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...costs import ACTIVATION_FLOPS, Cost, Work
from ..family import POSITIONS, TABLE, Parameter, StepInfo, matrix, per_layer, vector

KNOBS = {  # settings of a training run have the same names
    name: name
    for name in (
        "n_layer",
        "n_head",
        "n_kv_head",
        "n_embd",
        "n_inner",
        "n_positions",
        "rms_norm",
        "rope",
        "swiglu",
        "rope_theta",
        "vocab_size",
    )
}


def parameters(config: Any) -> dict[str, Parameter]:
    """Every parameter by its name; the head is the token table itself."""

    def norm(name: str) -> dict[str, Parameter]:
        bias = {} if config.rms_norm else {f"{name}.bias": vector("C", name)}
        return {f"{name}.weight": vector("C", name, "ones"), **bias}

    def linear(name: str, bias: bool, *of: str) -> dict[str, Parameter]:
        weight = matrix(*of)
        biases = {f"{name}.bias": vector(weight.axes[1], weight.forms)} if bias else {}
        return {f"{name}.weight": weight, **biases}

    attention = {
        **linear("attn.c_attn", not config.rope, "C", "HD KD KD", "attn.c_attn"),
        **linear("attn.c_proj", not config.rope, "HD", "C", "attn.out", "residual"),
    }
    if config.swiglu:
        feed_forward = {
            **linear("mlp.gate_proj", False, "C", "F", "mlp.gate"),
            **linear("mlp.up_proj", False, "C", "F", "mlp.up"),
            **linear("mlp.down_proj", False, "F", "C", "mlp.out", "residual"),
        }
    else:
        feed_forward = {
            **linear("mlp.c_fc", True, "C", "F", "mlp.c_fc"),
            **linear("mlp.c_proj", True, "F", "C", "mlp.out", "residual"),
        }
    block = {**norm("ln_1"), **attention, **norm("ln_2"), **feed_forward}
    return {
        "wte.weight": Parameter(TABLE, ("V", "C"), "wte"),
        **({} if config.rope else {"wpe.weight": Parameter(POSITIONS, ("P", "C"), "wpe")}),
        **{f"h.{i}.{name}": p for i in range(config.n_layer) for name, p in block.items()},
        **norm("ln_f"),
    }


def steps(config: Any) -> dict[str, StepInfo]:
    """Every step of a pass, in order, under the names that GPT-2 and Llama have for it."""
    S = StepInfo

    def norm(w: Work, rows: int | None = None) -> Cost:
        return w.rms_norm(rows) if config.rms_norm else w.layer_norm(rows)

    def product(n_in: str, n_out: str, bias: bool) -> Callable[[Work], Cost]:
        return lambda w: w.linear(n_in, n_out, bias)

    def elementwise(flops: int, axis: str, arrays: int) -> Callable[[Work], Cost]:
        return lambda w: w.elementwise(flops, axis, arrays)

    before = {"wte": S("tokens", lambda w: w.lookup(stored=True))}
    if config.rope:
        before["embed"] = S("tokens")  # the same
    else:
        before["wpe"] = S("positions", lambda w: w.lookup())
        before["embed"] = S("sum", elementwise(1, "C", 3))
    biased = not config.rope
    block = {
        "ln_1": S("norm", norm, True),
        "attn.c_attn": S("qkv", product("C", "HD KD KD", biased), True, True),
        **{f"attn.{name}": S(name) for name in "qkv"},  # views of c_attn's result
    }
    if config.rope:  # two products and a sum a number
        block["attn.q_rotated"] = S("rotate q", elementwise(3, "HD", 2))
        block["attn.k_rotated"] = S("rotate k", elementwise(3, "KD", 2))
    block |= {
        "attn.scores": S("scores", lambda w: w.scores()),
        "attn.weights": S("softmax", lambda w: w.softmax_of_scores(), True),
        "attn.context": S("context", lambda w: w.context(), True, True),
        "attn.out": S("projection", product("HD", "C", biased), True, True),
        "attn.residual": S("residual", elementwise(1, "C", 3)),
        "ln_2": S("norm", norm, True),
    }
    if config.swiglu:
        gated = ACTIVATION_FLOPS["silu"] + 1
        block["mlp.gate"] = S("gate", product("C", "F", False), True)
        block["mlp.up"] = S("up", product("C", "F", False), True, True)
        block["mlp.act"] = S("activate", elementwise(gated, "F", 3), True)
    else:
        gelu = ACTIVATION_FLOPS["gelu_new"]
        block["mlp.c_fc"] = S("expand", product("C", "F", True), True, True)
        block["mlp.act"] = S("activate", elementwise(gelu, "F", 2), True)
    block |= {
        "mlp.out": S("contract", product("F", "C", not config.swiglu), True, True),
        "mlp.residual": S("residual", elementwise(1, "C", 3)),
    }
    after = {
        "ln_f": S("norm", lambda w: norm(w, w.last), True),
        "logits": S(
            "logits",
            lambda w: w.linear("C", "V", bias=False, rows=w.last),
            True,
            True,
        ),
    }
    return before | per_layer(block, config.n_layer, "") | after


def equations(config: Any) -> dict[str, tuple[str, str]]:
    """What its own steps compute, and their shapes in letters."""
    norm = "x / √(mean(x²) + ε) · weight"
    if not config.rms_norm:
        norm = "(x - mean) / √(variance + ε) · weight + b"
    bias, feed = "" if config.rope else " + b", "" if config.swiglu else " + b"
    found = {
        "wpe": ("positions' table[position]", "T C"),
        "embed": ("wte" if config.rope else "wte + wpe", "B T C"),
        **dict.fromkeys(("ln_1", "ln_2", "ln_f"), (norm, "B T C")),
        "attn.c_attn": (f"ln_1 W{bias}", "B T (H+2K)D"),
        "attn.out": (f"context W{bias}", "B T C"),
        "mlp.c_fc": ("ln_2 W + b", "B T F"),
        "mlp.gate": ("ln_2 W", "B T F"),
        "mlp.up": ("ln_2 W", "B T F"),
        "mlp.act": ("silu(gate) · up" if config.swiglu else "gelu(c_fc)", "B T F"),
        "mlp.out": (f"act W{feed}", "B T C"),
    }
    for name, heads in (("q", "H"), ("k", "K"), ("v", "K")):
        found[f"attn.{name}"] = (f"part {name} of c_attn", f"B {heads} T D")
        turned = f"{name} turned by its position, two numbers at a time"
        found[f"attn.{name}_rotated"] = (turned, f"B {heads} T D")
    return found
