"""The reference: every intermediate as Hugging Face transformers computes it, under our
step names.

`record` runs transformers (eager attention, hooks for what it does not expose), in float64 where
it would round to float32 (in_float64); `Reference` is what was recorded, and is stored beside a
model as reference.npz; `verify` compares a model with it. Only `record` needs torch.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import families
from .differences import StepDifferences, diff
from .errors import InputError, not_imported, require_kind
from .machine.files import as_path, read_npz, write_atomically
from .protocol import Model
from .steps import Trace

REFERENCE_FILE = "reference.npz"

# max |ours - reference| <= tolerance * max |reference|, step by step. Ours in float32 against the
# reference in float64: rounding alone, worst measured 5.6e-6 on the stored models; against one in
# float32, both round. In float64 both sides round: worst measured 1.6e-14.
TOLERANCES = {np.dtype(np.float32): 2e-5, np.dtype(np.float64): 1e-10}


@dataclass(frozen=True)
class Reference:
    """ids [B,T]; steps: name -> float64 array; greedy: the ids that follow the first row, none
    where not recorded."""

    ids: np.ndarray
    steps: dict[str, np.ndarray]
    greedy: np.ndarray

    def save(self, path: str | Path) -> None:
        """Write everything into one .npz file."""
        buffer = io.BytesIO()
        steps: dict[str, Any] = self.steps
        np.savez_compressed(buffer, ids=self.ids, greedy=self.greedy, **steps)
        write_atomically(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, folder: str | Path) -> Reference:
        """Read the reference stored beside a model."""
        path = as_path(folder) / REFERENCE_FILE
        if not path.exists():
            raise InputError(
                f"{folder} has no {REFERENCE_FILE}; compare with an installed transformers instead"
                " (--live)"
            )
        steps = read_npz(path)
        ids, greedy = (steps.pop(name, np.empty(0)) for name in ("ids", "greedy"))
        if ids.ndim != 2 or greedy.ndim != 1 or {ids.dtype.kind, greedy.dtype.kind} != {"i"}:
            raise InputError(f"{path}: ids must be whole numbers [B,T], greedy whole numbers [n]")
        return cls(ids, Trace(steps), greedy)


def beside(folder: str | Path) -> Reference | None:
    """Return the reference stored beside a model, None where there is none."""
    return Reference.load(folder) if (as_path(folder) / REFERENCE_FILE).is_file() else None


def verify(model: Model, reference: Reference, dtype=np.float32) -> StepDifferences:
    """Run `model` as `dtype` on the reference's ids and compare every step, within TOLERANCES."""
    require_kind("reference", reference, Reference, "a Reference: Reference.load(folder)")
    trace = model.astype(dtype).trace(reference.ids)
    return diff(trace, reference.steps, TOLERANCES[np.dtype(dtype)], model.step_names)


@contextmanager
def _float32_is_float64() -> Iterator[None]:
    """Where torch's float32 is asked for by its name, float64 answers."""
    from unittest.mock import patch

    import torch

    wide = torch.float64
    with (
        patch.multiple(torch, float32=wide, float=wide),
        patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def in_float64(model: Any) -> Any:
    """Let a model of transformers, itself in float64, compute in float64 where Llama and Qwen round
    to float32 whatever a model's dtype is: norms, the angles of the rotation, softmax.

    Each of these modules runs its own code, in which float32 means float64: so the equations are
    still the reference's, and all that changes is rounding. Returns the model.
    """
    for module in model.modules():
        name = type(module).__name__
        if name.endswith("RotaryEmbedding"):  # frequencies are formed once
            with _float32_is_float64():
                module.inv_freq = type(module)(module.config).inv_freq
        if name.endswith(("RMSNorm", "RotaryEmbedding", "Attention")):
            module.forward = _float32_is_float64()(module.forward)
    return model


def record(folder: str | Path, ids, n_greedy: int = 0, dtype="float64") -> Reference:
    """Run transformers on the model in `folder` and return all steps, and n_greedy tokens that
    follow the first row. dtype: "float32", as transformers is, or "float64", in_float64."""
    try:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError as error:
        raise InputError(not_imported(error, "torch", "transformers")) from None
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    ours = families.read_config(folder)
    family, sizes = families.of(ours), ours.sizes
    if (projections := family.projections) is None:
        raise InputError(f"minillm does not know how transformers forms the q of a {family.title}")
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=getattr(torch, dtype)
    ).eval()
    if dtype == "float64":
        in_float64(model)
    input_ids = torch.as_tensor(np.atleast_2d(ids))
    seen: dict[str, torch.Tensor] = {}

    def listen(name: str, hook: str) -> None:
        side, path = hook.split()
        module = model.get_submodule(path)
        if side == ">":

            def after(module, inputs, output):
                seen[name] = output[0] if isinstance(output, tuple) else output

            module.register_forward_hook(after)
        else:
            module.register_forward_pre_hook(
                lambda module, inputs: seen.__setitem__(name, inputs[0])
            )

    with torch.no_grad():  # before the hooks: generation would leave its own values in `seen`
        greedy = (
            model.generate(input_ids[:1], max_new_tokens=n_greedy, do_sample=False)
            if n_greedy
            else input_ids[:1]
        )
    steps = family.steps(ours)
    for name, step in steps.items():
        if step.hook:
            listen(name, step.hook)
    with torch.no_grad():
        result = model(input_ids, output_attentions=True, use_cache=False)

    def heads(x):
        return x.unflatten(-1, (-1, sizes.D)).transpose(1, 2)  # [B,T,H D] -> [B,H,T,D]

    for i, weights in enumerate(result.attentions):
        q, k, v = map(heads, projections(seen, i))
        formed = {"q": q, "k": k, "v": v}
        if f"h.{i}.attn.q_normed" in seen:
            q, k = (seen[f"h.{i}.attn.{name}_normed"].transpose(1, 2) for name in "qk")
            formed |= {"q_normed": q, "k_normed": k}
        formed |= family.turned_by_position(model, q, k)
        q, k = formed.get("q_rotated", q), formed.get("k_rotated", k)
        keys = k.repeat_interleave(sizes.H // sizes.K, dim=1)
        formed |= {
            "scores": q @ keys.transpose(-1, -2) * ours.attention_scale(i),
            "weights": weights,
            "context": heads(seen[f"h.{i}.attn.context"]),
        }
        seen |= {f"h.{i}.attn.{name}": value for name, value in formed.items()}
    batch, recorded = input_ids.shape[0], Trace()
    for name in steps:
        value = seen[name].detach()
        # what is alike for all rows may come once
        recorded[name] = value.expand(batch, *value.shape[1:]).numpy()
    return Reference(input_ids.numpy(), recorded, greedy[0, input_ids.shape[1] :].numpy())
