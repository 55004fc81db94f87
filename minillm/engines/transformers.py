"""Hugging Face transformers, unmodified, with eager attention: timed by hooks on its modules, its
values read and replaced.

Which module forms a step, each family declares (StepInfo.hook). What happens between modules is
seen where transformers calls a function of its own: apply_rotary_pos_emb, eager_attention_forward.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from inspect import signature
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.opening import open_checkpoint
from ..clock.clock import counter
from ..errors import InputError
from ..steps import Observer, local_name, phase_of
from ..twins.threads import checked_threads
from .engine import Engine

BY_HEAD = {"attn.q", "attn.k", "attn.v", "attn.context"}  # [B,T,heads D] there, [B,heads,T,D] here
ATTENTION = ("attn.scores", "attn.weights")


class Transformers(Engine):
    """A model in transformers, in float32: a folder, or a GGUF file by way of one."""

    name, needs = "transformers", ("torch", "transformers")

    def __init__(
        self, model: str | Path | Checkpoint, threads: int | None = None, dtype: str | None = None
    ):
        with self.needed():
            import torch
            import transformers
        if dtype not in (None, "float32"):
            raise InputError(f"dtype is {dtype!r}; {self.name} computes in float32 here")
        checkpoint = open_checkpoint(model)
        if not checkpoint.path.is_dir():
            checkpoint = self.written(checkpoint, "model", "float32")
        super().__init__(checkpoint)
        if self.family.projections is None:
            raise InputError(f"minillm does not know the modules of a {self.family.title} there")
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        if threads is not None:
            torch.set_num_threads(checked_threads(threads))
        self.torch, self.threads = torch, torch.get_num_threads()
        self.versions = {"transformers": transformers.__version__, "torch": torch.__version__}
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint.path, attn_implementation="eager", dtype=torch.float32
        ).eval()
        its = signature(
            self.model.forward
        ).parameters  # the cache's name there, until 5.40 and since
        self._cache = "cache" if "cache" in its else "past_key_values"
        self.new_state = transformers.DynamicCache  # keys and values of a text
        self._state: Any = None
        self._text: list[int] = []  # that it holds
        self.steps = self.family.steps(self.config)
        unseen = ATTENTION if getattr(self.config, "reorder_and_upcast_attn", False) else ()
        self.step_names = [name for name in self.steps if local_name(name) not in unseen]
        self.now, _ = counter()
        self._watched: dict[bool, Any] = {}  # by whether they note every step
        self._names: list[str] = []
        self._ticks: list[int] = []

    @property
    def stored(self) -> str:
        """float32, whatever the file has."""
        return "float32"

    def read(self, ids: list[int], past: int, last: bool, step: Observer) -> np.ndarray:
        state, self._state = self._state, None  # which a pass that breaks off leaves uneven
        text = [*self._text[:past], *ids]
        if past == 0 or state is None:
            state = self.new_state()
            if past:
                self._pass(self.model, text[:past], state)
        elif (surplus := state.get_seq_length() - past) > 0:
            state.crop(-surplus)
        model, watching = self.model, ExitStack()
        self._names.clear()
        self._ticks.clear()
        with watching:
            if step.stamps is not None:
                model = self._stamped(every_step=not step.times_only)
            elif not step.times_only:
                self._show(watching, step, last)
            logits = self._pass(model, ids, state, last)
        if step.stamps is not None:
            step.stamps([*self._names, "logits"], [*self._ticks, self.now()])
        self._state, self._text = state, text
        return logits

    def _pass(self, model: Any, ids: list[int], state: Any, last: bool = True) -> np.ndarray:
        with self.torch.no_grad():
            result = model(
                self.torch.tensor([ids]),
                use_cache=True,
                logits_to_keep=int(last),
                **{self._cache: state},
            )
        return result.logits[0].numpy()

    def _stamped(self, every_step: bool) -> Any:
        """The same modules once more, with the same parameters, that note when the steps end that
        they form, or, of these, the last one of each phase."""
        if every_step in self._watched:
            return self._watched[every_step]
        tensors = [*self.model.parameters(), *self.model.buffers()]
        model = self._watched[every_step] = deepcopy(self.model, {id(t): t for t in tensors})
        hooked = [name for name, step in self.steps.items() if step.hook]
        if not every_step:
            hooked = [[*several][-1] for _, several in groupby(hooked, phase_and_layer)]
        hooked.remove("logits")  # which are there when the pass returns
        names, ticks, now = self._names, self._ticks, self.now

        def stamp(name: str, tensor: Any) -> None:
            ticks.append(now())
            names.append(name)

        for name in hooked:
            hook(model, self.steps[name].hook, partial(stamp, name))
        return model

    def _show(self, watching: ExitStack, step: Observer, last: bool) -> None:
        """Hand every value to `step`, and on what it returns: written into the tensor, which is
        what everything that follows reads."""
        torch, D, scope = self.torch, self.config.sizes.D, ""
        projections: Any = self.family.projections
        modes: Any = torch.overrides
        away = False  # while the step is at work, which may call this engine, too

        def give(name: str, tensor: Any) -> None:
            nonlocal away
            if away:
                return
            shown, away = tensor.numpy().copy(), True
            try:
                new = step(name, shown)
                if new is not shown or not np.array_equal(new, tensor.numpy()):  # or in place
                    tensor.copy_(torch.from_numpy(np.ascontiguousarray(new)))
            finally:
                away = False

        def formed(name: str, output: Any) -> None:
            nonlocal scope
            if away:
                return
            tensor = output[0] if isinstance(output, tuple) else output
            local = local_name(name)
            scope = name.removesuffix(local)
            if local in BY_HEAD:
                tensor = heads(tensor)
            elif local in ("attn.q_normed", "attn.k_normed"):
                tensor = tensor.transpose(1, 2)
            elif local == "ln_f" and last:
                tensor = tensor[:, -1:]
            give(name, tensor)
            if local == before_q:
                layer = int(scope.split(".")[1])
                for part, its in zip("qkv", projections({name: tensor}, layer)):
                    give(f"{scope}attn.{part}", heads(its))

        def heads(tensor: Any) -> Any:
            return tensor.unflatten(-1, (-1, D)).transpose(1, 2)

        # what q, k and v are parts of, where no module forms each
        whole = [local_name(n) for n, s in self.steps.items() if s.hook]
        names = [*map(local_name, self.steps)]
        before_q = None if "attn.q" in whole else names[names.index("attn.q") - 1]
        for name, info in self.steps.items():
            if info.hook:
                watching.callback(hook(self.model, info.hook, partial(formed, name)).remove)

        class Inside(modes.TorchFunctionMode):
            """What eager attention forms: after the first product its multiple, and softmax."""

            n_products = 0

            def __torch_function__(self, function, types, given=(), named=None):
                result = function(*given, **(named or {}))
                name = getattr(function, "__name__", "")
                self.n_products += name == "matmul"
                if name in ("mul", "__mul__") and self.n_products == 1:
                    give(f"{scope}attn.scores", result)
                elif name == "softmax":
                    give(f"{scope}attn.weights", result)
                return result

        home = sys.modules[type(self.model).__module__]

        def attention(*given: Any, **named: Any) -> Any:
            with Inside():
                return eager(*given, **named)

        def rotated(*given: Any, **named: Any) -> Any:
            both = turn(*given, **named)
            for part, tensor in zip("qk", both):
                give(f"{scope}attn.{part}_rotated", tensor)
            return both

        eager: Any = home.eager_attention_forward
        turn: Any = getattr(home, "apply_rotary_pos_emb", None)
        watching.enter_context(patch.object(home, "eager_attention_forward", attention))
        if turn is not None:
            watching.enter_context(patch.object(home, "apply_rotary_pos_emb", rotated))


def hook(model: Any, where: str | None, function: Callable[[Any], None]) -> Any:
    """Call function(tensor) with what a module gives (">") or is given ("<"), until the handle that
    this returns is removed."""
    side, path = str(where).split()
    module = model.get_submodule(path)
    if side == ">":
        return module.register_forward_hook(lambda module, given, output: function(output))
    return module.register_forward_pre_hook(lambda module, given: function(given[0]))


def phase_and_layer(name: str) -> tuple[str, str]:
    """What a phase's steps have in common."""
    return phase_of(name), name.removesuffix(local_name(name))
