"""How long each operation must take, from its cost and the machine's limits alone: the roofline as
arithmetic.

Time = max(bytes / bandwidth, FLOPs / rate) + waiting: reading and computing overlap, beginning and
ending do not. Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance
model" (2009).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..families.gpt2.config import GPT2Config
from ..steps import BLOCK_PHASES
from .costs import Cost, covered, folded, step_costs, total
from .limits import Limits

# In the readable forward each of these calls a function of the twin, which shares large work out
# between threads; in the fused one all threads run from the beginning, still awake from the last
# token, and meet after each product, after attention and after the logits.
CALLED = (
    "ln_1",
    "attn.c_attn",
    "attn.weights",
    "attn.context",
    "attn.out",
    "ln_2",
    "mlp.c_fc",
    "mlp.act",
    "mlp.out",
)
CALLED += ("ln_f", "logits", "probs", "next")
MET = ("attn.c_attn", "attn.context", "attn.out", "mlp.c_fc", "mlp.out", "logits")
LARGE = 600_000  # FLOPs: less stays on one thread (kernels/threads.py)


@dataclass(frozen=True)
class Prediction:
    """Seconds for one operation: reading and writing, arithmetic, and waiting for calls and
    threads."""

    cost: Cost
    memory: float
    arithmetic: float
    waiting: float

    @property
    def seconds(self) -> float:
        """The least time that it can take."""
        return max(self.memory, self.arithmetic) + self.waiting

    @property
    def binds(self) -> str:
        """Which limit binds: memory, arithmetic or waiting."""
        return max(("memory", "arithmetic", "waiting"), key=lambda what: getattr(self, what))


def local_name(name: str) -> str:
    """The name without its layer: h.3.attn.q -> attn.q."""
    return name.split(".", 2)[2] if name.startswith("h.") else name


def predict(
    config: GPT2Config,
    limits: Limits,
    names: Iterable[str],
    T: int,
    past: int = 0,
    batch: int = 1,
    kind: str = "float32",
    kept: int = 1,
) -> dict[str, Prediction]:
    """Return {name formed: Prediction} of one pass; the arguments are those of costs.step_costs.

    names: those that were formed: with `wte` among them it is the readable forward, without it the
    fused step. Weights and cache come round once a pass, so they are read at the bandwidth of all
    of them together; activations, used at once, at that of themselves.
    """
    names = list(names)
    fused = "wte" not in names
    costs = step_costs(config, T, past, batch, kind, kept, choose="next" in names)
    everything = total(costs.values())
    once_a_pass = everything.weights + everything.cache
    parts = covered(names, config.n_layer)
    predictions = {}
    for name, cost in folded(costs, names).items():
        local = [local_name(part) for part in parts[name]]
        rows = batch * (T if local[0] in BLOCK_PHASES else kept)
        stored = "float32" if "attn.context" in local or "attn.scores" in local else kind
        rate = (limits.row if rows == 1 else limits.rows)[stored]
        if fused:
            waiting = limits.meet * sum(part in MET for part in local)
        else:
            waiting = limits.call * sum(part in CALLED for part in local) + limits.launch * (
                cost.flops > LARGE
            )
        predictions[name] = Prediction(
            cost,
            (cost.weights + cost.cache) / limits.bandwidth_at(once_a_pass)
            + cost.values / limits.bandwidth_at(cost.values),
            cost.products / rate + cost.elements / limits.elements,
            waiting,
        )
    return predictions


def predicted_seconds(predictions: dict[str, Prediction]) -> float:
    """The time of the whole pass."""
    return sum(p.seconds for p in predictions.values())
