"""The cost model: against FLOPs counted while the textbook computes, and against the bytes that
weights really take."""

from types import SimpleNamespace

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, ops
from minillm.clock.costs import covered, folded, step_costs
from minillm.costs import Cost, stored_bytes, total
from minillm.decoding.generate import moments
from minillm.decoding.options import Options
from minillm.weights import KINDS, store


class Counted(np.ndarray):
    """An array that counts its arithmetic: a product 2 K a number, a reduction one a number, all
    else one a result."""

    flops = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        plain = [np.asarray(x) if isinstance(x, Counted) else x for x in inputs]
        if out is not None:
            kwargs["out"] = tuple(np.asarray(x) for x in out)
        result = getattr(ufunc, method)(*plain, **kwargs)
        if np.asarray(result).dtype.kind == "f":
            each = 2 * plain[0].shape[-1] if ufunc is np.matmul else 1
            Counted.flops += plain[0].size if method == "reduce" else each * np.size(result)
        return np.asarray(result).view(Counted)


class Meter:
    """A step that reads the counter: FLOPs under the name that ends them."""

    def __init__(self):
        self.flops, self.last = {}, 0
        Counted.flops = 0

    def __call__(self, name, value):
        self.flops[name], self.last = Counted.flops - self.last, Counted.flops
        return value


CONFIGS = [
    GPT2Config(vocab_size=11, n_positions=16, n_embd=6, n_layer=2, n_head=3),
    GPT2Config(
        vocab_size=7,
        n_positions=16,
        n_embd=8,
        n_layer=1,
        n_head=2,
        n_inner=5,
        activation_function="relu",
    ),
    GPT2Config(
        vocab_size=7, n_positions=16, n_embd=12, n_layer=1, n_head=1, head_size=4, n_inner=7
    ),
]


def counting(config):
    model = GPT2.random(config, dtype=np.float64)
    # np.where drops the type
    twin = SimpleNamespace(**{**vars(ops), "softmax": lambda x: ops.softmax(x.view(Counted))})
    return GPT2(config, {name: p.view(Counted) for name, p in model.parameters.items()}, twin)


@pytest.mark.parametrize("config", CONFIGS, ids=["gelu_new", "relu", "pruned"])
@pytest.mark.parametrize(("T", "past", "batch"), [(1, 0, 1), (5, 0, 1), (1, 4, 1), (3, 2, 2)])
def test_flops_are_those_counted(config, T, past, batch):
    model = counting(config)
    ids = np.arange(batch * (past + T)).reshape(batch, -1) % config.vocab_size
    cache = model.new_cache(batch)
    if past:
        model(ids[:, :past], cache)
    meter = Meter()
    model(ids[:, past:], cache, last=True, step=meter)
    costs = step_costs(config, T, past, batch, choose=False)
    assert {name: cost.flops for name, cost in costs.items()} == meter.flops and meter.flops[
        "h.0.attn.weights"
    ] > 0


def test_flops_of_choosing_are_those_counted():
    meter = Meter()
    list(moments(counting(CONFIGS[0]), [1, 2], Options(max_new_tokens=1), step=meter))
    costs = step_costs(CONFIGS[0], 2)
    assert meter.flops["probs"] == costs["probs"].flops
    # argmax is no ufunc, and is counted by hand
    assert meter.flops["next"] + CONFIGS[0].vocab_size == costs["next"].flops


def test_a_block_is_the_formula_of_the_books():
    config, T = GPT2Config(n_layer=1), 100
    C = config.n_embd
    products = sum(
        cost.products for name, cost in step_costs(config, T).items() if name.startswith("h.")
    )
    assert products == 2 * (12 * T * C**2 + 2 * T**2 * C)
    bend = 6 * C
    costs = step_costs(config, bend)  # there attention costs as much as the matrices
    assert (
        costs["h.0.attn.scores"].products + costs["h.0.attn.context"].products
        == 2 * 12 * bend * C**2
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 48), (70, 33)])
def test_bytes_of_a_stored_matrix_are_what_it_takes(kind, shape):
    assert stored_bytes(*shape, kind) == store(np.ones(shape, np.float32), kind).nbytes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"n_head": 1, "head_size": 12},
        {"n_inner": 31},
        {"tie_word_embeddings": False},
        {"n_head": 2, "head_size": 5, "n_inner": 33, "tie_word_embeddings": False},
    ],
    ids=["plain", "pruned", "odd F", "untied", "all"],
)
def test_declared_bytes_are_those_of_the_parameters_and_the_cache(kind, shape):
    """A pass over as many tokens as there are positions reads each weight once, and that many rows
    of the token table; it writes all places of the cache, and reads them."""
    config = GPT2Config(
        **{"n_head": 3} | shape, n_embd=36, n_layer=2, vocab_size=48, n_positions=16
    )
    model = GPT2.random(config).quantize(kind)
    stored = {name: p.nbytes for name, p in model.parameters.items()}
    rows = stored["wte.weight"] * 16 // 48
    other_head = 0 if config.tie_word_embeddings else stored["wte.weight"]
    cost = total(step_costs(config, 16, kind=kind).values())
    assert cost.weights == sum(stored.values()) + rows - other_head
    assert cost.cache == 2 * model.new_cache().nbytes


def test_a_decode_step_reads_every_weight_once_and_the_cache():
    config = GPT2Config()
    whole = total(step_costs(config, 1, past=899).values())
    # all but the table of positions, of which one row is read
    weights = 4 * (124_439_808 - 1024 * 768)
    # the head is filled up to whole panels
    assert whole.weights == pytest.approx(weights, rel=2e-4)
    assert whole.cache == 12 * 4 * 768 * (2 * 900 + 2)
    many = total(step_costs(config, 1, past=899, batch=8).values())
    assert many.products == 8 * whole.products and many.weights == pytest.approx(
        whole.weights, rel=1e-3
    )


def test_folding_keeps_the_whole_and_gives_it_to_the_next_name():
    costs = step_costs(CONFIGS[0], 3)
    names = ["embed", "h.0.attn.context", "h.1.mlp.residual", "logits", "next"]
    short = folded(costs, names)
    assert list(short) == names and total(short.values()) == total(costs.values())
    assert short["embed"] == costs["wte"] + costs["wpe"] + costs["embed"]
    assert covered(["embed", "h.0.ln_1"], CONFIGS[0]) == {
        "embed": ("wte", "wpe", "embed"),
        "h.0.ln_1": ("h.0.ln_1",),
    }


def test_intensity_is_flops_for_each_byte():
    assert Cost(6, 2, 1, 1, 2).intensity == 2 and Cost().intensity == 0
