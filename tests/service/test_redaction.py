"""Secrets do not reach the log: by key at any depth, by form within texts, in linear time."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.projects import Edit, Project

pytestmark = pytest.mark.servers
SECRET = "s3cr3t-v4lue"
PLANTED: list[dict[str, Any]] = [
    {"password": SECRET},
    {"outer": [{"Authorization": SECRET}]},
    {"deep": {"er": {"api_key": SECRET}}},
    {"refresh_token": SECRET},
    {"Set-Cookie": SECRET},
    {"database_dsn": SECRET},
    {"client_secret": {"value": SECRET}},
    {"text": f"postgresql://app:{SECRET}@db/orders"},
    {"text": f"redis://:{SECRET}@cache"},
    {"text": f"Authorization: Bearer {SECRET}"},
    {"text": f"login failed, password={SECRET}"},
    {"text": f'{{"token": "{SECRET}"}}'},
    {"text": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx{SECRET}.{SECRET}"},
    {"text": f"hvs.{SECRET}"},
]
CODE = """
import json, sys, time
from my_service.platform.redaction import redact
planted = json.loads(sys.argv[1])
shown = [redact(value) for value in planted]
raw = redact(b"https://app:" + sys.argv[2].encode() + b"@host harmless-bytes")
megabyte = "a password = x bearer eyJ:// " * 35_000
begun = time.process_time()
redact(megabyte)
print(json.dumps({"shown": shown, "raw": raw, "seconds": time.process_time() - begun}))
"""


def leaks(project: Project) -> tuple[list[int], float]:
    """Which of the planted secrets come through, and the CPU seconds for a megabyte."""
    python = str(project.venv / "bin" / "python")
    planted = [{**value, "marker": "harmless-marker"} for value in PLANTED]
    found = json.loads(project.run(python, "-c", CODE, json.dumps(planted), SECRET).stdout)
    assert all(value["marker"] == "harmless-marker" for value in found["shown"])
    assert "harmless-bytes" in found["raw"]
    assert SECRET not in found["raw"]
    return [n for n, value in enumerate(found["shown"]) if SECRET in json.dumps(value)], found["seconds"]


def test_planted_secrets_are_hidden_and_the_rest_is_shown(project: Project) -> None:
    leaked, seconds = leaks(project)
    assert leaked == []
    assert seconds < 5  # a pattern that backtracks takes minutes


REDACTION = "src/my_service/platform/redaction.py"


@pytest.mark.parametrize(
    ("edit", "leaked"),
    [
        (Edit(REDACTION, "return bool(_KEY.search(key))", "return False"), [0, 1, 2, 3, 4, 5, 6]),
        (Edit(REDACTION, "return _TEXT.sub(_hide, value)\n", "return value\n"), [7, 8, 9, 10, 11, 12, 13]),
        (Edit(REDACTION, r"|\\bhvs\\.[\\w-]{10,}".replace("\\\\", "\\"), "|hvs-never"), [13]),
    ],
    ids=["keys", "texts", "vault tokens"],
)
def test_a_sabotaged_redactor_leaks(project: Project, tmp_path: Path, edit: Edit, leaked: list[int]) -> None:
    assert leaks(project.variant(tmp_path / "sick", edit))[0] == leaked
