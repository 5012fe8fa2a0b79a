"""The production overlay as emitted becomes ready on a real node, and is reached through the gateway."""

import pytest

from tests.cluster.beside import SLUG, Beside
from tests.cluster.deployment import Deployment
from tests.cluster.node import Node

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def test_the_node_is_ready(node: Node) -> None:
    found = node.cluster.get("nodes")["items"]
    assert [each["status"]["nodeInfo"]["kubeletVersion"] for each in found] == ["v1.37.2"]
    print(f"node ready after {node.started:.1f} s")


def test_a_request_through_the_gateway_is_answered(canary: Deployment) -> None:
    assert canary.ask("/readyz")[0] == 200
    status, body = canary.ask("/v1/items")
    assert status == 200, body


def test_its_pods_are_restricted(canary: Deployment) -> None:
    labels = canary.cluster.get(f"namespace/{canary.namespace}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert len(canary.pods()) >= 2
    assert canary.restarts() == 0


def test_it_logs_in_to_openbao_by_its_service_account(canary: Deployment, beside: Beside) -> None:
    told = [entry for entry in beside.bao.audit.read_text().splitlines() if "auth/kubernetes/login" in entry]
    assert any(f'"service_account_name":"{SLUG}"' in entry for entry in told)
