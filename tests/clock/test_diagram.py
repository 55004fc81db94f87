"""The diagram: at every moment one phase is at work, and it fits the terminal."""

import numpy as np
import pytest

from minillm import GPT2, GPT2Config
from minillm.clock import Clock, ClockReport, CycleTimes
from minillm.clock.diagram import CORNERS, LEVELS, activity, diagram, duration, shortened
from minillm.clock.limits import Limits
from minillm.decoding.generate import moments
from minillm.decoding.options import Options

CONFIG = GPT2Config(vocab_size=48, n_positions=64, n_embd=32, n_layer=2, n_head=2)
MODEL = GPT2.random(CONFIG, seed=1)
LIMITS = Limits(
    {}, 2, {2**16: 1e11, 2**28: 2e10}, {"float32": 9e10}, {"float32": 1e11}, 5e9, 1e-6, 1e-5, 1e-7
)


@pytest.fixture(scope="module")
def report() -> ClockReport:
    clock = Clock(every_step=True)
    texts = [f" t{m.id}" for m in moments(MODEL, [1, 2, 3], Options(max_new_tokens=12), step=clock)]
    return ClockReport(clock, CONFIG, "float32", LIMITS, texts)


def test_at_every_moment_exactly_one_phase_is_at_work(report):
    for cycle in report.cycles:
        shares = activity(cycle, 10)
        np.testing.assert_allclose(sum(shares.values()), 1)
        total = {phase: share.mean() * (cycle.end - cycle.start) for phase, share in shares.items()}
        assert total["attend"] == pytest.approx(
            sum(t for n, t in zip(cycle.names, cycle.gross) if ".attn." in n or ".ln_1" in n)
        )


def test_each_phase_stands_where_it_was_at_work():
    names = ("embed", "h.0.attn.context", "h.0.mlp.act", "logits", "next")
    ends = np.array([110.0, 150.0, 180.0, 195.0, 200.0])
    drawn = activity(
        CycleTimes("decode", 1, 1, 4, 100.0, names, ends, np.diff(ends, prepend=100.0)), 10
    )
    assert (
        drawn["embed"].tolist() == [1] + [0] * 9
        and drawn["attend"].tolist() == [0] + [1] * 4 + [0] * 5
    )
    np.testing.assert_allclose(drawn["unembed"], [0] * 8 + [1, 0.5], atol=1e-9)
    np.testing.assert_allclose(drawn["choose"], [0] * 9 + [0.5], atol=1e-9)


def test_the_diagram_has_a_row_for_each_phase_and_fits(report):
    drawn = diagram(report, width=60)
    lines = drawn.splitlines()
    assert max(map(len, lines)) <= 60 and "\x1b" not in drawn
    first = drawn.split("\n\n")[0].splitlines()
    names = [
        "moment",
        "",
        "cycle",
        "clock",
        "",
        "embed",
        "attend",
        "feed forward",
        "unembed",
        "choose",
        "",
    ]
    assert [line[:14].strip() for line in first] == names
    assert (
        first[2].split()[1:] == ["prefill", "3", "decode", "decode", "decode"]
        and repr(report.texts[0]) in first[1]
    )
    assert "''" not in drawn  # no text for cycles that are not there
    assert first[-1].count("s") >= 4  # ms or us below each column
    waves = "".join(first[5:10])
    assert (
        set(waves) - set("embdatn fowrduchos") <= set(LEVELS)
        and LEVELS[-1] in waves
        and LEVELS[0] in waves
    )


def test_the_diagram_without_unicode_and_with_colour(report):
    assert diagram(report, unicode=False).isascii()
    coloured = diagram(report, colour=True)
    assert coloured.count("\x1b[34m") == len(report.cycles) and coloured.count(
        "\x1b[0m"
    ) == 5 * len(report.cycles)
    assert CORNERS[0] in coloured


def test_a_narrow_terminal_shows_the_first_cycles_and_counts_the_rest(report):
    drawn = diagram(report, width=40)
    assert drawn.count("moment") == 4 and drawn.endswith("... and 4 more cycles")


@pytest.mark.parametrize(
    ("ns", "text"), [(5, "5 ns"), (1234, "1.23 us"), (1.5e6, "1.5 ms"), (2.5e10, "25 s")]
)
def test_durations_have_three_digits_and_a_unit(ns, text):
    assert duration(ns) == text
    assert len(shortened("a long text", 10)) == 10 and shortened("\n", 10) == "'\\n'"
