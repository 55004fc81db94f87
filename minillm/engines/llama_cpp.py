"""llama.cpp, as llama-cpp-python brings it: started here for all who run it, timed inside, and its
activations read and replaced.

Everything inside is seen through `cb_eval`, a callback of llama.cpp's own: nothing is recompiled.
Reference: ggml-backend.h, ggml_backend_sched_eval_callback.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np

from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.opening import open_checkpoint
from ..clock.clock import counter
from ..errors import InputError, require_kind, require_one_of
from ..steps import Observer, Step, identity, local_name
from ..twins.choose import twin
from ..twins.threads import checked_threads, n_threads
from .engine import Engine, Held
from .nodes import Graph, graph_of, is_last, places

CHUNK = 512  # positions of a prompt that are one graph: llama.cpp's n_ubatch
LEAST = 512  # positions of a context


class Loaded:
    """A GGUF file in llama.cpp; `context` makes what reads ids with it."""

    def __init__(self, path: str | Path):
        import llama_cpp

        self.llama = llama_cpp
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self.model:
            raise InputError(f"llama.cpp cannot load {path}")
        finalize(self, llama_cpp.llama_model_free, self.model)

    def context(
        self, positions: int, threads: int, cache_dtype: str | None = None, **options: Any
    ) -> Context:
        """As llama.cpp comes, but for the threads; cache_dtype: float32 or float16, None is its own
        choice. options: fields of llama_context_params."""
        return Context(self, positions, threads, cache_dtype, options)

    @property
    def versions(self) -> dict[str, str]:
        """Of the package, and which instructions llama.cpp was built for."""
        features = self.llama.llama_print_system_info().decode().replace("CPU : ", "").split(" | ")
        on = [feature.removesuffix(" = 1") for feature in features if feature.endswith(" = 1")]
        return {"llama_cpp_python": self.llama.__version__, "built for": " ".join(on)}


class Context:
    """One text in llama.cpp, or as many as n_seq_max: ids in, logits out."""

    def __init__(
        self,
        loaded: Loaded,
        positions: int,
        threads: int,
        cache_dtype: str | None,
        options: dict[str, Any],
    ):
        self.llama, self.loaded = loaded.llama, loaded
        chosen = self.llama.llama_context_default_params()
        chosen.n_ctx = positions
        chosen.n_threads = chosen.n_threads_batch = threads
        if cache_dtype:
            types = {"float32": self.llama.GGML_TYPE_F32, "float16": self.llama.GGML_TYPE_F16}
            chosen.type_k = chosen.type_v = types[cache_dtype]
        for name, value in options.items():
            setattr(chosen, name, value)
        self.kept = options  # callbacks live as long as the context
        self.passes = self.within = 0  # how many there were, and ns that llama.cpp had for them
        self.context = self.llama.llama_init_from_model(loaded.model, chosen)
        if not self.context:
            raise InputError(f"llama.cpp makes no context of {positions} positions")
        # with the model at hand, which must outlive it whatever is collected first
        finalize(
            self,
            lambda free, context, _: free(context),
            self.llama.llama_free,
            self.context,
            loaded,
        )
        self.threads = self.llama.llama_n_threads(self.context)
        self.n_vocab = self.llama.llama_vocab_n_tokens(
            self.llama.llama_model_get_vocab(loaded.model)
        )

    def forget(self, past: int = 0, text: int = 0) -> None:
        """Forget what is from position `past` on of a text; 0 forgets all."""
        memory = self.llama.llama_get_memory(self.context)
        if past:
            self.llama.llama_memory_seq_rm(memory, text, past, -1)
        else:
            self.llama.llama_memory_clear(memory, True)

    def read(self, ids: Sequence[int], every: bool = False) -> np.ndarray:
        """Read ids after what is there: the logits [V] after the last of them, with `every` those
        after each [T,V]; in memory that the next call writes to."""
        most = self.llama.llama_n_batch(self.context)
        parts = [ids[i : i + most] for i in range(0, len(ids), most)]
        if every and len(parts) > 1:
            return np.concatenate([self._read(part, every).copy() for part in parts])
        *_, last = (self._read(part, every) for part in parts)
        return last

    def _read(self, ids: Sequence[int], every: bool) -> np.ndarray:
        """As read, for as many ids as llama.cpp takes at once."""
        array = (self.llama.llama_token * len(ids))(*ids)
        batch = self.llama.llama_batch_get_one(array, len(ids))
        if every:
            batch.logits = (ctypes.c_int8 * len(ids))(*[1] * len(ids))
        return self._decode(batch, every)

    def read_texts(
        self, ids: Sequence[int], texts: Sequence[int], positions: Sequence[int]
    ) -> np.ndarray:
        """Read ids, each of one of several texts and at its position there, in one pass: the logits
        after each [T,V]; in memory that the next call writes to."""
        n, llama = len(ids), self.llama
        owners = [(llama.llama_seq_id * 1)(text) for text in texts]
        batch = llama.llama_batch(
            n_tokens=n,
            token=(llama.llama_token * n)(*ids),
            pos=(llama.llama_pos * n)(*positions),
            n_seq_id=(ctypes.c_int32 * n)(*[1] * n),
            seq_id=(ctypes.POINTER(llama.llama_seq_id) * n)(*owners),
            logits=(ctypes.c_int8 * n)(*[1] * n),
        )
        return self._decode(batch, every=True)

    def _decode(self, batch: Any, every: bool) -> np.ndarray:
        """Compute a batch: the logits after the last id, or after each."""
        began = perf_counter_ns()
        if code := self.llama.llama_decode(self.context, batch):
            raise InputError(f"llama_decode returned {code}")
        row = self.llama.llama_get_logits_ith(self.context, 0 if every else -1)  # which waits
        self.passes, self.within = self.passes + 1, self.within + perf_counter_ns() - began
        n = batch.n_tokens if every else 1
        numbers = ctypes.c_float * (self.n_vocab * n)
        logits = np.frombuffer(numbers.from_address(ctypes.addressof(row.contents)), np.float32)
        return logits.reshape(n, -1) if every else logits


def check_survival(path: Path) -> None:
    """Raise InputError for a file that llama.cpp ends the process on, as on norms in float16: a
    child reads a token with it first."""
    code = f"import sys; from {__name__} import Loaded; Loaded(sys.argv[1]).context(1, 1).read([0])"
    found = {"PYTHONPATH": os.pathsep.join(sys.path), "GGML_NO_BACKTRACE": "1"}
    command = [sys.executable, "-c", code, str(path)]
    child = subprocess.run(command, capture_output=True, env=os.environ | found, check=False)
    if child.returncode:
        said = child.stderr.decode(errors="replace").split("\n")
        why = next((line for line in reversed(said) if line.strip()), "it says nothing")
        why = re.sub(r"^.*\.cpp:\d+: ", "", why)  # where in its source
        raise InputError(f"llama.cpp cannot compute with {path}: {why:.300}")


class Nodes:
    """What libggml-base, which lies beside the package, says of a node by its address."""

    def __init__(self, llama_cpp: Any):
        folder = Path(llama_cpp.__file__).parent / "lib"
        found = sorted(folder.glob("*ggml-base*"))
        if not found:
            raise InputError(f"{folder} has no library ggml-base, which names llama.cpp's nodes")
        self.ggml = ctypes.CDLL(str(found[0]))
        for name in ("ggml_get_name", "ggml_op_desc"):
            function = getattr(self.ggml, name)
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_char_p
        for name in ("ggml_backend_tensor_get", "ggml_backend_tensor_set"):
            size = ctypes.c_size_t
            getattr(self.ggml, name).argtypes = [ctypes.c_void_p, ctypes.c_void_p, size, size]

    def names(self, addresses: Sequence[int]) -> list[tuple[str, str]]:
        """The name and the operation of each."""
        name, operation = self.ggml.ggml_get_name, self.ggml.ggml_op_desc
        return [(name(a).decode(), operation(a).decode()) for a in addresses]

    def value(self, address: int) -> np.ndarray:
        """The numbers of a node, float32, in C's order; a copy."""
        head = Head.from_address(address)
        shape = head.ne[::-1]
        plain = [4 * int(np.prod(head.ne[:i])) for i in range(4)]
        if head.type or head.nb[:] != plain:  # 0 is float32
            raise InputError(f"the node {self.names([address])[0]} holds no plain float32")
        array = np.empty(shape, np.float32)
        self.ggml.ggml_backend_tensor_get(address, array.ctypes.data, 0, array.nbytes)
        return array

    def put(self, address: int, array: np.ndarray) -> None:
        """Replace the numbers of a node."""
        self.ggml.ggml_backend_tensor_set(address, array.ctypes.data, 0, array.nbytes)


