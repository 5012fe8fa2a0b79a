"""Links each check to the docs of the template, or fork, that this service was made from."""

import re
from collections.abc import Callable
from pathlib import Path

from .areas import AREAS
from .report import Outcome

_KEY = re.compile(r"^(_src_path|_commit): *(['\"]?)(.+?)\2 *$", re.M)
_SHORT = {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}
# user@host:path of scp, or a URL; the link must not contain a user name and token before the host
_REMOTE = re.compile(r"(?:(?:git\+)?(?:https?|ssh|git)://(?:[^/@]*@)?|[\w.-]+@)([\w.-]+)(?::\d+)?[:/](.+?)(?:\.git)?/?")
_DESCRIBED = re.compile(r".*-\d+-g([0-9a-f]{7,40})")  # git describe, past a tag


def docs_links(answers: Path) -> Callable[[Outcome], str]:
    """Return a function that gives the link for an outcome; your own checks have none.

    Args:
        answers: `.copier-answers.yml`; without it there are no links.
    """
    text = answers.read_text(errors="replace") if answers.is_file() else ""
    known = {key: value for key, _, value in _KEY.findall(text)}
    source = known.get("_src_path", "")
    for short, long in _SHORT.items():
        source = source.replace(short, long, 1) if source.startswith(short) else source
    if remote := _REMOTE.fullmatch(source):
        host, path = remote.groups()
        described = _DESCRIBED.fullmatch(commit := known.get("_commit", "HEAD"))
        blob = "-/blob" if "gitlab" in host else "blob"
        source = f"https://{host}/{path}/{blob}/{described[1] if described else commit}"

    def page(outcome: Outcome) -> str:
        ours = source and outcome.step and outcome.area in AREAS and outcome.name
        return f"{source}/docs/how-to/{outcome.area}.md#{outcome.name}" if ours else ""

    return page
