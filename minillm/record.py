"""From a model and a prompt to a recording: generate once under the clock, then once more with the
same tokens, looking at every value.

Two runs, since a clock sees the fused step only if it looks at no value. Times come from the first,
values from the second, which is the readable forward; the largest difference of their logits says
how far one may read them as one.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import count as numbers
from itertools import islice
from linecache import getline
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from .clock import Clock, CycleTimes, Limits, predict
from .clock.costs import step_costs, steps_of
from .clock.limits import describe_machine
from .decoding.batch import Request, generate_batch
from .decoding.cycle import Moment, shown
from .decoding.generate import moments
from .decoding.options import Options
from .decoding.speculative import Draft
from .decoding.text import TextStream
from .differences import diff
from .errors import InputError, whole_number
from .families.family import EQUATIONS
from .layers.cache import position_bytes
from .machine.load import Load
from .machine.quota import require_memory
from .ops import softmax
from .protocol import Model, one_text, require_model
from .recording import BINDS, FARTHEST, ONE, VERSION, Recording
from .reference import TOLERANCES, Reference
from .steps import Patch, local_name, phase_of
from .tokenizer import Tokenizer, require_tokenizer
from .twins.threads import n_threads
from .twins.twin import abilities

CANDIDATES, LENS = 10, 3  # how many words of each moment, and of each layer of the lens
ATTENTION = 150_000  # bytes of attention that are kept unless positions are named
# options of the timed run that the traced one, which reads its tokens one by one, has no use for
NOT_TRACED = ("use_cache", "chunk", "num_beams", "length_penalty", "early_stopping")
ORIGIN = {
    "moments": "timed", "cycles": "timed", "times": "timed", "names": "timed", "clock": "timed",
    "steps.shapes": "traced", "candidates": "traced", "chosen": "traced", "lens": "traced",
    "norms": "traced", "attention": "traced", "limits": "measured", "predicted": "computed",
    "costs": "computed", "cycles.kept": "computed", "cycles.read": "computed",
    "cycles.written": "computed", "distances": "traced",
}  # fmt: skip


def record(
    model: Model,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    engine: Any = None,
    stop: Sequence[str] | str = (),
    draft: Draft | None = None,
    batch: int = 1,
    limits: Limits | Callable[[], Limits | None] | None = None,
    name: str = "",
    candidates: int = CANDIDATES,
    lens: int = LENS,
    attention: Iterable[int] | None = None,
    reference: Reference | None = None,
    against: str = "reference",
    every_step: bool = False,
    tries: int = 1,
    told: Callable[[Moment], object] = lambda moment: None,
    **options: Any,
) -> Recording:
    """Generate after `prompt` and return the recording of it.

    engine: another engine with the same model (engines.Engine), which is timed in its place. draft:
    guesses tokens in the timed run, see decoding.speculative; not with an engine. batch: how many
    texts the timed run writes at once, with the seeds from `seed` on; the first of them is
    recorded. limits: the machine's, see clock.measure, or what gives them when they are needed;
    without, nothing is predicted. name: what the model is called. candidates, lens: how many words
    of each moment and of each of its layers. attention: the positions whose attention is kept, None
    for as many as fit into some 150 kB, evenly spread. reference: with which every step is
    compared; against: what it is called. every_step: time the readable forward, and so each step,
    not the fused one that generates. tries: how often it is timed, over the same tokens; the
    fastest run is kept. told: is given each moment as it comes, in the first run. options: see
    decoding.Options; of beams, the best text is recorded. InputError for a window, sliding, and
    what does not go together.
    """
    require_model(model)
    require_tokenizer(tokenizer)
    ids = tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt
    ids = one_text(model, ids).tolist() if len(ids) else []
    chosen, batch = Options(**options).on(model), whole_number("batch", batch)
    chosen.require_plain("a recording", use_cache=chosen.use_cache, num_beams=chosen.num_beams)
    if batch > 1 or chosen.num_beams > 1:
        what = f"a batch of {batch}" if batch > 1 else f"num_beams {chosen.num_beams}"
        if engine is not None or draft is not None:
            raise InputError(f"{what} is recorded of minillm alone: leave out engine and draft")
        chosen.require_plain(what, **({} if batch > 1 else {"num_beams": chosen.num_beams}))
    n = chosen.new_tokens(len(ids), model.config.sizes.P)
    nbytes = 4 * n * model.config.sizes.V * chosen.num_beams
    require_memory(f"the logits of {n} tokens", nbytes, "fewer tokens")
    if engine is not None and draft is not None:
        raise InputError("a draft is recorded with minillm itself: leave out engine, or draft")
    timed = engine or model
    run = timed, tokenizer, ids, chosen, stop, draft, batch
    others = Load()
    clock, emitted, logits = _timed(*run, every_step, tries, told)
    if callable(limits):
        limits = limits()
    busy = others.share()
    guesser = getattr(draft, "model", timed)
    for computes in (timed, guesser):
        if limits is not None and computes.stored not in limits.row:
            raise InputError(f"the limits are of {', '.join(limits.row)}, not of {computes.stored}")
    positions = len(ids) + len(emitted) - 1
    kept = _positions(attention, positions, model.config.sizes)
    traced = Traced(model, [m.id for m in emitted], logits, positions, kept, candidates, lens)
    given = {n: v for n, v in chosen.given.items() if n not in NOT_TRACED}
    given |= {"do_sample": False} if chosen.num_beams > 1 else {}
    for _ in zip(emitted, moments(model, ids, Options(**given), traced, tokenizer=tokenizer)):
        pass
    cycles, passes = clock.cycles(), [c for m in emitted for c in (*m.before, m.cycle)]
    numbers_of = {cycle: number for number, cycle in enumerate(dict.fromkeys(passes))}
    models = [guesser if cycle.kind == "draft" else timed for cycle in cycles]
    lists = list(dict.fromkeys(cycle.names for cycle in cycles))
    steps, values = _steps(model, traced), traced.arrays()
    mentioned = {*ids, *(m.id for m in emitted), *values["candidates.ids"].ravel().tolist()}
    mentioned |= {*values["lens.ids"].ravel().tolist()}
    pieces = tokenizer.explain(prompt, allowed_special="all") if isinstance(prompt, str) else []
    machine, about = describe_machine(), _model(model, name)
    kept_as = chosen.cache_dtype or model.dtype
    if engine is not None:
        machine["versions"] |= engine.versions
        about |= {"twin": engine.title, "threads": engine.threads, "stored": engine.stored}
        kept_as = engine.cache_dtype
    position = position_bytes(model.config, kept_as) if chosen.use_cache else 0
    drafted = position_bytes(guesser.config, guesser.dtype)  # a draft's cache is its own
    header: Any = {
        "version": VERSION,
        "made": machine.pop("time"),
        "machine": machine | {"busy": busy},
        "model": about,
        "steps": steps,
        "text": {
            "prompt": prompt if isinstance(prompt, str) else tokenizer.readable(ids),
            "ids": ids,
            "pieces": [_piece(piece) for piece in pieces],
        },
        "tokens": {str(i): _word(tokenizer, i) for i in sorted(mentioned)},
        "options": {n: v for n, v in asdict(chosen).items() if n not in ("given", "defaults")}
        | _draft(draft)
        | ({"batch": batch} if batch > 1 else {}),
        "moments": [
            {
                "id": m.id,
                "text": m.text,
                "logprob": m.logprob,
                "cycle": numbers_of[m.cycle],
                "finish": m.finish,
            }
            for m in emitted
        ],
        "cycles": [
            _cycle(c, lists.index(c.names), drafted if c.kind == "draft" else position)
            for c in cycles
        ],
        "names": [list(names) for names in lists],
        "attention": kept,
        "clock": {
            "source": clock.source,
            "ticks_per_second": clock.ticks_per_second,
            "stamp_ns": clock.cost,
        },
        "limits": _limits(limits),
        "runs": {
            "difference": traced.difference,
            "origin": ORIGIN,
        },
    }
    arrays = values | _times(cycles) | {"costs": _costs(models, cycles, steps)}
    if limits is not None:
        arrays |= _predicted(models, cycles, limits)
    if reference is not None:
        positions = reference.ids.size
        header["compared"] = {
            "against": against,
            "positions": positions,
            "tolerance": TOLERANCES[np.dtype(np.float32)],
        }
        arrays["distances"] = _distances(model, steps, reference)
    return Recording(header, arrays)


# ---- the timed run


class Listening:
    """A model, and the logits that it gave last; with `keep`, of all passes."""

    def __init__(self, model: Model, keep: bool):
        self.model, self.keep = model, keep
        self.passes: list[np.ndarray] = []

    def __call__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        logits = self.model(*args, **kwargs)
        self.passes = [*(self.passes if self.keep else ()), logits.reshape(-1, logits.shape[-1])]
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class Again(Clock):
    """A clock that hands on the tokens of an earlier run; a draft guesses its own."""

    def __init__(self, every_step: bool, tokens: Iterable[int]):
        super().__init__(every_step)
        self.tokens = iter(tokens)

    def __call__(self, name: str, value: Any) -> Any:
        value = super().__call__(name, value)
        if name == "next" and self._begun[-1][0] != "draft":
            return next(self.tokens, value)
        return value


class Searching(Clock):
    """A clock of a beam search, which chooses between two passes what goes on, and says the tokens
    of the best text once it has ended."""

    def begin(self, kind: str, rows: int, positions: int, past: int = 0) -> None:
        if self._names:
            self("next", None)
        super().begin(kind, rows, positions, past)

    def __call__(self, name: str, value: Any) -> Any:
        chosen = name == "next" == self._names[-1]
        return value if chosen else super().__call__(name, value)


def _moments(
    model: Model,
    ids: list[int],
    options: Options,
    step: Clock,
    draft: Draft | None,
    tokenizer: Tokenizer,
    batch: int,
) -> Iterator[Moment]:
    """The moments of the text, or of the first of a batch."""
    if batch == 1:
        return moments(model, ids, options, step, draft, tokenizer)
    seeds = ({} if options.seed is None else {"seed": options.seed + n} for n in range(batch))
    requests = [Request(ids, Options(**options.given | seed)) for seed in seeds]
    served = generate_batch(model, requests, batch, tokenizer=tokenizer, step=step)
    return (moment for number, moment in served if not number)


def _timed(
    model: Model,
    tokenizer: Tokenizer,
    ids: list[int],
    options: Options,
    stop: Sequence[str] | str,
    draft: Draft | None,
    batch: int,
    every_step: bool,
    tries: int,
    told: Callable[[Moment], object],
) -> tuple[Clock, list[Moment], list[np.ndarray]]:
    """Generate under the clock, after a few tokens that are not counted (kernels compile, memory is
    touched): the clock, the moments, and the logits [V] of each, of the fastest run."""
    few, beams = 8 if draft else 2, options.num_beams > 1  # 8: until it has guessed
    if batch > 1 and options.seed is None:  # of all tries the same
        options = Options(**options.given | {"seed": int(np.random.default_rng().integers(2**31))})
        options = options.on(model)
    kind = Searching if beams else Clock
    written = model, ids, options, kind(every_step), draft, tokenizer, batch
    for _ in islice(_moments(*written), few):
        pass
    runs: list[tuple[Clock, list[Moment], list[np.ndarray]]] = []
    for _ in range(whole_number("tries", tries)):
        clock = kind(every_step)
        if runs and batch == 1 and not beams:
            clock = Again(every_step, [m.id for m in runs[0][1]])
        listening: Any = Listening(model, keep=beams)
        text, emitted, logits = TextStream(tokenizer, stop), [], []
        for moment in _moments(listening, ids, options, clock, draft, tokenizer, batch):
            emitted.append(moment := shown(moment, text))
            rows, row = listening.passes[moment.index if beams else -1], -1
            if moment.cycle.kind == "verify":  # which decides several
                row = sum(m.cycle == moment.cycle for m in emitted) - 1
            elif beams:  # the row that gave the token this probability
                logprobs = model.ops.log_softmax(rows)[:, moment.id]
                row = int(abs(logprobs - moment.logprob).argmin())
            elif batch > 1:
                row = 0
            logits.append(rows[row].copy())
            if not runs:
                told(moment)
            if moment.finish:
                break
        runs.append((clock, emitted, logits))
    return min(runs, key=lambda run: run[0].cycles()[-1].end)


# ---- the traced run


class Traced:
    """A step that keeps of each position what a recording holds, and hands on the tokens of the
    timed run in the place of those that would be chosen.

    tokens, logits: of the timed run; kept: the positions whose attention is kept; candidates, lens:
    how many words of each moment and of each layer.
    """

    def __init__(
        self,
        model: Model,
        tokens: Sequence[int],
        logits: Sequence[np.ndarray],
        positions: int,
        kept: list[int],
        candidates: int,
        lens: int,
    ):
        self.model, self.tokens, self.timed = model, tokens, logits
        self.candidates = whole_number("candidates", candidates)
        self.lens = whole_number("lens", lens)
        self.shapes: dict[str, dict[str, list[int]]] = {}
        self.places: dict[str, tuple[str, int, str]] = {}
        self.norms = np.zeros((positions, 2 * model.config.sizes.L + 1), np.float32)
        self.attention: dict[int, list[np.ndarray]] = {p: [] for p in kept}
        self.rows: dict[str, list[np.ndarray]] = {}  # of each array that has a row a moment
        self.moment, self.difference = -1, 0.0
        # One block, whose result is replaced by what the lens looks at.
        self.short = model.with_sizes({}, L=1)

    def begin(self, kind: str, rows: int, positions: int, past: int = 0) -> None:
        """A cycle begins, and with it a moment."""
        self.kind, self.past, self.moment = kind, past, self.moment + 1
        self.residuals: list[np.ndarray] = []  # of the last position, L + 1 of [C]

    def __call__(self, name: str, value: Any) -> Any:
        local = local_name(name)
        self.shapes.setdefault(local, {}).setdefault(self.kind, list(np.shape(value)))
        if local not in self.places:
            self.places[local] = _place(sys._getframe(1))
        if local in ("embed", "attn.residual", "mlp.residual"):
            column = 0 if name == "embed" else 2 * int(name.split(".")[1]) + 1
            column += local == "mlp.residual"
            rows = slice(self.past, self.past + value.shape[1])
            self.norms[rows, column] = np.linalg.norm(value[0], axis=-1)
            if local != "attn.residual":
                self.residuals.append(value[0, -1])
        elif local == "attn.weights":
            for position in range(self.past, self.past + value.shape[2]):
                if position in self.attention:
                    rows = value[0, :, position - self.past, : position + 1]  # [H,S]
                    self.attention[position].append(np.round(rows * ONE).astype(np.uint16))
        elif name == "logits":
            self.logits = value[0, -1]
        elif name == "probs":
            self._keep(self.logits, value, self.tokens[self.moment])
        elif name == "next":
            return self.tokens[self.moment]
        return value

    def _keep(self, logits: np.ndarray, after: np.ndarray, token: int) -> None:
        """What a moment is decided by: logits and probabilities [V], and the lens into each layer.

        Source of the lens: nostalgebraist, "interpreting GPT: the logit lens" (2020).
        """
        difference = float(np.abs(logits - self.timed[self.moment]).max())
        self.difference = max(self.difference, difference)
        before, ids = softmax(logits), _largest(logits, self.candidates)
        x = np.stack(self.residuals)[:, None]  # [L+1,1,C]
        first = np.zeros((len(x), 1), np.int64)
        views = softmax(self.short(first, step=Patch({"h.0.mlp.residual": x}))[:, 0])  # [L+1,V]
        words = _largest(views, self.lens)
        rank = (logits > logits[token]).sum()
        row = {
            "candidates.ids": ids,
            "candidates.logits": logits[ids],
            "candidates.before": before[ids],
            "candidates.after": after[ids],
            "chosen": np.array([logits[token], before[token], after[token], rank]),
            "lens.ids": words,
            "lens.probabilities": np.take_along_axis(views, words, -1),
            "lens.chosen": views[:, token],
        }
        for name, values in row.items():
            self.rows.setdefault(name, []).append(values)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was kept, by the names of a recording."""
        found = {
            name: np.stack(rows).astype(np.int32 if name.endswith("ids") else np.float32)
            for name, rows in self.rows.items()
        }
        weights = [np.stack(layers).ravel() for layers in self.attention.values()]  # [L,H,S] each
        found["attention"] = np.concatenate([np.zeros(0, np.uint16), *weights])
        return found | {"norms": self.norms}


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """The indices [..., k] of the largest values along the last axis, the largest first."""
    k = min(k, values.shape[-1])
    some = np.argpartition(-values, k - 1, axis=-1)[..., :k]
    order = np.argsort(-np.take_along_axis(values, some, -1), axis=-1, kind="stable")
    return np.take_along_axis(some, order, -1)


