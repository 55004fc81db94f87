"""The cache: what does not fit a model is refused on every twin, and what is beyond its type."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from minillm import GPT2, GPT2Config, InputError, kernels, ops
from minillm.compression import prune_heads, skip_layers
from minillm.layers.cache import KVCache, SlidingCache
from minillm.weights import store_parameters

CONFIG = GPT2Config(vocab_size=61, n_positions=16, n_embd=24, n_layer=3, n_head=2)
MODEL = GPT2.random(CONFIG, seed=1)
IDS = np.array([[3, 5], [4, 6]])


def twins():
    """The textbook, a folder of exercises' kind of twin, and the kernels, where there are any."""
    yield GPT2(CONFIG, MODEL.parameters, ops)
    yield GPT2(CONFIG, MODEL.parameters, SimpleNamespace(**vars(ops)))
    if kernels.available():
        yield GPT2(CONFIG, store_parameters(MODEL.parameters, "float32", MODEL.layout), kernels)


def other(**changes):
    return KVCache(GPT2Config(**{**vars(CONFIG), **changes}), 2)


def changed(name, change, cache=None):
    """A cache of which one array is another one."""
    cache = cache or MODEL.new_cache(2)
    setattr(cache, name, change(getattr(cache, name)))
    return cache


def of_type(dtype):
    """A cache that holds numbers of a type which none is made of."""
    return changed("keys", lambda k: k.astype(dtype), changed("values", lambda v: v.astype(dtype)))


def read_only(array):
    array.flags.writeable = False
    return array


def at_an_odd_address(array):
    return np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)


def in_memory(choose):
    """A cache of other arrays: (keys, values) -> (keys, values) or (keys, values, lengths)."""
    cache = MODEL.new_cache(2)
    names = ("keys", "values", "lengths")
    vars(cache).update(zip(names, choose(cache.keys, cache.values)))
    return cache


def shifted(keys, values):
    n, D = keys.size, keys.shape[-1]
    both = np.zeros(n + D, keys.dtype)
    return both[:n].reshape(keys.shape), both[D:].reshape(keys.shape)


def overlapping(axis, stride):
    """A cache with another step along an axis of keys and values."""

    def stepped(array):
        strides = [stride if i == axis else s for i, s in enumerate(array.strides)]
        return as_strided(array, array.shape, strides)

    return in_memory(lambda *arrays: map(stepped, arrays))


