"""Machines as files."""

import json
from dataclasses import replace

import pytest

from minillm import InputError, ops
from minillm.clock import Limits, machines
from minillm.clock import limits as limits_module
from minillm.clock.machines import Constants, Machine, find, published

RATES = {"float32": 1e11, "int8": 2e11}
NOTHING = {"reading": 0, "arithmetic": 0, "node": 0, "models": []}
LIMITS = Limits({"cores": 2}, 2, {2**20: 1e11, 2**26: 1e10}, RATES, RATES, 1e9, 0.0, 0.0, 0.0)
MACHINE = Machine(
    "A processor",
    "measured here",
    True,
    16 * 10**9,
    (replace(LIMITS, threads=1), LIMITS),
    {("minillm", "int8", "token"): Constants(1.25, 2.0, 2e-6, ("tales",))},
)


def test_a_machine_is_written_and_read(tmp_path):
    MACHINE.save(path := tmp_path / "machine.json")
    assert Machine.load(path) == find(path) == MACHINE
    assert MACHINE.limits_of().threads == 2 and MACHINE.limits_of(1).threads == 1


def test_a_file_of_a_lab_holds_one(tmp_path):
    path = tmp_path / "anna.json"
    path.write_text(json.dumps({"version": 1, "rows": [], "machine": MACHINE.to_dict()}))
    assert find(path) == MACHINE
    path.write_text(json.dumps({"version": 1, "machine": "a processor"}))
    with pytest.raises(InputError, match=r"anna.json: a machine of version 1"):
        find(path)


def test_published_figures_have_their_sources():
    found = published()
    assert {"a100", "h100", "rtx4090", "m1max"} <= found.keys()
    for machine in found.values():
        assert not machine.measured and len(machine.source) > 20 and machine.memory > 10**9
        assert Machine.from_dict(json.loads(json.dumps(machine.to_dict())), "it") == machine
    assert found["a100"].limits_of().rows["int8"] == 3.12e14


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "a machine of version 1; this minillm reads 2"),
        ({"name": "a\nb"}, "name is 'a.nb'; one line is needed"),
        ({"source": "x" * 1000}, "source is 'xxx.*one line is needed"),
        ({"limits": []}, "limits are needed, once for each"),
        ({"limits": [LIMITS.__dict__] * 2}, "limits are needed, once for each"),
        ({"memory": -1}, "memory is -1; bytes are needed"),
        ({"limits": [{}]}, "limits: bandwidth: what it holds is None"),
        ({"limits": [LIMITS.__dict__ | {"elements": 0}]}, "0 is no rate"),
        ({"limits": [LIMITS.__dict__ | {"meet": -1.0}]}, "-1.0 is no number of seconds"),
        ({"limits": [LIMITS.__dict__ | {"row": {"int8": 1e9}}]}, "the rate of float32"),
        ({"limits": [LIMITS.__dict__ | {"threads": 0}]}, "threads is 0"),
        (
            {
                "fitted": {
                    "a": {
                        "int8": {"token": {"reading": 0, "arithmetic": 0, "node": 0, "models": []}}
                    }
                }
            },
            "of 'a'",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, change, message):
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(MACHINE.to_dict() | change))
    with pytest.raises(InputError, match=message) as error:
        Machine.load(path)
    assert str(path) in str(error.value)


def test_a_machine_that_is_not_there():
    with pytest.raises(InputError, match="'b300' is no file, and none of a100, h100"):
        find("b300")


def test_this_machine_is_measured(monkeypatch):
    monkeypatch.setattr(limits_module, "ARRAYS", (2**16,))
    monkeypatch.setattr(limits_module, "BEST_OF", 1)
    found = machines.measure_machine(ops, ["float32"], [1])
    assert found.threads == [1] and found.measured and found.name
    assert Machine.from_dict(json.loads(json.dumps(found.to_dict())), "it") == found
