"""Makes the servers ready, starts each once and prints what it is: `make servers`."""

import sys
from collections.abc import Callable
from importlib.metadata import version

from tests import commands
from tests.servers import packages
from tests.servers.alertmanager import Alertmanager
from tests.servers.aws import Aws
from tests.servers.browser import open_browser
from tests.servers.bugsink import Bugsink
from tests.servers.engine import open_engine
from tests.servers.haproxy import HAProxy
from tests.servers.memcached import Memcached
from tests.servers.nginx import Nginx
from tests.servers.otlp import open_collector
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import NewestPostgres, open_postgres
from tests.servers.process import ServerError
from tests.servers.prometheus import Prometheus
from tests.servers.redis import Redis
from tests.servers.s3 import SeaweedFS
from tests.servers.vault import OpenBao


def bugsink() -> str:
    with Bugsink() as server:
        return server.version


def postgres() -> str:
    with open_postgres() as server:
        return f"{server.version}, {type(server).__name__}"


def newest_postgres() -> str:
    with NewestPostgres() as server:
        return server.version


def pgbouncer() -> str:
    with open_postgres() as server, PgBouncer(server, 1) as pooler:
        return pooler.version


def chromium() -> str:
    with open_browser() as browser:
        return browser.version


def secrets_manager() -> str:
    with Aws() as server:
        return f"moto {version('moto')} on port {server.port}"


def engine() -> str:
    if not (opened := open_engine()):
        return "needs root, or a Docker that answers"
    with opened:
        return opened.do("version", "--format={{.Client.Version}}").stdout.strip() + f", {type(opened).__name__}"


def nginx() -> str:
    with Nginx("server { listen ADDRESS; return 204; }") as server:
        return server.version


def haproxy() -> str:
    with HAProxy("http-request return status 204") as server:
        return server.version


def otlp() -> str:
    with open_collector() as collector:
        return f"our own on {collector.url}, opentelemetry-proto {version('opentelemetry-proto')}"


def prometheus() -> str:
    with Prometheus() as server:
        return server.version


def alertmanager() -> str:
    with Alertmanager() as server:
        return server.version


def openbao() -> str:
    with OpenBao() as server:
        return server.version


def memcached() -> str:
    with Memcached() as server:
        return server.version


def redis() -> str:
    with Redis() as server:
        return server.version


def seaweedfs() -> str:
    with SeaweedFS() as server:
        return server.version


def age() -> str:
    return commands.must(packages.ensure("age", "age"), "--version").strip()


SERVERS: dict[str, Callable[[], str]] = {
    "age": age,
    "Alertmanager": alertmanager,
    "Bugsink": bugsink,
    "Chromium": chromium,
    "Container engine": engine,
    "HAProxy": haproxy,
    "Memcached": memcached,
    "NGINX": nginx,
    "OpenBao": openbao,
    "OTLP receiver": otlp,
    "PgBouncer": pgbouncer,
    "PostgreSQL": postgres,
    "PostgreSQL 18": newest_postgres,
    "Prometheus": prometheus,
    "Redis": redis,
    "SeaweedFS": seaweedfs,
    "Secrets Manager": secrets_manager,
}


def main() -> None:
    for name, describe in SERVERS.items():
        try:
            print(f"{name:16} {describe()}", flush=True)
        except ServerError as error:
            sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main()
