"""What a family of models declares, once: its parameters, its steps, and what computes them.

`register` makes a family known; `of(config)` and `described(config_json)` find it. Costs,
predictions, storage, quantising, pruning, LoRA, the optimiser's groups and the
reference's hooks follow from the declaration by role, so that another family is another folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..costs import Cost, Work
from ..errors import InputError, whole_number
from ..kernels.program import Program
from ..machine.files import read_json
from ..machine.forms import check, short
from ..sizes import Sizes
from ..steps import Step
from .gguf import GGUF

TABLE, POSITIONS, MATRIX, VECTOR = "table", "positions", "matrix", "vector"


@dataclass(frozen=True)
class Parameter:
    """One array of a checkpoint.

    role: "table" [V,C], looked up by row and multiplied by when transposed; "positions" [P,C],
    looked up only; "matrix" [in,out], of a linear map; "vector". axes: what each axis counts, in
    the letters of sizes.py; several with blanks lie side by side ("HD KD KD" for q | k | v).
    forms: the step that it forms, without its layer. start: how it begins untrained: "normal",
    N(0, 0.02^2); "residual", that divided by sqrt(2 L); "zeros"; "ones".
    """

    role: str
    axes: tuple[str, ...]
    forms: str
    start: str = "normal"

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        """The shape of the array."""
        return tuple(map(sizes.width, self.axes))

    @property
    def parts(self) -> int:
        """How many matrices lie side by side along the last axis."""
        return len(self.axes[-1].split())


def matrix(n_in: str, n_out: str, forms: str, start: str = "normal") -> Parameter:
    """A linear map's matrix [in,out]."""
    return Parameter(MATRIX, (n_in, n_out), forms, start)


def vector(axis: str, forms: str, start: str = "zeros") -> Parameter:
    """A bias, or with start="ones" the weight of a norm."""
    return Parameter(VECTOR, (axis,), forms, start)


@dataclass(frozen=True)
class StepInfo:
    """One step that a pass forms; its name says of which phase it is (steps.phase_of).

    label: a word for tables. cost: of a pass; None where nothing is computed, as for views. calls:
    whether the readable forward calls a function of the twin for it. meets: whether the fused
    step's threads wait for one another after it. hook: which module of transformers forms it,
    "> path" as its output, "< path" as its input; None for what none does.
    """

    label: str
    cost: Callable[[Work], Cost] | None = None
    calls: bool = False
    meets: bool = False
    hook: str | None = None


def per_layer(block: Mapping[str, StepInfo], n: int, modules: str = "") -> dict[str, StepInfo]:
    """The steps of one block in each of n layers; their hooks are inside of transformers' module
    `modules`, {} being the layer."""

    def hooked(step: StepInfo, layer: int) -> StepInfo:
        if step.hook is None:
            return step
        side, _, path = step.hook.partition(" ")
        return replace(step, hook=f"{side} {modules.format(layer)}.{path}".rstrip("."))

    return {f"h.{i}.{name}": hooked(step, i) for i in range(n) for name, step in block.items()}


def none_means(what: str) -> Any:
    """A field of a config that is None unless given, and what that means, which info tells."""
    return field(default=None, metadata={"none": what})


def check_ends(eos_token_id: int | list[Any] | None) -> None:
    """Raise InputError unless each of several ends of a text is an id."""
    if isinstance(eos_token_id, list):
        for i in eos_token_id:
            whole_number("eos_token_id", i, least=0)


def check_causal(config_json: Mapping[str, Any]) -> None:
    """Raise InputError where transformers would let a position see what comes after it."""
    if config_json.get("is_causal") is False:
        raise InputError("is_causal is False; minillm's models see nothing of what comes after")


def check_counts(config: Any, names: Sequence[str], layers: str) -> None:
    """Raise InputError unless those of a config's fields that are given are from 1 to 2^31 - 1, the
    number of layers to 1000."""
    for name in names:
        value, most = getattr(config, name), 1000 if name == layers else 2**31 - 1
        if value is not None and not 1 <= value <= most:
            raise InputError(f"{name} is {short(value)}; it must be from 1 to {most:,}")


