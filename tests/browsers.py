"""A real Chromium, driven by Playwright: one browser for the tests of a module, a fresh context for each visit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from deploy.chromium import NAMES

MISSING = (
    "these tests need Chromium: `apt-get install chromium` on Debian or Ubuntu, or `.venv/bin/playwright install"
    " chromium`, or any Chromium or Chrome on PATH; `make test` tries the first two"
)


def chromium(playwright: Playwright) -> str:
    """The browser of PATH, or the one that Playwright installed. Fails the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None) or playwright.chromium.executable_path
    if not Path(found).exists():
        pytest.fail(MISSING)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """No wider than a module: while it runs, no other test in this thread can have an event loop of its own."""
    with sync_playwright() as playwright:
        # without a sandbox of its own it also runs as root and in containers; it opens nothing but this machine's pages
        launched = playwright.chromium.launch(executable_path=chromium(playwright), args=["--no-sandbox"])
        yield launched
        launched.close()
