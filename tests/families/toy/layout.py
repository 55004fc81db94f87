"""What it consists of: a config that is its sizes, its parameters, its steps."""

from dataclasses import asdict, dataclass, field, replace

from minillm.costs import ACTIVATION_FLOPS
from minillm.families import Parameter, StepInfo
from minillm.families.family import TABLE, matrix, per_layer, vector
from minillm.machine.forms import build
from minillm.sizes import Sizes

BLOCK = {
    "norm.weight": vector("C", "ln_1", "ones"),
    "attn.q.weight": matrix("C", "HD", "attn.q"),
    "attn.k.weight": matrix("C", "KD", "attn.k"),
    "attn.v.weight": matrix("C", "KD", "attn.v"),
    "attn.o.weight": matrix("HD", "C", "attn.out", "residual"),
    "mlp.up.weight": matrix("C", "F", "mlp.up"),
    "mlp.down.weight": matrix("F", "C", "mlp.out", "residual"),
}


@dataclass(frozen=True)
class ToyConfig(Sizes):
    eps: float = 1e-5
    theta: float = 1e4
    eos_token_id: int | None = None
    generation: dict | None = field(default=None, compare=False)
    tied = True

    @property
    def sizes(self):
        return self

    @property
    def layout(self):
        blocks = {f"blocks.{i}.{name}": p for i in range(self.L) for name, p in BLOCK.items()}
        tokens = {"tokens.weight": Parameter(TABLE, ("V", "C"), "wte")}
        return tokens | blocks | {"norm.weight": vector("C", "ln_f", "ones")}

    def attention_scale(self, layer):
        return self.D**-0.5

    def resized(self, **letters):
        return replace(self, **letters)

    @classmethod
    def from_dict(cls, values):
        return build(cls, values)

    def to_dict(self):
        values = {name: value for name, value in asdict(self).items() if name != "generation"}
        return {"model_type": "toy", "architectures": ["ToyForCausalLM"], **values}


def steps(config):
    def product(n_in, n_out, meets=True):
        return StepInfo(n_out, lambda w: w.linear(n_in, n_out, bias=False), True, meets)

    def elementwise(label, flops, axis, arrays):
        return StepInfo(label, lambda w: w.elementwise(flops, axis, arrays))

    norm = StepInfo("norm", lambda w: w.rms_norm(), True)
    block = {
        "ln_1": norm,
        "attn.q": product("C", "HD", meets=False),
        "attn.k": product("C", "KD", meets=False),
        "attn.v": product("C", "KD"),
        "attn.q_rotated": elementwise("rotate q", 3, "HD", 2),
        "attn.k_rotated": elementwise("rotate k", 3, "KD", 2),
        "attn.scores": StepInfo("scores", lambda w: w.scores()),
        "attn.weights": StepInfo("softmax", lambda w: w.softmax_of_scores(), True),
        "attn.context": StepInfo("context", lambda w: w.context(), True, True),
        "attn.out": product("HD", "C", meets=False),
        "attn.residual": elementwise("residual", 1, "C", 3),
        "mlp.up": product("C", "F"),
        "mlp.act": elementwise("relu", ACTIVATION_FLOPS["relu"], "F", 2),
        "mlp.out": product("F", "C"),
        "mlp.residual": elementwise("residual", 1, "C", 3),
    }
    return {
        "wte": StepInfo("tokens", lambda w: w.lookup(stored=True)),
        "embed": StepInfo("tokens"),
        **per_layer(block, config.L),
        "ln_f": StepInfo("norm", lambda w: w.rms_norm(w.last), True),
        "logits": StepInfo("logits", lambda w: w.linear("C", "V", False, w.last), True, True),
    }
