"""The tutorial's code works as printed, and the page that it sends readers to is whole."""

import re
from pathlib import Path

import pytest

from tests.projects import ROOT, Project, Service
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers


def printed() -> dict[str, str]:
    """The Python files that the tutorial prints, by path."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    blocks = re.findall(r"```python\n# (?:src/orders/)?(\S+)\n(.*?)```", text, re.S)
    assert len(blocks) == 4
    return dict(blocks)


def test_the_feature_of_the_tutorial_is_served(project: Project, tmp_path: Path) -> None:
    own = project.variant(tmp_path / "own")
    for name, code in printed().items():
        path = own.root / ("" if name.startswith("ready/") else "src/my_service") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        head = "from .platform import PlatformSettings\n\n\n" if name == "settings.py" else ""
        path.write_text(head + code)
    with own.serve(tmp_path / "run", {"GREETING_LIMIT": "3"}) as service:
        assert service.client.get("/v1/greetings/ada").json() == {"greeting": "Hello, Ada."}
        nobody = service.client.get("/v1/greetings/bob")
        assert (nobody.status_code, nobody.json()["code"]) == (404, "unknown-name")
        greeted = own.ready("--area", "greetings", "--url", f"http://127.0.0.1:{service.port}", check=True)
        assert "greetings.ada        Ada was greeted" in greeted.stdout
    ruff = [str(project.venv / "bin" / "ruff"), "check", "--no-cache", "ready", "src"]
    own.run(*ruff)
    show = "from my_service.settings import Settings; print(Settings().greeting_limit)"
    python = str(project.venv / "bin" / "python")
    assert own.run(python, "-c", show, env={"GREETING_LIMIT": "3"}).stdout == "3\n"


def foreign(service: Service, page: str) -> list[str]:
    """What a page loads from another host, or from its own without getting it."""
    links = re.findall(r'(?:src|href|data-openapi)="([^"]+)"', page)
    assert len(links) >= 5
    return [link for link in links if link[0] != "/" or service.client.get(link).status_code != 200]


def test_the_page_of_the_api_loads_nothing_from_elsewhere(project: Project, tmp_path: Path) -> None:
    with project.serve(tmp_path / "run", migrated(project, f"sqlite:///{tmp_path}/x.db")) as service:
        answer = service.client.get("/docs")
        assert foreign(service, answer.text) == []
        assert "script-src" not in answer.headers["content-security-policy"]
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        sick = answer.text.replace('src="/docs/assets', 'src="https://cdn.test')
        assert foreign(service, sick) == ["https://cdn.test/swagger-ui-bundle.js"]
