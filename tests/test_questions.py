"""The questions: trust-free, with a default each, and an answer that cannot work is refused with what to type."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import names
from tests.projects import ROOT, Edit, export, render

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text())
QUESTIONS = {name: body for name, body in CONFIG.items() if not name.startswith("_")}


def unsafe_keys(config: dict[str, Any]) -> set[str]:
    """Keys for which Copier demands trust, at every update and for good."""
    return config.keys() & {"_tasks", "_migrations", "_jinja_extensions"}


def test_copy_and_update_need_no_trust() -> None:
    # External data needs none inside the project.
    assert list(CONFIG["_external_data"].values()) == ["{{ _copier_conf.answers_file }}"]
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


def test_questions_come_in_the_order_in_which_a_person_decides() -> None:
    order = list(QUESTIONS)
    decided = ["data", "project_name", "project_slug", "license", "database", "cache", "secrets_manager"]
    assert sorted(decided, key=order.index) == decided
    assert order[-1] == "include_example"


def test_a_prompt_fits_a_terminal_of_60_columns() -> None:
    """What is wider is cut; Copier puts three columns before it."""
    for name, question in QUESTIONS.items():
        choices = question.get("choices", [])
        assert all(len(line) <= 57 for line in [question.get("help", ""), *map(str, choices)]), name


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"project_name": ""}, "type one line of text"),
        ({"project_name": "x" * 81}, "type fewer characters, at most 80: it has 81"),
        ({"project_name": 'say "hi"'}, "type it without these"),
        ({"project_name": "{{ 7*7 }}"}, "type it without these"),
        ({"description": "two\nlines"}, "type one line"),
        ({"user_name": "a\\b"}, "type it without these"),
        ({"project_slug": "Orders"}, "type my-shop: "),
        ({"project_slug": "../etc"}, "type my-shop: "),
        ({"project_slug": "json"}, "type json-service: "),
        ({"project_slug": "fastapi"}, "type fastapi-service: "),
        ({"package_name": "class"}, "-d package_name=class_service"),
        ({"package_name": "a-b"}, "type -d package_name=my_shop: "),
        ({"user_email": "nobody"}, "type me@acme.com, or nothing: "),
        ({"github_user": "a b"}, "type your-org: "),
    ],
)
def test_a_bad_answer_is_refused_with_what_to_type(
    template: Path, tmp_path: Path, answers: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        render(template, tmp_path / "service", **answers)
    assert not (tmp_path / "service").exists()


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("cahce", "none", "no question is called cahce: type -d cache=none."),
        ("Database", "none", "no question is called Database: type -d database=none."),
        ("http-instrumentation", "native", "type -d http_instrumentation=native."),
        ("lisence", "mit", "no question is called lisence: type -d license=mit."),
        (
            "owner",
            "acme",
            "no question is called owner: type one of cache, cdn, ci, database, deploy_target, description",
        ),
        ("cache", "memcache", "cache has no choice memcache: type -d cache=memcached."),
        ("database", "Postgres", "database has no choice Postgres: type -d database=postgresql."),
        ("license", "gpl", "license has no choice gpl: type one of apache-2.0, mit, proprietary."),
        ("python_version", "3.11", "python_version has no choice 3.11: type -d python_version=3.1"),
        ("include_example", "maybe", "include_example has no choice maybe: type one of true, false."),
    ],
)
def test_an_unknown_question_or_choice_is_refused_with_the_nearest(
    template: Path, tmp_path: Path, name: str, answer: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        render(template, tmp_path / "service", **{name: answer})
    assert not (tmp_path / "service").exists()


@pytest.mark.parametrize("answer", ["no", "False", False, "off"])
def test_every_way_to_say_no_is_taken(template: Path, tmp_path: Path, answer: object) -> None:
    folder = render(template, tmp_path / "service", include_example=answer)
    answers = yaml.safe_load((folder / ".copier-answers.yml").read_text())
    assert answers["include_example"] is False
    assert "data" not in answers


@pytest.mark.sabotage
def test_without_the_check_an_unknown_question_is_ignored(tmp_path: Path) -> None:
    (template := tmp_path / "template").mkdir()
    Edit("includes/given.jinja", "{{ wrong.said }}", "").apply(export(template))
    assert (render(template, tmp_path / "service", cahce="none") / "pyproject.toml").is_file()


def test_the_validators_know_the_questions_and_their_choices() -> None:
    known = names.known()
    asked = names.asked()
    assert {name: known.get(name) for name in asked} == asked, "type: python -m tests.names --questions"
    assert all(not known[name] for name in known.keys() - asked.keys())  # gone, but an old service may have it


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
