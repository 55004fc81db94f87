"""What a weight is: a matrix that knows how it is stored, and that only `linear` multiplies by.

Stored are rows, each one output of the product: w[n, k] for output n and input k. Sixteen rows make
a *panel*, in which the numbers of one k stand side by side: a kernel reads the panel from one end
to the other, keeps one output in each of 16 lanes, and never adds across lanes. The last panel is
filled up with rows of zeros.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from ..errors import InputError

LANES = 16
SLAB = 1 << 18  # numbers that are encoded or decoded at once: each step of it takes a MB
BF16 = np.dtype([("bfloat16", np.uint16)])  # bfloat16's bits: NumPy has no type for them


def widened(array: np.ndarray) -> np.ndarray:
    """Numbers of any floating-point type, BF16 among them, as float32; float32 as it is."""
    if array.dtype == BF16:  # the upper half of a float32
        return (array["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)


def slab(k: int) -> int:
    """How many rows of k numbers are encoded or decoded at once: whole panels."""
    return max(SLAB // max(k, 1) // LANES, 1) * LANES


def slabs(table, release=None):
    """Yield (start, rows): all rows of an array or of a Weight as float32, a slab at a time.

    release: called with the table when a slab was used.
    """
    n, step = table.shape[0], slab(math.prod(table.shape[1:]))
    for start in range(0, n, step):
        stop = min(start + step, n)
        if isinstance(table, Weight):
            yield start, table.take(np.arange(start, stop))
        else:
            yield start, widened(table[start:stop])
        if release:
            release(table)


def to_array(parameter, dtype, release=None) -> np.ndarray:
    """Return an array or a Weight as an array of `dtype`; one that is such an array as it is.

    release: called with the parameter again and again while it is converted.
    """
    if isinstance(parameter, np.ndarray) and parameter.dtype == dtype:
        return parameter if parameter.flags.aligned else parameter.copy()
    transposed = isinstance(parameter, Weight) and parameter.transposed
    table = parameter.T if transposed else parameter
    array = np.empty(table.shape, dtype)
    for start, rows in slabs(table, release):
        array[start : start + len(rows)] = rows
    return array.T if transposed else array


def narrowed(x, dtype):
    """x as `dtype`; what is finite but beyond its range becomes its largest number, what is not
    finite stays so. x: [...] -> [...], x itself where it has that dtype."""
    if np.can_cast(x.dtype, dtype):  # nothing can be beyond its range
        return x.astype(dtype, copy=False)
    limit = np.finfo(dtype).max
    saturated = np.clip(x, -limit, limit)
    return np.where(np.isinf(x), x, saturated).astype(dtype)


class Arena:
    """One piece of memory for many arrays: arena(shape, dtype) is the next one, at a multiple of 64
    bytes.

    NumPy asks the system for huge pages from 4 MiB on, and with small pages a processor reads
    memory at little more than half its rate. GPT-2 124M's matrices are smaller than that in 8 bits;
    side by side they are not.
    """

    def __init__(self, n_bytes: int):
        memory = np.empty(n_bytes + 64, np.uint8)
        self.memory, self.used = memory[-memory.ctypes.data % 64 :], 0

    def __call__(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        start, n_bytes = self.used, math.prod(shape) * np.dtype(dtype).itemsize
        self.used += Arena.rounded(n_bytes)
        return self.memory[start : start + n_bytes].view(dtype).reshape(shape)

    @staticmethod
    def rounded(n_bytes: int) -> int:
        """n_bytes up to a multiple of 64."""
        return -(-n_bytes // 64) * 64


def read_only(parameter):
    """The same parameter (an array, or a weight), to look at: its arrays cannot be written to."""
    if not isinstance(parameter, np.ndarray):
        return parameter.read_only()
    if not parameter.flags.writeable:
        return parameter
    view = parameter.view()
    view.flags.writeable = False
    return view


def owned(parameter):
    """A parameter that nobody can write to: an array is copied, unless it is such a copy."""
    if not isinstance(parameter, np.ndarray):
        return parameter
    owner = parameter.base  # a view of an array that is read-only can never be made writable
    if isinstance(owner, np.ndarray) and owner.base is None and not owner.flags.writeable:
        return parameter
    copy = np.array(parameter, order="C")
    copy.flags.writeable = False
    return copy.view()


class NoItems:
    """Base of matrices that are multiplied by, not indexed: it says what to do instead."""

    def __getitem__(self, key):
        raise InputError(
            f"{self!r} is a stored matrix, which cannot be indexed: .dense() returns it as an array"
        )


class Weight(NoItems):
    """Base of all stored matrices; a kind of storage adds `kind`, `encode` and `decode`.

    A table has the stored rows' own shape [N,K] and `take`; its transpose `T` [K,N] is what
    `linear` multiplies by. `arrays` are what is stored: {name: array}, all [panels, ...], and all
    that a file needs to hold; they are read-only. `stored` are the same for kernels, which are
    compiled for arrays that can be written to.
    """

    kind = ""
    block = 1  # how many neighbouring k share a scale; K is filled up to a multiple
    dtype = np.dtype(np.float32)  # of what comes out
    __array_ufunc__ = None  # makes `ndarray @ weight` come here, to __rmatmul__

    def __init__(self, arrays: Mapping[str, np.ndarray], n: int, k: int, transposed: bool = False):
        kept = {}  # in the order of the layout, and of its forms: kernels rely on both
        for name, (shape, dtype) in self.shapes(n, k).items():
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype != dtype:
                found = "missing" if array is None else f"{array.dtype} {array.shape}"
                raise ValueError(
                    f"{name!r} is {found}; {self.kind} for {n} rows of {k} needs"
                    f" {np.dtype(dtype)} {shape}"
                )
            kept[name] = array
        self.stored = MappingProxyType(kept)
        self.n, self.k, self.transposed = n, k, transposed

    @classmethod
    def from_table(cls, table, allocate=np.empty, release=None) -> Weight:
        """Store a table [N,K], whose rows are looked up (an embedding), in arrays from
        allocate(shape, dtype). table: an array or a Weight; release: see slabs."""
        n, k = table.shape
        arrays = {name: allocate(shape, dtype) for name, (shape, dtype) in cls.shapes(n, k).items()}
        for start, rows in slabs(table, release):
            missing = -len(rows) % LANES, -k % cls.block
            if any(missing):  # np.pad copies in any case
                rows = np.pad(rows, ((0, missing[0]), (0, missing[1])))
            for name, part in cls.encode(rows).items():
                arrays[name][start // LANES : (start + len(rows)) // LANES] = part
        return cls(arrays, n, k)

    @classmethod
    def from_matrix(cls, matrix, allocate=np.empty, release=None) -> Weight:
        """Store a matrix [in,out], as GPT-2's Conv1D has it, for products x W."""
        return cls.from_table(matrix.T, allocate, release).T

    @classmethod
    def shapes(cls, n: int, k: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """The shape and the dtype of each array that stores a table [n,k]."""
        layout = cls.layout(-(-k // cls.block) * cls.block)
        return {name: ((-(-n // LANES), *shape), dtype) for name, (shape, dtype) in layout.items()}

    @classmethod
    def layout(cls, k: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """The shape, without the panels' axis, and the dtype of each array."""
        raise NotImplementedError

    @classmethod
    def encode(cls, rows) -> dict[str, np.ndarray]:
        """rows: float32 [16 P, K] -> the arrays of P panels."""
        raise NotImplementedError

    def decode(self, panel, lane) -> np.ndarray:
        """The rows that stand in `lane` of `panel`, index arrays of one shape [...]: float32 [...,
        K filled up]."""
        raise NotImplementedError

    def take(self, ids, axis=0, mode="raise") -> np.ndarray:
        """Rows by number, like ndarray.take(ids, axis=0): ids [...] -> float32 [..., K]."""
        if self.transposed or axis != 0:
            raise TypeError("take looks up rows of a table: axis=0, not transposed")
        ids = np.asarray(ids)
        if mode == "clip":
            ids = np.clip(ids, 0, self.n - 1)
        elif ids.size and (ids.min() < -self.n or ids.max() >= self.n):
            raise IndexError(
                f"ids reach from {ids.min()} to {ids.max()}; the table has {self.n} rows"
            )
        return self.decode(*np.divmod(ids % self.n, LANES))[..., : self.k]

    @property
    def T(self) -> Weight:
        """The transpose: the same storage, looked at from the other side."""
        return type(self)(self.stored, self.n, self.k, not self.transposed)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """{name: array} of what is stored, read-only."""
        return {name: read_only(array) for name, array in self.stored.items()}

    def read_only(self) -> Weight:
        """Itself: a weight is never changed."""
        return self

    def __reduce__(self):
        return type(self), (dict(self.stored), self.n, self.k, self.transposed)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.k, self.n) if self.transposed else (self.n, self.k)

    @property
    def ndim(self) -> int:
        return 2

    @property
    def size(self) -> int:
        """How many numbers it stands for."""
        return self.n * self.k

    @property
    def nbytes(self) -> int:
        """How many bytes are stored: what a product reads."""
        return sum(array.nbytes for array in self.stored.values())

    def dense(self) -> np.ndarray:
        """The whole matrix as float32."""
        return to_array(self, np.float32)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.dense() if dtype is None else self.dense().astype(dtype, copy=False)

    def astype(self, dtype, copy=True):
        """This weight for float32, else an ndarray of that type."""
        return self if np.dtype(dtype) == self.dtype else narrowed(self.dense(), dtype)

    def __rmatmul__(self, x):
        """x @ W in plain NumPy, a slab of rows at a time: how the textbook multiplies by a stored
        weight."""
        if not self.transposed:
            return x @ self.dense()
        y = np.empty((*x.shape[:-1], self.n), np.result_type(x, self.dtype))
        for start, rows in slabs(self.T):
            y[..., start : start + len(rows)] = x @ rows.T
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.shape}, {self.nbytes / 1e6:.1f} MB"
