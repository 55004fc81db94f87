"""What is made of both runs: the recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import count as numbers
from pathlib import Path
from typing import Any

import numpy as np

from ..clock import CycleTimes, Limits, predict
from ..clock.costs import step_costs, steps_of
from ..clock.limits import describe_machine
from ..decoding.cycle import Moment
from ..decoding.generate import moments
from ..decoding.options import Options
from ..decoding.speculative import Draft
from ..differences import diff
from ..errors import InputError, whole_number
from ..families.family import EQUATIONS
from ..layers.cache import position_bytes
from ..machine.load import Load
from ..machine.quota import require_memory
from ..protocol import Model, one_text, require_model
from ..recording import BINDS, FARTHEST, VERSION, Recording
from ..reference import TOLERANCES, Reference
from ..steps import local_name, phase_of
from ..tokenizer import Tokenizer, require_tokenizer
from ..twins.threads import n_threads
from ..twins.twin import abilities
from .timed import timed
from .traced import Traced

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
    engine_or_model = engine or model
    run = engine_or_model, tokenizer, ids, chosen, stop, draft, batch
    others = Load()
    clock, emitted, logits = timed(*run, every_step, tries, told)
    if callable(limits):
        limits = limits()
    if limits is not None and engine is not None:  # how ours waits is nothing of its
        limits = limits.without_waiting()
    busy = others.share()
    guesser = getattr(draft, "model", engine_or_model)
    for computes in (engine_or_model, guesser):
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
    computed = [
        (guesser, guesser.dtype) if c.kind == "draft" else (engine_or_model, kept_as)
        for c in cycles
    ]
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
    arrays = values | _times(cycles) | {"costs": _costs(computed, cycles, steps)}
    if limits is not None:
        arrays |= _predicted(computed, cycles, limits)
    if reference is not None:
        positions = reference.ids.size
        header["compared"] = {
            "against": against,
            "positions": positions,
            "tolerance": TOLERANCES[np.dtype(np.float32)],
        }
        arrays["distances"] = _distances(model, steps, reference)
    return Recording(header, arrays)


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


def _times(cycles: Sequence[CycleTimes]) -> dict[str, np.ndarray]:
    ends = [cycle.ends - cycle.start for cycle in cycles]
    return {
        "times.ends": np.concatenate(ends).astype(np.float32),
        "times.net": np.concatenate([cycle.net for cycle in cycles]).astype(np.float32),
    }


def _costs(
    computed: Sequence[tuple[Model, Any]], cycles: Sequence[CycleTimes], steps: list[dict]
) -> np.ndarray:
    """[cycles, steps, 5]: products, elements, weights, cache, values (see costs.Cost) of each step,
    in one layer; computed: by which model each cycle was, and the dtype of its cache."""
    names = [f"h.0.{step['name']}" if step["layered"] else step["name"] for step in steps]
    table = np.zeros((len(cycles), len(names), 5), np.float32)
    for row, (model, kept_as), c in zip(table, computed, cycles):
        about = c.positions, c.past, c.rows, model.stored, _asked(c)
        costs = step_costs(model.config, *about, cached=np.dtype(kept_as).itemsize)
        for cell, name in zip(row, names):
            cell[:] = [*vars(costs[name]).values()]
    return table


def _predicted(
    computed: Sequence[tuple[Model, Any]], cycles: Sequence[CycleTimes], limits: Limits
) -> dict[str, np.ndarray]:
    seconds, binds = [], []
    for (model, kept_as), c in zip(computed, cycles):
        about = c.names, c.positions, c.past, c.rows, model.stored, _asked(c)
        parts = predict(model.config, limits, *about, cached=np.dtype(kept_as).itemsize)
        often = Counter(c.names)
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
        "name": Path(name).name,  # not where it lies
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
