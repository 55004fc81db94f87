"""Take the moving picture of the page again: `python docs/animate.py docs/page.webp`.

It shows the first seconds of a fresh recording, as a browser shows them: words appear while the
scope sweeps. Chromium is driven by playwright, and its clock is ours, so that every frame is the
same share of a second, however busy the machine is; what was measured is the recording's. On a
quiet machine, please: its times are read by everybody.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import minillm
from minillm.clock import measure
from minillm.page.static import page as page_of
from minillm.record import record

SIZE = {"width": 960, "height": 760}
RATE, SECONDS, LAST = 8, 11, 3  # frames a second, how long, and how long the last one stays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="a .webp to write; a .png beside it is its end")
    parser.add_argument("--text", default="Once upon a time, there was a little girl")
    parser.add_argument("--model", default="tales")
    parser.add_argument("--words", type=int, default=24)
    args = parser.parse_args()
    model, tokenizer = minillm.load(args.model)
    weights = sum(p.nbytes for p in model.parameters.values())
    limits = measure(model.ops, [model.stored], sizes=[weights])
    asked = {"max_new_tokens": args.words, "do_sample": False, "tries": 9}
    made = record(model, tokenizer, args.text, name=args.model, limits=limits, **asked)
    frames = filmed(page_of(made))
    frames[-1].save(args.file.with_suffix(".png"), optimize=True)
    frames[0].save(
        args.file,
        save_all=True,
        append_images=frames[1:],
        duration=[1000 // RATE] * (len(frames) - 1) + [1000 * LAST],
        loop=0,
        quality=60,
        method=6,
    )


def filmed(html: str) -> list[Image.Image]:
    """The screen at each frame."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light", locale="en")
        page.clock.install()
        file = Path(folder, "page.html")
        file.write_text(html, "utf-8")
        page.goto(file.as_uri())
        frames = []
        for _ in range(RATE * SECONDS):
            page.clock.run_for(1000 // RATE)
            frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    return frames


if __name__ == "__main__":
    main()
