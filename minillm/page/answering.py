"""What a page asks for, answered by a model: another text, another word, other handles, a lever."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..clock import Limits
from ..loading import load
from ..record import record
from ..recording import Recording
from ..reference import Reference
from ..twins.threads import n_threads
from .levers import pulled
from .parting import parted
from .patched import patched

DRAWING = ("do_sample", "temperature", "top_k", "top_p", "min_p", "seed")  # a page's handles
CANDIDATES = 50  # of each word: as far as the handle of top-k goes, so that what it leaves is exact
SMALL = 20_000_000  # parameters of a model whose steps are told apart while somebody waits
TRIES = 5  # of the timed run; neighbours on the machine only slow it down

# limits(model, kinds) -> those of the machine, for matrices that are stored so.
Measure = Callable[[Any, list[str]], Limits | None]


def answerer(
    model: Any,
    tokenizer: Any,
    name: str,
    options: Mapping[str, Any],
    limits: Measure | None = None,
    reference: Reference | None = None,
    parting: bool = False,
) -> Callable[..., Iterator[Recording]]:
    """Return answer(prompt, asked, told), which continues a text and gives its recording, or tells
    what follows from a patch.

    asked: see server.Asked; told: is given meanwhile what comes, {"word": ...}. limits: asked once
    for each kind of storage and number of threads, when they are first needed. parting: tell a
    lever's steps apart (page.parting) of a large model, too.
    """
    known: dict = {}
    given = dict(options)
    first = {name: value for name, value in given.items() if name not in DRAWING}
    told_apart = parting or sum(p.size for p in model.parameters.values()) <= SMALL

    def answer(
        prompt: str | list[int], asked: Mapping[str, Any], told: Callable[[dict], None]
    ) -> Iterator[Recording]:
        lever = asked.get("lever", "")
        with pulled(lever, model, tokenizer, load, name) as (one, draft, more):
            if "patch" in asked:
                ids = tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt
                told({"patched": patched(one, tokenizer, ids, asked["patch"])})
                return
            other = more.get("engine", one)
            kinds = sorted({other.stored, getattr(draft, "model", other).stored})

            def measured() -> Limits | None:
                assert limits is not None
                key = (*kinds, n_threads(model.ops))
                if key not in known:
                    told({"measuring": True})
                    known[key] = limits(one, kinds)
                return known[key]

            how = first | asked["drawing"] if "drawing" in asked else given
            if "num_beams" in more:  # which draws nothing
                how = first | {"seed": how.get("seed")}
            told({"prompt": prompt if isinstance(prompt, str) else tokenizer.readable(prompt)})
            recording = record(
                one,
                tokenizer,
                prompt,
                draft=draft,
                limits=measured if limits else None,
                candidates=CANDIDATES,
                reference=None if "name" in more else reference,  # which is not the other model's
                tries=TRIES,
                told=lambda moment: told({"word": moment.text}),
                **{"name": name} | how | more,
            )
            if other is not model and told_apart:
                told({"parting": True})
                recording = parted(recording, model, other, name)
            yield recording

    return answer
