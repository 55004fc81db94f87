"""The page in a real browser, as somebody uses it: `pytest -m browser`.

Chromium is Debian's (apt-get install chromium), or where MINILLM_CHROMIUM says; it is driven by
playwright. MINILLM_SCREENSHOTS names a folder in which pictures are kept to be looked at.
"""

import copy
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from minillm import GPT2Config, recording
from minillm.page.server import Server
from minillm.page.static import html
from minillm.page.static import page as page_of
from minillm.recording import Recording, shapes

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
CHROMIUM = os.environ.get("MINILLM_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: install it, or set MINILLM_CHROMIUM"),
]
MADE, TALES = (
    recording.read(Path(__file__).parents[1] / f"data/recordings/{name}.recording")
    for name in ("tales-draft", "tales")
)
HOSTILE = {
    "a tag": "</script><img src=x onerror=alert(1)>",
    "a turn": "\u202eabc\u202c",
    "a long word": "w" * 10_000,
    "a template": "{word} ${alert(1)} %s",
}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a recording, or an address; what goes wrong there fails the test at its end."""
    wrong, contexts = [], []

    def opened(made=MADE, address=None, width=1280, height=900, **how):
        how = {"reduced_motion": "reduce", "locale": "en"} | how
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **how))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        own = address or "file:"

        def asked(request):
            if not request.url.startswith((own, "data:")):
                wrong.append(request.url)

        page.on("request", asked)
        if address is None:
            (tmp_path / "page.html").write_text(page_of(made), "utf-8")
            address = (tmp_path / "page.html").as_uri()
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def value(page):
    """What the scope says of what is picked."""
    return page.locator("#scope").get_attribute("aria-valuetext")


def settle(page):
    """Wait until all cards have followed, one a frame, however long a frame takes."""
    page.evaluate(
        "async () => { for (let n = 0; n < 20; n++) await new Promise(requestAnimationFrame); }"
    )


def overflows(page):
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


# ---- beside a reference


def compared(distances, against="textbook"):
    """The fixed recording, compared: distances by step and layer, 1e-7 elsewhere."""
    header = copy.deepcopy(MADE.header)
    header["compared"] = {"against": against, "positions": 5, "tolerance": 2e-5}
    names = [step["name"] for step in header["steps"]]
    table = np.full((len(names), header["model"]["sizes"]["L"]), 1e-7, np.float32)
    table[[names.index("probs"), names.index("next")]] = -1
    for (name, layer), distance in distances.items():
        table[names.index(name), layer] = distance
    return Recording(header, MADE.arrays | {"distances": table})


def test_the_first_step_that_differs_is_red(open_page):
    page = open_page(compared({("attn.weights", 1): 0.25, ("mlp.act", 1): 1e9}))
    said = page.locator("#proof .look")
    assert "attn.weights, layer 1: by 25% of its largest value" in said.inner_text()
    assert "wrong" in said.get_attribute("class")
    first = page.locator("#proof tr.here")
    assert first.count() == 1 and "\u2717 softmax layer 1" in first.inner_text()
    assert "no comparison" in page.locator("#proof").inner_text()
    legend = page.locator("#proof .legend").inner_text()
    assert "from a third of it on (6.7 · 10⁻⁶)" in legend and "tolerance (2.0 · 10⁻⁵)" in legend
    assert page.locator("#paint").get_attribute("aria-pressed") == "true"
    page.focus("#paint")  # by keys
    page.keyboard.press("Enter")
    assert page.locator("#paint").get_attribute("aria-pressed") == "false"
    page.focus("#scope")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert "of its largest value away from the textbook" in page.locator("#step").inner_text()


def test_the_scope_is_painted_by_distance(open_page):
    """Where it is red: the picture has the colour of what differs, and without it has not."""

    reds = """() => {
        const c = document.getElementById("scope"), context = c.getContext("2d");
        const {data: d} = context.getImageData(0, 0, c.width, c.height);
        let n = 0;
        for (let i = 0; i < d.length; i += 4) n += d[i] > 190 && d[i + 1] < 60 && d[i + 2] < 80;
        return n;
    }"""
    page = open_page(compared({("logits", 0): 0.5}, "reference"))
    page.wait_for_timeout(100)
    before = page.evaluate(reds)
    page.click("#paint")
    page.wait_for_timeout(100)
    assert page.evaluate(reds) > before + 50
    assert "transformers" in page.locator("#proof .look").inner_text()


def test_without_a_reference_nothing_is_said_of_one(open_page):
    page = open_page()
    assert page.locator("#proof-card").is_hidden() and page.locator("#paint").is_hidden()


# ---- by keys, by pointer


def test_everything_is_reached_by_keys(open_page):
    page = open_page()
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"language", "theme", "play", "back", "forward", "closer", "one", "scope"} <= {*reached}
    page.focus("#scope")
    page.keyboard.press("Home")
    assert value(page).startswith("cycle 0, prefill, man")
    page.keyboard.press("ArrowRight")
    assert value(page).startswith("cycle 1, decode, who")
    page.keyboard.press("End")
    assert value(page).startswith("cycle 15, decode, was")
    for detail in ("layers", "steps"):
        page.keyboard.press("ArrowDown")
        assert page.locator(f"[data-unfold={detail}]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Enter")
    assert page.locator("#step-view").is_visible()
    assert page.evaluate("document.activeElement.id") == "step-view"
    before = page.locator("#step h3").inner_text()
    page.keyboard.press("Shift+ArrowLeft")
    assert page.locator("#step h3").inner_text() != before
    assert page.locator("#map .here").count() >= 1
    page.keyboard.press("Escape")
    assert page.locator("#step-view").is_hidden()
    assert page.evaluate("document.activeElement.id") == "scope"


def drawn(page, what):
    """A part of the drawing in the language that is shown."""
    return page.locator(f"#map [lang=en] [data-{what}]")


def test_the_drawing_opens_what_is_pointed_at(open_page):
    page = open_page()
    drawn(page, "step='mlp.act'").locator("rect").first.click()
    assert "feed forward" in page.locator("#step h3").inner_text()
    assert "mlp.act" in page.locator("#step").inner_text()
    assert drawn(page, "step='mlp.act'").get_attribute("class") == "here"
    assert "mlp.act" in page.locator("#step .formed.here").inner_text()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.step") == "mlp.act"  # where one was
    for S in (24, 23):  # a cycle earlier there is a key less
        drawn(page, "step='attn.scores'").locator("rect").first.click()
        assert page.locator("#step .formed.here .equation").inner_text().endswith(f"× 1 × {S}")
        page.keyboard.press("Escape")
        page.locator("#scope").press("ArrowLeft")
    page.locator("#scope").press("End")
    drawn(page, "layer='1'").locator("rect").click()
    assert "layer 1" in page.locator("#step h3").inner_text()
    drawn(page, "step='attn.scores'").locator("rect").first.click()
    assert "layer 1" in page.locator("#step h3").inner_text()  # of the layer that was lit
    drawn(page, "phase='unembed'").locator("> text").click()
    assert "unembed" in page.locator("#step h3").inner_text()
    drawn(page, "part='cache'").locator("rect").click()
    assert page.evaluate("document.activeElement.querySelector('#kept') !== null")
    page.click("[data-moment='2'] .body")
    drawn(page, "part='loop'").locator("text, path").first.dispatch_event("click")
    assert value(page).startswith("cycle 3,")


def test_the_drawing_is_one_stop_of_tab_and_arrows_move_in_it(open_page):
    page = open_page()
    stops = page.locator("#map [lang=en] [tabindex='0']")
    assert stops.count() == 1
    stops.focus()
    before = value(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert value(page) == before and stops.count() == 1  # time has not moved
    page.keyboard.press("End")
    page.keyboard.press("Home")
    while page.evaluate("document.activeElement.dataset.step") != "attn.context":
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert "attn.context" in page.locator("#step").inner_text()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.step") == "attn.context"


def unfolded(page):
    return page.locator("[data-unfold][aria-pressed=true]").get_attribute("data-unfold")


def test_arrows_unfold_wherever_nothing_else_takes_them(open_page):
    """At once, after a click on a card and on the drawing; a panel that scrolls keeps its own."""
    page = open_page()
    page.keyboard.press("ArrowDown")
    assert unfolded(page) == "layers" and page.evaluate("scrollY") == 0
    page.click("#norms .look")
    page.keyboard.press("ArrowDown")
    assert unfolded(page) == "steps"
    drawn(page, "step='mlp.act'").locator("rect").first.click()
    page.keyboard.press("ArrowUp")
    assert unfolded(page) == "layers"
    page.keyboard.press("Escape")
    page.focus("#temperature")
    page.keyboard.press("ArrowUp")
    assert unfolded(page) == "layers"
    page.evaluate("document.querySelector('main > details').open = true")
    page.evaluate("document.getElementById('table').style.maxHeight = '90px'")
    page.click("#table td >> nth=1")
    page.keyboard.press("ArrowUp")
    assert unfolded(page) == "layers"
    page.click("#here")
    page.keyboard.press("ArrowUp")
    assert unfolded(page) == "phases"


def test_arrows_scroll_the_page_where_nothing_is_left_to_unfold(open_page):
    page = open_page(height=500)
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.wait_for_function("scrollY > 0")
    assert unfolded(page) == "steps"


def test_arrows_move_among_the_heads(open_page):
    page = open_page()
    page.locator(".head[aria-pressed=true]").focus()
    for key in ("ArrowUp", "ArrowUp", *["ArrowLeft"] * 9):
        page.keyboard.press(key)
    assert page.locator(".head[aria-pressed=true]").get_attribute("data-head") == "-1"
    assert "mean of all heads" in page.locator("#attention .look").inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    pressed = page.locator(".head[aria-pressed=true]")
    assert (pressed.get_attribute("data-layer"), pressed.get_attribute("data-head")) == ("1", "0")
    assert page.evaluate("document.activeElement.dataset.head") == "0"


def test_handles_move_by_keys_and_the_shares_follow(open_page):
    page = open_page()
    page.focus("#scope")
    page.keyboard.press("Home")
    page.wait_for_timeout(200)
    shares = page.locator("#candidates tbody td:nth-child(4)")
    assert shares.first.inner_text() == "100%" and "exact" in page.inner_text("#candidates")
    page.focus("#temperature")
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "temperature"
    assert "between two numbers" in page.inner_text("#candidates")
    assert "–" in shares.first.inner_text()
    page.focus("#top_k")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert "3 words can be drawn. These shares are exact." in page.inner_text("#candidates")
    z = MADE.arrays["candidates.logits"][0, :3].astype(np.float64) / 1.5
    wanted = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    said = [float(text.rstrip("%")) for text in shares.all_inner_texts()[:3]]
    np.testing.assert_allclose(said, 100 * wanted, atol=0.51)


def test_handles_move_by_the_pointer(open_page):
    page = open_page()
    page.click("#temperature")  # in the middle
    assert page.input_value("#temperature") == "1"
    assert page.locator("#min_p").is_enabled() and page.locator("#draw").is_hidden()


def test_every_view_has_a_sentence_an_equation_and_a_source(open_page):
    page = open_page()
    page.focus("#scope")
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    for language in ("en", "zh"):
        assert page.locator("html").get_attribute("lang") == language
        for card in page.locator(".views > section:not([hidden])").all():
            assert len(card.locator(".look").first.inner_text()) > 15
            card.locator(".source > summary").focus()
            page.keyboard.press("Enter")
            assert "minillm/" in card.locator(".source summary").inner_text()
            assert card.locator(".source pre").is_visible()
            page.keyboard.press("Enter")
        assert page.locator("#step .look").count() == 1
        page.click("#language")


def test_the_cache_shows_positions_and_bytes(open_page):
    page = open_page()
    page.click("[data-moment='5'] .body")
    page.wait_for_timeout(200)
    cycle = MADE.header["cycles"][5]
    rows = page.locator("#kept tbody tr").all_inner_texts()
    assert [int(row.split("\t")[1]) for row in rows] == [
        cycle["past"], 1, cycle["past"] + 1,
    ]  # fmt: skip
    assert f"{cycle['kept'] / 1e3:.3g}" in rows[2]
    assert page.locator("#kept canvas").get_attribute("aria-label") == (
        f"{cycle['past']} positions are read, 1 are written"
    )


def beside(lever):
    """The fixed recording as if by a lever: half as fast, and another word at the end."""
    header = copy.deepcopy(MADE.header)
    for cycle in header["cycles"]:
        cycle |= {"start": cycle["start"] * 2, "end": cycle["end"] * 2, **lever}
    header["options"]["use_cache"] = False
    header["moments"][-1]["id"] = header["moments"][0]["id"]
    arrays = {**MADE.arrays, "times.ends": MADE.arrays["times.ends"] * 2}
    return Recording(header, arrays)


def test_saved_levers_stand_beside_each_other(open_page):
    page = open_page([MADE, beside({"kept": 0, "read": 0, "written": 0})])
    said = page.locator("#compared").inner_text()
    assert "0.5 times as long" in said and "part at word 16" in said and "without cache" in said
    page.click("#runs-tabs button >> nth=1")
    assert "2 times as long" in page.locator("#compared").inner_text()
    assert page.locator("#ask").is_hidden()


def test_two_runs_stand_on_one_screen(open_page):
    page = open_page([MADE, beside({"kept": 0})], height=720)
    settle(page)
    for name in ("scope", "beside"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["y"] > 0 and box["y"] + box["height"] <= 720, name


def altered(**header):
    """The fixed recording with other entries of its header's parts."""
    made = copy.deepcopy(MADE.header)
    for part, entries in header.items():
        made[part] |= entries
    return Recording(made, MADE.arrays)


