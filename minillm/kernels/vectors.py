"""Sixteen lanes at a time: the few vector operations that the products are written in.

Each function below says in NumPy what it means, and runs like that where Numba is switched off
(NUMBA_DISABLE_JIT=1). Inside a kernel Numba replaces it by the instructions that `lowering` names:
a vector is then one register, and LLVM splits it where the processor's registers are shorter, so
that the same kernels run on AVX-512, AVX2 and Arm. Only products of bytes (`dot4`, `dot_small`)
must know the processor: LLVM never finds VNNI's `vpdpbusd` or AVX2's `vpmaddubsw` by itself.

Products of several rows need several sums in registers at once. An operation `of_each` therefore
takes tuples, too: of one vector or number for each row, with what all rows share beside them.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, models, register_model, type_callable

from .processor import FEATURES, HAS_HALVES, HAS_PAIRS

LANES = 16
HALF_MAX = 65504.0  # the largest number of float16


class Vector(types.Type):
    """Numba's type for 16 lanes of one kind: `floats` (float32) or `words` (int32, or four bytes
    each)."""

    def __init__(self, kind: str):
        self.kind = kind
        super().__init__(name=f"Vector({kind})")


FLOATS, WORDS = Vector("floats"), Vector("words")
LLVM_FLOATS, LLVM_WORDS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)
LLVM_HALVES = ir.VectorType(ir.IntType(16), LANES)


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A Vector is one LLVM vector, in registers wherever LLVM can keep it there."""

    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, LLVM_FLOATS if fe_type is FLOATS else LLVM_WORDS)


# How many rows, and how many panels of 16 outputs, a product of floats sums up at a time, and how
# many rows one of blocks: with the panels' vectors and one number of x, all registers there are.
if "avx512f" in FEATURES:  # 32 registers of 512 bits
    TILE, PANELS, BLOCK_TILE = range(8), 2, range(4)
elif FEATURES & {"avx", "neon"}:  # 16 of 256, or 32 of 128
    TILE, PANELS, BLOCK_TILE = range(6), 1, range(4)
else:  # 16 of 128
    TILE, PANELS, BLOCK_TILE = range(2), 1, range(2)
TILE, BLOCK_TILE = tuple(TILE), tuple(BLOCK_TILE)


def of_each(meaning):
    """Decorate an operation to be done for each row, where some of its arguments are tuples."""

    @functools.wraps(meaning)
    def for_each(*values):
        n = max(len(v) if isinstance(v, tuple) else 0 for v in values)
        if not n:
            return meaning(*values)
        return tuple(
            meaning(*(v[i] if isinstance(v, tuple) else v for v in values)) for i in range(n)
        )

    for_each.of_each = True
    return for_each


# ---- what they mean


def zeros():
    """Sixteen float32 zeros."""
    return np.zeros(LANES, np.float32)


@of_each
def spread(x):
    """Sixteen copies of one float32, or of one integer as int32."""
    return np.full(LANES, x, np.float32 if isinstance(x, np.floating) else np.int32)


def load(a, i):
    """The 16 numbers a[i : i + 16] as float32; a: 1-D of float32, of uint16 (bfloat16's bits) or of
    int16 (float16's). Of int32, two bfloat16 each (`pair`), they stay what they are."""
    part = a[i : i + LANES]
    if part.dtype == np.int32:
        return part.copy()
    if part.dtype == np.uint16:  # bfloat16 is the upper half of a float32
        return (part.astype(np.uint32) << 16).view(np.float32)
    return part.view(np.float16).astype(np.float32) if part.dtype == np.int16 else part.copy()


@of_each
def load_row(a, row, i):
    """load(a[row], i) for float32 [rows, columns]."""
    return load(a[row], i)


@of_each
def store_row(a, row, i, v):
    """store(a[row], i, v) for float32 [rows, columns]."""
    store(a[row], i, v)


@of_each
def element(a, row, i):
    """a[row, i]."""
    return a[row, i]


@of_each
def row_of(first, step, last):
    """first + step, but at most `last`."""
    return min(first + step, last)


@of_each
def repeat(v, row):
    """v, whatever the row."""
    return v


