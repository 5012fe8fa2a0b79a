"""The tutorial, followed literally: each file written, each command typed while `make dev` runs in another terminal."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests import commands
from tests.projects import ROOT, START_SECONDS, Project, Service, render
from tests.servers import packages
from tests.servers.process import Process, free_port
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
SECONDS = 60.0
# Tested elsewhere: the template is rendered by `render`, updates are those of tests/update and tests/test_emitted.py.
NOT_TYPED = ("uvx copier", "cd orders", "git init", "make check", "make update", "make upgrade")


@dataclass
class Step:
    """A file to write, or a command with the JSON that the tutorial shows for it."""

    command: str = ""
    file: str = ""
    text: str = ""


def steps() -> list[Step]:
    """What a reader does, in order."""
    found: list[Step] = []
    text = (ROOT / "docs/tutorial.md").read_text()
    for block in re.finditer(r"^```(\w+)\n([\s\S]*?)^```$|^    \S.*$", text, re.M):
        if not block[1]:
            found.append(Step(block[0].strip()))
        elif block[1] == "json":
            found[-1].text = block[2]
        else:
            head, _, code = block[2].partition("\n")
            found.append(Step(file=head.removeprefix("# "), text=code))
    return [step for step in found if not step.command.startswith(NOT_TYPED)]


@dataclass
class Reader:
    """Who follows the tutorial in the folder `orders`."""

    project: Project
    port: int
    said: dict[str, str] = field(default_factory=dict)

    def env(self) -> dict[str, str]:
        env = self.project.env({"PORT": str(self.port), "no_proxy": "*"})
        del env["PYTHONPATH"]
        return env | {"PATH": f"{env['PATH']}:{packages.ensure('curl', 'curl').parent}"}

    def type(self, command: str) -> str:
        """Run a command; on a new service `make ready` finds gaps, so make ends with 2; everything else succeeds."""
        there = re.sub("localhost:8000", f"127.0.0.1:{self.port}", command)
        done = commands.run("sh", "-c", there, cwd=self.project.root, env=self.env())
        assert done.returncode in ((0, 2) if command == "make ready" else (0,)), done.stdout + done.stderr
        return done.stdout

    def follow(self, step: Step) -> None:
        if step.file:
            path = self.project.root / step.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text)
            return
        until = time.monotonic() + (SECONDS if step.command.startswith(("curl", "make ready")) else 0)
        while True:  # the server needs a moment to reload
            self.said[step.command] = self.type(step.command)
            right = not step.text or self.said[step.command].strip() == step.text.strip()
            right = right and (bool(self.said[step.command]) or "make ready" not in step.command)
            if (right and "internal-error" not in self.said[step.command]) or time.monotonic() > until:
                assert right, self.said[step.command]
                return
            time.sleep(0.2)


@pytest.fixture(scope="module")
def followed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The folder of the reader after the last step, with `make dev` still running."""
    folder = tmp_path_factory.mktemp("tutorial")
    reader = Reader(
        Project(render(template, folder / "orders", project_name="Orders"), "orders", "orders"), free_port()
    )
    log = folder / "dev.log"
    server = Process(["make", "dev"], log=log, cwd=reader.project.root, env=reader.env())
    with httpx.Client(base_url=f"http://127.0.0.1:{reader.port}", trust_env=False) as client:
        server.wait_until(Service(server, client, reader.port).lives, 4 * START_SECONDS)
        for step in steps():
            reader.follow(step)
        reader.said["log"] = log.read_text()
        yield reader
    server.stop()


def test_the_tutorial_is_followed_to_its_end(followed: Reader) -> None:
    typed = [step.command for step in steps() if step.command]
    assert len(typed) == 7
    assert json.loads(followed.said["curl localhost:8000/v1/greetings/ada"]) == {"greeting": "Hello, Ada."}
    assert "areas proven" in followed.said["make ready"]
    assert "Ada was greeted" in followed.said['make ready ARGS="--area greetings"']
    assert re.search("features/greetings.*Reloading", followed.said["log"])


def test_a_file_that_is_no_code_reloads_nothing(followed: Reader) -> None:
    folder = followed.project.root / "src/orders/features/greetings"
    log = followed.project.root.parent / "dev.log"
    before = log.read_text().count("Reloading")
    for name in ("notes.txt", ".#routes.py", "routes.py~", ".routes.py.swp", "data.json"):
        (folder / name).write_text("")
    (folder / "more.py").write_text('"""More."""\n')
    until = time.monotonic() + SECONDS
    while not re.search("greetings/more.py'.*Reloading", text := log.read_text()):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert text.count("Reloading") == before + 1
    assert "detected             [watchfiles" not in text
    for name in ("notes.txt", ".#routes.py", "routes.py~", ".routes.py.swp", "data.json", "more.py"):
        (folder / name).unlink()


def test_a_new_folder_of_a_feature_reloads(followed: Reader) -> None:
    """Of files that are written at once with their folder, the watcher may see the folder alone (1 of 8 times)."""
    folder, log = followed.project.root / "src/orders/features/later", followed.project.root.parent / "dev.log"
    folder.mkdir()
    until = time.monotonic() + SECONDS
    while not re.search("features/later'.*Reloading", log.read_text()):
        assert time.monotonic() < until
        time.sleep(0.1)
    folder.rmdir()


@pytest.mark.wide
def test_what_the_reader_has_written_passes_make_check(followed: Reader) -> None:
    said = followed.type("make check")
    assert "Success: no issues found" in said
    assert " passed" in said


def test_the_readme_of_the_service_says_what_is_there(followed: Reader) -> None:
    readme = (followed.project.root / "README.md").read_text()
    created, listed = (followed.type(line) for line in re.findall(r"^    (curl .*)$", readme, re.M))
    assert json.loads(created)["name"] == "a first item"
    assert json.loads(created) in json.loads(listed)["items"]
    paths = [
        path
        for cell in re.findall(r"^\| (`[^|]*) \|[^|]*\| (?:you|template) \|$", readme, re.M)
        for path in cell.split(", ")
    ]
    assert len(paths) > 20
    assert [path for path in paths if not (followed.project.root / path.strip("`")).exists()] == []
    targets = re.findall(r"^    make ?(\w*)", readme, re.M)
    assert {"dev", "check", "ready", ""} <= set(targets)
    listed = followed.type("make")
    assert [target for target in targets if f"  {target}" not in listed] == []


def foreign(service: Service, page: str) -> list[str]:
    """What a page loads from another host, or from its own without getting it."""
    links = re.findall(r"(?:src=|href=|url: )[\"']([^\"']+)", page)
    assert len(links) >= 4
    return [link for link in links if link[0] != "/" or service.client.get(link).status_code != 200]


def test_the_page_of_the_api_loads_nothing_from_elsewhere(project: Project, tmp_path: Path) -> None:
    with project.serve(tmp_path / "run", migrated(project, f"sqlite:///{tmp_path}/x.db")) as service:
        answer = service.client.get("/docs")
        assert foreign(service, answer.text) == []
        assert "script-src 'self' 'sha256-" in answer.headers["content-security-policy"]
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        sick = answer.text.replace('src="/docs/assets', 'src="https://cdn.test')
        assert foreign(service, sick) == ["https://cdn.test/swagger-ui-bundle.js"]
