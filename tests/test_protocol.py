"""What is asked of a model is had by a GPT2, by the same names of arguments."""

import inspect

import pytest

from minillm import GPT2, GPT2Config, InputError
from minillm.protocol import Config, Model, one_text, require_model

MODEL = GPT2.random(GPT2Config(vocab_size=7, n_positions=4, n_embd=4, n_layer=1, n_head=2))


def asked(protocol: type) -> dict:
    """The parts of a Protocol by name."""
    return {n: v for n, v in vars(protocol).items() if not n.startswith("_") or n == "__call__"}


def test_a_gpt2_is_a_model():
    require_model(MODEL)
    assert {"config", "ops", "new_cache", "__call__"} <= asked(Model).keys()
    for name, part in asked(Model).items():
        if isinstance(part, property):
            assert hasattr(MODEL, name), name
        else:
            had, wanted = inspect.signature(getattr(GPT2, name)), inspect.signature(part)
            assert [*had.parameters] == [*wanted.parameters], name
    assert all(hasattr(MODEL.config, name) for name in asked(Config))


@pytest.mark.parametrize(
    "wrong", [None, "tales", GPT2, GPT2Config()], ids=lambda w: type(w).__name__
)
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(InputError, match=r"model is .*, which is no model: .*minillm\.load"):
        require_model(wrong)


def test_one_text_is_one_row():
    assert one_text(MODEL, [1, 2]).tolist() == [1, 2]
    with pytest.raises(InputError, match=r"shape \(1, 2\), where one text"):
        one_text(MODEL, [[1, 2]])
    with pytest.raises(InputError, match="model is 'tales', which is no model"):
        one_text("tales", [1, 2])
