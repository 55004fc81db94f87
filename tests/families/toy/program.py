"""The same forward for the fused step: seven instructions a block, and the head."""

from minillm.kernels.program import Instruction, Norm, Program
from minillm.layers.rope import rotation

MATRICES = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.up", "mlp.down")


def program(config, parameters):
    def norm(name, weight):
        return Norm(name, "rms_norm", parameters[f"{weight}.weight"], eps=config.eps)

    instructions = []
    for i in range(config.L):
        step, p = f"h.{i}", {n: parameters[f"blocks.{i}.{n}.weight"] for n in MATRICES}
        ln_1 = norm(f"{step}.ln_1", f"blocks.{i}.norm")
        instructions += [
            Instruction(f"{step}.attn.q", p["attn.q"], norm=ln_1, target="q", meet=False),
            Instruction(f"{step}.attn.k", p["attn.k"], target="k", meet=False),
            Instruction(f"{step}.attn.v", p["attn.v"], target="v"),
            Instruction(
                f"{step}.attn.context", source=("q", "k", "v"), then="attend", target="context"
            ),
            Instruction(
                f"{step}.attn.residual", p["attn.o"], source="context", then="residual", meet=False
            ),
            Instruction(f"{step}.mlp.act", p["mlp.up"], then="relu", target="act"),
            Instruction(f"{step}.mlp.residual", p["mlp.down"], source="act", then="residual"),
        ]
    tokens, ln_f = parameters["tokens.weight"], norm("ln_f", "norm")
    instructions.append(Instruction("logits", tokens.T, norm=ln_f, target="logits"))
    scales = [config.attention_scale(i) for i in range(config.L)]

    def turn(positions):
        return rotation(positions, config.D, config.theta)

    return Program(config, tokens, None, instructions, scales, turn)