@of_each
def times(a, b):
    """a * b of two numbers, as float32 if one of them is that, else as int32."""
    return (
        np.float32(a) * np.float32(b)
        if isinstance(a, np.floating) or isinstance(b, np.floating)
        else np.int32(a * b)
    )


def load_bytes(a, i):
    """The 64 bytes a[i : i + 64], four to a lane; a: 1-D of uint8."""
    return a[i : i + 4 * LANES].view(np.int32)


def prefetch(a, i):
    """Let memory begin to bring the line of 64 bytes that holds a[i], which may lie behind the end;
    to be read once, so that it drives nothing else out of the caches."""


def store(a, i, v):
    """a[i : i + 16] = v; a: 1-D of float32, of int32 for words, or of uint16: then v is rounded to
    bfloat16."""
    a[i : i + LANES] = nearest(v) >> np.uint32(16) if a.dtype == np.uint16 else v


def nearest(v):
    """float32 whose upper half is the nearest bfloat16 (of two as near the even one), as uint32;
    the lower half is noise. NaN stays NaN: what would be added might carry it to another number."""
    bits = v.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(np.isnan(v), bits | np.uint32(0x400000), rounded)


def pair(low, high):
    """In every lane: two floats rounded to bfloat16, one in the lower and one in the upper half of
    an int32."""
    return ((nearest(low) >> np.uint32(16)) | (nearest(high) & np.uint32(0xFFFF0000))).view(
        np.int32
    )


@of_each
def fma(a, b, c):
    """a * b + c in every lane, rounded once where the processor can. Of lanes that hold two
    bfloat16 each, both products."""
    if a.dtype == np.int32:
        (a_low, a_high), (b_low, b_high) = unpaired(a), unpaired(b)
        return a_low * b_low + (a_high * b_high + c)
    return a * b + c


def unpaired(words):
    """The two float32 that stand, cut to bfloat16, in the lower and in the upper half of each
    int32."""
    bits = words.view(np.uint32)
    return (bits << np.uint32(16)).view(np.float32), (bits & np.uint32(0xFFFF0000)).view(np.float32)


@of_each
def scale_by(a, x):
    """a * x in every lane, for one float32 x."""
    return a * x


@of_each
def to_floats(w):
    """int32 lanes as float32."""
    return w.astype(np.float32)


@of_each
def dot4(total, w, x):
    """In every lane: total + the dot product of w's four bytes, stored 128 too large, with x's four
    signed ones, of -127 to 127; a sum that starts at BYTES_START times the sum of x counts no byte
    too large."""
    return total + dots(w.view(np.uint8).astype(np.int32) - (128 + BYTES_START), x)


def halves_of(w):
    """The lower halves of all bytes, and the upper ones, each as bytes of 0 to 15."""
    return w & 0x0F0F0F0F, (w >> 4) & 0x0F0F0F0F


@of_each
def dot_small(total, w, x):
    """In every lane: total + the dot product of w's four bytes, 0 to 15, with x's four signed ones,
    as in dot4. A total begins as zeros, bears eight of these products in a form of the processor's
    own, and is then to be `settled`."""
    return total + dots(w.view(np.uint8).astype(np.int32), x)


@of_each
def settled(total, start):
    """start + what dot_small summed up, as int32."""
    return start + total


def dots(w, x):
    """The dot product of four numbers of w with x's four signed bytes, in every lane."""
    return (w * x.view(np.int8)).reshape(LANES, 4).sum(axis=1, dtype=np.int32)


def largest_size(v, u):
    """The largest size of all numbers of two vectors: not finite if one of them is not."""
    return np.abs([v, u]).max()


def nearest_words(v):
    """Each lane's nearest whole number (of two as near the even one) as int32."""
    return np.rint(v).astype(np.int32)


def unknown(n):
    """n, but LLVM does not know that it is this number: a loop of so many rounds stays one."""
    return n


def store_bytes(a, i, w):
    """a[i : i + 16] = w; a: 1-D of int8."""
    a[i : i + LANES] = w


def total_of(w, v):
    """The sum of all lanes of two vectors of words."""
    return np.int32(w.sum() + v.sum())


