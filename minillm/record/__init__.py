"""From a model and a prompt to a recording: generate once under the clock, then once more with the
same tokens, looking at every value.

Two runs, since a clock sees the fused step only if it looks at no value. Times come from the first,
values from the second, which is the readable forward; the largest difference of their logits says
how far one may read them as one.
"""

from .recorder import record
from .traced import Traced

__all__ = ["Traced", "record"]
