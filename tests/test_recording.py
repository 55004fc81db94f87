"""A recording's file: what is written is read again, and what does not agree is refused in one
line."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from minillm import InputError
from minillm.checkpoints import safetensors
from minillm.recording import Recording, read, shapes

FILE = Path(__file__).parent / "data" / "recordings" / "tales-draft.recording"


@pytest.fixture(scope="module")
def recording():
    return read(FILE)


def test_a_file_is_read_as_it_was_written(recording, tmp_path):
    recording.write(tmp_path / "a.recording")
    again = read(tmp_path / "a.recording")
    assert again.header == recording.header and again.text == recording.text
    assert again.arrays.keys() == recording.arrays.keys() == shapes(recording.header).keys()
    for name, array in recording.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)


def test_it_says_what_was_generated(recording):
    assert recording.text.startswith("Once upon a time, there was a little man who had")
    first, second = recording.intervals(0), recording.intervals(1)
    assert first.start == 0 and first.stop == second.start
    cycle = recording.header["cycles"][1]
    lasted = cycle["end"] - cycle["start"]
    assert recording.arrays["times.ends"][second][-1] == pytest.approx(lasted, rel=1e-6)
    assert repr(recording) == "Recording(16 moments, 16 cycles, 'tales-draft')"


def test_every_array_is_on_the_page_that_describes_them(recording):
    page = (FILE.parents[3] / "docs" / "recording.md").read_text("utf-8")
    for name in [*recording.header, *recording.arrays]:
        assert f"`{name}`" in page or f"`.{name.rpartition('.')[2]}`" in page, name


WRONG = {
    "version": (lambda h, a: h.update(version=2), "a recording of version 2; this minillm reads"),
    "a missing key": (lambda h, a: h.pop("names"), "names is missing"),
    "no moment": (lambda h, a: h["moments"].clear(), "nothing was generated"),
    "a step": (lambda h, a: h["names"][0].append("h.0.x"), "names has 'h.0.x', which is no step"),
    "a layer": (lambda h, a: h["names"][0].append("h.9.ln_1"), "'h.9.ln_1', which is no step"),
    "a step twice": (lambda h, a: h["steps"].append(h["steps"][0]), "a step occurs twice"),
    "a list": (lambda h, a: h["cycles"][2].update(names=1), "cycle 2 is"),
    "time": (lambda h, a: h["cycles"][2].update(start=0.0), "cycle 2 does not follow"),
    "a cycle": (lambda h, a: h["moments"][1].update(cycle=99), "moment 1 is of cycle 99"),
    "an id": (lambda h, a: h["moments"][1].update(id=4096), "id 4096 is outside the vocabulary"),
    "a letter": (lambda h, a: h["model"]["sizes"].pop("H"), "all of V P L C H K D F"),
    "a position": (lambda h, a: h["attention"].append(500), "attention is"),
    "too much": (
        lambda h, a: h["model"]["sizes"].update(L=2**30, H=2**30),
        "attention of too many positions",
    ),
    "NaN": (lambda h, a: h["runs"].update(difference=float("nan")), "the header is not plain JSON"),
    "an array": (lambda h, a: a.pop("norms"), "'norms' is 'missing'; needed: float32 (24, 5)"),
    "one more": (lambda h, a: a.update(x=np.zeros(1)), "'x' is"),
    "a shape": (lambda h, a: a.update(norms=a["norms"][1:]), "'norms' is 'float32 (23, 5)'"),
    "a dtype": (lambda h, a: a.update(norms=a["norms"].astype(float)), "'float64 (24, 5)'"),
    "not finite": (lambda h, a: a["norms"].__setitem__((0, 0), np.inf), "norms has values that"),
    "a word": (lambda h, a: a["lens.ids"].__setitem__((0, 0, 0), -1), "lens.ids has ids outside"),
    "a limit": (lambda h, a: a["predicted.binds"].__setitem__(0, 3), "predicted.binds has 3"),
    "as many": (
        lambda h, a: a.update({"candidates.after": a["candidates.after"][:, 1:]}),
        "candidates.after has the shape (16, 9), candidates.ids (16, 10)",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_agree_is_refused(recording, tmp_path, wrong):
    change, message = WRONG[wrong]
    header = copy.deepcopy(recording.header)
    arrays = {name: array.copy() for name, array in recording.arrays.items()}
    change(header, arrays)
    with pytest.raises(InputError) as error:
        Recording(header, arrays)
    assert message in str(error.value)
    file = tmp_path / "wrong.recording"
    safetensors.write(file, arrays, {"recording": json.dumps(header)})
    with pytest.raises(InputError, match=r"wrong\.recording"):
        read(file)


def test_another_file_is_refused(tmp_path):
    safetensors.write(tmp_path / "a.safetensors", {"a": np.zeros(3)})
    with pytest.raises(InputError, match="no recording, but another safetensors file"):
        read(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="there is no such file"):
        read(tmp_path / "b")
