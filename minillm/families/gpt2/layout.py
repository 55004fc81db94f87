"""What a GPT-2 consists of, each thing once: its parameters, its steps, its names elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...costs import ACTIVATION_FLOPS, Cost, Work
from ..family import POSITIONS, TABLE, Parameter, StepInfo, matrix, per_layer, vector

if TYPE_CHECKING:
    from .config import GPT2Config

KNOBS = {  # a training run has GPT-2's own names
    name: name for name in ("n_layer", "n_head", "n_embd", "n_inner", "n_positions", "vocab_size")
}
BLOCK = {
    "ln_1.weight": vector("C", "ln_1", "ones"),
    "ln_1.bias": vector("C", "ln_1"),
    "attn.c_attn.weight": matrix("C", "HD KD KD", "attn.c_attn"),
    "attn.c_attn.bias": vector("HD KD KD", "attn.c_attn"),
    "attn.c_proj.weight": matrix("HD", "C", "attn.out", "residual"),
    "attn.c_proj.bias": vector("C", "attn.out"),
    "ln_2.weight": vector("C", "ln_2", "ones"),
    "ln_2.bias": vector("C", "ln_2"),
    "mlp.c_fc.weight": matrix("C", "F", "mlp.c_fc"),
    "mlp.c_fc.bias": vector("F", "mlp.c_fc"),
    "mlp.c_proj.weight": matrix("F", "C", "mlp.out", "residual"),
    "mlp.c_proj.bias": vector("C", "mlp.out"),
}


def parameters(config: GPT2Config) -> dict[str, Parameter]:
    """Every parameter by its checkpoint name; a tied head is the token table itself."""
    return {
        "wte.weight": Parameter(TABLE, ("V", "C"), "wte"),
        "wpe.weight": Parameter(POSITIONS, ("P", "C"), "wpe"),
        **{f"h.{i}.{name}": p for i in range(config.n_layer) for name, p in BLOCK.items()},
        "ln_f.weight": vector("C", "ln_f", "ones"),
        "ln_f.bias": vector("C", "ln_f"),
        **({} if config.tied else {"lm_head.weight": Parameter(TABLE, ("V", "C"), "logits")}),
    }


def steps(config: GPT2Config) -> dict[str, StepInfo]:
    """Every step of a pass, in order; a step's name follows the checkpoint's."""
    activation = ACTIVATION_FLOPS[config.activation_function]
    S = StepInfo

    def product(n_in: str, n_out: str) -> Callable[[Work], Cost]:
        return lambda w: w.linear(n_in, n_out)

    before = {
        "wte": S("tokens", lambda w: w.lookup(stored=True), hook="> transformer.wte"),
        "wpe": S("positions", lambda w: w.lookup(), hook="> transformer.wpe"),
        "embed": S("sum", lambda w: w.elementwise(1, "C", 3), hook="< transformer.h.0"),
    }
    block = {
        "ln_1": S("norm", lambda w: w.layer_norm(), True, hook="> ln_1"),
        "attn.c_attn": S("qkv", product("C", "HD KD KD"), True, True, "> attn.c_attn"),
        "attn.q": S("q"),  # views of c_attn's result
        "attn.k": S("k"),
        "attn.v": S("v"),
        "attn.scores": S("scores", lambda w: w.scores()),
        "attn.weights": S("softmax", lambda w: w.softmax_of_scores(), True),
        "attn.context": S("context", lambda w: w.context(), True, True, "< attn.c_proj"),
        "attn.out": S("projection", product("HD", "C"), True, True, "> attn.c_proj"),
        "attn.residual": S("residual", lambda w: w.elementwise(1, "C", 3), hook="< ln_2"),
        "ln_2": S("norm", lambda w: w.layer_norm(), True, hook="> ln_2"),
        "mlp.c_fc": S("expand", product("C", "F"), True, True, "> mlp.c_fc"),
        "mlp.act": S(
            "activate",
            lambda w: w.elementwise(activation, "F", 2),
            True,
            hook="> mlp.act",
        ),
        "mlp.out": S("contract", product("F", "C"), True, True, "> mlp.c_proj"),
        "mlp.residual": S("residual", lambda w: w.elementwise(1, "C", 3), hook=">"),
    }
    after = {
        "ln_f": S("norm", lambda w: w.layer_norm(w.last), True, hook="> transformer.ln_f"),
        "logits": S(
            "logits",
            lambda w: w.linear("C", "V", bias=False, rows=w.last),
            True,
            True,
            "> lm_head",
        ),
    }
    return before | per_layer(block, config.n_layer, "transformer.h.{}") | after


def equations(config: GPT2Config) -> dict[str, tuple[str, str]]:
    """What GPT-2's own steps compute, and their shapes in letters."""
    norm = "(x − mean) / √(variance + ε) · weight + bias"
    plain = config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
    thirds = {f"attn.{part}": ("a third of c_attn, by head", "B H T D") for part in "qkv"}
    return {
        "wpe": ("table[positions]", "B T C"),
        "embed": ("wte + wpe", "B T C"),
        **{name: (norm, "B T C") for name in ("ln_1", "ln_2", "ln_f")},
        "attn.c_attn": ("ln_1 W + b", "B T 3C"),
        **thirds,
        **({} if plain else {"attn.scores": ("q kᵀ · scale", "B H T S")}),
        "attn.out": ("context W + b", "B T C"),
        "mlp.c_fc": ("ln_2 W + b", "B T F"),
        "mlp.act": (f"{config.activation_function}(c_fc)", "B T F"),
        "mlp.out": ("act W + b", "B T C"),
    }


