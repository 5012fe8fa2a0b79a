"""The servers that a service has beside the cluster: PostgreSQL, Redis and OpenBao, as pods reach them."""

from contextlib import ExitStack
from typing import Any, Self

from tests.cluster.cluster import Cluster, service
from tests.database.conftest import Database, apply_roles
from tests.projects import Project
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.servers.vault import OpenBao
from tests.vault.conftest import Deployed

SLUG = "my-service"


class NodePostgres(Postgres):
    """It lets pods in, too, and listens where the network policies of the service let it connect to."""

    def __init__(self, address: str) -> None:
        super().__init__({"listen_addresses": f"127.0.0.1,{address}"})
        self.port = 5432
        with (self.home / "data/pg_hba.conf").open("a") as file:
            file.write("host all all 0.0.0.0/0 trust\n")


class NodeRedis(Redis):
    """It lets pods in, too."""

    def __init__(self, address: str) -> None:
        super().__init__({"bind": f"127.0.0.1 {address}", "protected-mode": "no"})
        self.port = 6379


class NodeBao(OpenBao):
    """It lets pods in, too."""

    def __init__(self, address: str) -> None:
        super().__init__(more=f'listener "tcp" {{\n  address = "{address}:8200"\n  tls_disable = true\n}}')


class Beside:
    """All of them, for the length of a `with`.

    Args:
        cluster: Whose service accounts may log in to OpenBao.
        project: The service: its roles and its `deploy/vault`.
    """

    def __init__(self, cluster: Cluster, project: Project) -> None:
        self.cluster, self.project = cluster, project

    def __enter__(self) -> Self:
        address = self.cluster.address
        with ExitStack() as stack:
            self.postgres = stack.enter_context(NodePostgres(address))
            self.redis = stack.enter_context(NodeRedis(address))
            self.bao = stack.enter_context(NodeBao(address))
            self.database = Database(self.postgres.create_database())
            apply_roles(self.project, self.database.admin)
            self._stack = stack.pop_all()
        self._configure()
        vault = service("vault", "vault", address, [(8200, 8200)])
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vault"}}, *vault)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()

    def url(self, role: str) -> str:
        """The address of the database for a role, as pods reach it."""
        return self.database.url(role).replace("127.0.0.1", self.cluster.address)

    def store(self, **secrets: str) -> None:
        """Write the secrets of the service."""
        self.bao.client().secrets.kv.v2.create_or_update_secret(SLUG, secrets)

    def _configure(self) -> None:
        """What an administrator does once, by the emitted script."""
        deployed = Deployed(self.project.root)
        authority = self.cluster.authority(deployed.folder / "cluster.pem")
        space = {"bound_service_account_namespaces": ["*"]}
        deployed.set("kubernetes", host=self.cluster.api, ca_file=authority.name, **space)
        done = deployed.apply({"VAULT_ADDR": self.bao.url}, self.bao.root)
        assert done.returncode == 0, done.stderr
        cache = f"redis://{self.cluster.address}:{self.redis.port}/0"
        self.store(database_url=self.url("app"), cache_url=cache, sentry_dsn="off")
