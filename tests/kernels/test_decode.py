"""The fused step equals the readable forward: every kind of weight, position, activation and shape."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("numba")

from minillm import kernels
from minillm.cache import KVCache
from minillm.config import GPT2Config
from minillm.kernels import threads
from minillm.kernels.processor import HAS_HALVES
from minillm.model import GPT2
from minillm.weights import KINDS, Float32, Weight, store_parameters

# n_embd 36: neither whole panels of 16 nor whole blocks of 32; 12 heads of 3 numbers would be shared by up to 4 threads
SMALL = GPT2Config(vocab_size=131, n_positions=20, n_embd=36, n_layer=3, n_head=3)
# float32 sums in another order: worst seen 4e-7 of the largest logit. Blocks round each product's input to 8 bits:
# worst seen 1.1e-2 of the largest logit in 3 layers.
TOLERANCE = {kind: 3e-2 if kind.startswith("int") else 3e-6 for kind in KINDS}


def random_model(config, seed=0):
    """A model whose biases and norms are not what training starts from: a forgotten one must show."""
    model, r = GPT2.random(config, seed), np.random.default_rng(seed)
    for p in model.parameters.values():
        p += r.standard_normal(p.shape).astype(np.float32) * 0.1
    return model


def stored(model, kind):
    return GPT2(model.config, store_parameters(model.parameters, kind))


def decode(model, ids, step=None):
    step, cache = step or kernels.DecodeStep(model.config, model.parameters), model.new_cache()
    return np.array([step(int(i), cache).copy() for i in ids]), cache


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


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_function": "gelu"},
        {"activation_function": "relu"},
        {"n_inner": 50},
        {"n_layer": 1, "n_head": 1},
        {"vocab_size": 1, "n_embd": 1, "n_head": 1},
        {"n_embd": 64, "n_head": 4, "scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False, "layer_norm_epsilon": 1e-2},
        {"tie_word_embeddings": False},
    ],
    ids=str,
)
def test_every_config(changes):
    import dataclasses

    model = stored(random_model(dataclasses.replace(SMALL, **changes)), "float32")
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, 9)
    close(decode(model, ids)[0], model(ids), "float32")


def test_goes_on_from_a_prefill_and_after_truncating():
    model = stored(random_model(SMALL), "float32")
    ids = np.random.default_rng(1).integers(0, 131, 20)
    step, cache = kernels.DecodeStep(model.config, model.parameters), model.new_cache(capacity=15)
    model(ids[:11], cache)
    for n in (11, 12, 13):
        close(step(int(ids[n]), cache), model(ids[: n + 1])[-1], "float32")
    cache.truncate(4)
    close(step(int(ids[7]), cache), model(np.append(ids[:4], ids[7]))[-1], "float32")


def test_two_caches_in_turn_and_a_new_one():
    model = stored(random_model(SMALL), "float32")
    ids = np.random.default_rng(1).integers(0, 131, (3, 8))
    reference, step = model(ids), kernels.DecodeStep(model.config, model.parameters)
    caches = [model.new_cache(), model.new_cache()]
    for t in range(8):
        for row, cache in enumerate(caches):  # the other threads may still hold the last one
            close(step(int(ids[row, t]), cache), reference[row, t], "float32")
    del caches, cache
    cache = model.new_cache()
    for t in range(8):
        close(step(int(ids[2, t]), cache), reference[2, t], "float32")


def test_one_row_of_a_batch():
    model = stored(random_model(SMALL), "float32")
    ids = np.random.default_rng(1).integers(0, 131, (3, 6))
    step, cache = kernels.DecodeStep(model.config, model.parameters), model.new_cache(3)
    model(ids[:, :5], cache)
    close(step(int(ids[1, 5]), cache, row=1), model(ids[1])[-1], "float32")
    assert cache.lengths.tolist() == [5, 6, 5]


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
    step, cache = kernels.DecodeStep(model.config, model.parameters), KVCache(SMALL, dtype=np.float16)
    exact = model(ids)
    logits = np.array([step(int(i), cache) for i in ids])
    # float16 keeps 11 bits of keys and values: worst seen 1.5e-4 of the largest logit
    assert 0 < np.abs(logits - exact).max() <= 1e-3 * np.abs(exact).max()
    reference = model.new_cache()
    model(ids[:1], reference)  # the first key and value depend on no other
    assert np.array_equal(cache.keys[0, 0, :, 0], reference.keys[0, 0, :, 0].astype(np.float16))
    with pytest.raises(ValueError, match="the cache is float64"):
        step(0, KVCache(SMALL, dtype=np.float64))


def test_head_of_another_kind():
    model = random_model(SMALL)
    parameters = {**store_parameters(model.parameters, "int4"), "wte.weight": None}
    parameters["wte.weight"] = store_parameters({"wte.weight": model.parameters["wte.weight"]}, "float16")["wte.weight"]
    model = GPT2(SMALL, parameters)
    ids = np.arange(9)
    close(decode(model, ids)[0], model(ids), "int4")


def test_two_python_threads_on_one_step_and_on_two():
    model = stored(random_model(SMALL), "float32")
    ids = np.random.default_rng(1).integers(0, 131, (4, 20))
    shared = kernels.DecodeStep(model.config, model.parameters)
    steps = [shared, shared, None, None]
    with ThreadPoolExecutor(4) as pool:
        results = [r for r, _ in pool.map(lambda pair: decode_copying(model, *pair), zip(ids, steps))]
    for logits, row in zip(results, ids):
        close(logits, model(row), "float32")


def decode_copying(model, ids, step):
    """Like decode, but with the logits copied while nobody else can overwrite the shared workspace."""
    step = step or kernels.DecodeStep(model.config, model.parameters)
    cache, out = model.new_cache(), []
    for i in ids:
        out.append(step(int(i), cache))
    return np.array(out), cache


def test_stamps_name_every_step_in_order():
    model = stored(random_model(SMALL), "float32")
    step = kernels.DecodeStep(model.config, model.parameters)
    step(3, model.new_cache())
    assert len(step.names) == len(step.stamps) == 7 * 3 + 2
    assert step.names[:2] == ["h.0.ln_1", "h.0.attn.c_attn"] and step.names[-1] == "logits"
    assert 0 < step.started <= step.stamps[0] and (np.diff(step.stamps) >= 0).all()


def test_what_it_cannot_do_is_refused():
    model = random_model(SMALL)
    assert "wte.weight is not a stored weight" in kernels.DecodeStep.refusal(SMALL, model.parameters)
    with pytest.raises(ValueError, match="float64"):
        kernels.DecodeStep(SMALL, store_parameters(model.astype(np.float64).parameters, "int8"))
    mixed = store_parameters(model.parameters, "int8")
    mixed["h.1.mlp.c_fc.weight"] = store_parameters({"h.1.mlp.c_fc.weight": model.parameters["h.1.mlp.c_fc.weight"]}, "float16")[
        "h.1.mlp.c_fc.weight"
    ]
    with pytest.raises(ValueError, match="2 kinds"):
        kernels.DecodeStep(SMALL, mixed)
    model = stored(model, "float32")
    table = Float32.from_table(np.zeros((36, 108), np.float32))
    assert "other way round" in kernels.DecodeStep.refusal(SMALL, {**model.parameters, "h.0.attn.c_attn.weight": table})
    step, cache = kernels.DecodeStep(SMALL, model.parameters), model.new_cache(capacity=1)
    with pytest.raises(ValueError, match="id 131 is outside the vocabulary of 131"):
        step(131, cache)
    step(0, cache)
    with pytest.raises(ValueError, match="there is room for 1"):
        step(0, cache)
