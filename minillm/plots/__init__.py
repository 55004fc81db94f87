"""Figures with matplotlib, a file for each folder whose values they show: every function takes
ax=None, draws, and returns the axes. Readable in black and white."""

from .basics import bars, heat_map, likeliest, save, show
from .bench import (
    ledger_page,
    rates,
    runs_page,
    speed_against_quality,
    speeds,
    thread_speed_up,
)
from .classroom import class_table
from .clock import (
    against_limits,
    clock_page,
    generation_growth,
    phases_by_token,
    prompt_growth,
    roofline,
    time_line,
)
from .datasheet import (
    class_roofline,
    datasheet_page,
    predicted_against_measured,
    rates_by_batch,
    times_by_context,
)
from .inside import cached_scores, errors_by_step, prefix_tree, residual_norms
from .tasks import (
    classification_page,
    classifier_curve,
    confusion_matrix,
    length_page,
    time_by_length,
)
from .training import training_curves

__all__ = [
    "against_limits",
    "bars",
    "cached_scores",
    "class_roofline",
    "class_table",
    "classification_page",
    "classifier_curve",
    "clock_page",
    "confusion_matrix",
    "datasheet_page",
    "errors_by_step",
    "generation_growth",
    "heat_map",
    "ledger_page",
    "length_page",
    "likeliest",
    "phases_by_token",
    "predicted_against_measured",
    "prefix_tree",
    "prompt_growth",
    "rates",
    "rates_by_batch",
    "residual_norms",
    "roofline",
    "runs_page",
    "save",
    "show",
    "speed_against_quality",
    "speeds",
    "thread_speed_up",
    "time_by_length",
    "time_line",
    "times_by_context",
    "training_curves",
]
