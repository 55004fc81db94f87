"""The shape of a Llama, under Hugging Face's own names; the letters beside them are those of
sizes.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

from ...errors import InputError
from ...layers.feed_forward import gated_width
from ...layers.rope import check_within, rope_of, scaling_of
from ...machine.forms import build, check, short
from ...sizes import Sizes
from ..family import Parameter, check_causal, check_counts, check_ends
from .layout import parameters

WHOLE = (  # fields that count something
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
ABSENT: dict[str, Any] = {  # what transformers takes for what a config.json of Llama does not say
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
REFUSED = {  # what a config.json may ask for, and why it is refused
    "quantization_config": "minillm reads floating-point numbers",
    "use_sliding_window": "minillm's models see everything before",
    "rope_interleaved": "minillm pairs the two halves of a head",
}


@dataclass(frozen=True)
class LlamaConfig:
    """What config.json says of a Llama; the defaults are SmolLM2-135M's. Raises InputError on what
    cannot be.

    absent: what transformers takes for what a config.json does not say.
    """

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    absent = ABSENT

    vocab_size: int = 49152  # V
    hidden_size: int = 576  # C
    intermediate_size: int | None = None  # F; None means 8/3 C, in whole 32s
    num_hidden_layers: int = 30  # L
    num_attention_heads: int = 9  # H
    num_key_value_heads: int | None = 3  # K; None means H
    head_dim: int | None = None  # D; None means C / H
    max_position_embeddings: int = 8192  # P
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    rope_theta: float = 100000.0
    rope_scaling: dict[str, Any] | None = field(default=None, hash=False)  # linear, llama3
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = field(
        default=None, hash=False
    )  # each of several ends a text
    generation: dict[str, Any] | None = field(
        default=None, compare=False
    )  # what generation_config.json says

    def __post_init__(self) -> None:
        check(vars(self), LlamaConfig)
        check_ends(self.eos_token_id)
        if self.num_key_value_heads is None:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        check_counts(self, WHOLE, "num_hidden_layers")
        H, K = self.num_attention_heads, self.num_key_value_heads or 0
        if H % K:
            raise InputError(
                f"num_attention_heads {H} cannot share num_key_value_heads {K} equally"
            )
        if self.head_dim is None and self.hidden_size % H:
            raise InputError(
                f"hidden_size {self.hidden_size} cannot be split into num_attention_heads {H} equal"
                " heads"
            )
        if self.head_dim is None:
            object.__setattr__(self, "head_dim", self.hidden_size // H)
        if self.intermediate_size is None:
            object.__setattr__(self, "intermediate_size", gated_width(self.hidden_size))
        if (D := self.head_dim or 0) % 2:
            raise InputError(f"head_dim is {D}; rotation needs pairs, an even number")
        if self.hidden_act == "swish":  # the same by its older name
            object.__setattr__(self, "hidden_act", "silu")
        if self.hidden_act != "silu":
            raise InputError(f"hidden_act is {short(self.hidden_act)}; {self.model_type} has silu")
        if not 0 <= self.rms_norm_eps < 1:
            raise InputError(f"rms_norm_eps is {self.rms_norm_eps}; it must be in [0, 1)")
        check_within("rope_theta", self.rope_theta)
        scaling_of(self.rope_scaling)

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

    @property
    def biased(self) -> set[str]:
        """The matrices of a block that have a bias."""
        return {f"self_attn.{part}_proj" for part in "qkvo" if self.attention_bias} | {
            f"mlp.{part}_proj" for part in ("gate", "up", "down") if self.mlp_bias
        }

    def resized(self, **letters: int) -> LlamaConfig:
        """The config with other sizes: L, F, H and K, D."""
        names = {
            "L": "num_hidden_layers",
            "F": "intermediate_size",
            "H": "num_attention_heads",
            "K": "num_key_value_heads",
            "D": "head_dim",
        }
        fields: dict[str, Any] = {names[letter]: n for letter, n in letters.items()}
        return dataclasses.replace(self, **fields)

    def attention_scale(self, layer: int) -> float:
        """The factor on q k^T: 1/sqrt(D). A Python float: keeps dtypes."""
        return float(self.sizes.D**-0.5)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what a Hugging Face config.json holds, as transformers 4 or 5 writes it; what cannot
        be honoured is refused by name."""
        values = {n: v for n, v in check(values, dict).items() if n != "generation"}
        if (said := values.get("model_type", cls.model_type)) != cls.model_type:
            raise InputError(f"model_type is {short(said)}; this reads {cls.model_type!r}")
        for name, why in REFUSED.items():
            if values.get(name):
                raise InputError(f"{name} is {short(values[name])}; {why}")
        check_causal(values)
        for kind in check(values.get("layer_types") or [], list[str], "layer_types"):
            if kind != "full_attention":
                raise InputError(f"layer_types has {short(kind)}; minillm reads full_attention")
        values = cls.absent | values
        values["rope_theta"], values["rope_scaling"] = rope_of(values)
        return build(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Return what Hugging Face's config.json holds, for transformers 4 and 5."""
        values = {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            **dataclasses.asdict(self),
        }
        del values["generation"]
        rope = {"rope_type": "default", **(self.rope_scaling or {}), "rope_theta": self.rope_theta}
        return values | {"rope_parameters": rope}


@lru_cache  # asked for at every token
def _sizes(config: LlamaConfig) -> Sizes:
    return Sizes(
        V=config.vocab_size,
        P=config.max_position_embeddings,
        L=config.num_hidden_layers,
        C=config.hidden_size,
        H=config.num_attention_heads,
        K=config.num_key_value_heads or 0,  # never None: __post_init__ sets all three
        D=config.head_dim or 0,
        F=config.intermediate_size or 0,
    )


_layout = lru_cache(parameters)
