"""An API server of Kubernetes with its store and no node: objects are checked and kept, and nothing runs."""

import shutil
import tempfile
from pathlib import Path
from typing import Self

import trustme
import yaml

from tests.cluster.cluster import Cluster
from tests.servers import modules
from tests.servers.process import Process, free_port, reachable

SECONDS = 300.0


class Control:
    """etcd and kube-apiserver on loopback ports, until the end of a `with`."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="control-", dir=reachable()))
        self.api, self.store, self.peers = free_port(), free_port(), free_port()
        self._authority = trustme.CA(organization_name="tests")
        self._authority.cert_pem.write_to_path(str(self.home / "ca.crt"))
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        self._issue("api", "tests")
        self.cluster = Cluster(self.kubeconfig("admin", "system:masters"), ("127.0.0.1", 0), "127.0.0.1")
        local = f"http://127.0.0.1:{self.store}"
        self._start(
            "etcd",
            f"--data-dir={self.home}/etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls={local}",
            f"--advertise-client-urls={local}",
            f"--listen-peer-urls=http://127.0.0.1:{self.peers}",
        )
        server = self._start(
            "kube-apiserver",
            f"--etcd-servers={local}",
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # which refuses the loopback interface
            f"--secure-port={self.api}",
            f"--tls-cert-file={self.home}/api.crt",
            f"--tls-private-key-file={self.home}/api.key",
            f"--client-ca-file={self.home}/ca.crt",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.home}/api.key",
            f"--service-account-signing-key-file={self.home}/api.key",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
        )
        server.wait_until(lambda: self.cluster.try_kubectl("get", "--raw=/readyz").returncode == 0, SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):  # an API server whose store is gone would not end
            process.kill()
        shutil.rmtree(self.home)

    def kubeconfig(self, user: str, group: str = "tests", namespace: str = "default") -> Path:
        """Of a user in a group, for a namespace: `system:masters` may do all, others nothing."""
        self._issue(user, group)
        file, home = self.home / f"{user}-{namespace}.conf", self.home
        server = {"server": f"https://127.0.0.1:{self.api}", "certificate-authority": f"{home}/ca.crt"}
        key = {"client-certificate": f"{home}/{user}.crt", "client-key": f"{home}/{user}.key"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "api", "cluster": server}],
            "contexts": [{"name": "api", "context": {"cluster": "api", "user": user, "namespace": namespace}}],
            "users": [{"name": user, "user": key}],
            "current-context": "api",
        }
        file.write_text(yaml.safe_dump(config))
        return file

    def _issue(self, name: str, group: str) -> None:
        hosts = ("127.0.0.1", "localhost")
        made = self._authority.issue_cert(*hosts, common_name=name, organization_name=group)
        made.cert_chain_pems[0].write_to_path(str(self.home / f"{name}.crt"))
        made.private_key_pem.write_to_path(str(self.home / f"{name}.key"))

    def _start(self, name: str, *arguments: str) -> Process:
        log = self.home / f"{name}.log"
        self._processes.append(Process([modules.program(name), *arguments], log=log, cwd=self.home))
        return self._processes[-1]
