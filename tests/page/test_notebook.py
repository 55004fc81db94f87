"""`minillm.explore`: what a notebook gets, for whatever it can show."""

import base64
import html
import re
import sys

import pytest

import minillm
from minillm import InputError
from minillm.page import notebook
from minillm.page.answering import answerer
from minillm.recording import Recording


@pytest.fixture(scope="module")
def explored():
    return minillm.explore("The </script> king", "tales-draft", max_new_tokens=4, seed=1)


def test_a_bundle_has_words_a_picture_and_a_page(explored, tmp_path):
    """Whoever shows one of them alone shows the same run."""
    bundle, about = explored._repr_mimebundle_()
    assert list(bundle)[-3:] == ["text/plain", "image/png", "text/html"]
    said = bundle["text/plain"]
    assert repr(explored.recording.text) in said and "tales-draft wrote" in said
    assert "4 tokens took" in said and "feed forward takes" in said
    assert about["image/png"]["alt"] == said == repr(explored)
    picture = base64.b64decode(bundle["image/png"])
    assert picture.startswith(b"\x89PNG") and 5_000 < len(picture) < 200_000
    frame = r'<iframe [^>]*sandbox="allow-scripts allow-forms"[^>]*srcdoc="([^"]*)"></iframe>'
    inside = re.fullmatch(frame, bundle["text/html"])[1]
    explored.save(tmp_path / "page.html")
    assert html.unescape(inside) == (tmp_path / "page.html").read_text("utf-8")
    assert "connect-src" not in inside  # the policy: it fetches nothing


def test_a_recording_shows_too(explored):
    again = minillm.explore(explored.recording, height=300)
    assert isinstance(again.recording, Recording) and again.recording is explored.recording
    assert 'height="300"' in again._repr_mimebundle_()[0]["text/html"]
    assert explored.recording.header["compared"]["against"] == "reference"


def test_what_a_page_asks_for_is_answered_lever_by_lever():
    """Beams draw nothing, however the handles stand; other weights are told apart."""
    model, tokenizer = minillm.load("tales-draft", kernels="numpy")
    answer, drawing = answerer(model, tokenizer, "tales-draft", {"max_new_tokens": 3}), {"seed": 1}
    made, said = {}, []
    for lever in ("", "beams:2", "batch:2", "int8", "model:tales-draft"):
        asked = {"lever": lever, "drawing": drawing | {"temperature": 0.8}}
        [made[lever]] = answer("The king", asked, said.append)
    options = made["beams:2"].header["options"]
    assert (options["num_beams"], options["temperature"], options["seed"]) == (2, 0.0, 1)
    assert made["batch:2"].text == made[""].text
    assert [lever for lever in made if "parting" in made[lever].header] == [
        "int8",
        "model:tales-draft",
    ]
    assert said.count({"parting": True}) == 2
    assert made["model:tales-draft"].arrays["parting.steps"].max() == 0


def test_what_cannot_be_shown(explored):
    model, tokenizer = minillm.load("tales-draft", kernels="numpy")
    with pytest.raises(InputError, match="a model needs its tokenizer"):
        minillm.explore("a", model)
    with pytest.raises(InputError):
        minillm.explore("a", model, tokenizer, on_full="slide", max_new_tokens=2)
    shown = minillm.explore("a", model, tokenizer, max_new_tokens=2)
    assert shown.recording.header["model"]["name"] == ""


def test_a_widget_answers_as_the_server_does(explored):
    said = []
    explored._heard(said.append, {"turn": 7, "text": "A dog", "drawing": {"temperature": 0.0}})
    assert {one["turn"] for one in said} == {7} and said[-1]["said"] == {"over": True}
    kinds = [next(iter(one["said"])) for one in said]
    assert kinds == ["prompt", *["word"] * 4, "recording", "over"]
    for wrong in ({"text": 3}, {"lever": "no such", "text": "a"}, {"text": ""}, "x", None):
        said.clear()
        explored._heard(said.append, wrong)
        assert [next(iter(one["said"])) for one in said][-2:] == ["error", "over"], wrong


def test_a_kernel_with_anywidget_gets_a_widget(explored, monkeypatch):
    pytest.importorskip("anywidget")
    monkeypatch.setitem(sys.modules, "ipykernel", pytest.importorskip("ipykernel"))
    bundle, _ = explored._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "image/png" in bundle
    assert '"framed": true' in explored.widget.page and "connect-src" not in explored.widget.page


def test_without_anywidget_there_is_a_frame(explored, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", pytest)
    monkeypatch.setattr(notebook, "find_spec", lambda name: None)
    assert set(explored._repr_mimebundle_()[0]) == {"text/plain", "image/png", "text/html"}
