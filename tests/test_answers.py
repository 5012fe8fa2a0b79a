"""Hostile answers: refused with what to type and nothing left behind, or right in every file that carries them."""

import keyword
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests import names
from tests.hostile import ACCEPTED, ACTIVE, MARKDOWN, ODD, PATHS, REFUSED, SEPARATORS, UNSEEN
from tests.projects import Edit, Project, export, render
from tests.proof import count

VALIDATORS = "includes/validators.jinja"
Answers = dict[str, str]


def refusal(template: Path, folder: Path, answers: Answers) -> str:
    """The message with which the answers are refused; empty if the project was made."""
    try:
        render(template, folder, **answers)
    except ValueError as error:
        return str(error)
    return ""


def heading(readme: Path) -> str:
    """The first heading: as typed, or as a reader of the rendered page sees it where something is escaped."""
    first = readme.read_text().splitlines()[0]
    inline = MarkdownIt().parse(first)[1]
    return "".join(child.content for child in inline.children or []) if "\\" in first else first.removeprefix("# ")


def faults(folder: Path, answers: Answers) -> Iterator[str]:
    """What the answers broke in a project, one line per fault."""
    recorded = yaml.safe_load((folder / ".copier-answers.yml").read_text())
    yield from (f"{name} is recorded as {recorded[name]!r}" for name in answers if recorded[name] != answers[name])
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    author = {"name": recorded["user_name"], "email": recorded["user_email"]}
    slug, package = recorded["project_slug"], recorded["package_name"]
    expected = {
        "authors": [{key: text for key, text in author.items() if text}],
        "description": recorded["description"],
        "name": package.replace("_", "-"),
        "scripts": {slug: f"{package}.cli:main"},
        "urls": {"Repository": f"https://github.com/{recorded['github_user']}/{slug}"},
    }
    yield from (f"pyproject.toml: {key} is {project[key]!r}" for key in expected if project[key] != expected[key])
    if heading(folder / "README.md") != recorded["project_name"]:
        yield "README.md: the first heading is not the name"
    if recorded["license"] == "mit" and f"(c) {recorded['user_name']}\n" not in (folder / "LICENSE").read_text():
        yield "LICENSE: the holder is not named"
    if package in sys.stdlib_module_names or keyword.iskeyword(package):
        yield f"src/{package}: a name that Python has"
    for path in folder.rglob("*"):
        text = path.read_text() if path.is_file() else ""
        if path.suffix == ".py":
            compile(text, path, "exec")
        if re.search(r"\b49\b", text) and not any("49" in answer for answer in answers.values()):
            yield f"{path.relative_to(folder)}: an answer was evaluated"
    ruff = [sys.executable, "-m", "ruff", "format", "--check", "--no-cache", "--quiet", "."]
    if subprocess.run(ruff, cwd=folder, capture_output=True, check=False).returncode:
        yield "ruff would format it"


@pytest.mark.parametrize(("question", "answer", "message"), REFUSED.values(), ids=REFUSED)
def test_a_hostile_answer_is_refused_with_what_to_type(
    text_template: Path, tmp_path: Path, question: str, answer: str, message: str
) -> None:
    folder = tmp_path / "service"
    said = refusal(text_template, folder, {question: answer})
    assert message in said
    assert question in said
    assert not folder.exists()


@pytest.mark.parametrize("answers", ACCEPTED.values(), ids=ACCEPTED)
def test_an_odd_answer_is_right_everywhere(text_template: Path, tmp_path: Path, answers: Answers) -> None:
    folder = tmp_path / "service"
    assert refusal(text_template, folder, {"license": "mit", **answers}) == ""
    assert list(faults(folder, answers)) == []


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (Edit("README.md", "# Order", "# Ordner"), "README.md: the first heading is not the name"),
        (Edit("README.md", "Start", "Start 49"), "README.md: an answer was evaluated"),
        (Edit("LICENSE", "(c) Zoë", "(c) Zoe"), "LICENSE: the holder is not named"),
        (Edit("pyproject.toml", "Zoë", "Zoe"), "pyproject.toml: authors is [{'name': 'Zoe'}]"),
        (Edit(".copier-answers.yml", "project_name: Order Desk", "project_name: 1"), "project_name is recorded as 1"),
        (Edit("src/order_desk/main.py", "without=set()", "without = set()"), "ruff would format it"),
    ],
)
def test_a_planted_fault_is_found(text_template: Path, tmp_path: Path, edit: Edit, fault: str) -> None:
    answers = {"project_name": "Order Desk", "user_name": "Zoë", "license": "mit"}
    folder = render(text_template, tmp_path / "service", **answers)
    assert list(faults(folder, answers)) == []
    edit.apply(folder)
    assert fault in list(faults(folder, answers))


