"""The KV cache: the keys and values of all positions so far, kept so that each is computed once.

A row is one sequence. Every row has its own length; positions and mask follow from the lengths
alone, so that rows of different lengths share a batch, and one can be cut, copied or moved without
touching another.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import combinations

import numpy as np

from ..errors import InputError, require, require_kind, several, short, whole_number
from ..kernels.pages import give_back
from ..machine.quota import require_memory
from ..weights.weight import narrowed

FLOATS = tuple(np.dtype(t) for t in (np.float16, np.float32, np.float64))  # what it may hold


def float_type(dtype) -> np.dtype:
    """Return `dtype` as NumPy's; InputError unless it is one that a model can compute with."""
    try:
        if dtype is not None and (found := np.dtype(dtype)) in FLOATS:
            return found
    except (TypeError, ValueError):
        pass
    raise InputError(f"dtype is {short(dtype)}; it must be float16, float32 or float64")


def position_bytes(config, dtype) -> int:
    """Bytes of the keys and values of one position, in all layers."""
    s = config.sizes
    return 2 * s.L * s.K * s.D * np.dtype(dtype).itemsize


def checked_capacity(config, capacity: int | None) -> int:
    """Return how many positions a cache may hold, None being all; InputError for more."""
    P = config.sizes.P
    capacity = P if capacity is None else whole_number("capacity", capacity)
    if capacity > P:
        raise InputError(f"cache capacity {short(capacity)}: the model has {P} positions")
    return capacity


def furthest(config) -> int:
    """How many positions a text can have of which a cache keeps the newest: those of the model's
    table, or, where positions are angles, as many as float32 tells apart."""
    table = any(parameter.role == "positions" for parameter in config.layout.values())
    return config.sizes.P if table else 1 << 24


def check_fits(cache, config, batch: int) -> None:
    """Raise InputError unless `cache` is a KVCache for `batch` rows of a model of this config.

    The fused step writes keys and values by their address: in a cache of another shape it would
    write into other arrays. Asked at every token, hence the form that was found to fit is kept.
    """
    if not isinstance(cache, KVCache):
        raise InputError(f"the cache is a {type(cache).__name__}; model.new_cache() makes one")
    k, v, lengths = cache.keys, cache.values, cache.lengths
    try:  # written out, since a loop would take half as long again
        form = (
            *(k.shape, k.strides, k.dtype, k.flags.num),
            *(v.shape, v.strides, v.dtype, v.flags.num),
            *(lengths.shape, lengths.dtype, lengths.flags.num),
        )
    except AttributeError:
        raise InputError("keys, values and lengths of a cache must be arrays of NumPy") from None
    known, (keys, values, counts) = cache.fitting
    same = keys is k and values is v and counts is lengths
    if not same or known != (config, batch, form):
        _check_form(cache, config, batch)
        cache.fitting = (config, batch, form), (k, v, lengths)
    numbers, capacity = lengths.tolist(), cache.capacity
    if min(numbers) < 0 or max(numbers) > capacity:
        raise InputError(f"the cache has lengths {numbers}, outside 0 to {capacity}")


