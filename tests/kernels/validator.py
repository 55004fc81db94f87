"""One validator for every twin of ops: the same inputs, ordinary and nasty, through both, and the
largest difference.

`python tests/kernels/validator.py` runs all of it on minillm.kernels in this process's settings:
the tests do so with NUMBA_DISABLE_JIT=1 and with the code for a processor without any extension,
which only a process of its own can choose.
"""

from __future__ import annotations

import warnings

import numpy as np

from minillm import ops, ops_backward
from minillm.families.gpt2.config import GPT2Config
from minillm.families.gpt2.program import program
from minillm.layers.attention import (
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)
from minillm.layers.feed_forward import gated, gated_backward
from minillm.layers.rope import rotate, rotation
from minillm.model import GPT2
from minillm.steps import Trace
from minillm.training import optimizers
from minillm.weights import KINDS, store, store_parameters

# Relative to the largest number of the result. float32: sums of up to 3072 numbers in another
# order; worst seen 2.1e-6. float64: exp of libm against NumPy's; worst seen 2e-15.
TOLERANCE = {np.dtype(np.float32): 5e-6, np.dtype(np.float64): 1e-14}
# Products of blocks round x to 8 bits in groups of 32: at most half a step, 1/254 of the group's
# largest number, for each input; over K inputs of random sign the worst seen was 1.0e-2 of the
# largest result (K = 33), 5e-3 from K = 256 on.
ROUNDED = 2.5e-2
FLOATS = ("float32", "bfloat16", "float16")  # with which nothing is rounded


def rows(seed: int, dtype) -> dict[str, np.ndarray]:
    """Arrays for operations on the last axis, by what is nasty about them."""
    r = np.random.default_rng(seed)
    masked = r.standard_normal((4, 50))
    masked[:, 7:] = -np.inf
    masked[2, :49] = -np.inf
    cases = {
        "vector": r.standard_normal(10),
        "length 1": r.standard_normal((3, 1)),
        "no multiple of 16": r.standard_normal((5, 67)),
        "batch": r.standard_normal((2, 3, 4, 33)),
        "many": r.standard_normal((700, 512)),
        "no rows": np.zeros((0, 8)),
        "-inf": masked,
        "huge": r.standard_normal((3, 40)) * 1e18,
        "tiny": r.standard_normal((3, 40)) * 1e-18,
        "far apart": np.array([[-1e4, 0.0, 1e4], [88.0, -88.0, 0.0], [-87.4, -103.0, -1.0]]),
        "equal": np.full((2, 31), 3.25),
    }
    cases = {name: x.astype(dtype) for name, x in cases.items()}
    cases["nan"] = cases["no multiple of 16"][:3, :20].copy()
    cases["nan"][1, 13] = np.nan
    infinite = r.standard_normal((5, 40))
    infinite[1, 3], infinite[2, 4], infinite[3, 5:7] = np.inf, -np.inf, (np.inf, -np.inf)
    infinite[4] = -np.inf
    cases["infinite"] = infinite.astype(dtype)
    cases["every second column"] = r.standard_normal((6, 80)).astype(dtype)[:, ::2]
    cases["backwards"] = r.standard_normal((6, 21)).astype(dtype)[::-1, ::-1]
    cases["transposed"] = r.standard_normal((40, 6)).astype(dtype).T
    cases["read-only"] = r.standard_normal((4, 18)).astype(dtype)
    cases["read-only"].flags.writeable = False
    return cases


def distance(ours, reference) -> float:
    """The largest |ours - reference| over max |reference|; infinite where shape, dtype, infinities
    or NaN differ."""
    ours, reference = np.asarray(ours), np.asarray(reference)
    if ours.shape != reference.shape or ours.dtype != reference.dtype:
        return np.inf
    finite = np.isfinite(reference)
    if not np.array_equal(ours[~finite], reference[~finite], equal_nan=True):
        return np.inf
    if not finite.any():
        return 0.0
    difference = np.abs(ours[finite].astype(np.float64) - reference[finite]).max()
    return float(difference / max(np.abs(reference[finite]).max(), np.finfo(reference.dtype).tiny))


