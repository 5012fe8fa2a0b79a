"""AWS Secrets Manager, as moto has it, on a loopback port; with the faults that AWS has and moto has not."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from tests.servers.process import free_port

REGION = "eu-central-1"


class Aws:
    """One server. `fault` is the code that every request is refused with, while there is one."""

    def __init__(self) -> None:
        # Here, not above: every run of pytest loads this module, and few need these.
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, type: str, message: str, *args: Any) -> None:
                """Say nothing."""

        self.port = free_port()
        self.fault: tuple[int, str] | None = None
        self.asked = 0
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", self.port, self._serve, threaded=True, request_handler=Quiet)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to ask it."""
        return {
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_REGION": REGION,
            "AWS_SECRET_ACCESS_KEY": "a-planted-access-key",
        }

    def client(self, kind: str = "secretsmanager", key: str = "", secret: str = "") -> Any:
        """boto3 as an administrator, or with a key of `user_with`."""
        import boto3

        return boto3.client(
            kind,
            region_name=REGION,
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            aws_access_key_id=key or self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=secret or self.env["AWS_SECRET_ACCESS_KEY"],
        )

    @contextmanager
    def user_with(self, policy: str) -> Iterator[Any]:
        """boto3 as somebody whom one policy holds, and who is held by it for the length of a `with`."""
        from moto import settings
        from moto.core.authorization import ActionAuthenticatorMixin

        iam = self.client("iam")
        iam.create_user(UserName="service")
        iam.put_user_policy(UserName="service", PolicyName="policy", PolicyDocument=policy)
        made = iam.create_access_key(UserName="service")["AccessKey"]
        ActionAuthenticatorMixin.request_count, settings.INITIAL_NO_AUTH_ACTION_COUNT = 0, 0
        try:
            yield self.client(key=made["AccessKeyId"], secret=made["SecretAccessKey"])
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = float("inf")

    def put(self, name: str, value: object) -> None:
        """Make a secret, or its next version; a text is taken as it is."""
        client = self.client()
        text = value if isinstance(value, str) else json.dumps(value)
        try:
            client.put_secret_value(SecretId=name, SecretString=text)
        except client.exceptions.ResourceNotFoundException:
            client.create_secret(Name=name, SecretString=text)

    @contextmanager
    def refusing(self, status: int, code: str) -> Iterator[None]:
        """Refuse everything for the length of a `with`.

        Args:
            status: Of HTTP.
            code: Of https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html.
        """
        self.fault = status, code
        try:
            yield
        finally:
            self.fault = None

    def _serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.asked += 1
        if self.fault is None:
            answer: Iterable[bytes] = self._app(environ, start)
            return answer
        status, code = self.fault
        start(f"{status} Fault", [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"__type": code, "message": "as the fault has it"}).encode()]
