"""Photograph the playground for README.md and docs/playground.md: two models side by side, in Chromium.

    python docs/picture.py MODEL MODEL [--work WORK]      writes docs/images/playground.png

The arguments are those of `kringle serve`; what the models write is theirs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

IMAGE = Path(__file__).resolve().parent / "images" / "playground.png"
WIDTH, HEIGHT = 1280, 860  # CSS pixels


def main() -> int:
    if len(sys.argv) < 3 or (chromium := shutil.which("chromium")) is None:
        print(__doc__)
        return 2
    command = ["kringle", "serve", *sys.argv[1:], "--port", "0"]
    server = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = next(line.split()[-1] for line in server.stdout if line.startswith("serving at "))
    try:
        photograph(address, chromium)
    finally:
        server.terminate()
        server.wait()
    return 0


def photograph(address: str, chromium: str) -> None:
    """The page with a selection filled in by two models, and the alternatives to one token."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        page.goto(address)
        page.wait_for_selector("[data-ready]")
        page.select_option("#start", label="Python: the next line")
        page.select_option("[name=beside]", index=2)
        page.locator("[name=max_tokens]").fill("40")
        for _ in range(2):  # the second time nothing has to be compiled any more
            page.locator(".cm-content").press("Control+Enter")
            page.wait_for_selector(".lane .token")
            page.wait_for_selector(".lane.busy", state="detached")
        page.locator(".tokens").first.focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        page.screenshot(path=IMAGE)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