class Head(ctypes.Structure):
    """How a ggml_tensor begins: sizes and strides, the innermost first."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
    )


class LlamaCpp(Engine):
    """A model in llama.cpp: a GGUF file as it is, or a folder written as one.

    dtype: what matrices become before (loading.convert); None keeps them. cache_dtype: float32, or
    float16, llama.cpp's own choice. flash: whether attention is one operation; None leaves it to
    llama.cpp. There are up to three contexts, which read the text when they are needed: one without
    a callback, one with stamps, one with values.
    """

    name, needs = "llama.cpp", ("llama_cpp",)
    switches: Mapping[str, Mapping[str, Any]] = {
        "keys and values in float32": {"cache_dtype": "float32"},
        "flash attention off": {"flash": False},
        "matrices in float32, to which it rounds no activations": {"dtype": "float32"},
    }

    def __init__(
        self,
        model: str | Path | Checkpoint,
        threads: int | None = None,
        dtype: str | None = None,
        cache_dtype: str = "float16",
        flash: bool | None = None,
    ):
        with self.needed():
            import llama_cpp
        logger = logging.getLogger("llama-cpp-python")
        if logger.level == logging.NOTSET:  # which prints all that llama.cpp says
            logger.setLevel(logging.CRITICAL)
        checkpoint = open_checkpoint(model)
        if dtype or checkpoint.path.is_dir():
            checkpoint = self.written(checkpoint, "model.gguf", dtype)
        else:
            check_survival(checkpoint.path)
        super().__init__(checkpoint)
        self.loaded = Loaded(checkpoint.path)
        self.versions = self.loaded.versions
        self.threads = n_threads(twin()) if threads is None else checked_threads(threads)
        self.cache_dtype = require_one_of("cache_dtype", cache_dtype, ("float32", "float16"))
        require_kind("flash", flash, bool | None, "True, False or None")
        self.options = {} if flash is None else {"flash_attn_type": int(flash)}
        self.nodes = Nodes(llama_cpp)
        assert self.family.gguf is not None  # since it has come as a GGUF file
        self.form = self.family.gguf
        self._graphs: dict[bytes, Graph] = {}
        self._views: dict[type[View], Any] = {}
        self._text: list[int] = []

    def read(self, ids: list[int], past: int, last: bool, step: Observer) -> np.ndarray:
        kind = Stamps if step.stamps else View if step.times_only else Values
        view, text = self._view(kind), [*self._text[:past], *ids]
        view.go_to(text[:past])
        chunks = [ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK)]
        rows = [view.read(chunk, not last, step) for chunk in chunks]
        self._text = text
        return rows[-1] if last else np.concatenate(rows)

    def new_cache(self, batch: int = 1, capacity: int | None = None, dtype: Any = None) -> Held:
        cache = super().new_cache(batch, capacity, dtype)
        with self._one_at_a_time:
            self.room = max(self.room, capacity or 1)
            for kind in [*self._views]:  # now, before a clock runs
                self._view(kind)
        return cache

    def _view(self, kind: type[View]) -> Any:
        if kind not in self._views or self._views[kind].room < self.room:
            self._views.pop(kind, None)  # before another one takes its memory
            self._views[kind] = kind(self)
        return self._views[kind]

    def graph(self, addresses: np.ndarray) -> Graph:
        """What the nodes at these addresses are."""
        key = addresses.tobytes()
        if key not in self._graphs:
            nodes = self.nodes.names(addresses.tolist())
            graph = graph_of(nodes, self.form.nodes, self.config.sizes.L)
            same = [g for g in self._graphs.values() if g == graph]
            self._graphs[key] = (same or [graph])[0]
        return self._graphs[key]

    def hand_on(self, node: int, name: str, n_keys: int, step: Step) -> None:
        """Give the values that a node holds to `step`, and the node what it returns."""
        local = local_name(name)
        numbers, changed = self.nodes.value(node), False
        within = self.form.parts.get(local, ())
        sizes, paired = self.config.sizes, bool(self.form.paired)
        for place in places(local, numbers, sizes, n_keys, paired, within):
            scale = 1.0
            if place.step == "attn.scores":  # scaled where softmax is taken
                scale = self.config.attention_scale(int(name.split(".")[1]))
            old = place.value * np.float32(scale)
            new = step(name.removesuffix(local) + place.step, old)
            if new is not old or not np.array_equal(new, place.value * np.float32(scale)):
                changed = True  # or in place
                place.put(new / np.float32(scale))
        if changed:
            self.nodes.put(node, numbers)

    @cached_property
    def step_names(self) -> list[str]:  # type: ignore[override]
        """The steps whose values it has, in the order in which it forms them."""
        names = []
        for name in self._view(Values).ends.values():
            local = local_name(name)
            names += [
                name.removesuffix(local) + n for n in (local, *self.form.parts.get(local, ()))
            ]
        return names

    def own_count(self) -> tuple[float, float] | None:
        if Stamps not in self._views:
            return None
        context, llama = self._views[Stamps].context, self.loaded.llama
        counted = llama.llama_perf_context(context.context)
        llama.llama_perf_context_reset(context.context)
        passes, within, context.passes, context.within = context.passes, context.within, 0, 0
        return (counted.t_eval_ms / counted.n_eval, within / passes / 1e6) if passes else None

    @property
    def unknown(self) -> dict[str, int]:
        """Nodes, as name:operation, whose step is not known, and how many a pass has."""
        return {node: n for graph in self._graphs.values() for node, n in graph.unknown.items()}


class View:
    """A context, and the text that it holds; this one looks at nothing."""

    def __init__(self, engine: LlamaCpp, **options: Any):
        room = max(LEAST, 1 << (engine.room - 1).bit_length())
        self.engine, self.room = engine, min(room, engine.config.sizes.P)
        self.text: list[int] = []
        self.context = engine.loaded.context(
            self.room, engine.threads, engine.cache_dtype, **engine.options, **options
        )
        self.context.read([0])  # the first call of a context is slow
        self.context.forget()

    def go_to(self, text: list[int]) -> None:
        """Hold this text: forget what is not its beginning, read what is missing."""
        if self.text == text:
            return
        pairs = enumerate(zip(self.text, text))
        same = next((i for i, (a, b) in pairs if a != b), min(len(self.text), len(text)))
        with self.whole():
            if same < len(self.text):
                self.context.forget(same)
            for i in range(same, len(text), CHUNK):
                self.context.read(text[i : i + CHUNK])
            self.text = text

    def read(self, ids: list[int], every: bool, step: Observer) -> np.ndarray:
        """The logits after the ids, [1,V] or [T,V]."""
        with self.whole():
            logits = self.context.read(ids, every).reshape(-1, self.engine.config.sizes.V).copy()
            self.text = self.text + ids
        return logits

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Hold nothing after what broke off, as by a Ctrl-C: how far it came is not known."""
        try:
            yield
        except BaseException:
            self.context.forget()
            self.text = []
            raise


