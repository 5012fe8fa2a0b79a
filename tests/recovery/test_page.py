"""The plan as a page: for every answer its scenarios, links that lead somewhere, and no command that nobody has run."""

import re
import shutil
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.projects import Edit, render
from tests.recovery.plan import PAGE, RUN, blocks
from tests.sabotage import Line

ANSWERS = {
    "default": {},
    "gold": {"recovery_tier": "gold"},
    "silver": {"recovery_tier": "silver"},
    "aws and memcached": {"secrets_manager": "aws", "cache": "memcached", "error_monitoring": "none"},
    "nothing": {"database": "none", "secrets_manager": "none", "cache": "none"},
}
ALWAYS = {
    "Zone lost",
    "Region lost",
    "Ransomware or stolen credentials",
    "Cluster, CI or registry lost",
    "Certificate or DNS expired",
    "Telemetry lost",
}
DATABASE = {"Bad release or migration", "Accidental delete", "Corruption"}
SCENARIOS = {
    "default": ALWAYS | DATABASE | {"Vault lost", "Break the glass", "Redis lost"},
    "gold": ALWAYS | DATABASE | {"Vault lost", "Break the glass", "Redis lost"},
    "silver": ALWAYS | DATABASE | {"Vault lost", "Break the glass", "Redis lost"},
    "aws and memcached": ALWAYS | DATABASE | {"Secrets Manager lost", "Break the glass", "Memcached lost"},
    "nothing": ALWAYS | {"Bad release"},
}
PARTS = (
    "First five minutes",
    "Decide",
    "Targets",
    "Order",
    "Scenarios",
    "Failback",
    "Afterwards",
    "Drills",
    "Messages",
)
MADE_LATER = "dr/evidence/README.md"  # by the first drill
PROGRAMS = re.compile(
    r"`((?:uv|make|vault|bao|psql|pg_\w+|redis-cli|curl|openssl|age|tar|kubectl|docker|aws|git) [^`]+)`"
)


@pytest.fixture(scope="session")
def pages(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project for each set of answers."""
    return {name: render(template, tmp_path_factory.mktemp("plan"), **given) for name, given in ANSWERS.items()}


def anchors(text: str) -> set[str]:
    """How GitHub names the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(root: Path) -> Iterator[tuple[Path, str]]:
    """Those of the plan, and those of other pages to it."""
    for page in (root / "docs").glob("*.md"):
        for target in re.findall(r"\]\((?!https:)([^)\s]+)\)", page.read_text()):
            if page.name in PAGE or target.startswith("disaster-recovery.md"):
                yield page, target


def dead_links(root: Path) -> Iterator[str]:
    """The links of the page, and of others to it, that lead nowhere; those to other hosts are not followed."""
    for page, target in links(root):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        there = file == root.resolve() / MADE_LATER or file.is_file()
        if not there or (anchor and anchor not in anchors(file.read_text())):
            yield target


def unproven(root: Path, proven: set[str]) -> list[str]:
    """The lines of commands of the page that no test runs."""
    text = (root / PAGE).read_text()
    lines = {line.strip() for _, block in blocks(text) for line in block.splitlines()}
    return sorted((lines | set(PROGRAMS.findall(text))) - proven)


@pytest.fixture(scope="session")
def proven(pages: dict[str, Path]) -> set[str]:
    """Each line that a test runs: all of the default page's, as the test below shows, and the standby's."""
    for file in Path(__file__).parent.glob("test_*.py"):
        import_module(f"tests.recovery.{file.stem}")
    tested = [*blocks((pages["default"] / PAGE).read_text()), *blocks((pages["gold"] / PAGE).read_text())]
    lines = {line.strip() for title, block in tested if title in RUN | {"Zone lost"} for line in block.splitlines()}
    return lines | {line.partition("  #")[0].strip() for line in lines}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_command_is_run_by_a_test_or_is_for_your_cloud(pages: dict[str, Path], proven: set[str], name: str) -> None:
    assert unproven(pages[name], proven) == []
    assert len(proven) > 20


@pytest.mark.parametrize("name", ANSWERS)
def test_each_scenario_of_the_answers_has_its_runbook_and_each_is_decided_for(
    pages: dict[str, Path], name: str
) -> None:
    text = (pages[name] / PAGE).read_text()
    assert set(re.findall(r"^### (.+)$", text, re.M)) == SCENARIOS[name]
    assert [title for title in PARTS if f"\n## {title}\n" not in text] == []
    decided = text.partition("\n## Decide\n")[2].partition("\n## ")[0]
    chosen = {title for title, _ in re.findall(r"\[([^]]+)\]\(#([\w-]+)\)", decided)}
    assert chosen == SCENARIOS[name] - {"Break the glass"}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_link_leads_somewhere(pages: dict[str, Path], name: str) -> None:
    assert list(dead_links(pages[name])) == []
    assert "disaster-recovery.md" in (pages[name] / "docs/runbook.md").read_text()
    assert "disaster-recovery.md" in (pages[name] / "README.md").read_text()


@pytest.mark.parametrize("name", ["default", "silver", "gold"])
def test_its_targets_are_those_of_the_tier(pages: dict[str, Path], name: str) -> None:
    found = tomllib.loads((pages[name] / "deploy/recovery.toml").read_text())
    text = (pages[name] / PAGE).read_text()
    assert f"Tier **{found['tier']}**" in text
    for key in ("rto", "rpo"):
        assert re.search(rf"^\| {key.upper()}: [^|]+\| {found['targets'][key]} \|", text, re.M)
    alone = re.search(r"^\| the same, with backups alone \| (\w+) \|", text, re.M)
    assert (alone[1] if alone else found["targets"]["rpo"]) == found["backups"]["rpo"]


@pytest.mark.sabotage
def test_what_nobody_ran_or_leads_nowhere_is_named(pages: dict[str, Path], proven: set[str], tmp_path: Path) -> None:
    root = shutil.copytree(pages["default"], tmp_path / "service")
    Line(PAGE, "vault status   ", "vault operator seal").apply(root)
    Edit(PAGE, "(your cloud)", "(`kubectl delete pod`)").apply(root)
    Edit(PAGE, "(#failback)", "(#fallback)").apply(root)
    Edit(PAGE, "(runbook.md#cacheaway)", "(runbook.md#cachegone)").apply(root)
    assert unproven(root, proven) == ["kubectl delete pod", "vault operator seal"]
    assert set(dead_links(root)) == {"#fallback", "runbook.md#cachegone"}