def check_rows(twin, dtype, seed=0):
    """Yield (what, distance, tolerance) for every operation but linear and attention."""
    r = np.random.default_rng(seed)
    for name, x in rows(seed, dtype).items():
        N, tolerance = x.shape[-1], TOLERANCE[np.dtype(dtype)]
        weight, bias = r.standard_normal((2, N)).astype(dtype)
        targets = r.integers(0, N, x.shape[:-1])
        for op, arguments in {
            "softmax": (x,),
            "log_softmax": (x,),
            "cross_entropy": (x, targets),
            "layer_norm": (x, weight, bias),
            "rms_norm": (x, weight),
            "gelu_new": (x,),
            "gelu": (x,),
            "relu": (x,),
            "silu": (x,),
        }.items():
            if op == "layer_norm" and name == "tiny":
                tolerance = (
                    1e-4 if dtype == np.float32 else tolerance
                )  # variances of 1e-36 vanish beside eps
            if op == "gelu_new" and name == "huge" and dtype == np.float32:
                # x^3 overflows: NumPy's tanh(inf) and our exp(-inf) agree, but its 0 * inf does not
                # exist here
                continue
            with np.errstate(all="ignore"):
                reference = getattr(ops, op)(*arguments)
                yield f"{op} {name}", distance(getattr(twin, op)(*arguments), reference), tolerance


SHAPES = (
    (1, 768, 96),
    (1, 33, 1),
    (2, 1, 17),
    (3, 48, 50),
    (4, 64, 32),
    (5, 100, 31),
    (9, 31, 33),
    (70, 96, 64),
)


def check_linear(twin, kinds=(None, *KINDS), shapes=SHAPES, seed=0):
    """Yield (what, distance, tolerance) for linear with plain and stored weights; stored ones
    against their `dense`."""
    r = np.random.default_rng(seed)
    for M, K, N in shapes:
        matrix, bias = (
            r.standard_normal((K, N)).astype(np.float32),
            r.standard_normal(N).astype(np.float32),
        )
        x = r.standard_normal((M, K)).astype(np.float32)
        for kind in kinds:
            weight = matrix if kind is None else store(matrix, kind)
            dense = np.asarray(weight)
            enter = to_bfloat16 if kind == "bfloat16_rounded" else np.asarray
            tolerance = ROUNDED if str(kind).startswith("int") else TOLERANCE[x.dtype]
            what = f"linear {kind} {M}x{K}x{N}"
            yield (
                what,
                distance(twin.linear(x, weight, bias), ops.linear(enter(x), dense, bias)),
                tolerance,
            )
            yield (
                f"{what} no bias",
                distance(twin.linear(x, weight), ops.linear(enter(x), dense)),
                tolerance,
            )
            strided = np.repeat(x, 2, axis=-1)[None, ..., ::2]
            yield (
                f"{what} strided",
                distance(
                    twin.linear(strided, weight, bias), ops.linear(enter(x)[None], dense, bias)
                ),
                tolerance,
            )
            # infinity times 0 is NaN, of two infinities the signs decide: as in the textbook
            for name, values in (
                ("NaN", [np.nan]),
                ("NaN of all ones", np.array([-1], np.int32).view(np.float32)),
                ("infinity", [np.inf]),
                ("both", [np.inf] * 2),
            ):
                for sign in (1, -1):
                    nasty = x.copy()
                    nasty[-1, : len(values)] = np.multiply(values[:K], sign)
                    with np.errstate(invalid="ignore"):
                        expected = ops.linear(enter(nasty), dense, bias)
                        yield (
                            f"{what} {name} {sign}",
                            distance(twin.linear(nasty, weight, bias), expected),
                            tolerance,
                        )
            x64 = x.astype(np.float64)
            yield (
                f"{what} float64",
                distance(
                    twin.linear(x64, weight), ops.linear(enter(x64).astype(np.float64), dense)
                ),
                TOLERANCE[x64.dtype],
            )


def check_attention(
    twin,
    dtype,
    seed=0,
    sizes=(
        (1, 1, 1, 1, 1, 1),
        (2, 3, 3, 5, 5, 12),
        (2, 2, 1, 3, 300, 20),
        (1, 2, 2, 70, 280, 16),
        (1, 6, 2, 70, 280, 16),
    ),
):
    """Yield (what, distance, tolerance) for streaming attention, rows of different lengths among
    them; sizes: B, H, K, T, S, D."""
    r = np.random.default_rng(seed)
    for B, H, K, T, S, D in sizes:
        q = r.standard_normal((B, H, T, D)).astype(dtype)
        k, v = (r.standard_normal((B, K, S, D)).astype(dtype) for _ in range(2))
        k = np.concatenate([k, np.full_like(k, np.nan)], axis=2)[
            :, :, :S
        ]  # a cache's view: strides, and never read on
        for name, queries, positions in (
            ("", q, np.arange(S - T, S)[None].repeat(B, 0)),
            (" ragged", q, np.sort(r.integers(0, S, (B, T)), axis=1)),
            (" any order", q, r.integers(0, S + 3, (B, T))),
            (" sharp", q * dtype(1e3), np.arange(S - T, S)[None].repeat(B, 0)),
        ):
            reference = scaled_dot_product_attention(queries, k, v, positions, D**-0.5)
            # sharp: scores of 1e4 differ in their last bits, by 1e-3, before exp sees them
            tolerance = TOLERANCE[np.dtype(dtype)] * (2000 if "sharp" in name else 1)
            yield (
                f"attention {(B, H, K, T, S, D)}{name}",
                distance(twin.attention(queries, k, v, positions, D**-0.5), reference),
                tolerance,
            )


