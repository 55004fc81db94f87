"""Pruning and low rank: exact where nothing is lost, the nearest of their kind elsewhere, smaller
in fact; and mistakes."""

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError
from minillm.compression import (
    break_even_rank,
    errors_by_matrix,
    low_rank,
    prune,
    prune_heads,
    prune_magnitude,
    prune_neurons,
    quantize,
    round_to_int8,
    skip_layers,
)
from minillm.decoding import ModelDraft, Options, generate_batch
from minillm.decoding.generate import moments
from minillm.loading import load_model
from minillm.steps import Patch
from minillm.twins.choose import twin
from minillm.weights import LowRank, Sparse

CONFIG = GPT2Config(vocab_size=70, n_positions=16, n_embd=36, n_layer=3, n_head=3, n_inner=50)
MODEL = GPT2.random(CONFIG, seed=2, dtype=np.float64)
MODEL = MODEL.with_parameters(
    {
        name: p * 6 if p.ndim == 2 else p + np.random.default_rng(len(name)).normal(0, 0.1, p.shape)
        for name, p in MODEL.parameters.items()
    }
)
IDS = np.array([[3, 1, 4, 1, 5, 9], [9, 2, 6, 5, 3, 5]])
LOGITS = MODEL(IDS)


def nbytes(model):
    return sum(p.nbytes for p in model.parameters.values())


def same(model, expected=LOGITS):
    np.testing.assert_allclose(model(IDS), expected, atol=1e-10)  # float64; worst measured 2e-13


# ---- where nothing is lost, nothing changes


def test_nothing_left_out_is_exact():
    same(low_rank(MODEL, 36))
    same(prune_magnitude(MODEL, 0))
    same(prune_heads(MODEL, 3, IDS))
    same(prune_neurons(MODEL, 50, IDS))
    same(skip_layers(MODEL, 0))


# ---- what is left out is what is said, by the step seam: the full model with the same things
# replaced


def prove_neurons():
    small, traced = prune_neurons(MODEL, 20, IDS), MODEL.trace(IDS)
    assert small.config.n_inner == 20 and small.parameters["h.1.mlp.c_fc.weight"].shape == (36, 20)

    def patched(i):
        act = traced[f"h.{i}.mlp.act"]
        w = MODEL.parameters[f"h.{i}.mlp.c_proj.weight"]
        importance = np.abs(act).mean(axis=(0, 1)) * np.linalg.norm(w, axis=1)
        out = np.argsort(-importance)[20:]
        mean = act.mean(axis=(0, 1))
        return lambda a: np.where(np.isin(np.arange(50), out), mean, a)

    same(small, MODEL(IDS, step=Patch({f"h.{i}.mlp.act": patched(i) for i in range(3)})))


def prove_heads():
    small, traced = prune_heads(MODEL, 2, IDS), MODEL.trace(IDS)
    assert small.config.n_head == 2 and small.config.head_dim == 12
    assert small.parameters["h.0.attn.c_attn.weight"].shape == (36, 72)

    def patched(i):
        context = traced[f"h.{i}.attn.context"]  # [B,H,T,D]
        rows = MODEL.parameters[f"h.{i}.attn.c_proj.weight"].reshape(3, 12, 36)
        sizes = [np.linalg.norm(context[:, h] @ rows[h], axis=-1).mean() for h in range(3)]
        out = np.argmin(sizes)
        mean = context[:, out].mean(axis=(0, 1))
        return lambda c: np.where((np.arange(3) == out)[:, None, None], mean, c)

    same(small, MODEL(IDS, step=Patch({f"h.{i}.attn.context": patched(i) for i in range(3)})))


def prove_magnitude():
    for sparsity in (0.3, 0.9):
        small = prune_magnitude(MODEL, sparsity)
        for name, w in MODEL.parameters.items():
            if isinstance(found := small.parameters[name], Sparse):
                kept = found.dense()
                assert found.size == w.size - int(sparsity * w.size)
                assert (kept[kept != 0] == w[kept != 0]).all()
                assert np.abs(w[kept == 0]).max() <= np.abs(w[kept != 0]).min()
                x = np.random.default_rng(0).normal(size=(3, 2, w.shape[0]))
                np.testing.assert_allclose(x @ found, x @ kept, atol=1e-12)


def prove_low_rank():
    """Eckart and Young: the error is the singular values left out."""
    small = low_rank(MODEL, 7, ("mlp.c_fc", "attn.c_proj"))
    for name, w in MODEL.parameters.items():
        found = small.parameters[name]
        if ".c_fc.weight" in name or "attn.c_proj.weight" in name:
            left_out = np.linalg.svd(w, compute_uv=False)[7:]
            assert np.linalg.norm(found.dense() - w) == pytest.approx(np.linalg.norm(left_out))
            assert found.nbytes == 8 * 7 * sum(w.shape)
        else:
            assert found is w
    dense = {n: p.dense() if isinstance(p, LowRank) else p for n, p in small.parameters.items()}
    same(small, GPT2(CONFIG, dense)(IDS))


