"""The page as one file: what is inside it, and that no text can become a part of it."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from minillm import GPT2Config, recording
from minillm.page.static import ALIVE, FILES, LANGUAGES, MODULES, bundle, html, page

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"


@pytest.fixture(scope="module")
def made():
    return recording.read(RECORDINGS / "tales-draft.recording")


@pytest.fixture(scope="module")
def written(made):
    return page(made)


def part(written: str, opening: str) -> str:
    """What stands in an element that opens so."""
    return re.search(f"{re.escape(opening)}>(.*?)</(?:script|style)>", written, re.S)[1]


def test_it_holds_the_recording_and_needs_nothing_else(made, written):
    inside = base64.b64decode(part(written, '<script type="text/plain" id="recording"'))
    assert inside == recording.to_bytes(made)
    assert not re.findall(r"""(?:src|href)=|url\(|@import|https?://(?!www\.w3\.org/)""", written)


def test_what_may_run_is_named_by_its_hash(written):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', written)[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    for rule, opening in (("script-src", '<script type="module"'), ("style-src", "<style")):
        digest = hashlib.sha256(part(written, opening).encode()).digest()
        assert rules.pop(rule) == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert rules == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}
    assert not re.search(
        r"""<[^>]*\s(?:on\w+|style)=""", re.sub(r"(?s)<script.*?</script>", "", written)
    )


def test_a_served_page_may_talk_to_its_server_only():
    served = html(GPT2Config(n_layer=1), ask={"text": "</script><b>"})
    assert "connect-src 'self'" in served and "</script><b>" not in served
    assert json.loads(part(served, '<script type="application/json" id="asked"')) == {
        "text": "</script><b>"
    }


def test_all_languages_say_the_same_things():
    tables = [json.loads((FILES / f"{name}.json").read_text("utf-8")) for name in LANGUAGES]
    for other in tables[1:]:
        assert other.keys() == tables[0].keys()
        for key, text in tables[0].items():
            wanted = set(re.findall(r"\{\w+\}", text))
            assert set(re.findall(r"\{\w+\}", other[key])) <= wanted, key


def test_no_text_is_asked_for_that_is_not_there():
    known = json.loads((FILES / "en.json").read_text("utf-8")).keys()
    source = "".join((FILES / f"{name}.js").read_text("utf-8") for name in MODULES + ALIVE)
    source += (FILES / "index.html").read_text("utf-8")
    asked = set(re.findall(r"""\bsay\("([^"]+)\"""", source))
    asked |= set(re.findall(r'data-(?:say|label)="([^"]+)"', source))
    assert asked <= known, asked - known
    families = {key.partition(".")[0] for key in known if "." in key}
    unused = {k for k in known if f'"{k}"' not in source and k.partition(".")[0] not in families}
    assert not unused


def test_modules_are_bundled_in_an_order_in_which_they_find_each_other():
    for n, name in enumerate(MODULES):
        source = (FILES / f"{name}.js").read_text("utf-8")
        imported = re.findall(r'^import .* from "\./(\w+)\.js";$', source, re.M)
        assert set(imported) <= set(MODULES[:n]), name
        assert not re.search(r"^import .* as ", source, re.M), name  # the bundle knows none
        assert "innerHTML" not in source and "eval(" not in source, name
    assert not re.search(r"^(?:import|export) ", bundle(), re.M)
