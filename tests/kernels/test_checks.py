"""Public kernels refuse what does not fit: a kernel itself would read and write beyond an array."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from minillm import kernels
from minillm.families.gpt2.config import GPT2Config
from minillm.families.gpt2.program import program
from minillm.kernels.blocked import Training, transposed_product
from minillm.kernels.blocked import product as blocked_product
from minillm.kernels.ladders import MATMUL, SOFTMAX
from minillm.kernels.limits import row_product
from minillm.kernels.sparse import csr_matmul
from minillm.layers.cache import KVCache
from minillm.model import GPT2
from minillm.weights import KINDS, Sparse, store, store_parameters

SIZES = {"R": 3, "B": 2, "H": 2, "T": 3, "S": 5, "D": 4, "C": 6, "G": 24, "V": 7, "N": 5, "K": 40}
WEIGHT = {kind: store(np.ones((40, 5), np.float32), kind) for kind in KINDS}
SPARSE = Sparse.from_matrix(np.eye(40, 5, dtype=np.float32), csr_matmul)


def adamw(parameter, gradient, mean, square):
    kernels.adamw_update(parameter, gradient, mean, square, lr=0.1, step=1)


# Each array argument by the letters of its axes; the letter of an array's own, which may have any
# length, is in no other one. An I stands before the numbers of rows of the axis that it names.
PUBLIC = {
    "linear": (lambda x, w, b: kernels.linear(x, w, b), "RK", "KN", "N"),
    **{f"linear {k}": (lambda x, w=w: kernels.linear(x, w), "RK") for k, w in WEIGHT.items()},
    "linear sparse": (lambda x: kernels.linear(x, SPARSE), "RK"),
    "layer_norm": (kernels.layer_norm, "RC", "C", "C"),
    "rms_norm": (kernels.rms_norm, "RC", "C"),
    "softmax": (kernels.softmax, "RV"),
    "log_softmax": (kernels.log_softmax, "RV"),
    "cross_entropy": (kernels.cross_entropy, "RV", "IR"),
    "gelu_new": (kernels.gelu_new, "RV"),
    "gelu": (kernels.gelu, "RV"),
    "relu": (kernels.relu, "RV"),
    "silu": (kernels.silu, "RV"),
    "attention": (lambda *a: kernels.attention(*a, 0.5), "BHTD", "BHSD", "BHSD", "IBT"),
    "layer_norm_backward": (kernels.layer_norm_backward, "RC", "RC", "C"),
    "rms_norm_backward": (kernels.rms_norm_backward, "RC", "RC", "C"),
    "silu_backward": (kernels.silu_backward, "RC", "RC"),
    "gelu_new_backward": (kernels.gelu_new_backward, "RC", "RC"),
    "cross_entropy_backward": (kernels.cross_entropy_backward, "R", "RV", "IR"),
    "embedding_backward": (kernels.embedding_backward, "BTC", "IBT", "VC"),
    "attention_backward": (
        lambda d, q, k, v, c, p: kernels.attention_backward(d, q, k, v, c, p, 0.5),
        *("BHTD", "BHTD", "BHSD", "BHSD", "BHTD", "IBT"),
    ),
    "lstm": (kernels.lstm, "BTG", "CG"),
    "lstm_backward": (kernels.lstm_backward, "BTC", "BTG", "BTC", "CG"),
    "adamw_update": (adamw, "VC", "VC", "VC", "VC"),
    "Training.linear": (Training().linear, "RK", "KN", "N"),
    "Training.linear_backward": (Training().linear_backward, "RN", "RK", "KN"),
    "Training.unembed_backward": (Training().unembed_backward, "RV", "RC", "VC"),
    "product": (blocked_product, "RK", "KN", "N"),
    "transposed_product": (transposed_product, "RC", "RN"),
    **{f"matmul {name}": (rung, "RK", "KN") for name, rung in MATMUL.items()},
    **{f"softmax {name}": (rung, "RV") for name, rung in SOFTMAX.items()},
    "row_product": (lambda x: row_product(WEIGHT["float32"], x), "K"),
}
# NumPy takes over for other types, and spreads an axis that is missing
NUMPYS = {n for n in PUBLIC if n.startswith(("linear", "Training", "product"))}
NUMPYS |= {"relu", "softmax two_pass"}


def arguments(letters):
    r = np.random.default_rng(0)
    return [
        r.integers(0, 3, [SIZES[i] for i in axes[1:]])
        if axes[0] == "I"
        else r.standard_normal([SIZES[i] for i in axes]).astype(np.float32)
        for axes in letters
    ]


def wrong_shapes(name, letters):
    """Yield arguments of which one is longer or shorter along an axis that another one settles, or
    has one axis too many or too few."""
    settled = {i for i in "".join(letters) if "".join(letters).count(i) > 1}
    settled |= set("CG" if name == "lstm" else "K" if name != "linear" else "")
    for n, axes in enumerate(letters):
        axes = axes.removeprefix("I")
        for axis, letter in enumerate(axes):
            for change in (-1, 1) if letter in settled else ():
                given = arguments(letters)
                shape = list(given[n].shape)
                shape[axis] += change
                given[n] = np.zeros(shape, given[n].dtype)
                yield f"argument {n} is {shape}", given
        if n and name not in NUMPYS | {"cross_entropy"}:
            for other in (lambda a: a[None], lambda a: a[0]):
                given = arguments(letters)
                given[n] = other(given[n])
                yield f"argument {n} is {given[n].shape}", given


@pytest.mark.parametrize("name", PUBLIC)
def test_shapes_that_do_not_fit_are_refused(name):
    function, *letters = PUBLIC[name]
    function(*arguments(letters))
    for what, given in wrong_shapes(name, letters):
        with pytest.raises(ValueError, match=r"\S"):
            print(name, what)
            function(*given)


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - NUMPYS))
def test_numbers_of_another_kind_are_refused(name):
    function, *letters = PUBLIC[name]
    for n in range(len(letters)):
        given = arguments(letters)
        given[n] = given[n].astype(np.complex64)
        with pytest.raises(ValueError, match=r"\S"):
            function(*given)


@pytest.mark.parametrize("name", [n for n, (_, *axes) in PUBLIC.items() if "I" in "".join(axes)])
def test_row_numbers_outside_are_refused(name):
    function, *letters = PUBLIC[name]
    n = next(i for i, axes in enumerate(letters) if axes[0] == "I")
    numbers = [2.0, None] if "attention" in name else [7, -8, 2**62, -(2**62), 2.0, None]
    for number in [*numbers, -1] if name == "attention_backward" else numbers:
        given = arguments(letters)
        given[n] = np.full_like(given[n], number, np.array(number).dtype)
        with pytest.raises(ValueError, match=r"\S"):
            function(*given)


def test_every_public_kernel_is_tried():
    others = {"DecodeStep", "Training", "available", "now", "n_threads", "set_threads"}
    others |= {"csr_matmul"}  # weights.Sparse looks at its arrays
    others |= {"read_everything", "row_product", "launch", "meet_often"}  # measure the machine
    others |= {"causal_mask", "merge_heads", "split_heads"}  # ops' own: no kernel
    assert set(kernels.__all__) - others <= PUBLIC.keys()


def test_no_file_bears_the_name_of_a_kernel():
    """Importing it would set the module in the kernel's place."""
    assert not {file.stem for file in Path(kernels.__file__).parent.iterdir()} & {*kernels.ROOMS}


