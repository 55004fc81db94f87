"""What a model of each family is: a folder a family, none of which sees another.

`of(config)` and `described(config_json)` find a family, `register` adds one.
"""

from . import gpt2 as gpt2  # each registers itself
from . import llama as llama

from . import between as between  # isort: skip  (last: errors name the families in this order)
from .family import (
    Family,
    Parameter,
    StepInfo,
    by_gguf,
    described,
    known,
    of,
    parse_config,
    read_config,
    register,
)

__all__ = [
    "Family",
    "Parameter",
    "StepInfo",
    "by_gguf",
    "described",
    "known",
    "of",
    "parse_config",
    "read_config",
    "register",
]