def check_gradients(
    twin,
    dtype,
    seed=0,
    sizes=(
        (1, 1, 1, 1, 1),
        (2, 3, 3, 5, 7),
        (3, 2, 1, 70, 16),
        (1, 1, 1, 130, 20),
        (1, 6, 2, 20, 9),
    ),
):
    """Yield (what, distance, tolerance) for every backward that the twin has, and for its AdamW;
    sizes: B, H, K, T, D."""
    r, dtype = np.random.default_rng(seed), np.dtype(dtype)
    for name, x in rows(seed, dtype).items():
        if not x.size or name in ("huge", "tiny", "far apart", "-inf"):
            continue
        N, tolerance = x.shape[-1], TOLERANCE[dtype]
        dy, weight = r.standard_normal(x.shape).astype(dtype), r.standard_normal(N).astype(dtype)
        share = np.where(r.random(x.shape[:-1]) < 0.2, 0, r.random(x.shape[:-1])).astype(
            dtype
        )  # some of them padding
        if N > 1 and name != "equal":  # a row of equal numbers has no slope but rounding
            for op in ("layer_norm_backward", "rms_norm_backward"):
                (dx, d), (expected, by_the_book) = (
                    getattr(t, op)(dy, x, weight) for t in (twin, ops_backward)
                )
                yield f"{op} {name}", distance(dx, expected), tolerance
                for part in d:  # sums over up to 700 rows, one after another; worst seen 1.2e-6
                    yield f"{op} {name} {part}", distance(d[part], by_the_book[part]), tolerance
        targets = r.integers(0, N, x.shape[:-1])
        ours, theirs = (t.cross_entropy_backward(share, x, targets) for t in (twin, ops_backward))
        yield f"cross_entropy_backward {name}", distance(ours, theirs), tolerance
        for op in ("gelu_new_backward", "silu_backward"):
            ours, theirs = (getattr(t, op)(dy, x) for t in (twin, ops_backward))
            yield f"{op} {name}", distance(ours, theirs), tolerance
    for ids in (np.array([3]), np.array([[0, 3, 3], [3, 1, 0]]), r.integers(0, 4, (2, 40))[:, ::2]):
        dy = r.standard_normal((*ids.shape, 21)).astype(dtype)[..., ::3]
        ours, theirs = (
            t.embedding_backward(dy, ids, np.ones((5, 7), dtype)) for t in (twin, ops_backward)
        )
        yield f"embedding_backward {ids.shape}", distance(ours, theirs), TOLERANCE[dtype]
    for B, H, K, T, D in sizes:
        q, k, v, d = (  # views, as heads are
            r.standard_normal((B, T, n, D)).astype(dtype).swapaxes(1, 2) for n in (H, K, K, H)
        )
        for name, positions in (
            ("", np.arange(T)[None].repeat(B, 0)),
            (" ragged", np.sort(r.integers(0, T, (B, T)), axis=1)),
            (" any order", r.integers(0, T + 3, (B, T))),
        ):
            scaled_dot_product_attention(
                q, k, v, positions, D**-0.5, step=(kept := Trace(q=q, k=k, v=v))
            )
            expected = scaled_dot_product_attention_backward(d, kept, positions, D**-0.5)
            found = twin.attention_backward(d, q, k, v, kept["context"], positions, D**-0.5)
            for part, ours, theirs in zip("qkv", found, expected):
                what = f"attention_backward {(B, H, K, T, D)}{name} d{part}"
                # where one key alone is seen its d_scores are 0, of two equal numbers: against what
                # they were before
                yield (
                    what,
                    distance(ours, theirs) if T > 1 or part == "v" else np.abs(ours).max(),
                    TOLERANCE[dtype],
                )
    for shape in ((1,), (7, 9), (40, 50)):
        p, g = r.standard_normal((2, *shape)).astype(dtype)
        states = [[p.copy(), np.zeros_like(p), np.zeros_like(p)] for _ in range(2)]
        for step in (1, 2, 3):
            gradient = (g * step).T.copy().T  # in another order than the parameter
            for update, (q, mean, square) in zip(
                (twin.adamw_update, optimizers.adamw_update), states
            ):
                update(
                    q,
                    gradient,
                    mean,
                    square,
                    lr=0.1,
                    step=step,
                    betas=(0.9, 0.95),
                    weight_decay=0.1,
                )
        for part, ours, theirs in zip(("p", "mean", "square"), *states):
            yield f"adamw_update {shape} {part}", distance(ours, theirs), TOLERANCE[dtype]


