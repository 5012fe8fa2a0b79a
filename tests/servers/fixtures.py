"""Servers as fixtures: one of each per test worker, started when the first test asks for it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.servers.aws import Aws
from tests.servers.browser import open_browser
from tests.servers.bugsink import Bugsink, Sink
from tests.servers.memcached import Memcached
from tests.servers.otlp import Collector, open_collector
from tests.servers.postgres import NewestPostgres, Postgres, open_postgres
from tests.servers.redis import Redis
from tests.servers.s3 import Bucket, SeaweedFS
from tests.servers.vault import OpenBao, Space


@pytest.fixture
def aws() -> Iterator[Aws]:
    """Secrets Manager for one test."""
    with Aws() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for a module: while Playwright runs, no other event loop can run in this thread."""
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def bugsink() -> Iterator[Bugsink]:
    """The worker's Bugsink. A test that stops or breaks one opens its own."""
    with Bugsink() as server:
        yield server


@pytest.fixture
def sink(bugsink: Bugsink) -> Sink:
    """A new project of Bugsink for one test."""
    return bugsink.create_project()


@pytest.fixture
def memcached() -> Iterator[Memcached]:
    """Memcached for one test."""
    with Memcached() as server:
        yield server


@pytest.fixture
def redis() -> Iterator[Redis]:
    """Redis for one test."""
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The worker's PostgreSQL. A test that stops or breaks one opens its own by `open_postgres`."""
    with open_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def newest_postgres() -> Iterator[NewestPostgres]:
    """The worker's PostgreSQL 18, for what has to hold on it as on Debian's."""
    with NewestPostgres() as server:
        yield server


@pytest.fixture
def database_url(postgres: Postgres) -> str:
    """A new, empty database for one test."""
    return postgres.create_database()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector for one test."""
    with open_collector() as opened:
        yield opened


@pytest.fixture(scope="session")
def bao() -> Iterator[OpenBao]:
    """The worker's OpenBao. A test that stops it opens its own; one that seals it unseals it."""
    with OpenBao() as server:
        yield server


@pytest.fixture
def vault(bao: OpenBao) -> Iterator[Space]:
    """A namespace of OpenBao for one test."""
    with bao.space() as space:
        yield space


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """The worker's S3 server. A test that stops or fills one opens its own."""
    with SeaweedFS() as server:
        yield server


@pytest.fixture
def bucket(seaweedfs: SeaweedFS) -> Iterator[Bucket]:
    """A bucket with Object Lock for one test."""
    with seaweedfs.bucket() as made:
        yield made
