"""A user upgrades without waiting for us: with the newest of everything a fresh service passes its own tests."""

from pathlib import Path

import pytest

from tests.projects import Project, render


@pytest.mark.parametrize("kind", ["contrib", "native"])
def test_the_newest_of_every_dependency_passes_the_smoke_tests(template: Path, tmp_path: Path, kind: str) -> None:
    project = Project(render(template, tmp_path, http_instrumentation=kind))
    limits = project.root / "uv.toml"
    kept = [line for line in limits.read_text().splitlines() if not line.startswith("exclude-newer")]
    assert len(kept) == len(limits.read_text().splitlines()) - 1
    limits.write_text("\n".join(kept) + "\n")
    project.run("uv", "lock", "--upgrade")
    project.run("uv", "sync", "--locked")
    assert " passed" in project.run("uv", "run", "--locked", "pytest", "-v").stdout