def to_bfloat16(x):
    """x rounded to bfloat16, the nearest or else the even one, as float32."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.where(np.isnan(x), np.float32(np.nan), rounded)


PRODUCTS = (
    (1, 1, 1),
    (1, 7, 33),
    (2, 300, 16),
    (9, 31, 50),
    (17, 1, 48),
    (16, 256, 32),
    (70, 513, 65),
    (130, 1030, 20),
)


def check_blocked(seed=0, shapes=PRODUCTS):
    """Yield (what, distance, tolerance) for products in blocks, in both precisions: of plain and
    transposed matrices, and of views. The reference multiplies in float64 what is rounded as the
    kernel says it rounds.

    Tolerance as for all sums in float32; worst seen 1.5e-6, and 8.1e-7 in bfloat16, whose products
    are exact in float32.
    """
    from minillm.kernels.blocked import Training, product, transposed_product

    r, tolerance = np.random.default_rng(seed), TOLERANCE[np.dtype(np.float32)]
    for precision, rounded in (("float32", np.asarray), ("bfloat16", to_bfloat16)):

        def exact(a, b, bias=0.0, rounded=rounded):
            return (rounded(a).astype(np.float64) @ rounded(b).astype(np.float64) + bias).astype(
                np.float32
            )

        for M, K, N in shapes:
            x, w, d = (
                r.standard_normal(shape).astype(np.float32) for shape in ((M, K), (K, N), (M, N))
            )
            bias, what = r.standard_normal(N).astype(np.float32), f"{precision} {M}x{K}x{N}"
            yield (
                f"product {what}",
                distance(product(x, w, bias, precision), exact(x, w, bias)),
                tolerance,
            )
            onto = r.standard_normal((M, N)).astype(np.float32)
            added = product(x, w, None, precision, onto.copy())
            yield f"product {what} onto", distance(added, exact(x, w, onto)), tolerance
            turned = np.ascontiguousarray(w.T).T
            yield (
                f"product {what} transposed",
                distance(product(x, turned, None, precision), exact(x, w)),
                tolerance,
            )
            views = np.repeat(x, 2, axis=1)[:, ::2], np.repeat(w, 2, axis=1)[:, ::2]
            yield (
                f"product {what} views",
                distance(product(*views, None, precision), exact(x, w)),
                tolerance,
            )
            yield (
                f"transposed_product {what}",
                distance(transposed_product(x, d, precision), exact(x.T, d)),
                tolerance,
            )
            ops = Training(precision)
            dx, gradients = ops.linear_backward(d[None], x[None], w)
            yield f"linear_backward {what} x", distance(dx, exact(d, w.T)[None]), tolerance
            yield (
                f"linear_backward {what} weight",
                distance(gradients["weight"], exact(x.T, d)),
                tolerance,
            )
            bias = gradients["bias"]
            yield f"linear_backward {what} bias", distance(bias, d.sum(axis=0)), tolerance
            dx, d_table = ops.unembed_backward(d[None], x[None], turned.T)
            yield f"unembed_backward {what} x", distance(dx, exact(d, w.T)[None]), tolerance
            yield f"unembed_backward {what} table", distance(d_table, exact(d.T, x)), tolerance


def check_one_pass(dtype, seed=0):
    """Yield (what, distance, tolerance) for what the twin for training does in one pass, against
    the layers' own lines."""
    from minillm.kernels.blocked import Training

    r, ops, tolerance = np.random.default_rng(seed), Training(), TOLERANCE[dtype]
    for B, H, T, D in ((1, 1, 1, 2), (2, 3, 70, 40)):
        x = r.standard_normal((B, T, H, D)).astype(dtype).swapaxes(1, 2)
        turn = rotation(r.integers(0, 90, (B, T)), D, 1e4, dtype=dtype)
        for name, a in (("", x), (" in order", np.ascontiguousarray(x))):
            ours, theirs = ops.rotate(a, *turn), rotate(x, *turn)
            yield f"rotate {(B, H, T, D)}{name}", distance(ours, theirs), tolerance
        gate, up, dy = (
            3 * r.standard_normal((B, T, n * D)).astype(dtype)[..., ::n] for n in (1, 2, 3)
        )
        yield f"gated {x.shape}", distance(ops.gated(gate, up), gated(gate, up)), tolerance
        ours, theirs = ops.gated_backward(dy, gate, up), gated_backward(dy, gate, up)
        for name, mine, book in zip(("gate", "up"), ours, theirs):
            yield f"gated_backward {x.shape} {name}", distance(mine, book), tolerance


