"""The clock: where the time of every cycle goes, what it should be by the machine's limits, and how
it grows.

It reads steps (minillm/steps.py) and knows nothing of the model's inside.
"""

from ..moved import names_of
from .clock import Clock, CycleTimes, groups
from .costs import Cost, step_costs, total
from .limits import Limits, measure
from .phases import PHASES
from .prediction import predict, predicted_seconds
from .report import ClockReport
from .verdict import Evidence, Verdict, verdict

__all__ = [
    "PHASES",
    "Clock",
    "ClockReport",
    "Cost",
    "CycleTimes",
    "Evidence",
    "Limits",
    "Verdict",
    "groups",
    "measure",
    "predict",
    "predicted_seconds",
    "step_costs",
    "total",
    "verdict",
]

__getattr__ = names_of("clock")