def _place(frame: FrameType | None) -> tuple[str, int, str]:
    """Where a step is formed: file, line, and the lines of the call."""
    while frame is not None and Path(frame.f_code.co_filename).name == "steps.py":
        frame = frame.f_back
    if frame is None:
        return "", 0, ""
    path, package = Path(frame.f_code.co_filename), Path(__file__).parent
    first, last, *_ = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    first = first or frame.f_lineno
    span = range(first, min(last or first, first + 7) + 1)
    lines = [getline(str(path), n).rstrip() for n in span]
    indent = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    inside = path.is_relative_to(package)
    file = path.relative_to(package.parent).as_posix() if inside else path.name
    return file, first, "\n".join(line[indent:] for line in lines)


def _positions(asked: Iterable[int] | None, n: int, sizes: Any) -> list[int]:
    """The positions whose attention is kept."""
    if asked is not None:
        positions = sorted({*asked})
        if wrong := [p for p in positions if not 0 <= p < n]:
            raise InputError(f"attention of position {wrong[0]}: there are 0 to {n - 1}")
        return positions
    for stride in numbers(1):
        positions = [*range(n - 1, -1, -stride)][::-1]
        nbytes = 2 * sizes.L * sizes.H * sum(p + 1 for p in positions)
        if nbytes <= ATTENTION or len(positions) == 1:
            return positions
    raise AssertionError


