"""Two engines on one time scale: who is faster, and where."""

from types import SimpleNamespace

from minillm.clock.beside import beside, verdict


def test_the_verdict_says_where_the_faster_one_gains_and_loses():
    phases = {"embed": 0.0, "unembed": 1.0, "choose": 0.5}
    a = {**phases, "attend": 2.0, "feed forward": 4.0, "cycle": 7.5}
    b = {**phases, "attend": 3.0, "feed forward": 3.5, "cycle": 8.0}
    said = "a takes 6% less than b: it gains in attend 1.000 ms; it loses in feed forward 0.500 ms"
    assert verdict({"a": a, "b": b}) == verdict({"b": b, "a": a}) == said


def test_without_a_decode_cycle_there_is_nothing_to_compare():
    report = SimpleNamespace(decode=[])
    (line,) = beside({"a": report, "b": report})
    assert "a token after the first" in line
