"""The engines that are compared: each loads a model, a folder in Hugging Face layout or a GGUF
file, and decodes greedily, one row.

A peer is a class below and a line in PEERS. Its `load` runs in the peer's own process and imports
the libraries there; whatever it writes goes into a temporary folder, which `run` removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter, process_time
from typing import Any

import numpy as np

from .. import families
from ..decoding.cycle import read
from ..engines.llama_cpp import Loaded
from ..errors import InputError
from ..families import read_config
from ..layers.cache import position_bytes
from ..loading import config_of, load_model, open_checkpoint
from ..machine.memory import peak_bytes
from ..tasks.chat import CHUNK
from .convert import (
    as_folder,
    bytes_read,
    in_another_process,
    stored_bytes_read,
    write_ctranslate2,
    write_gguf,
)

REHEARSED = 80  # tokens of a prompt: so many that attention goes by tiles


def clocks() -> tuple[float, float]:
    """The time, and this process's processor time of all threads, in seconds."""
    return perf_counter(), process_time()


def spent(kind: str, start: tuple[float, float], end: tuple[float, float]) -> dict[str, float]:
    """What one kind of work took between two readings of the clocks, as it is answered."""
    return {f"{kind}_s": end[0] - start[0], f"{kind}_cpu_s": end[1] - start[1]}


class Peer:
    """What `run` needs to know of an engine, and how it is timed.

    load(model, threads) sets versions, threads (as the engine itself reports them, where it does),
    weight_bytes (of all weights that one decode step reads), cache_bytes (of the keys and values of
    one position) and libraries (the memory held before there was a model, None where unknown).
    """

    needs: tuple[str, ...] = ()  # modules that may not be installed
    bits: int | None = 32  # how a weight is stored, for the groups of --peers
    cache_dtype: str | None = (
        None  # of the KV cache, where it can be chosen; None is the engine's own choice
    )
    versions: dict[str, str]
    threads: int
    weight_bytes: int
    cache_bytes: int
    libraries: int | None = None
    texts: list[list[int]] | None = None  # whose prompts are held for measure_batch

    def load(self, model: str, threads: int) -> None:
        raise NotImplementedError

    def make_room(self, n: int) -> None:
        """Have a cache for n positions at least; one that grows by itself needs nothing."""

    def forget(self) -> None:
        """Empty the cache."""
        raise NotImplementedError

    def read(self, ids: Sequence[int]) -> int:
        """Read ids behind what the cache holds, return the likeliest next id."""
        raise NotImplementedError

    def prefill(self, ids: Sequence[int]) -> int:
        """Forget all that was before, read the prompt, return the likeliest next id."""
        self.forget()
        return self.read(ids)

    def decode(self, token: int) -> int:
        """Read one token more, return the likeliest next id."""
        return self.read([token])

    def measure(self, ids: Sequence[int], n_new: int) -> dict:
        """Return what prefill and n_new decode steps took, and the n_new + 1 tokens."""
        self.make_room(len(ids) + n_new)
        start = clocks()
        tokens = [self.prefill(ids)]
        first = clocks()
        for _ in range(n_new):
            tokens.append(self.decode(tokens[-1]))
        took = spent("prefill", start, first) | spent("decode", first, clocks())
        return took | {"tokens": tokens}

    # ---- several texts that decode together

    def hold(self, prompts: np.ndarray, n_new: int) -> None:
        """Read the prompts [B,T] of several texts, and have room for n_new more of each."""
        raise InputError("it is not asked here to decode several texts together")

    def go_back(self, batch: int, T: int) -> None:
        """Let the first `batch` of the texts, and no other, go on after T ids."""
        raise NotImplementedError

    def read_each(self, ids: np.ndarray) -> np.ndarray:
        """Read one id more of each text, ids [B], in one pass: the logits [B,V]."""
        raise NotImplementedError

    def measure_batch(
        self, ids: list[list[int]], n_new: int, batch: int, gaps: bool = False
    ) -> dict:
        """Let the first `batch` of the texts ids [B,T] go on together for n_new cycles, the first
        of which reads the last id of each prompt.

        Returns what they took, and the tokens [batch,n_new]; with `gaps` also how far the two
        largest logits were apart at each, which takes time and caches.
        """
        prompts, chosen = np.array(ids), []
        if self.texts != ids:
            self.texts = None
            self.hold(prompts[:, :-1], n_new)
            self.texts = ids
        self.go_back(batch, prompts.shape[1] - 1)
        start, tokens, apart = clocks(), prompts[:batch, -1], []
        for _ in range(n_new):
            logits = self.read_each(tokens)
            tokens = logits.argmax(axis=-1)
            chosen.append(tokens)
            if gaps:
                second, first = np.partition(logits, -2)[:, -2:].T
                apart.append(first - second)
        took = spent("decode", start, clocks())
        said = {"tokens": chosen} | ({"gaps": apart} if gaps else {})
        return took | {name: np.transpose(numbers).tolist() for name, numbers in said.items()}


