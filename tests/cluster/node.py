"""A real Kubernetes node: etcd, the control plane, containerd, kubelet, kube-proxy and DNS, in a `Space` of its own."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import trustme
import yaml

from tests.cluster import archive
from tests.cluster.cluster import Cluster, wait
from tests.cluster.space import ADDRESS, Space
from tests.servers import modules, packages
from tests.servers.process import Process, ServerError

NAME = "node0"
PODS, SERVICES = "10.91.0.0/16", "10.96.0.0/16"
API = f"https://{ADDRESS}:6443"
PAUSE = "localhost/pause:1"
STARTS = 180.0  # seconds that a busy machine may take
FRONT = "x-remote-"
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{{name: node, cluster: {{server: "{api}", certificate-authority: {pki}/ca.crt}}}}]
users: [{{name: admin, user: {{client-certificate: {pki}/admin.crt, client-key: {pki}/admin.key}}}}]
contexts: [{{name: node, context: {{cluster: node, user: admin}}}}]
current-context: node
"""
CONTAINERD = """
version = 3
root = "{home}/containerd/root"
state = "{home}/containerd/state"
[grpc]
address = "{home}/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{pause}'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true # without CAP_SYS_RESOURCE a lower score is refused
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/usr/lib/cni']
conf_dir = '{home}/cni'
"""
CNI = """
{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
    "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{subnet}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}
"""
COREDNS = """
.:53 {{
  bind {address}
  kubernetes cluster.local {{
    endpoint {api}
    tls {pki}/admin.crt {pki}/admin.key {pki}/ca.crt
  }}
}}
"""


