"""The student's folder as a twin of ops: the bundled model computed with their functions, step by
step and as a story.

Run as `python -m minillm.exercises.student.own FOLDER SEED PROMPT` it answers in lines of JSON,
like checking/inside.py.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from functools import cache, partial, wraps
from pathlib import Path
from types import FunctionType

import numpy as np

from ... import generate
from ...checkpoints import find_folder
from ...differences import StepDifferences, diff
from ...errors import InputError
from ...families.gpt2.forward import block as whole_block
from ...layers.attention import causal_self_attention, repeat_heads
from ...layers.feed_forward import feed_forward
from ...machine.child import answering
from ...model import GPT2
from ...reference import TOLERANCES
from ...steps import Relay, identity
from ...tokenizer import Tokenizer
from ...twins.folder import FolderTwin
from ..catalogue import EXERCISES, answers
from ..checking.call import raised
from ..checking.inputs import MODEL, model, reference
from ..checking.inside import Printed, limit_resources, load
from ..checking.process import check_folder
from ..checking.wire import describe
from .folder import file_of, require

log = logging.getLogger(__name__)

UNUSABLE = ("todo", "missing", "signature", "skipped", "stopped")
ENDS_A_PASS = ("missing", "signature", "raised", "shape", "stopped")  # no model computes with it
KEEP_THE_SHAPE = ("softmax", "log_softmax", "attention", "layer_norm", "gelu_new")  # of the first
OF_OPS = (
    "softmax",
    "log_softmax",
    "causal_mask",
    "split_heads",
    "merge_heads",
    "attention",
    "layer_norm",
    "gelu_new",
)
OF_THE_MODEL = (*OF_OPS, "embed", "block", "forward")


def own_functions(folder: str | Path) -> dict[str, Callable]:
    """Return the functions of the model that a student's folder defines, right or wrong.

    Runs the student's code in this process. Left out is what is still a stub; InputError for a file
    that does not run, and for a result of another shape.
    """
    folder, own = Path(folder), {}
    require(folder)
    for name in OF_THE_MODEL:
        if (file := file_of(folder, EXERCISES[name])).exists():
            namespace = in_one_line(load, "load", file)(file)
            result = EXERCISES[name].check(namespace)
            if result.status == "shape":
                raise InputError(f"{file}: {result.message}")
            if result.status not in UNUSABLE:
                own[name] = namespace[name]
    return own


def twin(own: Mapping[str, Callable], folder: Path | None = None) -> FolderTwin:
    """Return a twin of ops in which `own` functions stand for those of their name; what is missing
    is ops' own."""
    found = {name: own[name] for name in OF_OPS if name in own}
    if (attention := found.get("attention")) is not None:
        found["attention"] = of_shared_heads(attention)
    return FolderTwin(found, folder)


def of_shared_heads(attention: Callable) -> Callable:
    """Return a student's attention, k and v [B,H,S,D], for those of a Llama, [B,K,S,D]."""

    @wraps(attention)
    def call(q, k, v, positions, scale):
        k, v = (repeat_heads(a, q.shape[1]) for a in (k, v))  # [B,K,S,D] -> [B,H,S,D]
        return attention(q, k, v, positions, scale)

    return call


@cache
def of_folder(folder: Path) -> FolderTwin:
    """Return the twin made of a student's folder, for --kernels and MINILLM_KERNELS: a chapter runs
    on their functions, which call one another. Says which those are.

    Each is checked first, in a process of its own; InputError, then or later, for one that raises,
    ends the program, runs on for ever, or takes or gives what it should not.
    """
    require(folder)
    files = {n: f for n in OF_OPS if (f := file_of(folder, EXERCISES[n])).exists()}
    own = {}
    for result in check_folder(folder, files):
        name, file = result.name, files[result.name]
        if result.status in ENDS_A_PASS:
            raise InputError(f"{file}: {result.message}")
        if result.status not in UNUSABLE:
            own[name] = in_one_line(load, "load", file)(file)[name]
    call_one_another(own)
    own = {name: in_one_line(f, name, files[name]) for name, f in own.items()}
    log.warning("computing with functions of %s: %s", folder, ", ".join(own) or "none yet")
    return twin(own, folder)


def in_one_line(function: Callable, name: str, file: Path) -> Callable:
    """Return a student's function whose errors, and results of another shape, are one line each."""

    @wraps(function)
    def call(*args, **kwargs):
        try:
            result = function(*args, **kwargs)
        except (Exception, SystemExit) as error:
            raise InputError(f"{file}: {raised(error, str(file)).says}") from None
        if name in KEEP_THE_SHAPE:
            shape = next(iter((*args, *kwargs.values()))).shape
            if getattr(result, "shape", None) != shape:
                raise InputError(f"{file}: returned {describe(result)}; needed: {[*shape]}")
        return result

    return call


