"""Compile what commands need, and keep it on disk: small models go through the same calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .errors import InputError
from .families.gpt2.config import ACTIVATIONS, GPT2Config
from .families.llama.config import LlamaConfig
from .kernels.listeners import compile_listeners
from .machine.progress import Update
from .model import GPT2, Model, model_of
from .twins.choose import twin
from .twins.twin import activation_of
from .weights import KINDS, store_parameters

TINY = GPT2Config(vocab_size=16, n_positions=80, n_embd=32, n_layer=1, n_head=2)
TINY_LLAMA = LlamaConfig(
    vocab_size=16,
    max_position_embeddings=80,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
)
Job = tuple[str, Callable[[], object]]  # what it is for, and the work that compiles it


def inference() -> Iterator[Job]:
    """Forward passes of every stored kind, on both forwards, with every cache."""
    kernels = twin("numba")

    def stored(kind: str, config=TINY) -> Model:
        tiny = Model.random(config)
        return model_of(config, store_parameters(tiny.parameters, kind, config.layout), kernels)

    def passes(model: Model) -> None:
        ids = np.arange(2 * 70).reshape(2, 70) % 16  # so many that attention goes by tiles
        for dtype in dict.fromkeys((str(model.dtype), "float32", "float16")):
            cache = model.new_cache(dtype=dtype)
            model(ids[0, :3], cache)  # the fused step
            model([4], cache)
            model([5], cache, step=lambda name, value: value)  # the readable forward, one position
            model(ids[0], cache, step=lambda name, value: value)
        logits = model(ids)
        kernels.cross_entropy(kernels.log_softmax(logits), ids)
        kernels.softmax(logits[0, -1])

    for kind in KINDS:
        yield kind, lambda kind=kind: passes(stored(kind))
    yield (
        "float64",
        lambda: passes(GPT2(TINY, GPT2.random(TINY, dtype=np.float64).parameters, kernels)),
    )
    yield "llama", lambda: passes(stored("float32", TINY_LLAMA))
    yield (
        "activations",
        lambda: [
            activation_of(kernels, name)(np.ones((4, 64), dtype))
            for name in ACTIVATIONS
            for dtype in (np.float32, np.float64)
        ],
    )


def limits() -> Iterator[Job]:
    """The kernels that measure what the machine can do."""
    from .clock.limits import measure

    kernels = twin("numba")
    yield "limits", lambda: (kernels.now(), measure(kernels, KINDS))


def ladders() -> Iterator[Job]:
    """The rungs of kernels/ladders, and the peak of the processor beside them."""
    from .kernels.ladders import MATMUL, SOFTMAX
    from .kernels.limits import multiply_and_add

    x = np.ones((16, 16), np.float32)
    yield "ladders", lambda: [rung(x, x) for rung in MATMUL.values()]
    yield "ladders", lambda: [rung(x) for rung in SOFTMAX.values()]
    yield "ladders", lambda: multiply_and_add(1, 1)


def compression() -> Iterator[Job]:
    """Products of pruned matrices."""
    from .compression import prune_magnitude

    model = GPT2(
        TINY, store_parameters(GPT2.random(TINY).parameters, "float32", TINY.layout), twin("numba")
    )
    pruned = prune_magnitude(model, 0.5)

    def passes() -> None:
        cache = pruned.new_cache()
        for ids in ([1], [1, 2, 3, 4], [5]):
            pruned(ids), pruned(ids, cache)

    yield "pruned", passes


def training() -> Iterator[Job]:
    """Forward, backward and the optimisers' steps in every precision."""
    from .training.language import LanguageModel
    from .training.lora import with_adapters
    from .training.optimizers import OPTIMIZERS
    from .training.pretrain import training_twin

    ids = np.arange(2 * 70).reshape(2, 70) % 16

    def step(precision: str) -> None:
        ops = training_twin("numba", precision)
        wide, narrow = np.ones((8, 1024), np.float32), np.ones((8, 16), np.float32)
        ops.transposed_product(wide, narrow)  # either side may be the larger
        ops.transposed_product(narrow, wide)
        for rows in (8, 600):  # of several blocks: few rows, and many
            ops.product(np.ones((rows, 1024), np.float32), np.ones((1024, 16), np.float32))
        model, llama = (
            model_of(config, Model.random(config).parameters, ops) for config in (TINY, TINY_LLAMA)
        )
        for trained in (model, with_adapters(model, 2), llama):
            learner = LanguageModel(trained)
            _, gradients = learner.loss_and_gradients((ids, ids))
            for make in OPTIMIZERS.values():
                optimizer = make(ops)
                optimizer.matrices = learner.matrices
                optimizer.update(learner.parameters, gradients, 1e-3)
            learner.model.generate([1, 2], 3, temperature=0)  # samples while training

    for precision in ("float32", "bfloat16"):
        yield precision, lambda precision=precision: step(precision)


def recurrent() -> Iterator[Job]:
    """The LSTM, forward and backward."""
    from .tasks.lstm import LSTM, LSTMConfig
    from .training.pretrain import training_twin
    from .training.recompute import Activations

    model = LSTM.random(LSTMConfig(16, 16), ops=training_twin("numba", "float32"))
    ids, kept = np.arange(8).reshape(2, 4), Activations()
    yield "lstm", lambda: model.backward(ids, kept, model.hidden(ids, kept))


NEEDS = {  # command -> what it computes with
    "generate": (inference,),
    "chat": (inference,),
    "ask": (inference,),
    "explore": (inference, limits),
    "probs": (inference,),
    "score": (inference,),
    "verify": (inference,),
    "diverge": (inference,),
    "clock": (inference, limits),
    "compare": (inference, limits, compression),
    "bench": (inference, limits, training, ladders),
    "train": (training, inference),
    "classify": (training, recurrent, inference),
}


def warm_up(
    commands: Sequence[str] = (), update: Update = lambda what, done, total, note="": None
) -> int:
    """Compile all that `commands` need (all of them if none is named), and return how many kernels
    were not on disk yet. Raises InputError for an unknown command, and where Numba is missing."""
    if unknown := [name for name in commands if name not in NEEDS]:
        raise InputError(
            f"warmup {unknown[0]}: there is nothing to compile; choose from {', '.join(NEEDS)}"
        )
    needed = dict.fromkeys(part for name in commands or NEEDS for part in NEEDS[name])
    jobs = [job for part in needed for job in part()]
    compiled: list[str] = []
    compile_listeners.append(compiled.append)
    try:
        for done, (what, work) in enumerate(jobs):
            update("compiling", done, len(jobs), note=what)
            work()
    finally:
        compile_listeners.remove(compiled.append)
    update("compiling", len(jobs), len(jobs))
    return len(compiled)
