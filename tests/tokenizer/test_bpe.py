"""The tokenizer: known ids, hostile text, its work shown, learning, files; live: the same as
Hugging Face tokenizers."""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
import unicodedata
import weakref

import numpy as np
import pytest
import regex

from minillm import Tokenizer, samples
from minillm.checkpoints.find import bundled_names, find_folder
from minillm.errors import InputError
from minillm.tokenizer import END_OF_TEXT, GPT2_PATTERN, Merge, merge_by_hand


def without_surrogates(text: str) -> str:
    """What a tokenizer must give back: surrogate pairs joined, lone surrogates as U+FFFD; written
    apart from the package."""
    joined = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda m: m[0].encode("utf-16", "surrogatepass").decode("utf-16"),
        text,
    )
    return re.sub("[\ud800-\udfff]", "\ufffd", joined)


def learnt(tokenizer: Tokenizer) -> list[tuple[bytes, bytes]]:
    """The merges as pairs of bytes, in order."""
    return [(tokenizer.tokens[a], tokenizer.tokens[b]) for a, b in tokenizer.merges]


def merge_slowly(
    ranks: dict[tuple[bytes, bytes], int], data: bytes
) -> tuple[list[bytes], list[Merge]]:
    """Byte-pair encoding as the paper words it: again and again the lowest rank, the leftmost
    first. Return parts, merges."""
    parts, merges = [bytes([b]) for b in data], []
    while found := [(ranks[p], i) for i, p in enumerate(itertools.pairwise(parts)) if p in ranks]:
        rank, i = min(found)
        merges.append(Merge(rank, i, parts[i], parts[i + 1]))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts, merges


# ---- text -> ids


@pytest.mark.parametrize(
    "text, ids",
    [
        ("Hello world", [15496, 995]),
        (" Hello world", [18435, 995]),
        ("a  b   c", [64, 220, 275, 220, 220, 269]),
        ("tabs\t\tx\n\n\n y", [8658, 82, 197, 197, 87, 628, 198, 331]),
        ("\r\n a", [201, 198, 257]),
        ("it's I'M", [270, 338, 314, 6, 44]),
        ("<|endoftext|>", [27, 91, 437, 1659, 5239, 91, 29]),
        ("", []),
    ],
)
def test_gpt2_ids_are_the_published_ones(gpt2_tokenizer, text, ids):
    assert gpt2_tokenizer.encode(text) == ids
    assert gpt2_tokenizer.decode(ids) == text


def test_gpt2_vocabulary_has_256_bytes_50000_merges_and_one_special(gpt2_tokenizer):
    assert gpt2_tokenizer.vocab_size == 50257
    assert len(gpt2_tokenizer.merges) == 50000
    assert gpt2_tokenizer.special_tokens == {END_OF_TEXT: 50256}
    assert gpt2_tokenizer.eot_id == 50256


def test_hostile_text_comes_back(tokenizer, hostile_text):
    ids = tokenizer.encode(hostile_text)
    assert tokenizer.decode(ids) == without_surrogates(hostile_text)
    # written as plain text, a special is text
    assert not set(ids) & set(tokenizer.special_tokens.values())


def test_encoding_twice_gives_the_same_ids(small_tokenizer):
    text = "lowest widest lowest"  # the second time from memory
    assert small_tokenizer.encode(text) == small_tokenizer.encode(text)


def test_batch_takes_any_iterable(small_tokenizer):
    texts = ["the low", "", f"{END_OF_TEXT}a"]
    assert small_tokenizer.encode_batch(iter(texts), "all") == [
        small_tokenizer.encode(t, "all") for t in texts
    ]


@pytest.mark.parametrize("allowed", ["all", END_OF_TEXT, [END_OF_TEXT], iter([END_OF_TEXT])])
def test_allowed_special_becomes_its_own_id(small_tokenizer, allowed):
    ids = small_tokenizer.encode(f"the{END_OF_TEXT}{END_OF_TEXT} low", allowed)
    eot = small_tokenizer.eot_id
    assert ids == [*small_tokenizer.encode("the"), eot, eot, *small_tokenizer.encode(" low")]
    assert small_tokenizer.decode(ids) == f"the{END_OF_TEXT}{END_OF_TEXT} low"