class Stamps(View):
    """A view that tells a clock when nodes were computed: those of every step, or of phases."""

    def __init__(self, engine: LlamaCpp):
        self.now, source = counter()
        if source != "time-stamp counter":
            raise InputError("a clock inside of llama.cpp needs compiled kernels: install Numba")
        from .stamps import Book, stamp

        self.book, callback = Book(), engine.loaded.llama.ggml_backend_sched_eval_callback
        super().__init__(
            engine,
            cb_eval=ctypes.cast(ctypes.c_void_p(stamp.address), callback),
            cb_eval_user_data=self.book.all.ctypes.data,
            no_perf=False,
        )
        self.nodes = self.book.asked.copy()
        self.graph, self.asked = engine.graph(self.nodes), Asked({}, [], [])

    def ask(self, graph: Graph, every_step: bool) -> None:
        """Want the nodes of a graph at which steps end, or phases: the fewer, the less it costs.
        Rows of tables are within `embed`; the logits are there when llama.cpp returns."""
        steps = [*graph.ends.items()]
        first = next((n for n, (_, step) in enumerate(steps) if step == "embed"), 0)
        chosen = (lambda step: step != "logits") if every_step else is_last
        ends = {i: step for i, step in steps[first:] if chosen(step)}
        self.asked = Asked((graph, every_step), [*ends], [*ends.values()])
        self.book.wanted[:] = 0
        self.book.wanted[[*ends]] = 1

    def read(self, ids: list[int], every: bool, step: Observer) -> np.ndarray:
        if self.asked.of != (self.graph, every_step := not step.times_only):
            self.ask(self.graph, every_step)
        self.book.begin()
        logits = super().read(ids, every, step)
        end = self.now()
        _, at, names = self.asked
        if not np.array_equal(self.book.asked, self.nodes):  # most passes have the same
            self.nodes = self.book.asked.copy()
            graph = self.engine.graph(self.nodes)
            if graph is not self.graph:
                self.graph = graph
                at = [i for i in at if i in graph.ends]
                names = [graph.ends[i] for i in at]
        assert step.stamps is not None
        step.stamps([*names, "logits"], [*self.book.ticks[at].tolist(), end])
        return logits