def larger(a, b):
    """The larger of two numbers, neither NaN; not a vector, but a loop over it becomes one."""
    return a if a > b else b


def number(x):
    """x itself if it is a float, float32 of the float16 whose bits it is if an int16. Needs
    HAS_HALVES."""
    return (
        x
        if isinstance(x, (float, np.floating))
        else np.int16(x).view(np.float16).astype(np.float32)
    )


def stored_like(x, other):
    """The float x as `other` is kept: float16's bits if that is an int16, at most 65504 where x is
    finite. Needs HAS_HALVES."""
    if isinstance(other, (float, np.floating)):
        return x
    return np.float16(np.clip(x, -HALF_MAX, HALF_MAX) if np.isfinite(x) else x).view(np.int16)


# ---- what they become


def becomes(meaning, typer):
    """Decorate the function that builds `meaning` out of LLVM instructions; typer(*types) -> the
    type of its result. Of an operation `of_each`: both for one row."""

    def register(build):
        each = hasattr(meaning, "of_each")
        type_callable(meaning)(lambda context: type_each(typer) if each else typer)
        lower_builtin(meaning, types.VarArg(types.Any))(build_each(build) if each else build)
        return build

    return register


def one_of(kind, i):
    """The type of what the i-th row has of an argument."""
    return types.unliteral(kind.types[i]) if isinstance(kind, types.BaseTuple) else kind


def type_each(typer):
    """typer, for tuples too."""

    @functools.wraps(typer)
    def type_of(*kinds):
        tuples = [kind for kind in kinds if isinstance(kind, types.BaseTuple)]
        result = typer(*(one_of(kind, 0) for kind in kinds))
        if not tuples or result is types.none:
            return result
        return types.UniTuple(result, len(tuples[0]))

    return type_of


def build_each(build):
    """build, once for each row."""

    def build_all(context, builder, signature, values):
        n = max(len(a) if isinstance(a, types.BaseTuple) else 0 for a in signature.args)
        if not n:
            return build(context, builder, signature, values)
        result = signature.return_type
        one_result = result if result is types.none else result.dtype
        built = []
        for i in range(n):
            one_signature = one_result(*(one_of(kind, i) for kind in signature.args))
            of_row = (
                builder.extract_value(value, i) if isinstance(kind, types.BaseTuple) else value
                for value, kind in zip(values, signature.args)
            )
            built.append(build(context, builder, one_signature, list(of_row)))
        return built[0] if result is types.none else context.make_tuple(builder, result, built)

    return build_all


def constant(vector, value):
    """`value` in every lane of an LLVM vector type."""
    return ir.Constant(vector, [value] * vector.count)


def pointer(context, builder, signature, values, vector):
    """The address of values[0][values[1]], to be read or written as `vector`; no test of bounds, no
    wrap-around."""
    data = context.make_array(signature.args[0])(context, builder, values[0]).data
    index = context.cast(builder, values[1], signature.args[1], types.intp)
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@becomes(zeros, lambda: FLOATS)
def _(context, builder, signature, values):
    return constant(LLVM_FLOATS, 0.0)


@becomes(spread, lambda x: FLOATS if x == types.float32 else WORDS)
def _(context, builder, signature, values):
    if signature.return_type is FLOATS:
        return spread_out(builder, values[0], LLVM_FLOATS)
    return spread_out(
        builder, context.cast(builder, values[0], signature.args[0], types.int32), LLVM_WORDS
    )


