"""Figures of bench: rates beside their limits, and a ledger whose labels can be read."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from minillm import plots
from minillm.bench import PeerComparison, PeerResult
from minillm.bench.amdahl import amdahl
from minillm.bench.ledger import Entry

COMPARISON = PeerComparison(
    n_prompt=8,
    n_new=4,
    flop_per_token=10.0,
    results=[
        PeerResult(
            "minillm-x", bytes_per_token=100.0, decode=[1.0, 2.0, 9.0], prefill=[30.0, 30.0, 30.0]
        ),
        PeerResult("engine-y", missing="it is not installed"),
        PeerResult(
            "engine-z", bytes_per_token=50.0, decode=[4.0, 4.0, 4.0], prefill=[10.0, 20.0, 30.0]
        ),
    ],
    bandwidth=[1000.0, 1000.0, 2000.0],
    flops=[500.0, 500.0, 500.0],
)


@pytest.mark.parametrize(
    ("kind", "middles", "limits"),
    [("decode", [2, 4], [10, 20]), ("prefill", [30, 20], [50, 50])],
    ids=["decode", "prefill"],
)
def test_rates(kind, middles, limits):
    ax = Figure().subplots()
    assert plots.rates(COMPARISON, kind, ax) is ax
    assert [bar.get_width() for bar in ax.patches] == middles
    assert [label.get_text() for label in ax.get_yticklabels()] == ["minillm-x", "engine-z"]
    assert limits in [list(line.get_xdata()) for line in ax.lines]
    assert (
        ax.get_xlabel() == "tokens/s" and kind in ax.get_title() and ax.get_xlim()[1] > max(limits)
    )
    assert (
        ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor() and ax.patches[1].get_hatch()
    )


def test_labels_stand_apart_and_near_their_points():
    rng = np.random.default_rng(0)
    entries = [
        Entry(f"lever:{n}", "a proof" * (n % 2), decode=[d], change=c, bits_per_byte=1 + c)
        for n, (d, c) in enumerate(
            zip(
                np.exp(rng.normal(5, 0.5, 18)),
                np.where(rng.random(18) < 0.6, 0, rng.random(18) / 10),
            )
        )
    ]
    figure = plots.ledger_page(
        [Entry("plain", "x", decode=[100.0], change=0.0, bits_per_byte=1.0), *entries]
    )
    ax = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.texts if label.get_text()]
    assert len(boxes) == 19 and not any(
        a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n]
    )
    assert "logarithmic" in ax.get_xlabel() and "logarithmic" in ax.get_ylabel() and ax.get_title()


def test_a_ledger_without_quality_is_drawn_as_speeds():
    entries = [
        Entry("plain", decode=[1.0, 2.0], speed_up=1.0, threads=2),
        Entry("threads:1", decode=[1.0, 1.5], speed_up=0.8, threads=1),
    ]
    for e in entries:
        e.prefill = e.decode
    speeds, threads = plots.ledger_page(entries, amdahl(entries)).axes
    assert [t.get_text() for t in speeds.get_yticklabels()] == [
        "threads:1",
        "plain",
    ] and threads.get_xlabel() == "threads"
