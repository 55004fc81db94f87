"""Near-copies are found in disguise, other ways to write it are none, and looking for them ends."""

import inspect
import time
from itertools import combinations

from minillm.cli.teaching import shown
from minillm.exercises import EXERCISES, exercise
from minillm.exercises.student.folder import text_of
from minillm.exercises.teacher.copies import LONG, SHORT, alike, form_of, near_copies
from minillm.exercises.teacher.report import PACKAGE, report
from minillm.exercises.teacher.submissions import Submission
from tests.exercises.answers import with_body_of
from tests.exercises.other_ways import OTHER_WAYS

# ---- states, mistakes


def student(name, **files):
    return Submission(name, files={n: text.encode() for n, text in files.items()})


# ---- near-copies


def disguised(code):
    """The same with other names, layout, comments, a docstring and annotations."""
    for old, new in {
        "tokens": "pieces",
        "best": "winner",
        "pairs": "zz",
        "import math": "import math as m",
        "math.": "m.",
    }.items():
        code = code.replace(old, new)
    return code.replace(
        "def encode(data, ranks):",
        'def encode(data: bytes, ranks: dict) -> list:\n    "mine"  # all mine\n\n',
    )


def test_a_disguised_copy_is_found():
    encode = exercise("encode")
    own = (
        "def encode(data, ranks):\n    out = list(map(bytes, zip(data)))\n    done = False\n   "
        " while not done:\n"
        + "        found = [(ranks[a, b], i) for i, (a, b) in enumerate(zip(out, out[1:])) if (a,"
        " b) in ranks]\n        done = not found\n        if found:\n            i ="
        " min(found)[1]\n            out = out[:i] + [out[i] + out[i + 1]] + out[i + 2:]\n   "
        " return out\n"
    )
    class_ = [
        student("anna", encode=own),
        student("berta", encode=own.replace("found", "f").replace("out", "o") + "\n# finished\n"),
        student("carl", encode=disguised(with_body_of(encode))),
        student("dora", encode=text_of(encode)),
        student("emil", encode=text_of(encode)),
        student("fritz", encode="def encode(data, ranks:"),
    ]
    result = report(class_, ["encode"])
    assert result.pairs() == {("anna", "berta"): ["encode"], ("carl", PACKAGE): ["encode"]}
    assert [row.state("encode") for row in result.rows][:3] == ["right"] * 3


def test_other_ways_to_write_it_are_no_copies():
    """Worst case: 0.68 in common (adamw_update by the book), 0.9 is a near-copy."""
    compared = 0
    for name, other in OTHER_WAYS.items():
        if exercise(name).kind == "write" and other.__name__ != "<lambda>":
            forms = (
                form_of(exercise(name).source(), name),
                form_of(inspect.getsource(other), other.__name__),
            )
            compared += min(map(len, forms)) >= SHORT
            assert not alike(*forms), name
    assert compared >= 5
    names = [e.name for e in EXERCISES.values() if e.kind == "write"]
    for a, b in combinations(names, 2):
        assert not alike(form_of(exercise(a).source(), a), form_of(exercise(b).source(), b)), (a, b)


def test_near_copies_end(monkeypatch):
    """A class that is too large is told so; a function that is made to be compared for ever is not
    compared, unless it is the same."""
    forms = {i: (*"ab" * 40, str(i)) for i in range(300)}
    start = time.perf_counter()
    found, finished = near_copies(forms, seconds=0.2)
    assert found and not finished and time.perf_counter() - start < 2
    long = ("Name",) * (LONG + 1)
    assert alike(long, long) == 1.0 and alike(long, (*long, "Name")) == 0.0
    monkeypatch.setattr(near_copies, "__defaults__", (0,))
    own = with_body_of(exercise("encode"), "whole_pass").encode()
    class_ = [Submission(who, files={"encode": own}) for who in "ab"]
    result = report(class_, ["encode"])
    assert result.hurried == ["encode"]
    assert "no time to compare every two: encode" in shown(result)