# What decoding adds to every pass that a token is chosen from.
CHOOSE = {
    "probs": StepInfo(  # softmax
        "probs", lambda w: w.elementwise(5, "V", 2, rows=w.batch), calls=True
    ),
    "next": StepInfo(  # log_softmax, and the largest of probs
        "next",
        lambda w: w.elementwise(6, "V", 2, rows=w.batch) + Cost(elements=w.batch),
        calls=True,
    ),
}

# What the steps that families share compute, and their shapes in the letters of sizes.py: for
# whoever shows them. x is what went in.
EQUATIONS = {
    "wte": ("table[ids]", "B T C"),
    "attn.scores": ("q kᵀ / √D", "B H T S"),
    "attn.weights": ("softmax(scores + mask)", "B H T S"),
    "attn.context": ("weights v", "B H T D"),
    "attn.residual": ("x + attn.out", "B T C"),
    "mlp.residual": ("x + mlp.out", "B T C"),
    "logits": ("ln_f headᵀ", "B T V"),
    "probs": ("softmax(filtered logits)", "V"),
    "next": ("the likeliest of probs, or one drawn from them", ""),
}


@dataclass(frozen=True)
class Family:
    """A family of models, as the rest of the package knows it.

    name: config.json's model_type; title: as a person writes it. architectures: what its
    `architectures` may say. config: the class of its configs, frozen dataclasses with the fields
    eos_token_id and `generation`, and `sizes`, `layout` {name: Parameter}, `tied`,
    attention_scale(layer), resized(**letters), to_dict() and from_dict(config_json). layers: what
    stands before a layer's number in the names of parameters, as in "h.".

    steps(config) -> {name: StepInfo}, in the order in which they are formed; from "wte" and "embed"
    to "ln_f" and "logits", a layer's under "h.3.ln_1", "h.3.attn.", "h.3.ln_2", "h.3.mlp.", of
    which ".attn.context", ".attn.out", ".mlp.act", ".mlp.out" and ".mlp.residual", a layer's
    result, are looked up by others. hidden(ids, weights, config, positions, cache, step, ops, keep)
    -> [B,T,C], and head(x, weights, step, ops) -> logits [B,T,V]; weights: the tree of the
    parameters (names.tree). backward(model, ids, positions, kept, d_logits, d_hidden, step) ->
    {parameter: its gradient}, from the gradient of the logits or that of what `hidden` returned;
    kept: the Trace of the forward. program(config, parameters): the forward for the fused step;
    None where the readable one alone serves. equations(config) -> {step without its layer: (what it
    computes, its shape in letters)}, beside EQUATIONS.

    In files and engines of others: canonical(name, config) -> our name of a parameter as stored, or
    None for what is no parameter; stored(name) -> what transformers' files call ours; turned:
    whether they hold matrices as [out,in]. elsewhere: {format: {name without ".weight": theirs}},
    {} being the layer; gguf: its settings there. projections(seen, layer) -> q, k, v as
    transformers' modules form them; turned_by_position(model, q, k) -> {q_rotated, k_rotated}, or
    {}. inexpressible(engine, config) -> what it is that another engine has none of, "with ...", or
    None.

    knobs: {setting of a training run: the config's field}, for what is to be trained from nothing.
    sized_by: the fields of which a config.json says at least one.
    """

    name: str
    title: str
    architectures: tuple[str, ...]
    config: Any
    layers: str
    steps: Callable[[Any], dict[str, StepInfo]]
    hidden: Callable[..., Any]
    head: Callable[..., Any]
    backward: Callable[..., dict[str, Any]]
    program: Callable[..., Program] | None = None
    canonical: Callable[[str, Any], str | None] = lambda name, config: name
    stored: Callable[[str], str] = lambda name: name
    turned: bool = False
    elsewhere: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    projections: Callable[..., Any] | None = None
    turned_by_position: Callable[..., dict[str, Any]] = lambda model, q, k: {}
    inexpressible: Callable[[str, Any], str | None] = lambda engine, config: "at all"
    gguf: GGUF | None = None
    equations: Callable[[Any], Mapping[str, tuple[str, str]]] = lambda config: {}
    knobs: Mapping[str, str] = field(default_factory=dict)
    sized_by: tuple[str, ...] = ()

    def name_elsewhere(self, form: str, scope: str) -> str:
        """The name in another format of a parameter without ".weight": h.3.attn.c_attn ->
        blk.3.attn_qkv."""
        layer, local = self.local_name(scope)
        known = self.elsewhere[form]
        return known[local] if layer is None else known[self.layer_name("{}", local)].format(layer)

    def forward(
        self,
        ids: Any,
        weights: Mapping[str, Any],
        config: Any,
        positions: Any,
        cache: Any,
        step: Step,
        ops: Any,
        keep: Any,
    ) -> Any:
        """ids, positions [B,T] -> logits [B,T,V], or those of the positions that `keep` picks."""
        x = self.hidden(ids, weights, config, positions, cache, step, ops, keep)
        return self.head(x, weights, step, ops)

    def shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter."""
        sizes = config.sizes
        return {name: p.shape(sizes) for name, p in config.layout.items()}

    def layer_name(self, layer: int | str, name: str) -> str:
        """The full name of a layer's parameter."""
        return f"{self.layers}{layer}.{name}"

    def local_name(self, name: str) -> tuple[int | None, str]:
        """The layer of a parameter, None outside of layers, and its name inside."""
        if not name.startswith(self.layers):
            return None, name
        number, _, local = name.removeprefix(self.layers).partition(".")
        return int(number), local

    def block_matrices(self, config: Any) -> tuple[str, ...]:
        """The matrices of one block, without their layer and ".weight"."""
        first = self.layer_name(0, "")
        return tuple(
            name.removeprefix(first).removesuffix(".weight")
            for name, p in config.layout.items()
            if p.role == MATRIX and name.startswith(first)
        )