@pytest.mark.parametrize(
    ("header", "equation", "source"),
    [
        ({"model": {"stored": "int8"}}, "blocks of 32", "def quantize"),
        ({"options": {"draft": "ngram"}}, "min(1, p / q)", "def accept"),
        ({"options": {"num_beams": 4}}, "score of a text", "def best_beams"),
        ({"model": {"threads": 9}}, "shared out", "def set_threads"),
        ({"model": {"name": "other"}}, "other weights", "def load"),
    ],
)
def test_what_stands_beside_is_explained_by_its_own_lever(open_page, header, equation, source):
    page = open_page([MADE, altered(**header)])
    assert page.locator("#levers details").count() == 1
    page.click("#levers summary")
    said = page.locator("#levers").inner_text()
    assert equation in said and source in said
    assert ("a guess is kept" in said) == ("draft" in header.get("options", {}))


def rows(n, **options):
    """The fixed recording as if `n` rows went through each pass."""
    made = altered(options=options)
    for cycle in made.header["cycles"]:
        cycle["rows"] = n
    return made


def test_a_batch_brings_a_word_for_each_text(open_page):
    page = open_page([rows(8, batch=8), MADE])
    lasted = sorted(c["end"] - c["start"] for c in MADE.header["cycles"][1:])
    said = page.locator("#facts").inner_text()
    assert f"takes {lasted[len(lasted) // 2] / 8e3:.3g}\u202fµs" in said
    assert "8 texts are written at once" in said
    assert "It is the same text" in page.locator("#compared").inner_text()
    assert "in each of 8 rows" in page.locator("#kept").inner_text()


