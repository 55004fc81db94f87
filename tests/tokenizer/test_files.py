"""tokenizer.json and what stands beside it: read in every form, written, refused by name; live: the
same ids as the tokenizers library and transformers."""

from __future__ import annotations

import json
import random
from functools import cache
from unicodedata import category

import pytest

from minillm import Tokenizer
from minillm.errors import InputError
from minillm.tokenizer import END_OF_TEXT, GPT2_PATTERN, merge_by_hand
from minillm.tokenizer.patterns import NAMES
from tests.conftest import HOSTILE

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
SPLIT = {
    "type": "Split",
    "pattern": {"Regex": GPT2_PATTERN},
    "behavior": "Isolated",
    "invert": False,
}
ONLY_THE_TEXT = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}


def cut_by(*steps: dict, then_by_gpt2: bool = False) -> dict:
    """A pre-tokenizer that takes these steps before bytes are written as characters."""
    return {
        "type": "Sequence",
        "pretokenizers": [*steps, BYTE_LEVEL | {"use_regex": then_by_gpt2}],
    }


TEXT = f"the low, lower{END_OF_TEXT}  lowest\n\n it's the  wide<pad>st"


def added(i: int, content: str, **flags) -> dict:
    """An added token as tokenizer.json has it; a special one unless `flags` say otherwise."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": content, **plain, "special": True, **flags}


@pytest.fixture
def folder(small_tokenizer, tmp_path):
    """The small tokenizer in tokenizer.json alone, as transformers 5 leaves it."""
    small_tokenizer.save(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    return tmp_path


def change(folder, model=None, **values) -> None:
    """Change entries of tokenizer.json, or of its model."""
    file = folder / "tokenizer.json"
    data = json.loads(file.read_bytes())
    data["model"] |= model or {}
    file.write_text(json.dumps(data | values))


def parts(tokenizer: Tokenizer) -> dict:
    names = ("tokens", "merges", "special_tokens", "added_tokens", "normalized", "config")
    return {name: getattr(tokenizer, name) for name in names}


# ---- read


def test_tokenizer_json_alone_is_enough(folder, small_tokenizer):
    assert parts(Tokenizer.from_pretrained(folder)) == parts(small_tokenizer)


@pytest.mark.parametrize(
    "values",
    [
        {"pre_tokenizer": BYTE_LEVEL | {"use_regex": True}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL]}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [SPLIT, BYTE_LEVEL | {"use_regex": False}],
            }
        },
        {"normalizer": {"type": "Sequence", "normalizers": []}},
        {"post_processor": None, "decoder": None},
        {"post_processor": ONLY_THE_TEXT},
        {"post_processor": {"type": "Sequence", "processors": [BYTE_LEVEL, ONLY_THE_TEXT]}},
        {"truncation": {"max_length": 1}, "padding": {"pad_id": 3}},
        {"model": {"dropout": 0.0, "end_of_word_suffix": "", "unk_token": "a", "fuse_unk": True}},
    ],
    ids=repr,
)
def test_other_words_for_the_same_tokenizer(folder, small_tokenizer, values):
    change(folder, **values)
    assert Tokenizer.from_pretrained(folder).encode(TEXT) == small_tokenizer.encode(TEXT)


def test_merges_may_be_pairs(folder, small_tokenizer):
    merges = json.loads((folder / "tokenizer.json").read_bytes())["model"]["merges"]
    change(folder, {"merges": [merge.split(" ") for merge in merges]})
    assert Tokenizer.from_pretrained(folder).merges == small_tokenizer.merges


def test_openais_own_names_of_the_files(small_tokenizer, tmp_path):
    small_tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").rename(tmp_path / "encoder.json")
    (tmp_path / "merges.txt").rename(tmp_path / "vocab.bpe")
    assert parts(Tokenizer.from_pretrained(tmp_path))["tokens"] == small_tokenizer.tokens


def test_without_any_file_they_are_named(tmp_path):
    with pytest.raises(
        InputError, match=r"has no tokenizer\.json, nor vocab\.json and merges\.txt"
    ):
        Tokenizer.from_pretrained(tmp_path)


def test_added_tokens_are_found_in_every_text_and_specials_where_allowed(folder, small_tokenizer):
    n = small_tokenizer.vocab_size
    the = small_tokenizer.encode("the")[0]  # a token that merges make, found whole from now on
    ends = small_tokenizer.special_tokens[END_OF_TEXT]
    change(
        folder,
        added_tokens=[
            added(the, "the", special=False, normalized=True),
            added(ends, END_OF_TEXT),
            added(n, "<pad>"),
            added(n + 1, "  ", special=False, normalized=True),
        ],
    )
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.special_tokens == {END_OF_TEXT: ends, "<pad>": n}
    assert tokenizer.added_tokens == {"the": the, "  ": n + 1}
    plain = small_tokenizer.encode
    assert tokenizer.encode("lower  <pad>") == [*plain("lower"), n + 1, *plain("<pad>")]
    assert tokenizer.encode("lower  <pad>", "all") == [*plain("lower"), n + 1, n]
    assert tokenizer.encode("bathed") == [*plain("ba"), the, *plain("d")]
    assert tokenizer.decode(tokenizer.encode("the  bath<pad>", "all")) == "the  bath<pad>"


def test_normalized_tokens_are_looked_for_after_the_others(folder, small_tokenizer):
    n = small_tokenizer.vocab_size
    change(folder, added_tokens=[added(n - 1, END_OF_TEXT), added(n, "bc"), added(n + 1, "ab")])
    assert Tokenizer.from_pretrained(folder).encode("abc", "all")[0] == n + 1
    change(
        folder,
        added_tokens=[
            added(n - 1, END_OF_TEXT),
            added(n, "bc"),
            added(n + 1, "ab", normalized=True),
        ],
    )
    assert Tokenizer.from_pretrained(folder).encode("abc", "all")[-1] == n


@pytest.mark.parametrize("declared", ["added_tokens.json", "tokenizer_config.json"])
def test_added_tokens_that_older_versions_of_transformers_wrote(
    small_tokenizer, tmp_path, declared
):
    small_tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    n = small_tokenizer.vocab_size
    if declared == "added_tokens.json":
        (tmp_path / declared).write_text(json.dumps({"<pad>": n}))
    else:
        decoder = {
            str(n): {"content": "<pad>", "special": True},
            str(n - 1): {"content": END_OF_TEXT},
        }
        decoder = dict(sorted(decoder.items()))
        (tmp_path / declared).write_text(json.dumps({"added_tokens_decoder": decoder}))
    assert Tokenizer.from_pretrained(tmp_path).special_tokens == {END_OF_TEXT: n - 1, "<pad>": n}


# ---- what stands beside it


def test_the_ends_and_the_chat_template_are_kept(folder, tmp_path_factory):
    config = {"eos_token": {"content": "</s>"}, "bos_token": None, "model_max_length": 5}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}\n{{ m }}{% endfor %}")
    data = json.loads((folder / "tokenizer.json").read_bytes())
    n = len(data["model"]["vocab"])
    del data["model"]["vocab"][END_OF_TEXT]
    change(folder, {"vocab": data["model"]["vocab"]}, added_tokens=[added(n - 1, "</s>")])
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.eot_id == n - 1
    tokenizer.save(tmp_path_factory.mktemp("again"))
    again = Tokenizer.from_pretrained(tmp_path_factory.getbasetemp() / "again0")
    assert again.config["chat_template"] == "{% for m in messages %}\n{{ m }}{% endfor %}"
    assert parts(again) == parts(tokenizer)


def test_an_end_that_the_config_alone_names_is_special(folder):
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END_OF_TEXT}))
    change(folder, added_tokens=[])
    assert Tokenizer.from_pretrained(folder).special_tokens.keys() == {END_OF_TEXT}


@pytest.mark.parametrize(
    "config, message",
    [
        ({"add_prefix_space": True}, "add_prefix_space is set"),
        ({"add_bos_token": True}, "add_bos_token is set"),
        ({"eos_token": ["a"]}, "eos_token is"),
        ({"eos_token": {"content": 3}}, "eos_token is"),
        ([], "not a table"),
    ],
    ids=repr,
)
def test_a_config_that_cannot_be_honoured(folder, config, message):
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message) as error:
        Tokenizer.from_pretrained(folder)
    assert str(folder / "tokenizer_config.json") in str(error.value)


def test_an_id_that_both_files_add_is_added(folder, small_tokenizer):
    end = small_tokenizer.eot_id
    special = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}
    post = {
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [end], "tokens": [END_OF_TEXT]}},
    }
    change(folder, post_processor=post)
    config = {"bos_token": END_OF_TEXT, "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.from_pretrained(folder).template == ((end,), ())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"add_eos_token": True}))
    with pytest.raises(InputError, match=r"add_eos_token is set; minillm adds what .* does, \(\)"):
        Tokenizer.from_pretrained(folder)


# ---- refused by name


@pytest.mark.parametrize(
    "values, message",
    [
        ({"model": {"type": "Unigram"}}, "type is 'Unigram'"),
        ({"model": {"dropout": 0.1}}, r"dropout is 0\.1"),
        ({"model": {"end_of_word_suffix": "</w>"}}, "end_of_word_suffix is '</w>'"),
        ({"model": {"continuing_subword_prefix": "##"}}, "continuing_subword_prefix is '##'"),
        ({"model": {"ignore_merges": "yes"}}, "ignore_merges is 'yes'"),
        ({"model": {"merges": {}}}, "merges is {}, not a list"),
        ({"model": {"merges": None}}, "merges is None, not a list"),
        ({"model": {"merges": "t h"}}, "merges is 't h', not a list"),
        ({"model": {"merges": [["t", "h", "e"]]}}, r"merge 0: \['t', 'h', 'e'\] is not a pair"),
        ({"model": {"merges": ["t h e"]}}, "merge 0: 't h e' is not a pair"),
        ({"model": {"merges": [["t", 5]]}}, "is not a pair"),
        ({"model": {"merges": ["t zz"]}}, "merge 0: 't' with 'zz' needs 'zz'"),
        ({"model": {"vocab": []}}, "not a table"),
        ({"model": {"vocab": {"<a>": 0}}}, "the byte '!'"),
        ({"model": {"vocab": {"a": 0}}}, "is not in the vocabulary"),
        (
            {"model": {"vocab": {"a": 0}, "merges": [], "unk_token": "a"}, "added_tokens": []},
            "unk_token is 'a'",
        ),
        (
            {"model": {"vocab": {"a": 0}, "merges": [], "byte_fallback": True}, "added_tokens": []},
            "byte_fallback",
        ),
        ({"normalizer": {"type": "NFKC"}}, "normalizer is {'type': 'NFKC'}"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}}, "Lowercase"),
        ({"pre_tokenizer": None}, "pre_tokenizer is None"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "'Whitespace'"),
        ({"pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": True}}, "'add_prefix_space': True"),
        ({"pre_tokenizer": BYTE_LEVEL | {"use_regex": False}}, "'use_regex': False"),
        *(
            ({"pre_tokenizer": cut_by(step)}, message)
            for digits in [SPLIT | {"pattern": {"Regex": "[0-9]"}}]
            for step, message in [
                ({"type": "Whitespace"}, "'Whitespace'"),
                ({"type": "Digits", "individual_digits": "yes"}, "'Digits'"),
                (digits | {"behavior": "Removed"}, "'Removed'"),
                (digits | {"invert": True}, "'invert': True"),
                (SPLIT | {"pattern": {"String": "x"}}, "'String': 'x'"),
                (SPLIT | {"pattern": {"Regex": "("}}, "is none .missing"),
                (SPLIT | {"pattern": {"Regex": "x*"}}, "matches where nothing stands"),
                (SPLIT | {"pattern": {"Regex": "^x"}}, "may read otherwise"),
            ]
        ),
        (
            {
                "post_processor": ONLY_THE_TEXT
                | {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}
            },
            "'<s>'",
        ),
        ({"post_processor": {"type": "BertProcessing"}}, "'BertProcessing'"),
        ({"post_processor": [1]}, "not a table"),
        ({"decoder": {"type": "WordPiece"}}, "'WordPiece'"),
        ({"added_tokens": [added(0, "x")]}, "'x' has the id 0; its place"),
        ({"added_tokens": [added(10**6, "<pad>")]}, "'<pad>' has the id 1000000; its place"),
        ({"added_tokens": [added(0, "!", lstrip=True)]}, "'!' asks for lstrip"),
        ({"added_tokens": [added(0, "!", single_word=True)]}, "'!' asks for single_word"),
        ({"added_tokens": [{"id": True, "content": "x"}]}, "has no content or id"),
        ({"added_tokens": [5]}, "not a table"),
        ({"added_tokens": {"a": 1}}, "added_tokens is .* not a list"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_cannot_be_honoured_is_refused_by_name(folder, values, message):
    change(folder, **values)
    with pytest.raises(InputError, match=message) as error:
        Tokenizer.from_pretrained(folder)
    assert str(folder / "tokenizer.json") in str(error.value) and len(str(error.value)) < 500


def test_a_token_in_other_characters_is_refused(folder, small_tokenizer):
    data = json.loads((folder / "tokenizer.json").read_bytes())
    change(folder, {"vocab": data["model"]["vocab"] | {"▁the": small_tokenizer.vocab_size}})
    with pytest.raises(InputError, match="'▁the' is not written in the characters"):
        Tokenizer.from_pretrained(folder)


# ---- other kinds than GPT-2's


def small(**values) -> dict:
    """tokenizer.json of eight tokens: most bytes have none."""
    vocab = {"a": 0, "b": 1, "1": 2, "\u0120": 3, "ab": 4, "11": 5, "\u00c3": 6, "\u00a9": 7}
    model = {"type": "BPE", "vocab": vocab, "merges": ["a b", "1 1"]} | values.pop("model", {})
    return {"model": model, "pre_tokenizer": BYTE_LEVEL} | values


@pytest.mark.parametrize(
    "values, text, ids",
    [
        ({}, "ab 11", [4, 3, 5]),
        ({}, "1!1 !ab", [2, 2, 3, 4]),
        ({}, "!\U00040000", []),
        (
            {"pre_tokenizer": cut_by({"type": "Digits", "individual_digits": True})},
            "ab11",
            [4, 2, 2],
        ),
        ({"pre_tokenizer": cut_by({"type": "Digits"})}, "ab11", [4, 5]),
        ({"pre_tokenizer": cut_by(SPLIT | {"pattern": {"Regex": "a"}})}, "ab11", [0, 1, 5]),
        ({}, "e\u0301", []),
        ({"normalizer": {"type": "NFC"}}, "e\u0301", [6, 7]),
        ({"model": {"merges": [], "ignore_merges": True}}, "ab a1", [4, 3, 0, 2]),
        ({"model": {"merges": []}}, "ab", [0, 1]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_ids_of_other_kinds(tmp_path, values, text, ids):
    (tmp_path / "tokenizer.json").write_text(json.dumps(small(**values)))
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    for _ in range(2):
        assert tokenizer.encode(text) == ids
    assert [i for piece in tokenizer.explain(text) for i in piece.ids] == ids
    tokenizer.save(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).encode(text) == ids


def test_bytes_without_a_token_go_before_merging(tmp_path):
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(small(pre_tokenizer=cut_by(SPLIT | {"pattern": {"Regex": "x"}})))
    )
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("a!b1!1") == [4, 5]
    (piece,) = tokenizer.explain("a!b")
    assert (piece.data, piece.tokens) == (b"a!b", (b"ab",)) and len(piece.merges) == 1
    assert merge_by_hand(b"a!b", {(b"a", b"b"): 0}) == [b"a", b"!", b"b"]


def test_a_template_is_added_where_asked_for(folder, small_tokenizer):
    end = small_tokenizer.eot_id
    special = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}
    named = {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [end], "tokens": [END_OF_TEXT]}}
    single = [special, {"Sequence": {"id": "A", "type_id": 0}}, special, special]
    post = {"type": "TemplateProcessing", "single": single, "special_tokens": named}
    change(folder, post_processor={"type": "Sequence", "processors": [BYTE_LEVEL, post]})
    tokenizer, plain = Tokenizer.from_pretrained(folder), small_tokenizer.encode("low")
    assert tokenizer.template == ((end,), (end, end)) and tokenizer.encode("low") == plain
    assert tokenizer.encode("low", add_special_tokens=True) == [end, *plain, end, end]
    for begun in ("low", END_OF_TEXT + "low"):
        assert tokenizer.encode_prompt(begun) == [end, *plain]
    assert tokenizer.encode_prompt("") == [end] and small_tokenizer.encode_prompt("") == []
    assert tokenizer.encode_documents("low") == [end, *tokenizer.encode("low")]  # what is scored
    named[END_OF_TEXT]["ids"] = [297]
    change(folder, post_processor=post)
    with pytest.raises(InputError, match="adds the id 297, which is no token"):
        Tokenizer.from_pretrained(folder)


# ---- written


def test_everything_comes_back(folder, small_tokenizer, tmp_path_factory):
    n = small_tokenizer.vocab_size
    tokenizer = Tokenizer(
        [*small_tokenizer.tokens, b"<a>", "終 b".encode()],
        small_tokenizer.merges,
        small_tokenizer.special_tokens | {"<a>": n},
        {"終 b": n + 1},
        {"<a>", "終 b"},
        {"eos_token": END_OF_TEXT},
    )
    again = tmp_path_factory.mktemp("again")
    tokenizer.save(again)
    assert parts(Tokenizer.from_pretrained(again)) == parts(tokenizer)


# ---- live: the library and transformers are the oracle


@pytest.fixture
def library():
    return pytest.importorskip(
        "tokenizers", reason="the oracle: pip install tokenizers (extra: reference)"
    )


@cache
def random_texts(n: int, seed: int = 0) -> list[str]:
    """Texts of characters that Unicode 14 assigns, every category but surrogates, among the ones
    at which patterns cut."""
    draw = random.Random(seed)
    assigned = [c for c in map(chr, range(0x110000)) if category(c) not in ("Cn", "Cs")]
    common = "ab 1Z'\n\r\t\u00a0\u3000.,!\u0301\x04\u0085\u200b"
    return [
        "".join(draw.choice(draw.choice([common, assigned])) for _ in range(draw.randrange(1, 30)))
        for _ in range(n)
    ]


def of_the_library(library, texts, tmp_path, merges=300, alphabet=True, **parts):
    """A tokenizer that the library trained on `texts`, and ours of the file that it wrote."""
    theirs = library.Tokenizer(library.models.BPE())
    theirs.pre_tokenizer = parts.get("pre_tokenizer", library.pre_tokenizers.ByteLevel(False))
    theirs.decoder = library.decoders.ByteLevel()
    if "normalizer" in parts:
        theirs.normalizer = parts["normalizer"]
    trainer = library.trainers.BpeTrainer(
        vocab_size=256 + merges,
        show_progress=False,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet() if alphabet else [],
    )
    theirs.train_from_iterator(texts, trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    return theirs, Tokenizer.from_pretrained(tmp_path)


TEXTS = [*(t for t in HOSTILE.values() if t.isascii() or len(t) < 1000), TEXT, "abc the  abc"]


def assert_same_ids(ours: Tokenizer, theirs) -> None:
    for text in TEXTS:
        if text == text.encode("utf-8", "replace").decode():  # the library takes no surrogates
            ids = ours.encode(text, "all")
            assert ids == theirs.encode(text, add_special_tokens=False).ids, ascii(text[:60])
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)


@pytest.mark.live
def test_the_library_reads_what_we_write(library, tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert_same_ids(tokenizer, library.Tokenizer.from_file(str(tmp_path / "tokenizer.json")))


@pytest.mark.live
def test_we_read_what_the_library_writes(library, gpt2_tokenizer, shared_data, tmp_path):
    files = [str(shared_data / "gpt2" / name) for name in ("vocab.json", "merges.txt")]
    theirs = library.ByteLevelBPETokenizer(*files)._tokenizer
    theirs.add_special_tokens([END_OF_TEXT, "<pad>"])
    theirs.add_tokens(["bc", "  ", "the", library.AddedToken("ab", normalized=False)])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_pretrained(tmp_path)
    assert ours.added_tokens.keys() == {"bc", "  ", "the", "ab"}
    assert_same_ids(ours, theirs)
    ours.save(tmp_path / "again")
    again = library.Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    assert_same_ids(ours, again)


@pytest.mark.live
@pytest.mark.parametrize("ends", [(END_OF_TEXT,), ()], ids=["with an end", "without"])
def test_transformers_reads_what_we_write_and_we_what_it_writes(tmp_path, ends):
    transformers = pytest.importorskip(
        "transformers", reason="the oracle: pip install transformers (extra: reference)"
    )
    ours = Tokenizer.train([TEXT] * 3, 290, ends)
    ours.save(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert len(theirs) == ours.vocab_size and theirs.eos_token_id == ours.eot_id
    assert theirs(TEXT)["input_ids"] == ours.encode(TEXT, "all")
    theirs.chat_template = "{{ messages }}"
    theirs.add_special_tokens({"pad_token": "<pad>"})
    theirs.save_pretrained(tmp_path / "theirs")
    again = Tokenizer.from_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs" / "vocab.json").exists()
    assert theirs(TEXT)["input_ids"] == again.encode(TEXT, "all")
    assert again.config["chat_template"] == "{{ messages }}" and again.eot_id == ours.eot_id


def pre_tokenizers_of(library) -> dict:
    pre = library.pre_tokenizers
    written, later = pre.ByteLevel(False, use_regex=False), pre.ByteLevel(False)
    cut = {name: [pre.Split(library.Regex(p), "isolated") for p in parts] for parts, name in CUTS}
    return {name: pre.Sequence([*splits, written]) for name, splits in cut.items()} | {
        "GPT-2": later,
        "digits": pre.Sequence([pre.Digits(True), later]),
        "numbers": pre.Sequence([pre.Digits(False), later]),
        "digits, llama": pre.Sequence([pre.Digits(True), *cut["llama-bpe folded"], written]),
    }


CUTS = [(p, f"{name} folded" if "(?i:" in p[0] else name) for p, name in NAMES.items()]
CUTS += [((r"(a|e)?[^\s\p{L}]+", r"[\p{Lu}\p{M}]|\d{1,2}"), "our own")]
CUT_BY = [*(name for _, name in CUTS), "GPT-2", "digits", "numbers", "digits, llama"]


@pytest.mark.live
@pytest.mark.parametrize("cut", CUT_BY)
def test_every_pattern_cuts_as_in_the_library(library, shared_data, tmp_path, cut):
    prose = (shared_data / "tales" / "val.txt").read_text(encoding="utf-8")[:60_000]
    pre_tokenizer = pre_tokenizers_of(library)[cut]
    theirs, ours = of_the_library(library, [prose], tmp_path, pre_tokenizer=pre_tokenizer)
    ours.save(tmp_path / "again")
    again = library.Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    assert_same_ids(ours, theirs)
    for text in [prose, *random_texts(2000)]:
        ids = ours.encode(text, "all")
        assert ids == theirs.encode(text).ids == again.encode(text).ids, ascii(text[:60])


@pytest.mark.live
@pytest.mark.parametrize("kind", ["NFC", "ignore_merges", "bytes without a token", "template"])
def test_every_other_kind_is_as_in_the_library(library, shared_data, tmp_path, kind):
    prose = (shared_data / "tales" / "val.txt").read_text(encoding="utf-8")[:60_000]
    parts = {"normalizer": library.normalizers.NFC()} if kind == "NFC" else {}
    alphabet = kind != "bytes without a token"
    theirs, ours = of_the_library(library, [prose], tmp_path, alphabet=alphabet, **parts)
    if kind == "NFC":
        theirs.add_tokens(["e\u0301", library.AddedToken("a\u0301", normalized=False)])
    if kind == "template":
        post = library.processors.TemplateProcessing(
            single=f"{END_OF_TEXT} $A {END_OF_TEXT} {END_OF_TEXT}",
            special_tokens=[(END_OF_TEXT, 0)],
        )
        theirs.post_processor = post
    theirs.save(str(tmp_path / "tokenizer.json"))
    if kind == "ignore_merges":
        data = json.loads((tmp_path / "tokenizer.json").read_bytes())["model"]
        n = len(data["vocab"])
        more = {"\u0120zebra": n, "Zyx": n + 1, END_OF_TEXT: 0}
        change(tmp_path, {"ignore_merges": True, "vocab": data["vocab"] | more})
        theirs = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_pretrained(tmp_path)
    assert (len({t for t in ours.tokens if t and len(t) == 1}) < 256) == (not alphabet)
    ours.save(tmp_path / "again")
    again = library.Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    texts = [prose, "a zebra, Zyx zebras", "e\u0301a\u0301", *random_texts(2000)]
    texts += [t for t in TEXTS if t == t.encode("utf-8", "replace").decode()]
    for text in texts:
        ids = ours.encode(text, "all", add_special_tokens=True)
        assert ids == theirs.encode(text).ids == again.encode(text).ids, ascii(text[:60])
        plain = ours.encode(text, "all")
        assert plain == theirs.encode(text, add_special_tokens=False).ids
        assert [i for piece in ours.explain(text, "all") for i in piece.ids] == plain