class Node:
    """One node, ready for pods; use it as a context manager. In its length this thread is in its network.

    `started` is how many seconds its start took.
    """

    def __init__(self) -> None:
        for program, package in (("runc", "runc"), ("iptables", "iptables"), ("conntrack", "conntrack")):
            packages.ensure(program, package)
        packages.ensure_file(Path("/usr/lib/cni/bridge"), "containernetworking-plugins")
        for name in ("kubernetes", "etcd", "containerd", "coredns", "pause"):
            modules.ensure(name)
        self.space = Space()
        self.home = self.space.home
        self.pki = self.home / "pki"
        self.cluster = Cluster(self.home / "admin.conf", (ADDRESS, 8080), ADDRESS)
        self.started = 0.0
        self._groups = [each / self.home.name for each in _control_groups()]

    def __enter__(self) -> Self:
        begun = time.monotonic()
        with ExitStack() as stack:
            stack.callback(self._remove_groups)
            stack.enter_context(self.space)
            self._make_keys()
            self._start_control_plane()
            self._start_runtime()
            wait(self._is_ready, "the node is ready", why=lambda: self.log("kubelet"))
            self._stack = stack.pop_all()
        self.started = time.monotonic() - begun
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def log(self, name: str, lines: int = 30) -> str:
        """The end of what a program of the node has written."""
        return "\n".join((self.space.logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def load(self, file: Path) -> dict[str, str]:
        """Import the images of an archive, so that a pod may name them by their digests: the digests, by the names."""
        self._ctr("images", "import", file)
        lines = [line.split() for line in self._ctr("images", "ls").splitlines()]
        found = {}
        for name in archive.names_in(file):
            (line,) = (line for line in lines if line[0] == name)
            found[name] = next(each for each in line if each.startswith("sha256:"))
            self._ctr("images", "tag", "--force", name, f"{name.rpartition(':')[0]}@{found[name]}")
        return found

    def start_api(self) -> Process:
        """Start the API server, also after it was killed; it answers once this returns."""
        of = self.pki
        started = self._run(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={ADDRESS}",
            "--secure-port=6443",
            f"--tls-cert-file={of}/api.crt",
            f"--tls-private-key-file={of}/api.key",
            f"--client-ca-file={of}/ca.crt",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={of}/accounts.key",
            f"--service-account-signing-key-file={of}/accounts.key",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=RBAC,Node",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",  # its name resolves nowhere
            f"--kubelet-client-certificate={of}/admin.crt",
            f"--kubelet-client-key={of}/admin.key",
            # the aggregation layer, for metrics-server
            f"--requestheader-client-ca-file={of}/ca.crt",
            "--requestheader-allowed-names=front-proxy",
            f"--requestheader-username-headers={FRONT}user",
            f"--requestheader-group-headers={FRONT}group",
            f"--requestheader-extra-headers-prefix={FRONT}extra-",
            f"--proxy-client-cert-file={of}/front-proxy.crt",
            f"--proxy-client-key-file={of}/front-proxy.key",
            "--enable-aggregator-routing=true",
        )
        started.wait_until(lambda: self.cluster.try_kubectl("get", "--raw=/readyz").returncode == 0, STARTS)
        return started

    def _start_control_plane(self) -> None:
        local = "http://127.0.0.1"
        self._run(
            "etcd",
            f"--data-dir={self.home}/etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls={local}:2379",
            f"--advertise-client-urls={local}:2379",
            f"--listen-peer-urls={local}:2380",
        )
        self.start_api()
        account = f"--service-account-private-key-file={self.pki}/accounts.key"
        authority = f"--root-ca-file={self.pki}/ca.crt"
        self._run(
            "kube-controller-manager",
            *self._client,
            account,
            authority,
            f"--cluster-cidr={PODS}",
            "--allocate-node-cidrs=true",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--horizontal-pod-autoscaler-sync-period=5s",
        )
        self._run("kube-scheduler", *self._client, "--leader-elect=false")

    def _start_runtime(self) -> None:
        (self.home / "cni").mkdir()
        (self.home / "cni/10-pods.conflist").write_text(CNI.format(subnet=PODS.replace("/16", "/24")))
        (self.home / "containerd.toml").write_text(CONTAINERD.format(home=self.home, pause=PAUSE))
        (self.home / "Corefile").write_text(COREDNS.format(address=ADDRESS, api=API, pki=self.pki))
        programs = {"PATH": f"{modules.ensure('containerd')}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        containerd = self.space.start(
            "containerd", modules.program("containerd"), f"--config={self.home}/containerd.toml", env=programs
        )
        containerd.wait_until(lambda: self._try_ctr("version").returncode == 0, 30)
        self.load(archive.of_program(modules.program("pause"), PAUSE, self.home / "pause.tar"))
        for each in self._groups:
            each.mkdir()
        (self.home / "kubelet.yaml").write_text(yaml.safe_dump(self._kubelet()))
        self._run(
            "kubelet",
            f"--config={self.home}/kubelet.yaml",
            *self._client,
            f"--root-dir={self.home}/kubelet",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
        )
        self._run("kube-proxy", *self._client, f"--cluster-cidr={PODS}", f"--hostname-override={NAME}")
        self._run("coredns", f"-conf={self.home}/Corefile")

    def _kubelet(self) -> dict[str, object]:
        authority = {"clientCAFile": f"{self.pki}/ca.crt"}
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,  # some kernels have version 1 mounted
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.home.name}",  # a kubelet removes what it does not know
            "authentication": {"anonymous": {"enabled": False}, "x509": authority, "webhook": {"enabled": True}},
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": f"unix://{self.home}/containerd.sock",
            "failSwapOn": False,
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "200Mi"},
            "imageMinimumGCAge": "24h",
            "imageGCHighThresholdPercent": 100,
            "resolvConf": str(self.home / "resolv.conf"),
            "syncFrequency": "10s",
            "tlsCertFile": f"{self.pki}/api.crt",
            "tlsPrivateKeyFile": f"{self.pki}/api.key",
        }

    @property
    def _client(self) -> Sequence[str]:
        return (f"--kubeconfig={self.cluster.kubeconfig}",)

    def _run(self, name: str, *arguments: str) -> Process:
        return self.space.start(name, modules.program(name), *arguments)

    def _try_ctr(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return self.space.run(
            modules.program("ctr"), f"--address={self.home}/containerd.sock", "--namespace=k8s.io", *arguments
        )

    def _ctr(self, *arguments: str | Path) -> str:
        done = self._try_ctr(*arguments)
        if done.returncode:
            raise ServerError(f"ctr {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}")
        return done.stdout

    def _is_ready(self) -> bool:
        found = self.cluster.try_kubectl("get", "nodes", "--output=jsonpath={.items[*].status.conditions}").stdout
        return '"type":"Ready"' in found and '"reason":"KubeletReady"' in found

    def _make_keys(self) -> None:
        self.pki.mkdir()
        ca = trustme.CA(organization_name="tests")
        ca.cert_pem.write_to_path(str(self.pki / "ca.crt"))
        served = ("kubernetes.default.svc", "localhost", "127.0.0.1", ADDRESS, SERVICES.replace("0.0/16", "0.1"))
        for name, identities, group in (
            ("api", served, "tests"),
            ("admin", ("admin.test",), "system:masters"),
            ("front-proxy", ("front-proxy.test",), "tests"),
            ("accounts", ("accounts.test",), "tests"),
        ):
            made = ca.issue_cert(*identities, common_name=name, organization_name=group)
            made.cert_chain_pems[0].write_to_path(str(self.pki / f"{name}.crt"))
            made.private_key_pem.write_to_path(str(self.pki / f"{name}.key"))
        self.cluster.kubeconfig.write_text(KUBECONFIG.format(api=API, pki=self.pki))

    def _remove_groups(self) -> None:
        for group in self._groups:
            if group.exists():
                for each in sorted(group.rglob("*/"), reverse=True):
                    each.rmdir()
                group.rmdir()


def _control_groups() -> Iterator[Path]:
    """Where control groups are mounted: one place, or one for each controller of version 1."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        where, kind = Path(line.split()[1]), line.split()[2]
        if kind in ("cgroup", "cgroup2"):
            yield where
