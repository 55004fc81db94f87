"""The LSTM: text read one step at a time, with a state for memory. Forward, and beside it the
gradient by hand.

It is what the Transformer replaced. A step needs the state of the step before, so that T steps take
T turns whatever the machine; attention sees all T at once. Letters as in sizes.py: C is the width
of embedding, state and output alike. Sources: Hochreiter, Schmidhuber, "Long Short-Term Memory"
(1997); Gers, Schmidhuber, Cummins, "Learning to Forget" (2000). Reference: torch.nn.LSTM, whose
gates stand in the same order (its second bias is left out: the two only ever add up).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .. import ops as numpy_ops
from ..errors import InputError
from ..machine.forms import check, short
from ..machine.quota import require_memory
from ..names import Part, flat
from ..steps import checked, identity, times_only, under
from ..twins.backward import backward_of, linear_layer_backward
from ..twins.portable import Twinned
from ..twins.twin import abilities


def sigmoid(x):
    """Squeeze into (0, 1): 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2, which cannot overflow. x:
    [...] -> [...]."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def lstm_cell(x, h, c, weight, step=identity, ops=numpy_ops):
    """One step of time: three gates between 0 and 1 decide what is forgotten, what is written and
    what is shown.

    i, f, o = sigmoid(x_i + h W_i), ...; g = tanh(x_g + h W_g); c <- f c + i g; h <- o tanh(c). The
    sum in c is what keeps gradients alive over many steps. x: [B,4C], what the input adds to i | f
    | g | o; h, c: [B,C]; weight: [C,4C] -> h, c, each [B,C].
    """
    i, f, g, o = np.split(x + ops.linear(h, weight), 4, axis=-1)  # [B,C] @ [C,4C] -> 4 x [B,C]
    i, f, o = step("i", sigmoid(i)), step("f", sigmoid(f)), step("o", sigmoid(o))
    g = step("g", np.tanh(g))
    c = step("c", f * c + i * g)
    return step("h", o * np.tanh(c)), c


def lstm_cell_backward(dh, dc, c_before, kept, weight):
    """Of lstm_cell: h depends on o and c, and c on f, i, g and the c before.

    dc <- dc + dh o (1 - tanh^2 c); with sigmoid' = s (1 - s) and tanh' = 1 - t^2 the gates' sums
    get di = dc g i (1 - i), df = dc c_before f (1 - f), dg = dc i (1 - g^2), do = dh tanh(c) o (1 -
    o). dh, dc, c_before: [B,C]; kept: i, f, g, o, c -> [B,4C], the gradient of x; that of the h
    before, which is [di|df|dg|do] W^T; and of the c before, dc f.
    """
    i, f, g, o, c = (kept[name] for name in "ifgoc")
    bent = np.tanh(c)
    dc = dc + dh * o * (1.0 - bent * bent)
    d_gates = (
        dc * g * i * (1.0 - i),
        dc * c_before * f * (1.0 - f),
        dc * i * (1.0 - g * g),
        dh * bent * o * (1.0 - o),
    )
    dx = np.concatenate(d_gates, axis=-1)
    return dx, dx @ weight.T, dc * f