def test_only_the_allowed_specials_and_the_longest_first():
    tokenizer = Tokenizer.train([], 300, ["<a>", "<a><b>", "終"])
    ids = tokenizer.special_tokens
    assert tokenizer.encode("<a><b><a>終", "all") == [ids["<a><b>"], ids["<a>"], ids["終"]]
    assert tokenizer.encode("<a>終", ["終"]) == [*tokenizer.encode("<a>"), ids["終"]]


def test_unknown_special_is_refused(small_tokenizer):
    with pytest.raises(InputError, match=r"'<pad>'.*endoftext"):
        small_tokenizer.encode("a", ["<pad>"])


# ---- its work shown


def test_explain_shows_the_merges_of_the_slow_algorithm(tokenizer, hostile_text):
    text = hostile_text[:300]  # the slow algorithm is quadratic
    ranks = {pair: rank for rank, pair in enumerate(learnt(tokenizer))}
    pieces = tokenizer.explain(text)
    assert "".join(piece.text for piece in pieces) == without_surrogates(text)
    assert [i for piece in pieces for i in piece.ids] == tokenizer.encode(text)
    for piece in pieces:
        assert piece.data == piece.text.encode()
        assert piece.tokens == tuple(tokenizer.tokens[i] for i in piece.ids)
        assert (list(piece.tokens), list(piece.merges)) == merge_slowly(ranks, piece.data)


def test_explain_of_a_special_is_one_piece_without_merges(small_tokenizer):
    text = f"low{END_OF_TEXT}"
    *_, last = small_tokenizer.explain(text, "all")
    assert (last.text, last.merges, last.ids) == (END_OF_TEXT, (), (small_tokenizer.eot_id,))
    assert small_tokenizer.explain(text)[-1].ids != last.ids


def by_hand(tokenizer: Tokenizer, text: str) -> list[bytes]:
    """The tokens of a text, each piece merged by hand."""
    ranks = {pair: rank for rank, pair in enumerate(learnt(tokenizer))}
    pieces = regex.findall(GPT2_PATTERN, without_surrogates(text))
    return [token for piece in pieces for token in merge_by_hand(piece.encode(), ranks)]


def test_the_hand_merges_hostile_text_as_encode_does(tokenizer, hostile_text):
    text = hostile_text[:600]  # the hand takes a time quadratic in a piece's length
    assert [tokenizer.tokens[i] for i in tokenizer.encode(text)] == by_hand(tokenizer, text)


@pytest.mark.parametrize("letters", ["ab", "aé ", "the low", "".join(map(chr, range(32, 600)))])
@pytest.mark.parametrize("seed", range(5))
def test_the_hand_merges_random_text_as_encode_does(tokenizer, letters, seed):
    text = "".join(random.Random(seed).choices(letters, k=200))
    assert [tokenizer.tokens[i] for i in tokenizer.encode(text)] == by_hand(tokenizer, text)


def test_the_hand_merges_tales_as_encode_does():
    tokenizer = Tokenizer.from_pretrained(find_folder("tales-draft"))
    text = (samples.FOLDER / "fables.txt").read_text(encoding="utf-8")[:20_000]
    assert [tokenizer.tokens[i] for i in tokenizer.encode(text)] == by_hand(tokenizer, text)


# ---- ids -> text


@pytest.mark.parametrize(
    "data, text",
    [
        (b"\xe2\x82", "\ufffd"),
        (b"a\xffb", "a\ufffdb"),
        (b"\x80\x80", "\ufffd\ufffd"),
        (b"\xe2\x82\xac", "€"),
    ],
)
def test_bytes_that_are_not_utf8_become_replacement_characters(small_tokenizer, data, text):
    ids = [small_tokenizer.tokens.index(bytes([b])) for b in data]
    assert small_tokenizer.decode_bytes(ids) == data
    assert small_tokenizer.decode(ids) == text


def test_decode_takes_numpy_ids(small_tokenizer):
    assert small_tokenizer.decode(np.array(small_tokenizer.encode("the low"))) == "the low"


@pytest.mark.parametrize("wrong", [-1, 10**9, 2**70])
def test_id_outside_the_vocabulary_is_named(small_tokenizer, wrong):
    with pytest.raises(
        InputError, match=f"id {wrong} is not in the vocabulary of {small_tokenizer.vocab_size}"
    ):
        small_tokenizer.decode([5, wrong])


