"""The reference pages say what their sources say, and the site has every page: what fell behind is named."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import run
from tests.projects import ROOT, Edit, export


def build(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "docs" / "build.py", *options],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository with pages that are up to date, whatever state our own are in."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT / "docs", folder / "docs")
    build(export(folder))
    return folder


@pytest.fixture
def checkout(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path, dirs_exist_ok=True)


def test_the_pages_of_this_repository_are_up_to_date() -> None:
    done = build(ROOT, "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_question_makes_its_page_stale_until_it_is_built(checkout: Path) -> None:
    Edit("copier.yml", "What is the service called?", "Which name has it?").apply(checkout)
    stale = build(checkout, "--check")
    assert stale.returncode == 1
    assert stale.stderr == "docs/reference/questions.md is out of date: type make docs\n"
    assert build(checkout).stdout == "wrote docs/reference/questions.md\n"
    assert "Which name has it?" in (checkout / "docs" / "reference" / "questions.md").read_text()
    assert build(checkout, "--check").returncode == 0


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("page", "change"),
    [
        ("settings", Edit("template/.env.example.jinja", "LOG_LEVEL=INFO", "LOG_LEVEL=ERROR")),
        ("make", Edit("template/Makefile.jinja", "test: ## ", "test: ## carefully ")),
    ],
)
def test_a_changed_service_changes_its_page_and_no_other(checkout: Path, page: str, change: Edit) -> None:
    change.apply(checkout)
    assert build(checkout).stdout == f"wrote docs/reference/{page}.md\n"


def test_a_page_that_is_missing_is_named(checkout: Path) -> None:
    (checkout / "docs" / "reference" / "make.md").unlink()
    stale = build(checkout, "--check")
    assert stale.returncode == 1
    assert stale.stderr == "docs/reference/make.md is out of date: type make docs\n"


def pages(root: Path) -> set[str]:
    return {str(page.relative_to(root / "docs")) for page in (root / "docs").rglob("*.md")}


def entries(part: object) -> Iterator[str]:
    """The pages of a navigation, however deep."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, list | dict):
        for each in part if isinstance(part, list) else part.values():
            yield from entries(each)


def lists_each_page_once(root: Path) -> None:
    listed = [*entries(tomllib.loads((root / "zensical.toml").read_text())["project"]["nav"])]
    assert sorted(listed) == sorted(pages(root))
    linked = set(re.findall(r"\]\(([^)#]+\.md)\)", (root / "docs" / "index.md").read_text()))
    assert linked | {"index.md"} == pages(root)


def test_each_page_is_in_the_navigation_and_in_the_index() -> None:
    assert {"tutorial.md", "how-to/security.md", "decisions/0001-ownership.md", "reference/make.md"} <= pages(ROOT)
    lists_each_page_once(ROOT)


@pytest.mark.sabotage
def test_a_page_that_is_in_no_navigation_is_noticed(site: Path) -> None:
    lists_each_page_once(site)
    (site / "docs" / "decisions" / "9999-forgotten.md").write_text("# Forgotten\n")
    with pytest.raises(AssertionError):
        lists_each_page_once(site)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of what the site is built from."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    return tmp_path


def zensical(site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as `make docs` does."""
    (line,) = [each for each in (ROOT / "Makefile").read_text().splitlines() if "zensical" in each]
    command = line.strip().removeprefix("@.venv/bin/").split()
    return run(sys.executable, "-m", *command, cwd=site)


def test_the_site_has_each_page_and_a_dark_palette_and_loads_nothing_from_elsewhere(site: Path) -> None:
    done = zensical(site)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in pages(site):
        path = site / "site" / name.removesuffix("index.md").removesuffix(".md") / "index.html"
        page = path.read_text()
        assert 'data-md-color-scheme="slate"' in page
        assert 'data-md-color-media="(prefers-color-scheme: dark)"' in page
        assert "narrow.css" in page
        loaded = re.findall(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="([^"]+)"', page)
        assert len(loaded) > 1
        assert [url for url in loaded if "//" in url] == []


@pytest.mark.parametrize("link", ["nowhere.md", "tutorial.md#nowhere"])
def test_a_link_that_leads_nowhere_stops_the_build(site: Path, link: str) -> None:
    with (site / "docs" / "index.md").open("a") as page:
        page.write(f"\n[nowhere]({link})\n")
    done = zensical(site)
    assert done.returncode != 0
    assert "does not exist" in done.stdout + done.stderr