# ---- what is made of both


def _times(cycles: Sequence[CycleTimes]) -> dict[str, np.ndarray]:
    ends = [cycle.ends - cycle.start for cycle in cycles]
    return {
        "times.ends": np.concatenate(ends).astype(np.float32),
        "times.net": np.concatenate([cycle.net for cycle in cycles]).astype(np.float32),
    }


def _costs(models: Sequence[Model], cycles: Sequence[CycleTimes], steps: list[dict]) -> np.ndarray:
    """[cycles, steps, 5]: products, elements, weights, cache, values (see costs.Cost) of each step,
    in one layer."""
    names = [f"h.0.{step['name']}" if step["layered"] else step["name"] for step in steps]
    table = np.zeros((len(cycles), len(names), 5), np.float32)
    for row, model, c in zip(table, models, cycles):
        costs = step_costs(model.config, c.positions, c.past, c.rows, model.stored, _asked(c))
        for cell, name in zip(row, names):
            cell[:] = [*vars(costs[name]).values()]
    return table


def _predicted(
    models: Sequence[Model], cycles: Sequence[CycleTimes], limits: Limits
) -> dict[str, np.ndarray]:
    seconds, binds = [], []
    for model, c in zip(models, cycles):
        about = c.names, c.positions, c.past, c.rows, model.stored, _asked(c)
        parts, often = predict(model.config, limits, *about), Counter(c.names)
        seconds += [parts[name].seconds / often[name] for name in c.names]  # rows in turn
        binds += [BINDS.index(parts[name].binds) for name in c.names]
    return {
        "predicted.seconds": np.array(seconds, np.float32),
        "predicted.binds": np.array(binds, np.uint8),
    }


