"""The smallest family that a class could bring: a folder of its own, which registers itself.

Llama's parts (RMS norm, rotation, keys and values that queries share, no biases) in another order:
attention and the feed forward, whose activation is relu, read the same norm side by side. Source:
Wang, Komatsuzaki, "GPT-J-6B" (2021), for the order.
"""

from minillm.families import Family, register

from .backward import backward
from .forward import head, hidden
from .layout import ToyConfig, steps
from .program import program

TOY = register(
    Family(
        name="toy",
        title="Toy",
        architectures=("ToyForCausalLM",),
        config=ToyConfig,
        layers="blocks.",
        steps=steps,
        hidden=hidden,
        head=head,
        backward=backward,
        program=program,
    )
)
