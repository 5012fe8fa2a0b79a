"""What people edited, added or deleted is as they left it after an update, and the update arrives all the same."""

import shutil
from pathlib import Path

import pytest

from tests.projects import Edit
from tests.update.versions import commit, duplicate, files, make_service, release, unmerged, update, yours

pytestmark = pytest.mark.wide  # Copier alone, as bots run it; `make update` is in test_template_update.py

SRC = "src/my_service"
EDITS = (
    Edit(f"{SRC}/main.py", "without=set()", 'without={"api_docs"}'),
    Edit(f"{SRC}/settings.py", "by its environment.", "by its environment, and more."),
    Edit(f"{SRC}/features/items/routes.py", "= 20,", "= 50,"),
    Edit("migrations/versions/0001_items.py", "op.drop_table", "op.drop_table  # mine\n    "),
    Edit("README.md", "## Start", "## How we begin"),
    Edit("ready.toml", 'read = "/v1/items"', 'read = "/v1/orders"'),
    Edit("docs/contacts.md", "| second line |", "| Ann |"),
    Edit("deploy/nginx/conf.d/peers.conf", "127.0.0.1:8001", "10.1.2.3:8000"),
    Edit("observability/slo.yaml", "objective: 99.9", "objective: 99.95"),
    Edit("uv.toml", "2026-11-23", "2026-11-30"),
    Edit("tests/features/test_items.py", '"lamp"', '"torch"'),
    Edit("LICENSE", "Apache", "Our own"),
    Edit("CHANGELOG.md", "#", "# Ours:"),
)
ADDED = {
    f"{SRC}/features/orders/__init__.py": '"""Orders."""\n',
    f"{SRC}/features/orders/routes.py": '"""Orders."""\n\nfrom fastapi import APIRouter\n\nrouter = APIRouter()\n',
    "migrations/versions/0002_orders.py": '"""Orders."""\n',
    "uv.lock": "version = 1\n",
    "Makefile.local": "mine:\n\ttrue\n",
}
# In files of ours, away from what the release changes.
SHARED = (
    Edit("observability/alerts.yaml", "vector(0.999)", "vector(0.9995)"),  # `make alerts`
    Edit("pyproject.toml", '    "wrapt>=1.17",\n', '    "wrapt>=1.17",\n    # mine\n    "rich>=14",\n'),
    Edit(f"{SRC}/platform/security.py", "\n\n\ndef ", "\n\nMINE = 1\n\n\ndef "),
)
EXAMPLE = (f"{SRC}/features/items", "migrations/versions", "tests/features")


def edited(service: Path, *more: Edit) -> Path:
    """A service after its first months."""
    for edit in (*EDITS, *more):
        edit.apply(service)
    for name, text in ADDED.items():
        (service / name).parent.mkdir(exist_ok=True)
        (service / name).write_text(text)
    return commit(service)


@pytest.fixture(scope="module")
def updated(first: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An edited service before and after the update."""
    folder = tmp_path_factory.mktemp("edited")
    before = edited(duplicate(first, folder / "before"), *SHARED)
    return before, update(duplicate(before, folder / "after"))


def test_what_is_yours_survives_byte_for_byte(updated: tuple[Path, Path]) -> None:
    before, after = map(files, updated)
    assert f"{SRC}/platform/quota.py" in after  # the update did its work
    assert len(yours(before)) >= len(EDITS) + len(ADDED) - 1
    assert yours(after) == yours(before)
    assert after["Makefile.local"] == before["Makefile.local"]


def test_edits_of_our_files_merge_with_ours_where_they_do_not_touch(updated: tuple[Path, Path]) -> None:
    _, after = updated
    assert unmerged(after) == []
    pyproject = (after / "pyproject.toml").read_text()
    assert '"rich>=14"' in pyproject
    assert '"anyio>=4"' in pyproject
    alerts = (after / "observability/alerts.yaml").read_text()
    assert "for: 10m\n        labels: {service: my-service, severity: page}" in alerts
    assert "vector(0.9995)" in alerts
    security = (after / f"{SRC}/platform/security.py").read_text()
    assert security.startswith("# As of v0.2.0.\n")
    assert "\nMINE = 1\n" in security


def comes_back(service: Path) -> list[str]:
    """Delete the example by hand, as everybody does, and update: what is there again."""
    for folder in EXAMPLE:
        shutil.rmtree(service / folder)
    commit(service)
    update(service)
    assert (service / f"{SRC}/platform/quota.py").is_file()
    return [folder for folder in EXAMPLE if (service / folder).exists()]


def test_an_example_deleted_by_hand_stays_deleted(first: Path, tmp_path: Path) -> None:
    assert comes_back(duplicate(first, tmp_path / "service")) == []


@pytest.mark.sabotage
def test_an_example_under_skip_if_exists_would_come_back(tmp_path: Path) -> None:
    excluded = """  - "{% if _copier_operation == 'update' %}src/*/features/items{% endif %}"\n"""
    sabotage = (Edit("copier.yml", excluded, ""), Edit("copier.yml", "  - uv.toml\n", "  - uv.toml\n  - items\n"))
    template = release(tmp_path / "template", *sabotage)
    assert comes_back(make_service(template, tmp_path / "service")) == [EXAMPLE[0]]
