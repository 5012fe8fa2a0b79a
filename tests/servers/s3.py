"""SeaweedFS, which speaks S3's API with Object Lock: one server, and in it a bucket for each test.

A test's `Bucket` is reached through a proxy of its own, so that its faults meet nobody else.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.servers import wheels
from tests.servers.process import ServerError, free_port
from tests.servers.proxy import Proxy
from tests.servers.server import Server
from tests.servers.vault import certificate

REGION = "eu-central-1"
VOLUME_MB = 128
# Who may do what: https://github.com/seaweedfs/seaweedfs/wiki/Amazon-S3-API
ACTIONS = {
    "admin": ["Admin"],
    "writer": ["Read", "Write", "List", "PutObjectRetention", "GetObjectRetention"],
    "reader": ["Read", "List"],
}
PORTS = (
    "filer.port",
    "filer.port.grpc",
    "master.port",
    "master.port.grpc",
    "s3.port.grpc",
    "s3.port.https",
    "volume.port",
    "volume.port.grpc",
)
# A bucket gets one volume at first, not seven.
GROWTH = "[master.volume_growth]\ncopy_1 = 1\n"


class SeaweedFS(Server):
    """One server; what it has stored outlives a restart. On `tls_port` it speaks HTTPS, with a certificate of `ca`.

    Args:
        volumes: Of `VOLUME_MB` each: when they are full, so is the server.
    """

    name = "SeaweedFS"
    seconds = 60.0

    def __init__(self, volumes: int = 1000) -> None:
        super().__init__()
        self.volumes = volumes
        (self.home / "data").mkdir()
        self.keys = {who: (f"AKIA{who.upper()}", uuid.uuid4().hex) for who in ACTIONS}
        (self.home / "s3.json").write_text(json.dumps({"identities": [self._identity(who) for who in ACTIONS]}))
        (self.home / "master.toml").write_text(GROWTH)
        self._ports = {name: free_port() for name in PORTS}
        self.tls_port, self.ca = self._ports["s3.port.https"], self.home / "ca.pem"
        self._certificate = certificate(self.home)

    @property
    def version(self) -> str:
        """The wheel's: the server does not say it to clients of S3."""
        return wheels.version("weed")

    def command(self) -> list[str | Path]:
        options = {
            "dir": self.home / "data",
            "ip": "127.0.0.1",
            "master.electionTimeout": "1s",
            "master.volumeSizeLimitMB": VOLUME_MB,
            "volume.max": self.volumes,
            "volume.preStopSeconds": 0,
            "filer.localSocket": self.home / "filer.sock",
            "s3.cert.file": self._certificate[0],
            "s3.config": self.home / "s3.json",
            "s3.key.file": self._certificate[1],
            "s3.localSocket": self.home / "s3.sock",
            "s3.port": self.port,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            **self._ports,
        }
        return [wheels.ensure("weed"), "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]

    def answers(self) -> bool:
        """Whether it stores: the gateway listens before there is anywhere to write."""
        from botocore.exceptions import BotoCoreError, ClientError

        with suppress(BotoCoreError, ClientError):
            with suppress(self._admin.exceptions.BucketAlreadyOwnedByYou):
                self._admin.create_bucket(Bucket="ready")
            self._admin.put_object(Bucket="ready", Key="ready", Body=b"")
            return True
        return False

    def stop(self) -> None:
        """End it at once: an orderly end takes 15 s, and what it has written is with the kernel."""
        self.kill()

    def close(self) -> None:
        """Stop it for good, and remove its folder and the sockets that it has elsewhere."""
        super().close()
        for port in self._ports.values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):  # noqa: S108 its choice
                socket.unlink(missing_ok=True)

    @cached_property
    def _admin(self) -> Any:
        return self.client()

    def client(self, who: str = "admin") -> Any:
        """boto3 as one of `ACTIONS`, around every proxy."""
        import boto3  # not needed by most runs of pytest, which all load this module
        from botocore.config import Config

        key, secret = self.keys[who]
        return boto3.client(
            "s3",
            region_name=REGION,
            endpoint_url=f"http://{self.address}",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
        )

    @contextmanager
    def bucket(self) -> Iterator["Bucket"]:
        """A bucket with Object Lock, for the length of a `with`; what it keeps ends with the server."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        with Proxy(self.port) as network:
            yield Bucket(self, name, network)

    def _identity(self, who: str) -> dict[str, Any]:
        key, secret = self.keys[who]
        return {"name": who, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": ACTIONS[who]}


@dataclass(frozen=True)
class Bucket:
    """One test's part of the server. `network` is between it and its clients; `client` goes around it."""

    server: SeaweedFS
    name: str
    network: Proxy

    @property
    def url(self) -> str:
        """As `BACKUP_URL` names it, with a prefix."""
        return f"s3://{self.name}/backups/orders"

    @property
    def env(self) -> dict[str, str]:
        """What a service needs to use it."""
        return self.env_of("writer")

    def env_of(self, who: str) -> dict[str, str]:
        """The same for one of `ACTIONS`."""
        key, secret = self.server.keys[who]
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.network.port}",
            "AWS_REGION": REGION,
            "AWS_SECRET_ACCESS_KEY": secret,
        }

    def client(self) -> Any:
        """boto3 as an administrator."""
        return self.server.client()

    def keys(self) -> list[str]:
        """What it lists."""
        return [each["Key"] for each in self.client().list_objects_v2(Bucket=self.name).get("Contents", [])]

    def uploads(self) -> list[str]:
        """The keys of uploads that are neither complete nor aborted."""
        return [each["Key"] for each in self.client().list_multipart_uploads(Bucket=self.name).get("Uploads", [])]

    def fill(self) -> None:
        """Write until the server has no room left, and refuses."""
        from botocore.exceptions import ClientError

        with suppress(ClientError):
            for number in range(4 * self.server.volumes):
                self.client().put_object(Bucket=self.name, Key=f"filled/{number}", Body=bytes(VOLUME_MB << 20))
            raise ServerError(f"{self.server.name} is never full")