def _check_form(cache, config, batch: int) -> None:
    """Raise InputError unless the arrays of a KVCache are those that the model needs."""
    keys, values, lengths = cache.keys, cache.values, cache.lengths
    s = config.sizes
    L, K, D, P = s.L, s.K, s.D, s.P
    if (
        keys.shape != (L, *keys.shape[1:2], K, *keys.shape[3:4], D)
        or values.shape != keys.shape
        or not 1 <= keys.shape[3] <= min(cache.capacity, P)
        or cache.capacity > (furthest(config) if cache.one_at_a_time else P)
    ):
        raise InputError(
            f"the cache holds keys {keys.shape} and values {values.shape}; this model needs"
            f" ({L}, {batch}, {K}, 1 to {P}, {D}) for both: model.new_cache({batch}) makes it"
        )
    if keys.shape[1] != batch:
        raise InputError(f"the cache has {keys.shape[1]} rows and the ids {batch}")
    if (
        keys.dtype not in FLOATS
        or values.dtype != keys.dtype
        or values.strides != keys.strides
        or keys.strides[3:] != (D * keys.itemsize, keys.itemsize)
        or not (keys.flags.behaved and values.flags.behaved)  # aligned and writable
    ):
        raise InputError(
            f"the cache holds keys of {keys.dtype} and values of {values.dtype}; both must be"
            " float16, float32 or float64, writable, and lie in memory alike, a head's rows in turn"
        )
    if lengths.shape != (batch,) or lengths.dtype != np.int64 or not lengths.flags.behaved:
        raise InputError(
            f"the cache holds lengths of {lengths.dtype} {lengths.shape}; they must be int64"
            f" ({batch},), writable"
        )
    if _overlaps(keys) or _overlaps(lengths):  # values have the strides of keys
        raise InputError(
            f"the cache's keys {keys.shape} or lengths overlap: with strides of {keys.strides} and"
            f" {lengths.strides} bytes several lie in the same memory"
        )
    for pair in combinations((keys, values, lengths), 2):
        if np.shares_memory(*pair):  # quick to tell, since nothing in an array overlaps
            raise InputError(
                "keys, values and lengths of the cache share memory: give each its own"
            )


def _overlaps(array: np.ndarray) -> bool:
    """Whether entries of an array may share memory: an axis steps over less than what those with
    shorter steps reach."""
    if array.flags.c_contiguous:
        return False
    reach = array.itemsize
    for stride, size in sorted((abs(a), n) for a, n in zip(array.strides, array.shape) if n > 1):
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False