@pytest.mark.parametrize(
    "wrong",
    [
        [1.5],
        [float("nan")],
        ["a"],
        [None],
        [[1, 2]],
        7,
        np.zeros((2, 2), int),
        np.zeros((1, 1), int),
        np.zeros(2),
    ],
    ids=repr,
)
def test_what_is_no_list_of_ids_is_refused(small_tokenizer, wrong):
    with pytest.raises(InputError):
        small_tokenizer.decode(wrong)


# ---- learning


def test_training_follows_the_paper_on_an_example_worked_by_hand():
    # ab 5 times, " ab" 3 times, "abc" 2 times: ab occurs 10 times, then " "+ab 3 times, then ab+c
    # twice.
    tokenizer = Tokenizer.train(["ab", "ab ab", "ab", "ab ab", "ab ab", "abc", "abc"], 1000)
    assert learnt(tokenizer) == [(b"a", b"b"), (b" ", b"ab"), (b"ab", b"c")]
    assert tokenizer.vocab_size == 256 + 3 + 1  # no pair left that occurs twice


def test_of_equally_frequent_pairs_the_lowest_ids_come_first():
    assert learnt(Tokenizer.train(["zy xw zy xw"] * 2, 257 + 2)) == [(b"x", b"w"), (b"z", b"y")]


def test_overlapping_pairs_are_replaced_from_the_left():
    assert learnt(Tokenizer.train(["aaaaa"] * 2, 257 + 3)) == [
        (b"a", b"a"),
        (b"aa", b"a"),
        (b"aa", b"aaa"),
    ]


def test_training_is_deterministic_and_reads_a_generator():
    texts = ["the cat sat", "the cat ran", "a cat sat on the mat", "the rat"] * 5
    assert learnt(Tokenizer.train(iter(texts), 290)) == learnt(Tokenizer.train(texts, 290)) != []


def test_training_forgets_each_text_before_it_reads_on():
    class Text(str):
        """A text that can be watched."""

    def texts():
        alive = []
        for i in range(20):
            text = Text(f"the number {i} " * 3)
            alive.append(weakref.ref(text))
            yield text
            del text
            assert sum(ref() is not None for ref in alive) <= 1  # the loop's own variable

    Tokenizer.train(texts(), 300)


def test_specials_cut_the_text_and_are_never_merged():
    tokenizer = Tokenizer.train([f"ab{END_OF_TEXT}ab|" * 50], 400)
    assert learnt(tokenizer) == [(b"a", b"b")]  # neither "<|" nor "bab" nor "endoftext"
    assert tokenizer.tokens[tokenizer.eot_id] == END_OF_TEXT.encode()
    assert tokenizer.eot_id == tokenizer.vocab_size - 1


@pytest.mark.parametrize("texts", [[], [""], ["ab"]])
def test_with_too_few_texts_there_are_fewer_tokens(texts):
    tokenizer = Tokenizer.train(texts, 1000)
    assert tokenizer.vocab_size == 257
    assert tokenizer.decode(tokenizer.encode("any téxt")) == "any téxt"


def test_vocabulary_must_hold_the_bytes_and_the_specials():
    assert Tokenizer.train(["aa"] * 9, 258, ["<a>", "<b>"]).merges == []
    with pytest.raises(InputError, match="vocab_size 257 is too small"):
        Tokenizer.train(["aa"] * 9, 257, ["<a>", "<b>"])


@pytest.mark.parametrize("special", ["", "\ud800"], ids=ascii)
def test_a_special_that_no_file_can_hold_is_refused(special):
    with pytest.raises(InputError, match="special"):
        Tokenizer.train([], 300, [special])


# ---- files


@pytest.fixture
def folder(small_tokenizer, tmp_path):
    """The small tokenizer in GPT-2's own two files alone."""
    small_tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    return tmp_path


def test_save_and_load_is_the_identity(tmp_path):
    tokenizer = Tokenizer.train(
        ["the low lower lowest größer größte 終わり "] * 3, 290, [END_OF_TEXT, "<|終 End|>", "a b"]
    )
    tokenizer.save(tmp_path / "new" / "folder")
    loaded = Tokenizer.from_pretrained(tmp_path / "new" / "folder")
    for part in ("tokens", "merges", "special_tokens"):
        assert getattr(loaded, part) == getattr(tokenizer, part), part