def spread_out(builder, value, vector):
    """LLVM's way to say "in every lane": into the first one, then a shuffle that takes lane 0
    sixteen times."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, constant(LLVM_WORDS, 0))


@becomes(load, lambda a, i: WORDS if a.dtype == types.int32 else FLOATS)
def _(context, builder, signature, values):
    dtype = signature.args[0].dtype
    if dtype == types.int32:
        return builder.load(pointer(context, builder, signature, values, LLVM_WORDS), align=4)
    if dtype == types.float32:
        return builder.load(pointer(context, builder, signature, values, LLVM_FLOATS), align=4)
    halves = builder.load(pointer(context, builder, signature, values, LLVM_HALVES), align=2)
    if dtype == types.uint16:
        return builder.bitcast(
            builder.shl(builder.zext(halves, LLVM_WORDS), constant(LLVM_WORDS, 16)), LLVM_FLOATS
        )
    if HAS_HALVES:
        return builder.fpext(
            builder.bitcast(halves, ir.VectorType(ir.HalfType(), LANES)), LLVM_FLOATS
        )
    return half_by_arithmetic(builder, halves)


def half_by_arithmetic(builder, halves):
    """float16 to float32 without an instruction for it: shift exponent and fraction into place,
    then correct the exponent's bias by a product with 2**112, which is exact and serves subnormal
    numbers too. Infinity and NaN, whose exponent is all ones, are given one of all ones again."""
    wide = builder.zext(halves, LLVM_WORDS)
    size = builder.shl(builder.and_(wide, constant(LLVM_WORDS, 0x7FFF)), constant(LLVM_WORDS, 13))
    size = builder.fmul(builder.bitcast(size, LLVM_FLOATS), constant(LLVM_FLOATS, 2.0**112))
    sign = builder.shl(builder.and_(wide, constant(LLVM_WORDS, 0x8000)), constant(LLVM_WORDS, 16))
    bits = builder.or_(builder.bitcast(size, LLVM_WORDS), sign)
    ones = builder.or_(bits, constant(LLVM_WORDS, 0x7F800000))
    finite = builder.icmp_unsigned(
        "<", builder.and_(wide, constant(LLVM_WORDS, 0x7FFF)), constant(LLVM_WORDS, 0x7C00)
    )
    return builder.bitcast(builder.select(finite, bits, ones), LLVM_FLOATS)


def row_pointer(context, builder, signature, values):
    """The address of values[0][values[1], values[2]], no test of anything."""
    kind = signature.args[0]
    array = context.make_array(kind)(context, builder, values[0])
    indices = [
        context.cast(builder, value, of, types.intp)
        for value, of in zip(values[1:3], signature.args[1:3])
    ]
    return cgutils.get_item_pointer(context, builder, kind, array, indices)


@becomes(load_row, lambda a, row, i: FLOATS)
def _(context, builder, signature, values):
    address = row_pointer(context, builder, signature, values)
    return builder.load(builder.bitcast(address, LLVM_FLOATS.as_pointer()), align=4)


@becomes(store_row, lambda a, row, i, v: types.none)
def _(context, builder, signature, values):
    address = row_pointer(context, builder, signature, values)
    builder.store(values[3], builder.bitcast(address, LLVM_FLOATS.as_pointer()), align=4)
    return context.get_dummy_value()


@becomes(element, lambda a, row, i: a.dtype)
def _(context, builder, signature, values):
    return builder.load(row_pointer(context, builder, signature, values))


@becomes(row_of, lambda first, step, last: types.intp)
def _(context, builder, signature, values):
    first, step, last = (
        context.cast(builder, *pair, types.intp) for pair in zip(values, signature.args)
    )
    row = builder.add(first, step)
    return builder.select(builder.icmp_signed("<", row, last), row, last)


@becomes(repeat, lambda v, row: v)
def _(context, builder, signature, values):
    return values[0]


@becomes(times, lambda a, b: types.float32 if types.float32 in (a, b) else types.int32)
def _(context, builder, signature, values):
    kind = signature.return_type
    a, b = (context.cast(builder, *pair, kind) for pair in zip(values, signature.args))
    return builder.fmul(a, b) if kind == types.float32 else builder.mul(a, b)


@becomes(load_bytes, lambda a, i: WORDS)
def _(context, builder, signature, values):
    return builder.load(pointer(context, builder, signature, values, LLVM_WORDS), align=1)


@becomes(prefetch, lambda a, i: types.none)
def _(context, builder, signature, values):
    address = pointer(context, builder, signature, values, ir.IntType(8))
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
    function = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], kind)
    builder.call(
        function, [address, number(0), number(0), number(1)]
    )  # for reading, for once, data
    return context.get_dummy_value()


@becomes(store, lambda a, i, v: types.none)
def _(context, builder, signature, values):
    if signature.args[0].dtype == types.uint16:
        halves = builder.trunc(
            builder.lshr(llvm_nearest(builder, values[2]), constant(LLVM_WORDS, 16)), LLVM_HALVES
        )
        builder.store(halves, pointer(context, builder, signature, values, LLVM_HALVES), align=2)
    else:
        builder.store(
            values[2], pointer(context, builder, signature, values, values[2].type), align=4
        )
    return context.get_dummy_value()


def llvm_nearest(builder, floats):
    """`nearest` on an LLVM vector."""
    bits = builder.bitcast(floats, LLVM_WORDS)
    odd = builder.and_(builder.lshr(bits, constant(LLVM_WORDS, 16)), constant(LLVM_WORDS, 1))
    rounded = builder.add(builder.add(bits, constant(LLVM_WORDS, 0x7FFF)), odd)
    quiet = builder.or_(bits, constant(LLVM_WORDS, 0x400000))
    return builder.select(builder.fcmp_unordered("uno", floats, floats), quiet, rounded)


@becomes(pair, lambda low, high: WORDS)
def _(context, builder, signature, values):
    low, high = (llvm_nearest(builder, value) for value in values)
    return builder.or_(
        builder.lshr(low, constant(LLVM_WORDS, 16)),
        builder.and_(high, constant(LLVM_WORDS, -65536)),
    )


@becomes(fma, lambda a, b, c: FLOATS)
def _(context, builder, signature, values):
    if signature.args[0] is WORDS:
        return dot2(builder, *values)
    return plain_fma(builder, *values)


def plain_fma(builder, a, b, c):
    """a * b + c on LLVM's vectors of floats."""
    product = builder.fmul(a, b, flags=("contract",))  # contract: LLVM may fuse the two
    return builder.fadd(product, c, flags=("contract",))


