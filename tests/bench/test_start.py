"""Commands are timed until they say something, and ended."""

import json

from minillm.bench import start
from minillm.bench.start import Start
from minillm.cli import main


def test_until_the_first_character(monkeypatch, capsys):
    """One that speaks, as the command line does of itself, and one that fails."""
    starts = [
        Start("version", ["--version"]),
        Start("wrong", ["probs", "x", "--model", "no/such"]),
        Start("version", ["--version"], fresh=True),
    ]
    monkeypatch.setattr(start, "commands", lambda chat: starts)
    assert main(["bench", "--start", "--rounds", "2", "--threads", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[3].split()[0] == "version" and out[-1].startswith("wrong: missing (it said nothing:")
    assert out[4].startswith("version, fresh")
    speaks, fails, fresh = starts
    assert len(fresh.seconds) == 1  # for it takes long
    assert len(speaks.seconds) == 2 and min(speaks.seconds) > 0 and not fails.seconds
    assert all(0 < cpu < 60 for cpu in speaks.processor)
    assert main(["bench", "--start", "--rounds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "version"


def test_one_that_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(start, "PATIENCE", 0)
    monkeypatch.setattr(start, "commands", lambda chat: [Start("version", ["--version"])])
    (slow,) = start.run(rounds=1)
    assert slow.missing == "it said nothing within 0 s: "


def test_what_is_timed_is_a_command():
    """A flag that is gone would be told as missing, on the day of the measurement."""
    from minillm.cli import parser

    for one in start.commands("smollm2"):
        assert parser().parse_args(one.arguments).command == one.name