def test_saved_files_are_gpt2s_own(gpt2_tokenizer, shared_data, tmp_path):
    gpt2_tokenizer.save(tmp_path)
    original = (shared_data / "gpt2" / "merges.txt").read_text(encoding="utf-8")
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8").removeprefix(
        "#version: 0.2\n"
    ) == original
    original = json.loads((shared_data / "gpt2" / "vocab.json").read_bytes())
    assert json.loads((tmp_path / "vocab.json").read_bytes()) == original


def test_a_special_whose_name_a_token_bears_cannot_be_saved(tmp_path):
    tokenizer = Tokenizer.train(["x x x"], 300, ["Ġx"])  # in vocab.json " x" is written "Ġx" too
    with pytest.raises(InputError, match="'Ġx'"):
        tokenizer.save(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"#version: 0.2\n", b""),
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.rstrip(b"\n"),
        lambda text: text + b"\n\n",
    ],
    ids=["no version line", "CRLF", "no last newline", "empty lines"],
)
def test_merges_file_may_be_written_in_other_ways(small_tokenizer, folder, change):
    file = folder / "merges.txt"
    changed = change(file.read_bytes())
    assert changed != file.read_bytes()
    file.write_bytes(changed)
    assert Tokenizer.from_pretrained(folder).merges == small_tokenizer.merges


def test_a_vocabulary_may_have_holes(small_tokenizer, folder):
    file, n = folder / "vocab.json", small_tokenizer.vocab_size
    vocab = json.loads(file.read_bytes())
    file.write_text(
        json.dumps({t: i if i < 7 else i + 2 for t, i in vocab.items()} | {"<x>": n + 5})
    )
    tokenizer = Tokenizer.from_pretrained(folder)
    assert (tokenizer.vocab_size, tokenizer.ids_without_token(9)) == (n + 6, [7, 8])
    assert tokenizer.ids_without_token(n + 8) == [7, 8, n + 2, n + 3, n + 4, n + 6, n + 7]
    text = "the lower, newest and widest <x>"
    ids = tokenizer.encode(text, allowed_special="all")
    assert ids[-1] == n + 5 and tokenizer.decode(ids) == text
    assert [i if i < 7 else i - 2 for i in ids[:-1]] == small_tokenizer.encode(text[:-3])
    for hole in (7, n + 2):
        with pytest.raises(InputError, match=f"id {hole} has no token"):
            tokenizer.decode([65, hole])
    tokenizer.save(folder)
    assert Tokenizer.from_pretrained(folder).tokens == tokenizer.tokens


def vocabulary_without(token: str):
    """Leave one token out and number the others anew, so that only its absence is wrong."""
    return lambda vocab: {t: i for i, t in enumerate(t for t in vocab if t != token)}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda vocab: vocab | {"twice": 5}, "has the id 5, and so has 'twice'"),
        (lambda vocab: vocab | {"negative": -1}, "id -1: ids must be 0 to"),
        (lambda vocab: vocab | {"far": 10**300}, "id 10000.*: ids must be 0 to"),
        (vocabulary_without("é"), "the byte 'é'"),
        (lambda vocab: vocab | {"x": "5"}, "not a table"),
        (lambda vocab: vocab | {"x": True}, "not a table"),
        (lambda vocab: vocab | {"x": 1.0}, "not a table"),
        (lambda vocab: [*vocab], "not a table"),
        (lambda vocab: {}, "is missing"),
        (lambda vocab: vocab | {"": len(vocab)}, "special"),
        (lambda vocab: vocab | {"\ud800": len(vocab)}, "special"),
    ],
)
def test_wrong_vocabulary_is_refused(folder, change, message):
    file = folder / "vocab.json"
    file.write_text(json.dumps(change(json.loads(file.read_bytes()))))
    with pytest.raises(InputError, match=message) as error:
        Tokenizer.from_pretrained(folder)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    "line, message",
    [
        (b"zz z", "'zz'"),
        (b"z zz", "'zz'"),
        (b"z z", "'zz'"),
        (b"z", "needs ''"),
        (b"z ", "needs ''"),
        (b" z", "needs ''"),
        (b"t h e", "'h e'"),
        (b"\xff\xfe", "not UTF-8"),
    ],
    ids=repr,
)
def test_wrong_merge_is_refused(folder, line, message):
    file = folder / "merges.txt"
    file.write_bytes(b"#version: 0.2\n" + line + b"\n")
    with pytest.raises(InputError, match=message) as error:
        Tokenizer.from_pretrained(folder)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("special", [END_OF_TEXT, "終"])