class BFloat(ir.types._BaseFloatType):
    """LLVM's bfloat, which llvmlite has no name for."""

    null, intrinsic_name = "0.0", "bf16"

    def __str__(self):
        return "bfloat"


BFloat._create_instance()  # llvmlite's types of numbers are singletons


def dot2_portable(builder, a, b, c):
    """The lower halves become floats by a shift, the upper ones by clearing what is below them."""
    for part in (
        lambda w: builder.shl(w, constant(LLVM_WORDS, 16)),
        lambda w: builder.and_(w, constant(LLVM_WORDS, -65536)),
    ):
        c = plain_fma(builder, *(builder.bitcast(part(w), LLVM_FLOATS) for w in (a, b)), c)
    return c


def dot2_avx512(builder, a, b, c):
    """One instruction for 32 products."""
    pairs = ir.VectorType(BFloat(), 2 * LANES)
    kind = ir.FunctionType(LLVM_FLOATS, [LLVM_FLOATS, pairs, pairs])
    function = cgutils.get_or_insert_function(
        builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512"
    )
    return builder.call(function, [c, builder.bitcast(a, pairs), builder.bitcast(b, pairs)])


dot2 = dot2_avx512 if HAS_PAIRS else dot2_portable


@becomes(scale_by, lambda a, x: FLOATS)
def _(context, builder, signature, values):
    return builder.fmul(values[0], spread_out(builder, values[1], LLVM_FLOATS))


def over_lanes(builder, name, words):
    """LLVM's reduction `name` of all lanes to one."""
    kind = ir.FunctionType(ir.IntType(32), [LLVM_WORDS])
    name = f"llvm.vector.reduce.{name}.v{LANES}i32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [words])


@becomes(largest_size, lambda v, u: types.float32)
def _(context, builder, signature, values):
    # without the sign, the bits of floats are in the order of the floats, NaN above infinity
    v, u = (
        builder.and_(builder.bitcast(value, LLVM_WORDS), constant(LLVM_WORDS, 0x7FFFFFFF))
        for value in values
    )
    larger = builder.select(builder.icmp_signed(">", v, u), v, u)
    return builder.bitcast(over_lanes(builder, "smax", larger), ir.FloatType())