def lstm_layer(x, ih, hh, step=identity, ops=numpy_ops):
    """Run the cell over time, beginning with zeros; the input's part of all steps is one product.

    x: [B,T,C]; ih: weight [C,4C] and bias; hh: weight [C,4C] -> every h, [B,T,C]. Rows that end
    early are padded on the right: no step sees a later one. A twin with an `lstm` of its own is
    asked when nobody looks at the steps.
    """
    x = step("ih", ops.linear(x, **ih))  # [B,T,C] -> [B,T,4C]
    if times_only(step) and (own := abilities(ops).lstm) and x.dtype == np.float32:
        gates, c, h = own(x, hh["weight"])
        step("gates", gates)
        step("c", c)
        return step("h", h)
    h = c = np.zeros((x.shape[0], x.shape[2] // 4), x.dtype)
    states = []
    for t in range(x.shape[1]):
        h, c = lstm_cell(x[:, t], h, c, hh["weight"], under(f"{t}.", step), ops)
        states.append(h)
    return step("h", np.stack(states, axis=1))


def lstm_layer_backward(dh, x, kept, ih, hh, ops=numpy_ops):
    """Back through time, the last step first: each h gets what came from above, and what came from
    the step after it.

    dh, x: [B,T,C]; kept: what the forward formed -> dx [B,T,C], {"ih": gradients, "hh": gradients}.
    W_hh is used at every step, so its gradient is the sum over time of h_(t-1)^T dx_t: one product.
    """
    if "gates" in kept:
        d_gates = abilities(ops).backward("lstm")(dh, kept["gates"], kept["c"], hh["weight"])
    else:
        d_gates, d_later, dc = [], 0.0, np.zeros_like(dh[:, 0])
        for t in reversed(range(dh.shape[1])):
            c_before = kept[f"{t - 1}.c"] if t else np.zeros_like(dc)
            d_now, d_later, dc = lstm_cell_backward(
                dh[:, t] + d_later, dc, c_before, Part(kept, f"{t}."), hh["weight"]
            )
            d_gates.append(d_now)
        d_gates = np.stack(d_gates[::-1], axis=1)  # [B,T,4C]
    dx, d_ih = linear_layer_backward(d_gates, x, ih, ops)
    product = abilities(ops).transposed_product or (lambda a, b: a.T @ b)
    before = np.concatenate(
        [np.zeros_like(dh[:, :1]), kept["h"][:, :-1]], axis=1
    )  # [B,T,C], h_0 = 0
    d_hh = product(before.reshape(-1, before.shape[-1]), d_gates.reshape(-1, d_gates.shape[-1]))
    return dx, {"ih": d_ih, "hh": {"weight": d_hh}}


@dataclass(frozen=True)
class LSTMConfig:
    """The shape of an LSTM: V vocab_size, C n_embd, L n_layer."""

    vocab_size: int
    n_embd: int = 128
    n_layer: int = 1

    def __post_init__(self):
        check(vars(self), LSTMConfig)
        for name, value in vars(self).items():
            most = 1000 if name == "n_layer" else 2**31 - 1
            if not 1 <= value <= most:
                raise InputError(f"{name} is {short(value)}; it must be 1 to {most:,}")

    def to_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """{name: shape}: wte, and of every layer ih (from the input) and hh (from the state
        before)."""
        C = self.n_embd
        shapes: dict[str, tuple[int, ...]] = {"wte.weight": (self.vocab_size, C)}
        for i in range(self.n_layer):
            shapes |= {
                f"l.{i}.ih.weight": (C, 4 * C),
                f"l.{i}.ih.bias": (4 * C,),
                f"l.{i}.hh.weight": (C, 4 * C),
            }
        return shapes


class LSTM(Twinned):
    """Embedding and layers: `hidden(ids)` gives every state of the last layer; parameters {name:
    array}, `ops` the twin."""

    def __init__(self, config: LSTMConfig, parameters: Mapping[str, np.ndarray], ops=numpy_ops):
        self.config, self.parameters, self.ops = config, dict(parameters), ops
        for name, shape in config.parameter_shapes().items():
            found = self.parameters[name].shape if name in self.parameters else "missing"
            if found != shape:
                raise InputError(f"parameter {name} is {found}; this LSTM needs {shape}")

    @classmethod
    def random(cls, config: LSTMConfig, seed: int = 0, dtype=np.float32, ops=numpy_ops) -> LSTM:
        """Return an untrained one: matrices uniform within 1/sqrt(C), as torch has it, the
        embedding N(0, 1); biases 0, but those of f 1, so that at first much is remembered
        (Jozefowicz, Zaremba, Sutskever, 2015)."""
        rng, C, shapes = np.random.default_rng(seed), config.n_embd, config.parameter_shapes()
        size = 8 * sum(map(math.prod, shapes.values()))  # drawn in float64
        require_memory("the parameters", size, "a smaller n_embd or n_layer")

        def start(name: str, shape: tuple[int, ...]) -> np.ndarray:
            if name == "wte.weight":
                return rng.standard_normal(shape)
            if name.endswith("bias"):
                return np.repeat([0.0, 1.0, 0.0, 0.0], C)
            return rng.uniform(-(C**-0.5), C**-0.5, shape)

        return cls(
            config,
            {name: start(name, shape).astype(dtype) for name, shape in shapes.items()},
            ops,
        )

    def layer(self, i: int) -> dict:
        """The weights of layer i, as lstm_layer takes them."""
        p, name = self.parameters, f"l.{i}."
        return {
            "ih": {"weight": p[f"{name}ih.weight"], "bias": p[f"{name}ih.bias"]},
            "hh": {"weight": p[f"{name}hh.weight"]},
        }

    def step_names(self, T: int) -> list[str]:
        """Return the name of every intermediate of `hidden` over T positions, in order."""
        cells = [f"{t}.{part}" for t in range(T) for part in "ifogch"]
        return [
            "wte",
            *(f"l.{i}.{n}" for i in range(self.config.n_layer) for n in ("ih", *cells, "h")),
        ]

    def hidden(self, ids, step=identity):
        """ids [B,T] -> the states of the last layer [B,T,C]; a row of n real ids has its own last
        one at n - 1."""
        step = checked(step, lambda: self.step_names(ids.shape[1]))
        x = step("wte", self.parameters["wte.weight"].take(ids, axis=0))  # [B,T] -> [B,T,C]
        for i in range(self.config.n_layer):
            x = lstm_layer(x, **self.layer(i), step=under(f"l.{i}.", step), ops=self.ops)
        return x

    def backward(self, ids, kept, d_hidden) -> dict[str, np.ndarray]:
        """Return the gradient of every parameter from that of the hidden states [B,T,C]; kept: the
        Trace of `hidden`."""
        layers, dx = {}, d_hidden
        for i in reversed(range(self.config.n_layer)):
            x = kept[f"l.{i - 1}.h"] if i else kept["wte"]
            dx, layers[i] = lstm_layer_backward(
                dx, x, Part(kept, f"l.{i}."), **self.layer(i), ops=self.ops
            )
        d_wte = backward_of("embedding", self.ops)(
            dx, ids, np.zeros_like(self.parameters["wte.weight"])
        )
        return {"wte.weight": d_wte} | flat({"l": layers})