def test_beams_do_not_claim_the_likeliest_word(open_page):
    made = rows(4, num_beams=4)
    chosen = made.arrays["chosen"].copy()
    chosen[-1, 3] = 2
    page = open_page(Recording(made.header, made.arrays | {"chosen": chosen}))
    said = page.locator("#candidates").inner_text()
    assert "is only number 3 here" in said and "that 4 beams found" in said
    assert "drawn with" not in said and "always taken" not in said
    assert "4 beams: each cycle goes on" in page.locator("#facts").inner_text()


def parting(first, times=4.0):
    """The fixed recording as if told apart from another, from a moment on, in one step."""
    header = copy.deepcopy(MADE.header)
    header["model"]["stored"] = "int8"
    header["parting"] = {"name": "tales-draft", "stored": "float32", "twin": "numba"}
    header["moments"][-1]["id"] = header["moments"][0]["id"]
    names, M = [step["name"] for step in header["steps"]], len(header["moments"])
    table = np.full((M, len(names), header["model"]["sizes"]["L"]), 0.3, np.float32)
    table[first:, names.index("mlp.out"), 1] = times
    apart = np.linspace(0, 0.2, M, dtype=np.float32)
    return Recording(header, MADE.arrays | {"parting.steps": table, "parting.probabilities": apart})


