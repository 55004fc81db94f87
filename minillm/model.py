"""A model: a family's forward, a config, parameters by their checkpoint names, and the twin that
computes.

`Model` is what every family has in common: calling it, its cache, tracing, changed copies. `GPT2`
is the one that a class builds. What GPT-2 computes stands in families/gpt2/forward.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from . import families, moved
from . import ops as numpy_ops
from .checkpoints.checkpoint import Checkpoint, Unread, dtype_name
from .errors import InputError, require, require_kind, short, whole_number
from .families.family import MATRIX, TABLE, Parameter
from .families.gpt2.config import GPT2Config
from .families.llama.config import LlamaConfig
from .families.llama.qwen import Qwen2Config, Qwen3Config
from .ids import checked_ids
from .layers.cache import KVCache, check_fits, float_type
from .machine.quota import require_memory
from .names import tree
from .parameters import Parameters, check_shapes, check_types
from .steps import Observer, Step, Trace, checked, identity
from .twins.choose import twin
from .twins.portable import Portable
from .twins.threads import keep_to_quota
from .twins.twin import Twin, abilities
from .weights import KINDS, Weight, like, owned, read_only
from .weights.implicit import Implicit
from .weights.weight import narrowed


class Model:
    """`model(ids)` gives logits; `parameters` is {checkpoint name: array or Weight}, or what a
    checkpoint has unread, `ops` the twin used, `family` what the config's family declares.

    Matrices are [in, out]. The dtype of the token table is that of every activation, of the cache
    and of the logits. A model never changes: `parameters` are read-only (see Parameters), and
    `with_parameters` makes another one. It computes with the arrays that it was given, which stay
    their owner's to write to, as training does; where a fused step is kept beside them, it copies
    those that somebody could write to.
    """

    def __init__(self, config, parameters: Mapping[str, Any], ops=numpy_ops):
        require("config", config, "sizes", "GPT2Config(...) and model.config are some")
        require_kind("parameters", parameters, Mapping, "{name: array}")
        self.config, self.ops = config, ops
        self.family = families.of(config)
        check_shapes(parameters, self.family.shapes(config))
        if isinstance(parameters, Unread):
            parameters = parameters.read()
        table = next(name for name, p in self.layout.items() if p.role == TABLE)
        check_types(parameters, table)
        fused, program = abilities(ops).fused, self.family.program
        refused = not (fused and program) or fused.refusal(program(config, parameters))
        self._fused = None if refused else fused
        keep = owned if self._fused else lambda p: p
        self._arrays = {name: keep(p) for name, p in parameters.items()}
        self.weights, self._step = tree(self._arrays), None
        self.parameters = Parameters({name: read_only(p) for name, p in self._arrays.items()})
        self._table = self.parameters[table]

    def __setattr__(self, name: str, value) -> None:
        if name in ("config", "family", "parameters", "ops", "weights") and hasattr(self, name):
            raise InputError(
                f"a model's {name} cannot be replaced: model.with_parameters({{name: array}},"
                " **config_changes) returns a changed model"
            )
        super().__setattr__(name, value)

    def __reduce__(self):
        return _restored, (self.config, self._arrays, Portable(self.ops))

    def forward(self, ids, positions, cache=None, step=identity, keep=slice(None)):
        """ids, positions [B,T] -> logits [B,T,V] (or of the positions that `keep` picks)."""
        step = checked(step, lambda: self.step_names)
        return self.family.forward(
            ids, self.weights, self.config, positions, cache, step, self.ops, keep
        )

    def hidden(self, ids, positions, cache=None, step=identity, keep=slice(None)):
        """All of it up to the head: ids, positions [B,T] -> the last hidden state [B,T,C]."""
        step = checked(step, lambda: self.step_names[:-1])
        return self.family.hidden(
            ids, self.weights, self.config, positions, cache, step, self.ops, keep
        )

    def __call__(
        self,
        ids,
        cache: KVCache | None = None,
        *,
        lengths=None,
        last: bool = False,
        step: Step = identity,
    ):
        """Return the logits of the next token after every position: ids [T] or [B,T] -> [T,V] or
        [B,T,V].

        cache: what came before; the new positions are added to it. lengths [B]: how many ids of
        each row are real, the rest being padding on the right (its logits mean nothing). last: only
        each row's last real position, T = 1. Raises InputError for ids outside the vocabulary, and
        when a row would outgrow the cache or n_positions.
        """
        ids, single = checked_ids(ids, self.config.sizes.V)
        B, T = ids.shape
        lengths = [T] * B if lengths is None else _lengths(lengths)
        if np.shape(lengths) != (B,) or min(lengths) < 1 or max(lengths) > T:
            raise InputError(f"lengths {lengths} do not fit {B} rows of {T} ids")
        if cache is not None:
            check_fits(cache, self.config, B)
        observer = Observer.of(step)
        can_fuse = (
            self._fused
            and cache is not None
            and observer.times_only
            and (last or min(lengths) == T)
        )
        if can_fuse and self._decode_step.fits(cache, lengths):
            # The second of the two forwards; it tells a Clock when each step was finished.
            logits = self._decode_step.run(ids, cache, lengths, last, observer.stamps)
            if logits is not None:  # else infinity or NaN met blocks of 8 bits
                return logits[0] if single else logits
        lengths = np.array(lengths)
        past = np.zeros(B, np.int64) if cache is None else cache.lengths
        room = self.config.sizes.P if cache is None else cache.capacity
        if (past + lengths).max() > room:
            raise InputError(
                f"{(past + lengths).max()} positions do not fit: there is room for {room}"
            )
        positions = past[:, None] + np.arange(T)  # [B,T]
        keep = (np.arange(B)[:, None], lengths[:, None] - 1) if last else slice(None)
        logits = self.forward(ids, positions, cache, step, keep)
        if cache is not None:
            cache.advance(lengths)
        return logits[0] if single else logits

    @property
    def _decode_step(self):
        """The twin's fused step, made at first use: it has a workspace."""
        if self._step is None:
            self._step = self._fused(self.family.program(self.config, self._arrays))
        return self._step

    # ---- what it is

    @property
    def dtype(self) -> np.dtype:
        """The working type of the model."""
        return self._table.dtype  # of the token table

    @property
    def n_parameters(self) -> int:
        """The number of parameters; a tied head counts once."""
        return sum(p.size for p in self.parameters.values())

    @property
    def layout(self) -> dict[str, Parameter]:
        """What each parameter is: its role, and what its axes count."""
        return self.config.layout

    @property
    def step_names(self) -> list[str]:
        """The name of every intermediate of a pass, in the order in which they are formed."""
        return [*self.family.steps(self.config)]

    def matrices(self) -> dict[str, np.ndarray | Weight]:
        """The matrices of all blocks, {name: array or Weight}."""
        return {n: self.parameters[n] for n, p in self.layout.items() if p.role == MATRIX}

    @property
    def stored(self) -> str:
        """In which form its matrices are, or most of them: the kind of a Weight, or a dtype."""
        sizes: dict[str, int] = {}
        for p in self.matrices().values():
            kind = getattr(p, "kind", str(p.dtype))
            sizes[kind] = sizes.get(kind, 0) + p.size
        return max(sizes, key=sizes.__getitem__)

    def __repr__(self) -> str:
        s = self.config.sizes
        shape = f"layers={s.L}, heads={s.H}, width={s.C}, vocabulary={s.V}"
        return f"{type(self).__name__}({shape}, {self.n_parameters:,} parameters, {self.stored})"

    def _repr_html_(self) -> str:
        s, nbytes = self.config.sizes, sum(p.nbytes for p in self.parameters.values())
        lines = {
            "layers x heads x width": f"{s.L} x {s.H} x {s.C}",
            "vocabulary, positions": f"{s.V:,}, {s.P:,}",
            "parameters": f"{self.n_parameters:,}",
            "stored as": f"{self.stored}, {nbytes / 1e6:,.1f} MB",
            "computes with": abilities(self.ops).name,
        }
        rows = "".join(f"<tr><th>{what}</th><td>{escape(v)}</td></tr>" for what, v in lines.items())
        return f"<table>{rows}</table>"

    def new_cache(self, batch: int = 1, capacity: int | None = None, dtype=None) -> KVCache:
        """Return an empty KVCache of this model's shape; dtype is the model's, or float16 for half
        the memory."""
        make = abilities(self.ops).new_cache or KVCache
        return make(self.config, batch, capacity, self.dtype if dtype is None else dtype)

    def trace(self, ids, cache: KVCache | None = None, **kwargs) -> Trace:
        """Return every intermediate of one pass by its step name; ids [T] are traced as one row
        [1,T]."""
        trace = Trace()
        self(checked_ids(ids, self.config.sizes.V)[0], cache, step=trace, **kwargs)
        return trace

    def with_parameters(self, parameters: Mapping[str, Any], **config_changes) -> Self:
        """Return a model with other `parameters` {name: array or Weight}, which shares the rest.

        config_changes: fields of its config that differ (n_layer=4); parameters that have no place
        there are left out. An array is taken in the model's dtype (what is too large becomes its
        largest), and in the place of a stored matrix stored in the same kind (in 8 or 4 bits:
        rounded). Raises InputError for an unknown
        name, or a shape that does not fit.
        """
        fields = [field.name for field in dataclasses.fields(self.config)]
        if unknown := config_changes.keys() - {*fields}:
            raise InputError(f"config has no {min(unknown)}; it has {', '.join(fields)}")
        return self._changed(dataclasses.replace(self.config, **config_changes), parameters)

    def with_sizes(self, parameters: Mapping[str, Any], **letters: int) -> Self:
        """The same, with other sizes by letter (see sizes.py), whatever the config calls them."""
        return self._changed(self.config.resized(**letters), parameters)

    def _changed(self, config, parameters: Mapping[str, Any]) -> Self:
        require_kind("parameters", parameters, Mapping, "{name: array}")
        layout, changed = config.layout, {}
        for name, p in parameters.items():
            if not isinstance(p, (Weight, Implicit)):
                p = narrowed(_numbers(name, p), self.dtype)
                table = name in layout and layout[name].role == TABLE
                p = like(self.parameters.get(name), p, table)
            changed[name] = p
        kept = {name: p for name, p in self.parameters.items() if name in layout}
        return cast(Self, model_of(config, kept | changed, self.ops))

    def astype(self, dtype) -> Self:
        """Return the model with parameters of another floating type: float16, float32, float64
        (`quantize` stores matrices in fewer bits)."""
        dtype = float_type(dtype)
        parameters = {
            n: narrowed(p, dtype) if isinstance(p, np.ndarray) else p.astype(dtype, copy=False)
            for n, p in self.parameters.items()
        }
        return cast(Self, model_of(self.config, parameters, self.ops))

    # ---- from and to other rooms

    @classmethod
    def random(cls, config, seed: int = 0, dtype=np.float32) -> Model:
        """Return an untrained model as GPT-2 starts: weights N(0, 0.02^2), biases 0, norms 1, and
        the projections into the residual stream divided by sqrt(2 L). Source: Radford et al.
        (2019), section 2.3."""
        require("config", config, "sizes", "GPT2Config(...) is one")
        dtype, sizes = float_type(dtype), config.sizes
        rng = np.random.default_rng(whole_number("seed", seed, least=0))
        numbers = sum(math.prod(p.shape(sizes)) for p in config.layout.values())
        require_memory("the parameters", dtype.itemsize * numbers, "a smaller config")

        def start(parameter: Parameter) -> np.ndarray:
            shape = parameter.shape(sizes)
            if parameter.start in ("zeros", "ones"):
                return np.full(shape, parameter.start == "ones", dtype)
            spread = 0.02 / np.sqrt(2 * sizes.L) if parameter.start == "residual" else 0.02
            return (rng.standard_normal(shape, np.float32) * np.float32(spread)).astype(
                dtype, copy=False
            )

        return model_of(config, {name: start(p) for name, p in config.layout.items()})

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | Checkpoint, dtype=None, kernels: str | Twin | None = None
    ) -> Model:
        """Return the model of a folder in Hugging Face layout (config.json, model.safetensors or
        shards), of a bundled name, of a hub name, or of a checkpoint.

        dtype: float32, float64, or a stored precision (bfloat16, float16, int8, int4, int4_min, and
        bfloat16_rounded, whose products round both sides: see quantize); None keeps a quantised
        model as it is and takes float32 for any other. kernels: "numpy", "numba", "auto", or a twin
        (see minillm.twins.choose). NumPy uses arrays of its dtype where they lie, memory-mapped;
        everything else is converted a few rows at a time, so that it takes little more memory than
        the result. A mapped file must not be written into or cut short while its model is in use,
        which would end the process: put another in its place by renaming, as save_pretrained does
        (Windows then says that it is in use). Raises InputError naming the file, the tensor and
        both shapes where config and tensors disagree.
        """
        from .checkpoints.opening import open_checkpoint

        if (kind := dtype_name(dtype)) not in (None, "float64", *KINDS):
            raise InputError(f"dtype is {kind!r}; it must be float64 or one of {', '.join(KINDS)}")
        keep_to_quota()
        ops = twin(kernels)
        checkpoint = open_checkpoint(name_or_path)
        unread = Unread(checkpoint, kind, panels=bool(abilities(ops).stores_panels))
        return model_of(checkpoint.config, unread, ops)

    def save_pretrained(self, folder: str | Path, dtype=None) -> None:
        """Write config.json, model.safetensors and, where there is one, generation_config.json,
        which transformers loads (quantised matrices only minillm); stored as `dtype` if given:
        float64, float32, float16 or bfloat16."""
        from .checkpoints.opening import save_checkpoint

        save_checkpoint(self, folder, dtype)

    def quantize(self, kind: str) -> Self:
        """Return the model with every matrix stored as `kind`: bfloat16, bfloat16_rounded, float16,
        int8, int4, int4_min, float32."""
        from .compression import quantize

        return quantize(self, kind)

    @property
    def generation_config(self) -> dict:
        """What generation_config.json says of how to decode; {} without one."""
        return self.config.generation or {}

    def generate(self, ids=None, max_new_tokens: int | None = None, **options) -> np.ndarray:
        """Return `ids` with the generated ones after them; the options are those of
        decoding.Options."""
        from .decoding import generate_ids

        return generate_ids(self, ids, max_new_tokens, **options)


