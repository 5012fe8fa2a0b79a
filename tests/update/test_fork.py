"""A team forks the template, or lays one of its own over it: updates of both arrive."""

from pathlib import Path

import copier

from tests.projects import Edit
from tests.update.command import run
from tests.update.versions import NEW, OLD, SOURCE, commit, duplicate, files, git, unmerged

PAGE = "docs/caching.md"
OVERLAY = {
    "copier.yml": "_subdirectory: template\ncolour:\n  type: str\n  default: blue\n",
    "template/{{ _copier_conf.answers_file }}.jinja": "# Written by Copier.\n{{ _copier_answers | to_nice_yaml }}",
    "template/docs/house.md.jinja": "Our colour is {{ colour }}.\n",
}


def test_a_fork_brings_its_own_changes_and_those_from_upstream(first: Path, releases: Path, tmp_path: Path) -> None:
    fork = tmp_path / "fork"
    git(tmp_path, "clone", "--quiet", str(releases), str(fork))
    git(fork, "tag", "--delete", NEW)  # upstream has not released it yet
    git(fork, "checkout", "--quiet", "-b", "house", OLD)
    Edit(f"template/{PAGE}", "\n", "\nThe house rules come first.\n").apply(fork)
    commit(fork, f"{OLD}.post1")

    service = duplicate(first, tmp_path / "service")
    Edit(".copier-answers.yml", str(releases), str(fork)).apply(service)
    commit(service)
    run(service)
    assert "The house rules come first." in (service / PAGE).read_text()
    assert f"_commit: {OLD}.post1\n" in (service / ".copier-answers.yml").read_text()
    commit(service)

    git(fork, "fetch", "--quiet", "--tags", str(releases))
    git(fork, "merge", "--quiet", "--no-edit", NEW)
    git(fork, "tag", f"{NEW}.post1")
    run(service, check=False)
    assert unmerged(service) == []
    assert (service / "src/my_service/platform/quota.py").read_bytes() == (
        fork / SOURCE / "platform/quota.py"
    ).read_bytes()
    assert "The house rules come first." in (service / PAGE).read_text()


def test_a_template_laid_over_it_is_updated_apart(first: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    for name, text in OVERLAY.items():
        (overlay / name).parent.mkdir(parents=True, exist_ok=True)
        (overlay / name).write_text(text)
    commit(overlay, "v1")
    service = duplicate(first, tmp_path / "service")
    own = ".copier-answers.house.yml"
    copier.run_copy(str(overlay), service, answers_file=own, defaults=True, quiet=True)
    commit(service)
    run(service, check=False)
    assert (service / "src/my_service/platform/quota.py").is_file()
    assert (service / "docs/house.md").read_text() == "Our colour is blue.\n"
    commit(service)

    Edit("template/docs/house.md.jinja", "Our", "The house's").apply(overlay)
    commit(overlay, "v2")
    before = files(service)
    copier.run_update(service, answers_file=own, defaults=True, quiet=True, overwrite=True)
    after = files(service)
    assert {name for name in before if before[name] != after[name]} == {"docs/house.md", own}