@becomes(nearest_words, lambda v: WORDS)
def _(context, builder, signature, values):
    kind = ir.FunctionType(LLVM_FLOATS, [LLVM_FLOATS])
    rint = cgutils.get_or_insert_function(builder.module, kind, f"llvm.rint.v{LANES}f32")
    return builder.fptosi(builder.call(rint, values), LLVM_WORDS)


@becomes(unknown, lambda n: types.intp)
def _(context, builder, signature, values):
    n = context.cast(builder, values[0], signature.args[0], types.intp)
    return builder.asm(ir.FunctionType(n.type, [n.type]), "", "=r,0", [n], False)


@becomes(store_bytes, lambda a, i, w: types.none)
def _(context, builder, signature, values):
    vector = ir.VectorType(ir.IntType(8), LANES)
    address = pointer(context, builder, signature, values, vector)
    builder.store(builder.trunc(values[2], vector), address, align=1)
    return context.get_dummy_value()


@becomes(total_of, lambda w, v: types.int32)
def _(context, builder, signature, values):
    return over_lanes(builder, "add", builder.add(*values))


@becomes(larger, lambda a, b: a)
def _(context, builder, signature, values):
    # "No NaN" must stand on the very choice before LLVM sees a maximum in it; Numba's flags reach
    # the comparison only.
    above = builder.fcmp_ordered(">", *values, flags=("nnan", "nsz"))
    return builder.select(above, *values, flags=("nnan", "nsz"))


@becomes(number, lambda x: types.float32 if x == types.int16 else x)
def _(context, builder, signature, values):
    if signature.args[0] != types.int16:
        return values[0]
    return builder.fpext(builder.bitcast(values[0], ir.HalfType()), ir.FloatType())


@becomes(stored_like, lambda x, other: other)
def _(context, builder, signature, values):
    if signature.args[1] != types.int16:
        return values[0]
    x, kind = values[0], values[0].type
    for limit, beyond in ((HALF_MAX, ">"), (-HALF_MAX, "<")):
        finite = builder.fcmp_ordered("!=", values[0], kind(math.copysign(math.inf, limit)))
        above = builder.and_(builder.fcmp_ordered(beyond, values[0], kind(limit)), finite)
        x = builder.select(above, kind(limit), x)
    return builder.bitcast(builder.fptrunc(x, ir.HalfType()), ir.IntType(16))


@becomes(to_floats, lambda w: FLOATS)
def _(context, builder, signature, values):
    return builder.sitofp(values[0], LLVM_FLOATS)


