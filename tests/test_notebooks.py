"""The builder finds every fault that it should, and the committed course has none."""

from __future__ import annotations

import re

import pytest

from minillm import plots
from minillm.errors import InputError

for library in ("jupytext", "nbclient", "nbformat"):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install -e '.[test]'")

import nbformat  # noqa: E402

from notebooks import build  # noqa: E402

SOURCE = '''# %% [markdown] id="07-title"
r"""
# A chapter: a **logit** is a score
"""

# %% id="07-sum"
# the logits' sum
print(1 + 1)
'''
LOGIT = build.Term("logit", "07-title", "A score.")


def source(folder, text=SOURCE, name="07_chapter.py"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def built(folder, text=SOURCE, terms=(LOGIT,)):
    """Write a source and its notebook with the outputs that executing gives; return both paths."""
    path = source(folder, text)
    notebook = build.read_source(path, list(terms))
    code = notebook.cells[1]
    code.execution_count = 1
    code.outputs = [nbformat.v4.new_output("stream", name="stdout", text="2\n")]
    nbformat.write(notebook, folder / "07_chapter.ipynb")
    return path, folder / "07_chapter.ipynb"


def changed(notebook_path, change):
    notebook = nbformat.read(notebook_path, as_version=4)
    change(notebook)
    nbformat.write(notebook, notebook_path)


# ---- from source to notebook


def test_cells_keep_the_ids_of_the_source_and_the_words_come_last(tmp_path):
    notebook = build.read_source(
        source(tmp_path), [LOGIT, build.Term("other", "08-x", "Elsewhere.")]
    )
    nbformat.validate(notebook)
    assert [(cell.cell_type, cell.id) for cell in notebook.cells] == [
        ("markdown", "07-title"),
        ("code", "07-sum"),
        ("markdown", "07-words"),
    ]
    assert notebook.cells[0].source == "# A chapter: a **logit** is a score"
    assert notebook.cells[2].source == "## Words of this chapter\n\n- **logit**: A score."
    assert len(notebook.metadata.source.sha256) == 64


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (' id="07-sum"', "", "has id ''"),
        ("07-sum", "08-sum", "needed 07-topic"),
        ("07-sum", "07-title", "two cells have the id '07-title'"),
    ],
)
def test_a_cell_without_an_id_of_its_own_is_refused(tmp_path, old, new, message):
    with pytest.raises(build.Fault, match=message):
        build.read_source(source(tmp_path, SOURCE.replace(old, new)), [])


def test_an_unknown_chapter_is_refused(tmp_path):
    source(tmp_path)
    with pytest.raises(build.Fault, match="no chapter 99; there are 07"):
        build.sources(["99"], tmp_path)


# ---- stale notebooks


def test_a_fresh_notebook_has_no_fault(tmp_path):
    assert build.stale(built(tmp_path)[0], [LOGIT], tmp_path) == []


def test_a_missing_notebook_is_found(tmp_path):
    assert "07_chapter.ipynb is missing" in build.stale(source(tmp_path), [], tmp_path)[0]


def test_a_changed_source_is_found(tmp_path):
    path, _ = built(tmp_path)
    source(tmp_path, SOURCE.replace("1 + 1", "1 + 2"))
    (fault,) = build.stale(path, [LOGIT], tmp_path)
    assert "does not carry the hash of 07_chapter.py" in fault


def test_a_notebook_edited_by_hand_and_a_changed_meaning_are_found(tmp_path):
    path, notebook = built(tmp_path)
    changed(notebook, lambda n: n.cells[1].update(source="print(3)"))
    assert "has other cells" in build.stale(path, [LOGIT], tmp_path)[0]
    built(tmp_path)
    assert (
        "has other cells"
        in build.stale(path, [build.Term("logit", "07-title", "Another meaning.")], tmp_path)[0]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"execution_count": None}, "was not executed"),
        ({"outputs": [nbformat.v4.new_output("stream", name="stderr", text="Warning")]}, "stderr"),
        (
            {
                "outputs": [
                    nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
                ]
            },
            "ends in ValueError: no",
        ),
        (
            {"outputs": [nbformat.v4.new_output("display_data", {"image/png": "iVBORw0K"})]},
            "without alternative text",
        ),
        (
            {
                "outputs": [
                    nbformat.v4.new_output(
                        "display_data", {"image/png": ""}, metadata={"image/png": {"alt": " "}}
                    )
                ]
            },
            "without",
        ),
    ],
    ids=["not executed", "stderr", "error", "no alt", "empty alt"],
)
def test_faulty_outputs_are_found(tmp_path, change, message):
    path, notebook = built(tmp_path)
    changed(notebook, lambda n: n.cells[1].update(change))
    (fault,) = build.stale(path, [LOGIT], tmp_path)
    assert "07-sum" in fault and message in fault


def test_an_error_that_is_meant_and_a_described_picture_are_no_faults(tmp_path):
    path, notebook = built(
        tmp_path, SOURCE.replace('id="07-sum"', 'id="07-sum" tags=["raises-exception"]')
    )
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    picture = nbformat.v4.new_output(
        "display_data", {"image/png": "iVBORw0K"}, metadata={"image/png": {"alt": "A bar."}}
    )
    changed(notebook, lambda n: n.cells[1].update(outputs=[error, picture]))
    assert build.stale(path, [LOGIT], tmp_path) == []


# ---- the glossary


