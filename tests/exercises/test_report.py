"""A class checked again: whose file is whose, what is unusable, states, commonest mistakes,
near-copies, the tables."""

import csv
import inspect
import io
import json
import os
import re
import sys
import time
import tracemalloc
import zipfile
from itertools import combinations

import pytest

from minillm.cli import main
from minillm.cli.teaching import shown
from minillm.errors import InputError
from minillm.exercises import EXERCISES, exercise
from minillm.exercises.student.folder import file_name, text_of
from minillm.exercises.teacher import submissions
from minillm.exercises.teacher.copies import LONG, SHORT, alike, form_of, near_copies
from minillm.exercises.teacher.report import PACKAGE, STATE_OF, STATES, report
from minillm.exercises.teacher.submissions import Submission
from tests.exercises.answers import with_body_of
from tests.exercises.test_gallery import OTHER_WAYS

SOFTMAX, ENCODE, ARGMAX = (file_name(exercise(name)) for name in ("softmax", "encode", "argmax"))


def zip_of(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def bytes_of_zip(files):
    return zip_of(io.BytesIO(), files).getvalue()


def read(*paths):
    return {s.student: s for s in submissions.submissions([*paths])}


# ---- whose is it


def test_moodle_with_folders_flat_and_a_students_own_zip(tmp_path):
    own = bytes_of_zip({f"work/{ENCODE}": "e", f"__MACOSX/work/._{ENCODE}": "junk"})
    class_ = zip_of(
        tmp_path / "week 3.zip",
        {
            f"Anna Abel_12_assignsubmission_file_/{SOFTMAX}": "a",
            f"Berta_Maria Berg_13_assignsubmission_file_{SOFTMAX}": "b",
            "Carl Cid_14_assignsubmission_file/my work.zip": own,
            "Dora Dahl_15_assignsubmission_file_/essay.pdf": "%PDF",
            "Anna Abel_12_assignsubmission_onlinetext_/onlinetext.html": "<p>",
        },
    )
    students = read(class_)
    assert {(s.student, s.id): s.files for s in students.values()} == {
        ("Anna Abel", "12"): {"softmax": b"a"},
        ("Berta_Maria Berg", "13"): {"softmax": b"b"},
        ("Carl Cid", "14"): {"encode": b"e"},
        ("Dora Dahl", "15"): {},  # handed in something else: a row all the same
    }
    with zipfile.ZipFile(class_) as archive:  # unpacked by the teacher: the same
        archive.extractall(tmp_path / "unpacked")
    assert read(tmp_path / "unpacked") == students


def test_canvas_late_and_handed_in_again(tmp_path):
    class_ = zip_of(
        tmp_path / "submissions.zip",
        {
            f"abelanna_301_9001_{SOFTMAX}": "old",
            f"abelanna_301_9002_{SOFTMAX.replace('.py', '-2.py')}": "new",
            f"bergberta_LATE_302_9003_{ENCODE}": "b",
            "cidcarl_303_9004_work.zip": bytes_of_zip({f"{SOFTMAX}": "c"}),
            "dahldora_304_9005_notes.txt": "",
        },
    )
    students = read(class_)
    assert {name: (s.id, s.late, s.files) for name, s in students.items()} == {
        "abelanna": ("301", False, {"softmax": b"new"}),
        "bergberta": ("302", True, {"encode": b"b"}),
        "cidcarl": ("303", False, {"softmax": b"c"}),
        "dahldora": ("304", False, {}),
    }
    assert students["abelanna"].notes == [
        f"2 files of softmax: abelanna_301_9002_{SOFTMAX.replace('.py', '-2.py')} was taken"
    ]


@pytest.mark.parametrize("below", ["", "exercises/", "a/b/"])
def test_folders_and_zips_of_a_class_or_of_one_student(tmp_path, below):
    for who in ("anna", "berta"):
        file = tmp_path / "class" / who / below / SOFTMAX
        file.parent.mkdir(parents=True)
        file.write_text(who)
        zip_of(tmp_path / f"{who}.zip", {below + SOFTMAX: who})
    zip_of(
        tmp_path / "all.zip", {f"class/{who}/{below}{SOFTMAX}": who for who in ("anna", "berta")}
    )
    zips = tmp_path / "zips"
    zips.mkdir()
    for who in ("anna", "berta"):
        (zips / f"{who}.zip").write_bytes((tmp_path / f"{who}.zip").read_bytes())
    wanted = {"anna": {"softmax": b"anna"}, "berta": {"softmax": b"berta"}}
    for paths in (
        [tmp_path / "class"],
        [tmp_path / "class" / "anna", tmp_path / "class" / "berta"],
        [tmp_path / "all.zip"],
        [tmp_path / "anna.zip", tmp_path / "berta.zip"],
        [zips],
    ):
        assert {name: s.files for name, s in read(*paths).items()} == wanted, paths


def test_two_of_one_name_stay_apart_and_one_in_two_zips_is_one(tmp_path):
    for week, file in (("1", ARGMAX), ("2", SOFTMAX)):
        zip_of(tmp_path / f"{week}.zip", {f"Anna_7_assignsubmission_file_/{file}": week})
        (tmp_path / week / "work").mkdir(parents=True)
        (tmp_path / week / "work" / file).write_text(week)
    assert read(tmp_path / "1.zip", tmp_path / "2.zip")["Anna"].files == {
        "argmax": b"1",
        "softmax": b"2",
    }
    assert len(read(tmp_path / "1" / "work", tmp_path / "2" / "work")) == 2


# ---- what is unusable


def slip(name):
    return lambda path: zip_of(path, {SOFTMAX: "x", name: "y"})


def encrypted(path):
    data = bytearray(zip_of(path, {SOFTMAX: "x"}).read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def truncated(path):
    path.write_bytes(zip_of(path, {SOFTMAX: "x" * 5000}).read_bytes()[:-40])


def damaged(path):
    data = bytearray(zip_of(path, {SOFTMAX: bytes(range(256)) * 20}).read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)


UNUSABLE = {
    "leads out": (
        slip("../../evil.py"),
        "an entry leads out of it (../../evil.py), so nothing of it was read",
    ),
    "absolute": (slip("/etc/evil.py"), "an entry leads out of it (/etc/evil.py)"),
    "drive": (slip("C:\\evil.py"), "an entry leads out of it (C:"),
    "backslashes": (slip("a\\..\\..\\evil.py"), "an entry leads out of it"),
    "no zip": (
        lambda path: path.write_bytes(b"PK no"),
        "it cannot be read (File is not a zip file)",
    ),
    "empty": (lambda path: path.write_bytes(b""), "it cannot be read"),
    "truncated": (truncated, "it cannot be read"),
    "nothing in it": (
        lambda path: zip_of(path, {}),
        "no exercises in it (files such as 0203_softmax.py)",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_zip_is_one_line(tmp_path, capsys, case):
    make, says = UNUSABLE[case]
    make(tmp_path / "bad.zip")
    assert main(["exercises", "report", str(tmp_path / "bad.zip")]) == 2
    err = capsys.readouterr().err
    assert f"bad.zip: {says}" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("case", [*UNUSABLE][:-1])
def test_a_students_unusable_zip_does_not_stop_the_class(tmp_path, case):
    make, says = UNUSABLE[case]
    make(tmp_path / "bad.zip")
    bad = (tmp_path / "bad.zip").read_bytes()
    files = {
        f"A_1_assignsubmission_file_/{SOFTMAX}": "fine",
        "B_2_assignsubmission_file_/bad.zip": bad,
    }
    students = read(zip_of(tmp_path / "class.zip", files))
    assert students["A"].files == {"softmax": b"fine"} and not students["A"].notes
    assert (
        not students["B"].files
        and len(students["B"].notes) == 1
        and f"bad.zip: {says}" in students["B"].notes[0]
    )


@pytest.mark.parametrize("make, says", [(encrypted, "is encrypted"), (damaged, "cannot be read")])
def test_a_file_that_cannot_be_read(tmp_path, make, says):
    make(tmp_path / "anna.zip")
    files = {
        f"A_1_assignsubmission_file_/{SOFTMAX}": "ok",
        "B_2_assignsubmission_file_/b.zip": (tmp_path / "anna.zip").read_bytes(),
    }
    students = read(zip_of(tmp_path / "class.zip", files))
    assert says in students["B"].notes[0] and students["A"].files


def test_huge_zips_are_not_unpacked(tmp_path, monkeypatch):
    bomb = bytes_of_zip({SOFTMAX: bytes(2 * submissions.FILE)})
    assert len(bomb) < 10_000
    students = read(
        zip_of(
            tmp_path / "class.zip",
            {
                f"A_1_assignsubmission_file_/{SOFTMAX}": "ok",
                "B_2_assignsubmission_file_/b.zip": bomb,
            },
        )
    )
    assert students["B"].notes == [f"{SOFTMAX}: unpacks to more than 256 kB"]
    assert students["A"].files
    big = tmp_path / "big"
    big.mkdir()
    (big / SOFTMAX).write_bytes(bytes(submissions.FILE + 1))
    assert read(big)["big"].notes == [f"{SOFTMAX}: is larger than 256 kB"]
    nested = {
        "a.zip": bytes_of_zip({"b.zip": bytes_of_zip({"c.zip": bytes_of_zip({SOFTMAX: "x"})})}),
        ARGMAX: "x",
    }
    students = read(zip_of(tmp_path / "deep.zip", nested))
    assert students["deep"].notes == ["b.zip: zips within zips within zips are not read"]
    many = {f"{i}/{SOFTMAX}": "x" * 300 for i in range(9)}
    zip_of(tmp_path / "many.zip", many)
    monkeypatch.setattr(submissions, "TOGETHER", 700 - 2 * (tmp_path / "many.zip").stat().st_size)
    notes = [s.notes for s in read(tmp_path / "many.zip").values()]
    says = f"{SOFTMAX}: was not read: the whole unpacks to more than is read"
    assert notes == [[], [], *[[says]] * 7]
    monkeypatch.setattr(submissions, "ENTRIES", 5)
    with pytest.raises(InputError, match="it holds 9 entries; at most 5 are read"):
        read(tmp_path / "many.zip")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("claims", [True, False])
def test_a_bomb_takes_no_memory(tmp_path, packing, claims):
    """1 kB that unpacks to 64 MB, with its size written in the zip or a lie there: below 4 MB, and
    the other student is read. bzip2 and LZMA unpack a whole block at a time: these are not read."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", packing) as archive:
        archive.writestr(f"A_1_assignsubmission_file_/{SOFTMAX}", "fine", zipfile.ZIP_DEFLATED)
        archive.writestr(f"B_2_assignsubmission_file_/{SOFTMAX}", bytes(64 << 20))
    data = bytearray(bomb.getvalue())
    if not claims:
        for at in (m.start() for m in re.finditer(rb"PK\x01\x02", data)):
            if data[at + 24 : at + 28] == (64 << 20).to_bytes(4, "little"):
                data[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    (tmp_path / "class.zip").write_bytes(data)
    tracemalloc.start()
    students = read(tmp_path / "class.zip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert students["A"].files == {"softmax": b"fine"} and not students["A"].notes
    assert not students["B"].files and len(students["B"].notes) == 1 and peak < 4 << 20, peak


def test_the_list_of_entries_is_bounded_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "DIRECTORY", 1000)
    zip_of(tmp_path / "many.zip", {f"{i}/{SOFTMAX}": "x" for i in range(30)})
    with pytest.raises(InputError, match="its list of entries is larger than"):
        read(tmp_path / "many.zip")
    monkeypatch.undo()
    zip_of(tmp_path / "name.zip", {f"{'a' * 5000}/{SOFTMAX}": "x"})
    with pytest.raises(InputError, match="an entry's name has 5,016 characters"):
        read(tmp_path / "name.zip")


def test_one_student_takes_nothing_from_the_others(tmp_path, monkeypatch):
    """What hers unpacks to is counted by itself, whatever the zip looks like; small files first."""
    monkeypatch.setattr(submissions, "OWN", 3000)
    monkeypatch.setattr(submissions, "TOGETHER", 4000)
    nested = bytes_of_zip({f"{i}/{SOFTMAX}": bytes(600) for i in range(9)})
    for name in ("Z_{}_assignsubmission_file_{}", "class/z/{}{}", "{}{}"):
        files = {name.format(i, f"work{i}.zip"): nested for i in range(2)}
        files |= {f"{who}_9_assignsubmission_file_/{ARGMAX}": "ok" for who in "ab"}
        students = submissions.submissions([zip_of(tmp_path / "class.zip", files)])
        assert [s.files for s in students if s.id == "9"] == [{"argmax": b"ok"}] * 2
        assert sum(len(s.notes) for s in students) >= 7, students


def test_what_no_zip_or_folder_should_hold(tmp_path):
    """An entry named `.`, a pipe that nobody writes to, a file that nobody may read."""
    assert read(zip_of(tmp_path / "dot.zip", {".": "x", "./": "", ARGMAX: "ok"}))["dot"].files
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes on Windows")
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / ARGMAX).write_text("x")
    os.mkfifo(tmp_path / "anna" / SOFTMAX)
    os.mkfifo(tmp_path / "fifo.zip")
    assert read(tmp_path / "anna")["anna"].files == {"argmax": b"x"}
    with pytest.raises(InputError, match="needed is a folder or a"):
        read(tmp_path / "fifo.zip")


def test_links_are_not_followed(tmp_path):
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / ARGMAX).write_text("x")
    (tmp_path / "secret").write_text("secret")
    try:
        (tmp_path / "anna" / SOFTMAX).symlink_to(tmp_path / "secret")
    except OSError:
        pytest.skip("no symbolic links here")
    assert read(tmp_path / "anna")["anna"].files == {"argmax": b"x"}


def test_names_cannot_move_the_cursor(tmp_path):
    students = read(
        zip_of(tmp_path / "c.zip", {f"A\x1b[2J_1_assignsubmission_file_/{SOFTMAX}": "x"})
    )
    assert [*students] == ["A?[2J"]


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
    out = capsys.readouterr().out
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
        "no_sum (1)",
    ]
    assert table[1][0] == "'=Bert()" and table[-1][0] == "commonest mistake"
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
