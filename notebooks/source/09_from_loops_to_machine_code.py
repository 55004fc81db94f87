# %% [markdown] id="09-from-loops-to-machine-code"
r"""
# 09 · From loops to machine code

Nearly all the time of a Transformer goes into one operation, the matrix product $Y = XW$. Written as three loops in
Python it is thousands of times slower than the machine allows. This chapter climbs from the one to the other, a rung at
a time. Every rung computes the same numbers, and each adds one idea.
"""

# %% [markdown] id="09-what-you-will-do"
r"""
## What you will be able to do

- say what compiling does for a loop, and find the result in the machine code;
- explain four ideas that make loops fast: walk along memory, reuse what is near, keep sums at hand, share the work;
- judge a program by its share of what the machine can do, instead of by its seconds;
- show on one figure why decoding waits for memory and prefill for arithmetic.

You need chapter [08](08_where_the_cycles_go.ipynb). About 25 minutes. To run it you need Numba, which compiles Python;
where there is none, read the page as it was built.
"""

# %% id="09-setup"
import inspect
import re
from time import perf_counter

import matplotlib.pyplot as plt
import numba
import numpy as np
from threadpoolctl import threadpool_limits

from minillm import kernels, plots
from minillm.clock import measure
from minillm.kernels.compile import EXACT
from minillm.kernels.ladders import MATMUL, SOFTMAX, matmul
from minillm.weights import store

rng = np.random.default_rng(0)


def seconds(work, tries=5):
    """The shortest of some tries, after one for nothing: whatever else runs on the machine only adds."""
    work()
    best = np.inf
    for _ in range(tries):
        start = perf_counter()
        work()
        best = min(best, perf_counter() - start)
    return best


# %% [markdown] id="09-three-loops"
r"""
## The definition, three loops

$$y_{mn} = \sum_{k} x_{mk}\, w_{kn}$$

Here it is as the package has it. The rungs are ordinary Python functions, which Numba *can* compile; `py_func` is the
function before compiling.
"""

# %% id="09-naive-source"
print(inspect.getsource(matmul.naive_loops.py_func))

# %% [markdown] id="09-python-guess"
r"""
One product with its addition is 2 FLOP, so a product of $[M,K]$ and $[K,N]$ is $2MKN$ of them. We give every speed in
GFLOP/s, so that small and large matrices compare.

**Guess, then run.** For matrices of $64 \times 64$: by what factor is NumPy faster than these loops run by Python?
"""

# %% id="09-python-against-numpy"
guess = 100  # change it to yours

a, b = rng.standard_normal((2, 64, 64), np.float32)
by_python = seconds(lambda: matmul.naive_loops.py_func(a, b, np.zeros((64, 64), np.float32)), tries=1)
with threadpool_limits(1, user_api="blas"):
    by_numpy = seconds(lambda: a @ b, tries=200)
for name, time in (("Python", by_python), ("NumPy", by_numpy)):
    print(f"{name:<8}{1e6 * time:12,.1f} us {2 * 64**3 / time / 1e9:10.4f} GFLOP/s")
print(f"your guess {guess:,}, measured {by_python / by_numpy:,.0f}")
assert by_python > 100 * by_numpy

# %% [markdown] id="09-first-kernel"
r"""
What does Python do in all that time? For each `y[m, n] += x[m, k] * w[k, n]` it looks up what `x` is, finds that
indexing it means calling a function of NumPy, makes a new object for the number, asks this object how it multiplies,
and so on: hundreds of instructions around a single multiplication.

A **compiler** does these look-ups once, before the loop begins. It knows that all three are arrays of float32, and what
is left in the loop are the loads, the multiplication and the store.
"""

# %% [markdown] id="09-matmul-ladder"
r"""
## The ladder

From here on everything is compiled, and the matrices have the size of a real model's: 512 tokens through a matrix of
GPT-2, $768 \times 768$. First the most important check of any optimisation: are all rungs *right*?
"""

