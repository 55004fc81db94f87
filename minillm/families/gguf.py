"""What GGUF files, those of llama.cpp, say of a family: its names and its settings there.

Settings stand in the metadata under the architecture's name, as in "llama.block_count". Whatever
changes the computation and is not read is refused by its key. Source: the specification in ggml
(docs/gguf.md); llama.cpp, llama-model.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..machine.forms import short

HARMLESS = {  # of any architecture: they describe what the computation does not use
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_log_multiplier",
}

NODES = {  # what every family has; see GGUF
    "attn.scores": "kq:MUL_MAT",
    "attn.weights": "kq_soft_max:SOFT_MAX",
    "attn.context": "kqv:MUL_MAT kqv_out:CONT FLASH_ATTN_EXT",
    "attn.out": "attn_out:MUL_MAT attn.context>MUL_MAT attn_out:ADD attn.out>ADD",
    "attn.residual": "ffn_inp:ADD",
    "mlp.residual": "l_out:ADD",
    "logits": "result_output:MUL_MAT",
}


@dataclass(frozen=True)
class GGUF:
    """How a family's models stand in such files.

    architecture: general.architecture. read(settings) -> a config; write(config) -> {key without
    the architecture: value}. factors(config) -> what RoPE's frequencies are divided by, float32
    [D/2], where a tensor says it and no key; None elsewhere. paired: the parameters, without
    ".weight" and their layer, whose rows stand so that RoPE turns neighbours, 2i with 2i + 1, where
    ours are i and i + D/2. The names of tensors are Family.elsewhere["gguf"].
    nodes: the nodes of llama.cpp's graph that form each step, in order: "name:OPERATION"; an
    OPERATION whatever its name; or, of nodes without a name, "step>OPERATION", the step being the
    one that ended before. parts: the steps that lie in another's node.
    """

    architecture: str
    read: Callable[[Settings], Any]
    write: Callable[[Any], dict[str, Any]]
    factors: Callable[[Any], np.ndarray | None] = lambda config: None
    paired: tuple[str, ...] = ()
    nodes: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Settings:
    """The settings of one file: `metadata`, `shapes` {tensor: shape} and the numbers in `factors`,
    those of the tensor rope_freqs.weight, which is no parameter."""

    architecture: str
    metadata: Mapping[str, object]
    shapes: Mapping[str, tuple[int, ...]]
    factors: list[float] | None = None
    used: set[str] = field(default_factory=set)

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number; InputError where there is none, and no default."""
        return int(self._value(name, int, default))

    def real(self, name: str, default: float | None = None) -> float:
        """A number, as the shortest decimal that is the file's float32."""
        return float(str(np.float32(self._value(name, (float, int), default))))

    def text(self, name: str, default: str) -> str:
        return str(self._value(name, str, default))

    def _value(self, name: str, form: Any, default: Any) -> Any:
        key = f"{self.architecture}.{name}"
        self.used.add(key)
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, form):
            found = "missing" if value is None else short(value)
            raise InputError(f"the key {key} is {found}; minillm needs a {_word(form)}")
        return value

    @property
    def vocab_size(self) -> int:
        """V, of the token table; InputError where the key says another."""
        V = self.shapes.get("token_embd.weight", (0,))[0]
        if (said := self.whole("vocab_size", V)) != V:
            raise InputError(
                f"the key {self.architecture}.vocab_size is {short(said)}; token_embd.weight has"
                f" {V:,} rows"
            )
        return V

    def token(self, name: str) -> int | None:
        """The id of a special token of the tokenizer, or None."""
        value = self.metadata.get(f"tokenizer.ggml.{name}_token_id")
        return value if type(value) is int else None

    @property
    def ends(self) -> int | list[int] | None:
        """The tokens that end an answer."""
        known = [self.token(name) for name in ("eos", "eot", "eom")]
        ends = [*dict.fromkeys(i for i in known if i is not None)]
        return ends if len(ends) > 1 else next(iter(ends), None)

    def rest(self) -> None:
        """Refuse whatever the architecture's keys say and nobody has read."""
        begin = f"{self.architecture}."
        for key, value in self.metadata.items():
            harmless = key.removeprefix(begin) in HARMLESS or not value
            if key.startswith(begin) and key not in self.used and not harmless:
                raise InputError(f"the key {key} is {short(value)}; minillm does not know it")


def _word(form: Any) -> str:
    return {int: "whole number", str: "text"}.get(form, "number")
