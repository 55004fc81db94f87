"""The shape of a model between GPT-2 and Llama, and which of Llama's ideas it has; names are
GPT-2's, the letters beside them those of sizes.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ...errors import InputError
from ...layers.feed_forward import gated_width
from ...layers.rope import check_within
from ...machine.forms import build, check
from ...sizes import Sizes
from ..family import Parameter, check_counts, check_ends, none_means
from .layout import parameters

WHOLE = (
    "vocab_size",
    "n_positions",
    "n_embd",
    "n_layer",
    "n_head",
    "n_kv_head",
    "n_inner",
    "head_size",
)


@dataclass(frozen=True)
class BetweenConfig:
    """A shape, and the ideas as flags; the head is always the token table. Raises InputError on
    what cannot be."""

    vocab_size: int = 4096  # V
    n_positions: int = 512  # P
    n_embd: int = 128  # C
    n_layer: int = 2  # L
    n_head: int = 4  # H
    n_kv_head: int | None = none_means("n_head")  # K
    n_inner: int | None = none_means("4 n_embd; gated, 8/3 n_embd in whole 32s")  # F
    head_size: int | None = none_means("n_embd / n_head")  # D
    rms_norm: bool = False
    rope: bool = False
    swiglu: bool = False
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = field(default=None, hash=False)
    generation: dict[str, Any] | None = field(
        default=None, compare=False
    )  # what generation_config.json says

    tied = True  # the head is the token table itself

    def __post_init__(self) -> None:
        check(vars(self), BetweenConfig)
        check_ends(self.eos_token_id)
        check_counts(self, WHOLE, "n_layer")
        if self.head_size is None and self.n_embd % self.n_head:
            raise InputError(
                f"n_embd {self.n_embd} cannot be split into n_head {self.n_head} equal heads"
            )
        s = self.sizes
        if s.H % s.K:
            raise InputError(f"n_head {s.H} cannot share n_kv_head {s.K} equally")
        if self.rope and s.D % 2:
            raise InputError(f"the head size is {s.D}; rotation needs pairs, an even number")
        check_within("rope_theta", self.rope_theta)
        if not 0 <= self.norm_epsilon < 1:
            raise InputError(f"norm_epsilon is {self.norm_epsilon}; it must be in [0, 1)")

    @property
    def sizes(self) -> Sizes:
        """The same in the letters that all families share."""
        return _sizes(self)

    @property
    def layout(self) -> dict[str, Parameter]:
        """What each parameter is, by its checkpoint name."""
        return _layout(self)

    def resized(self, **letters: int) -> BetweenConfig:
        """The config with other sizes: L, F, H and K, D."""
        names = {"L": "n_layer", "F": "n_inner", "H": "n_head", "K": "n_kv_head", "D": "head_size"}
        fields: dict[str, Any] = {names[letter]: n for letter, n in letters.items()}
        return dataclasses.replace(self, **fields)

    def attention_scale(self, layer: int) -> float:
        """The factor on q k^T: 1/sqrt(D). A Python float: keeps dtypes."""
        return float(self.sizes.D**-0.5)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BetweenConfig:
        """Read what config.json holds."""
        return build(cls, {name: v for name, v in values.items() if name != "generation"})

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds."""
        values = {"model_type": "between", **dataclasses.asdict(self)}
        del values["generation"]
        return values


@lru_cache  # asked for at every token
def _sizes(config: BetweenConfig) -> Sizes:
    return Sizes(
        V=config.vocab_size,
        P=config.n_positions,
        L=config.n_layer,
        C=config.n_embd,
        H=config.n_head,
        K=config.n_kv_head or config.n_head,
        D=config.head_size or config.n_embd // config.n_head,
        F=config.n_inner or (gated_width(config.n_embd) if config.swiglu else 4 * config.n_embd),
    )


_layout = lru_cache(parameters)
