"""The stand-in's socket: real HTTP on a loopback port, with the faults that a network and a busy server have."""

import json
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.servers.process import free_port
from tests.servers.vault.store import Clock, Json, Refusal, Store, Token
from tests.servers.vault.table import Call, find, seconds

if TYPE_CHECKING:
    import hvac

HANG = float("inf")
CAPABILITIES = {"GET": {"read"}, "LIST": {"list"}, "DELETE": {"delete"}}


@dataclass(frozen=True)
class Seen:
    """A request and its answer."""

    method: str
    path: str
    status: int
    namespace: str


@dataclass(frozen=True)
class Fault:
    """What goes wrong with requests whose path contains `path`.

    Args:
        status: Answered instead of what was asked for: 429, 500, 502.
        delay: Seconds before the answer; `HANG` for none at all.
        reset: The connection ends in the middle.
    """

    path: str = ""
    status: int = 0
    delay: float = 0.0
    reset: bool = False


@dataclass
class Vault:
    """One server. What it holds outlives `stop`; `state` is a key of the table's `HEALTH`, such as `sealed`."""

    namespace: str = ""
    state: str = "active"
    port: int = field(default_factory=free_port)
    store: Store = field(default_factory=Store)
    seen: list[Seen] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # requests without a row, and answers that their row lacks
    faults: list[Fault] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    over: threading.Event = field(default_factory=threading.Event)
    _server: "_Server | None" = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def clock(self) -> Clock:
        return self.store.clock

    @property
    def root(self) -> str:
        """A token that may do everything."""
        return self.store.root

    def client(self, token: str | None = None) -> "hvac.Client":
        """hvac with a token, the root's if none is given."""
        import hvac  # not needed by most runs of pytest, which all load this module

        return hvac.Client(url=self.url, token=token or self.root, namespace=self.namespace or None, timeout=5)

    def start(self) -> None:
        """Listen, on the same port as before."""
        self.over.clear()
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Close the port and what is open on it: from now on connections are refused."""
        self.over.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server.hang_up()
        self._server = None

    @contextmanager
    def fault(self, *, path: str = "", status: int = 0, delay: float = 0.0, reset: bool = False) -> Iterator[Fault]:
        """Let something go wrong for the length of a `with`."""
        fault = Fault(path, status, delay, reset)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)

    def asked(self, path: str) -> list[Seen]:
        """The requests whose path contains this."""
        return [each for each in list(self.seen) if path in each.path]

    def answer(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: Json
    ) -> tuple[int, Json | None]:
        """Look the request up, let its token in or not, and answer."""
        with self.lock:
            self.store.expire()
            try:
                status, found = self._answer(method, path, query, headers, body)
            except Refusal as refusal:
                status, found = refusal.status, {"errors": list(refusal.errors)}
                if refusal.data is not None:
                    found = _envelope({"data": refusal.data})
            self.seen.append(Seen(method, path, status, headers.get("X-Vault-Namespace", "")))
            return status, found

    def _answer(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: Json
    ) -> tuple[int, Json | None]:
        if query.get("list") == "true" and method == "GET":
            method = "LIST"
        row = find(method, path)
        if row is None:
            self.unknown.append(f"{method} {path}")
            raise Refusal(404, f'no handler for route "{path}"')
        if self.state in ("sealed", "uninitialized") and not path.startswith(("sys/health", "sys/seal-status")):
            raise Refusal(503, "Vault is sealed")
        # https://developer.hashicorp.com/vault/api-docs#namespaces; the answer to a wrong one is on no page.
        if headers.get("X-Vault-Namespace", "").strip("/") != self.namespace and not path.startswith("sys/health"):
            raise Refusal(403, "permission denied")
        used = headers.get("X-Vault-Token", "")
        token = self._token(used, method, path)
        if token is None and not row[0].public:
            raise Refusal(403, "permission denied")
        call = Call(self.store, method, path, row[1], body, query, self.state, used, token)
        status, made = row[0].handler(call)
        if status not in row[0].statuses:
            self.unknown.append(f"{method} {path}: {status}")
        if status == 204:
            return status, None
        if path in ("sys/health", "sys/seal-status"):
            return status, made
        whole = _envelope(made)
        ttl = headers.get("X-Vault-Wrap-TTL")
        return status, self._wrap(whole, path, seconds(ttl)) if ttl else whole

    def _token(self, used: str, method: str, path: str) -> Token | None:
        token = self.store.tokens.get(used)
        if token and self.store.allows(token, CAPABILITIES.get(method, {"create", "update"}), path):
            return token
        return None

    def _wrap(self, whole: Json, path: str, ttl: float) -> Json:
        """https://developer.hashicorp.com/vault/docs/concepts/response-wrapping"""
        token = f"hvs.{uuid.uuid4().hex}{uuid.uuid4().hex}"
        self.store.wrapped[token] = whole, self.clock.now() + ttl
        made = self.clock.shown(self.clock.now())
        about = {"token": token, "ttl": round(ttl), "creation_time": made, "creation_path": path}
        return {**_envelope({}), "wrap_info": about}


def _envelope(made: Json) -> Json:
    """What every answer with data has: https://developer.hashicorp.com/vault/api-docs/system/wrapping-unwrap."""
    plain: Json = {"lease_id": "", "renewable": False, "lease_duration": 0, "data": None}
    return {"request_id": str(uuid.uuid4()), **plain, "wrap_info": None, "warnings": None, "auth": None, **made}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", vault.port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients may go while it is slow
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        for each in list(self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what was asked is in `seen`."""

    def serve(self) -> None:
        vault, url = self.server.vault, urlsplit(self.path)
        path = unquote(url.path).removeprefix("/v1/").strip("/")
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = next((each for each in vault.faults if each.path in path), Fault())
        if fault.delay:
            vault.over.wait(None if fault.delay == HANG else fault.delay)
        if vault.over.is_set() or fault.reset:
            # RST instead of FIN: the other side has a connection that was reset, not one that has ended.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if fault.status:
            answer: Json | None = {"errors": [f"as the fault has it: {fault.status}"]}
            status = fault.status
            vault.seen.append(Seen(self.command, path, status, self.headers.get("X-Vault-Namespace", "")))
        else:
            body = json.loads(raw) if raw else {}
            status, answer = vault.answer(self.command, path, dict(parse_qsl(url.query)), self.headers, body)
        text = b"" if answer is None else json.dumps(answer).encode()
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string(time.time() + vault.clock.skew))
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_LIST = serve