FOREIGN = {
    "fewer layers": lambda: other(n_layer=2),
    "more layers": lambda: other(n_layer=4),
    "fewer heads": lambda: other(n_head=1, head_size=12),
    "more heads": lambda: other(n_head=4, head_size=12),
    "another head size": lambda: other(n_head=2, n_embd=20),
    "more positions": lambda: other(n_positions=17),
    "skip_layers": lambda: skip_layers(MODEL, 1).new_cache(2),
    "pruned heads": lambda: prune_heads(MODEL, 1, IDS).new_cache(2),
    "sliding, more positions": lambda: SlidingCache(
        GPT2Config(**{**vars(CONFIG), "n_positions": 99}), 2, 4
    ),
    "sliding, no place": lambda: changed(
        "values", lambda v: v[:, :, :, :0], changed("keys", lambda k: k[:, :, :, :0])
    ),
    "fewer values": lambda: changed("values", lambda v: v[:2].copy()),
    "fewer places for values": lambda: changed("values", lambda v: v[:, :, :, :3]),
    "values in another order": lambda: changed(
        "values", lambda v: v.swapaxes(0, 1).copy().swapaxes(0, 1)
    ),
    "heads side by side": lambda: KVCache._with(
        MODEL.new_cache(2),
        *(np.zeros((3, 2, 16, 2, 12), np.float32).swapaxes(2, 3) for _ in "kv"),
        np.zeros(2, np.int64),
    ),
    "integers": lambda: of_type(np.int32),
    "complex": lambda: of_type(np.complex64),
    "the other order of bytes": lambda: of_type(">f4"),
    "values of another type": lambda: changed("values", lambda v: v.astype(np.float64)),
    "read-only keys": lambda: changed("keys", read_only),
    "read-only values": lambda: changed("values", read_only),
    "an odd address": lambda: changed("values", at_an_odd_address),
    "a list of keys": lambda: changed("keys", np.ndarray.tolist),
    "values that are keys": lambda: in_memory(lambda k, v: (k, k)),
    "values that are a view of keys": lambda: in_memory(lambda k, v: (k, k[:, ::-1][:, ::-1])),
    "values that begin within keys": lambda: in_memory(shifted),
    "lengths within keys": lambda: in_memory(lambda k, v: (k, v, k.view(np.int64)[0, 0, 0, :2, 0])),
    "lengths in one place": lambda: changed("lengths", lambda n: as_strided(n, n.shape, (0,))),
    "rows in one place": lambda: overlapping(1, 0),
    "layers in one place": lambda: overlapping(0, 0),
    "heads that overlap": lambda: overlapping(2, 48),
    "a negative length": lambda: changed("lengths", lambda n: n - [0, 1]),
    "a length beyond": lambda: changed("lengths", lambda n: n + [17, 0]),
    "more lengths": lambda: changed("lengths", lambda n: np.zeros(3, np.int64)),
    "lengths of int32": lambda: changed("lengths", lambda n: n.astype(np.int32)),
    "read-only lengths": lambda: changed("lengths", read_only),
    "a list of lengths": lambda: changed("lengths", np.ndarray.tolist),
    "a sliding cache's length": lambda: changed(
        "lengths", lambda n: n + 17, SlidingCache(CONFIG, 2, 4)
    ),
    "fewer rows": lambda: MODEL.new_cache(1),
    "more rows": lambda: MODEL.new_cache(3),
    "nothing": list,
    "a dictionary": dict,
    "keys and values": lambda: (MODEL.new_cache(2).keys, MODEL.new_cache(2).values),
    "False": lambda: False,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_cache_that_does_not_fit_is_refused_alike_by_every_twin(name):
    messages = set()
    for model in twins():
        cache = FOREIGN[name]()
        before = cache.keys.copy() if isinstance(getattr(cache, "keys", 0), np.ndarray) else None
        with pytest.raises(InputError, match="cache") as error:
            model(IDS[:, :1], cache)
        messages.add(str(error.value))
        assert before is None or np.array_equal(cache.keys, before)
    assert len(messages) == 1 and "\n" not in messages.pop()


def test_both_shapes_are_named():
    with pytest.raises(InputError, match=r"\(2, 2, 2, 16, 12\).*\(3, 2, 2, 1 to 16, 12\)"):
        MODEL(IDS, other(n_layer=2))


def test_what_fitted_once_is_looked_at_again_when_it_is_another():
    for model in twins():
        cache = model.new_cache(2)
        model(IDS[:, :1], cache)
        for name in FOREIGN:
            foreign = FOREIGN[name]()
            if not isinstance(foreign, KVCache) or "sliding" in name:
                continue
            again = cache.take([0, 1])
            again.keys, again.values, again.lengths = foreign.keys, foreign.values, foreign.lengths
            with pytest.raises(InputError, match="cache"):
                model(IDS[:, 1:], again)
        model(IDS[:, 1:], cache)
        with pytest.raises(InputError, match="the cache holds"):  # the same cache, another model
            skip_layers(model, 1)(IDS[:, :1], cache)


def test_keys_and_values_may_lie_among_each_other():
    """Layer by layer in one array, for one."""
    for model in twins():
        both = np.zeros((3, 2, *model.new_cache(2).keys.shape[1:]), np.float32)
        cache, plain = in_memory(lambda *_, b=both: (b[:, 0], b[:, 1])), model.new_cache(2)
        for column in IDS.T[..., None]:
            np.testing.assert_array_equal(model(column, cache), model(column, plain))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_fits_is_taken(dtype):
    for model in twins():
        cache = model.new_cache(4, capacity=3, dtype=dtype)
        whole = model.new_cache(2, capacity=3, dtype=dtype)
        for part in (cache.view(slice(1, 3)), cache.take([2, 0]), KVCache.join([whole])):
            for column in IDS.T:
                model(column[:, None], part)
            assert part.lengths.tolist() == [2, 2]


def test_parts_of_a_sliding_cache_slide():
    for model in twins():
        cache = SlidingCache(CONFIG, 2, 4)
        for part in (cache.take([1, 0]), cache.view(slice(0, 2)), SlidingCache.join([cache])):
            assert isinstance(part, SlidingCache) and part.capacity == 16
            for _ in range(6):
                model(IDS[:, :1], part)
    with pytest.raises(InputError, match="different shapes"):
        KVCache.join([SlidingCache(CONFIG, 1, 16), KVCache(CONFIG)])


def test_a_sliding_cache_does_not_go_back_to_what_it_has_overwritten():
    cache, ids = SlidingCache(CONFIG, 1, 4), IDS[:1, :1]
    for _ in range(3):
        MODEL(ids, cache)
    kept = cache.take([0])
    MODEL(ids, cache)
    cache.truncate(3)  # nothing is overwritten yet
    assert (MODEL(ids, cache) == MODEL(ids, kept)).all()
    MODEL(ids, cache)
    with pytest.raises(InputError, match=r"has seen 5 positions cannot go back to 3: .*newest 4"):
        cache.truncate(3)
    cache.truncate(0)
    assert (MODEL(ids, cache) == MODEL(ids, SlidingCache(CONFIG, 1, 4))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.truncate(1.0), "length is 1.0; it must be a whole number of at least 0"),
        (lambda c: c.truncate(1, 2), "row is 2; the cache has the rows 0 to 1"),
        (lambda c: c.take([0, -1]), "rows is -1; it must be a whole number of at least 0"),
        (lambda c: c.move(0, 2), "target is 2; the cache has the rows 0 to 1"),
        (lambda c: c.view(1), "rows is 1; it must be a slice"),
        (lambda c: c.layer(3), "layer 3 is none of the cache's 3"),
        (lambda c: c.advance([1, 2, 3]), "one for each of 2 rows"),
        (lambda c: KVCache.join([c, None]), "one of the caches is None; it must be a cache"),
        (
            lambda c: KVCache.join([c, MODEL.new_cache(2, dtype=np.float16)]),
            "different shapes or types: .*'float16'",
        ),
        (lambda c: MODEL.new_cache(10**12), "10{12} x 16 positions would take about .* are free"),
    ],
)
def test_wrong_rows_and_lengths_are_told(call, message):
    cache = MODEL.new_cache(2)
    MODEL(IDS, cache)
    with pytest.raises(InputError, match=message):
        call(cache)
    assert cache.lengths.tolist() == [2, 2]


