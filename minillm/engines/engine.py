"""What an engine is here: somebody else's program with a model in it, which decoding, a clock and a
trace know as they know a Model.

A subclass loads the model and has one method, `read`. Whoever passes `step` gets what a Model of
ours gives: a Clock the times (`stamps`), a Trace, Patch or Relay the values, in minillm's names and
shapes. What the engine does at once is one step, under the last of its names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import Any

import numpy as np

from .. import ops as numpy_ops
from ..checkpoints.checkpoint import Checkpoint, Tensor
from ..checkpoints.opening import open_checkpoint
from ..errors import InputError, not_imported, require_kind, whole_number
from ..ids import checked_ids
from ..layers.cache import checked_capacity, position_bytes
from ..loading import convert
from ..steps import Observer, Step, Trace, checked, identity


class Engine:
    """An engine with a model in it: `engine(ids, cache, step=...)` gives logits as a Model does.

    A subclass sets `name` and `needs` (modules that it imports), and in __init__, after this one's,
    `threads` (as the engine itself reports them), `versions` {library: version}, and `step_names`,
    the steps whose values it has. It holds one text at a time. InputError where the package is not
    installed, or the model is none that it has.
    """

    name = ""
    needs: tuple[str, ...] = ()
    cache_dtype = "float32"  # of its keys and values
    # Where it may differ from minillm by choice: what to say, the options of __init__ that end it.
    switches: Mapping[str, Mapping[str, Any]] = {}
    threads: int
    versions: dict[str, str]
    step_names: list[str]
    ops: Any = numpy_ops  # with which a token is chosen
    dtype = np.dtype(np.float32)  # of its logits

    def __init__(
        self, model: str | Path | Checkpoint, threads: int | None = None, dtype: str | None = None
    ):
        self.checkpoint = open_checkpoint(model)
        self.config, self.family = self.checkpoint.config, self.checkpoint.family
        self.sizes = self.config.sizes
        self._held: Held | None = None  # whose positions the engine holds
        self.room = 1  # the most positions that a text has had
        self._one_at_a_time = RLock()  # of threads; a step may read something else

    @classmethod
    @contextmanager
    def needed(cls) -> Iterator[None]:
        """Turn a missing module, imported within, into the line that says what to install."""
        try:
            yield
        except ImportError as error:
            raise InputError(not_imported(error, *cls.needs)) from None

    def written(self, checkpoint: Checkpoint, name: str, dtype: str | None) -> Checkpoint:
        """The checkpoint in another form: a file or a folder of this name, there as long as the
        engine. dtype: see loading.convert."""
        self._folder = TemporaryDirectory(ignore_cleanup_errors=True)
        path = Path(self._folder.name) / name
        convert(checkpoint, path, dtype)
        return open_checkpoint(path)

    def read(self, ids: list[int], past: int, last: bool, step: Observer) -> np.ndarray:
        """Forget what is from position `past` on, read ids [T]: their logits [T,V], with `last`
        [1,V].

        step: where it has `stamps`, a clock: tell it with stamps(names, ticks) which steps ended
        when, in ticks of clock.counter(), the last of them at the return; where times_only is
        false, all of them, else as many as cost little. Where it has none and times_only is false,
        give it every value that the engine has by step(name, value), with one row ([1,T,C],
        [1,H,T,D]), and go on with what it returns.
        """
        raise NotImplementedError

    def __call__(
        self,
        ids: Any,
        cache: Held | None = None,
        *,
        lengths: Any = None,
        last: bool = False,
        step: Step = identity,
    ) -> np.ndarray:
        """Return the logits of the next token after every position, as protocol.Model says; one row
        alone."""
        rows, single = checked_ids(ids, self.sizes.V)
        B, T = rows.shape
        if B != 1 or (lengths is not None and [*lengths] != [T]):
            raise InputError(f"{self.name} reads one text here, and all of it, not {B} rows")
        require_kind("cache", cache, Held | None, "None, or what new_cache() of the engine makes")
        with self._one_at_a_time:
            past = 0 if cache is None else int(cache.lengths[0])
            if past and cache is not self._held:
                raise InputError(f"{self.name} holds one text, and that is another cache's by now")
            most = self.sizes.P if cache is None else cache.capacity
            if past + T > most:
                raise InputError(f"{past + T} positions do not fit: there is room for {most}")
            self.room = max(self.room, past + T)
            self._held = cache
            step = checked(step, lambda: self.step_names)
            logits = self.read(rows[0].tolist(), past, last, Observer.of(step))
            self._held = cache  # again: the step may have read something else
            if cache is not None:
                cache.lengths += T
        return logits if single else logits[None]

    def new_cache(self, batch: int = 1, capacity: int | None = None, dtype: Any = None) -> Held:
        """Return what stands for the engine's own cache, empty."""
        if batch != 1 or dtype not in (None, self.cache_dtype):
            raise InputError(f"{self.name} keeps one row of {self.cache_dtype} here")
        capacity = checked_capacity(self.config, capacity)
        return Held(capacity, capacity * position_bytes(self.config, self.cache_dtype))

    def trace(self, ids: Any, cache: Held | None = None, **kwargs: Any) -> Trace:
        """Return every intermediate that the engine has, by its step name."""
        trace = Trace()
        self(checked_ids(ids, self.config.sizes.V)[0], cache, step=trace, **kwargs)
        return trace

    # ---- what it is

    @property
    def title(self) -> str:
        """Its name and version: llama.cpp 0.3.36."""
        return f"{self.name} {next(iter(self.versions.values()))}"

    def own_count(self) -> tuple[float, float] | None:
        """ms that the engine itself has counted for a token while a clock looked on, and those that
        its functions took, as their caller counts; since it was last asked, where it counts."""
        return None

    @property
    def unknown(self) -> dict[str, int]:
        """What it computes in a pass and no step is known of, and how many times."""
        return {}

    @property
    def stored(self) -> str:
        """In which form the model's file has its matrices, or most of them."""
        return self.checkpoint.stored

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Its parameters, as the model's file has them: unread."""
        return self.checkpoint.tensors


class Held:
    """How many positions of a text an engine holds: what stands for its own cache."""

    def __init__(self, capacity: int, nbytes: int):
        self.capacity, self.nbytes, self.lengths = capacity, nbytes, np.zeros(1, np.int64)

    def truncate(self, length: int) -> None:
        """Forget what is from `length` on."""
        self.lengths[:] = min(whole_number("length", length, least=0), self.lengths[0])