def test_two_computations_part_before_the_text_shows_it(open_page):
    page = open_page([MADE, parting(2)])
    said = page.locator("#parting .look").inner_text()
    assert (
        "at word 3 already, contract (mlp.out), layer 1 is apart by 4 times what both round" in said
    )
    assert "only from word 16 on" in said and "apart by 20%" in said
    page.click("[data-moment='1'] .body")
    settle(page)
    assert page.locator("#parting tr.here").count() == 0
    strip = page.locator("#parting canvas")
    strip.click(position={"x": strip.bounding_box()["width"] * 3.5 / 16, "y": 20})
    settle(page)
    assert value(page).startswith("cycle 3,")
    assert page.locator("#parting tr.here").get_attribute("data-step") == "mlp.out"


def test_what_does_not_part_says_so(open_page):
    page = open_page([MADE, parting(0, times=0.9)])
    assert "no step of 16 words differs" in page.locator("#parting .look").inner_text()
    assert open_page().locator("#parting-card").is_hidden()


def test_everything_is_reached_by_the_pointer(open_page):
    page = open_page()
    page.click("[data-moment='2'] .body")
    assert value(page).startswith("cycle 2,")
    box = page.locator("#scope").bounding_box()
    page.mouse.click(box["x"] + 160, box["y"] + 140)
    assert value(page).startswith("cycle 0,") and page.locator("#step-view").is_visible()
    page.click("#close")
    page.click("#cycle button >> nth=2")
    assert "feed forward" in page.locator("#step h3").inner_text()
    page.click("main > details > summary")
    page.click("#table tbody tr:nth-child(6) button")
    assert value(page).startswith("cycle 5,")
    page.click("#one")
    page.click("#whole")
    page.mouse.move(box["x"] + 400, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 100)
    page.mouse.up()
    assert value(page).startswith("cycle 5,")  # dragging moves the view, and picks nothing


def lane(below):
    """How far down a lane under those of the phases is: 0 what is predicted, 1 the cache."""
    return 64 + 5 * 38 + below * 38 + 17


