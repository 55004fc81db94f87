"""llama.cpp's nodes as our steps, on the graphs of tests/data/engines: each step once, in order,
and what is not known is told."""

import json
from pathlib import Path

import numpy as np
import pytest

from minillm import families
from minillm.engines.nodes import NOTHING, WITHIN, graph_of, is_last, places
from minillm.sizes import Sizes
from minillm.steps import local_name
from tests.engines.small import CONFIGS, L

DATA = Path(__file__).parents[1] / "data" / "engines"
GRAPHS = json.loads((DATA / "nodes.json").read_text("utf-8"))
QKV = families.gpt2.gguf.FORMAT.parts["attn.c_attn"]
NAMES = [name for name in GRAPHS if name != "versions"]


def mapped(name, nodes=None):
    config = CONFIGS[name.split()[0]]
    return graph_of(nodes or GRAPHS[name], families.of(config).gguf.nodes, L), config


@pytest.mark.parametrize("name", NAMES)
def test_every_step_ends_once_and_nothing_is_unknown(name):
    graph, config = mapped(name)
    assert not graph.unknown
    found = [*graph.ends.values()]
    assert len({*found}) == len(found) and [*graph.ends] == sorted(graph.ends)
    parts = {f"h.{i}.{part}" for i in range(L) for part in QKV}
    missing = {*families.of(config).steps(config)} - {*found} - (parts if "gpt2" in name else set())
    scores = {f"h.{i}.attn.{step}" for i in range(L) for step in ("scores", "weights")}
    same = set() if "gpt2" in name else {"wte"}  # which is `embed`
    assert missing == same | (scores if "fused" in name else set())


@pytest.mark.parametrize("name", NAMES)
def test_steps_end_at_the_last_of_their_nodes(name):
    """Bias after product, result after what is within; phases end where the residual does."""
    graph, _ = mapped(name)
    nodes = GRAPHS[name]
    of = {step: nodes[i][1] for i, step in graph.ends.items()}
    biased = {"gpt2": "attn.c_attn", "llama-biased": "attn.q", "qwen2": "attn.q"}
    for step, operation in of.items():
        if local_name(step) == biased.get(name.split()[0]):
            assert operation == "ADD"
    assert [*filter(is_last, of)] == [
        "embed",
        *(f"h.{i}.{end}.residual" for i in range(L) for end in ("attn", "mlp")),
    ]


def test_what_is_not_known_is_told_and_not_guessed_at():
    nodes = [[*node] for node in GRAPHS["llama apart"]]
    at = [name for name, _ in nodes].index("ffn_gate-1")
    strange = [["ffn_gate-1", "MUL_MAT"], ["shift-1", "ADD"], ["node_99", "MUL_MAT"]]
    graph, _ = mapped("llama apart", nodes[: at + 1] + strange + nodes[at + 1 :])
    assert graph.unknown == {"ffn_gate:MUL_MAT": 1, "shift:ADD": 1, ">MUL_MAT": 1}
    assert graph.ends[at] == "h.1.mlp.gate" and graph.ends[at + 4] == "h.1.mlp.up"
    graph, _ = mapped("llama apart", [["attn_norm-7", "MUL"], ["attn_norm", "MUL"]])
    assert graph.unknown == {"attn_norm:MUL": 2} and not graph.ends  # of no layer that there is


def test_operations_that_compute_nothing_are_never_asked_for():
    for name in NAMES:
        graph, _ = mapped(name)
        assert not {GRAPHS[name][i][1] for i in graph.ends} & (NOTHING | WITHIN - {"CONT"})


SIZES = Sizes(V=9, P=9, L=1, C=12, H=4, K=2, D=6, F=8)


def test_values_lie_where_ours_do():
    x = np.arange(3 * 24, dtype=np.float32).reshape(1, 1, 3, 24)  # [T,HD]
    (context,) = places("attn.context", x.copy(), SIZES, 3, paired=True)
    assert context.shape == (1, 4, 3, 6)
    np.testing.assert_array_equal(context.value[0, 1, 2], x[0, 0, 2, 6:12])
    (q,) = places("attn.q_rotated", x.reshape(1, 3, 4, 6).copy(), SIZES, 3, paired=True)
    np.testing.assert_array_equal(q.value[0, 1, 2], x[0, 0, 2, 6:12][[0, 2, 4, 1, 3, 5]])
    (k,) = places("attn.k", x[..., :12].copy(), SIZES, 3, paired=False)
    assert k.shape == (1, 2, 3, 6)
    (weights,) = places("attn.weights", np.zeros((1, 4, 3, 256), np.float32), SIZES, 5, False)
    assert weights.shape == (1, 4, 3, 5)
    numbers = np.zeros((1, 1, 3, 48), np.float32)
    joined = places("attn.c_attn", numbers, SIZES, 3, False, QKV)
    assert [(p.step, p.shape) for p in joined] == [
        ("attn.c_attn", (1, 3, 48)),
        *((f"attn.{n}", (1, 4 if n == "q" else 2, 3, 6)) for n in "qkv"),
    ]


@pytest.mark.parametrize("step", ["attn.q", "attn.k_rotated", "attn.context", "mlp.act"])
def test_what_is_put_is_what_is_read(step):
    numbers = np.zeros((1, 1, 3, 24), np.float32)
    (place,) = places(step, numbers, SIZES, 3, paired=True)
    new = np.random.default_rng(0).standard_normal(place.shape).astype(np.float32)
    place.put(new)
    np.testing.assert_array_equal(places(step, numbers, SIZES, 3, paired=True)[0].value, new)
    assert (numbers != 0).all()