def _asked(c: CycleTimes) -> int:
    """Of how many positions logits are formed."""
    return c.positions if c.kind == "verify" else 1


def _distances(model: Model, steps: list[dict], reference: Reference) -> np.ndarray:
    """[steps, L]: max |ours - reference| / max |reference| of each step in each layer; -1 where
    either has no such step. A step that belongs to no layer stands in the first column."""
    trace = model.trace(reference.ids)
    found = diff(trace, reference.steps, names=[n for n in trace if n in reference.steps])
    table = np.full((len(steps), model.config.sizes.L), -1, np.float32)
    rows = {step["name"]: row for row, step in enumerate(steps)}
    for d in found:
        if (row := rows.get(local := local_name(d.name))) is not None:
            layer = 0 if local == d.name else int(d.name.split(".")[1])
            table[row, layer] = FARTHEST if d.status == "SHAPE" else min(d.relative, FARTHEST)
    return table


def _steps(model: Model, traced: Traced) -> list[dict]:
    """The steps in order, those of a block once."""
    equations = EQUATIONS | dict(model.family.equations(model.config))
    entries: dict[str, dict] = {}
    for name, info in steps_of(model.config).items():
        local = local_name(name)
        equation, letters = equations.get(local, ("", ""))
        file, line, code = traced.places.get(local, ("", 0, ""))
        entries.setdefault(
            local,
            {
                "name": local,
                "phase": phase_of(name),
                "label": info.label,
                "layered": local != name,
                "equation": equation,
                "letters": letters,
                "file": file,
                "line": line,
                "code": code,
                "shapes": traced.shapes.get(local, {}),
            },
        )
    return [*entries.values()]