PROOFS = [prove_neurons, prove_heads, prove_magnitude, prove_low_rank]


@pytest.mark.parametrize("proof", PROOFS)
def test_what_is_left_out_is_what_is_said(proof):
    proof()


def keeps_the_least(patch):
    patch.setattr(
        prune, "_largest", lambda importance, keep: np.sort(np.argsort(importance)[:keep])
    )


def forgets_the_mean(patch):
    patch.setattr(prune, "_add_left_out", lambda parameters, matrix, added, kept: None)


def sums_the_mean_of_what_stays(patch):
    def wrong(parameters, matrix, added, kept):
        bias = matrix.replace("weight", "bias")
        parameters[bias] = parameters[bias] + added[kept].sum(axis=0)

    patch.setattr(prune, "_add_left_out", wrong)


def heads_out_of_step(patch):
    right = prune._shrink

    def wrong(model, parameters, layer, kept):
        right(
            model, parameters, layer, {axis: np.roll(n, axis == "KD") for axis, n in kept.items()}
        )

    patch.setattr(prune, "_shrink", wrong)


def drops_the_largest(patch):
    right = np.argpartition
    patch.setattr(np, "argpartition", lambda sizes, n, axis: right(-sizes, n, axis))


def smallest_singular_values(patch):
    right = np.linalg.svd

    def wrong(w, full_matrices=True, compute_uv=True):
        if not compute_uv:
            return right(w, compute_uv=False)
        u, s, vt = right(w, full_matrices=full_matrices)
        return u[:, ::-1], s[::-1], vt[::-1]

    patch.setattr(np.linalg, "svd", wrong)


def roots_forgotten(patch):
    patch.setattr(np, "sqrt", lambda x: x)


GALLERY = [
    (keeps_the_least, prove_neurons),
    (keeps_the_least, prove_heads),
    (forgets_the_mean, prove_neurons),
    (sums_the_mean_of_what_stays, prove_heads),
    (heads_out_of_step, prove_heads),
    (drops_the_largest, prove_magnitude),
    (smallest_singular_values, prove_low_rank),
    (roots_forgotten, prove_low_rank),
]


@pytest.mark.parametrize(("mistake", "proof"), GALLERY)
def test_mistakes_are_caught(mistake, proof, monkeypatch):
    with monkeypatch.context() as patch:
        mistake(patch)
        with pytest.raises((AssertionError, ValueError)):
            proof()


def test_empty_outputs_of_a_sparse_product():
    """reduceat alone would give them their neighbour's number."""
    matrix = np.array([[0.0, 2, 0, 0], [0, 3, 0, 5]])
    weight = Sparse.from_matrix(matrix)
    np.testing.assert_array_equal(weight.dense(), matrix)
    np.testing.assert_array_equal(np.array([[1.0, 10.0]]) @ weight, [[0, 32, 0, 50]])
    np.testing.assert_array_equal(np.ones(2) @ Sparse.from_matrix(np.zeros((2, 3))), np.zeros(3))


@pytest.mark.parametrize("rows", [1, 5])
def test_the_sparse_kernel_is_the_textbook(rows):
    product = pytest.importorskip("minillm.kernels.sparse").csr_matmul
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(40, 33)).astype(np.float32) * (rng.random((40, 33)) < 0.2)
    matrix[:, 5] = 0
    x = rng.normal(size=(rows, 40)).astype(np.float32)
    # worst measured 1e-6
    np.testing.assert_allclose(x @ Sparse.from_matrix(matrix, product), x @ matrix, atol=2e-5)


# ---- smaller in fact, and still a model like any other


def test_break_even():
    for shape in ((768, 768), (768, 2304), (36, 50)):
        rank = break_even_rank(shape)
        assert rank * sum(shape) < shape[0] * shape[1] <= (rank + 1) * sum(shape)
    assert break_even_rank((768, 768)) == 383
    assert nbytes(low_rank(MODEL, break_even_rank((36, 36)), ("attn.c_proj",))) < nbytes(MODEL)
    assert nbytes(low_rank(MODEL, 18, ("attn.c_proj",))) == nbytes(MODEL)


