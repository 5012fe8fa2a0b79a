"""The git repository of the service, independent of how its user has set up git."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

# Settings of users that would change what is compared or written. The environment wins over every file of settings.
NEUTRAL = {
    "commit.gpgSign": "false",
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    "core.excludesFile": os.devnull,
    "core.hooksPath": os.devnull,
    "core.safecrlf": "false",
    "init.templateDir": "",
    "merge.conflictStyle": "merge",
    "merge.directoryRenames": "false",  # a new file of yours stays where you put it
    "merge.renames": "true",
    "merge.renormalize": "true",  # line ends are no change
    "status.showUntrackedFiles": "normal",
}
ENVIRONMENT = {"GIT_CONFIG_COUNT": str(len(NEUTRAL)), "LC_ALL": "C"}
ENVIRONMENT |= {f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(NEUTRAL)}
ENVIRONMENT |= {f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(NEUTRAL.values())}
AUTHOR = {f"GIT_{who}_{what}": "make update" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
Tree = dict[str, tuple[str, str]]  # path: mode and object


class UpdateError(Exception):
    """The update cannot go on; the text is one line that says what to type."""


class Repository:
    """A repository, or a folder of a larger one.

    Args:
        folder: The service.

    Raises:
        UpdateError: There is no commit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.head = self.git("rev-parse", "--verify", "HEAD^{commit}").strip()
        except UpdateError:
            raise UpdateError("there is no commit here: type git init && git add . && git commit -m First") from None
        self.prefix = self.git("rev-parse", "--show-prefix").strip()
        self.at_top = ("-C", self.git("rev-parse", "--show-toplevel").strip())
        self.directory = Path(self.git("rev-parse", "--absolute-git-dir").strip())

    def git(
        self, *arguments: str, given: str = "", codes: tuple[int, ...] = (0,), env: Mapping[str, str] | None = None
    ) -> str:
        """Run git in the folder.

        Args:
            arguments: Of git.
            given: Its standard input.
            codes: The exit codes that are fine.
            env: More environment variables.

        Raises:
            UpdateError: It exits with another code.
        """
        done = subprocess.run(  # noqa: S603 - our own words, and paths after them
            ["git", *arguments],  # noqa: S607 - git is where the user has it
            cwd=self.folder,
            env={**os.environ, **ENVIRONMENT, **(env or {})},
            input=given.encode(errors="surrogateescape"),
            capture_output=True,
            check=False,
        )
        if done.returncode not in codes:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            name = next(word for word in arguments if word[0] not in "-/")
            raise UpdateError(f"git {name}: {said[0]}")
        return done.stdout.decode(errors="surrogateescape")

    def resolve(self, version: str) -> str:
        """The commit that a tag, a branch or a description names; empty if there is none."""
        return self.git("rev-parse", "--verify", "--quiet", f"{version}^{{commit}}", codes=(0, 1, 128)).strip()

    def committed(self) -> Tree:
        """The files of the last commit."""
        return self.files(f"HEAD:{self.prefix}")

    def files(self, tree: str) -> Tree:
        """The files of a tree."""
        return _parse(self.git("ls-tree", "--full-tree", "-r", "-z", tree))

    def add(self, folder: Path, scratch: Path) -> Tree:
        """Store the files of another folder as objects, with no trace in the index.

        Args:
            folder: With the files.
            scratch: A file name for an index of our own.
        """
        scratch.unlink(missing_ok=True)
        env = {"GIT_INDEX_FILE": str(scratch), "GIT_WORK_TREE": str(folder), "GIT_DIR": str(self.directory)}
        self.git("-C", str(folder), "add", "--all", "--force", ".", env=env)
        return _parse(self.git("-C", str(folder), "ls-files", "--stage", "-z", env=env))

    def tree(self, files: Tree, scratch: Path) -> str:
        """Write a tree object."""
        scratch.unlink(missing_ok=True)
        lines = "".join(f"{mode} {oid} 0\t{path}\0" for path, (mode, oid) in files.items())
        env = {"GIT_INDEX_FILE": str(scratch)}
        self.git("update-index", "-z", "--index-info", given=lines, env=env)
        return self.git("write-tree", env=env).strip()

    def commit(self, tree: str, *parents: str) -> str:
        """Write a commit object that is on no branch."""
        chain = [word for parent in parents for word in ("-p", parent)]
        return self.git("commit-tree", tree, "-m", "update", *chain, env=AUTHOR).strip()

    def text(self, files: Tree, path: str) -> str:
        """The content of a file; empty if it is not there."""
        return self.git("cat-file", "blob", files[path][1]) if path in files else ""


def _parse(listed: str) -> Tree:
    """What `ls-tree` (mode, type, object) and `ls-files --stage` (mode, object, stage) print, ended by NUL."""
    found: Tree = {}
    for line in listed.split("\0")[:-1]:
        about, _, path = line.partition("\t")
        mode, oid = (word for word in about.split() if word not in ("0", "blob", "commit"))
        found[path] = (mode, oid)
    return found
