"""A class checked again: whose file is whose, what is unusable, states, commonest mistakes,
near-copies, the tables."""

import errno
import io
import os
import re
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from minillm.cli import main
from minillm.errors import InputError
from minillm.exercises import exercise
from minillm.exercises.student.folder import file_name
from minillm.exercises.teacher import submissions

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


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    """Root may read everything, hence the system's answer is made here."""
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        (tmp_path / name / SOFTMAX).write_text("x = 1")
    scan, closed = os.scandir, [tmp_path / "bob"]

    def scandir(path):
        if Path(path) in closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    ann, bob = read(tmp_path).values()
    assert (ann.student, bob.student) == ("ann", "bob") and ann.files and not bob.files
    assert bob.notes == ["the folder cannot be read (Permission denied)"]
    closed.append(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        read(tmp_path)


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
    anna = read(tmp_path / "anna")["anna"]
    assert anna.files == {"argmax": b"x"}
    assert any("is a link, which is not followed" in note for note in anna.notes)


def test_names_cannot_move_the_cursor(tmp_path):
    students = read(
        zip_of(tmp_path / "c.zip", {f"A\x1b[2J_1_assignsubmission_file_/{SOFTMAX}": "x"})
    )
    assert [*students] == ["A?[2J"]
