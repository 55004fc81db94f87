"""Where a name leads: a folder, a bundled model, the hub, or one line that says what there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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


def hub_that(action) -> dict[str, ModuleType]:
    """Stand-ins for huggingface_hub and its errors; `action` downloads."""
    hub, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    for name in ("HfHubHTTPError", "HFValidationError", "LocalEntryNotFoundError"):
        setattr(errors, name, type(name, (Exception,), {}))
    hub.snapshot_download, hub.errors = action, errors
    return {"huggingface_hub": hub, "huggingface_hub.errors": errors}


def one_line(name) -> str:
    """What find_folder says of a name that leads nowhere."""
    with pytest.raises(InputError) as error:
        find.find_folder(name)
    message = str(error.value)
    assert "\n" not in message and "large, small" in message  # every message tells what there is
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
    ["gpt2", "openai/gpt2", "no model", "x" * 5000, "a\0b", "a\nb"],
    ids=lambda n: repr(n[:20]),
)
def test_without_the_hub_library_a_hint_how_to_install_it(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it now raises ImportError
    message = one_line(name)
    assert repr(name) in message
    assert "python -m pip install huggingface_hub" in message


def test_hub_gives_the_folder_and_is_asked_only_for_what_is_read(monkeypatch, elsewhere):
    asked = {}

    def download(name, allow_patterns):
        asked[name] = allow_patterns
        return str(elsewhere)

    for module, fake in hub_that(download).items():
        monkeypatch.setitem(sys.modules, module, fake)
    assert find.find_folder("openai/gpt2") == elsewhere
    assert asked == {"openai/gpt2": find.HUB_FILES}
    assert "vocab.json" in find.HUB_FILES and not any(
        "bin" in pattern for pattern in find.HUB_FILES
    )


@pytest.mark.parametrize(
    "error", ["HfHubHTTPError", "HFValidationError", "LocalEntryNotFoundError", OSError]
)
@pytest.mark.parametrize("text, reason", [("Not found.\n\nCheck\nit", "Not found."), ("", "")])
def test_failure_of_the_hub_is_one_line(monkeypatch, error, text, reason):
    def download(name, allow_patterns):
        raise (
            error if isinstance(error, type) else getattr(modules["huggingface_hub.errors"], error)
        )(text)

    modules = hub_that(download)
    for module, fake in modules.items():
        monkeypatch.setitem(sys.modules, module, fake)
    message = one_line("gpt2")
    assert message.startswith("model 'gpt2' is neither a folder nor bundled")
    kind = error if isinstance(error, str) else error.__name__
    assert message.endswith(f"did not give it: {reason or kind}")


@pytest.mark.live
@pytest.mark.parametrize(
    "name", ["gpt2", "no/such-model", "not valid", "./gpt2", "a" * 300], ids=lambda n: n[:20]
)
def test_the_real_hub_library_offline_is_one_line(elsewhere, name):
    pytest.importorskip("huggingface_hub", reason="needs huggingface_hub (extra: hub)")
    code = f"""
from minillm.checkpoints.find import find_folder
from minillm.errors import InputError
try:
    find_folder({name!r})
except InputError as error:
    print(error)
"""
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(elsewhere),
        "PYTHONPATH": str(find.PACKAGE.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    [line] = done.stdout.splitlines()
    assert (
        line.startswith(f"model {name!r} is neither a folder nor bundled")
        and "the Hugging Face hub did not give it" in line
    )
