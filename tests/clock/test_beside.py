"""Two engines on one time scale: who is faster, and where."""

from types import SimpleNamespace

from minillm.clock.beside import beside, verdict
from minillm.clock.phases import PHASES


def test_the_verdict_says_where_the_faster_one_gains_and_loses():
    phases = {"embed": 0.0, "unembed": 1.0, "choose": 0.5}
    a = {**phases, "attend": 2.0, "feed forward": 4.0, "cycle": 7.5}
    b = {**phases, "attend": 3.0, "feed forward": 3.5, "cycle": 8.0}
    said = "a takes 6% less than b: it gains in attend 1.000 ms; it loses in feed forward 0.500 ms"
    assert verdict({"a": a, "b": b}) == verdict({"b": b, "a": a}) == said


def test_two_that_are_alike_gain_nowhere():
    same = dict.fromkeys((*PHASES, "cycle"), 1.0)
    assert verdict({"a": same, "b": same}) == (
        "a takes 0% less than b: it gains nowhere, and loses nowhere"
    )


def test_both_are_drawn_on_one_scale():
    """The longest phase of either has the longest bar."""

    def report(*ms):
        rows = zip((*PHASES, "cycle"), (*ms, sum(ms)))
        rows = [SimpleNamespace(phase=phase, part="", decode=1e6 * t) for phase, t in rows]
        return SimpleNamespace(decode=[1], rows=rows)

    lines = beside({"a": report(1, 4, 10, 2, 0), "bc": report(2, 5, 20, 2, 0)}, "#")
    assert [line.count("#") for line in lines[1:9]] == [2, 5, 10, 12, 25, 50, 5, 5]
    assert lines[5].startswith("feed forward  a ") and lines[6].startswith("              bc ")
    assert "a takes 41% less than bc" in lines[-1] and "feed forward 10.000 ms" in lines[-1]


def test_without_a_decode_cycle_there_is_nothing_to_compare():
    report = SimpleNamespace(decode=[])
    (line,) = beside({"a": report, "b": report})
    assert "a token after the first" in line