def test_a_merge_of_a_token_that_no_merge_makes_is_refused(folder, special):
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab = json.loads(vocab_file.read_bytes())
    for token in (special, f"{special}a"):
        vocab.setdefault(token, len(vocab))
    vocab_file.write_text(json.dumps(vocab))
    merges_file.write_text(
        merges_file.read_text(encoding="utf-8") + f"{special} a\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match=re.escape(repr(special))) as error:
        Tokenizer.from_pretrained(folder)
    assert str(merges_file) in str(error.value)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=re.escape(str(folder / name))):
        Tokenizer.from_pretrained(folder)


# ---- live: the tokenizers library is the oracle


@pytest.fixture(scope="module", params=["gpt2", "trained", *bundled_names()])
def both(request, tmp_path_factory):
    """Our tokenizer and the library's, of the same files: GPT-2's, of our training, and of every
    bundled model."""
    library = pytest.importorskip(
        "tokenizers", reason="the oracle: pip install tokenizers (extra: reference)"
    )
    if request.param == "gpt2":
        folder = request.getfixturevalue("shared_data") / "gpt2"
    elif request.param == "trained":
        folder = tmp_path_factory.mktemp("trained")
        lines = (request.getfixturevalue("shared_data") / "tales" / "val.txt").read_text(
            encoding="utf-8"
        )[:100_000]
        Tokenizer.train([lines], 600).save(folder)
    else:
        folder = find_folder(request.param)
    theirs = library.ByteLevelBPETokenizer.from_file(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    )
    return Tokenizer.from_pretrained(folder), theirs


@pytest.mark.live
def test_same_ids_as_the_library_on_tales(both, shared_data):
    ours, theirs = both
    text = (shared_data / "tales" / "val.txt").read_text(encoding="utf-8")
    assert ours.encode(text) == theirs.encode(text).ids


@pytest.mark.live
def test_same_ids_as_the_library_on_hostile_text(both, hostile_text):
    ours, theirs = both
    # it takes no surrogates
    assert ours.encode(hostile_text) == theirs.encode(without_surrogates(hostile_text)).ids


@pytest.mark.live
@pytest.mark.skipif(
    unicodedata.unidata_version != "14.0.0",
    reason="only Python 3.11 lists the characters assigned in Unicode 14.0",
)
def test_same_ids_as_the_library_on_random_text(both):
    ours, theirs = both
    by_category: dict[str, list[str]] = {}
    for char in map(chr, range(sys.maxunicode + 1)):
        if (category := unicodedata.category(char)) not in ("Cn", "Cs"):  # unassigned; surrogates
            by_category.setdefault(category, []).append(char)
    everything = [char for chars in by_category.values() for char in chars]
    rng = random.Random(0)
    for i in range(
        2000
    ):  # every other string draws the category first: otherwise almost all is CJK and private use
        pick = (
            rng.choice if i % 2 else lambda _: rng.choice(by_category[rng.choice([*by_category])])
        )
        text = "".join(pick(everything) for _ in range(rng.randint(1, 50)))
        assert ours.encode(text) == theirs.encode(text).ids, ascii(text)


@pytest.mark.live
def test_decode_equals_the_library_on_random_ids(both):
    ours, theirs = both
    rng = random.Random(1)
    for _ in range(500):
        ids = [rng.randrange(ours.vocab_size) for _ in range(rng.randint(0, 20))]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)


@pytest.mark.live
def test_training_learns_the_merges_of_the_library(shared_data, tmp_path):
    library = pytest.importorskip(
        "tokenizers", reason="the oracle: pip install tokenizers (extra: reference)"
    )
    text = (shared_data / "tales" / "val.txt").read_text(encoding="utf-8")[:400_000]
    # the library's trainer counts specials as words
    lines = text.replace(END_OF_TEXT, "").splitlines(keepends=True)
    theirs = library.ByteLevelBPETokenizer()
    theirs.train_from_iterator(
        lines, vocab_size=2000, min_frequency=2, special_tokens=[END_OF_TEXT], show_progress=False
    )
    theirs.save_model(str(tmp_path))
    ours = Tokenizer.train(lines, 2000)
    ours.save(tmp_path / "ours")
    assert (tmp_path / "ours" / "merges.txt").read_text(encoding="utf-8") == (
        tmp_path / "merges.txt"
    ).read_text(encoding="utf-8")
    assert len(ours.merges) == 2000 - 257
