"""The figure of training runs: losses over steps or tokens, validations beside them."""

import numpy as np
from matplotlib.figure import Figure

from minillm import plots
from minillm.training.curves import Curve


def test_curves_stand_over_steps_or_tokens():
    steps = np.arange(10, 210, 10)
    validations = [{"step": n, "bits_per_byte": 2 - n / 1000} for n in (100, 200)]
    curves = [
        Curve("first", steps, 5 - steps / 100, validations, 128),
        Curve("other", np.array([50, 100]), np.array([6.0, 5.0])),
    ]
    for over, unit in (("steps", 1), ("tokens", 128)):
        left, right = plots.training_curves(curves, over, Figure().subplots(1, 2))
        assert list(left.lines[0].get_xdata()) == list(curves[0].steps * unit)
        assert (
            list(right.lines[0].get_xdata()) == [100 * unit, 200 * unit]
            and right.get_ylabel() == "bits per byte"
        )
        assert [text.get_text() for text in left.get_legend().get_texts()] == ["first", "other"]
    assert (
        plots.training_curves(curves[1:], "steps", Figure().subplots(1, 2))[1].get_ylabel()
        == "no validation yet"
    )