@pytest.mark.parametrize("far", [2**62, -(2**62), np.iinfo(np.int64).max, np.iinfo(np.int64).min])
def test_positions_far_away_see_all_keys_or_none(far):
    q, k, v, _ = arguments(["BHTD", "BHSD", "BHSD", "IBT"])
    found = kernels.attention(q, k, v, np.full((2, 3), far), 0.5)
    all_seen = kernels.attention(q, k, v, np.full((2, 3), 4), 0.5)
    assert np.array_equal(found, all_seen) if far > 0 else np.isnan(found).all()


def test_what_is_changed_in_place_is_writable_alike_and_apart():
    p = np.ones((8, 6), np.float32)
    frozen, shared, turned = p.copy(), np.ones(40, np.float32), np.ones((6, 8), np.float32).T
    frozen.flags.writeable = False
    given = [p, p.copy(), p.copy(), p.copy()]
    for n, wrong in (
        *((n, a) for n in (0, 2, 3) for a in (frozen, turned, p.astype(np.float64), p.tolist())),
        *((n, given[m]) for n in range(4) for m in range(4) if n != m),
    ):
        with pytest.raises(ValueError, match=r"changed in place|must be"):
            adamw(*(wrong if i == n else a for i, a in enumerate(given)))
    with pytest.raises(ValueError, match="overlap"):
        adamw(p[0], p[1], shared[:6], shared[3:9])
    with pytest.raises(ValueError, match="steps count from 1"):
        kernels.adamw_update(*given, lr=0.1, step=0)
    assert all((a == 1).all() for a in given)  # nothing was done
    ids = np.array([0, 1])
    for table in (frozen, p.astype(np.float16), p.tolist()):
        with pytest.raises(ValueError, match="changed in place"):
            kernels.embedding_backward(np.ones((2, 6), np.float32), ids, table)
    with pytest.raises(ValueError, match="overlap"):
        kernels.embedding_backward(p[:2], ids, p)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_that_do_not_store_a_weight_are_refused(kind):
    weight = WEIGHT[kind]
    for name, array in weight.arrays.items():
        for wrong in (array[:, :0], array[:0], array.astype(np.float64), None):
            with pytest.raises(ValueError, match=f"'{name}' is .*; {kind} for 5 rows of 40 needs"):
                type(weight)({**weight.arrays, name: wrong}, 5, 40, True)