def check_ladders(seed=0):
    """Yield (what, distance, tolerance) for every rung."""
    from minillm.kernels.ladders import MATMUL, SOFTMAX

    r, tolerance = np.random.default_rng(seed), TOLERANCE[np.dtype(np.float32)]
    for M, K, N in ((1, 1, 1), (3, 5, 2), (4, 16, 32), (7, 33, 49)):
        x = r.standard_normal((M, 2 * K)).astype(np.float32)[:, ::2]
        w = r.standard_normal((N, K)).astype(np.float32).T
        for name, rung in MATMUL.items():
            yield f"matmul {name} {M}x{K}x{N}", distance(rung(x, w), ops.linear(x, w)), tolerance
    for case, x in rows(seed, np.float32).items():
        if x.ndim == 2 and x.size and len(x) < 100:
            for name, rung in SOFTMAX.items():
                yield f"softmax {name} {case}", distance(rung(x), ops.softmax(x)), tolerance


def check_decode(twin, seed=0):
    """Yield (what, distance, tolerance) for the fused step of one row, and of so many that threads
    take shares in turn, against the readable forward with the same weights."""
    config = GPT2Config(vocab_size=21, n_positions=36, n_embd=20, n_layer=2, n_head=2)
    for kind in KINDS:
        model = GPT2(
            config, store_parameters(GPT2.random(config, seed).parameters, kind, config.layout)
        )
        step, cache, ids = (
            twin.DecodeStep(program(config, model.parameters)),
            model.new_cache(),
            np.array([[3, 20, 0, 3] * 9]),
        )
        logits = np.concatenate([step(part, cache)[0] for part in np.split(ids, (1, 2), axis=1)])
        yield (
            f"decode {kind}",
            distance(logits, model(ids[0])),
            ROUNDED if kind not in FLOATS else TOLERANCE[logits.dtype],
        )


def check_all(twin):
    """Yield (what, distance, tolerance) for everything in a size that plain Python can do too."""
    for dtype in (np.float32, np.float64):
        yield from check_rows(twin, dtype)
        yield from check_attention(
            twin, dtype, sizes=((1, 1, 1, 1, 1, 1), (1, 4, 2, 3, 20, 12), (1, 1, 1, 2, 270, 4))
        )
        yield from check_gradients(twin, dtype, sizes=((1, 1, 1, 1, 1), (2, 2, 1, 20, 7)))
    yield from check_blocked(shapes=((1, 7, 33), (9, 31, 18), (2, 515, 3)))
    yield from check_one_pass(np.dtype(np.float32))
    yield from check_linear(twin, shapes=((1, 33, 17), (3, 48, 50)))
    yield from check_ladders()
    yield from check_decode(twin)


def failures(results) -> list[str]:
    """Those of `results` whose distance is above the tolerance, in words; there must be results at
    all."""
    results = list(results)
    assert results, "nothing was compared"
    return [
        f"{what}: {found:.2e} > {tolerance:.0e}"
        for what, found, tolerance in results
        if not found <= tolerance
    ]


if __name__ == "__main__":
    import minillm.kernels
    from minillm.kernels.processor import CPU, FEATURES

    warnings.simplefilter("ignore", RuntimeWarning)
    results = list(check_all(minillm.kernels))
    wrong = failures(results)
    print(*wrong, sep="\n")
    print(f"{len(results)} compared, {len(wrong)} wrong; {CPU}, vnni {'avx512vnni' in FEATURES}")
    raise SystemExit(bool(wrong))