def _cycle(c: CycleTimes, names: int, position: int) -> dict:
    """A pass, and what it does with the cache, in which a position takes so many bytes: all that is
    kept is read, what is new is written."""
    position *= c.rows
    kept = position * (c.past + c.positions)
    return {
        **c.about,
        "names": names,
        "kept": kept,
        "read": kept,
        "written": position * c.positions,
    }


def _draft(draft: Draft | None) -> dict:
    """What guessed, as the options say it."""
    if draft is None:
        return {}
    if (guesser := getattr(draft, "model", None)) is None:
        return {"draft": "ngram"}
    sizes = guesser.config.sizes
    return {"draft": f"{sizes.L} \u00d7 {sizes.C}, {guesser.stored}"}


def _model(model: Model, name: str) -> dict:
    return {
        "name": name,
        "family": model.family.name,
        "title": model.family.title,
        "config": model.config.to_dict(),
        "sizes": asdict(model.config.sizes),
        "tied": model.config.tied,
        "stored": model.stored,
        "parameters": sum(p.size for p in model.parameters.values()),
        "bytes": sum(p.nbytes for p in model.parameters.values()),
        "twin": abilities(model.ops).name,
        "threads": n_threads(model.ops),
    }


def _limits(limits: Limits | None) -> dict | None:
    if limits is None:
        return None
    values = asdict(limits)
    del values["machine"]
    return values | {"bandwidth": {str(n): rate for n, rate in limits.bandwidth.items()}}


def _piece(piece: Any) -> dict:
    def text(data: bytes) -> str:
        return data.decode("utf-8", "backslashreplace")

    merges = [[m.rank, m.at, text(m.left), text(m.right)] for m in piece.merges]
    return {"text": piece.text, "ids": list(piece.ids), "merges": merges}


def _word(tokenizer: Tokenizer, i: int) -> str:
    """The text of a token; bytes that are no text as \\x.., an id without a token as <4100>."""
    token = None if i >= tokenizer.vocab_size else tokenizer.tokens[i]
    return f"<{i}>" if token is None else token.decode("utf-8", "backslashreplace")
