"""The questions: trust-free, with a default each, and an answer that cannot work is refused with what to type."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import names
from tests.projects import ROOT, render

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text())
QUESTIONS = {name: body for name, body in CONFIG.items() if not name.startswith("_")}


def unsafe_keys(config: dict[str, Any]) -> set[str]:
    """Keys for which Copier demands trust, at every update and for good."""
    return config.keys() & {"_tasks", "_migrations", "_jinja_extensions", "_external_data"}


def test_copy_and_update_need_no_trust() -> None:
    assert CONFIG["_subdirectory"] == "template"
    assert not unsafe_keys(CONFIG)
    assert unsafe_keys({**CONFIG, "_tasks": ["true"]}) == {"_tasks"}  # the proof can fail


def test_every_question_has_help_and_a_default_and_is_never_hidden() -> None:
    for name, question in QUESTIONS.items():
        assert "default" in question, name
        assert "when" not in question, f"{name}: a hidden question accepts -d and then forgets it"
        assert "secret" not in question, name
        assert "help" in question or question.get("ask") is False, name
        assert "choices" in question or "validator" in question or question["type"] == "bool", name


def test_parts_are_sorted() -> None:
    names = list(QUESTIONS)
    parts = names[names.index("license") + 1 :]
    assert parts == sorted(parts)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"project_name": ""}, "type one line of text"),
        ({"project_name": "x" * 81}, "type at most 80"),
        ({"project_name": 'say "hi"'}, "type it without these"),
        ({"project_name": "{{ 7*7 }}"}, "type it without these"),
        ({"description": "two\nlines"}, "type one line"),
        ({"user_name": "a\\b"}, "type it without these"),
        ({"project_slug": "Orders"}, "type, for example, order-desk"),
        ({"project_slug": "../etc"}, "type, for example, order-desk"),
        ({"project_slug": "json"}, "type, for example, json-service"),
        ({"project_slug": "fastapi"}, "type, for example, fastapi-service"),
        ({"package_name": "class"}, "-d package_name=class_service"),
        ({"package_name": "a-b"}, "-d package_name=order_desk"),
        ({"user_email": "nobody"}, "type one like team@example.com"),
        ({"github_user": "a b"}, "type, for example, your-org"),
    ],
)
def test_a_bad_answer_is_refused_with_what_to_type(
    template: Path, tmp_path: Path, answers: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        render(template, tmp_path / "service", **answers)
    assert not (tmp_path / "service").exists()


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Order Desk", "order-desk"),
        ("3D Printer", "d-printer"),
        ("Zoë's Café", "zo-s-caf"),
        ("注文", "my-service"),
        ("x" * 80, "x" * 40),
    ],
)
def test_a_name_in_prose_becomes_a_slug(template: Path, tmp_path: Path, name: str, slug: str) -> None:
    folder = render(template, tmp_path / "service", project_name=name)
    answers = yaml.safe_load((folder / ".copier-answers.yml").read_text())
    assert answers["project_slug"] == slug
    assert (folder / "src" / slug.replace("-", "_") / "main.py").is_file()
    assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["authors"] == [{"name": f"{name} team"}]


def missing_names(known: set[str], project: Path) -> set[str]:
    """Names that a package must not take and that `known` lets through."""
    emitted = tomllib.loads((project / "pyproject.toml").read_text())
    optional = [item for extra in emitted["project"]["optional-dependencies"].values() for item in extra]
    wanted = [*emitted["project"]["dependencies"], *emitted["dependency-groups"]["dev"], *optional]
    own = emitted["project"]["name"]  # the group dev asks for its extras
    dependencies = {re.split(r"[^A-Za-z0-9._-]", item)[0] for item in wanted} - {own}
    return (names.python() | {name.replace("-", "_") for name in dependencies}) - known


@pytest.mark.parametrize("answers", names.ANSWERS, ids=["default", "others"])
def test_names_of_python_and_of_dependencies_are_reserved(
    template: Path, tmp_path: Path, answers: dict[str, object]
) -> None:
    folder = render(template, tmp_path / "service", **answers)
    assert missing_names(names.reserved(), folder) == set()
    assert missing_names(names.reserved() - {"json", "fastapi"}, folder) == {"json", "fastapi"}
