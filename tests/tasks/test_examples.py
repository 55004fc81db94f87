"""Labelled texts: every layout, what cannot be read, the split, batches."""

from __future__ import annotations

import numpy as np
import pytest

from minillm.errors import InputError
from minillm.tasks.examples import Batches, Examples, Words, read_examples, split

TWO = Examples(["so good", "so bad"], ["pos", "neg"])


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"a.tsv": "so good\tpos\nso bad\tneg\n"}, "a.tsv"),
        ({"a.tsv": "\ufeffText\tLabel\r\nso good\tpos\r\nso bad\tneg\r\n"}, "a.tsv"),
        ({"a.csv": "id,label,text\n1,pos,so good\n\n2,neg,so bad\n"}, "a.csv"),
        ({"a.CSV": '"so good",pos\n"so bad", neg\n'}, "a.CSV"),
        (
            {
                "d/pos/1.txt": "so good\n",
                "d/neg/1.txt": "so bad",
                "d/neg/.hidden": "no",
                "d/README": "no",
            },
            "d",
        ),
        ({"d/x.pos": "so good\n\n", "d/x.neg": "so bad\n", "d/README.txt": "no"}, "d"),
        ({"d/pos.txt": "so good \n", "d/neg.txt": " so bad"}, "d"),
    ],
    ids=[
        "tsv",
        "header, mark, CRLF",
        "columns in another order",
        "csv",
        "folders",
        "files",
        "text files",
    ],
)
def test_layouts(tmp_path, files, name):
    found = read_examples(write(tmp_path, files) / name)
    assert sorted(zip(found.texts, found.labels)) == sorted(zip(TWO.texts, TWO.labels))


def test_quotation_marks_are_text_in_tsv_and_quotes_in_csv(tmp_path):
    write(tmp_path, {"a.tsv": '"so" good\tpos\n" bad\tneg\n', "a.csv": '"a, ""b""\nc",pos\n'})
    assert read_examples(tmp_path / "a.tsv").texts == ['"so" good', '" bad']
    assert read_examples(tmp_path / "a.csv").texts == ['a, "b"\nc']


INSIDE = "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i"  # where str.splitlines cuts, and no file


@pytest.mark.parametrize(
    "files",
    [
        {"a.tsv": f"{INSIDE}\tpos\r\n{INSIDE}\tneg\r\n"},
        {"a.csv": f'{INSIDE},pos\n"{INSIDE}",neg\n'},
        {"pos": f"{INSIDE}\n", "neg": f"{INSIDE}\r\n"},
        {"pos/1": INSIDE, "neg/1": INSIDE},
    ],
    ids=["tsv", "csv", "file", "folder"],
)
def test_lines_are_cut_where_files_have_line_ends_only(tmp_path, files):
    write(tmp_path, files)
    data = tmp_path / next(iter(files)) if len(files) == 1 else tmp_path
    assert read_examples(data).texts == [INSIDE, INSIDE]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_cells_of_any_length(tmp_path, name):
    """Python's csv takes 131,072 characters if it is not told otherwise."""
    long = "so good " * 40_000
    separator = "\t" if name == "a.tsv" else ","
    write(tmp_path, {name: f"{long}{separator}pos\nso bad{separator}neg\n"})
    assert read_examples(tmp_path / name).texts[0] == long


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        ({}, "none.tsv", "no such file"),
        ({"a.tsv": ""}, "a.tsv", "no examples"),
        ({"d/.keep": ""}, "d", "no examples"),
        ({"a.txt": "so good\tpos"}, "a.txt", "must end in .tsv or .csv"),
        ({"a.tsv": "so good\tpos\nso bad\n"}, "a.tsv", "line 2: 1 columns instead of 2"),
        ({"a.csv": "text,label\nso good,\n"}, "a.csv", "line 2: the label is empty"),
        ({"a.csv": " ,pos\n"}, "a.csv", "line 1: the text is empty"),
        (
            {"a.tsv": "caf\xe9\tpos\n".encode("latin-1")},
            "a.tsv",
            "not UTF-8 text .* at byte 3.*--encoding latin-1",
        ),
        ({"d/x.pos": b"\xff", "d/x.neg": "a"}, "d", "x.pos: not UTF-8"),
    ],
)
def test_what_cannot_be_read(tmp_path, files, name, message):
    with pytest.raises(InputError, match=message):
        read_examples(write(tmp_path, files) / name)


