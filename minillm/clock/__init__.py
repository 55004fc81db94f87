"""The clock: where the time of every cycle goes, what it should be by the machine's limits, and how
it grows.

It reads steps (minillm/steps.py) and knows nothing of the model's inside.
"""

import warnings

from .clock import Clock, CycleTimes, groups
from .costs import Cost, step_costs, total
from .limits import Limits, measure
from .phases import PHASES
from .prediction import predict, predicted_seconds
from .report import ClockReport

__all__ = [
    "PHASES",
    "Clock",
    "ClockReport",
    "Cost",
    "CycleTimes",
    "Limits",
    "groups",
    "measure",
    "predict",
    "predicted_seconds",
    "step_costs",
    "total",
]


def __getattr__(name: str):
    if name == "Report":  # its name in 0.1
        message = "minillm.clock.Report is now called ClockReport"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return ClockReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
