"""The two twins and the two forwards give one model: chosen by name, equal in every step, in any
thread."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import minillm
from minillm import GPT2, GPT2Config, InputError, kernels, ops
from minillm.loading import load_model
from minillm.reference import Reference, verify
from minillm.steps import Trace
from minillm.training.language import LanguageModel
from minillm.training.lora import with_adapters
from minillm.training.optimizers import OPTIMIZERS
from minillm.twins import choose, set_threads
from minillm.twins.choose import twin
from minillm.weights import KINDS, store_parameters
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


NOTHING_COMPILED = """
from minillm import kernels, ops
from minillm.twins.choose import twin
assert twin() is twin("auto") is ops and twin("numba") is kernels
"""


@needs_numba
def test_where_nothing_is_compiled_auto_takes_numpy_and_says_so_once():
    """In a process of its own: Numba reads the variable while it is imported."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "MINILLM_KERNELS": "auto"}
    command = [sys.executable, "-c", NOTHING_COMPILED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("NUMBA_DISABLE_JIT is set") and "with NumPy" in done.stderr


def test_without_numba_auto_takes_numpy_and_says_so(monkeypatch, caplog):
    choose._say_numpy.cache_clear()
    monkeypatch.setattr(kernels, "available", lambda: False)
    model = load_model("tales-draft", kernels="auto")
    assert "Numba is not installed: computing with NumPy" in caplog.text
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
    the other side: worst measured 1.1e-2; to bfloat16, 3.3e-3."""
    model = load_model(folder, dtype=kind, kernels="numba")
    ids = np.random.default_rng(1).integers(0, model.config.sizes.V, min(40, model.config.sizes.P))
    tolerance = 3e-2 if kind.startswith("int") else 1e-2 if "rounded" in kind else 1e-5
    fused, readable = model.new_cache(), model.new_cache()
    model(ids[:3], fused), model(ids[:3], readable)
    for i in ids[3:]:
        ours = model([i], fused)
        theirs = model([i], readable, step=lambda name, value: value)
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()
    assert fused.lengths.tolist() == readable.lengths.tolist() == [len(ids)]
    with pytest.raises(InputError, match="do not fit: there is room for"):
        for _ in range(model.config.sizes.P):
            model([0], fused)


@needs_numba
@pytest.mark.parametrize("name", ["tales", "tales-draft", "tales-llama"])
def test_greedy_continuation_equals_the_reference(name):
    model = load_model(name, kernels="numba")
    reference = Reference.load(minillm.checkpoints.find_folder(name))
    assert (
        model.generate(reference.ids[0], 40, do_sample=False)[reference.ids.shape[1] :].tolist()
        == reference.greedy.tolist()
    )


# ---- a model never changes


def assert_both_forwards_agree(model, ids=(3, 1, 4, 1, 5)):
    """All at once, and token by token with a cache: in blocks numbers are rounded, see above; worst
    seen 1e-6 and 4e-3 of the largest logit."""
    cache, whole = model.new_cache(), model(ids)
    cached = np.concatenate([model([i], cache) for i in ids])
    rounded = any(getattr(p, "block", 1) > 1 for p in model.parameters.values())
    np.testing.assert_allclose(cached, whole, atol=(3e-2 if rounded else 1e-5) * abs(whole).max())
    return whole


def tiny(kind=None, **changes):
    """A model whose parameters all matter; with a kind one of stored matrices, on kernels."""
    config = GPT2Config(
        **{"vocab_size": 32, "n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4} | changes
    )
    start, rng = GPT2.random(config), np.random.default_rng(1)
    p = {n: p + rng.normal(0, 0.3, p.shape).astype(p.dtype) for n, p in start.parameters.items()}
    return (
        GPT2(config, store_parameters(p, kind, config.layout), kernels) if kind else GPT2(config, p)
    )


@pytest.mark.parametrize(
    "kind", [None, *(pytest.param(kind, marks=needs_numba) for kind in ("float32", "int8"))]
)
def test_each_parameter_changes_both_forwards_of_another_model(kind):
    """And nothing else: the model itself stays, and all other parameters are shared."""
    model = tiny(kind, tie_word_embeddings=False)
    before, rng = assert_both_forwards_agree(model), np.random.default_rng(2)
    assert (model._fused is None) == (kind is None)
    for name, p in model.parameters.items():
        other = model.with_parameters({name: np.asarray(p) + rng.normal(0, 1, p.shape)})
        assert type(other.parameters[name]) is type(p) and other.dtype == np.float32
        assert (other._fused is None) == (kind is None)
        assert np.abs(assert_both_forwards_agree(other) - before).max() > 1e-3, name
        assert all(other.parameters[n] is q for n, q in model.parameters.items() if n != name)
    np.testing.assert_array_equal(model(np.array([3, 1, 4, 1, 5])), before)


@pytest.mark.parametrize("kind", [None, pytest.param("float32", marks=needs_numba)])
def test_parameters_can_only_be_looked_at(kind):
    model = tiny(kind)
    for name, p in model.parameters.items():
        for array in [p] if isinstance(p, np.ndarray) else p.arrays.values():
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 3
        with pytest.raises(InputError, match=r"model\.with_parameters\({name: array}\)"):
            model.parameters[name] = p
    with pytest.raises(InputError, match="with_parameters"):
        model.parameters.update({})
    for what in ("parameters", "config", "ops"):
        with pytest.raises(InputError, match=f"a model's {what} cannot be replaced"):
            setattr(model, what, getattr(model, what))
    with pytest.raises(InputError, match=r"parameter ln_f.bias has shape \(2,\)"):
        model.with_parameters({"ln_f.bias": [1, 2]})
    with pytest.raises(InputError, match=r"ln_g.bias has no place"):
        model.with_parameters({"ln_g.bias": [1, 2]})
    assert "with_parameters" in repr(model.parameters)
    if kind:
        with pytest.raises(ValueError, match="WRITEABLE"):
            model.parameters["ln_f.bias"].flags.writeable = True


@needs_numba
def test_whoever_made_the_arrays_may_write_to_them():
    """The fused step is not left behind: it is kept beside copies of what can be written to."""
    start = tiny()
    arrays = store_parameters(
        {n: p.copy() for n, p in start.parameters.items()}, "float32", start.layout
    )
    model = GPT2(start.config, arrays, kernels)
    before = assert_both_forwards_agree(model)
    for p in arrays.values():
        if isinstance(p, np.ndarray):
            p += 1
    np.testing.assert_array_equal(assert_both_forwards_agree(model), before)


@pytest.mark.parametrize("adapters", [False, True], ids=["all", "adapters"])
@pytest.mark.parametrize("ops_twin", [ops, pytest.param(kernels, marks=needs_numba)])
def test_who_trains_has_arrays_of_his_own(ops_twin, adapters):
    """The model to begin with stays; the trained one is kept without a fused step, and both its
    forwards see each step."""
    start = GPT2(tiny().config, tiny().parameters, ops_twin)
    start = with_adapters(start, 2) if adapters else start
    before, learner = assert_both_forwards_agree(start), LanguageModel(start)
    ids = np.array([[3, 1, 4, 1, 5, 9]])
    _, gradients = learner.loss_and_gradients((ids[:, :-1], ids[:, 1:]))
    OPTIMIZERS["adamw"](ops_twin).update(learner.parameters, gradients, 0.1)
    assert learner.model._fused is None
    assert np.abs(assert_both_forwards_agree(learner.model) - before).max() > 0.01
    np.testing.assert_array_equal(assert_both_forwards_agree(start), before)
    smaller = learner.model.quantize("int8")
    assert_both_forwards_agree(smaller)


# ---- several threads, several processes


@needs_numba
@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX has fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_child_of_a_fork_waits_for_nobody():
    """Another thread generates all the while; each of ten children, too, and gets the same text."""
    model, done = load_model("tales-draft", kernels="numba"), threading.Event()
    expected = model.generate([1, 2, 3], 5, temperature=0).tolist()

    def generate():
        while not done.is_set():
            model.generate([1, 2, 3], 5, temperature=0)

    thread = threading.Thread(target=generate)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                os._exit(
                    0 if model.generate([1, 2, 3], 5, temperature=0).tolist() == expected else 1
                )
            assert ended(child, 20) == 0
    finally:
        done.set()
        thread.join()


def ended(child, seconds):
    """The exit status of a child; it is killed after so many seconds."""
    for _ in range(int(100 * seconds)):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


@needs_numba
def test_ragged_batches_on_kernels():
    """Streaming attention and products of several rows, at each row's own positions; worst measured
    1e-6 relative."""
    model = load_model("tales-draft", kernels="numba")
    textbook = load_model("tales-draft", kernels="numpy")
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
