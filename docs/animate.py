"""Take the README's pictures of the page again: `python docs/animate.py`.

docs/page.webp shows a fixed recording as a browser plays it: words appear while the scope sweeps.
docs/page.png is the whole of it, twice as fine. Chromium is driven by playwright, and its clock is
ours, so that a frame is the same share of a second however busy the machine is.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from minillm.page.static import page as page_of
from minillm.recording import read

HERE = Path(__file__).parent
RECORDING = HERE.parent / "tests" / "data" / "recordings" / "tales.recording"
SIZE = {"width": 1100, "height": 622}
RATE, MOST, LAST = 8, 20, 3  # frames a second, seconds at most, and how long the last one stays


def main() -> None:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        file = Path(folder, "page.html")
        file.write_text(page_of(read(RECORDING)), "utf-8")
        whole = opened(browser, reduced_motion="reduce", device_scale_factor=2)
        whole.goto(file.as_uri())
        whole.wait_for_timeout(1000)
        shot(whole).quantize(64).save(HERE / "page.png", optimize=True)
        playing = opened(browser)
        playing.clock.install(time=0)
        playing.clock.pause_at(1)
        playing.goto(file.as_uri())
        first, *others = filmed(playing)
    first.save(
        HERE / "page.webp",
        save_all=True,
        append_images=others,
        duration=[1000 // RATE] * len(others) + [1000 * LAST],
        loop=0,
        quality=50,
        method=6,
    )


def opened(browser: Browser, **how: object) -> Page:
    return browser.new_page(viewport=SIZE, color_scheme="light", locale="en", **how)


def filmed(page: Page) -> list[Image.Image]:
    """The screen at each frame, until the last word is there."""
    frames = []
    while len(frames) < RATE * MOST:
        page.clock.run_for(1000 // RATE)
        frames.append(shot(page))
        if page.locator("#play").get_attribute("aria-label") == "Play again":
            break
    return frames


def shot(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
