"""The backend `aws`, against moto: what is read, what a fault does at the start and later, and rotation."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path

import psycopg
import pytest

from tests import names
from tests.projects import Project, Service, render
from tests.sabotage import Body, Value
from tests.secrets.conftest import users
from tests.servers.aws import Aws
from tests.servers.postgres import Postgres
from tests.service.conftest import migrated

pytestmark = pytest.mark.servers
QUICK = (
    Value("secrets:POLL_SECONDS", "0.3"),
    Value("secrets:STARTUP_SECONDS", "1.2"),
    Value("secrets:MAX_RETRY_SECONDS", "0.5"),
)
CANARY = "canary-of-secrets-manager"
ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:"


@pytest.fixture(scope="module")
def installed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("aws")
    made = Project(render(template, folder, secrets_manager="aws")).install()
    return made


@pytest.fixture(scope="module")
def quick(installed: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same, less patient."""
    return installed.variant(tmp_path_factory.mktemp("quick") / "service", *QUICK)


@pytest.fixture(scope="module")
def schema(quick: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema, to be copied."""
    file = tmp_path_factory.mktemp("schema") / "service.db"
    migrated(quick, f"sqlite:///{file}")
    return file


def test_no_package_may_take_the_name_of_what_the_answer_installs(installed: Project) -> None:
    taken = names.installed(installed)
    assert {"boto3", "s3transfer"} <= taken
    assert taken - names.reserved() == set()


def env(aws: Aws, name: str = "orders") -> dict[str, str]:
    return {**aws.env, "SECRETS_BACKEND": "aws", "AWS_SECRETS_NAME": name}


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def served(project: Project, aws: Aws, schema: Path, folder: Path) -> Iterator[Service]:
    """Serve on a database in SQLite, whose address is in the secret."""
    (folder / "service.db").write_bytes(schema.read_bytes())
    url = f"sqlite:///{folder}/service.db"
    secret = {"DATABASE_URL": f"{url}\n", "trusted_hosts": "127.0.0.1 \r\n", "canary": CANARY, "port": None, "host": ""}
    aws.put("orders", secret)  # as editors and scripts leave it
    with project.serve(folder / "run", env(aws)) as service:
        yield service


def test_keys_of_the_secret_are_settings(quick: Project, aws: Aws, schema: Path, tmp_path: Path) -> None:
    with served(quick, aws, schema, tmp_path) as service:
        assert service.client.get("/v1/items").json()["items"] == []
        assert service.client.get("/v1/items", headers={"Host": "orders.test"}).status_code == 400
        assert (
            service.client.get("/readyz").json()["parts"]["secrets"]["evidence"]
            == "secrets of SecretsManager are current: 3"
        )
        assert CANARY not in service.log


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("missing", None, "AWS: missing: ResourceNotFoundException"),
        ("orders", "{no JSON " + CANARY, "AWS: orders: not a JSON object of settings"),
        ("", None, "AWS_SECRETS_NAME: required by SECRETS_BACKEND=aws"),
    ],
)
def test_what_no_waiting_mends_is_refused_at_once_with_one_line(
    quick: Project, aws: Aws, name: str, value: str | None, line: str
) -> None:
    if value:
        aws.put("orders", value)
    done = quick.quick("serve", env=env(aws, name))
    assert (done.returncode, done.stderr, done.stdout) == (78, f"configuration refused: {line}\n", "")
    assert aws.asked <= 3 if name else aws.asked == 0


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("AWS_ENDPOINT_URL=moto:5000", "AWS_ENDPOINT_URL: use a URL such as https://aws.internal"),
        ("AWS_ENDPOINT_URL=https://[::1", "AWS_ENDPOINT_URL: use a URL such as https://aws.internal"),
        ("AWS_PROFILE=nope", "AWS: The config profile (nope) could not be found"),
        ("AWS_REGION=bad region", "AWS: Provided region_name 'bad region' doesn't match a supported format."),
        (f"AWS_CONFIG_FILE={__file__}", f"AWS: Unable to parse config file: {__file__}"),
    ],
)
def test_what_boto3_refuses_is_refused_with_one_line(quick: Project, aws: Aws, setting: str, line: str) -> None:
    """As issue 16 demands of all that a library reads."""
    name, _, value = setting.partition("=")
    done = quick.quick("serve", env={**env(aws), name: value})
    assert (done.returncode, done.stderr) == (78, f"configuration refused: {line}\n")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ((400, "AccessDeniedException"), 78),
        ((400, "ThrottlingException"), 1),
        ((500, "InternalServiceError"), 1),
    ],
)
def test_a_fault_at_the_start_is_waited_for_if_waiting_helps(
    quick: Project, aws: Aws, fault: tuple[int, str], code: int
) -> None:
    with aws.refusing(*fault):
        done = quick.quick("serve", env=env(aws))
    assert done.returncode == code
    assert f"AWS: orders: {fault[1]}" in done.stderr
    assert "Traceback" not in done.stderr
    assert (aws.asked > 1) is (code == 1)


@pytest.mark.sabotage
def test_a_backend_that_knows_no_throttling_would_give_up(quick: Project, aws: Aws, tmp_path: Path) -> None:
    sick = quick.variant(tmp_path / "sick", Value("secrets:RETRY", "()"))
    with aws.refusing(400, "ThrottlingException"):
        assert sick.cli("serve", env=env(aws)).returncode == 78  # the test above is red


def test_nobody_there_is_waited_for_and_named(quick: Project, aws: Aws) -> None:
    nowhere = {**env(aws), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = quick.quick("serve", env=nowhere)
    assert done.returncode == 1
    assert "AWS: orders: EndpointConnectionError" in done.stderr


def test_a_service_that_starts_while_aws_throttles_serves_once_it_does_not(
    installed: Project, aws: Aws, schema: Path, tmp_path: Path
) -> None:
    aws.put("orders", {"database_url": f"sqlite:///{schema}"})
    asked = aws.asked
    aws.fault = (400, "ThrottlingException")

    def relent() -> None:
        until(lambda: aws.asked > asked + 1)
        aws.fault = None

    helper = threading.Thread(target=relent)
    helper.start()
    with installed.serve(tmp_path / "run", env(aws)) as service:
        helper.join()
        assert service.client.get("/v1/items").status_code == 200
        assert service.log.count("configuration unavailable: AWS: orders: ThrottlingException") == 1


def test_a_running_service_keeps_what_it_has_and_says_so_once(
    quick: Project, aws: Aws, schema: Path, tmp_path: Path
) -> None:
    with served(quick, aws, schema, tmp_path) as service:
        with aws.refusing(400, "ThrottlingException"):
            asked = aws.asked
            until(lambda: aws.asked > asked + 3)
            assert service.client.get("/v1/items").status_code == service.client.get("/readyz").status_code == 200
        until(lambda: "secrets are current again" in service.log)
        assert service.log.count("secrets are not renewed") == 1
        aws.put("orders", "broken " + CANARY)
        until(lambda: service.log.count("secrets are not renewed") == 2)
        assert service.client.get("/v1/items").status_code == 200
        assert CANARY not in service.log


def rotates(project: Project, aws: Aws, postgres: Postgres, folder: Path) -> None:
    """Two secrets: the service's own, and one as AWS's rotation of RDS keeps it."""
    url = postgres.create_database()
    migrated(project, url)
    first, second = (f"{colour}_{secrets.token_hex(4)}" for colour in ("blue", "green"))

    def rotate(user: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD 'p@ss/word'".encode())
        aws.put("rds!orders", {"username": user, "password": "p@ss/word", "engine": "postgres", "port": 5432})

    def drop(user: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP ROLE {user}".encode())

    aws.put("orders", {"database_url": url})
    rotate(first)
    with project.serve(folder / "run", env(aws, "orders,rds!orders")) as service:
        assert service.client.get("/v1/items").status_code == 200
        assert users(url) == {first}
        pid = service.process.pid
        rotate(second)
        answers = []
        deadline = time.monotonic() + 20
        while users(url) != {second}:
            answers.append(service.client.get("/v1/items").status_code)
            assert time.monotonic() < deadline
        drop(first)
        answers += [service.client.get("/v1/items").status_code for _ in range(20)]
        assert set(answers) == {200}
        assert (service.process.pid, service.process.running) == (pid, True)
    drop(second)


def test_a_user_that_aws_rotates_reaches_the_pool_without_a_restart(
    quick: Project, aws: Aws, postgres: Postgres, tmp_path: Path
) -> None:
    rotates(quick, aws, postgres, tmp_path)


@pytest.mark.sabotage
def test_a_backend_that_leaves_the_user_out_is_noticed(
    quick: Project, aws: Aws, postgres: Postgres, tmp_path: Path
) -> None:
    sick = quick.variant(tmp_path / "sick", Body("secrets:with_login", "return url"))
    with pytest.raises(AssertionError):
        rotates(sick, aws, postgres, tmp_path)


def test_the_policy_reads_one_secret_and_does_nothing_else(installed: Project, aws: Aws) -> None:
    text = (installed.root / "deploy" / "aws" / "policy.json").read_text()
    (statement,) = json.loads(text)["Statement"]
    mine = statement["Resource"]
    assert fnmatch(f"{ARN}my-service-a1B2c3", mine.replace("REGION:ACCOUNT", "eu-central-1:111122223333"))
    for other in ("my-service-admin-a1B2c3", "my-servicer-a1B2c3", "other-a1B2c3"):
        assert not fnmatch(ARN + other, mine.replace("REGION:ACCOUNT", "eu-central-1:111122223333"))
    aws.put("my-service", {"sentry_dsn": "one"})
    # moto judges actions, and not resources: those are looked at above.
    with aws.user_with(text.replace(mine, "*")) as user:
        assert user.get_secret_value(SecretId="my-service")["SecretString"] == '{"sentry_dsn": "one"}'
        for forbidden, values in {
            "put_secret_value": {"SecretId": "my-service", "SecretString": "{}"},
            "delete_secret": {"SecretId": "my-service"},
            "list_secrets": {},
            "get_random_password": {},
        }.items():
            with pytest.raises(user.exceptions.ClientError, match="AccessDenied"):
                getattr(user, forbidden)(**values)
