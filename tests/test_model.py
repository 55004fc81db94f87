"""The model: shapes, dtypes, cached equals uncached, and clear refusals."""

from types import SimpleNamespace

import numpy as np
import pytest

from minillm import GPT2, GPT2Config, InputError, kernels, ops
from minillm.families.gpt2 import step_names
from minillm.weights import store

CONFIG = GPT2Config(vocab_size=61, n_positions=16, n_embd=21, n_layer=2, n_head=3)
MODEL = GPT2.random(CONFIG, seed=1)
IDS = np.random.default_rng(2).integers(0, 61, (2, 12))

# float64: the orders of summation differ between one row and many; worst measured 2e-16 at logits
# of size 1.
EXACT = dict(rtol=0, atol=1e-13)


@pytest.fixture(scope="module")
def exact() -> GPT2:
    return MODEL.astype(np.float64)


def test_shapes_with_and_without_batch():
    assert MODEL(IDS).shape == (2, 12, 61)
    assert MODEL(IDS[0]).shape == (12, 61)
    assert MODEL(IDS, last=True).shape == (2, 1, 61)
    # float32: one row is summed in another order than twelve; worst measured 3e-8
    np.testing.assert_allclose(MODEL(IDS[0], last=True), MODEL(IDS[0])[-1:], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
def test_every_intermediate_has_the_dtype_of_the_parameters(dtype, activation):
    config = GPT2Config(
        **{
            **vars(CONFIG),
            "activation_function": activation,
            "scale_attn_by_inverse_layer_idx": True,
        }
    )
    model = GPT2.random(config, dtype=dtype)
    cache = model.new_cache(2)
    assert cache.keys.dtype == cache.values.dtype == dtype
    for ids in (IDS[:, :5], IDS[:, 5:6]):  # prefill, then decode
        trace = model.trace(ids, cache)
        assert list(trace) == step_names(2)
        assert {str(v.dtype) for v in trace.values()} == {np.dtype(dtype).name}


def test_shapes_are_those_of_the_letters():
    B, T, H, C, V = 2, 5, 3, 21, 61
    D, F = C // H, 4 * C
    cache = MODEL.new_cache(B)
    MODEL(IDS[:, :4], cache)
    trace = MODEL.trace(IDS[:, 4:9], cache)
    S = 4 + T
    expected = {
        "ln_1": (B, T, C),
        "attn.c_attn": (B, T, 3 * C),
        "attn.q": (B, H, T, D),
        "attn.k": (B, H, T, D),
        "attn.v": (B, H, T, D),
        "attn.scores": (B, H, T, S),
        "attn.weights": (B, H, T, S),
        "attn.context": (B, H, T, D),
        "attn.out": (B, T, C),
        "attn.residual": (B, T, C),
        "ln_2": (B, T, C),
        "mlp.c_fc": (B, T, F),
        "mlp.act": (B, T, F),
        "mlp.out": (B, T, C),
        "mlp.residual": (B, T, C),
    }
    assert {name: trace[f"h.1.{name}"].shape for name in expected} == expected
    assert trace["embed"].shape == trace["ln_f"].shape == (B, T, C)
    assert trace["logits"].shape == (B, T, V)


def test_the_forward_writes_into_nothing_that_has_passed():
    frozen = {}

    def freeze(name, value):
        frozen[name] = (value, value.copy())
        return value

    cache = MODEL.new_cache(2)
    for ids in (IDS[:, :5], IDS[:, 5:6], IDS[:, 6:7]):
        MODEL(ids, cache, step=freeze)
        for name, (value, copy) in frozen.items():
            np.testing.assert_array_equal(value, copy, err_msg=name)


# ---- cached equals uncached


def splits_of(n):
    """Every way to cut 1..n into consecutive parts."""
    return [[]] if n == 0 else [[k, *rest] for k in range(1, n + 1) for rest in splits_of(n - k)]


@pytest.mark.parametrize("split", splits_of(6), ids=str)
def test_every_split_of_a_prompt_gives_the_same_logits(exact, split):
    cache, parts, start = exact.new_cache(2), [], 0
    for n in split:
        parts.append(exact(IDS[:, start : start + n], cache))
        start += n
    np.testing.assert_allclose(np.concatenate(parts, axis=1), exact(IDS[:, :6]), **EXACT)
    assert cache.lengths.tolist() == [6, 6]


def test_every_position_up_to_a_full_cache(exact):
    ids = np.arange(16) % 61
    cache = exact.new_cache()
    logits = [exact(ids[i : i + 1], cache)[0] for i in range(16)]
    np.testing.assert_allclose(logits, exact(ids), **EXACT)
    with pytest.raises(InputError, match="17 positions do not fit: there is room for 16"):
        exact(ids[:1], cache)


def test_a_truncated_cache_is_as_if_the_rest_had_never_been(exact):
    cache = exact.new_cache(2)
    exact(IDS[:, :9], cache)
    cache.truncate(4)
    np.testing.assert_allclose(exact(IDS[:, 4:7], cache), exact(IDS[:, :7])[:, 4:], **EXACT)
    cache.truncate(0)
    np.testing.assert_allclose(exact(IDS[:, :3], cache), exact(IDS[:, :3]), **EXACT)


def test_a_truncated_row_leaves_the_others_alone(exact):
    cache = exact.new_cache(2)
    exact(IDS[:, :6], cache)
    cache.truncate(2, row=0)
    logits = exact(np.array([[IDS[0, 2]], [IDS[1, 6]]]), cache)
    np.testing.assert_allclose(logits[0, 0], exact(IDS[0, :3])[-1], **EXACT)
    np.testing.assert_allclose(logits[1, 0], exact(IDS[1, :7])[-1], **EXACT)


@pytest.mark.parametrize("lengths", [[1, 7], [7, 1], [3, 5], [7, 7]])
def test_ragged_rows_get_what_they_get_alone(exact, lengths):
    padded = np.where(np.arange(7) < np.array(lengths)[:, None], IDS[:, :7], 0)
    cache = exact.new_cache(2)
    logits = exact(padded, cache, lengths=lengths)
    last = exact(padded, lengths=lengths, last=True)
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(logits[row, :n], exact(IDS[row, :n]), **EXACT)
        np.testing.assert_allclose(last[row, 0], logits[row, n - 1], **EXACT)
    for step in range(4):  # and on, each row at its own position
        ids = np.array([[IDS[row, n + step]] for row, n in enumerate(lengths)])
        logits = exact(ids, cache)
        for row, n in enumerate(lengths):
            np.testing.assert_allclose(logits[row, 0], exact(IDS[row, : n + step + 1])[-1], **EXACT)


def test_padding_may_reach_beyond_the_last_position(exact):
    cache = exact.new_cache(2)
    exact(np.zeros((2, 14), int), cache, lengths=[14, 9])
    logits = exact(np.zeros((2, 4), int), cache, lengths=[2, 4])
    np.testing.assert_allclose(logits[0, 1], exact(np.zeros(16, int))[-1], **EXACT)
    np.testing.assert_allclose(logits[1, 3], exact(np.zeros(13, int))[-1], **EXACT)


def test_rows_are_taken_and_joined(exact):
    cache = exact.new_cache(2)
    exact(IDS[:, :5], cache)
    swapped = cache.take([1, 0, 1])
    logits = exact(IDS[[1, 0, 1], 5:6], swapped)
    np.testing.assert_allclose(logits[:, 0], exact(IDS[:, :6])[[1, 0, 1], -1], **EXACT)
    assert cache.lengths.tolist() == [5, 5]  # copies: the original has not moved
    single = exact.new_cache()
    exact(IDS[0, :3], single)
    joined = type(cache).join([single, cache])
    logits = exact(np.array([[IDS[0, 3]], [IDS[0, 5]], [IDS[1, 5]]]), joined)
    np.testing.assert_allclose(logits[0, 0], exact(IDS[0, :4])[-1], **EXACT)
    np.testing.assert_allclose(logits[1:, 0], exact(IDS[:, :6])[:, -1], **EXACT)


def test_an_interrupted_pass_leaves_the_cache_as_it_was(exact):
    cache = exact.new_cache()
    exact(IDS[0, :4], cache)

    def interrupt(name, value):
        if name == "h.1.attn.scores":
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        exact(IDS[0, 4:7], cache, step=interrupt)
    np.testing.assert_allclose(exact(IDS[0, 4:6], cache), exact(IDS[0, :6])[4:], **EXACT)


def test_no_later_token_changes_an_earlier_logit(exact):
    changed = IDS.copy()
    changed[:, 7] = (changed[:, 7] + 1) % 61
    same = exact(IDS) == exact(changed)
    assert same[:, :7].all() and not same[:, 7:].all()


def test_a_float16_cache_rounds_keys_and_values_and_nothing_else():
    """float16 keeps 11 bits of keys and values: worst measured 3e-5 at logits of size 0.1."""
    half, full = MODEL.new_cache(2, dtype=np.float16), MODEL.new_cache(2)
    assert half.nbytes * 2 == full.nbytes
    for part in (IDS[:, :6], IDS[:, 6:7], IDS[:, 7:12]):
        ours, exact_ = MODEL(part, half), MODEL(part, full)
        assert ours.dtype == np.float32 and 0 < np.abs(ours - exact_).max() < 2e-4


# ---- refusals


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], r"shape \(0,\)"),
        ([[[1]]], r"shape \(1, 1, 1\)"),
        ([1.5], "integers, not float64"),
        (["a"], "integers"),
        ([61], "id 61 is outside the vocabulary of 61"),
        ([3, -1], "id -1 is outside"),
        ([[1, 2], [3]], "one rectangle"),
        ([0] * 17, "17 positions do not fit: there is room for 16"),
    ],
)
def test_unusable_ids_are_refused(ids, message):
    with pytest.raises(InputError, match=message):
        MODEL(ids)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(
    "lengths",
    [[0, 3], [3, 5], [3], [3, 3, 3], [3.0, 3], [2.5, 3], [np.nan, 3], [True, True], ["a", 3]],
)
def test_unusable_lengths_are_refused(lengths, cache):
    with pytest.raises(InputError, match="lengths"):
        MODEL(IDS[:, :4], MODEL.new_cache(2) if cache else None, lengths=lengths)