def parse_config(values: Any, where: object) -> Any:
    """The config that the values of a config.json describe; InputError, beginning with `where`, for
    what minillm does not read, and where no size is said: defaults would be another model's."""
    values = check(values, dict, where)
    try:
        family = described(values)
        config = family.config.from_dict(values)
        if family.sized_by and values.keys().isdisjoint(family.sized_by):
            missing = ", ".join(("model_type",) * ("model_type" not in values) + family.sized_by)
            raise InputError(
                f"it says none of {missing}: a config must name its model's sizes, which are not"
                " guessed"
            )
        return config
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def read_config(folder: str | Path) -> Any:
    """The config of a folder's config.json, with what generation_config.json says beside it;
    InputError for what minillm does not read."""
    path, beside = Path(folder) / "config.json", Path(folder) / "generation_config.json"
    config = parse_config(read_json(path, dict), path)
    generation = read_json(beside, dict) if beside.exists() else None
    return replace(config, generation=generation)


_families: dict[type, Family] = {}


def register(family: Family) -> Family:
    """Make a family known by the class of its configs and by its name; returns it."""
    _families[family.config] = family
    return family


def of(config: object) -> Family:
    """The family of a config; InputError for what is none."""
    for cls in type(config).__mro__:
        if cls in _families:
            return _families[cls]
    raise InputError(f"a {type(config).__name__} is no config of a known family: {_names()}")


def known() -> list[Family]:
    """Every family that has been registered."""
    return [*_families.values()]


def described(config_json: dict[str, Any]) -> Family:
    """The family that a config.json describes, by `model_type`, without it by `architectures`;
    GPT-2 where it says neither. Raises InputError for another, by its name."""
    name, said = config_json.get("model_type"), config_json.get("architectures")
    classes = said if isinstance(said, list) else []
    if name is None and not classes:
        name = "gpt2"
    for family in _families.values():
        if name == family.name or (
            name is None and any(c in family.architectures for c in classes)
        ):
            return family
    what = f"architectures is {short(said)}" if name is None else f"model_type is {short(name)}"
    raise InputError(f"{what}; minillm reads {_names()}")


def by_gguf(architecture: str) -> Family:
    """The family whose models GGUF calls so; InputError for another, by its name."""
    known = {f.gguf.architecture: f for f in _families.values() if f.gguf}
    if architecture not in known:
        raise InputError(
            f"general.architecture is {short(architecture)}; minillm reads {', '.join(known)}"
        )
    return known[architecture]


def _names() -> str:
    """The families that others write, too."""
    return ", ".join(repr(family.name) for family in _families.values() if family.architectures)