class KVCache:
    """Room for `capacity` positions in each of `batch` rows: keys, values [L,B,K,capacity,D],
    lengths [B].

    Bytes: 2 L K D capacity per row times the dtype's size; 73,728 a position for GPT-2 124M in
    float32.
    """

    one_at_a_time = False  # whether a pass may add only one position to each row
    # What `check_fits` found to fit: config, rows and form of the arrays, and these themselves.
    fitting: tuple = None, (None, None, None)

    def __init__(self, config, batch: int = 1, capacity: int | None = None, dtype=np.float32):
        require("config", config, "sizes", "model.new_cache() makes a cache of the model's")
        sizes = config.sizes
        capacity = checked_capacity(config, capacity)
        batch, dtype = whole_number("batch", batch), float_type(dtype)
        # Zeros, not empty: what lies beyond a row's length has weight 0, and 0 * NaN would be NaN.
        # (np.zeros also leaves the memory untouched until it is used; np.zeros_like would not.)
        shape = (sizes.L, batch, sizes.K, capacity, sizes.D)
        require_memory(
            f"a cache of {short(batch)} x {capacity} positions",
            batch * capacity * position_bytes(config, dtype),
            "ask for fewer rows or positions at once",
        )
        self.keys, self.values = np.zeros(shape, dtype), np.zeros(shape, dtype)
        self.lengths = np.zeros(batch, dtype=np.int64)

    @property
    def batch(self) -> int:
        """B, the number of rows."""
        return self.keys.shape[1]

    @property
    def capacity(self) -> int:
        """The most positions that a row can hold."""
        return self.keys.shape[3]

    @property
    def nbytes(self) -> int:
        """Bytes reserved for keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def __repr__(self) -> str:
        return (
            f"KVCache(lengths={self.lengths.tolist()}, capacity={self.capacity},"
            f" {self.nbytes / 1e6:.1f} MB)"
        )

    def layer(self, index: int) -> LayerCache:
        """Return the part that belongs to one layer."""
        return self._layer(LayerCache, index)

    def _layer(self, kind: type[LayerCache], index: int) -> LayerCache:
        try:
            return kind(self.keys[index], self.values[index], self.lengths)
        except (IndexError, ValueError):
            layers = len(self.keys)
            raise InputError(f"layer {short(index)} is none of the cache's {layers}") from None

    def advance(self, counts) -> None:
        """Take the last `counts` ([B] or one number) appended positions as seen: the last act of a
        forward pass."""
        try:
            self.lengths += counts
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f"counts is {short(counts)}; it must be a whole number, or one for each of"
                f" {self.batch} rows"
            ) from None

    def truncate(self, length: int, row: int | None = None) -> None:
        """Forget what is from `length` on, in one row or in all that are longer; 0 empties."""
        length = min(whole_number("length", length, least=0), self.capacity)
        rows = slice(None) if row is None else self._row("row", row)
        if row is not None and length > self.lengths[row]:
            raise InputError(
                f"cannot truncate to length {length}: the rows have lengths {self.lengths.tolist()}"
            )
        self.lengths[rows] = np.minimum(self.lengths[rows], length)

    def grow_into(self, larger: KVCache) -> None:
        """Take the arrays of an empty, larger cache for its own. What is here moves there a layer
        at a time and is gone here, also from views, so that it is not held twice. InputError where
        the other is this one, holds something, or has no room for it."""
        shapes = [(*a.shape[:3], *a.shape[4:], a.dtype) for a in (self.keys, larger.keys)]
        if (
            larger.keys is self.keys
            or larger.lengths.any()
            or shapes[0] != shapes[1]
            or larger.keys.shape[3] < self.lengths.max()
        ):
            raise InputError(f"{self} cannot grow into {larger}: it takes an empty, larger one")
        lengths, kept = self.lengths.copy(), int(self.lengths.max())
        self.lengths[:] = 0  # it is empty, if a Ctrl-C comes now
        for mine, room in ((self.keys, larger.keys), (self.values, larger.values)):
            for old, new in zip(mine, room):
                new[:, :, :kept] = old[:, :, :kept]
                give_back(old)
        vars(self).update(keys=larger.keys, values=larger.values, fitting=KVCache.fitting)
        self.lengths[:] = lengths

    def _row(self, name: str, row) -> int:
        """The number of a row; InputError where the cache has no such row."""
        if (row := whole_number(name, row, least=0)) >= self.batch:
            raise InputError(
                f"{name} is {short(row)}; the cache has the rows 0 to {self.batch - 1}"
            )
        return row

    def take(self, rows: Sequence[int]) -> KVCache:
        """Return a new cache of copies of `rows`, in that order; a row may be taken twice (beams,
        samples)."""
        items = several("rows", rows, "several numbers, as [0, 0, 2]")
        rows = np.array([self._row("rows", row) for row in items], dtype=np.int64)
        return self._with(self.keys[:, rows], self.values[:, rows], self.lengths[rows])

    def view(self, rows: slice) -> KVCache:
        """Return neighbouring rows as a cache of their own in the same memory: what one appends,
        both have."""
        require_kind("rows", rows, slice, "a slice, as slice(0, 2)")
        return self._with(self.keys[:, rows], self.values[:, rows], self.lengths[rows])

    def move(self, source: int, target: int) -> None:
        """Put row `source` into the place of row `target`, whose own content is forgotten."""
        source, target = self._row("source", source), self._row("target", target)
        length = self.lengths[target] = self.lengths[source]
        for all_ in (self.keys, self.values):
            all_[:, target, :, :length] = all_[:, source, :, :length]

    @staticmethod
    def join(caches: Sequence[KVCache]) -> KVCache:
        """Return a new cache with the rows of all `caches`, one after another; capacities must be
        equal."""
        caches = list(several("caches", caches, "a list of caches")) or [None]
        for cache in caches:
            require_kind("one of the caches", cache, KVCache, "a cache")
        forms = [
            (type(c), c.capacity, c.keys.dtype, len(c.keys), *c.keys.shape[2:]) for c in caches
        ]
        if len({*forms}) > 1:
            raise InputError(
                "cannot join caches of different shapes or types:"
                f" {[(c.keys.dtype.name, c.keys.shape) for c in caches]!s:.200}"
            )
        keys = np.concatenate([c.keys for c in caches], axis=1)
        values = np.concatenate([c.values for c in caches], axis=1)
        return caches[0]._with(keys, values, np.concatenate([c.lengths for c in caches]))

    def _with(self, keys, values, lengths) -> KVCache:
        """A cache of this kind that holds other arrays."""
        other = copy(self)
        other.keys, other.values, other.lengths = keys, values, lengths
        other.fitting = KVCache.fitting  # which would keep our arrays in memory
        return other


class LayerCache:
    """One layer of a KVCache: keys, values [B,H,capacity,D]."""

    def __init__(self, keys, values, lengths):
        self.keys, self.values, self.lengths = keys, values, lengths

    def append(self, k, v):
        """Write new keys and values [B,H,T,D] behind each row's length; return all [B,H,S,D], as
        views unless the cache stores another dtype than the model computes with.

        S = the longest row + T. The lengths move only in KVCache.advance, once for all layers; what
        stands beyond a row's length (padding, the past of a longer row) is hidden by the mask and
        overwritten later. Finite numbers too large for the cache's type become its largest, as in
        weights of float16: softmax then still picks that key, where infinity would give NaN.
        """
        k_stored, v_stored = (narrowed(a, self.keys.dtype) for a in (k, v))
        T, capacity = k.shape[2], self.keys.shape[2]
        for row, start in enumerate(self.lengths):
            fits = min(
                T, capacity - start
            )  # only padding can fail to fit: the model has checked the rest
            self.keys[row, :, start : start + fits] = k_stored[row, :, :fits]
            self.values[row, :, start : start + fits] = v_stored[row, :, :fits]
        S = min(int(self.lengths.max()) + T, capacity)
        return tuple(
            all_[:, :, :S].astype(k.dtype, copy=False) for all_ in (self.keys, self.values)
        )


class SlidingCache(KVCache):
    """Sliding window: a cache of the newest `window` keys and values only, each as computed at its
    own position.

    Every layer attends to positions p - window < s <= p, so memory is window instead of S places
    and attention costs window instead of S products a token; the last layer still hears of text up
    to L * window back, through the layers. Position p stands at place p % window: softmax does not
    care for order, and a position is part of the key: added with wpe at the bottom, or an angle by
    which the key was turned. wpe has n_positions rows, and a text no more positions; angles go on
    beyond those of the training (see furthest). One position at a time (T = 1), since a pass of
    several would need keys that its last position must no longer see.

    What is exact: the model with that band as its mask. It is not the trained model once S >
    window: the first tokens, on which much attention rests, go. The alternative within the same
    memory of text, reading the last W tokens anew for each new one, gives the trained model on a
    text that begins W tokens ago, for W positions of work a token instead of 1. Source: Beltagy,
    Peters, Cohan, "Longformer" (2020), section 3.1; Xiao et al., "Efficient Streaming Language
    Models with Attention Sinks" (2023), on what is lost with the first tokens.
    """

    one_at_a_time = True

    def __init__(self, config, batch: int, window: int, dtype=np.float32):
        super().__init__(config, batch, window, dtype)
        self._capacity = furthest(config)

    @property
    def capacity(self) -> int:
        """The most positions that a row can see go by."""
        return self._capacity

    def layer(self, index: int) -> LayerCache:
        return self._layer(SlidingLayer, index)

    def truncate(self, length: int, row: int | None = None) -> None:
        """Forget as KVCache does; InputError where newer positions have taken the places of those
        that would stay."""
        longest = int(self.lengths.max() if row is None else self.lengths[self._row("row", row)])
        if longest > self.keys.shape[3] and 0 < whole_number("length", length, 0) < longest:
            raise InputError(
                f"a sliding cache that has seen {longest} positions cannot go back to {length}: it"
                f" holds the newest {self.keys.shape[3]} only; 0 empties it"
            )
        super().truncate(length, row)


class SlidingLayer(LayerCache):
    """One layer of a SlidingCache."""

    def append(self, k, v):
        """Write one new key and value over the oldest; return those kept [B,H,<= window,D]."""
        if k.shape[2] != 1:
            raise InputError(f"a sliding cache takes one position at a time, not {k.shape[2]}")
        window = self.keys.shape[2]
        rows, places = np.arange(len(self.lengths)), self.lengths % window
        self.keys[rows, :, places] = narrowed(k[:, :, 0], self.keys.dtype)
        self.values[rows, :, places] = narrowed(v[:, :, 0], self.values.dtype)
        kept = min(int(self.lengths.max()) + 1, window)
        return tuple(
            all_[:, :, :kept].astype(k.dtype, copy=False) for all_ in (self.keys, self.values)
        )