@pytest.mark.parametrize("dtype", ["int8", int, complex, bool, "bfloat16", "abc", ">f4", object])
def test_types_that_a_model_cannot_compute_with_are_refused(dtype):
    for make in (MODEL.astype, lambda dtype: MODEL.new_cache(dtype=dtype)):
        with pytest.raises(InputError, match="it must be float16, float32 or float64"):
            make(dtype)


def test_unusable_caches_are_refused():
    with pytest.raises(InputError, match="the cache has 3 rows and the ids 2"):
        MODEL(IDS, MODEL.new_cache(3))
    with pytest.raises(InputError, match="capacity 17: the model has 16 positions"):
        MODEL.new_cache(capacity=17)
    with pytest.raises(InputError, match="batch is 0; it must be a whole number of at least 1"):
        MODEL.new_cache(0)
    cache = MODEL.new_cache(2)
    with pytest.raises(InputError, match="cannot truncate to length 3"):
        cache.truncate(3, row=1)
    with pytest.raises(InputError, match="different shapes"):
        type(cache).join([cache, MODEL.new_cache(2, capacity=5)])


def test_parameters_must_fit_the_config():
    with pytest.raises(
        InputError,
        match=r"^parameter h.1.mlp.c_fc.bias is missing; this config needs \(84,\); 1 of",
    ):
        GPT2(CONFIG, {n: p for n, p in MODEL.parameters.items() if n != "h.1.mlp.c_fc.bias"})
    with pytest.raises(
        InputError,
        match=r"parameter h\.2\.ln_1\.weight has no place in this config; 1 are too many",
    ):
        GPT2(CONFIG, MODEL.parameters | {"h.2.ln_1.weight": np.ones(21, np.float32)})