def shown(readme: str) -> list[list[tuple[str, str]]]:
    """What a reader of the rendered page sees in the first two blocks: kind and text of each piece."""
    blocks = MarkdownIt().enable("strikethrough").parse(readme)
    return [[(piece.type, piece.content) for piece in block.children or []] for block in (blocks[1], blocks[4])]


@pytest.mark.parametrize("text", MARKDOWN.values(), ids=MARKDOWN)
def test_a_reader_sees_name_and_description_as_typed(text_template: Path, tmp_path: Path, text: str) -> None:
    folder = render(text_template, tmp_path / "service", project_name=text, description=text)
    assert shown((folder / "README.md").read_text()) == [[("text", text)], [("text", f"{text}.")]]


def test_neither_yes_nor_no_is_refused(text_template: Path, tmp_path: Path) -> None:
    assert "include_example" in refusal(text_template, tmp_path / "service", {"include_example": "maybe"})


def test_a_name_whose_slug_is_taken_is_refused_with_another_slug(text_template: Path, tmp_path: Path) -> None:
    said = refusal(text_template, tmp_path / "service", {"project_name": "Class"})
    assert "'project_slug': type class-service: Python, a dependency or Windows already has the name class." in said


# --- as a user meets it: the command ---------------------------------------------------------------------------


def copier(template: Path, folder: Path, *answers: str) -> subprocess.CompletedProcess[str]:
    given = [part for answer in answers for part in ("-d", answer)]
    command = [sys.executable, "-m", "copier", "copy", "--defaults", "--quiet", *given, str(template), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("project_name={{ 7*7 }}", "type it without these"),
        ("description=two\nlines", "type one line"),
        ("project_slug=../x", "type my-shop: "),
        ("package_name=json", "type -d package_name=json_service: "),
        ("license=gpl", "type one of apache-2.0, mit, proprietary"),
    ],
)
def test_the_command_ends_with_what_to_type(text_template: Path, tmp_path: Path, answer: str, message: str) -> None:
    done = copier(text_template, tmp_path / "service", answer)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert done.stdout == ""
    assert not (tmp_path / "service").exists()


def test_the_command_takes_quotes_and_equals_signs(text_template: Path, tmp_path: Path) -> None:
    answers = {"project_name": "Zoë's = 'desk'", "description": "$(id) & 100 %"}
    done = copier(text_template, tmp_path / "service", *(f"{name}={text}" for name, text in answers.items()))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(faults(tmp_path / "service", answers)) == []


# --- names that an environment already has -----------------------------------------------------------------------


def test_a_service_takes_no_name_that_its_environment_has(project: Project) -> None:
    """Also none that it has on another Python or platform: redis-py needs `async_timeout` below Python 3.11.3."""
    taken = names.resolved(project) | names.installed(project)
    assert {"async_timeout", "dotenv", "fastapi", "pytest", "python3", "typing_inspection"} <= taken
    assert taken - names.reserved() == set(), "type: python -m tests.names"
    assert taken - (names.reserved() - {"dotenv"}) == {"dotenv"}  # the proof can fail


# --- free text at random -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def text_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with only the files that carry answers: hundreds of copies in seconds."""
    return carriers(tmp_path_factory.mktemp("carriers"))


