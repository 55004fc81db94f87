"""From text to batches: documents, token files, windows."""

import json
import os

import numpy as np
import pytest

from minillm import InputError, Tokenizer
from minillm.tokenizer import END_OF_TEXT, cut_at_ends
from minillm.training.data import (
    Batches,
    BatchesOf01,
    documents_of,
    split_documents,
    token_files,
)

TOKENIZER = Tokenizer.train(["the old king and the young king; the wolf and the fox. "] * 3, 280)


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


# ---- documents


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r", "", " "], ids=repr)
def test_every_end_of_text_ends_a_document(ends):
    """One line end directly after it belongs to it, what follows begins the next document."""
    text = f"one\n{END_OF_TEXT}{ends}two {END_OF_TEXT}{ends}{END_OF_TEXT}{ends} \nx{END_OF_TEXT}"
    rest = ends if ends == " " else ""
    assert cut_at_ends(text) == ["one\n", f"{rest}two ", rest, f"{rest} \nx", ""]
    assert documents_of(text) == ["one\n", f"{rest}two ", f"{rest} \nx"]
    assert cut_at_ends(f"{END_OF_TEXT}\n\n{END_OF_TEXT}\r\n\r\n") == ["", "\n", "\r\n"]


def test_ends_of_text_are_the_same_for_a_tokenizer_training_and_scoring(tmp_path):
    """Everything that reads documents sees the same ones, however their ends are written."""
    documents = ["the king\n", "\na fox ", "x", "the wolf"]
    cleanly = Tokenizer.train(documents * 3, 280)
    expected = [i for d in documents for i in (*TOKENIZER.encode(d), TOKENIZER.eot_id)]
    for end in ("\n", "\r\n"):
        text = "".join(d + END_OF_TEXT + end for d in documents)
        assert Tokenizer.train([text.removesuffix(end)] * 3, 280).merges == cleanly.merges
        assert TOKENIZER.encode_documents(text) == expected
        data = write(tmp_path / f"{len(end)}", train=text, val=text.removesuffix(end))
        for tokens in token_files(data, tmp_path / f"out{len(end)}", TOKENIZER, 0.1):
            assert tokens.ids.tolist() == expected and tokens.n_bytes == sum(map(len, documents))


def test_train_and_val_files_are_taken_as_they_are(tmp_path):
    data = write(tmp_path, train="a\n<|endoftext|>\nb\n", val="c", other="d")
    assert split_documents(data, 0.5) == (["a\n", "b\n"], ["c"])


def test_other_files_are_split_by_document(tmp_path):
    """Each document by its own text: the rest of the folder changes nothing, and no document is
    cut."""
    documents = [f"document {n}\n" for n in range(200)]
    data = write(
        tmp_path / "a",
        one="<|endoftext|>\n".join(documents[:90]),
        two="<|endoftext|>\n".join(documents[90:]),
    )
    train, val = split_documents(data, 0.2)
    assert (
        sorted(train + val) == sorted(documents)
        and not set(train) & set(val)
        and 20 <= len(val) <= 60
    )
    more = write(tmp_path / "b", one="<|endoftext|>\n".join([*documents, "one more\n"]))
    assert set(val) <= set(split_documents(more, 0.2)[1])


def test_one_document_is_cut_at_its_end(tmp_path):
    data = write(tmp_path, a="0123456789") / "a.txt"
    assert split_documents(data, 0.2) == (["01234567"], ["89"])


def test_a_byte_order_mark_is_no_text(tmp_path):
    data = write(tmp_path, a=b"\xef\xbb\xbf0123456789")
    assert split_documents(data, 0.2)[0] == ["01234567"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no .txt file in this folder"),
        ({"a": ""}, "there is no text to train on"),
        ({"a": "\n<|endoftext|>\n \n"}, "there is no text to train on"),
        ({"a": "x"}, "there is no text to train on"),
        ({"train": "", "val": "x"}, "there is no text to train on"),
        ({"train": "x", "val": ""}, "there is no text for validation"),
        ({"a": b"caf\xe9"}, r"a.txt: not UTF-8 text \(.* at byte 3\)"),
    ],
)
def test_data_that_cannot_be_used(files, said, tmp_path):
    with pytest.raises(InputError, match=said):
        split_documents(write(tmp_path, **files), 0.1)
    with pytest.raises(InputError, match="there is no such folder or file"):
        split_documents(tmp_path / "none", 0.1)


