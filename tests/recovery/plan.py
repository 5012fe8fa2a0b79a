"""The commands of `docs/disaster-recovery.md`: blocks of the page's own text, run as whoever follows it runs them."""

import os
import pty
import re
import select
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.projects import Project
from tests.servers import packages, wheels

PAGE = "docs/disaster-recovery.md"
SECONDS = 120.0
RUN: set[str] = set()  # the sections whose commands a test runs
Answer = Callable[[str], str]  # of what was printed so far


def runs(*titles: str) -> pytest.MarkDecorator:
    """Mark a test that runs every command below these headings, by its fixture `steps`."""
    RUN.update(titles)
    return pytest.mark.parametrize("steps", [titles], indirect=True, ids=[titles[0]])


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Each block of commands with the heading above it; the indentation of a list is none of the commands'."""
    title = ""
    for heading, block in re.findall(r"^#+ ([^\n]+)\n|^ *```sh\n(.*?)^ *```\n", text, re.M | re.S):
        title = heading or title
        if block:
            yield title, textwrap.dedent(block)


@dataclass
class Steps:
    """The commands below some headings of a project's page; `env` is what the operator has set."""

    project: Project
    bin: Path
    left: list[tuple[str, str]]
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The operator's terminal: `uv` runs the installed project, and installs nothing."""
        path = os.pathsep.join([str(self.bin), os.environ["PATH"]])
        uv = {"UV_NO_SYNC": "1", "UV_PROJECT_ENVIRONMENT": str(self.project.venv)}
        return self.project.env({"PATH": path, "HOME": str(self.bin), **uv, **self.env})

    def next(self, title: str = "") -> list[str]:
        """How a shell runs the next block, of those below a heading if it is given."""
        block = next(block for block in self.left if title in ("", block[0]))
        self.left.remove(block)
        return ["bash", "-euo", "pipefail", "-c", block[1]]

    def spoil(self, old: str, new: str) -> None:
        """Sabotage the page: change the only command that has these words."""
        (index,) = (index for index, (_, block) in enumerate(self.left) if old in block)
        title, block = self.left[index]
        self.left[index] = title, block.replace(old, new)

    def run(self, title: str = "", *, code: int = 0, cwd: Path | None = None, **env: str) -> str:
        """Run the next block: what it prints."""
        self.env |= env
        done = subprocess.run(
            self.next(title),
            cwd=cwd or self.project.root,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def answer(self, *dialogue: tuple[str, Answer], title: str = "", **env: str) -> str:
        """Run the next block at a terminal, and type an answer after each of these prompts: what it prints."""
        self.env |= env
        command, variables = self.next(title), self.environment()
        try:
            child, end = pty.fork()
        except OSError as error:
            pytest.skip(f"this machine has no terminals, as a root without /dev/pts: {error}")
        if child == 0:
            os.chdir(self.project.root)
            os.execvpe(command[0], command, variables)  # noqa: S606 a command of the page
        shown, wanted = "", list(dialogue)
        deadline, read = time.monotonic() + SECONDS, 0
        while time.monotonic() < deadline and select.select([end], [], [], deadline - time.monotonic())[0]:
            try:
                shown += re.sub(r"\x1b\[\d*m", "", os.read(end, 65_536).decode())
            except OSError:  # Linux's way to say that the other end is closed
                break
            if wanted and (found := re.compile(wanted[0][0]).search(shown, read)):
                os.write(end, f"{wanted.pop(0)[1](shown)}\n".encode())
                read = found.end()
        os.close(end)
        _, status = os.waitpid(child, 0)
        assert (os.waitstatus_to_exitcode(status), wanted) == (0, []), shown
        return shown


@contextmanager
def steps_of(project: Project, folder: Path, titles: Sequence[str]) -> Iterator[Steps]:
    """The commands below these headings, in a copy of the project; what the test did not run fails it."""
    tools = folder / "bin"
    tools.mkdir(parents=True)
    (tools / "vault").symlink_to(wheels.ensure("bao"))
    own = project.variant(folder / "service")
    left = [block for block in blocks((project.root / PAGE).read_text()) if block[0] in titles]
    assert {title for title, _ in left} == set(titles)
    made = Steps(own, tools, left)
    yield made
    assert made.left == []


def provide(steps: Steps, program: str, package: str) -> None:
    """Let the operator have a program that the kit installs."""
    link = steps.bin / program
    if not link.exists():
        link.symlink_to(packages.ensure(program, package))


def value(text: str) -> Answer:
    """An answer that is known before."""
    return lambda shown: text


def after(label: str) -> Answer:
    """An answer that the commands themselves have printed, behind a label."""
    return lambda shown: re.findall(rf"{label}:? +(\S+)", shown)[-1]