def carriers(folder: Path) -> Path:
    """What Jinja renders, and the package itself: by its presence the formatter knows what is first-party."""
    for path in sorted((export(folder) / "template").rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and path.suffix != ".jinja" and path.parent.parent.name != "src":
            path.unlink()
    return folder


PIECE = st.sampled_from([*ACTIVE.values(), *MARKDOWN.values(), *SEPARATORS.values(), *UNSEEN.values()])
PLAIN = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='"\\`{}<>'), min_size=1, max_size=20)
WORDS = st.lists(PLAIN | st.sampled_from(list(ODD.values())), min_size=1, max_size=2).map(" ".join)
SPIKED = st.tuples(WORDS, PIECE, WORDS).map("".join)
SPLIT = st.tuples(WORDS, st.sampled_from(list(SEPARATORS.values())), WORDS).map("".join)
ANYTHING = SPIKED | st.text(st.characters(codec=None), max_size=220)
NAMES = st.sampled_from(sorted({*keyword.kwlist, *sys.stdlib_module_names}))
LABEL = st.from_regex(r"[a-z][a-z0-9]{1,6}(-[a-z0-9]{1,9}){0,3}", fullmatch=True)
FRIENDLY = {
    "description": WORDS,
    "github_user": LABEL,
    "project_name": WORDS,
    "project_slug": LABEL,
    "user_email": st.just("") | st.tuples(LABEL, LABEL).map("{0[0]}@{0[1]}.org".format),
    "user_name": WORDS,
}
HOSTILE = {
    **dict.fromkeys(FRIENDLY, ANYTHING),
    "project_slug": NAMES | st.sampled_from(PATHS) | ANYTHING,
    "user_email": st.emails() | ANYTHING,
}
SOME = st.fixed_dictionaries({}, optional=FRIENDLY)
ONE_HOSTILE = st.sampled_from(sorted(HOSTILE)).flatmap(lambda name: st.fixed_dictionaries({name: HOSTILE[name]}))
SETS = SOME | st.tuples(SOME, ONE_HOSTILE).map(lambda pair: pair[0] | pair[1])


def holds(template: Path, folder: Path, sets: int, answers: st.SearchStrategy[Answers] = SETS) -> Counter[str]:
    """Try random sets of answers: refused with what to type, or a project without a fault. Counts both."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=sets,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(answers)
    def attempt(answers: Answers) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if said := refusal(template, folder, {"license": "mit", **answers}):
            assert any(f"'{name}'" in said for name in answers), said
            assert re.search(r": type \S|, type |: type,", said), said
            assert not folder.exists()
        else:
            assert list(faults(folder, answers)) == []
        seen["refused" if said else "accepted"] += 1

    attempt()
    return seen


def test_random_answers_are_refused_or_right_everywhere(text_template: Path, tmp_path: Path) -> None:
    sets = count(40, 500)
    seen = holds(text_template, tmp_path / "service", sets)
    print(dict(seen))
    assert seen.total() >= sets
    assert min(seen["accepted"], seen["refused"]) >= sets // 5


SLUG_RULE = "{%- macro slug(value) -%}\n{%- if "


@pytest.mark.sabotage
@pytest.mark.parametrize(
    ("edits", "question", "answers"),
    [
        ([Edit(VALIDATORS, "'[\"", "'[")], "description", SPIKED),
        (
            [Edit(VALIDATORS, "value | regex_search('[\\x00-", "false and value | regex_search('[\\x00-")],
            "user_name",
            SPLIT,
        ),
        ([Edit(VALIDATORS, SLUG_RULE, f"{SLUG_RULE}false and ")], "project_slug", st.sampled_from(PATHS)),
        (
            [
                Edit(VALIDATORS, "value | replace('-', '_') in taken", "false"),
                Edit(VALIDATORS, "value in taken", "false"),
            ],
            "project_slug",
            NAMES,
        ),
        ([Edit(VALIDATORS, "type one line:", "one line:")], "user_name", SPLIT),
    ],
    ids=["double quote", "line break", "slug", "reserved names", "no advice"],
)
def test_a_loosened_validator_fails_the_property(
    text_template: Path, tmp_path: Path, edits: list[Edit], question: str, answers: st.SearchStrategy[str]
) -> None:
    sets = st.fixed_dictionaries({question: answers})
    holds(text_template, tmp_path / "service", 10, sets)
    loose = carriers(tmp_path)
    for edit in edits:
        edit.apply(loose)
    with pytest.raises((AssertionError, BaseExceptionGroup, ValueError)):
        holds(loose, tmp_path / "service", 100, sets)
