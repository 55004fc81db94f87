"""The fused step equals the readable forward: each kind of weight, position, activation, shape."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba")

from minillm import kernels, ops
from minillm.bench.run import PROCESSORS
from minillm.decoding.cycle import AT_ONCE
from minillm.families.gpt2.config import GPT2Config
from minillm.families.gpt2.program import program
from minillm.kernels import decode as kernels_decode
from minillm.kernels import threads
from minillm.kernels.processor import FEATURES, HAS_HALVES
from minillm.layers.cache import KVCache, SlidingCache
from minillm.model import GPT2
from minillm.steps import identity
from minillm.weights import KINDS, Float32, Weight, store_parameters

from .validator import to_bfloat16

# n_embd 36: neither whole panels of 16 nor whole blocks of 32; 12 heads of 3 numbers would be
# shared by up to 4 threads
SMALL = GPT2Config(vocab_size=131, n_positions=20, n_embd=36, n_layer=3, n_head=3)
# float32 sums in another order: worst seen 4e-7 of the largest logit. Blocks round each product's
# input to 8 bits: worst seen 1.1e-2 of the largest logit in 3 layers.
TOLERANCE = {kind: 3e-2 if kind.startswith("int") else 3e-6 for kind in KINDS}
# What differs in its last bit may be rounded to another bfloat16: worst seen 3.4e-3.
TOLERANCE["bfloat16_rounded"] = 1e-2


def random_model(config, seed=0):
    """A model whose biases and norms are not what training starts from: a forgotten one shows."""
    model, r = GPT2.random(config, seed), np.random.default_rng(seed)
    moved = {
        n: p + r.standard_normal(p.shape).astype(np.float32) * 0.1
        for n, p in model.parameters.items()
    }
    return model.with_parameters(moved)


def stored(model, kind):
    return GPT2(model.config, store_parameters(model.parameters, kind, model.layout))


def fused(model):
    return kernels.DecodeStep(program(model.config, model.parameters))


def decode(model, ids, step=None):
    """Logits [T,V] of ids [T], one after another, and the cache."""
    step, cache = step or fused(model), model.new_cache()
    return np.concatenate([one(step, i, cache) for i in ids]), cache


def one(step, id, cache):
    """Logits [1,V] after one more id."""
    return step(np.array([[id]]), cache)[0]


def close(logits, reference, kind):
    assert logits.dtype == reference.dtype == np.float32 and logits.shape == reference.shape
    assert np.abs(logits - reference).max() <= TOLERANCE[kind] * np.abs(reference).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_equals_the_readable_forward_at_every_position(kind, n_threads):
    threads.set_threads(n_threads)
    try:
        model = stored(random_model(SMALL), kind)
        ids = np.random.default_rng(1).integers(0, 131, 20)
        reference_cache = model.new_cache()
        reference = model(ids, reference_cache)
        logits, cache = decode(model, ids)
        close(logits, reference, kind)
        assert cache.lengths.tolist() == [20]
        scale = np.abs(reference_cache.keys).max()
        assert np.abs(cache.keys - reference_cache.keys).max() <= TOLERANCE[kind] * scale
        assert np.abs(cache.values - reference_cache.values).max() <= TOLERANCE[kind] * scale
    finally:
        threads.set_threads(None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lanes", [1, 5])  # of 5, each has a part of a head's context
def test_threads_that_come_and_go_change_no_bit(kind, lanes, monkeypatch):
    model = stored(random_model(SMALL), kind)
    monkeypatch.setattr(kernels_decode, "n_threads", lambda: lanes)

    def logits(numbers):
        changing, used = cycle(numbers), []
        run = lambda team, *rest: (used.append(team.n), right(team, *rest))  # noqa: E731
        monkeypatch.setattr(kernels_decode, "threads_now", lambda: next(changing))
        monkeypatch.setattr(threads.Team, "run", run)
        step, cache = fused(model), model.new_cache()
        several = step(np.arange(6).reshape(1, 6), cache)[0]
        rest = [one(step, i, cache) for i in range(6, 18)]
        assert set(used) == set(numbers)
        return np.concatenate([several, *rest]), cache.keys, cache.values

    right = threads.Team.run
    alone = logits([1])
    for numbers in ([2, 1, 3, 2], [3, 3, 1]):
        for mine, theirs in zip(logits(numbers), alone):
            assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("n_threads", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_that_goes_on_alone_changes_no_bit(kind, n_threads, monkeypatch):
    """As where the others have slept for long at meetings of the same pass."""
    model, went = stored(random_model(SMALL), kind), []
    monkeypatch.setattr(threads, "judge", lambda n, took, lost: went.append(lost > 0))

    def logits(n, slept):
        monkeypatch.setattr(kernels_decode, "threads_now", lambda: n)
        step, cache, found = fused(model), model.new_cache(), []
        for i in range(20):
            if i and i % 3 in slept:
                step._team.state[[threads.LOST, threads.ENOUGH]] = 1, 0
            found.append(one(step, i, cache))
        return np.concatenate(found), cache.keys, cache.values

    alone = logits(1, [])
    for slept in ([], [1], [0, 1, 2]):
        for _ in range(50):  # beside busy neighbours a thread may have gone before the next step
            for mine, theirs in zip(logits(n_threads, slept), alone):
                assert np.array_equal(mine, theirs)
            if any(went) or not slept:
                break
        assert any(went) or not slept
        went.clear()


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_function": "gelu"},
        {"activation_function": "relu"},
        {"n_inner": 50},
        {"n_head": 2, "head_size": 12},
        {"n_head": 5, "head_size": 12},
        {"n_layer": 1, "n_head": 1},
        {"vocab_size": 1, "n_embd": 1, "n_head": 1},
        {"n_embd": 64, "n_head": 4, "scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False, "layer_norm_epsilon": 1e-2},
        {"tie_word_embeddings": False},
    ],
    ids=str,
)
def test_every_config(changes):
    model = stored(random_model(dataclasses.replace(SMALL, **changes)), "float32")
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, 9)
    close(decode(model, ids)[0], model(ids), "float32")


def test_goes_on_from_a_prefill_and_after_truncating():
    model = stored(random_model(SMALL), "float32")
    ids = np.random.default_rng(1).integers(0, 131, 20)
    step, cache = fused(model), model.new_cache(capacity=15)
    model(ids[:11], cache)
    for n in (11, 12, 13):
        close(one(step, ids[n], cache), model(ids[: n + 1])[-1:], "float32")
    cache.truncate(4)
    close(one(step, ids[7], cache), model(np.append(ids[:4], ids[7]))[-1:], "float32")


def test_two_caches_in_turn_and_a_new_one():
    model = stored(random_model(SMALL), "float32")
    ids = np.random.default_rng(1).integers(0, 131, (3, 8))
    reference, step = model(ids), fused(model)
    caches = [model.new_cache(), model.new_cache()]
    for t in range(8):
        for row, cache in enumerate(caches):  # the other threads may still hold the last one
            close(one(step, ids[row, t], cache), reference[row, [t]], "float32")
    del caches, cache
    cache = model.new_cache()
    for t in range(8):
        close(one(step, ids[2, t], cache), reference[2, [t]], "float32")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("parts", [(1, 10, 4, 5), (2, 2, 9, 1, 6)], ids=str)
def test_several_positions_of_several_rows(kind, n_threads, parts):
    """Each sees what is before it, also within the pass; nothing after it or of another row."""
    threads.set_threads(n_threads)
    try:
        model = stored(random_model(SMALL), kind)
        ids = np.random.default_rng(1).integers(0, 131, (3, 20))
        step, cache = fused(model), model.new_cache(3)
        passes = [step(part, cache) for part in np.split(ids, np.cumsum(parts)[:-1], axis=1)]
        close(np.concatenate(passes, axis=1), model(ids), kind)
    finally:
        threads.set_threads(None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_many_positions_of_one_text(kind, n_threads):
    """They attend in tiles of 64 queries by 256 keys, and threads take shares of products in turn:
    the second pass sees what the first has left, across the border of a tile."""
    long = dataclasses.replace(SMALL, n_positions=400)
    model, ids = stored(random_model(long), kind), np.random.default_rng(1).integers(0, 131, 400)
    threads.set_threads(n_threads)
    try:
        step, cache = fused(model), model.new_cache()
        parts = np.split(ids[None], [33, 240, 241], axis=1)
        logits = np.concatenate([step(part, cache)[0] for part in parts])
        reference_cache = model.new_cache()
        close(logits, model(ids, reference_cache, step=lambda name, value: value), kind)
        scale = np.abs(reference_cache.values).max()
        assert np.abs(cache.values - reference_cache.values).max() <= TOLERANCE[kind] * scale
        assert cache.lengths.tolist() == [400]
        close(step(ids[None], model.new_cache(), last=True)[0], logits[-1:], kind)
    finally:
        threads.set_threads(None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep it")
def test_a_long_pass_gives_its_workspace_back():
    """To the next short one."""
    model = stored(random_model(dataclasses.replace(SMALL, n_positions=400)), "float32")
    step, cache, ids = fused(model), model.new_cache(), np.arange(301)[None] % 131
    step(ids[:, :300], cache)
    assert any(rows[100:200].any() for rows in step._workspace)
    step(ids[:, 300:], cache)
    assert not any(rows[100:200].any() for rows in step._workspace)


def test_what_is_read_at_once_fits_into_one_pass():
    assert AT_ONCE <= kernels.DecodeStep.MOST


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_many_texts_at_once(kind):
    """More than a few rows, one position of each: as each by itself."""
    model = stored(random_model(SMALL), kind)
    ids = np.random.default_rng(1).integers(0, 131, (50, 6))
    step, cache = fused(model), model.new_cache(50)
    together = np.concatenate([step(ids[:, [t]], cache) for t in range(6)], axis=1)
    for row in (0, 31, 32, 49):
        close(together[row], decode(model, ids[row])[0], kind)
    assert not step.fits(model.new_cache(20), [2] * 20)


def test_many_positions_in_a_cache_of_float16():
    if not HAS_HALVES:
        pytest.skip("this processor has no instruction for float16")
    long = dataclasses.replace(SMALL, n_positions=300)
    model, ids = stored(random_model(long), "float32"), np.arange(100)[None]
    at_once, in_turn = (KVCache(long, dtype=np.float16) for _ in range(2))
    found = fused(model)(ids, at_once)
    parts = [fused(model)(ids[:, i : i + 20], in_turn) for i in range(0, 100, 20)]
    # the same rounding of keys and values, but for one that lies between: worst seen 1.1e-6
    assert np.abs(found - np.concatenate(parts, axis=1)).max() <= 1e-3 * np.abs(found).max()
    assert (at_once.keys == in_turn.keys).mean() > 0.99


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_long_contexts_are_cut_where_heads_do_not_share_out_evenly(n_threads):
    """Three heads for two threads, and for four; from 256 places on, in two rows of one pass."""
    long = dataclasses.replace(SMALL, n_positions=300)
    model = stored(random_model(long), "float32")
    ids = np.random.default_rng(1).integers(0, 131, (2, 280))
    threads.set_threads(n_threads)
    try:
        step, cache = fused(model), model.new_cache(2)
        model(ids[:, :250], cache)
        passes = [step(part, cache) for part in np.split(ids[:, 250:], [3, 4, 16], axis=1)]
        close(np.concatenate(passes, axis=1), model(ids)[:, 250:], "float32")
    finally:
        threads.set_threads(None)


def test_ragged_rows():
    model = stored(random_model(SMALL), "float32")
    ids, lengths = (
        np.random.default_rng(1).integers(0, 131, (3, 8)),
        np.array([[5, 1, 8], [1, 7, 2], [8, 3, 4]]),
    )
    step, cache, texts = (
        fused(model),
        model.new_cache(3),
        [[], [], []],
    )
    for counts in lengths:
        logits = step(ids, cache, counts.tolist(), last=True)
        for text, row, n, found in zip(texts, ids, counts, logits):
            text += row[:n].tolist()
            close(found, model(text)[-1:], "float32")
    assert cache.lengths.tolist() == lengths.sum(axis=0).tolist()


def test_rows_of_a_larger_cache():
    """What `view` gives is not in one piece: the rows that are not in it must stay as they are."""
    model = stored(random_model(SMALL), "float32")
    ids = np.random.default_rng(1).integers(0, 131, (4, 6))
    step, cache = fused(model), model.new_cache(4)
    model(ids[:, :5], cache)
    before = cache.keys.copy()
    close(step(ids[1:3, 5:], cache.view(slice(1, 3))), model(ids)[1:3, -1:], "float32")
    assert np.array_equal(cache.keys[:, [0, 3]], before[:, [0, 3]]) and not np.array_equal(
        cache.keys, before
    )


def test_a_sliding_cache():
    model, ids = (
        stored(random_model(SMALL), "float32"),
        np.random.default_rng(1).integers(0, 131, (2, 20)),
    )
    step, cache, other = (
        fused(model),
        *(SlidingCache(SMALL, 2, 6) for _ in range(2)),
    )
    for t in range(20):  # three times round
        close(
            step(ids[:, [t]], cache),
            model(ids[:, [t]], other, step=lambda name, value: value),
            "float32",
        )
    assert not step.fits(SlidingCache(SMALL, 2, 6), [2, 1])


@pytest.mark.parametrize("kind", ["float32", "int4"])
def test_weights_in_a_mapped_file(kind, tmp_path):
    model = stored(random_model(SMALL), kind)
    mapped = {}
    for name, p in model.parameters.items():
        if isinstance(p, Weight):
            arrays = {}
            for key, array in p.arrays.items():
                np.save(tmp_path / f"{name}.{key}.npy", array)
                arrays[key] = np.load(tmp_path / f"{name}.{key}.npy", mmap_mode="r")
            mapped[name] = type(p)(arrays, p.n, p.k, p.transposed)
        else:
            mapped[name] = p.copy()
            mapped[name].flags.writeable = False
    ids = np.arange(9)
    mapped = GPT2(SMALL, mapped, kernels)
    assert np.array_equal(decode(mapped, ids)[0], decode(model, ids)[0])
    close(mapped(ids), model(ids), kind)


def test_cache_of_float16():
    if not HAS_HALVES:
        pytest.skip("this processor has no instruction for float16")
    model = stored(random_model(SMALL), "float32")
    ids = np.random.default_rng(1).integers(0, 131, 20)
    step, cache = (
        fused(model),
        KVCache(SMALL, dtype=np.float16),
    )
    exact = model(ids)
    logits = np.concatenate([one(step, i, cache) for i in ids])
    # float16 keeps 11 bits of keys and values: worst seen 1.5e-4 of the largest logit
    assert 0 < np.abs(logits - exact).max() <= 1e-3 * np.abs(exact).max()
    reference = model.new_cache()
    model(ids[:1], reference)  # the first key and value depend on no other
    assert np.array_equal(cache.keys[0, 0, :, 0], reference.keys[0, 0, :, 0].astype(np.float16))
    assert not step.fits(KVCache(SMALL, dtype=np.float64), [1])


def test_a_cache_of_float16_saturates():
    """As in the readable forward: the same bits in the cache, and infinity stays what it is."""
    if not HAS_HALVES:
        pytest.skip("this processor has no instruction for float16")
    model = random_model(SMALL)
    values = np.array([1e5, -1e5, 65504, 65519, 65520, -65521, 3e38, np.inf, -np.inf, np.nan, 1e-7])
    bias = model.parameters["h.0.attn.c_attn.bias"].copy()
    bias[36:47] = bias[72:83] = values
    model = stored(model.with_parameters({"h.0.attn.c_attn.bias": bias}), "float32")
    mine, readable = KVCache(SMALL, dtype=np.float16), KVCache(SMALL, dtype=np.float16)
    one(fused(model), 3, mine)
    with np.errstate(invalid="ignore"):
        model([3], readable)
    for a, b in ((mine.keys, readable.keys), (mine.values, readable.values)):
        first = b[0, 0, :, 0].ravel()[:11]
        assert np.array_equal(a[0, 0, :, 0].ravel()[:11], first, equal_nan=True)
        assert np.isinf(first).tolist() == [False] * 7 + [True] * 2 + [False] * 2
        assert first[:2].tolist() == [65504, -65504] and np.isnan(first[9])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, value",
    [
        (
            "ln_f.bias",
            np.inf,
        ),  # the head's input: logits of both signs, and NaN where a weight is 0
        ("ln_f.bias", np.nan),
        ("h.0.mlp.c_fc.bias", np.inf),
        ("h.0.mlp.c_fc.bias", -np.inf),
        ("h.0.mlp.c_fc.bias", np.nan),
        ("h.1.attn.c_attn.bias", np.nan),
        ("h.1.attn.c_attn.bias", np.inf),
        ("h.2.attn.c_proj.bias", np.nan),
        ("h.2.ln_2.weight", np.inf),
        ("wpe.weight", np.nan),
    ],
)
def test_what_is_not_finite_is_so_in_the_textbook_too(kind, name, value):
    for activation in ("gelu_new", "gelu", "relu"):
        model = random_model(dataclasses.replace(SMALL, activation_function=activation))
        changed = {n: model.parameters[n].copy() for n in ("wte.weight", name)}
        changed["wte.weight"][7, 2] = 0  # infinity times 0 is NaN
        changed[name].flat[2] = value  # of wpe: at the first position
        parameters = store_parameters(model.with_parameters(changed).parameters, kind, model.layout)
        book, fast = GPT2(model.config, parameters), GPT2(model.config, parameters, kernels)
        caches = book.new_cache(), fast.new_cache()
        for id in (3, 130, 0):
            with np.errstate(invalid="ignore"):
                expected, found = (m([id], c) for m, c in zip((book, fast), caches))
            for what in (np.isnan, np.isposinf, np.isneginf):
                assert np.array_equal(what(found), what(expected)), (activation, what)
            finite = np.isfinite(expected)
            assert (np.abs(found[finite] - expected[finite]) <= TOLERANCE[kind] * 10).all()
        assert caches[1].lengths.tolist() == [3]


def test_infinity_is_found_by_whoever_rounds_it(monkeypatch):
    """Threads take shares of many rows in turn: the first, if it comes late, rounds none."""
    run = threads.Team.run
    late = lambda work: lambda i: (i or time.sleep(0.1), work(i))  # noqa: E731
    monkeypatch.setattr(threads.Team, "run", lambda team, work, again: run(team, late(work), again))
    model = random_model(dataclasses.replace(SMALL, n_positions=40))
    model = model.with_parameters({"h.0.ln_1.bias": np.full(36, np.inf, np.float32)})
    parameters, name = dict(stored(model, "float32").parameters), "h.0.attn.c_attn.weight"
    parameters |= store_parameters({name: model.parameters[name]}, "int8", SMALL.layout)
    threads.set_threads(2)
    try:
        model = GPT2(model.config, parameters)
        cache = model.new_cache()
        assert fused(model)(np.arange(40)[None], cache) is None
        assert cache.lengths.tolist() == [0]
    finally:
        threads.set_threads(None)


@pytest.mark.live  # ten seconds, in two processes
@pytest.mark.skipif(
    sys.platform == "win32",
    reason="mprotect is POSIX's; there only the comparisons with the readable forward protect",
)
def test_no_array_is_left_at_either_end():
    """In a process of its own, which would end: see guarded.py."""
    script = Path(__file__).with_name("guarded.py")
    paths = os.pathsep.join([str(script.parents[2]), os.environ.get("PYTHONPATH", "")])

    def run(*arguments):
        return subprocess.run(
            [sys.executable, script, *arguments],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )

    done = run()
    assert done.returncode == 0 and done.stdout.strip().endswith("cases"), done.stderr
    assert -run("overrun").returncode in (signal.SIGSEGV, signal.SIGBUS)


def test_every_matrix_of_a_kind_of_its_own():
    model, kinds = random_model(SMALL), sorted(KINDS)
    matrices = [
        name for name, p in model.parameters.items() if p.ndim == 2 and name != "wpe.weight"
    ]
    parameters = dict(model.parameters)
    for n, name in enumerate(matrices):
        parameters |= store_parameters(
            {name: parameters[name]}, kinds[n % len(kinds)], SMALL.layout
        )
    model, ids = GPT2(SMALL, parameters), np.arange(9)
    assert len({model.parameters[name].kind for name in matrices}) == len(KINDS)
    close(decode(model, ids)[0], model(ids), "int4")


@pytest.mark.parametrize("n_threads", [1, 3])
def test_what_enters_a_product_is_rounded_to_bfloat16_in_every_path_alike(n_threads):
    """Against the textbook with matrices that are arrays, and a `linear` that rounds. What differs
    in its last bit may be rounded to another number, which changes later logits by up to 3.4e-3 of
    the largest (worst seen, four models); a tenth of them at least is as without (worst seen 1e-7
    of the largest, where one product that does not round changes all: to 1.7e-5)."""
    long = dataclasses.replace(SMALL, n_positions=80)
    rounded = stored(random_model(long), "bfloat16_rounded")
    dense = {name: np.asarray(p) for name, p in rounded.parameters.items()}
    rounding = SimpleNamespace(**vars(ops))
    rounding.linear = lambda x, weight, bias=0.0: ops.linear(to_bfloat16(x), weight, bias)
    ids = np.random.default_rng(1).integers(0, 131, (2, 80))
    expected = GPT2(long, dense, rounding)(ids)
    largest = np.abs(expected).max()

    def agree(found):
        apart = np.abs(found - expected[: len(found), : found.shape[1]]) / largest
        return apart.max() <= 1e-2 and np.quantile(apart, 0.1) <= 1e-6

    def passes(model, rows, parts, step):
        cache, parts = model.new_cache(rows), np.split(ids[:rows], np.cumsum(parts), axis=1)[:-1]
        return np.concatenate([model(part, cache, step=step) for part in parts], axis=1)

    assert not agree(GPT2(long, dense)(ids))
    threads.set_threads(n_threads)
    try:
        for model in (GPT2(long, rounded.parameters, twin) for twin in (ops, kernels)):
            assert agree(model(ids))
            for rows, parts in ((1, (1,) * 8), (1, (70, 9)), (2, (8, 1))):
                for step in (identity, lambda name, value: value):  # fused, and readable
                    assert agree(passes(model, rows, parts, step)), (rows, parts)
    finally:
        threads.set_threads(None)


def test_two_python_threads_on_one_step_and_on_two():
    model = stored(random_model(SMALL), "float32")
    ids = np.random.default_rng(1).integers(0, 131, (4, 20))
    shared = fused(model)
    steps = [shared, shared, None, None]
    with ThreadPoolExecutor(4) as pool:
        results = [r for r, _ in pool.map(lambda pair: decode(model, *pair), zip(ids, steps))]
    for logits, row in zip(results, ids):
        close(logits, model(row), "float32")


def test_stamps_name_every_step_in_order():
    model = stored(random_model(SMALL), "float32")
    step = fused(model)
    one(step, 3, model.new_cache())
    assert len(step.names) == len(step.stamps) == 1 + 7 * 3 + 2
    assert step.names[:3] == ["embed", "h.0.ln_1", "h.0.attn.c_attn"] and step.names[-1] == "logits"
    assert step.stamps[0] > 0 and (np.diff(step.stamps) >= 0).all()


def test_what_it_cannot_do_is_refused():
    model = random_model(SMALL)

    def refusal(parameters):
        return kernels.DecodeStep.refusal(program(SMALL, parameters))

    assert "the table of tokens is not a stored weight" in refusal(model.parameters)
    double = store_parameters(model.astype(np.float64).parameters, "int8", SMALL.layout)
    assert "positions is float64" in refusal(double)
    with pytest.raises(ValueError, match="float64"):
        kernels.DecodeStep(program(SMALL, double))
    model = stored(model, "float32")
    table = Float32.from_table(np.zeros((36, 108), np.float32))
    assert "other way round" in refusal({**model.parameters, "h.0.attn.c_attn.weight": table})
    step, cache = fused(model), model.new_cache(capacity=1)
    assert step.fits(cache, [1]) and not step.fits(cache, [2])
    one(step, 0, cache)
    assert not step.fits(cache, [1])
    assert not step.fits(model.new_cache(2), [1]) and step.fits(model.new_cache(2), [15, 17])
    assert not step.fits(model.new_cache(2), [16, 17])  # more than MOST


@pytest.mark.live
@pytest.mark.skipif("avx2" not in FEATURES, reason="runs code for x86-64, with AVX2 and without")
@pytest.mark.parametrize("name", PROCESSORS)
def test_all_of_this_compiled_for_another_processor(name, tmp_path):
    environment = {**os.environ, **PROCESSORS[name], "NUMBA_CACHE_DIR": str(tmp_path)}
    others = ("test_products.py", "test_program.py")
    tests = [Path(__file__), *(Path(__file__).with_name(name) for name in others)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_ctrl_c_while_threads_gather_leaves_no_half_of_them(monkeypatch):
    """Else a team of one would wait for ever for a second, or two have room for one."""

    class Interrupted(list):
        def __iadd__(self, rooms):
            raise KeyboardInterrupt

    model, ids = stored(random_model(SMALL), "float32"), [1, 2]
    step, cache = fused(model), model.new_cache()
    monkeypatch.setattr(kernels_decode, "n_threads", lambda: 2)
    monkeypatch.setattr(kernels_decode, "threads_now", lambda: 1)  # the other one rests
    first = one(step, ids[0], cache)
    monkeypatch.setattr(kernels_decode, "threads_now", lambda: 2)
    rooms, step._rooms = step._rooms, Interrupted(step._rooms)
    with pytest.raises(KeyboardInterrupt):
        one(step, ids[1], cache)
    step._rooms = rooms
    logits = np.concatenate([first, one(step, ids[1], cache)])
    np.testing.assert_array_equal(logits, decode(model, ids)[0])
    assert len(step._rooms_at) == 2