SMALLER = {
    "low rank": lambda m: low_rank(m, 8),
    "sparse": lambda m: prune_magnitude(m, 0.8),
    "heads": lambda m: prune_heads(m, 1, IDS),
    "neurons": lambda m: prune_neurons(m, 10, IDS),
    "layers": lambda m: skip_layers(m, 1),
    "all": lambda m: quantize(
        low_rank(prune_heads(prune_neurons(m, 32, IDS), 2, IDS), 8, ("attn.c_proj",)), "int8"
    ),
}


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("lever", SMALLER)
def test_a_smaller_model_generates_as_any_other(lever, kernels):
    """With a cache as without, alone as in a batch, and as a draft of the model it came from; both
    twins, float32."""
    full = GPT2(
        CONFIG, {n: p.astype(np.float32) for n, p in MODEL.parameters.items()}, twin(kernels)
    )
    full = quantize(full, "float32") if kernels == "numba" else full
    model = SMALLER[lever](full)
    assert nbytes(model) < nbytes(full) and model.new_cache().nbytes <= full.new_cache().nbytes
    ids = model.generate([3, 1, 4], 8)
    np.testing.assert_array_equal(ids, model.generate([3, 1, 4], 8, use_cache=False))
    assert [m.id for _, m in generate_batch(model, [[3, 1, 4]])][:8] == ids[3:].tolist()
    drafted = [
        m.id for m in moments(full, [3, 1, 4], Options(max_new_tokens=8), draft=ModelDraft(model))
    ]
    assert drafted == full.generate([3, 1, 4], 8)[3:].tolist()


@pytest.mark.parametrize("lever", SMALLER)
def test_saved_and_loaded_it_is_the_same(lever, tmp_path):
    model = SMALLER[lever](MODEL if lever != "all" else MODEL.astype(np.float32))
    model.save_pretrained(tmp_path)
    np.testing.assert_allclose(load_model(tmp_path, "float64")(IDS), model(IDS), atol=1e-5)


# ---- scales, and errors by layer


def test_a_coarser_scale_loses_more():
    model = MODEL.astype(np.float32)
    errors = [
        errors_by_matrix(model, m)
        for m in (quantize(model, "int8"), round_to_int8(model), round_to_int8(model, "tensor"))
    ]
    assert list(errors[0]) == [n for n, p in MODEL.parameters.items() if p.ndim == 2]
    for name in ("wte.weight", "h.0.attn.c_attn.weight", "h.2.mlp.c_proj.weight"):
        block, row, tensor = (e[name] for e in errors)
        assert 0 < block < row < tensor < 0.02
    assert all(e["wpe.weight"] == 0 for e in errors)


def test_a_row_is_an_output():
    w = round_to_int8(MODEL).parameters["h.0.mlp.c_fc.weight"]
    steps = w / (np.abs(MODEL.parameters["h.0.mlp.c_fc.weight"]).max(axis=0) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
    table = round_to_int8(MODEL).parameters["wte.weight"]
    steps = table / (np.abs(MODEL.parameters["wte.weight"]).max(axis=1, keepdims=True) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)


def test_the_head_can_keep_its_precision():
    for smaller in (
        lambda head: quantize(MODEL.astype(np.float32), "int4", head=head),
        lambda h: round_to_int8(MODEL, head=h),
    ):
        errors = errors_by_matrix(MODEL, smaller(False))
        assert errors["wte.weight"] < 1e-7 and errors["h.0.mlp.c_fc.weight"] > 1e-3
        assert errors_by_matrix(MODEL, smaller(True))["wte.weight"] > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: low_rank(MODEL, 37),
            r"rank 37 of h.0.attn.c_attn.weight \(36, 108\): it must be from 1 to 36",
        ),
        (lambda: low_rank(MODEL, 0), "rank is 0"),
        (
            lambda: low_rank(MODEL, 4, ("wte",)),
            "'wte' is no matrix of a block; known: attn.c_attn",
        ),
        (lambda: prune_magnitude(MODEL, 1.2), "sparsity is 1.2; it must be at least 0 and below 1"),
        (lambda: prune_magnitude(MODEL, -0.1), "sparsity is -0.1"),
        (lambda: prune_heads(MODEL, 4, IDS), "4 heads cannot be kept of 3: it must be from 1 to 3"),
        (
            lambda: prune_neurons(MODEL, 0, IDS),
            "neurons to keep is 0; it must be a whole number of at least 1",
        ),
        (
            lambda: skip_layers(MODEL, 2),
            "2 layers cannot be skipped of 3: the first and the last stay",
        ),
        (lambda: skip_layers(MODEL, -1), "layers to skip is -1"),
        (lambda: round_to_int8(MODEL, "column"), "per is 'column'; it must be one of row, tensor"),
    ],
)
def test_levers_that_cannot_apply_say_so(make, message):
    with pytest.raises(InputError, match=message):
        make()
