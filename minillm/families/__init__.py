"""What a model of each family is: a folder a family, none of which sees another.

`of(config)` and `named(model_type)` find a family, `register` adds one.
"""

from . import gpt2 as gpt2  # registers itself
from .family import Family, Parameter, StepInfo, named, of, read_config, register

__all__ = ["Family", "Parameter", "StepInfo", "named", "of", "read_config", "register"]