# ---- token files


def test_token_files_hold_every_document_and_its_end(tmp_path):
    data = write(
        tmp_path / "data", train="the king\n<|endoftext|>\nthe wolf\n", val="the fox\u00e9"
    )
    train, val = token_files(data, tmp_path / "out", TOKENIZER, 0.1)
    end = TOKENIZER.eot_id
    assert train.ids.tolist() == [
        *TOKENIZER.encode("the king\n"),
        end,
        *TOKENIZER.encode("the wolf\n"),
        end,
    ]
    assert val.ids.tolist() == [*TOKENIZER.encode("the fox\u00e9"), end]
    assert train.ids.dtype == np.uint16 and not train.ids.flags.owndata  # mapped
    assert (train.n_bytes, val.n_bytes) == (18, 9)


def test_token_files_are_built_once_and_again_when_something_changes(tmp_path):
    data, out = write(tmp_path / "data", train="the king\n" * 9, val="the fox"), tmp_path / "out"
    built = []

    def made(tokenizer=TOKENIZER, fraction=0.1, **kwargs):
        tokens = token_files(data, out, tokenizer, fraction, **kwargs)
        built.append(os.stat(out / "train.npy").st_ino)
        return tokens[0].ids.tolist()

    first = made()
    assert made() == first and built[0] == built[1]
    write(data, train="the wolf\n" * 9)
    assert made() != first and built[2] != built[1]
    assert made(Tokenizer.train(["wolf wolf wolf"], 258)) != first and built[3] != built[2]
    made(fraction=0.2)
    assert built[4] != built[3]
    os.utime(data / "train.txt", (1, 1))
    made(fraction=0.2, changed=False)  # touched, copied: the same text
    assert built[5] == built[4]
    stat = os.stat(data / "train.txt")
    write(data, train="the king\n" * 9)  # as long as the wolf was
    os.utime(data / "train.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(
        InputError, match=r"--resume: train.txt in .* is not as it was when the run began"
    ):
        made(fraction=0.2, changed=False)


def test_token_files_half_built_are_built_again(tmp_path, monkeypatch):
    """Killed between the two files, then called for the text that the older one is of."""
    from minillm.training import data as room

    data, out = write(tmp_path / "data", train="the king\n" * 9, val="the fox"), tmp_path / "out"
    expected = token_files(data, out, TOKENIZER, 0.1)[0].ids.tolist()
    real = room.write_tokens

    def killed(path, *rest):
        if path.stem == "val":
            raise KeyboardInterrupt
        real(path, *rest)

    monkeypatch.setattr(room, "write_tokens", killed)
    with pytest.raises(KeyboardInterrupt):
        token_files(data, out, Tokenizer.train(["wolf wolf wolf"], 258), 0.1)
    monkeypatch.undo()
    assert token_files(data, out, TOKENIZER, 0.1)[0].ids.tolist() == expected
    assert json.loads((out / "tokens.json").read_text())["made_of"]["val_fraction"] == 0.1


# ---- batches


class Row:
    """n tokens, each its own place."""

    def __init__(self, n):
        self.ids = np.arange(n)

    def __len__(self):
        return len(self.ids)


def test_a_vocabulary_may_have_ids_without_a_token(tmp_path, small_tokenizer):
    """As one that is filled up to a round number has."""
    tokens = [*small_tokenizer.tokens, None, None, b"rare"]
    tokenizer = Tokenizer(tokens, small_tokenizer.merges, small_tokenizer.special_tokens)
    (tmp_path / "text.txt").write_text("the low lower lowest " * 200)
    for _ in range(2):  # made, and found again
        train, _ = token_files(tmp_path / "text.txt", tmp_path / "tokens", tokenizer, 0.1)
        assert len(train) > 200


def test_targets_are_the_ids_one_later():
    ids, targets = Batches(Row(100), 8, 4, seed=1).batch(0)
    assert ids.shape == targets.shape == (4, 8) and ids.dtype == np.int64
    np.testing.assert_array_equal(targets, ids + 1)


