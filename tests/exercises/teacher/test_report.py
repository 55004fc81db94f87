"""A class checked again: states, commonest mistakes, the tables; no student ends it."""

import csv
import json
import sys
import zipfile

import pytest

from minillm.cli import main
from minillm.exercises import exercise
from minillm.exercises.student.folder import file_name, text_of
from minillm.exercises.teacher.report import STATE_OF, STATES, report
from minillm.exercises.teacher.submissions import Submission
from tests.exercises.answers import with_body_of

SOFTMAX, ENCODE, ARGMAX = (file_name(exercise(name)) for name in ("softmax", "encode", "argmax"))


def zip_of(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


# ---- states, mistakes


def student(name, **files):
    return Submission(name, files={n: text.encode() for n, text in files.items()})


def test_states_and_the_commonest_mistake():
    softmax, argmax = exercise("softmax"), exercise("argmax")
    wrong = with_body_of(softmax, "over_queries")
    class_ = [
        student("right", softmax=with_body_of(softmax), argmax=with_body_of(argmax)),
        student("stub", softmax=text_of(softmax)),
        student(
            "tidied stub",
            softmax=text_of(softmax).replace("import numpy as np", "import numpy as np  # NumPy"),
        ),
        student("one", softmax=wrong),
        student("two", softmax=wrong),
        student("three", softmax=with_body_of(softmax, "no_sum")),
        student("shape", softmax="def softmax(x):\n    return x.sum()\n"),
        student("syntax", softmax="def softmax(x:\n"),
        student(
            "endless",
            softmax="def softmax(x):\n    import os\n    os._exit(3)\n",
            argmax=with_body_of(argmax),
        ),
        student("none", softmax="x = 1\n"),
    ]
    result = report(class_, ["argmax", "softmax"])
    states = {row.student: row.state("softmax") for row in result.rows}
    assert states == {
        "right": "right",
        "stub": "not started",
        "tidied stub": "not started",
        "one": "wrong values",
        "two": "wrong values",
        "three": "wrong values",
        "shape": "wrong shape",
        "syntax": "does not run",
        "endless": "does not run",
        "none": "does not run",
    }
    made = result.commonest()["softmax"]
    assert (made.mistake, made.students) == ("over_queries", 2) and made.says.startswith(
        "The columns sum to 1"
    )
    assert [row.right for row in result.rows] == [2, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert set(STATE_OF.values()) == set(STATES)


def test_students_files_are_of_their_own_folder(tmp_path, monkeypatch):
    """A student's code that writes beside itself does not write beside the teacher."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "marks.csv").write_text("mine")
    code = "open('marks.csv', 'w').close()\n" + with_body_of(exercise("argmax"))
    assert report([student("a", argmax=code)], ["argmax"]).rows[0].right == 1
    assert (tmp_path / "marks.csv").read_text() == "mine"


HOSTILE = {
    "no Python": b"\x00\xff",
    "brackets": b"(" * 50_000,
    "signs": b"x = " + b"-" * 100_000 + b"1",
    "attributes": b"x = a" + b".b" * 50_000,
    "a deep loop": b"".join(b" " * i + b"if 1:\n" for i in range(90)) + b" " * 91 + b"pass",
    "a long name": b"def argmax(" + b"x" * 200_000 + b"): pass",
    "a coding of its own": b"# -*- coding: nonsense -*-\ndef argmax(scores): pass",
    "another coding": "# -*- coding: utf-16 -*-\ndef argmax(scores): pass".encode("utf-16"),
    "a bomb of a number": b"x = 9 ** 9 ** 9\ndef argmax(scores): return 0",
}


@pytest.mark.skipif(sys.platform == "win32", reason="the loop without end is ended by a limit")
def test_one_student_never_ends_the_report(monkeypatch):
    for name in ("argmax",):
        object.__setattr__(exercise(name), "seconds", 2)
    try:
        fine = with_body_of(exercise("argmax")).encode()
        class_ = [Submission(who, files={"argmax": file}) for who, file in HOSTILE.items()]
        result = report([*class_, Submission("fine", files={"argmax": fine})], ["argmax"])
    finally:
        object.__setattr__(exercise("argmax"), "seconds", 10)
    assert {row.student: row.right for row in result.rows} == {
        **dict.fromkeys(HOSTILE, 0),
        "fine": 1,
    }
    assert all("\n" not in row.results["argmax"].message for row in result.rows)


# ---- the tables


@pytest.fixture
def class_zip(tmp_path):
    softmax = exercise("softmax")
    return zip_of(
        tmp_path / "class.zip",
        {
            f"Anna Abel_1_assignsubmission_file_/{SOFTMAX}": with_body_of(softmax),
            f"=Bert()_2_assignsubmission_file_/{SOFTMAX}": with_body_of(softmax, "no_sum"),
            "Carl_3_assignsubmission_file_/work.zip": b"no zip",
        },
    )


def test_table_csv_picture(class_zip, tmp_path, capsys):
    files = ["--csv", str(tmp_path / "c.csv"), "--plot", str(tmp_path / "c.png")]
    assert (
        main(["exercises", "report", str(class_zip), "--chapter", "0", "--chapter", "2", *files])
        == 0
    )
    captured = capsys.readouterr()
    out = captured.out
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert rows["Anna Abel"].endswith("1/6  ..  ..#.") and rows["=Bert()"].endswith("0/6  ..  ..x.")
    assert "softmax: 1 student, no_sum: These are not probabilities yet" in out
    assert "Carl: work.zip: it cannot be read (File is not a zip file)" in out
    table = list(csv.reader((tmp_path / "c.csv").read_text(encoding="utf-8-sig").splitlines()))
    column = table[0].index("softmax")
    assert [row[column] for row in table[1:]] == [
        "wrong values (no_sum)",
        "right",
        "not started",
    ]
    assert [row[0] for row in table[1:]] == ["'=Bert()", "Anna Abel", "Carl"]  # students, no more
    assert captured.err == "".join(f"{file}: written\n" for file in files[1::2])
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_json(class_zip, capsys):
    assert main(["exercises", "report", str(class_zip), "--chapter", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [s["student"] for s in report["students"]] == ["=Bert()", "Anna Abel", "Carl"]
    assert report["students"][0]["results"]["softmax"]["mistake"] == "no_sum"
    assert report["commonest_mistakes"]["softmax"]["students"] == 1 and report["near_copies"] == []


@pytest.mark.parametrize(
    "args, says",
    [
        (["nowhere"], "nowhere: there is no such folder or zip"),
        ([__file__], "needed is a folder or a .zip"),
        (["begun", "--seed", "-1"], "seed -1: it must be 0 or more"),
        ([".", "--chapter", "16"], "--chapter 16: the exercises are of the chapters 0 to 15"),
        ([".", "--plot", "x.txt"], "--plot x.txt: the name must end in one of .png"),
        ([".", "--csv", "nowhere/x.csv"], "--csv nowhere/x.csv: there is no such folder"),
        (["empty"], "no exercises in it"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, args, says):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "begun"):
        (tmp_path / name).mkdir()
    (tmp_path / "begun" / ARGMAX).write_text("mine")
    assert main(["exercises", "report", *args]) == 2
    err = capsys.readouterr().err
    assert says in err and len(err.splitlines()) == 1