def test_encoding(tmp_path):
    write(tmp_path, {"a.tsv": "caf\xe9\tpos\n".encode("latin-1")})
    assert read_examples(tmp_path / "a.tsv", "latin-1").texts == ["caf\xe9"]
    with pytest.raises(InputError, match="no such encoding"):
        read_examples(tmp_path / "a.tsv", "latin-one")


def test_split_is_fixed_even_and_keeps_equal_texts_together():
    examples = Examples(
        [f"text {n % 90}" for n in range(100)] + [f"other {n}" for n in range(50)],
        ["a"] * 100 + ["b"] * 50,
    )
    train, test = split(examples, 0.1, "here")
    assert len(train) + len(test) == 150 and not set(train.texts) & set(test.texts)
    assert (
        len({t for t, label in zip(test.texts, test.labels) if label == "a"}) == 9
        and test.labels.count("b") == 5
    )
    backwards = split(Examples(examples.texts[::-1], examples.labels[::-1]), 0.1, "here")[1]
    assert sorted(backwards.texts) == sorted(test.texts)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["a"] * 3, "has the label 'a'; two"), (["a", "a", "b"], "label 'b' has one text only")],
)
def test_split_needs_two_labels_of_two_texts(labels, message):
    with pytest.raises(InputError, match=message):
        split(Examples(["x", "y", "z"], labels), 0.1, "here")


def test_words(tmp_path):
    words = Words.of(["Don't go , go !", "go"])
    assert words.words[0] == "go" and words.vocab_size == 5
    assert words.encode("GO stop; don't go") == [1, 0, 0, words.ids["don't"]]
    words.save(tmp_path)
    assert Words.from_pretrained(tmp_path).words == words.words


def test_an_epoch_has_every_text_once_and_depends_on_the_seed_only():
    rows = [[n] * (1 + n % 7) for n in range(50)]
    batches = Batches(rows, range(50), 8, seed=3)
    assert batches.steps_of_epoch == 6
    seen = [batches.batch(step) for step in range(6)]
    assert len({int(label) for _, _, labels in seen for label in labels}) == 48
    for ids, lengths, labels in seen:
        assert ids.shape == (8, lengths.max()) and (lengths == 1 + labels % 7).all()
        assert all(
            (row[:n] == label).all() and not row[n:].any()
            for row, n, label in zip(ids, lengths, labels)
        )
    assert np.ptp(seen[0][1]) <= 2  # of like length
    assert [n.max() for _, n, _ in seen] != sorted(n.max() for _, n, _ in seen)
    again = Batches(rows, range(50), 8, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(again.batch(13), batches.batch(13)))
    assert [sorted(b[2]) for b in seen] != [sorted(batches.batch(step)[2]) for step in range(6, 12)]
    halves = [batches.batch(2, rank, 2)[2] for rank in (0, 1)]
    assert sorted(np.concatenate(halves)) == sorted(seen[2][2])


def test_the_shared_data_sets(shared_data):
    for name, labels in (
        ("subjectivity", {"plot", "quote"}),
        ("sentence_polarity", {"neg", "pos"}),
    ):
        examples = read_examples(shared_data / name)
        _, test = split(examples, 0.1, name)
        assert set(examples.labels) == labels and abs(len(test) - len(examples) / 10) < 10
        assert [test.labels.count(label) for label in sorted(labels)] == [len(test) // 2] * 2