# %% id="09-all-rungs-agree"
M, K, N = 512, 768, 768
x, w = rng.standard_normal((M, K), np.float32), rng.standard_normal((K, N), np.float32)
exact = x.astype(np.float64) @ w.astype(np.float64)
for name, rung in MATMUL.items():
    error = np.abs(rung(x, w) - exact).max()
    print(f"{name:<18} largest error {error:.1e}")
    assert error < 1e-3

# %% [markdown] id="09-rounding"
r"""
All are right, up to what float32 must round. Their errors are alike because no rung changes the order in which *one*
sum is added up. What changes is the order in which the many sums take turns, and where the numbers come from.

Now the speed of each, one after another. We will look at a rung's idea first, and you say what it buys. The time of
the whole ladder is taken here, and shown bit by bit.
"""

# %% id="09-time-the-ladder"
flop = 2 * M * K * N
speed = {name: flop / seconds(lambda rung=rung: rung(x, w), tries=3) / 1e9 for name, rung in MATMUL.items()}
with threadpool_limits(1, user_api="blas"):
    numpy_1 = flop / seconds(lambda: x @ w) / 1e9
print(f"naive, compiled: {speed['naive']:.2f} GFLOP/s; run by Python it was {2 * 64**3 / by_python / 1e9:.4f}")
assert speed["naive"] > 10 * 2 * 64**3 / by_python / 1e9

# %% [markdown] id="09-walk-along-memory"
r"""
## Idea 1: walk along memory

Compiled, the loops are much faster, and still far below NumPy. Look at the innermost loop, over $k$: it reads
`w[k, n]`, then `w[k+1, n]`. These are neighbours in a column, but in memory a *row* lies side by side, so that each step
jumps over a whole row. Memory is delivered in **cache lines** of 64 bytes, 16 numbers of float32: of each line that
arrives, one number is used.

The remedy is to exchange two lines, so that the innermost loop runs over $n$:
"""

# %% id="09-reordered-source"
print(inspect.getsource(matmul.reordered_loops.py_func))

# %% [markdown] id="09-reordered-guess"
r"""
**Guess, then run.** The same products, the same additions, another order. By what factor is it faster? (One cache line
serves 16 numbers instead of one.)
"""

# %% id="09-reordered-measured"
print(f"naive     {speed['naive']:8.2f} GFLOP/s")
print(f"reordered {speed['reordered']:8.2f} GFLOP/s, {speed['reordered'] / speed['naive']:.1f} times as fast")
assert speed["reordered"] > 2 * speed["naive"]

# %% [markdown] id="09-look-at-the-machine-code"
r"""
### Two effects in one

Perhaps more than you expected. A second thing has happened. A processor has instructions that do 4, 8 or 16
multiplications at once, on **vectors** of neighbouring numbers. The compiler uses them where neighbours in memory get
the same treatment. In the first version it could not: the numbers were a row apart, and each sum waited for the one
before.

We need not believe this. Here is what the compiler made, counted: instructions that multiply, by whether they work on
one number or on a vector.

**Guess, then run.** In which of the two will there be vector instructions?
"""

# %% id="09-machine-code"


def machine_code(kernel):
    """The lines of assembly of a kernel's loops (compiled anew: what is loaded from disk cannot be looked at)."""
    fresh = numba.njit(fastmath=EXACT, error_model="numpy")(kernel.py_func)
    fresh.compile((numba.float32[:, ::1],) * 3)
    return fresh.inspect_asm(fresh.signatures[0]).splitlines()


# What multiplies in float32: x86 says ss for one number and ps for many; ARM writes s0 and v0.4s.
ONE, MANY = r"\s(v?f?n?m(add|ul)\w*ss|fn?m(add|ul)\s+s\d)", r"\s(v?f?n?m(add|ul)\w*ps|fml\w*\s+v\d+\.4s|fmul\s+v\d+\.4s)"
for kernel in (matmul.naive_loops, matmul.reordered_loops):
    code = machine_code(kernel)
    one, many = ([line for line in code if re.search(what, line)] for what in (ONE, MANY))
    print(f"{kernel.py_func.__name__}: {len(one)} on one number, {len(many)} on vectors")
    for line in many[:4]:
        print("   ", " ".join(line.split()))

