"""`minillm course` copies the notebooks, never overwrites one, and says what is missing before it
begins."""

from __future__ import annotations

from minillm.cli import main
from minillm.exercises import EXERCISES, course


def test_course_copies_the_chapters_and_never_overwrites(tmp_path, capsys):
    folder = tmp_path / "mine"
    assert main(["course", str(folder), "--no-open"]) == 0
    names = [path.name for path in course.chapters()]
    assert names and sorted(path.name for path in folder.iterdir()) == names
    (folder / names[0]).write_text("my notes")
    (folder / names[-1]).unlink()
    assert main(["course", str(folder), "--no-open"]) == 0
    assert (folder / names[0]).read_text() == "my notes" and (folder / names[-1]).exists()
    out = capsys.readouterr().out
    assert f"{len(names) - 1} were there and stay" in out
    assert f"begin with {folder / min(names)}" in out


def test_a_check_names_the_heading_above_its_cell():
    assert course.heading("00-next-token") == '"Always the likeliest"'
    for e in EXERCISES.values():
        assert course.heading(e.cell).strip('"') and "cell" not in course.heading(e.cell)


def test_course_refuses_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["course", str(tmp_path / "file"), "--no-open"]) == 2
    assert (
        capsys.readouterr().err
        == f"minillm: {tmp_path / 'file'} is a file; the notebooks need a folder\n"
    )


def test_course_says_how_to_get_jupyter_before_it_copies(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["course", str(tmp_path / "mine")]) == 2
    said = "minillm: jupyterlab is not installed: python -m pip install jupyterlab anywidget ("
    assert capsys.readouterr().err.startswith(said)
    assert not (tmp_path / "mine").exists()
