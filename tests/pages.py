"""What can be wrong with a page that people look at: contrast, names, theme, width, foreign hosts, a phone's screen."""

import re
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

PHONE = {"width": 390, "height": 844}
MIN_COLUMN = 72  # pixels: about a word; text in less stands one letter below the other
NARROW = """least => [...document.querySelectorAll("body *")].flatMap(node => {
  const own = [...node.childNodes].filter(each => each.nodeType === 3).map(each => each.data.trim()).join(" ");
  const box = node.getBoundingClientRect();
  return own.length > 12 && box.width > 0 && box.width < least ? [own.slice(0, 29)] : [];
})"""


def wide(page: Page) -> bool:
    """Whether a part of the page is only seen by scrolling to the right."""
    found: bool = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    return found


def phone_faults(page: Page) -> list[str]:
    """What cannot be read on a phone, of what is open."""
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]  # a TypedDict that Playwright keeps private
    narrow = [f"narrow on a phone: {text}" for text in page.evaluate(NARROW, MIN_COLUMN)]
    return [*(["wider than a phone"] if wide(page) else []), *narrow]


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
    too_wide = wide(page)
    ink, ground = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    small = phone_faults(page)
    page.close()
    dark = sum(map(int, re.findall(r"\d+", ground)[:3])) < sum(map(int, re.findall(r"\d+", ink)[:3]))
    return [
        *violations,
        *(["wider than the window"] if too_wide else []),
        *([f"not {theme}"] if dark != (theme == "dark") else []),
        *small,
        *(f"asks for {other}" for other in asked if urlsplit(other)[:2] != urlsplit(url)[:2]),
        *said,
    ]