# %% [markdown] id="09-reading-the-machine-code"
r"""
Lines like `vfmadd213ps ... %zmm1` (on an Intel or AMD processor) or `fmla v0.4s` (on ARM) are a
**fused multiply-add**: one instruction multiplies and adds a whole vector, in `zmm` 16 numbers of float32, in `ymm` 8,
in `xmm` or ARM's `v` 4. The instructions on single numbers that remain are for what is left over at a row's end.
"""

# %% [markdown] id="09-reuse-what-is-near"
r"""
## Idea 2: use what is near

Main memory is slow, so that a processor keeps what it used lately in small, fast memories, the **caches**. The loops
above go through all of $W$ for each row of $X$. If $W$ is larger than the cache, it has to come from afar every time,
$M$ times in all.

The remedy is to take a *tile* of $W$, use it for all rows, and only then go on to the next.

**Guess, then run.** What does it buy for our $768 \times 768$ matrix, which is 2.4 MB? And for one of
$3072 \times 3072$, 38 MB?
"""

# %% id="09-tiled-measured"
print(f" 768 x  768: reordered {speed['reordered']:6.1f}, tiled {speed['tiled']:6.1f} GFLOP/s")
large_x, large_w = rng.standard_normal((64, 3072), np.float32), rng.standard_normal((3072, 3072), np.float32)
large = {
    name: 2 * 64 * 3072**2 / seconds(lambda name=name: MATMUL[name](large_x, large_w), tries=3) / 1e9
    for name in ("reordered", "tiled")
}
print(f"3072 x 3072: reordered {large['reordered']:6.1f}, tiled {large['tiled']:6.1f} GFLOP/s")

# %% [markdown] id="09-tiling-lesson"
r"""
An idea pays where its reason holds. Where $W$ fits into a cache of your machine anyway, the tile buys nothing, and its
extra loops may even cost. Where $W$ does not fit, the difference is large. This is why nothing in this course is called
"faster" without a measurement.
"""

# %% [markdown] id="09-registers"
r"""
## Idea 3: keep the sums at hand

Count what the innermost loop does for each vector of products: load a piece of $W$, load a piece of $Y$, multiply and
add, store the piece of $Y$. Three trips to the cache for one useful instruction!

The places inside a processor that it computes with, its **registers**, are few: 16 or 32, each for one vector. The remedy is
a block of $Y$, 8 rows by 16 or 32 columns, whose sums stay in registers for the whole loop over $k$. One vector of $W$, once
loaded, serves 8 rows, and $Y$ is written once at the end.

To read $W$ on and on, without jumps, it is first rearranged into *panels* of 16 columns. A model does this once, when
it is loaded. The rung `register_blocked` does it at every call, which costs time; `linear` with a stored weight does
not.

**Guess, then run.** By what factor is it faster than the tiled loops? How far from NumPy, which has had decades of
work put into it?
"""

# %% id="09-register-blocked-measured"
stored = store(w, "float32")
kernels.set_threads(1)
speed["packed before"] = flop / seconds(lambda: kernels.linear(x, stored)) / 1e9
kernels.set_threads(None)
for name in ("tiled", "register_blocked", "packed before"):
    print(f"{name:<18}{speed[name]:8.1f} GFLOP/s")
print(f"{'NumPy, one thread':<18}{numpy_1:8.1f} GFLOP/s")
assert speed["register_blocked"] > speed["reordered"]

# %% [markdown] id="09-threads"
r"""
## Idea 4: share the work

The last idea is the simplest. Each core takes some of the columns of $W$. Nothing is shared but what is read, so that
nobody waits for anybody until the end.

**Guess, then run.** How many times as fast on all cores of this machine?
"""

