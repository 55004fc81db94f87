"""The ledger: any set of levers on one model and one text, in one table: speed, memory, and what it
costs in quality.

Speed: greedy continuations of the text's first tokens, all levers in turn within each round, so
that a drift of the machine hits all alike; the median over rounds. Quality: the text in windows
under every lever, against the unchanged model (plain): bits per byte, and D(p || q) = sum p log2(p
/ q) in bits a token. A lever whose proof says exact runs the unchanged model, whose figures it
therefore has.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import median
from time import perf_counter

import numpy as np

from ..checkpoints import find_folder
from ..decoding import Options, Request, generate_batch
from ..decoding.cycle import Continuation, Cycle
from ..decoding.finite import check_logits
from ..decoding.generate import moments
from ..errors import InputError, count
from ..families.gpt2.config import GPT2Config
from ..layers.cache import SlidingCache
from ..machine.distributed import World
from ..machine.progress import progress_bar
from ..machine.quota import require_memory
from ..model import GPT2, Model
from ..tokenizer import Tokenizer
from ..twins.threads import n_threads, set_threads
from .levers import Way, apply_levers

REREAD = 16  # windows that are read in one pass where quality is measured
# tokens from the text's end, by which pruning judges; not among those that quality is measured on
CALIBRATION = 256


@dataclass
class Entry:
    """One line. Rates in tokens/s, a number a round; missing says why there is nothing."""

    levers: str
    proof: str = ""
    threads: int = 0
    weight_bytes: int = 0
    cache_bytes: int = 0
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    speed_up: float | None = None  # of decode over plain, the median round by round
    bits_per_byte: float | None = None
    change: float | None = None  # of the bits per byte, as a share
    divergence: float | None = None  # bits a token
    middle_half: tuple[float, float] | None = None  # of the speed-ups of the rounds
    missing: str | None = None

    def rate(self, kind: str) -> float | None:
        """The median tokens/s of "prefill" or "decode", None while nothing is measured."""
        rates = getattr(self, kind)
        return median(rates) if rates else None


def ledger(
    model: Model,
    tokenizer: Tokenizer,
    text: str,
    names: Sequence[str],
    *,
    n_prompt: int = 64,
    n_new: int = 64,
    rounds: int = 3,
    quality_tokens: int = 1024,
    entries: list[Entry] | None = None,
    all_apply: bool = True,
) -> list[Entry]:
    """Return an Entry for "plain" and for each of `names` (see bench.levers).

    Raises InputError for a lever that is unknown or cannot apply, before anything is measured; one
    that fails when it runs says why in its own entry.

    quality_tokens: how many of the text's tokens are scored; 0 leaves quality out. entries: a list
    that is filled as the measuring goes on, so that what was measured before an interruption is
    there. all_apply: False leaves out levers that cannot apply, for a list that nobody chose.
    """
    ids = tokenizer.encode_documents(text)
    window = min(model.config.sizes.P, max(quality_tokens, 1))
    needed = max(n_prompt, quality_tokens + 1) + CALIBRATION
    if len(ids) < needed:
        raise InputError(
            f"the text has {len(ids):,} tokens; {needed:,} are needed: give a longer one, or score"
            " fewer tokens"
        )
    if n_prompt + n_new > model.config.sizes.P:
        raise InputError(
            f"{n_prompt} + {n_new} tokens do not fit the model's {model.config.sizes.P} positions"
        )
    scored, entries = np.array(ids[: quality_tokens + 1]), [] if entries is None else entries
    n_bytes = sum(len(tokenizer.tokens[i]) for i in scored[1:] if i != tokenizer.eot_id)
    if quality_tokens and not n_bytes:
        raise InputError("the text that is scored has no byte beside <|endoftext|>")
    calibration = ids[-min(CALIBRATION, model.config.sizes.P) :]
    plain = Way(model, tokenizer, calibration, threads=n_threads(model.ops))
    ways: list[tuple[Entry, Way]] = []
    with progress_bar("steps") as update:
        applied = []
        for done, name in enumerate(["plain", *names]):
            update("applying levers", done, len(names) + 1)
            try:
                applied.append((name, *apply_levers(plain, name)))
            except InputError:
                if all_apply:
                    raise
        for done, (name, way, proof) in enumerate(applied):
            update("quality", done, len(applied))
            entries.append(entry := Entry(name, proof=proof, threads=way.threads))
            try:
                _memory(entry, way, n_prompt + n_new)
                if quality_tokens:
                    reference = entries[0].bits_per_byte
                    _quality(
                        entry,
                        way,
                        plain.model,
                        scored,
                        window,
                        n_bytes,
                        reference,
                    )
                _speed(way, ids, n_prompt, min(4, n_new))  # warm-up, and whether it runs at all
                ways.append((entry, way))
            except InputError as error:
                entry.missing, entry.proof = str(error), None
        for turn in range(rounds):
            for done, (entry, way) in enumerate(ways):
                update("speed", turn * len(ways) + done, rounds * len(ways))
                prefill, decode = _speed(way, ids, n_prompt, n_new)
                entry.prefill.append(prefill)
                entry.decode.append(decode)
                ratios = [mine / theirs for mine, theirs in zip(entry.decode, entries[0].decode)]
                low, entry.speed_up, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
                entry.middle_half = low, high
    return entries


def shared(names: Sequence[str], ranks: World) -> list[str]:
    """Return the levers of this process: every size-th one."""
    return list(names[ranks.rank :: ranks.size])


def gathered(entries: list[Entry], ranks: World) -> list[Entry]:
    """Return, on every rank, "plain" (rank 0's) and the entries of all ranks in the order in which
    `shared` dealt them out."""
    every = ranks.all_gather(entries)  # each with "plain" first
    turns = zip_longest(*(part[1:] for part in every))
    return [every[0][0], *(e for turn in turns for e in turn if e)]


@contextmanager
def random_124m() -> Iterator[str]:
    """A folder, while it is needed, with GPT-2 124M's shape, random weights, and a tokenizer that
    has enough tokens for a prompt."""
    with tempfile.TemporaryDirectory(prefix="minillm-compare-") as folder:
        GPT2.random(GPT2Config(), seed=0).save_pretrained(folder)
        Tokenizer.from_pretrained(find_folder("tales")).save(folder)
        yield folder


def _memory(entry: Entry, way: Way, n: int) -> None:
    """The bytes of what is read and kept: weights (a layer-skipping draft shares its model's) and
    all caches."""
    drafters = [way.draft.model] if hasattr(way.draft, "model") else []
    weights = {
        id(p): p.nbytes for model in (way.model, *drafters) for p in model.parameters.values()
    }
    entry.weight_bytes = sum(weights.values())
    text = Continuation(way.model, [0], Options(**way.options, max_length=n))
    if text.options.use_cache:
        entry.cache_bytes = way.rows * text.new_cache(way.model).nbytes
        require_memory(count(way.rows, "cache"), entry.cache_bytes, "a smaller batch")
    entry.cache_bytes += sum(model.new_cache().nbytes for model in drafters)


def _speed(way: Way, ids: Sequence[int], n_prompt: int, n_new: int) -> tuple[float, float]:
    """Tokens/s of reading the prompts, and of what follows the first token of each."""
    options = Options(**way.options, max_new_tokens=n_new, do_sample=False, stop_tokens=())
    before = n_threads(way.model.ops)
    set_threads(way.threads or before)
    try:
        return _rates(way, ids, n_prompt, options)
    finally:
        set_threads(before)


def _rates(way: Way, ids: Sequence[int], n_prompt: int, options: Options) -> tuple[float, float]:
    start = perf_counter()
    if way.rows > 1:
        prompts = [ids[row : row + n_prompt] for row in range(way.rows)]
        story = [
            m
            for _, m in generate_batch(way.model, [Request(p, options) for p in prompts], way.rows)
        ]
    else:
        story = list(moments(way.model, ids[:n_prompt], options, draft=way.draft))
    prefill = sum(
        _seconds(c)
        for c in dict.fromkeys(c for m in story[: way.rows] for c in (*m.before, m.cycle))
    )
    later = perf_counter() - start - prefill
    return way.rows * n_prompt / prefill, (len(story) - way.rows) / later


def _seconds(cycle: Cycle) -> float:
    return (cycle.end - cycle.start) / 1e9


def _quality(
    entry: Entry,
    way: Way,
    reference: Model,
    ids,
    window: int,
    n_bytes: int,
    plain_bits: float | None,
) -> None:
    """Bits per byte and divergence over windows of ids [N+1]; one window's logits are held at a
    time."""
    nats = divergence = 0.0
    for start in range(0, len(ids) - 1, window):
        inputs, targets = ids[start : start + window], ids[start + 1 : start + window + 1]
        inputs = inputs[: len(targets)]
        logits = _logits(way, inputs)
        check_logits(logits, lambda row, start=start: f"position {start + row}")
        q = way.model.ops.log_softmax(logits)
        nats -= float(q[np.arange(len(targets)), targets].sum(dtype=np.float64))
        if not entry.proof:
            p = reference.ops.log_softmax(reference(inputs))
            divergence += float((np.exp(p) * (p - q)).sum(dtype=np.float64))
    entry.bits_per_byte = nats / math.log(2) / n_bytes
    entry.divergence = divergence / math.log(2) / (len(ids) - 1)
    entry.change = 0.0 if plain_bits is None else entry.bits_per_byte / plain_bits - 1


def _logits(way: Way, ids) -> np.ndarray:
    if "window" not in way.options:
        return way.model(ids)
    window = min(way.options["window"], way.model.config.sizes.P)
    if way.options.get("use_cache", True):
        cache = SlidingCache(way.model.config, 1, window, way.model.dtype)
        return np.concatenate([way.model([i], cache) for i in ids])
    # the last tokens of each position behind the first ones
    later = np.lib.stride_tricks.sliding_window_view(ids, window)[1:]
    parts = [
        way.model(later[i : i + REREAD], last=True)[:, 0] for i in range(0, len(later), REREAD)
    ]
    return np.concatenate([way.model(ids[:window]), *parts])


def frontier(entries: Sequence[Entry]) -> list[Entry]:
    """The entries than which none is both faster in decoding and better, the slowest first."""
    measured = sorted(
        (e for e in entries if e.decode and e.bits_per_byte),
        key=lambda e: (-e.rate("decode"), e.bits_per_byte),
    )
    best: list[Entry] = []
    for entry in measured:
        if not best or entry.bits_per_byte < best[-1].bits_per_byte:
            best.append(entry)
    return best[::-1]
