"""The CronJob of the manifests takes a backup into a bucket, and the drill restores it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backup.conftest import Key
from tests.cluster.cluster import Cluster, wait
from tests.cluster.deployment import SLUG, Deployment, image_name, secret
from tests.cluster.node import Node
from tests.servers.s3 import Bucket, SeaweedFS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
SPACE, ITEMS = "database", 1000
# PostgreSQL of the major whose tools the image has; pods of all namespaces are trusted.
START = """
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
initdb --pgdata=/data/db --auth=trust --username=postgres >/dev/null
echo 'host all all 0.0.0.0/0 trust' >>/data/db/pg_hba.conf
exec postgres -D /data/db -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off
"""
FILL = f"""
set -eu
psql() {{ command psql -qh /tmp -U postgres -v ON_ERROR_STOP=1 "$@"; }}
psql -c 'CREATE DATABASE orders'
psql -d orders -f deploy/postgres/roles.sql
SECRETS_BACKEND=env DATABASE_URL=postgresql://my_service_migrator@127.0.0.1/orders {SLUG} migrate
psql -d orders -c "$1"
"""  # the columns in their order: id, name, note, quantity, created_at, updated_at
ROWS = "INSERT INTO items SELECT gen_random_uuid(), 'item ' || n, NULL, 1, now(), now() FROM generate_series(1, 1000) n"


class NodeS3(SeaweedFS):
    """It lets pods in, on the port that the network policy of the backup leaves open."""

    def __init__(self) -> None:
        super().__init__()
        self.port = 443

    def command(self) -> list[str | Path]:
        return [*super().command(), "-ip.bind=0.0.0.0"]


@dataclass(frozen=True)
class Store:
    """A bucket, and the key pair of its backups."""

    bucket: Bucket
    key: Key
    address: str

    def env(self, who: str) -> dict[str, str]:
        """The variables of somebody who uses it."""
        given = {"AWS_ENDPOINT_URL": f"http://{self.address}:{self.bucket.server.port}"}
        return {**self.bucket.env_of(who), **given, "BACKUP_URL": self.bucket.url, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="module")
def database(cluster: Cluster, digests: dict[str, str]) -> Iterator[str]:
    """PostgreSQL with the schema of the service and some rows: the name of its pod."""
    image = image_name("-database", digests["database"])
    pod = {
        "containers": [
            {
                "name": "postgres",
                "image": image,
                "command": ["bash", "-c", START],
                "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    about = {"name": "orders", "namespace": SPACE, "labels": {"app": "orders"}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "orders", "namespace": SPACE},
            "spec": {"selector": {"app": "orders"}, "ports": [{"port": 5432}]},
        },
    )
    cluster.kubectl("wait", "--for=condition=Ready", "pod/orders", "-n", SPACE, "--timeout=120s")
    cluster.kubectl("exec", "orders", "-n", SPACE, "--", "bash", "-c", FILL, "bash", ROWS)
    yield "orders"
    cluster.kubectl("delete", "namespace", SPACE, "--wait=false")


@pytest.fixture(scope="module")
def store(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Where backups go."""
    with ExitStack() as stack:
        server = stack.enter_context(NodeS3())
        bucket = stack.enter_context(server.bucket())
        yield Store(bucket, Key.make(tmp_path_factory.mktemp("key") / "key.txt"), node.cluster.address)


def test_the_cronjob_takes_a_backup_that_the_drill_restores(canary: Deployment, database: str, store: Store) -> None:
    cluster, namespace = canary.cluster, canary.namespace
    at = f"postgresql://my_service_{{}}@orders.{SPACE}/orders"
    given = {"DATABASE_URL": at.format("backup"), "BACKUP_AGE_RECIPIENT": store.key.recipient, **store.env("writer")}
    cluster.apply(secret(namespace, f"{SLUG}-backup", **given))
    cluster.kubectl("create", "job", "now", f"--from=cronjob/{SLUG}-backup", "-n", namespace)

    def ended() -> bool:
        return bool(cluster.get("job/now", namespace)["status"].get("conditions"))

    def log() -> str:
        done = cluster.try_kubectl("logs", "job/now", "-n", namespace)
        return f"{done.stdout}{done.stderr}\n{canary.story()}"

    wait(ended, "the backup", 180, log)
    conditions = cluster.get("job/now", namespace)["status"]["conditions"]
    assert any(each["type"] == "Complete" and each["status"] == "True" for each in conditions), log()
    keys = store.bucket.keys()
    assert any(key.endswith("manifest.json") for key in keys), keys

    private = store.key.file.read_text().splitlines()[-1]
    env = {
        **store.env("admin"),
        "BACKUP_ADMIN_URL": "postgresql://postgres@127.0.0.1/postgres",
        "BACKUP_AGE_IDENTITY_FILE": "/data/key.txt",
        "BACKUP_SCRATCH_DIR": "/data",
        "DATABASE_MIGRATOR_URL": "postgresql://my_service_migrator@127.0.0.1/orders",
        "DATABASE_URL": "postgresql://my_service_app@127.0.0.1/orders",
        "ENVIRONMENT": "test",
        "SECRETS_BACKEND": "env",
    }
    set_ = " ".join(f"{name}={value}" for name, value in env.items())
    line = f"echo {private} >/data/key.txt && chmod 600 /data/key.txt && cp -r /app /data/app && cd /data/app && "
    command = f"{line} env {set_} {SLUG} backup drill --json"
    evidence = json.loads(cluster.kubectl("exec", database, "-n", SPACE, "--", "bash", "-c", command))
    assert evidence["passed"], evidence
    assert evidence["rows"] == ITEMS + 2, evidence  # and the two heads of the schema
    print(f"backup restored: {evidence['rows']} rows in {evidence['rto_seconds']:.0f} s")
    cluster.kubectl("delete", "job", "now", "-n", namespace)
