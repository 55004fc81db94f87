"""GPT-2: ids -> logits, parameters by their checkpoint names.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.3.
Reference: GPT2LMHeadModel of Hugging Face transformers, eager attention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np

from . import ops as numpy_ops
from .errors import InputError
from .families.gpt2.config import GPT2Config
from .ids import checked_ids
from .layers.attention import causal_self_attention
from .layers.cache import KVCache, check_fits, float_type
from .layers.feed_forward import feed_forward
from .parameters import Parameters
from .steps import Step, Trace, checked, identity, step_names, times_only, under
from .twins.portable import Twin
from .weights import TABLES, Weight, like, owned, read_only
from .weights.implicit import Implicit


def block(
    x, ln_1, attn, ln_2, mlp, *, config, layer, positions, past=None, step=identity, ops=numpy_ops
):
    """One Transformer block: x + attention(norm(x)), then x + feed_forward(norm(x)). [B,T,C] ->
    [B,T,C]."""
    shape = {
        "n_head": config.n_head,
        "scale": config.attention_scale(layer),
        "positions": positions,
        "past": past,
    }
    normed = step("ln_1", ops.layer_norm(x, **ln_1, eps=config.layer_norm_epsilon))
    x = step(
        "attn.residual",
        x + causal_self_attention(normed, **attn, **shape, step=under("attn.", step), ops=ops),
    )
    normed = step("ln_2", ops.layer_norm(x, **ln_2, eps=config.layer_norm_epsilon))
    bend = {"activation": config.activation_function, "step": under("mlp.", step), "ops": ops}
    return step("mlp.residual", x + feed_forward(normed, **mlp, **bend))


class GPT2:
    """GPT-2: `model(ids)` gives logits; parameters is {checkpoint name: array or Weight}, `ops` the
    twin used.

    Matrices are [in, out]. The dtype of wte.weight is that of every activation, of the cache and of
    the logits. A model never changes: `parameters` are read-only (see Parameters), and
    `with_parameters` makes another one. It computes with the arrays that it was given, which stay
    their owner's to write to, as training does; where a fused step is kept beside them, it copies
    those that somebody could write to.
    """

    def __init__(self, config: GPT2Config, parameters: Mapping[str, np.ndarray], ops=numpy_ops):
        self.config, self.ops = config, ops
        for name, shape in config.parameter_shapes().items():
            p = parameters.get(name)
            found = "missing" if p is None else getattr(p, "shape", f"of type {type(p).__name__}")
            if found != shape:
                raise InputError(f"parameter {name} is {found}; this config needs {shape}")
        if surplus := parameters.keys() - config.parameter_shapes().keys():
            raise InputError(
                f"parameter {min(surplus)} has no place in this config; {len(surplus)} are too many"
            )
        fused = getattr(ops, "DecodeStep", None)
        self._fused = fused if fused and fused.refusal(config, parameters) is None else None
        keep = owned if self._fused else lambda p: p
        self._arrays = {name: keep(p) for name, p in parameters.items()}
        self._tree, self._step = _as_tree(self._arrays), None
        self.parameters = Parameters({name: read_only(p) for name, p in self._arrays.items()})

    def __setattr__(self, name: str, value) -> None:
        if name in ("config", "parameters", "ops") and hasattr(self, name):
            raise InputError(
                f"a model's {name} cannot be replaced: model.with_parameters({{name: array}},"
                " **config_changes) returns a changed model"
            )
        super().__setattr__(name, value)

    def __reduce__(self):
        return _restored, (self.config, self._arrays, Twin(self.ops))

    def forward(self, ids, positions, cache=None, step=identity, keep=slice(None)):
        """The whole of GPT-2: ids, positions [B,T] -> logits [B,T,V] (or of the positions that
        `keep` picks)."""
        step = checked(step, lambda: step_names(self.config.n_layer))
        x = self.hidden(ids, positions, cache, step, keep)
        return step(
            "logits", self.ops.linear(x, self._tree["lm_head"]["weight"].T)
        )  # [B,T,C] @ [C,V] -> [B,T,V]

    def hidden(self, ids, positions, cache=None, step=identity, keep=slice(None)):
        """GPT-2 up to its head: ids, positions [B,T] -> the last hidden state [B,T,C]."""
        step = checked(step, lambda: step_names(self.config.n_layer)[:-1])
        config, weights, ops = self.config, self._tree, self.ops
        wte = step("wte", weights["wte"]["weight"].take(ids, axis=0))  # [B,T] -> [B,T,C]
        # Only padding is clipped.
        wpe = step("wpe", weights["wpe"]["weight"].take(positions, axis=0, mode="clip"))
        x = step("embed", wte + wpe)
        for i, layer in enumerate(weights["h"]):
            run = {
                "positions": positions,
                "past": cache and cache.layer(i),
                "step": under(f"h.{i}.", step),
                "ops": ops,
            }
            x = block(x, **layer, config=config, layer=i, **run)  # [B,T,C] -> [B,T,C]
        return step(
            "ln_f", ops.layer_norm(x[keep], **weights["ln_f"], eps=config.layer_norm_epsilon)
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
        ids, single = checked_ids(ids, self.config.vocab_size)
        B, T = ids.shape
        lengths = [T] * B if lengths is None else _lengths(lengths)
        if np.shape(lengths) != (B,) or min(lengths) < 1 or max(lengths) > T:
            raise InputError(f"lengths {lengths} do not fit {B} rows of {T} ids")
        if cache is not None:
            check_fits(cache, self.config, B)
        can_fuse = (
            self._fused and cache is not None and times_only(step) and (last or min(lengths) == T)
        )
        if can_fuse and self._decode_step.fits(cache, lengths):
            # The second of the two forwards, for a few positions; it tells a Clock when each step
            # was finished.
            logits = self._decode_step.run(ids, cache, lengths, last, getattr(step, "stamps", None))
            if logits is not None:  # else infinity or NaN met blocks of 8 bits
                return logits[0] if single else logits
        lengths = np.array(lengths)
        past = np.zeros(B, np.int64) if cache is None else cache.lengths
        room = self.config.n_positions if cache is None else cache.capacity
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
        """The twin's fused step for a few positions, made at first use: it has a workspace."""
        if self._step is None:
            self._step = self._fused(self.config, self._arrays)
        return self._step

    # ---- what it is

    @property
    def dtype(self) -> np.dtype:
        """The working type of the model."""
        return self.parameters["wte.weight"].dtype

    @property
    def n_parameters(self) -> int:
        """The number of parameters; a tied head counts once."""
        return sum(p.size for p in self.parameters.values())

    def __repr__(self) -> str:
        c = self.config
        shape = (
            f"n_layer={c.n_layer}, n_head={c.n_head}, n_embd={c.n_embd}, vocab_size={c.vocab_size}"
        )
        return f"GPT2({shape}, {self.n_parameters:,} parameters, {self._stored})"

    @property
    def _stored(self) -> str:
        """In which form the matrices are: the kind of a Weight, or a dtype."""
        return getattr(self.parameters["wte.weight"], "kind", str(self.dtype))

    def _repr_html_(self) -> str:
        c, nbytes = self.config, sum(p.nbytes for p in self.parameters.values())
        lines = {
            "layers x heads x width": f"{c.n_layer} x {c.n_head} x {c.n_embd}",
            "vocabulary, positions": f"{c.vocab_size:,}, {c.n_positions:,}",
            "parameters": f"{self.n_parameters:,}",
            "stored as": f"{self._stored}, {nbytes / 1e6:,.1f} MB",
            "computes with": Twin(self.ops).name,
        }
        rows = "".join(f"<tr><th>{what}</th><td>{escape(v)}</td></tr>" for what, v in lines.items())
        return f"<table>{rows}</table>"

    def new_cache(self, batch: int = 1, capacity: int | None = None, dtype=None) -> KVCache:
        """Return an empty KVCache of this model's shape; dtype is the model's, or float16 for half
        the memory."""
        return KVCache(self.config, batch, capacity, dtype or self.dtype)

    def trace(self, ids, cache: KVCache | None = None, **kwargs) -> Trace:
        """Return every intermediate of one pass by its step name; ids [T] are traced as one row
        [1,T]."""
        trace = Trace()
        self(checked_ids(ids, self.config.vocab_size)[0], cache, step=trace, **kwargs)
        return trace

    def with_parameters(self, parameters: Mapping[str, np.ndarray], **config_changes) -> GPT2:
        """Return a model with other `parameters` {name: array or Weight}, which shares the rest.

        config_changes: fields of its config that differ (n_layer=4); parameters that have no place
        there are left out. An array is taken in the model's dtype, and in the place of a stored
        matrix stored in the same kind (in 8 or 4 bits: rounded). Raises InputError for an unknown
        name, or a shape that does not fit.
        """
        config = dataclasses.replace(self.config, **config_changes)
        changed = {}
        for name, p in parameters.items():
            if not isinstance(p, (Weight, Implicit)):
                try:
                    p = np.asarray(p, self.dtype)
                except (TypeError, ValueError):
                    raise InputError(f"parameter {name} is {p!r:.60}; needed: an array") from None
                p = like(self.parameters.get(name), p, name in TABLES)
            changed[name] = p
        known = config.parameter_shapes()
        kept = {name: p for name, p in self.parameters.items() if name in known}
        return GPT2(config, kept | changed, self.ops)

    def astype(self, dtype) -> GPT2:
        """Return the model with parameters of another floating type: float16, float32, float64
        (`quantize` stores matrices in fewer bits)."""
        dtype = float_type(dtype)
        return GPT2(
            self.config,
            {n: p.astype(dtype, copy=False) for n, p in self.parameters.items()},
            self.ops,
        )

    # ---- from and to other rooms

    @classmethod
    def random(cls, config: GPT2Config, seed: int = 0, dtype=np.float32) -> GPT2:
        """Return an untrained model as GPT-2 starts: weights N(0, 0.02^2), biases 0, norms 1, and
        the projections into the residual stream divided by sqrt(2 L). Source: Radford et al.
        (2019), section 2.3."""
        rng = np.random.default_rng(seed)

        def start(name: str, shape: tuple[int, ...]) -> np.ndarray:
            if len(shape) == 1:
                return (np.ones if name.endswith("weight") else np.zeros)(shape, dtype)
            spread = 0.02 / np.sqrt(2 * config.n_layer) if "c_proj" in name else 0.02
            return (rng.standard_normal(shape, np.float32) * np.float32(spread)).astype(
                dtype, copy=False
            )

        return cls(
            config, {name: start(name, shape) for name, shape in config.parameter_shapes().items()}
        )

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, dtype=None, kernels: str | None = None
    ) -> GPT2:
        """Load from a folder in Hugging Face layout, a bundled name or a hub name; see
        minillm.checkpoints."""
        from .checkpoints import load_model

        return load_model(name_or_folder, dtype, kernels)

    def save_pretrained(self, folder: str | Path, dtype=None) -> None:
        """Write config.json, model.safetensors and, where there is one, generation_config.json,
        which transformers loads; stored as `dtype` if given."""
        from .checkpoints import save_model

        save_model(self, folder, dtype)

    def quantize(self, kind: str) -> GPT2:
        """Return the model with every matrix stored as `kind`: bfloat16, float16, int8, int4,
        int4_min, float32."""
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
    if (array := np.asarray(lengths)).dtype.kind not in "iu":
        raise InputError(f"lengths {lengths!r:.60} must be whole numbers, one for each row")
    return array.tolist()


def _restored(config: GPT2Config, parameters: Mapping[str, np.ndarray], twin: Twin) -> GPT2:
    return GPT2(config, parameters, twin.ops)


def _as_tree(parameters: Mapping[str, np.ndarray]) -> dict:
    """{"h.0.ln_1.bias": b} -> {"h": [{"ln_1": {"bias": b}}]}: a layer's weights become keyword
    arguments.

    A tied head is there twice, as wte and as lm_head.
    """
    tree: dict = {}
    for name, array in parameters.items():
        *path, leaf = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = array
    tree["h"] = [tree["h"][str(i)] for i in range(len(tree["h"]))]
    return {"lm_head": tree["wte"], **tree}
