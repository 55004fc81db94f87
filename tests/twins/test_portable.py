"""What can be copied and pickled: everything that computes with a twin, with the twin's name."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import minillm
from minillm import GPT2, GPT2Config, InputError, kernels, ops
from minillm.compression import low_rank, prune_magnitude
from minillm.layers.cache import SlidingCache
from minillm.tasks.classify import BagOfWords, Pooled, Transformer
from minillm.tasks.examples import Words
from minillm.tasks.lstm import LSTM, LSTMConfig
from minillm.training.language import LanguageModel
from minillm.training.lora import with_adapters
from minillm.twins.choose import twin

IDS = np.array([[3, 1, 4, 1, 5]])
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}
needs_numba = pytest.mark.skipif(not kernels.available(), reason="Numba is not installed")


def model(ops_twin=ops):
    config = GPT2Config(vocab_size=32, n_positions=12, n_embd=32, n_layer=2, n_head=4)
    return GPT2(config, GPT2.random(config).parameters, ops_twin)


def score():
    return {"weight": np.ones((32, 2), np.float32), "bias": np.zeros(2, np.float32)}


def training_twin():
    from minillm.kernels.blocked import Training

    return Training()


THINGS = {
    "model": model,
    "kernels": lambda: model(kernels).quantize("float32"),
    "int8": lambda: model(kernels).quantize("int8"),
    "training": lambda: model(training_twin()),
    "low rank": lambda: low_rank(model(), 3),
    "sparse": lambda: prune_magnitude(model(kernels), 0.5),
    "adapters": lambda: with_adapters(model(), 2),
    "lstm": lambda: LSTM.random(LSTMConfig(32, 32), ops=kernels),
    "transformer": lambda: Pooled(Transformer(model()), score(), "mean", "ab", None, 12),
    "recurrent": lambda: Pooled(
        LSTM.random(LSTMConfig(32, 32), ops=training_twin()), score(), "last", "ab", None, 12
    ),
    "bag of words": lambda: BagOfWords(
        "ab", Words(["a"] * 31), 12, {"weight": np.ones((32, 2)), "bias": np.zeros(2)}
    ),
}


def used(thing):
    """What it computes; a model with a fused step also with that."""
    if isinstance(thing, LSTM):
        return thing.hidden(IDS)
    if not isinstance(thing, GPT2):
        return thing.forward(IDS, [5])
    return np.concatenate([thing(IDS)[0], thing(IDS[0, :2], thing.new_cache())])


@needs_numba
@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", THINGS)
def test_a_copy_computes_the_same_with_the_same_twin(name, how):
    thing = THINGS[name]()
    expected = used(thing)  # a fused step is made here, and stays behind
    again = COPIES[how](thing)
    np.testing.assert_array_equal(used(again), expected)
    assert type(again) is type(thing) and type(again.ops) is type(thing.ops)
    if again.ops in (ops, kernels):
        assert again.ops is thing.ops
    nbytes = sum(p.nbytes for p in thing.parameters.values())
    assert how != "pickle" or nbytes < len(pickle.dumps(thing)) < 1.3 * nbytes + 8000


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("adapters", [False, True], ids=["all", "adapters"])
def test_a_copy_of_a_learner_goes_on_learning(how, adapters):
    """Its arrays are those that its model computes with."""
    learner = LanguageModel(with_adapters(model(), 2) if adapters else model())
    again, batch = COPIES[how](learner), (IDS, IDS)
    before = learner.losses(batch)
    for name, array in again.parameters.items():
        array += 1
        with pytest.raises(InputError, match=r"write into the array"):
            again.parameters[name] = array
    assert np.abs(again.losses(batch) - before).max() > 0.1
    np.testing.assert_array_equal(learner.losses(batch), before)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_tokenizer_and_caches(how):
    first, tokenizer = minillm.load("tales-draft", kernels="numpy")
    again = COPIES[how](tokenizer)
    assert again.encode("Once upon") == tokenizer.encode("Once upon")
    for cache in (first.new_cache(), SlidingCache(first.config, 1, 3)):
        first([5], cache)
        np.testing.assert_array_equal(first([6], COPIES[how](cache)), first([6], cache))


def test_a_students_folder_is_read_again(tmp_path):
    from minillm.exercises.student.folder import start
    from minillm.exercises.student.own import of_folder

    start(tmp_path)
    first = model(twin(str(tmp_path)))
    for how in COPIES.values():
        assert how(first).ops is first.ops  # known already in this process
    data = pickle.dumps(first)
    of_folder.cache_clear()  # as in another process
    again = pickle.loads(data)
    assert again.ops is not first.ops and again.ops.folder == first.ops.folder
    np.testing.assert_array_equal(again(IDS), first(IDS))


def test_functions_without_a_name_are_refused():
    first = model(SimpleNamespace(**vars(ops)))
    assert copy.deepcopy(first).ops is first.ops
    with pytest.raises(InputError, match=r"functions of your own .* cannot be pickled"):
        pickle.dumps(first)
