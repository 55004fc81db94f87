"""The shape of a GPT-2, under GPT-2's own names; the letters beside them are those of sizes.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ...errors import InputError
from ...machine.forms import build, check, short
from ...sizes import Sizes
from ..family import Parameter, check_causal, check_ends, none_means
from .layout import parameters

ACTIVATIONS = ("gelu_new", "gelu", "relu")
SAME_ACTIVATION = {  # what transformers calls by other names and computes alike
    **dict.fromkeys(
        ("gelu_accurate", "gelu_fast", "gelu_python_tanh", "gelu_pytorch_tanh"), "gelu_new"
    ),
    "gelu_python": "gelu",
}


@dataclass(frozen=True)
class GPT2Config:
    """What config.json says of a GPT-2; the defaults are the 124M model's. Raises InputError on
    what cannot be."""

    vocab_size: int = 50257  # V
    n_positions: int = 1024
    n_embd: int = 768  # C
    n_layer: int = 12  # L
    n_head: int = 12  # H
    n_inner: int | None = none_means("4 n_embd")  # F
    # D; not GPT-2's: a model whose heads were pruned has H D < C
    head_size: int | None = none_means("n_embd / n_head")
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False  # scores in float32 at least: always so here
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[Any] | None = field(
        default=None, hash=False
    )  # each of several ends a text
    generation: dict[str, Any] | None = field(
        default=None, compare=False
    )  # what generation_config.json says

    def __post_init__(self) -> None:
        check(vars(self), GPT2Config)
        check_ends(self.eos_token_id)
        for name in (
            "vocab_size",
            "n_positions",
            "n_embd",
            "n_layer",
            "n_head",
            "n_inner",
            "head_size",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
            if value is not None and value > (most := 1000 if name == "n_layer" else 2**31 - 1):
                raise InputError(f"{name} is {short(value)}; minillm takes at most {most:,}")
        if self.head_size is None and self.n_embd % self.n_head:
            raise InputError(
                f"n_embd {self.n_embd} cannot be split into n_head {self.n_head} equal heads"
            )
        activation = SAME_ACTIVATION.get(self.activation_function, self.activation_function)
        object.__setattr__(self, "activation_function", activation)
        if activation not in ACTIVATIONS:
            raise InputError(
                f"activation_function {self.activation_function!r} is unknown; known:"
                f" {', '.join(ACTIVATIONS)}"
            )
        if not 0 <= self.layer_norm_epsilon < 1:
            raise InputError(
                f"layer_norm_epsilon is {self.layer_norm_epsilon}; it must be in [0, 1)"
            )

    @property
    def sizes(self) -> Sizes:
        """The same in the letters that all families share."""
        return _sizes(self)

    @property
    def layout(self) -> dict[str, Parameter]:
        """What each parameter is, by its checkpoint name."""
        return _layout(self)

    @property
    def tied(self) -> bool:
        """Whether the head is the token table itself."""
        return self.tie_word_embeddings

    def resized(self, **letters: int) -> GPT2Config:
        """The config with other sizes: L, F, or D, H and K, which are equal."""
        names = {"L": "n_layer", "F": "n_inner", "H": "n_head", "D": "head_size"}
        fields: dict[str, Any] = {
            names[letter]: size for letter, size in letters.items() if letter != "K"
        }
        return dataclasses.replace(self, **fields)

    @property
    def head_dim(self) -> int:
        """D, the size of one head."""
        return self.head_size if self.head_size is not None else self.n_embd // self.n_head

    @property
    def hidden_dim(self) -> int:
        """F, the hidden size of the feed forward."""
        return self.n_inner if self.n_inner is not None else 4 * self.n_embd

    def attention_scale(self, layer: int) -> float:
        """The factor on q k^T in one layer: 1/sqrt(D), unless the config says otherwise. A Python
        float: keeps dtypes."""
        scale = self.head_dim**-0.5 if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GPT2Config:
        """Read what a Hugging Face config.json holds; training-only entries are ignored, other
        models refused."""
        check(values, dict)
        if values.get("model_type", "gpt2") != "gpt2":
            raise InputError(f"model_type is {short(values['model_type'])}; minillm reads 'gpt2'")
        check_causal(values)
        if values.get("add_cross_attention"):
            raise InputError("add_cross_attention is true; minillm has no cross-attention")
        return build(cls, {name: v for name, v in values.items() if name != "generation"})

    def to_dict(self) -> dict[str, Any]:
        """Return what Hugging Face's config.json holds."""
        values = {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            **dataclasses.asdict(self),
        }
        del values["generation"]
        return {
            name: value
            for name, value in values.items()
            if name != "head_size" or value is not None
        }

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter by its checkpoint name, matrices as [in, out], tables
        as [rows, C]."""
        return {name: p.shape(self.sizes) for name, p in self.layout.items()}


@lru_cache  # asked for at every token
def _sizes(config: GPT2Config) -> Sizes:
    return Sizes(
        V=config.vocab_size,
        P=config.n_positions,
        L=config.n_layer,
        C=config.n_embd,
        H=config.n_head,
        K=config.n_head,
        D=config.head_dim,
        F=config.hidden_dim,
    )


_layout = lru_cache(parameters)