def projections(seen: Mapping[str, Any], i: int) -> Any:
    """q, k and v [B,T,heads D] of layer i, of what transformers' modules gave: three parts of
    c_attn's result."""
    return seen[f"h.{i}.attn.c_attn"].chunk(3, dim=-1)


def inexpressible(engine: str, config: GPT2Config) -> str | None:
    """Why llama.cpp or CTranslate2 has no such GPT-2, or None."""
    known = {"llama.cpp": ("gelu_new",), "CTranslate2": ("gelu_new", "gelu", "relu")}[engine]
    if config.activation_function not in known:
        return f"with activation_function {config.activation_function!r}"
    if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx:
        return "whose attention scores are not divided by sqrt(D) alone"
    return None


# ---- its names in files of others; {} is the layer


def canonical(name: str, config: GPT2Config) -> str | None:
    """Our name of a parameter as Hugging Face's files may call it; None for the causal masks that
    old files hold.

    The prefix `transformer.` may be there or not. A tied head is the token table, under either
    name.
    """
    name = name.removeprefix("transformer.")
    if name.endswith((".attn.bias", ".attn.masked_bias")):
        return None
    return "wte.weight" if name == "lm_head.weight" and config.tied else name


def stored(name: str) -> str:
    """What transformers calls a parameter in its files."""
    return name if name.startswith("lm_head.") else f"transformer.{name}"


GGUF = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "h.{}.ln_1": "blk.{}.attn_norm",
    "h.{}.attn.c_attn": "blk.{}.attn_qkv",
    "h.{}.attn.c_proj": "blk.{}.attn_output",
    "h.{}.ln_2": "blk.{}.ffn_norm",
    "h.{}.mlp.c_fc": "blk.{}.ffn_up",
    "h.{}.mlp.c_proj": "blk.{}.ffn_down",
    "ln_f": "output_norm",
    "lm_head": "output",
}
CTRANSLATE2 = {  # attributes of its TransformerDecoderSpec
    "wte": "embeddings",
    "wpe": "position_encodings",
    "h.{}.ln_1": "layer.{}.self_attention.layer_norm",
    "h.{}.attn.c_attn": "layer.{}.self_attention.linear.0",
    "h.{}.attn.c_proj": "layer.{}.self_attention.linear.1",
    "h.{}.ln_2": "layer.{}.ffn.layer_norm",
    "h.{}.mlp.c_fc": "layer.{}.ffn.linear_0",
    "h.{}.mlp.c_proj": "layer.{}.ffn.linear_1",
    "ln_f": "layer_norm",
    "lm_head": "projection",
}