def test_what_is_too_large_for_a_cache_of_float16_becomes_its_largest_number():
    """As in weights of float16. Infinity stays, and shows."""
    for value, kept in ((1e5, 65504), (-1e5, -65504), (np.inf, np.inf), (-np.inf, -np.inf)):
        for model in twins():
            cache = model.new_cache(2, dtype=np.float16)
            parameters = {**model.parameters}
            bias = np.array(parameters["h.0.attn.c_attn.bias"])
            bias[[24, 48]] = value  # the first number of keys and of values
            parameters["h.0.attn.c_attn.bias"] = bias
            with np.errstate(invalid="ignore"):
                logits = GPT2(CONFIG, parameters, model.ops)(IDS[:, :1], cache)
            for array in (cache.keys, cache.values):
                assert (array[0, :, 0, 0, 0] == kept).all()
            assert np.isfinite(logits).all() == np.isfinite(value)


def test_a_cache_that_grows_goes_on_and_an_interrupted_one_is_empty():
    for model in twins():
        cache, plain = model.new_cache(2, capacity=4), model.new_cache(2)
        model(IDS[:, :1], cache), model(IDS[:, :1], plain)
        cache.grow_into(model.new_cache(2))
        assert cache.capacity == plain.capacity
        np.testing.assert_array_equal(model(IDS[:, 1:], cache), model(IDS[:, 1:], plain))

    class Interrupted(np.ndarray):
        def __iter__(self):
            raise KeyboardInterrupt

    small, filled, larger = (model.new_cache(2, capacity=n) for n in (1, 16, 16))
    filled.lengths[:] = 1
    for wrong in (cache, small, filled, model.new_cache(1), model.new_cache(2, dtype=np.float16)):
        with pytest.raises(InputError, match="cannot grow into KVCache"):
            cache.grow_into(wrong)
    assert cache.lengths.tolist() == [IDS.shape[1]] * 2
    vars(larger)["keys"] = larger.keys.view(Interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.grow_into(larger)
    assert cache.lengths.tolist() == [0, 0]
