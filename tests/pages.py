"""What can be wrong with a page that people look at: contrast, names, theme, width, foreign hosts."""

import re
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser


def faults(browser: Browser, url: str, theme: str, wait_for: str = "body") -> list[str]:
    """What axe, the console and a look at the page object to.

    Args:
        browser: From the kit.
        url: Of the page.
        theme: `light` or `dark`.
        wait_for: A selector of what has to be there first.
    """
    page = browser.new_page(color_scheme=theme, viewport={"width": 1100, "height": 900})  # type: ignore[arg-type]
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(url)
    page.locator(wait_for).first.wait_for()
    violations = [f"axe: {each['id']}" for each in Axe().run(page).response["violations"]]
    wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    ink, ground = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    page.close()
    dark = sum(map(int, re.findall(r"\d+", ground)[:3])) < sum(map(int, re.findall(r"\d+", ink)[:3]))
    return [
        *violations,
        *(["wider than the window"] if wide else []),
        *([f"not {theme}"] if dark != (theme == "dark") else []),
        *(f"asks for {other}" for other in asked if urlsplit(other)[:2] != urlsplit(url)[:2]),
        *said,
    ]
