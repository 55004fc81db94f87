"""GPT-2's program, beside what its layout says; that it computes GPT-2 is tested with the step."""

from minillm import families
from minillm.families.gpt2.config import GPT2Config
from minillm.families.gpt2.program import program
from minillm.model import GPT2


def test_threads_meet_as_often_as_the_layout_says():
    config = GPT2Config(vocab_size=31, n_positions=16, n_embd=48, n_layer=2, n_head=3)
    made = program(config, GPT2.random(config).parameters)
    declared = families.of(config).steps(config)
    assert sum(step.meet for step in made.instructions) == sum(i.meets for i in declared.values())
    assert set(made.stamps) <= declared.keys()
    made.check()
