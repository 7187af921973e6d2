"""Makes sure of a Chromium for the tests of the page where that is easy; says so and goes on where it is not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_S = 600


def main() -> int:
    if any(map(shutil.which, NAMES)) or installed_by_playwright():
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        debian = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        if run(["apt-get", "update"], debian) and run(
            ["apt-get", "install", "-y", "--no-install-recommends", "chromium"], debian
        ):
            return 0
    if not run([sys.executable, "-m", "playwright", "install", "chromium"], dict(os.environ)):
        print("chromium: could not be installed; the tests of the page will say what to do", file=sys.stderr)
    return 0


def installed_by_playwright() -> bool:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path).exists()


def run(words: list[str], environment: dict[str, str]) -> bool:
    """Whether a command went well, within PATIENCE_S."""
    try:
        return subprocess.run(words, env=environment, check=False, timeout=PATIENCE_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    sys.exit(main())