def faults_of(tmp_path, text, *terms):
    return build.glossary_faults(
        [build.read_source(source(tmp_path, text), list(terms))], list(terms)
    )


def test_a_term_may_be_used_from_its_defining_cell_on(tmp_path):
    assert faults_of(tmp_path, SOURCE, LOGIT) == []


@pytest.mark.parametrize("use", ["Logits are scores.", "a logit", "the logit's", "**logit**"])
def test_a_term_used_too_early_is_found(tmp_path, use):
    early = f'# %% [markdown] id="07-early"\nr"""\n{use}\n"""\n\n' + SOURCE
    assert faults_of(tmp_path, early, LOGIT) == [
        "07-early: uses 'logit', which only 07-title defines"
    ]


def test_a_comment_uses_a_term_too(tmp_path):
    early = '# %% id="07-early"\nx = 1  # one logit\n\n' + SOURCE
    assert faults_of(tmp_path, early, LOGIT) == [
        "07-early: uses 'logit', which only 07-title defines"
    ]


@pytest.mark.parametrize(
    "use",
    [
        "`logits`",
        "$logit$",
        "[logits](08_x.ipynb)",
        "```\nlogits\n```",
        "logistic",
        "https://x.org/logit",
    ],
)
def test_code_formulas_links_and_other_words_are_no_use(tmp_path, use):
    early = (
        f'# %% [markdown] id="07-early"\nr"""\n{use}\n"""\n\n# %% id="07-code"\nlogits = 1\n\n'
        + SOURCE
    )
    assert faults_of(tmp_path, early, LOGIT) == []


def test_a_title_may_point_ahead(tmp_path):
    titled = '# %% [markdown] id="07-early"\nr"""\n# Logits\n\n{}\n"""\n\n' + SOURCE
    assert faults_of(tmp_path, titled.format("Scores."), LOGIT) == []
    assert len(faults_of(tmp_path, titled.format("Logits."), LOGIT)) == 1


def test_a_term_must_stand_in_bold_in_a_cell_that_exists(tmp_path):
    assert faults_of(tmp_path, SOURCE.replace("**", ""), LOGIT) == [
        "07-title: should define **logit**, in bold"
    ]
    assert (
        "which is no cell"
        in faults_of(tmp_path, SOURCE, build.Term("logit", "07-nowhere", "A score."))[0]
    )


def test_irregular_forms_count(tmp_path):
    term = build.Term("vocabulary", "07-title", "All tokens.", ("vocabularies",))
    text = '# %% [markdown] id="07-early"\nr"""\ntwo vocabularies\n"""\n\n' + SOURCE.replace(
        "logit", "vocabulary", 1
    )
    assert len(faults_of(tmp_path, text, term)) == 1


# ---- the committed course


def test_the_committed_course_has_no_fault(capsys):
    assert build.main(["--check"]) == 0, capsys.readouterr().out


def test_sections_of_the_glossary_hold_their_own_chapters_words():
    import tomllib

    chapters = tomllib.loads((build.SOURCES / "glossary.toml").read_text(encoding="utf-8"))
    assert [
        (c, word)
        for c, words in chapters.items()
        for word, entry in words.items()
        if entry["cell"][:2] != c
    ] == []


def test_chapters_and_exercises_know_each_other():
    exercises = pytest.importorskip(
        "minillm.exercises", reason="the exercises are not there yet"
    ).EXERCISES
    named, cells = set(), set()
    for path in build.sources([]):
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r"minillm exercises (?:check|hint) (\w+)", text))
        cells |= set(re.findall(r'id="([\w-]+)"', text))
    chapters = {cell[:2] for cell in cells}
    assert named <= {*exercises}
    assert {e.cell for e in exercises.values() if e.cell[:2] in chapters} <= cells


def test_no_chapter_needs_torch_or_a_network():
    for path in build.sources([]):
        assert not {"torch", "requests", "urllib"} & {
            line.split()[1].split(".")[0]
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith(("import ", "from "))
        }, path.name


# ---- executing


@pytest.mark.live
def test_executing_fails_where_a_cell_does_and_names_it(tmp_path):
    with pytest.raises(build.Fault, match="07-sum: ZeroDivisionError"):
        build.execute(build.read_source(source(tmp_path, SOURCE.replace("1 + 1", "1 / 0")), []))


@pytest.mark.live
def test_executing_fails_on_a_picture_without_words(tmp_path):
    figure = "from matplotlib import pyplot\npyplot.plot([1, 2]);"
    with pytest.raises(build.Fault, match="07-sum: a picture without alternative text"):
        build.execute(
            build.read_source(source(tmp_path, SOURCE.replace("print(1 + 1)", figure)), [])
        )


@pytest.mark.live
def test_a_shown_picture_carries_its_words(tmp_path):
    figure = (
        "from minillm import plots\nplots.show(plots.heat_map([[1, 2]], ['a'], ['b', 'c']), 'Two"
        " cells.')"
    )
    notebook = build.read_source(source(tmp_path, SOURCE.replace("print(1 + 1)", figure)), [])
    build.execute(notebook)
    picture, words = notebook.cells[1].outputs
    assert picture.metadata["image/png"].alt == picture.data["text/plain"] == "Two cells."
    assert words.data["text/plain"] == "In words: Two cells."


def test_a_picture_without_words_is_not_shown():
    pytest.importorskip("IPython", reason="needs the extra notebooks")
    with pytest.raises(InputError, match="no alternative text"):
        plots.show(None, " ")