# %% id="09-parallel-measured"
limits = measure(kernels, ["float32"])
numpy_all = flop / seconds(lambda: x @ w, tries=20) / 1e9
speed["packed, threads"] = flop / seconds(lambda: kernels.linear(x, stored), tries=20) / 1e9
print(f"{limits.threads} threads: {speed['packed, threads'] / speed['packed before']:.2f} times as fast as one")
print(f"NumPy on all threads: {numpy_all:.1f} GFLOP/s")

# %% [markdown] id="09-share-of-peak"
r"""
## The whole ladder

Seconds say little about a program. Better: which share of what the machine *can* do? As peak we take the best that
anything measured here reached on this machine, with all threads. (The makers' figures are higher still, and no program
reaches them.)
"""

# %% id="09-share-of-peak-figure"
names = ["naive", "reordered", "tiled", "register_blocked", "packed before", "parallel", "packed, threads"]
speed |= {"NumPy, one thread": numpy_1, "NumPy, all threads": numpy_all}
peak = max(*speed.values(), limits.rows["float32"] / 1e9)
names += ["NumPy, one thread", "NumPy, all threads"]
_, ax = plt.subplots(figsize=(8, 4), layout="constrained")
plots.bars([100 * speed[name] / peak for name in names], names, ".1f", ax)
ax.set(xlabel=f"share of peak (%); peak: {peak:.0f} GFLOP/s", title=f"The matmul ladder, [{M},{K}] x [{K},{N}]")
plots.show(
    ax,
    "Bars of the share of peak that each rung of the matmul ladder reaches. The naive loops barely show; reordered and "
    "tiled reach much more; register blocking and packing again several times that; with all threads the last rung "
    "comes near NumPy, or above it.",
)
print(f"three loops run by Python: {100 * 2 * 64**3 / by_python / 1e9 / peak:.5f} % of peak")
assert speed["naive"] < speed["reordered"] < peak

# %% [markdown] id="09-softmax"
r"""
## A second ladder: softmax

Is the lesson the same for an operation that is no product? Softmax has little arithmetic and an exponential:

- `two_pass`: NumPy, an array for each step: $x - \max$, its $\exp$, the quotient;
- `fused`: one compiled loop a row, so that a row stays in the cache, with the usual `exp` of the mathematics library;
- `polynomial`: the same, with $\exp$ replaced by a polynomial that is as precise in float32;
- `parallel`: that on all threads.

**Guess, then run.** Order them by speed. One of the compiled ones may well be slower than NumPy. Which, and why?
"""

# %% id="09-softmax-figure"
scores = rng.standard_normal((512, 1024), np.float32)
for rung in SOFTMAX.values():
    np.testing.assert_allclose(rung(scores), SOFTMAX["two_pass"](scores), rtol=1e-5)
rate = {name: scores.size / seconds(lambda rung=rung: rung(scores), tries=20) / 1e6 for name, rung in SOFTMAX.items()}
_, ax = plt.subplots(figsize=(8, 2.4), layout="constrained")
plots.bars(list(rate.values()), list(rate), ",.0f", ax)
ax.set(xlabel="million numbers a second", title="The softmax ladder, 512 rows of 1,024")
plots.show(
    ax,
    "Bars of the numbers a second of four softmax programs: two_pass (NumPy), fused, which is far below the next, polynomial "
    "and parallel, the same on all threads.",
)
assert rate["polynomial"] > rate["fused"]

# %% [markdown] id="09-softmax-lesson"
r"""
The call of `exp` takes one number at a time: inside it the loop's vectors are of no use. NumPy has an exponential for
vectors, and so can win in spite of its three arrays. A polynomial needs multiplications and additions only; the compiler
turns it into vector instructions like any other loop. *Fusing* saves memory traffic, *vectors* save arithmetic; see
above which counted for more.
"""

# %% [markdown] id="09-one-row-or-many"
r"""
## One row or many

Now the best rung, as the model uses it, with the one number that differs between decoding and prefill: how many rows go
through a matrix together. Decoding has 1. A prefill has as many as the prompt has tokens.

The matrix is $4096 \times 4096$, 67 MB, larger than most caches. From chapter 08: with $R$ rows the time is at least

$$\max\left(\frac{\text{bytes}}{B}, \frac{2 R K N}{P}\right),$$

and the bytes are those of $W$, whatever $R$.

**Guess, then run.** One row takes some time $t$. How long do 2 rows take? And 4? And 256?
"""