@pytest.mark.parametrize("dtype", [int, bool, complex, object, "U9", "M8[s]", np.longdouble])
@pytest.mark.parametrize("name", ["wte.weight", "wpe.weight", "h.0.ln_1.weight", "ln_f.bias"])
def test_parameters_must_be_floats_that_a_model_computes_with(name, dtype):
    wrong = np.zeros(MODEL.parameters[name].shape, dtype)
    if wrong.dtype == np.float64:  # where a long double is no longer than a double
        pytest.skip("this system has no longer floats")
    with pytest.raises(InputError, match=f"^parameter {name} is .*; it must be float16, float32"):
        GPT2(CONFIG, MODEL.parameters | {name: wrong})


@pytest.mark.parametrize(
    ("name", "table", "dtype"),
    [
        ("h.0.ln_1.bias", np.float32, np.float64),
        ("ln_f.weight", np.float64, np.float32),
        ("wpe.weight", np.float16, np.float32),
        ("wte.weight", np.float32, np.float64),
    ],
)
def test_parameters_must_be_of_one_type(name, table, dtype):
    """Else logits have one that model.dtype does not say."""
    mixed = {n: p.astype(dtype if n == name else table) for n, p in MODEL.parameters.items()}
    first = name if name != "wte.weight" else "wpe.weight"
    says = rf"^parameter {first} is \w+ and wte.weight \w+; give all in one dtype"
    for twin in (ops, kernels):
        with pytest.raises(InputError, match=says):
            GPT2(CONFIG, mixed, twin)