def by_halves(builder, name, bits, result_bits, *values):
    """An instruction for 256 bits, done on both halves of vectors of words. bits: of its operands'
    integers; result_bits: of its result's."""
    operand, result = (ir.VectorType(ir.IntType(n), 256 // n) for n in (bits, result_bits))
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [operand] * len(values)), name
    )
    halves = []
    for first in (0, LANES // 2):
        lanes = ir.Constant(HALF_WORDS, list(range(first, first + LANES // 2)))
        parts = [
            builder.bitcast(builder.shuffle_vector(value, value, lanes), operand)
            for value in values
        ]
        halves.append(builder.bitcast(builder.call(function, parts), HALF_WORDS))
    return builder.shuffle_vector(*halves, ir.Constant(LLVM_WORDS, list(range(LANES))))


class Vnni:
    """One instruction for 64 products, or for 32; the first factor's bytes are unsigned."""

    start = -128

    @staticmethod
    def bytes(builder, total, w, x):
        if "avx512vnni" not in FEATURES:
            return by_halves(builder, "llvm.x86.avx512.vpdpbusd.256", 32, 32, total, w, x)
        name, kind = "llvm.x86.avx512.vpdpbusd.512", ir.FunctionType(LLVM_WORDS, [LLVM_WORDS] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [total, w, x])

    @classmethod
    def small(cls, builder, total, w, x):
        return cls.bytes(builder, total, w, x)

    @staticmethod
    def settle(builder, total, start):
        return builder.add(start, total)


class Avx2:
    """Unsigned bytes times signed ones, added in pairs to 16 bits, which end at 32,767: 2 * 128 *
    127 is less, and so is 16 * 15 * 127, of eight small ones; then pairs of these to 32."""

    start = 0

    @staticmethod
    def bytes(builder, total, w, x):
        # w x is |w| times x with the sign of w
        w = builder.bitcast(builder.xor(w, constant(LLVM_WORDS, -0x7F7F7F80)), LLVM_BYTES)
        negative = builder.icmp_signed("<", w, constant(LLVM_BYTES, 0))
        size = builder.select(negative, builder.neg(w), w)
        w, size = (builder.bitcast(value, LLVM_WORDS) for value in (w, size))
        x = by_halves(builder, "llvm.x86.avx2.psign.b", 8, 8, x, w)
        return Avx2.add_pairs(builder, total, Avx2.pairs(builder, size, x))

    @staticmethod
    def small(builder, total, w, x):
        more = Avx2.pairs(builder, w, x)
        total, more = (builder.bitcast(value, LLVM_PAIRS) for value in (total, more))
        return builder.bitcast(builder.add(total, more), LLVM_WORDS)

    @staticmethod
    def settle(builder, total, start):
        return Avx2.add_pairs(builder, start, total)

    @staticmethod
    def pairs(builder, w, x):
        return by_halves(builder, "llvm.x86.avx2.pmadd.ub.sw", 8, 16, w, x)

    @staticmethod
    def add_pairs(builder, total, pairs):
        ones = constant(LLVM_WORDS, 0x00010001)
        return builder.add(total, by_halves(builder, "llvm.x86.avx2.pmadd.wd", 16, 32, pairs, ones))


class Portable:
    """The bytes as integers of 16 bits, first the lower ones of each two, then the upper ones; LLVM
    finds what the processor has for sums of two of their products (pmaddwd on any x86-64)."""

    start = 0

    @staticmethod
    def bytes(builder, total, w, x):
        return Portable.signed(builder, total, builder.xor(w, constant(LLVM_WORDS, -0x7F7F7F80)), x)

    @staticmethod
    def small(builder, total, w, x):
        return Portable.signed(builder, total, w, x)

    @staticmethod
    def settle(builder, total, start):
        return builder.add(start, total)

    @staticmethod
    def signed(builder, total, w, x):
        wide, eight = ir.VectorType(ir.IntType(32), 2 * LANES), constant(LLVM_PAIRS, 8)
        pairs = [builder.bitcast(value, LLVM_PAIRS) for value in (w, x)]
        for part in ([builder.shl(p, eight) for p in pairs], pairs):
            products = builder.mul(*(builder.sext(builder.ashr(p, eight), wide) for p in part))
            for k in (0, 1):
                every_second = ir.Constant(LLVM_WORDS, list(range(k, 2 * LANES, 2)))
                total = builder.add(total, builder.shuffle_vector(products, products, every_second))
        return total


LLVM_BYTES = ir.VectorType(ir.IntType(8), 4 * LANES)
LLVM_PAIRS = ir.VectorType(ir.IntType(16), 2 * LANES)
HALF_WORDS = ir.VectorType(ir.IntType(32), LANES // 2)
PRODUCTS = (
    Vnni if FEATURES & {"avx512vnni", "avxvnni"} else Avx2 if "avx2" in FEATURES else Portable
)
BYTES_START = PRODUCTS.start  # what dot4 leaves in a sum for each 1 of x


@becomes(dot4, lambda total, w, x: WORDS)
def _(context, builder, signature, values):
    return PRODUCTS.bytes(builder, *values)


@becomes(halves_of, lambda w: types.UniTuple(WORDS, 2))
def _(context, builder, signature, values):
    (w,), fifteen = values, constant(LLVM_WORDS, 0x0F0F0F0F)
    high = builder.and_(builder.lshr(w, constant(LLVM_WORDS, 4)), fifteen)
    return context.make_tuple(builder, signature.return_type, (builder.and_(w, fifteen), high))


@becomes(dot_small, lambda total, w, x: WORDS)
def _(context, builder, signature, values):
    return PRODUCTS.small(builder, *values)


@becomes(settled, lambda total, start: WORDS)
def _(context, builder, signature, values):
    return PRODUCTS.settle(builder, *values)