def _lengths(lengths) -> list[int]:
    """Return lengths as whole numbers, which 3.0 is not."""
    try:
        if (array := np.asarray(lengths)).dtype.kind in "iu":
            return array.tolist()
    except ValueError:  # ragged
        pass
    raise InputError(f"lengths {short(lengths)} must be whole numbers, one for each row")


def _numbers(name: str, value) -> np.ndarray:
    """Return a parameter as an array of real numbers."""
    try:
        if (array := np.asarray(value)).dtype.kind in "fiub":
            return array
    except (TypeError, ValueError):
        pass
    raise InputError(f"parameter {name} is {short(value)}; needed: an array of real numbers")


def _restored(config, parameters: Mapping[str, Any], twin: Portable) -> Model:
    return model_of(config, parameters, twin.ops)


class GPT2(Model):
    """GPT-2: see Model; `config` is a GPT2Config."""

    config: GPT2Config


class Llama(Model):
    """Llama: see Model; `config` is a LlamaConfig."""

    config: LlamaConfig


class Qwen2(Model):
    """Qwen2: see Model; `config` is a Qwen2Config."""

    config: Qwen2Config


class Qwen3(Model):
    """Qwen3: see Model; `config` is a Qwen3Config."""

    config: Qwen3Config


# by the family's name; others are a Model
FACES = {"gpt2": GPT2, "llama": Llama, "qwen2": Qwen2, "qwen3": Qwen3}


def model_of(config, parameters: Mapping[str, Any], ops=numpy_ops) -> Model:
    """Return the model of a config: a GPT2 of a GPT2Config, and so on."""
    return FACES.get(families.of(config).name, Model)(config, parameters, ops)


__getattr__ = moved.names_of("model")
