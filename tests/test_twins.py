"""The two twins and the two forwards give one model: chosen by name, equal in every step, in any
thread."""

import threading

import numpy as np
import pytest

import minillm
from minillm import GPT2, InputError, kernels, ops
from minillm.checkpoints import load_model
from minillm.reference import Reference, verify
from minillm.steps import Trace
from minillm.twins import set_threads, twin
from minillm.weights import KINDS
from tests.reference.make import stored

FOLDERS = stored()
needs_numba = pytest.mark.skipif(not kernels.available(), reason="Numba is not installed")


# ---- choosing


def test_names_choose_a_twin(monkeypatch):
    assert twin("numpy") is ops
    monkeypatch.setenv("MINILLM_KERNELS", "numpy")
    assert twin() is ops
    assert load_model("tales-draft").ops is ops
    with pytest.raises(InputError, match="kernels is 'cuda'; it must be one of auto, numba, numpy"):
        twin("cuda")
    monkeypatch.setenv("MINILLM_KERNELS", "fast")
    with pytest.raises(InputError, match="MINILLM_KERNELS is 'fast'"):
        twin()


@needs_numba
def test_auto_takes_kernels_where_numba_is(monkeypatch):
    monkeypatch.delenv("MINILLM_KERNELS")
    assert twin() is twin("auto") is twin("numba") is kernels
    assert isinstance(load_model("tales-draft").parameters["wte.weight"], KINDS["float32"])


def test_without_numba_auto_takes_numpy_and_says_so(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: False)
    with pytest.warns(RuntimeWarning, match="Numba is not installed"):
        model = load_model("tales-draft", kernels="auto")
    assert model.ops is ops and model.generate([1, 2, 3], 2).shape == (5,)
    with pytest.raises(InputError, match="pip install numba"):
        twin("numba")


def test_unknown_dtypes_are_refused():
    with pytest.raises(InputError, match="dtype is 'int3'; it must be float64 or one of float32"):
        load_model("tales-draft", dtype="int3")
    with pytest.raises(InputError, match="threads is 0"):
        set_threads(0)


# ---- equal


@needs_numba
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_kernels_equal_the_reference_step_by_step(folder):
    """The readable forward on kernels, every step observed. Same tolerance as NumPy; worst measured
    4.8e-6."""
    report = verify(load_model(folder, kernels="numba"), Reference.load(folder))
    assert report.ok, f"\n{report}"


@needs_numba
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_step_equals_the_readable_forward(folder, kind):
    """Token by token, up to a full cache for the small ones. Tolerances relative to the largest
    logit: floats differ by the order of sums, worst measured 2e-6. In blocks both forwards round
    their inputs to 8 bits, from values that differ in the last bit, so that single numbers fall to
    the other side: worst measured 1.1e-2."""
    model = load_model(folder, dtype=kind, kernels="numba")
    ids = np.random.default_rng(1).integers(
        0, model.config.vocab_size, min(40, model.config.n_positions)
    )
    fused, readable = model.new_cache(), model.new_cache()
    model(ids[:3], fused), model(ids[:3], readable)
    for i in ids[3:]:
        ours = model([i], fused)
        theirs = model([i], readable, step=lambda name, value: value)
        largest = np.abs(theirs).max()
        assert np.abs(ours - theirs).max() <= (3e-2 if kind.startswith("int") else 1e-5) * largest
    assert fused.lengths.tolist() == readable.lengths.tolist() == [len(ids)]
    with pytest.raises(InputError, match="do not fit: there is room for"):
        for _ in range(model.config.n_positions):
            model([0], fused)


@needs_numba
@pytest.mark.parametrize("name", ["tales", "tales-draft"])
def test_greedy_continuation_equals_the_reference(name):
    model = load_model(name, kernels="numba")
    reference = Reference.load(minillm.checkpoints.find_folder(name))
    assert (
        model.generate(reference.ids[0], 40, do_sample=False)[reference.ids.shape[1] :].tolist()
        == reference.greedy.tolist()
    )


@needs_numba
def test_ragged_batches_on_kernels():
    """Streaming attention and products of several rows, at each row's own positions; worst measured
    1e-6 relative."""
    model, textbook = (
        load_model("tales-draft", kernels="numba"),
        load_model("tales-draft", kernels="numpy"),
    )
    ids = np.random.default_rng(2).integers(0, 4096, (3, 70))
    ours, theirs = model.new_cache(3), textbook.new_cache(3)
    for part, lengths in (
        (ids[:, :50], [50, 1, 17]),
        (ids[:, 50:60], [10, 10, 3]),
        (ids[:, 60:61], [1, 1, 1]),
    ):
        a = model(part, ours, lengths=lengths, last=True)
        b = textbook(part, theirs, lengths=lengths, last=True)
        np.testing.assert_allclose(a, b, atol=5e-5 * np.abs(b).max())


@needs_numba
def test_a_truncated_cache_serves_the_fused_step():
    model = load_model("tales-draft", kernels="numba")
    cache = model.new_cache()
    model([5, 6, 7, 8], cache)
    first = model([9], cache)
    model([10], cache)
    cache.truncate(4)
    np.testing.assert_array_equal(model([9], cache), first)


@needs_numba
def test_float64_on_kernels_takes_the_readable_forward():
    model = load_model("tales-draft", dtype="float64", kernels="numba")
    textbook = load_model("tales-draft", dtype=np.float64, kernels="numpy")
    cache = model.new_cache()
    model([1, 2, 3], cache)
    a, b = model([4], cache), textbook([1, 2, 3, 4])[-1:]
    assert a.dtype == np.float64
    np.testing.assert_allclose(a, b, atol=1e-10)


@needs_numba
def test_whoever_looks_gets_the_readable_forward():
    model, trace = load_model("tales-draft", kernels="numba"), Trace()
    cache = model.new_cache()
    model([1, 2], cache)
    model([3], cache, step=trace)
    assert "h.1.attn.scores" in trace


@needs_numba
def test_the_same_seed_gives_the_same_text_with_any_number_of_threads():
    model = load_model("tales-draft", kernels="numba")
    try:
        texts = []
        for n in (1, 2, 2):
            set_threads(n)
            texts.append(
                GPT2(model.config, model.parameters, model.ops)
                .generate([1, 2, 3], 40, temperature=1.0, seed=4)
                .tolist()
            )
    finally:
        kernels.set_threads(None)
    assert texts[0] == texts[1] == texts[2]


@needs_numba
def test_python_threads_may_generate_at_once():
    model = load_model("tales-draft", kernels="numba")
    prompts = [[n, n + 1, n + 2] for n in range(6)]
    expected = [model.generate(p, 25, do_sample=False).tolist() for p in prompts]
    results = [None] * 6

    def work(n):
        results[n] = model.generate(prompts[n], 25, do_sample=False).tolist()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == expected
