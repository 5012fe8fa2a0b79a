"""OpenBao, which speaks Vault's API: one server, and in it a namespace for each test.

A test's `Space` has mounts, logins, policies and leases of its own, and is reached through a proxy of its own, so that
its faults meet nobody else. Time is the real one: where a lease has to end, make it a short one.
"""

import base64
import json
import shutil
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import httpx
import trustme

from tests.servers import wheels
from tests.servers.process import POLL_SECONDS, ServerError, free_port
from tests.servers.proxy import Proxy
from tests.servers.server import Server

if TYPE_CHECKING:
    import hvac

READY = 200  # https://openbao.org/api-docs/system/health: unsealed and active
CONFIGURATION = """
api_addr = "{url}"
cluster_addr = "https://127.0.0.1:{cluster}"
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster}"
  {tls}
}}
storage "raft" {{
  path = "{home}/data"
  node_id = "one"
  performance_multiplier = "1" # or it waits for other nodes for 10 s
}}
audit "file" "seen" {{
  options {{
    file_path = "{home}/audit.log"
    log_raw = "true"
  }}
}}
{more}
"""


class OpenBao(Server):
    """One server; what it holds outlives a kill and a restart.

    Args:
        tls: Whether it speaks HTTPS, with a certificate of `ca`.
        more: Further lines of its configuration.
    """

    name = "OpenBao"

    def __init__(self, *, tls: bool = False, more: str = "") -> None:
        super().__init__()
        self.tls, self.more = tls, more
        self.url = f"{'https' if tls else 'http'}://{self.address}"
        self.ca = self.home / "ca.pem"
        self.audit = self.home / "audit.log"
        self.root = self.key = ""
        (self.home / "data").mkdir()
        (self.home / "server.hcl").write_text(self._configuration())

    @property
    def version(self) -> str:
        """What it says that it is."""
        return str(self._ask("GET", "sys/seal-status").json()["version"])

    def command(self) -> list[str | Path]:
        return [wheels.ensure("bao"), "server", f"-config={self.home / 'server.hcl'}"]

    def answers(self) -> bool:
        with suppress(httpx.TransportError):
            return bool(self._ask("GET", "sys/seal-status").status_code == 200)
        return False

    def start(self) -> None:
        """Start, with keys of its own at the first time, and unsealed."""
        super().start()
        if not self.root:
            made = self._ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1}).json()
            self.root, self.key = made["root_token"], made["keys_base64"][0]
        self.unseal()

    def lose(self) -> None:
        """Lose it with all its data: an empty server starts in its place, which nobody has initialised."""
        self.kill()
        shutil.rmtree(self.home / "data")
        (self.home / "data").mkdir()
        super().start()

    def seal(self) -> None:
        """Seal it: for all namespaces."""
        self.client().sys.seal()

    def unseal(self) -> None:
        """Unseal it, and return once it serves."""
        self._ask("PUT", "sys/unseal", {"key": self.key})
        self.process.wait_until(lambda: self._ask("GET", "sys/health").status_code == READY, self.seconds)

    def client(self, token: str = "", namespace: str = "") -> "hvac.Client":
        """hvac with a token, the root's if none is given."""
        import hvac  # not needed by most runs of pytest, which all load this module

        verify = str(self.ca) if self.tls else True
        return hvac.Client(self.url, token or self.root, namespace=namespace or None, verify=verify, timeout=10)

    @contextmanager
    def space(self) -> Iterator["Space"]:
        """A namespace, with KV v2 at `secret/`, for the length of a `with`; what it has lent ends with it."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client().write_data(f"sys/namespaces/{name}", data={})
        with Proxy(self.port) as network:
            space = Space(self, name, network, self.audit.stat().st_size)
            space.client().write_data("sys/mounts/secret", data={"type": "kv", "options": {"version": "2"}})
            space.wait_until(space._has_secrets)
            yield space
        self.client().delete(f"sys/namespaces/{name}")

    def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        verify = ssl.create_default_context(cafile=str(self.ca)) if self.tls else False
        with httpx.Client(verify=verify, trust_env=False, timeout=10) as client:
            return client.request(method, f"{self.url}/v1/{path}", json=body)

    def _configuration(self) -> str:
        tls = "tls_disable = true"
        if self.tls:
            files = certificate(self.home)
            tls = f'tls_cert_file = "{files[0]}"\n  tls_key_file = "{files[1]}"'
        given = {"url": self.url, "port": self.port, "cluster": free_port(), "home": self.home}
        return CONFIGURATION.format(tls=tls, more=self.more, **given)


@dataclass(frozen=True)
class Seen:
    """A request of somebody who is not the root, as the audit device tells."""

    operation: str
    path: str


@dataclass(frozen=True)
class Space:
    """One test's part of the server. `network` is between it and its clients; `client` goes around it."""

    bao: OpenBao
    name: str
    network: Proxy
    begun: int = field(repr=False)

    @property
    def url(self) -> str:
        """Through the proxy."""
        return f"{'https' if self.bao.tls else 'http'}://127.0.0.1:{self.network.port}"

    @property
    def root(self) -> str:
        """A token that may do everything."""
        return self.bao.root

    @property
    def env(self) -> dict[str, str]:
        """Where it is, for a client of the service."""
        return {"VAULT_ADDR": self.url, "VAULT_NAMESPACE": self.name}

    def client(self, token: str = "") -> "hvac.Client":
        """hvac in this namespace, with the root's token if none is given."""
        return self.bao.client(token, self.name)

    def throttle(self) -> None:
        """Let it answer no more than a request a minute here, which is over."""
        quota = {"path": f"{self.name}/", "rate": 0.01, "interval": "60s"}
        self.bao.client().write_data(f"sys/quotas/rate-limit/{self.name}", data=quota)
        self.client().secrets.kv.v2.read_configuration(mount_point="secret")

    def relax(self) -> None:
        """End `throttle`."""
        self.bao.client().delete(f"sys/quotas/rate-limit/{self.name}")

    def requests(self) -> list[Seen]:
        """What was asked, but for what the root asked."""
        made = (entry["request"] for entry in self._told() if entry["type"] == "request")
        return [Seen(each["operation"], each["path"]) for each in made if each.get("client_token") != self.root]

    def asked(self, path: str) -> int:
        """How often something was asked whose path contains this."""
        return sum(path in each.path for each in self.requests())

    def written(self) -> list[str]:
        """What anybody changed, by its path."""
        made = (entry["request"] for entry in self._told() if entry["type"] == "request")
        return [each["path"] for each in made if each["operation"] in ("create", "update", "patch", "delete")]

    def tokens(self) -> set[str]:
        """All that were used or given."""
        found = {part.get("client_token", "") for entry in self._told() for part in _parts(entry)}
        return {token for token in found if len(token) > 20}

    def wait_until(self, true: Any, seconds: float = 15.0) -> None:
        """Return once it is true: the server does some things after it has answered."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                raise ServerError(f"{self.bao.name}: not within {seconds:g} s")
            time.sleep(POLL_SECONDS)

    def _has_secrets(self) -> bool:
        """Whether KV v2 is done with making itself ready, which it does after it was made."""
        from hvac.exceptions import InvalidRequest

        with suppress(InvalidRequest):
            return self.client().read("secret/config") is not None
        return False

    def _told(self) -> list[dict[str, Any]]:
        with self.bao.audit.open() as file:
            file.seek(self.begun)
            lines = [line for line in file if f'"path":"{self.name}/"' in line]
        return [json.loads(line) for line in lines]


def _parts(entry: dict[str, Any]) -> list[dict[str, Any]]:
    answer = entry.get("response") or {}
    wrap = answer.get("wrap_info") or {}
    found = [entry.get("auth"), entry.get("request"), answer.get("auth"), {"client_token": wrap.get("token", "")}]
    return [part for part in found if part]


# --- a cluster's side of the login by service account ---------------------------------------------------------------


class Reviewer:
    """The endpoint of a cluster that says whose token it is: https://kubernetes.io/docs/reference/kubernetes-api/
    authentication-resources/token-review-v1/. It speaks HTTPS with a certificate of `ca`.

    `accounts` are the tokens that are good, with namespace and name of their service account.
    """

    def __init__(self, folder: Path) -> None:
        self.accounts: dict[str, tuple[str, str]] = {}
        cert, key = certificate(folder)
        self.ca = folder / "ca.pem"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _review(self.accounts))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"

    def issue(self, namespace: str, name: str) -> str:
        """A token of a service account, as kubelet puts it into a pod."""
        whose = {"namespace": namespace, "serviceaccount": {"name": name, "uid": "1"}}
        subject = f"system:serviceaccount:{namespace}:{name}"
        now = int(time.time())
        body = {"sub": subject, "kubernetes.io": whose, "jti": uuid.uuid4().hex, "nbf": now, "exp": now + 3600}
        parts = (json.dumps(part).encode() for part in ({"alg": "RS256", "kid": "1"}, body, "signed"))
        token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
        self.accounts[token] = namespace, name
        return token

    def __enter__(self) -> "Reviewer":
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _review(accounts: dict[str, tuple[str, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = accounts.get(review["spec"]["token"])
            review["status"] = {"authenticated": bool(found)}
            if found:
                user = {"username": f"system:serviceaccount:{found[0]}:{found[1]}", "uid": "1"}
                review["status"]["user"] = {**user, "groups": ["system:serviceaccounts"]}
            text = json.dumps(review).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for the loopback interface and its key; the CA that made it is in `ca.pem`."""
    ca = trustme.CA()
    made = ca.issue_cert("127.0.0.1", "localhost")
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    made.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    made.private_key_pem.write_to_path(str(folder / "key.pem"))
    return folder / "cert.pem", folder / "key.pem"