@pytest.mark.parametrize(
    "values, indices, starts",
    [
        ([1, 2], [0, 4], [0, 2]),
        ([1], [0, 1], [0, 1]),
        ([1], [0], [0, 2]),
        ([1, 2], [0, 1], [0, 2, 1]),
    ]
    + [([1, 2], [0, -1], [0, 2]), ([], [], [])],
)
def test_indices_outside_a_sparse_matrix_are_refused(values, indices, starts):
    arrays = np.array(values, np.float32), np.array(indices, int), np.array(starts, int)
    with pytest.raises(ValueError, match="no sparse matrix of 4 inputs"):
        Sparse(*arrays, 4, csr_matmul)


def test_the_fused_step_refuses_what_does_not_fit():
    config = GPT2Config(vocab_size=31, n_positions=16, n_embd=12, n_layer=2, n_head=2)
    parameters = store_parameters(GPT2.random(config).parameters, "float32", config.layout)
    step = kernels.DecodeStep(program(config, parameters))

    def cache(**changes):
        return KVCache(GPT2Config(**{**vars(config), **changes}))

    ids = np.array([[3]])
    assert step(ids, cache()).shape == (1, 1, 31)
    for changes in ({"n_layer": 1}, {"n_head": 1}, {"n_embd": 14}):
        with pytest.raises(ValueError, match=r"keys is .*; it must be"):
            step(ids, cache(**changes))
    with pytest.raises(ValueError, match="17 places of 17, the model 16"):
        step(ids, cache(n_positions=17))
    for name, change in (
        ("values", lambda a: a[:, :, :, :8]),
        ("values", lambda a: a.astype(np.float16)),
        ("values", lambda a: np.repeat(a, 2, axis=-1)[..., ::2]),
        ("keys", lambda a: a[0]),
        ("lengths", lambda a: a - 1),
        ("lengths", lambda a: a.astype(np.int32)),
    ):
        wrong = cache()
        setattr(wrong, name, change(getattr(wrong, name)))
        with pytest.raises(ValueError, match="must be"):
            step(ids, wrong)
    for given in ([[31]], [[-32]], [[0.5]]):
        with pytest.raises(ValueError, match="ids"):
            step(np.array(given), cache())
    for given, lengths in ((np.zeros((1, 17), int), None), (ids, [2]), (ids, [0]), (ids, [1, 1])):
        with pytest.raises(ValueError, match="fit"):
            step(given, cache(), lengths)
    for name, said in (
        ("h.0.attn.c_attn.bias", "h.0.attn.c_attn.bias"),
        ("h.1.mlp.c_fc.weight", "h.1.mlp.act.weight"),
        ("wpe.weight", "positions"),
        ("ln_f.bias", "ln_f.bias"),
    ):
        p = parameters[name]
        shorter = p[:-1] if isinstance(p, np.ndarray) else store(p.dense()[:-1], "float32")
        with pytest.raises(ValueError, match=f"{said} is .*; it must be"):
            kernels.DecodeStep(program(config, {**parameters, name: shorter}))
