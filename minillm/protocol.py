"""What a model is for whoever runs one: decoding, and all that stands below the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .errors import InputError, require
from .families.family import Family, Parameter
from .ids import checked_ids
from .layers.cache import KVCache
from .sizes import Sizes
from .steps import Step, Trace, identity


class Config(Protocol):
    """What is asked of a config from outside its family."""

    @property
    def sizes(self) -> Sizes: ...

    @property
    def layout(self) -> Mapping[str, Parameter]: ...

    @property
    def tied(self) -> bool: ...

    def attention_scale(self, layer: int) -> float: ...

    def to_dict(self) -> dict[str, Any]: ...

    @property
    def eos_token_id(self) -> int | Sequence[int] | None: ...

    @property
    def generation(self) -> Mapping[str, Any] | None: ...


class Model(Protocol):
    """`model(ids)` gives logits; parameters is {checkpoint name: array or Weight}, `ops` the twin
    used, dtype that of activations, cache and logits."""

    @property
    def config(self) -> Config: ...

    @property
    def family(self) -> Family: ...

    @property
    def layout(self) -> Mapping[str, Parameter]: ...

    @property
    def step_names(self) -> list[str]: ...

    @property
    def parameters(self) -> Mapping[str, Any]: ...

    def matrices(self) -> Mapping[str, Any]: ...

    @property
    def stored(self) -> str: ...

    @property
    def ops(self) -> Any: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __call__(
        self,
        ids: ArrayLike,
        cache: KVCache | None = None,
        *,
        lengths: ArrayLike | None = None,
        last: bool = False,
        step: Step = identity,
    ) -> np.ndarray:
        """Return the logits of the next token after every position: ids [T] or [B,T] -> [T,V] or
        [B,T,V].

        cache: what came before; the new positions are added to it. lengths [B]: how many ids of
        each row are real. last: only each row's last real position, T = 1. Raises InputError for
        ids outside the vocabulary, and when a row would outgrow the cache or n_positions.
        """

    def new_cache(
        self, batch: int = 1, capacity: int | None = None, dtype: DTypeLike | None = None
    ) -> KVCache:
        """Return an empty cache of this model's shape; dtype is the model's unless given."""

    def trace(self, ids: ArrayLike, cache: KVCache | None = None, **kwargs: Any) -> Trace:
        """Return every intermediate of one pass by its step name."""

    def with_parameters(self, parameters: Mapping[str, Any], **config_changes: Any) -> Self:
        """Return a model with other `parameters` and config fields, which shares the rest."""

    def with_sizes(self, parameters: Mapping[str, Any], **letters: int) -> Self:
        """The same, with other sizes by letter (see sizes.py)."""

    def astype(self, dtype: DTypeLike) -> Self:
        """Return the model with parameters of another floating type."""


AnyModel = TypeVar("AnyModel", bound=Model)  # model in, model of the same class out


def require_model(value: object) -> None:
    """Raise InputError for what is no model; whatever makes a cache is one."""
    require("model", value, "new_cache", "model, tokenizer = minillm.load(...) gives one")


def one_text(model: Model, ids: ArrayLike) -> NDArray[np.int64]:
    """Return ids [T], checked; InputError for what is no model, and for several rows."""
    require_model(model)
    rows, single = checked_ids(ids, model.config.sizes.V)
    if not single:
        raise InputError(
            f"ids have shape {rows.shape}, where one text (T,) is due; model.generate and"
            " decoding.generate_batch take several"
        )
    return rows.reshape(-1)
