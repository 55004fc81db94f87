"""Every knob of a training run, with its default: a preset, a TOML file and flags set the same
names."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, require_one_of
from ..machine import files
from ..machine.forms import check, short

if TYPE_CHECKING:
    from ..families import Family

PRESETS = Path(__file__).parent / "presets"
FAMILIES = ("gpt2", "llama", "between")  # that have knobs; here: flags are made without NumPy


def knob(
    default,
    what: str,
    *,
    curve: bool = True,
    check=lambda value: True,
    allowed: str = "",
    choices: tuple[str, ...] | None = None,
):
    """A field with its explanation. curve: whether another value gives another loss curve, so that
    --resume refuses it. choices: the only values that it may have."""
    said = {"what": what, "curve": curve, "check": check, "allowed": allowed, "choices": choices}
    return field(default=default, metadata=said)


def at_least(least, what: str, default, **kwargs):
    return knob(
        default,
        what,
        check=lambda v: v >= least,
        allowed=f"at least {least}",
        **kwargs,
    )


def above_0(most, what: str, default, **kwargs):
    return knob(
        default,
        what,
        check=lambda v: 0 < v <= most,
        allowed=f"above 0, at most {most:g}",
        **kwargs,
    )


def one_of(names: tuple[str, ...], what: str, default):
    return knob(default, what, check=lambda v: v in names, allowed=", ".join(names), choices=names)


@dataclass(frozen=True)
class Plan:
    """What a Trainer must know. Raises InputError naming knob, value and what is allowed."""

    batch_size: int = at_least(1, "rows of a step", 16)
    accumulate: int = at_least(
        1, "parts that a step's rows are run in, one after another, to save memory", 1
    )
    steps: int = at_least(1, "steps", 1000)
    optimizer: str = one_of(
        ("adamw", "muon", "sgd"),
        "optimiser; muon is for the matrices inside the blocks, adamw the rest",
        "adamw",
    )
    lr: float = above_0(1000, "highest learning rate", 1e-3)
    warmup: int = at_least(0, "steps in which the learning rate rises", 100)
    schedule: str = one_of(
        ("cosine", "linear", "constant"), "how the learning rate falls", "cosine"
    )
    final_lr: float = knob(
        0.1,
        "learning rate at the end, as a part of lr",
        check=lambda v: 0 <= v <= 1,
        allowed="0 to 1",
    )
    weight_decay: float = knob(
        0.1,
        "decay of matrices (biases and norms have none)",
        check=lambda v: 0 <= v <= 1000,
        allowed="0 to 1000",
    )
    beta1: float = knob(
        0.9, "AdamW's memory for gradients", check=lambda v: 0 <= v < 1, allowed="0 to below 1"
    )
    beta2: float = knob(
        0.95, "AdamW's memory for their squares", check=lambda v: 0 <= v < 1, allowed="0 to below 1"
    )
    clip: float = above_0(1e30, "longest gradient, all together", 1.0)
    precision: str = one_of(
        ("float32", "bfloat16"),
        "numbers that are multiplied; sums and weights stay float32",
        "float32",
    )
    seed: int = at_least(0, "of the first weights, the order of the data, and samples", 1)
    log_every: int = at_least(1, "steps between two lines in metrics.jsonl", 10, curve=False)
    eval_every: int = at_least(1, "steps between two validations", 250, curve=False)
    checkpoint_every: int = at_least(1, "steps between two checkpoints", 100, curve=False)
    keep_checkpoints: int = at_least(
        1, "checkpoints to keep, the last one among them; 1 saves the disk", 2, curve=False
    )

    def __post_init__(self):
        check(vars(self), type(self))
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if value != value or (value is not None and not f.metadata["check"](value)):
                raise InputError(f"{f.name} is {short(value)}; it must be {f.metadata['allowed']}")
        if self.batch_size % self.accumulate:
            raise InputError(
                f"batch_size {self.batch_size} cannot be run in accumulate {self.accumulate} equal"
                " parts"
            )

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Settings(Plan):
    """All that decides the training of a language model, and how it reports."""

    family: str = one_of(FAMILIES, "family of the model", "gpt2")
    n_layer: int = at_least(1, "blocks", 4)
    n_head: int = at_least(1, "attention heads", 4)
    n_kv_head: int | None = at_least(
        1, "heads of keys and values that attention heads share; as many if not given", None
    )
    n_embd: int = at_least(1, "width", 128)
    n_inner: int | None = at_least(
        1,
        "hidden size of the feed forward; 4 n_embd if not given, 8/3 of it where it is gated",
        None,
    )
    n_positions: int = at_least(2, "most positions the model can see", 256)
    rope_theta: float = knob(
        10000.0,
        "base of the rotation",
        check=lambda v: 1e-6 <= v <= 1e12,  # as layers/rope.py has it, which needs NumPy
        allowed="1e-06 to 1e+12",
    )
    rms_norm: bool = knob(False, "of family between: RMSNorm, without biases")
    rope: bool = knob(False, "of family between: rotation instead of a table of positions")
    swiglu: bool = knob(False, "of family between: a gated feed forward")
    vocab_size: int = at_least(257, "tokens of the tokenizer that is trained on the text", 2048)
    context: int | None = at_least(
        1, "positions of a training window; all that the model has if not given", None
    )
    recompute: bool = knob(
        False,
        "keep only what enters each block, and form the rest again: less memory, more time",
        curve=False,
    )
    val_fraction: float = knob(
        0.05,
        "part of the documents kept for validation, where there is no val.txt",
        check=lambda v: 0 < v < 1,
        allowed="0 to 1",
    )
    lora_rank: int = at_least(
        0, "rank of LoRA adapters, which alone are trained then; 0 trains everything", 0
    )
    lora_alpha: float = above_0(1e6, "adapters count alpha / rank times", 16.0)
    lora_matrices: str = knob(
        "", "names of the matrices with adapters, as in c_attn,c_proj; none: those of q, k and v"
    )
    eval_tokens: int = at_least(
        1, "tokens of a validation; all of them at the end", 50_000, curve=False
    )
    sample_every: int = at_least(1, "steps between two samples of text", 500, curve=False)
    sample_prompt: str = knob("Once upon a time", "what samples begin with", curve=False)
    save_dtype: str = one_of(
        ("float32", "float16", "bfloat16"), "numbers in the finished model's file", "float32"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.context is not None and self.context > self.n_positions:
            raise InputError(
                f"context is {self.context}; the model has n_positions {self.n_positions}"
            )

    @property
    def window(self) -> int:
        """T, the positions of one training window."""
        return self.context or self.n_positions

    def model_config(self, vocab_size: int, eot_id: int | None) -> Any:
        """The config of the family's model of this shape, for a tokenizer; InputError for a setting
        that the family has not."""
        from .. import families  # here: flags are made without NumPy

        family: Family = next(f for f in families.known() if f.name == self.family)
        others = of_others(self.family)
        for f in dataclasses.fields(self):
            if f.name in others and (value := getattr(self, f.name)) != f.default:
                raise InputError(f"{f.name} is {value}; {family.title} has no such setting")
        fields = {field: getattr(self, name) for name, field in family.knobs.items()}
        ends = {"bos_token_id": eot_id, "eos_token_id": eot_id}
        sampled = {"do_sample": True, "temperature": 1.0, "min_p": 0.05}
        size = {family.knobs["vocab_size"]: vocab_size}
        return family.config(**fields | size | ends, generation=ends | sampled)


def of_others(family: str) -> set[str]:
    """The settings that other families have and this one has not."""
    from .. import families  # here: flags are made without NumPy

    knobs = {f.name: {*f.knobs} for f in families.known()}
    return set().union(*knobs.values()) - knobs[family]


def presets() -> list[str]:
    """The names of the settings that come with minillm."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_toml(path: Path) -> dict:
    """Return the knobs that a TOML file sets; InputError naming the file and what it cannot be."""
    values, known = files.read_toml(path, Settings), [f.name for f in dataclasses.fields(Settings)]
    if unknown := [name for name in values if name not in known]:
        raise InputError(f"{path}: {short(unknown[0])} is no setting; known: {', '.join(known)}")
    return values


def settings(preset: str | None = None, file: Path | None = None, **flags) -> Settings:
    """Return the Settings of a preset, changed by a TOML file, changed by `flags`."""
    values: dict = {}
    if preset is not None:
        require_one_of("preset", preset, presets())
        values |= read_toml(PRESETS / f"{preset}.toml")
    if file is not None:
        values |= read_toml(file)
    return Settings(**values | flags)
