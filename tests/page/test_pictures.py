"""What the page looks like: a dozen small pictures of fixed recordings, compared with those that
were looked at. `python tests/page/test_pictures.py` takes them anew.

A picture is the whole page at an eighth of its size, in 16 greys. Worst mean difference seen
without a change, on a busy machine: 0.0 of 255 in all of them; the smallest seen with one thing
hidden (of cache, norms, handles, facts, map, lens in light-1280): 1.7, the handles. A page of
another height fails anyway. Where the fonts are others, text runs otherwise, and nothing is
compared.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from minillm.page.static import page as page_of

pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
from tests.page.test_browser import CHROMIUM, HOSTILE, MADE, beside, hostile, long_recording

FOLDER = Path(__file__).parents[1] / "data" / "pages"
CLOSE = 1.0  # of 255, between the two
pytestmark = pytest.mark.browser
SETTLED = """async () => {  // cards follow one a frame, however long a frame takes
  for (let n = 0; n < 40; n++) await new Promise(requestAnimationFrame);
}"""
WIDTHS = """() => {
  const c = document.createElement("canvas").getContext("2d");
  c.font = `100px ${getComputedStyle(document.body).fontFamily}`;
  const wide = (text) => Math.round(c.measureText(text).width);
  return ["Once upon a time", "看一个词元", "▶ ␣ ⏎"].map(wide);
}"""


def keys(*pressed):
    def act(page):
        page.focus("#scope")
        for key in pressed:
            page.keyboard.press(key)

    return act


def moved(page):
    keys("Home")(page)
    page.fill("#temperature", "1.5")
    page.fill("#min_p", "0.02")


WITHOUT = {"kept": 0, "read": 0, "written": 0}
# name: (recordings, width, height, how the browser is set, what is done)
PICTURES = {
    "light-1280": (MADE, 1280, 1900, {}, keys()),
    "dark-1280": (MADE, 1280, 1900, {"color_scheme": "dark"}, keys()),
    "light-360": (MADE, 360, 2400, {}, keys()),
    "dark-360": (MADE, 360, 2400, {"color_scheme": "dark"}, keys("Enter")),
    "light-1920": (MADE, 1920, 1600, {}, keys()),
    "dark-1920": (MADE, 1920, 1600, {"color_scheme": "dark"}, keys("Home")),
    "zoom-200": (MADE, 640, 1200, {"device_scale_factor": 2}, keys()),
    "chinese": (MADE, 1280, 1900, {"locale": "zh-CN"}, keys()),
    "a step": (MADE, 1280, 1200, {}, keys("ArrowDown", "ArrowDown", "1", "Enter")),
    "layers": (MADE, 1280, 900, {}, keys("ArrowDown", "Home")),
    "handles": (MADE, 1280, 1900, {}, moved),
    "levers": ([MADE, beside(WITHOUT)], 1280, 1400, {}, keys()),
    "1000 words": (long_recording(), 1280, 1900, {}, keys("0")),
    "hostile": (hostile(HOSTILE["a tag"]), 640, 1900, {}, keys("Enter")),
}


@contextmanager
def opened(browser, folder, recordings, width, height, how):
    how = {"reduced_motion": "reduce", "locale": "en", "color_scheme": "light"} | how
    context = browser.new_context(viewport={"width": width, "height": height}, **how)
    page = context.new_page()
    (folder / "page.html").write_text(page_of(recordings), "utf-8")
    page.goto((folder / "page.html").as_uri())
    yield page
    context.close()


def picture(browser, folder, name):
    """[height,width] greys from 0 to 255, in steps of 17."""
    from PIL import Image

    *what, act = PICTURES[name]
    with opened(browser, folder, *what) as page:
        act(page)
        page.evaluate(SETTLED)
        shot = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("L")
    scale = 8 * what[3].get("device_scale_factor", 1)
    small = shot.resize((shot.width // scale, shot.height // scale), Image.Resampling.BOX)
    return (np.asarray(small).astype(np.uint8) + 8) // 17 * 17


@pytest.fixture(scope="module")
def same_fonts(chromium, tmp_path_factory):
    known = json.loads((FOLDER / "fonts.json").read_text())
    if fonts(chromium, tmp_path_factory.mktemp("fonts")) != known:
        pytest.skip("the fonts are others here: take the pictures anew to compare on this machine")


def fonts(browser, folder):
    """How wide some texts run."""
    with opened(browser, folder, MADE, 640, 480, {}) as page:
        return page.evaluate(WIDTHS)


@pytest.mark.parametrize("name", PICTURES)
def test_it_looks_as_it_was_looked_at(chromium, same_fonts, tmp_path, name):
    image = pytest.importorskip("PIL.Image", reason="Pillow reads the pictures")
    found = picture(chromium, tmp_path, name)
    wanted = np.asarray(image.open(FOLDER / f"{name}.png").convert("L"))
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).mean() < CLOSE, "look at it, and take it anew"


def take() -> None:
    from tempfile import TemporaryDirectory

    from PIL import Image
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright, TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        (FOLDER / "fonts.json").write_text(json.dumps(fonts(browser, Path(folder))) + "\n")
        for name in PICTURES:
            greys = picture(browser, Path(folder), name)
            file = FOLDER / f"{name}.png"
            Image.fromarray(greys).quantize(16).save(file, optimize=True)
            print(f"{file.stat().st_size:6} {name}", file=sys.stderr)


if __name__ == "__main__":
    take()