@pytest.mark.parametrize("n", [16, 17, 23, 24, 25, 31, 100, 107])
def test_an_epoch_takes_every_window_that_fits_once(n):
    """One after another without a gap, from an offset below the window's length; in 60 epochs every
    token is a target but the first, which nothing predicts, and no two orders are the same."""
    batches, done, targets, orders = Batches(Row(n), 8, 1, seed=2), 0, set(), set()
    for epoch in range(60):
        per_epoch = len(batches.starts(epoch))
        rows = np.array([batches.row(done + i) for i in range(per_epoch)])
        starts, done = sorted(rows[:, 0]), done + per_epoch
        assert starts == list(range(starts[0], n - 8, 8)) and 0 <= starts[0] < 8
        targets.update(rows[:, 1:].ravel().tolist())
        orders.add(tuple(rows[:, 0]))
    assert targets == set(range(1, n)) and (n < 100 or len(orders) == 60)


def test_batches_are_a_function_of_step_and_seed():
    one, other = Batches(Row(200), 8, 4, seed=3), Batches(Row(200), 8, 4, seed=3)
    in_order = [one.batch(step)[0].tolist() for step in range(20)]
    assert [other.batch(step)[0].tolist() for step in reversed(range(20))] == in_order[::-1]
    assert Batches(Row(200), 8, 4, seed=4).batch(0)[0].tolist() != in_order[0]


def test_processes_share_a_batch():
    batches = Batches(Row(200), 8, 6, seed=5)
    whole = batches.batch(7)[0]
    for size in (2, 3):
        parts = [batches.batch(7, rank, size)[0] for rank in range(size)]
        assert sorted(np.concatenate(parts).tolist()) == sorted(whole.tolist())


def test_a_text_too_short_says_how_much_is_needed():
    with pytest.raises(
        InputError, match="the text has 15 tokens; a window of 8 needs 16: more text, or --context"
    ):
        Batches(Row(15), 8, 1, seed=1)
    assert [len(Batches(Row(16), 8, 1, seed=1).starts(epoch)) for epoch in range(9)] == [1] * 9


def test_the_batches_of_0_1_leave_out_the_end():
    """The last window that would fit, or two: as many in every epoch, whatever its offset."""
    batches = BatchesOf01(Row(100), 8, 4, seed=2)
    for epoch in range(20):
        starts = np.sort(batches.starts(epoch))
        assert len(starts) == 100 // 8 - 2 and np.all(np.diff(starts) == 8) and starts[0] < 8
    assert len(BatchesOf01(Row(24), 8, 1, seed=1).starts(0)) == 1
    with pytest.raises(InputError, match="the text has 23 tokens; a window of 8 needs 24"):
        BatchesOf01(Row(23), 8, 1, seed=1)


@pytest.mark.parametrize(
    "name, value",
    [
        ("train", np.array([0, TOKENIZER.vocab_size], np.uint16)),
        ("val", np.array([0, 65535], np.uint16)),
        ("val", np.zeros(0, np.uint16)),
        ("bytes", {"train": 5, "val": 0}),
        ("bytes", {"train": -5, "val": 5}),
    ],
)
def test_token_files_of_something_else_are_refused(tmp_path, name, value):
    """Ids beyond the vocabulary would be looked up beyond the end of a table."""
    data, out = write(tmp_path / "data", train="the king", val="the fox"), tmp_path / "out"
    token_files(data, out, TOKENIZER, 0.1)
    if name == "bytes":
        index = json.loads((out / "tokens.json").read_text())
        (out / "tokens.json").write_text(json.dumps(index | {"bytes": value}))
    else:
        np.save(out / f"{name}.npy", value)
    with pytest.raises(InputError, match=r"not the tokens of this run's text: delete .*out, and"):
        token_files(data, out, TOKENIZER, 0.1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_a_named_pipe_among_the_texts_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    for data in (tmp_path, tmp_path / "a.txt"):
        with pytest.raises(InputError, match=r"a\.txt: not a regular file"):
            token_files(data, tmp_path / "out", TOKENIZER, 0.1)
