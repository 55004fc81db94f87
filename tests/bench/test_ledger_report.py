"""A ledger's page and values, of entries that nobody measured."""

import json
from dataclasses import replace

import pytest

from minillm.bench.ledger import Entry
from minillm.bench.ledger_report import HEADINGS, LedgerReport, row

ENTRIES = [
    Entry("plain", "is the reference", 1, 2_000_000, 500_000, [10.0, 12.0], [4.0, 6.0], 1.0, 1.5),
    Entry("skip:9", None, 1, missing="there are 6 layers"),
]


@pytest.fixture
def report():
    machine = {"processor": "a processor", "system": "a system", "time": "2026-01-02T03:04"}
    machine["versions"] = {"numpy": "2"}
    sizes = {"n_prompt": 8, "n_new": 4, "rounds": 2, "quality_tokens": 0}
    about = {"command": "minillm compare x", "processes": 1, "model": "a model", "file": "x"}
    return LedgerReport(ENTRIES, **about, **sizes, machine=machine)


def test_what_was_not_measured_is_a_dash():
    cells = ("plain", "11", "5.0", "1.00", "-", "2.0 MB", "0.5 MB", "1.5000", "-", "-")
    assert row(ENTRIES[0]) == (*cells, "is the reference")
    assert row(replace(ENTRIES[0], middle_half=(0.904, 1.25)))[4] == "0.90 to 1.25"
    assert row(ENTRIES[1]) == ("skip:9", *["-"] * (len(HEADINGS) - 1))


def test_values_are_all_that_the_page_says(report):
    values = json.loads(json.dumps(report.to_dict()))
    assert values.keys() >= {"command", "processes", "model", "file", "n_prompt", "machine"}
    assert [(e["levers"], e["decode_median"]) for e in values["levers"]] == [
        ("plain", 5.0),
        ("skip:9", None),
    ]
    assert values["amdahl"] == [] and "entries" not in values and "fits" not in values


def test_a_page_shows_its_picture_and_the_command(report, tmp_path):
    report.save(tmp_path / "ledger")
    page = (tmp_path / "ledger.md").read_text()
    assert page.startswith("# The ledger: a model\n\n![decode speed of each lever](ledger.png)\n")
    assert "\n- skip:9: there are 6 layers\n" in page
    assert "\na processor, 1 thread, a system; 2026-01-02;\n" in page
    assert page.endswith("\nnumpy 2.\n\n    minillm compare x\n") and "Quality:" not in page
    report.quality_tokens = 1024
    assert "over rounds. Quality: 1,024 tokens of x.\n" in report.page("y.png")
    assert json.loads((tmp_path / "ledger.json").read_text())["model"] == "a model"