class MinillmNumpy(Peer):
    """minillm's readable forward on NumPy, float32, with KV cache; prompts are read as chat reads
    them, 512 positions at a time. Another of ours overrides `open`, and what it changes."""

    cache: Any = None

    def open(self, model: str, threads: int):
        """Return the model."""
        return load_model(model, "float32", "numpy")

    def load(self, model: str, threads: int) -> None:
        from threadpoolctl import threadpool_info

        from ..version import __version__

        self.libraries = peak_bytes()
        self.model = self.open(model, threads)
        self.make_room(1)
        blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        self.threads = max((pool["num_threads"] for pool in blas), default=1)
        self.versions = {
            "minillm": __version__,
            "numpy": np.__version__,
            **{p["internal_api"]: p["version"] for p in blas},
        }
        sizes = {name: p.nbytes for name, p in self.model.parameters.items()}
        self.weight_bytes = bytes_read(sizes, self.model.config)
        self.cache_bytes = position_bytes(self.model.config, self.cache.keys.dtype)

    def make_room(self, n: int) -> None:
        if self.cache is None or self.cache.capacity < n:
            self.cache = self.model.new_cache(capacity=n, dtype=self.cache_dtype)

    def forget(self) -> None:
        self.cache.truncate(0)

    def prefill(self, ids) -> int:
        self.forget()
        return int(read(self.model, ids, self.cache, CHUNK)[0].argmax())

    def read(self, ids) -> int:
        return int(self.model(ids, self.cache, last=True)[-1].argmax())

    def hold(self, prompts, n_new) -> None:
        B, T = prompts.shape
        self.held = self.model.new_cache(B, T + n_new, self.cache_dtype)
        for b, ids in enumerate(prompts):
            read(self.model, ids, self.held.view(slice(b, b + 1)), CHUNK)

    def go_back(self, batch, T) -> None:
        self.held.truncate(T)
        self.running = self.held.view(slice(batch))

    def read_each(self, ids) -> np.ndarray:
        return self.model(ids[:, None], self.running, last=True)[:, 0]


class MinillmFloat32(MinillmNumpy):
    """minillm's kernels: the fused decode step, streaming attention, matrices stored as `dtype`."""

    dtype: str | None = "float32"

    def open(self, model: str, threads: int):
        from ..twins.threads import set_threads

        set_threads(threads)
        return load_model(model, self.dtype, "numba")

    def load(self, model: str, threads: int) -> None:
        numba = version("numba")  # not imported: it takes memory, and only who compiles needs it
        in_another_process(self.rehearse, model, threads)

        from ..kernels import decode  # noqa: F401 (with LLVM, which links kernels, it is a library)

        super().load(model, threads)
        self.threads = threads
        self.versions = {"minillm": self.versions["minillm"], "numba": numba}

    def rehearse(self, model: str, threads: int) -> None:
        """Do once all that is timed: what it compiles is on disk then, and counts as nobody's time
        or memory."""
        super().load(model, threads)
        ids = [0] * min(REHEARSED, self.model.config.sizes.P - 1)
        self.measure(ids, 1)
        if len(ids) > 1:
            self.measure_batch([ids, ids], 1, 2)


class MinillmBfloat16(MinillmFloat32):
    """minillm's kernels with matrices in bfloat16."""

    dtype, bits = "bfloat16", 16


class MinillmBfloat16Rounded(MinillmFloat32):
    """minillm's kernels with matrices in bfloat16, and what they multiply rounded to it."""

    dtype, bits = "bfloat16_rounded", 16


class MinillmFloat16(MinillmFloat32):
    """minillm's kernels with matrices in float16."""

    dtype, bits = "float16", 16


class MinillmInt8(MinillmFloat32):
    """minillm's kernels with matrices in blocks of 32 numbers of 8 bits and a float16 scale."""

    dtype, bits = "int8", 8


class MinillmInt4(MinillmFloat32):
    """minillm's kernels with matrices in blocks of 32 numbers of 4 bits and a float16 scale."""

    dtype, bits = "int4", 4


class MinillmInt4Min(MinillmFloat32):
    """minillm's kernels with matrices in blocks of 32 numbers of 4 bits, a float16 scale and a
    float16 minimum."""

    dtype, bits = "int4_min", 4


