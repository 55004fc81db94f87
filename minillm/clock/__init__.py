"""The clock: where the time of every cycle goes, what it should be by the machine's limits, and how
it grows.

It reads steps (minillm/steps.py) and knows nothing of the model's inside.
"""

from .clock import Clock, CycleTimes, groups
from .costs import Cost, step_costs, total
from .limits import Limits, measure
from .phases import PHASES
from .prediction import predict, predicted_seconds
from .report import Report

__all__ = [
    "PHASES",
    "Clock",
    "Cost",
    "CycleTimes",
    "Limits",
    "Report",
    "groups",
    "measure",
    "predict",
    "predicted_seconds",
    "step_costs",
    "total",
]
