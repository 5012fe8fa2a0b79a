"""Chromium, Debian's, driven by Playwright: a page as a person sees it."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.servers import packages

# As root there is no sandbox; the rest keeps it from calling home.
OPTIONS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser without profile; its pages are closed with it."""
    packages.ensure_library("atomic", "libatomic1")  # Playwright's own Node counts on it
    program = packages.find("chromium") or packages.find("chromium-browser") or packages.ensure("chromium", "chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(program), args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()
