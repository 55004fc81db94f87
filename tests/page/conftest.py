"""A browser for tests of the page's own model."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, or the one that MINILLM_CHROMIUM names, driven by playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [*filter(None, [os.environ.get("MINILLM_CHROMIUM"), *map(shutil.which, names)])]
    if not found:
        pytest.skip("no chromium: install it, or set MINILLM_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