def test_what_is_predicted_and_the_cache_can_be_pointed_at(open_page):
    page = open_page(TALES)
    page.click("#one")
    scope = page.locator("#scope")
    box = scope.bounding_box()
    scope.click(position={"x": 124 + 0.2 * box["width"], "y": lane(0)})
    opened = page.locator("#step h3").inner_text()
    assert "h." in opened and "choose" not in opened
    page.keyboard.press("Escape")
    scope.click(position={"x": 124 + 0.5 * box["width"], "y": lane(1)})
    assert page.locator("#step-view").is_hidden()
    assert page.evaluate("document.activeElement.querySelector('#kept') !== null")


def test_steps_that_are_timed_together_are_all_called(open_page):
    page = open_page()
    drawn(page, "step='attn.weights'").locator("rect").first.click()
    assert page.locator("#step h3").inner_text().startswith("softmax (q … context)")
    page.keyboard.press("Escape")
    drawn(page, "step='mlp.act'").locator("rect").first.click()
    assert page.locator("#step h3").inner_text().startswith("activate (expand, activate)")


def test_a_head_is_a_matrix_whose_rows_are_moments(open_page):
    page = open_page()
    settle(page)
    canvas = page.locator("#attention canvas.matrix")
    n = len(MADE.header["text"]["ids"]) + len(MADE.header["moments"]) - 1
    assert canvas.get_attribute("aria-label").startswith(f"{n} positions that look, {n} that")
    size = 420 // n
    canvas.click(position={"x": 100, "y": 78 + 10.5 * size})  # the prompt's last is the ninth
    assert value(page).startswith("cycle 2,")
    settle(page)
    assert canvas.get_attribute("aria-label").startswith("11 positions that look, 11 that")


def test_a_page_without_a_model_says_how_to_patch(open_page):
    page = open_page()
    settle(page)
    assert "--save page.html --live" in page.locator("#patch .look").inner_text()
    assert page.locator("#patch-go").is_hidden()
    assert page.locator("#patch select:visible").count() == 0


def test_the_run_below_comes_up(open_page):
    page = open_page([MADE, beside({"kept": 0})])
    box = page.locator("#beside").bounding_box()
    page.locator("#beside").click(position={"x": 0.9 * box["width"], "y": 60})
    assert page.locator("#runs-tabs button >> nth=1").get_attribute("aria-pressed") == "true"
    assert not value(page).startswith("cycle 0,")


# ---- what is said