def test_stored_matrices_give_float32_or_what_is_wider():
    stored = {n: store(p, "bfloat16") for n, p in MODEL.matrices().items()}
    of = {t: {n: p.astype(t) for n, p in MODEL.parameters.items()} for t in ("float16", "float64")}
    with pytest.raises(InputError, match=r"is float32 and wte.weight float16"):
        GPT2(CONFIG, of["float16"] | stored)
    model = GPT2(CONFIG, of["float64"] | stored)
    assert model(IDS).dtype == model.dtype == np.float64


def test_what_is_too_large_for_a_type_becomes_its_largest():
    bias = np.array([1e5, -np.inf, np.nan, -1e39, *np.zeros(17)])
    single = MODEL.with_parameters({"ln_f.bias": bias})
    half = single.astype(np.float16)
    for model, largest in ((single, np.finfo(np.float32).max), (half, 65504)):
        found = model.parameters["ln_f.bias"][:4]
        np.testing.assert_array_equal(found, [min(1e5, largest), -np.inf, np.nan, -largest])


def test_gpt2s_own_parameter_counts():
    sizes = {
        (768, 12, 12): 124_439_808,
        (1024, 24, 16): 354_823_168,
        (1280, 36, 20): 774_030_080,
        (1600, 48, 25): 1_557_611_200,
    }
    for (n_embd, n_layer, n_head), count in sizes.items():
        shapes = GPT2Config(n_embd=n_embd, n_layer=n_layer, n_head=n_head).parameter_shapes()
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == count
    assert len(GPT2Config().parameter_shapes()) == 148
    cache_bytes = 2 * 12 * 768 * 4
    assert MODEL.new_cache().nbytes == 2 * 2 * 21 * 16 * 4 and cache_bytes == 73_728


def test_the_start_is_gpt2s():
    model = GPT2.random(GPT2Config(vocab_size=500, n_positions=64, n_embd=128, n_layer=2, n_head=4))
    p = model.parameters
    assert p["wte.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert p["h.0.mlp.c_proj.weight"].std() == pytest.approx(0.02 / 2, rel=0.02)  # sqrt(2 L) = 2
    assert (p["h.1.ln_2.weight"] == 1).all() and (p["h.1.attn.c_attn.bias"] == 0).all()
    assert (
        GPT2.random(CONFIG, seed=1).parameters["wpe.weight"] == MODEL.parameters["wpe.weight"]
    ).all()


def test_a_notebook_shows_what_the_model_is():
    html = MODEL.quantize("int8")._repr_html_()
    for shown in ("2 x 3 x 21", "61, 16", f"{MODEL.n_parameters:,}", "int8, 0.0 MB", "numpy"):
        assert f"<td>{shown}</td>" in html
    own = GPT2(CONFIG, MODEL.parameters, SimpleNamespace(**vars(ops) | {"name": "<b>mine"}))
    assert "<td>&lt;b&gt;mine</td>" in own._repr_html_()