# %% id="09-rows-figure"
K = N = 4096
big = store(rng.standard_normal((K, N), np.float32), "float32")
rows = (1, 2, 4, 8, 16, 32, 64, 128, 256)
times = []
for R in rows:
    few = rng.standard_normal((R, K), np.float32)
    times.append(seconds(lambda few=few: kernels.linear(few, big), tries=4))
times, R = np.array(times), np.array(rows)
reading, multiplying = big.nbytes / limits.bandwidth_at(big.nbytes), 2 * R * K * N / (1e9 * peak)  # the peak of above
corner = reading * 1e9 * peak / (2 * K * N)

_, ax = plt.subplots(figsize=(8, 4.4), layout="constrained")
ax.loglog(R, 1e3 * times, "o-", color="black", label="measured")
ax.loglog(R, 1e3 * np.full(len(R), reading), "--", color="0.4", label="reading the weights once")
ax.loglog(R, 1e3 * multiplying, ":", color="0.4", label="the arithmetic")
ax.axvline(corner, color="0.8", lw=6, zorder=0)
ax.annotate(f" both limits equal\n at {corner:.1f} rows", (1.05 * corner, 1e3 * times[-1]), va="top", fontsize="small")
ax.set(xlabel="rows that share one pass", ylabel="milliseconds", title=f"linear, {K} x {N}", xticks=R, xticklabels=R)
ax.set_xticks([], minor=True)
ax.legend()
plots.show(
    ax,
    "Milliseconds of one product over its number of rows, both logarithmic. The measured line is flat at the level of "
    "'reading the weights once' for few rows, bends near the grey band where both limits are equal, and rises along the "
    "line of the arithmetic.",
)
for r, t in zip(rows, times):
    print(f"{r:>4} rows {1e3 * t:8.2f} ms {1e6 * t / r:10.1f} us a row {2 * r * K * N / t / 1e9:8.1f} GFLOP/s")
assert times[-1] / 256 < times[0], "many rows are cheaper, each"
assert times[1] < 2 * times[0]

# %% [markdown] id="09-two-regimes"
r"""
At the left, rows are free: the second row costs almost nothing, because the time is that of reading $W$. This is
decoding, and no better kernel helps it, only fewer bytes (chapter 10) or more rows (chapter 11). At the right each row
costs its arithmetic. This is prefill, and there the ladder was worth climbing.
"""

# %% [markdown] id="09-summary"
r"""
## What to remember

- A compiler removes what Python does around each number; vectors multiply what is left by 4 to 16.
- Memory, not arithmetic, decides about most loops: walk along it, use what is near, keep sums in registers.
- An optimisation is right first (compare all rungs) and fast second (measure each).
- One row waits for memory, many rows for arithmetic; in between lies the corner of the roofline.
"""

# %% [markdown] id="09-exercises"
r"""
## Exercises

    minillm exercises check matmul
    minillm exercises check gelu_loop

The first is a product to mend. In the second you write a kernel, which must be right, and faster than its NumPy twin by
a wide margin.

To go on: `minillm/kernels/products.py` is the top rung as the model uses it. Find the sums that stay in registers.
"""

# %% [markdown] id="09-sources"
r"""
## Sources

- [Anatomy of High-Performance Matrix Multiplication](https://doi.org/10.1145/1356052.1356053), Goto, van de Geijn 2008:
  tiles, panels, registers.
- [Numba: A LLVM-based Python JIT Compiler](https://doi.org/10.1145/2833157.2833162), Lam, Pitrou, Seibert 2015.
- [Roofline](https://doi.org/10.1145/1498765.1498785), Williams, Waterman, Patterson 2009.
- [What Every Programmer Should Know About Memory](https://www.akkadia.org/drepper/cpumemory.pdf), Drepper 2007: caches and
  cache lines.
"""