def call_one_another(own: Mapping[str, Callable]) -> None:
    """Let a student's functions find each other, where until now they found the package's own."""
    for function in own.values():
        if isinstance(function, FunctionType):
            function.__globals__.update({n: f for n, f in own.items() if n in function.__globals__})


class OwnGPT2(GPT2):
    """A GPT-2 that computes with a student's functions; without a cache, with their `block` and
    `forward` too."""

    def __init__(self, model: GPT2, own: Mapping[str, Callable]):
        super().__init__(model.config, model.parameters, twin(own))
        self.own = own

    def __reduce__(self):
        return OwnGPT2, (GPT2(self.config, self.parameters), self.own)

    def blocks(self, positions) -> list[Callable]:
        """Every layer as a function [B,T,C] -> [B,T,C]."""
        config, blocks = self.config, []
        for i, layer in enumerate(self.weights["h"]):
            shape = {
                "n_head": config.n_head,
                "scale": config.attention_scale(i),
                "positions": positions,
            }
            attend = partial(causal_self_attention, **layer["attn"], **shape, ops=self.ops)
            feed = partial(
                feed_forward, **layer["mlp"], activation=config.activation_function, ops=self.ops
            )
            if "block" in self.own:
                block = partial(
                    self.own["block"],
                    ln_1=layer["ln_1"],
                    attend=attend,
                    ln_2=layer["ln_2"],
                    feed_forward=feed,
                )
            else:
                block = partial(
                    whole_block, **layer, config=config, layer=i, positions=positions, ops=self.ops
                )
            blocks.append(block)
        return blocks

    def forward(self, ids, positions, cache=None, step=identity, keep=slice(None)):
        if cache is not None or step is not identity:
            return super().forward(ids, positions, cache, step, keep)
        tree, whole = self.weights, self.own.get("forward", answers.forward)
        return whole(
            ids, tree["wte"]["weight"], tree["wpe"]["weight"], self.blocks(positions), tree["ln_f"]
        )[keep]


def verify_own(own: Mapping[str, Callable]) -> StepDifferences:
    """Compare every step of the bundled model, computed with `own` functions, with the reference.

    Each is fed the reference's own values, so that one wrong function reddens only the steps that
    it computes.
    """
    stored = reference()
    positions = np.arange(stored.ids.shape[1])[None]
    relay = Relay(stored.steps)
    OwnGPT2(model(), {n: f for n, f in own.items() if n != "attention"})(stored.ids, step=relay)
    if "attention" in own:  # which forms no scores, and is not asked while these are looked at
        contexts = Relay(stored.steps)
        contexts.times_only = True
        OwnGPT2(model(), {"attention": own["attention"]})(stored.ids, step=contexts)
        relay.trace.update({n: v for n, v in contexts.trace.items() if n.endswith("attn.context")})
    if "embed" in own:
        tables = [model().parameters[f"{name}.weight"] for name in ("wte", "wpe")]
        relay.trace["embed"] = own["embed"](stored.ids, 0, *tables)
    if "block" in own:
        for i, block in enumerate(OwnGPT2(model(), {"block": own["block"]}).blocks(positions)):
            before = stored.steps[f"h.{i - 1}.mlp.residual" if i else "embed"]
            relay.trace[f"h.{i}.mlp.residual"] = block(before.astype(np.float32))
    if "forward" in own:
        relay.trace["logits"] = OwnGPT2(model(), {"forward": own["forward"]})(stored.ids)
    return diff(relay.trace, stored.steps, TOLERANCES[np.dtype(np.float32)], model().step_names)


def story(
    own: Mapping[str, Callable], prompt: str, seed: int = 0, n_tokens: int = 60
) -> Iterator[str]:
    """Yield the pieces of a text written by the bundled model with `own` functions, which from now
    on call one another."""
    call_one_another(own)
    tokenizer = Tokenizer.from_pretrained(find_folder(MODEL))
    options = {
        "max_new_tokens": n_tokens,
        "temperature": 0.8,
        "seed": seed,
        "use_cache": not {"block", "forward"} & own.keys(),
    }
    for moment in generate(OwnGPT2(model(), own), tokenizer, prompt, **options):
        yield moment.text


def main() -> None:
    folder, seed, prompt = sys.argv[1:]
    answer = answering()
    limit_resources()
    answer({"ready": True})
    with redirect_stdout(Printed()):
        try:
            own = own_functions(folder)
            answer({"own": [*own], "ops": [n for n in OF_THE_MODEL if n not in own]})
            files = {n: file_of(Path(folder), EXERCISES[n]) for n in own}
            report = verify_own({n: in_one_line(f, n, files[n]) for n, f in own.items()})
        except InputError as error:
            return answer({"unusable": str(error)})
        answer(
            {
                "ok": report.ok,
                "first": str(report.first or ""),
                "red": [d.name for d in report if d.status != "OK"],
            }
        )
        if report.ok:
            for text in story(own, prompt, int(seed)):
                answer({"text": text})
    answer({"text": None})


if __name__ == "__main__":
    main()
