"""Models of any family, and what they can do: of models in float64, ids [2,10]."""

import numpy as np

from minillm.compression import (
    low_rank,
    prune_heads,
    prune_magnitude,
    prune_neurons,
    quantize,
    skip_layers,
)
from minillm.decoding import ModelDraft, NGramDraft, Options, Request, generate_batch
from minillm.decoding.generate import moments
from minillm.model import Model, model_of
from minillm.weights import KINDS, store_parameters

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def lively(config, dtype=np.float32, seed=0, size=0.2) -> Model:
    """A random model whose layers all matter: norms and biases random, too."""
    rng = np.random.default_rng(seed)
    parameters = {
        name: (1.0 if p.start == "ones" else 0.0)
        + size * rng.standard_normal(p.shape(config.sizes))
        for name, p in config.layout.items()
    }
    return model_of(config, {name: p.astype(dtype) for name, p in parameters.items()})


def llama_cpp_logits(file, ids) -> np.ndarray:
    """Logits [T,V] as llama.cpp has them of a GGUF file, with its KV cache in F32 and without flash
    attention, so that it rounds as float32 does; one thread."""
    import llama_cpp

    how = {"logits_all": True, "type_k": 0, "type_v": 0, "flash_attn": False}
    engine = llama_cpp.Llama(str(file), n_ctx=64, n_threads=1, verbose=False, **how)
    engine.eval(ids)
    return np.array(engine.scores[: len(ids)])


def check_cache(model, ids, cut):
    """Cached equals uncached, and the cache holds key-value heads."""
    s, cache = model.config.sizes, model.new_cache(2)
    assert cache.keys.shape == (s.L, 2, s.K, s.P, s.D)
    parts = [model(ids[:, :cut], cache), model(ids[:, cut:], cache)]
    np.testing.assert_allclose(np.concatenate(parts, 1), model(ids), atol=1e-12)


def check_fused(model, ids, kind):
    """The fused step equals the readable forward: float32, sums in another order, worst seen 2e-6.
    Where inputs are rounded, to another bfloat16 (worst seen 2.6e-3) or, rarely, to another number
    of 8 bits (1.2e-2, for all positions that look there), most positions of the latter agree."""
    from minillm import kernels

    arrays = store_parameters(model.astype(np.float32).parameters, kind, model.layout)
    fast = type(model)(model.config, arrays, kernels)
    assert fast._fused
    cache, readable = fast.new_cache(2), fast(ids)
    fused = np.concatenate([fast(ids[:, :6], cache), fast(ids[:, 6:], cache)], axis=1)
    apart = np.abs(fused - readable).max(-1) / np.abs(readable).max()
    assert apart.max() < {"bfloat16_rounded": 1e-2}.get(kind, 2e-2 if "int" in kind else 2e-5)
    assert kind == "bfloat16_rounded" or np.median(apart) < 2e-5


def check_decoding(model, ids):
    """Plain, without a cache, in chunks, with drafts, beams, a window, in a batch."""
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    plain = model.generate(ids[0], **options)
    for more in ({"use_cache": False}, {"chunk": 3}):
        assert np.array_equal(model.generate(ids[0], **options, **more), plain)
    for draft in (NGramDraft(), ModelDraft(skip_layers(model, 1))):
        text = moments(model, ids[0], Options(**options), draft=draft)
        assert [moment.id for moment in text] == plain[10:].tolist()
    assert len(model.generate(ids[0], **options, num_beams=3)) == 22
    assert len(model.generate(ids[0], **options, window=5)) == 22
    sampled = [model.generate(ids[0], 12, top_k=5, seed=0, eos_token_id=None) for _ in range(2)]
    assert np.array_equal(*sampled) and len(sampled[0]) == 22
    requests = [Request(row.tolist(), Options(**options)) for row in (ids[0], ids[1, :4])]
    found = [moment.id for number, moment in generate_batch(model, requests) if number == 0]
    assert found == plain[10:].tolist()


def check_smaller(model, ids):
    """Every way to a smaller model; where nothing is left out, it is the same."""
    s, row = model.config.sizes, ids[0]
    for small in (
        *(quantize(model.astype(np.float32), kind) for kind in KINDS),
        low_rank(model, 4),
        low_rank(model, 4, ("mlp",)),
        prune_magnitude(model, 0.5),
        skip_layers(model, 1),
        prune_neurons(model, 2 * s.F // 3, row),
    ):
        assert isinstance(small, type(model)) and np.isfinite(small(row)).all()
        assert isinstance(small, Model) and small.family is model.family
    fewer = prune_heads(model, s.K - 1, row)
    found = fewer.config.sizes
    assert (found.H, found.K, found.D) == (s.H - s.H // s.K, s.K - 1, s.D)
    assert np.isfinite(fewer(row)).all()
    assert np.allclose(prune_heads(model, s.K, row)(row), model(row), atol=1e-12)
    assert np.allclose(prune_neurons(model, s.F, row)(row), model(row), atol=1e-12)