class Asked(NamedTuple):
    """Which nodes are wanted: of which graph, and whether those of every step; where they are in
    it, and the steps that end there."""

    of: object
    at: list[int]
    names: list[str]


class Values(View):
    """A view that hands every value to a step, and on what it returns."""

    def __init__(self, engine: LlamaCpp):
        self.asked: list[int] = []
        self.ends: dict[int, str] = {}
        self.step: Any = identity
        self.n_keys = 1
        self.error: BaseException | None = None
        llama = engine.loaded.llama
        super().__init__(engine, cb_eval=llama.ggml_backend_sched_eval_callback(self.called))
        self.ends = engine.graph(np.array(self.asked)).ends

    def called(self, node: int, ask: bool, _: object) -> bool:
        """Whether the node is wanted; and, after it was computed, whether to go on."""
        if ask:
            self.asked.append(node)
            return len(self.asked) - 1 in self.ends
        try:
            name = self.ends[len(self.asked) - 1]
            self.engine.hand_on(node, name, self.n_keys, self.step)
        except BaseException as error:  # which would be lost in llama.cpp
            self.error = error
        return self.error is None

    def go_to(self, text: list[int]) -> None:
        if self.step is not identity:
            raise InputError("a step that looks into llama.cpp cannot look into another pass")
        super().go_to(text)

    def read(self, ids: list[int], every: bool, step: Observer) -> np.ndarray:
        self.asked, self.step, self.error = [], step, None
        self.n_keys = len(self.text) + len(ids)
        try:
            logits = super().read(ids, every, step)
            if self.engine.graph(np.array(self.asked)).ends != self.ends and self.error is None:
                self.error = InputError("llama.cpp computes this pass by another graph than others")
        finally:
            self.step = identity
            if self.error is not None:
                self.context.forget()
                self.text = []
                raise self.error
        return logits