def test_sentences_are_computed_from_the_run(open_page):
    page = open_page()
    said = page.locator("#facts").inner_text()
    first, *others = (c["end"] - c["start"] for c in MADE.header["cycles"])
    middle = sorted(others)[len(others) // 2]
    assert f"Each word after the first takes {middle / 1e3:.0f}\u202fµs" in said
    assert f"{first / middle:.3g} times as wide" in said and "all 9 tokens" in said
    assert "compute 24 positions anew" in said and "binds" in said
    lens = page.locator("#lens tbody tr").all_inner_texts()
    assert len(lens) == 3 and lens[0].startswith("embedding") and lens[2].startswith("layer 1")


@pytest.mark.parametrize("busy, binds", [(None, True), (0.04, True), (0.1, True), (0.6, False)])
def test_others_at_work_are_said_and_causes_then_left_out(open_page, busy, binds):
    header = copy.deepcopy(MADE.header)
    header["machine"]["busy"] = busy
    said = open_page(Recording(header, MADE.arrays)).locator("#facts").inner_text()
    assert ("binds" in said.split("Measured while")[0]) == binds
    assert (f"{100 * (busy or 0):.0f}% busy with other work" in said) == ((busy or 0) >= 0.05)


def test_the_first_cycle_has_a_cause_that_this_run_bears_out(open_page):
    """Where the choice of a word takes longest in it, reading the prompt is not the reason."""
    header, arrays = copy.deepcopy(TALES.header), dict(TALES.arrays)
    assert "because it reads all 9" in open_page(TALES).locator("#facts").inner_text()
    first = header["cycles"][0]
    names, more = header["names"][first["names"]], 50 * (first["end"] - first["start"])
    for cycle in header["cycles"]:
        cycle |= {"start": cycle["start"] + more * (cycle is not first), "end": cycle["end"] + more}
    arrays["times.ends"], arrays["times.net"] = (
        a.copy() for a in (arrays["times.ends"], arrays["times.net"])
    )
    at = names.index("probs")
    arrays["times.ends"][at : len(names)] += more
    arrays["times.net"][at] += more
    said = open_page(Recording(header, arrays)).locator("#facts").inner_text()
    assert "this is not the main reason" in said and "goes to the choice of a word" in said
    assert "because it reads" not in said


def test_what_is_compared_is_said_of_the_residual_stream(open_page):
    page = open_page()
    settle(page)
    said = page.locator("#norms .look").inner_text()
    L, at = MADE.header["model"]["sizes"]["L"], -1
    norms = MADE.arrays["norms"][at]
    grown = norms[1:] / norms[:-1]
    top = int(grown.argmax())
    assert f"{grown[top]:.3g} times as long" in said and "Euclidean norm" in said
    assert f"layer {top // 2}" in said and len(norms) == 2 * L + 1


def test_tokens_show_their_merges(open_page):
    page = open_page()
    page.click("#tokens summary >> nth=1")
    merges = page.locator("#tokens li:nth-child(2) .merge").all_inner_texts()
    assert merges and merges[-1].startswith("␣")
    assert page.locator("#norms tbody tr").count() == 5


def test_the_table_is_the_scope(open_page):
    page = open_page()
    page.click("main > details > summary")
    rows = page.locator("#table tbody tr")
    assert rows.count() == 16
    cells = rows.nth(0).locator("td").all_inner_texts()
    assert cells[0] == "␣man" and cells[1].endswith("%") and cells[2] == "prefill"


def test_it_is_told_to_those_who_do_not_see_it(open_page):
    page = open_page()
    told = page.locator("body").aria_snapshot()
    for wanted in (
        'heading "minillm One token being born, in time" [level=1]',
        'slider "Scope: time from left to right, one column a cycle"',
        'heading "What could have come"',
        'button "phases" [pressed]',
        'group "Heads"',
    ):
        assert wanted in told, told


def test_axe_finds_nothing(open_page):
    pytest.importorskip("axe_playwright_python", reason="axe checks accessibility")
    from axe_playwright_python.sync_playwright import Axe

    for scheme in ("light", "dark"):
        page = open_page(compared({("attn.weights", 1): 0.25}), color_scheme=scheme)
        page.evaluate("document.querySelector('main > details').open = true")
        page.focus("#scope")
        page.keyboard.press("Enter")
        found = Axe().run(page).response["violations"]
        assert not [(v["id"], [n["html"][:90] for n in v["nodes"]][:3]) for v in found], scheme


def test_chinese_is_spoken(open_page):
    page = open_page(locale="zh-CN")
    assert page.locator("h1").inner_text().endswith("看一个词元如何诞生")
    assert page.locator("html").get_attribute("lang") == "zh"
    assert "每个词用时" in page.locator("#facts").inner_text()
    page.click("#language")
    assert page.locator("h1").inner_text().endswith("One token being born, in time")
    page.click("#language")
    missing = re.findall(r"(?:look|fact|phase|kind|limit)\.[a-z.]+", page.inner_text("body"))
    assert not missing


# ---- time


def test_it_sweeps_slowed_down(open_page):
    page = open_page(reduced_motion="no-preference")
    assert re.fullmatch(r"slowed down [\d,]+ times", page.locator("#slowed").inner_text())
    assert page.locator(".later").count() > 10
    sync_api.expect(page.locator("[data-moment='1'].later")).to_have_count(0)
    page.click("#play")
    stopped = page.locator(".later").count()
    page.wait_for_timeout(700)
    assert page.locator(".later").count() == stopped
    page.keyboard.press("ArrowRight")
    assert page.locator(".later").count() == 0  # whoever moves sees all of it


def test_no_card_changes_while_it_plays(open_page):
    page = open_page(reduced_motion="no-preference")
    cards = "[...document.querySelectorAll('.views > section')].map((c) => c.innerText).join()"
    before = page.evaluate(cards)
    sync_api.expect(page.locator("[data-moment='2'].later")).to_have_count(0, timeout=30_000)
    assert page.evaluate(cards) == before and value(page).startswith("cycle 0,")
    page.click("[data-moment='3'] .body")
    settle(page)
    asked = page.evaluate(cards)
    assert asked != before and "cycle 3, decode" in page.locator("#picked").inner_text()
    page.click("#play")
    sync_api.expect(page.locator("[data-moment='2'].later")).to_have_count(1)
    sync_api.expect(page.locator("[data-moment='2'].later")).to_have_count(0, timeout=30_000)
    assert page.evaluate(cards) == asked and value(page).startswith("cycle 3,")


def test_without_motion_all_is_there_at_once(open_page):
    page = open_page(reduced_motion="reduce")
    assert page.locator(".later").count() == 0
    assert page.locator("#play").get_attribute("aria-label") == "Play again"


# ---- any size, any text


@pytest.mark.parametrize("width", [360, 640, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(open_page, width, scheme):
    page = open_page(width=width, color_scheme=scheme)
    page.focus("#scope")
    page.keyboard.press("Enter")
    assert overflows(page) <= 0
    keep(page, f"{scheme}-{width}")


def test_it_fits_at_twice_the_size(open_page):
    page = open_page(width=640, height=450, device_scale_factor=2)  # 1280 x 900 at 200 %
    assert overflows(page) <= 0
    keep(page, "zoom-200")


def keep(page, name):
    if folder := os.environ.get("MINILLM_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def hostile(text):
    """The fixed recording with a text in every place that others can fill."""
    header = copy.deepcopy(MADE.header)
    header["tokens"] = dict.fromkeys(header["tokens"], text)
    header["text"]["prompt"] = header["model"]["name"] = text
    header["machine"]["processor"] = text
    for moment in header["moments"]:
        moment["text"] = text
    return Recording(header, MADE.arrays)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_inert(open_page, name):
    page = open_page(hostile(HOSTILE[name]), width=360)
    page.click("main > details > summary")
    page.focus("#scope")
    for key in ("ArrowRight", "Enter", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.locator("img").count() == 0
    assert overflows(page) <= 0
    assert "\u202e" not in page.inner_text("body")


def long_recording(moments=1000, layers=30, heads=9):
    """As of a SmolLM2 that wrote so many words; the numbers are drawn."""
    header, draw = copy.deepcopy(MADE.header), np.random.default_rng(0)
    header["model"]["sizes"] |= {"L": layers, "H": heads}
    block = [name[4:] for name in header["names"][0] if name.startswith("h.0.")]
    names = [f"h.{i}.{name}" for i in range(layers) for name in block]
    header["names"] = [["embed", *names, "ln_f", "logits", "probs", "next"]]
    first, one, n = header["cycles"][0], header["cycles"][1], len(header["text"]["ids"])
    header["cycles"], start = [first | {"start": 0.0, "end": 3e7}], 3e7
    for m in range(1, moments):
        end = start + float(draw.uniform(9e6, 11e6))
        header["cycles"].append(one | {"past": n + m - 1, "start": start, "end": end})
        start = end
    words = header["moments"]
    header["moments"] = [words[m % len(words)] | {"cycle": m} for m in range(moments)]
    header["attention"] = [n + moments - 2]
    arrays = {}
    for name, (shape, dtype) in shapes(header).items():
        shape = [3 if size is None else size for size in shape]
        arrays[name] = draw.random(shape).astype(dtype)
    lasted = np.array([c["end"] - c["start"] for c in header["cycles"]])
    steps = np.linspace(0, 1, len(header["names"][0]) + 1)[1:]
    arrays["times.ends"] = np.outer(lasted, steps).ravel().astype(np.float32)
    arrays["times.net"] = arrays["predicted.seconds"] = np.full_like(arrays["times.ends"], 4e4)
    return Recording(header, arrays)


def test_a_thousand_words_move_within_100_ms_a_frame(open_page):
    page = open_page(long_recording())
    page.focus("#scope")
    took = page.evaluate("""async () => {
      const frame = () => new Promise(requestAnimationFrame), best = {};
      for (let turn = 0; turn < 9; turn++) {
        for (const [n, key] of ["0", "ArrowLeft", "+", "ArrowLeft", "-", "1"].entries()) {
          let before = await frame(), longest = 0;
          document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
          for (let more = 0; more < 4; more++) {
            const now = await frame();
            longest = Math.max(longest, now - before);
            before = now;
          }
          best[n + key] = Math.min(best[n + key] ?? Infinity, longest);
        }
      }
      return best;
    }""")
    # What else a machine does only adds, so the best of nine counts.
    assert max(took.values()) < 100, took


# ---- with a model behind it


@pytest.fixture
def served(monkeypatch):
    """`minillm explore`, as a process: it, and its address."""
    args = [sys.executable, "-m", "minillm", "explore", "--no-open", "--model", "tales-draft"]
    more = ["--no-limits", "--max-new-tokens", "12", "--temperature", "0"]
    with subprocess.Popen([*args, *more], stdout=subprocess.PIPE, text=True) as process:
        yield process, process.stdout.readline().split()[0]
        process.kill()


def test_another_text_is_typed(open_page, served):
    page = open_page(address=served[1])
    page.wait_for_selector("#facts li")
    page.fill("#prompt", "The king had a </script> daughter")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#words")).to_contain_text("The king had a </script> daughter")
    page.wait_for_selector("[data-moment='11']")
    assert page.locator("#words .given").first.inner_text() == "The"
    page.fill("#prompt", "")
    page.click("#go")
    sync_api.expect(page.locator("#state")).to_contain_text("the prompt is empty")


def test_another_word_is_a_branch_and_both_stay(open_page, served):
    page = open_page(address=served[1])
    page.wait_for_selector("[data-moment='11']")
    before = page.locator("#words").inner_text()
    page.click("[data-moment='3'] .body")
    page.wait_for_timeout(300)
    other = page.locator("#candidates button").first
    word = other.inner_text().replace("␣", " ")
    other.click()
    page.wait_for_selector("#runs-tabs button:nth-child(2)")
    given = page.locator("#words .given").all_inner_texts()
    assert given[-1] == word and before.startswith("".join(given[:-1]))
    page.click("#runs-tabs button:nth-child(1)")
    assert page.locator("#words").inner_text() == before


def test_a_lever_is_shown_beside_what_it_changes(open_page, served):
    page = open_page(address=served[1])
    page.wait_for_selector("[data-moment='11']")
    assert page.locator("#beside-view").is_hidden()
    page.select_option("#lever", "no-cache")
    sync_api.expect(page.locator("#compared")).to_contain_text(
        "since the same numbers are computed"
    )
    assert "There is no cache" in page.locator("#facts").inner_text()
    assert "Nothing is kept" in page.locator("#kept").inner_text()
    page.focus("#lever")
    page.keyboard.type("draft: n")  # by its name, as a list is chosen from without a pointer
    sync_api.expect(page.locator("#facts")).to_contain_text("A draft guesses")
    sync_api.expect(page.locator("#compared")).to_contain_text("It is the same text.")
    first, second = (page.locator(f"#{name}").bounding_box() for name in ("scope", "beside"))
    assert first["width"] == second["width"] and second["y"] > first["y"]
    keep(page, "lever")


def test_a_patch_is_computed_by_the_server(open_page, served):
    page = open_page(address=served[1])
    page.wait_for_selector("[data-moment='11']")
    page.click("[data-moment='3'] .body")
    settle(page)
    page.select_option("#patch-part", "attn.out")
    page.select_option("#patch-where", "-1")
    page.click("#patch-go")
    answer = page.locator("#patch [role=status]")
    sync_api.expect(answer.locator("table")).to_have_count(2)
    shares = answer.locator("table >> nth=0").locator("tr:first-child td.number").all_inner_texts()
    assert shares[0] == page.locator("#candidates tr.here td.number").first.inner_text()
    assert shares[0] != shares[1] and answer.locator("th").last.inner_text() == "logits"
    page.select_option("#patch-into", "taken")
    sync_api.expect(answer).to_have_text("Type the other text.")
    page.fill("#patch-text", "Once upon a time")
    page.press("#patch-text", "Tab")
    sync_api.expect(answer.locator("table")).to_have_count(2)
    page.click("[data-moment='4'] .body")
    settle(page)
    sync_api.expect(answer).to_be_empty()


def test_two_pages_run_at_once(open_page, served):
    pages = [open_page(address=served[1]) for _ in range(2)]
    for page in pages:
        page.wait_for_selector("[data-moment='11']")


def test_a_text_goes_on_as_the_handles_stand(open_page, served):
    page = open_page(address=served[1])
    page.wait_for_selector("[data-moment='11']")
    page.click("[data-moment='2'] .body")
    page.fill("#temperature", "1.5")
    page.fill("#top_k", "5")
    page.click("#draw")
    sync_api.expect(page.locator("#runs-tabs button")).to_have_count(2)
    tab = page.locator("#runs-tabs button >> nth=1").inner_text()
    assert "temperature 1.5, top-k 5, seed 1" in tab
    given = page.locator("#words .given").all_inner_texts()
    page.click("#runs-tabs button >> nth=0")
    assert page.locator("#words").inner_text().startswith("".join(given))


@pytest.fixture
def slow_server():
    """A server in a thread that tells a word and then nothing more, until it is let go."""
    go = threading.Event()

    def answer(prompt, asked, told):
        told({"prompt": prompt})
        told({"word": " first"})
        go.wait(30)
        raise ConnectionAbortedError

    server = Server(html(GPT2Config(n_layer=1), ask={"text": "Once", "levers": []}), answer)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    yield server, go
    go.set()
    server.shutdown()
    server.server_close()


def test_a_page_says_that_its_server_has_gone_while_it_wrote(open_page, slow_server):
    server, go = slow_server
    page = open_page(address=server.address)
    sync_api.expect(page.locator("#words")).to_have_text("Once first")
    go.set()  # the connection ends without a recording, as when the process is killed
    sync_api.expect(page.locator("#state")).to_contain_text("The server has gone")
    assert page.locator("#words").inner_text() == "Once first"  # what was written stays


def test_a_page_says_that_its_server_has_gone(open_page, served):
    process, address = served
    page = open_page(address=address)
    page.wait_for_selector("#facts li")
    process.kill()
    process.wait()
    sync_api.expect(page.locator("#state")).to_contain_text("The server has gone")  # at once
    page.evaluate("() => { window.fetch = () => Promise.reject(new TypeError()); }")
    page.click("#go")
    page.wait_for_timeout(100)
    sync_api.expect(page.locator("#state")).to_contain_text("The server has gone")
