"""minillm diverge: how models are spelt, what is said, and what is refused in one line."""

import io
import json

import pytest

import minillm
from minillm.cli import main
from minillm.cli.diverge import load_spelled

ARGUMENTS = ("The king", "--max-new-tokens", "6")


@pytest.fixture
def cli(capsys):
    def call(*args):
        code = main(["diverge", *args])
        return code, *capsys.readouterr()

    return call


def test_a_kind_of_storage_in_words(cli):
    code, out, err = cli("tales-draft", "tales-draft:int4", *ARGUMENTS)
    assert code == 0 and not err
    assert out.startswith(
        "the first to differ beyond rounding, at moment 0 ('The'): wte, position 0: apart by"
    )
    assert ".weight differs in " in out and "A tales-draft: The king" in out


def test_the_same_model_in_words(cli):
    _, out, _ = cli("tales-draft", "tales-draft@numpy", *ARGUMENTS)
    model, tokenizer = minillm.load("tales-draft")
    text = tokenizer.decode(model.generate(tokenizer.encode("The king"), 6, do_sample=False))
    assert out.splitlines()[0] == "no step differs beyond rounding"
    assert out.endswith(f"the texts are the same\nA tales-draft: {text}\n")
    assert "; probabilities the same to the bit\n" in out


def test_all_of_it_as_json(cli):
    found = json.loads(cli("tales-draft", "tales-draft", *ARGUMENTS, "--seed", "1,2", "--json")[1])
    assert found["steps"][0]["name"] == "next" and found["moment"] == found["parting"]
    assert found["texts"]["a"] != found["texts"]["b"] and found["formed"] > 30
    assert found["a"] == "tales-draft" and len(found["apart"]) == found["parting"] + 1


def test_models_are_spelt_with_dtype_and_kernels(tmp_path):
    model, tokenizer = minillm.load("tales-draft")
    folder = tmp_path / "a:b@c"
    model.save_pretrained(folder)
    tokenizer.save(folder)
    assert load_spelled(f"{folder}")[0].stored == "float32"
    assert load_spelled(f"{folder}:float64@numpy")[0].stored == "float64"
    assert load_spelled("tales-draft:int8")[0].stored == "int8"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tales", "tales-draft", "The king"), "A has L = 6 and B L = 2"),
        (("tales-draft", "tales-llama", "The king"), "A is a GPT-2 and B a Llama"),
        (("tales-draft", "tales-draft:int3", "The king"), "dtype is 'int3'"),
        (("tales-draft", "tales-draft@cuda", "The king"), "@ is followed by one of auto, numba, n"),
        (("tales-draft", "tales-draft@transformer", "The"), "numpy, llama.cpp, transformers, or a"),
        (("tales-draft", "tales-draft@numpy:int8", "The"), ":DTYPE stands before it"),
        (("tales-draft", "tales-draft@", "The king"), "@ is followed by"),
        (("tales-draft", "nowhere", "The king"), "minillm: model 'nowhere'"),
        (("tales-draft", "Once"), "minillm diverge takes A, B and a text: model 'Once' is"),
        (("tales-draft", "tales-draft", ""), "the prompt is empty"),
        (("tales-draft", "tales-draft", "The king", "--seed", "one"), "--seed one"),
        (("tales-draft", "tales-draft", "The king", "--temperature", "2"), "give --seed N"),
        (("tales-draft", "tales-draft", "The king", "--max-new-tokens", "999"), "positions"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, tuple) else "",
)
def test_what_cannot_be_compared_is_one_line(cli, monkeypatch, arguments, message):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


@pytest.mark.live
@pytest.mark.parametrize("name", ["llama.cpp", "transformers"])
def test_a_prompt_of_several_tokens_in_another_engine(cli, name):
    """llama.cpp leaves positions out that nobody asks the logits of."""
    pytest.importorskip({"llama.cpp": "llama_cpp"}.get(name, name))
    code, out, _ = cli("tales-llama", f"tales-llama@{name}", *ARGUMENTS)
    assert code == 0 and "A tales-llama: The king" in out