class MinillmStored(MinillmFloat32):
    """minillm's kernels with each matrix in the type that the model's file has it in."""

    dtype, bits = None, None

    def open(self, model: str, threads: int):
        return super().open(replace(open_checkpoint(model), as_stored=True), threads)


class Transformers(Peer):
    """Hugging Face transformers with its own cache, without the overhead of its generate()."""

    needs = ("torch", "transformers")
    dtype = "float32"

    def load(self, model: str, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.torch, self.new_cache = torch, transformers.DynamicCache
        self.libraries = peak_bytes()
        folder = as_folder(model)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, self.dtype)
        ).eval()
        self.threads = torch.get_num_threads()
        self.versions = {"transformers": transformers.__version__, "torch": torch.__version__}
        config = read_config(folder)
        canonical = families.of(config).canonical
        sizes = {canonical(n, config): p.nbytes for n, p in self.model.named_parameters()}
        self.weight_bytes = bytes_read(sizes, config)
        self.cache_bytes = position_bytes(config, f"float{self.bits}")

    def forget(self) -> None:
        self.cache = self.new_cache()

    def read(self, ids) -> int:
        return int(self.logits(self.torch.as_tensor(ids)[None])[0].argmax())

    def logits(self, ids):
        """The logits [B,V] after more ids [B,T] of each row of the cache."""
        said = self.model(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        return said.logits[:, -1]

    def hold(self, prompts, n_new) -> None:
        self.forget()
        self.logits(self.torch.as_tensor(prompts))
        self.held = self.cache

    def go_back(self, batch, T) -> None:
        self.cache = deepcopy(self.held)
        self.cache.batch_select_indices(self.torch.arange(batch))

    def read_each(self, ids) -> np.ndarray:
        return self.logits(self.torch.as_tensor(ids)[:, None]).float().numpy()


class TransformersBf16(Transformers):
    """transformers with weights and arithmetic in bfloat16."""

    dtype, bits = "bfloat16", 16


class LlamaCpp(Peer):
    """llama.cpp by its C functions, ids in and logits of the last position out; GGUF with every
    matrix in `precision`.

    As it comes, but for the threads: float16 KV cache unless told otherwise, flash attention where
    it chooses so, batches of 512. The context is as long as the longest run needs.
    """

    needs = ("llama_cpp",)
    precision: str | None = "F32"
    context: Any = None
    room = 0

    def load(self, model: str, threads: int) -> None:
        import llama_cpp  # noqa: F401  before a file is written in vain

        source = open_checkpoint(model)
        config, path = source.config, source.path
        if self.precision or path.is_dir():
            path = Path(mkdtemp()) / "model.gguf"
            self.weight_bytes = in_another_process(write_gguf, model, path, self.precision)
        else:
            self.weight_bytes = stored_bytes_read(source)
        self.libraries = peak_bytes()
        self.loaded, self.threads = Loaded(path), threads
        self.make_room(1)
        self.threads, self.versions = self.context.threads, self.loaded.versions
        self.cache_bytes = position_bytes(config, self.cache_dtype or "float16")

    def make_room(self, n: int) -> None:
        if n > self.room:
            self.context = None  # first: two take twice the memory
            self.context, self.room = self.loaded.context(n, self.threads, self.cache_dtype), n

    def forget(self) -> None:
        self.context.forget()

    def read(self, ids) -> int:
        return int(self.context.read(ids).argmax())

    def hold(self, prompts, n_new) -> None:
        B, T = prompts.shape
        self.context, self.room = None, 0  # first, as in make_room
        self.context = self.loaded.context(
            B * (T + n_new), self.threads, self.cache_dtype, n_seq_max=B
        )
        for b, ids in enumerate(prompts):
            for i in range(0, T, CHUNK):
                part = range(i, min(i + CHUNK, T))
                self.context.read_texts(ids[part], [b] * len(part), part)

    def go_back(self, batch, T) -> None:
        for b in range(len(self.texts)):
            self.context.forget(T, b)
        self.past = T

    def read_each(self, ids) -> np.ndarray:
        self.past += 1
        return self.context.read_texts(ids, range(len(ids)), [self.past - 1] * len(ids))


class LlamaCppF16(LlamaCpp):
    """llama.cpp with matrices in float16."""

    precision, bits = "F16", 16


class LlamaCppQ8(LlamaCpp):
    """llama.cpp with matrices in blocks of 32 numbers of 8 bits and a float16 scale."""

    precision, bits = "Q8_0", 8


class LlamaCppQ4(LlamaCpp):
    """llama.cpp with matrices in blocks of 32 numbers of 4 bits and a float16 scale."""

    precision, bits = "Q4_0", 4


class LlamaCppQ41(LlamaCpp):
    """llama.cpp with matrices in blocks of 32 numbers of 4 bits, a float16 scale and a float16
    minimum."""

    precision, bits = "Q4_1", 4


class LlamaCppStored(LlamaCpp):
    """llama.cpp with each matrix in the type that the model's file has it in: a GGUF file as it
    is."""

    precision, bits = None, None


class CTranslate2(Peer):
    """CTranslate2's generator; its KV cache cannot be held from outside, so prompt and new tokens
    are one call.

    A callback notes the time of each token: prefill ends with the first, decode with the last. Of
    the prompt, its loop reads all but the last token at once, without logits, and the last as the
    first decode step: prefill is both together, the time to the first token. (forward_batch would
    be one pass, but computes the logits of all positions.)
    """

    needs = ("ctranslate2",)
    precision = "float32"

    def load(self, model: str, threads: int) -> None:
        import ctranslate2

        self.libraries = peak_bytes()
        target = mkdtemp()
        self.weight_bytes = in_another_process(write_ctranslate2, model, target, self.precision)
        self.generator = ctranslate2.Generator(
            target, compute_type=self.precision, inter_threads=1, intra_threads=threads
        )
        self.threads = threads  # it does not say
        self.versions = {
            "ctranslate2": ctranslate2.__version__,
            "computes in": self.generator.compute_type,
        }
        self.cache_bytes = position_bytes(config_of(model), "float32")

    def measure(self, ids: Sequence[int], n_new: int) -> dict:
        times, tokens = [], []

        def note(step) -> None:
            times.append(clocks())
            tokens.append(step.token_id)

        start = clocks()
        prompt = [str(i) for i in ids]
        self.generator.generate_batch(
            [prompt], max_length=n_new + 1, include_prompt_in_result=False, callback=note
        )
        if len(tokens) != n_new + 1:
            raise InputError(f"CTranslate2 gave {len(tokens)} tokens instead of {n_new + 1}")
        took = spent("prefill", start, times[0]) | spent("decode", times[0], times[-1])
        return took | {"tokens": tokens}


class CTranslate2Int8(CTranslate2):
    """CTranslate2 with matrices in 8 bits, a float32 scale a row."""

    precision, bits = "int8", 8


PEERS: dict[str, type[Peer]] = {
    "minillm-numpy": MinillmNumpy,
    "minillm-float32": MinillmFloat32,
    "minillm-bfloat16": MinillmBfloat16,
    "minillm-bfloat16-rounded": MinillmBfloat16Rounded,
    "minillm-float16": MinillmFloat16,
    "minillm-int8": MinillmInt8,
    "minillm-int4": MinillmInt4,
    "minillm-int4-min": MinillmInt4Min,
    "minillm-stored": MinillmStored,
    "transformers-fp32": Transformers,
    "transformers-bf16": TransformersBf16,
    "llama.cpp-F32": LlamaCpp,
    "llama.cpp-F16": LlamaCppF16,
    "llama.cpp-Q8_0": LlamaCppQ8,
    "llama.cpp-Q4_0": LlamaCppQ4,
    "llama.cpp-Q4_1": LlamaCppQ41,
    "llama.cpp-stored": LlamaCppStored,
    "ctranslate2-fp32": CTranslate2,
    "ctranslate2-int8": CTranslate2Int8,
}


def choose(names: str | Sequence[str]) -> list[str]:
    """Return the peers that names and groups stand for, in the order given, each once.

    A group is "all", a family ("llama.cpp": what stands before the first hyphen of a name), a width
    ("8-bit"), or "stored": the two that keep each matrix as the model's file has it, which are in
    no other group. NAME@FOLDER is the same of another minillm, see run.program. Raises InputError
    for a name that is neither.
    """
    chosen = []
    for name in names.split(",") if isinstance(names, str) else names:
        name, at, other = name.strip().partition("@")
        group = [
            peer + at + other
            for peer, kind in PEERS.items()
            if name == peer or name in groups(peer, kind)
        ]
        if not group:
            raise InputError(
                f"peer {name!r} is unknown; known: {', '.join(GROUPS)}; {', '.join(PEERS)}"
            )
        chosen += [peer for peer in group if peer not in chosen]
    return chosen


def groups(name: str, kind: type[Peer]) -> tuple[str, ...]:
    """The groups that a peer is in."""
    return ("all", name.partition("-")[0], f"{kind.bits}-bit") if kind.bits else ("stored",)


GROUPS = (
    "all",
    *dict.fromkeys(name.partition("-")[0] for name in PEERS),
    "32-bit",
    "16-bit",
    "8-bit",
    "4-bit",
    "stored",
)
