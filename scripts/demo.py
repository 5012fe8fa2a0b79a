"""Generates a service from this checkout with default answers and serves it until Ctrl-C."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import copier
import httpx
from copier.errors import CopierError, DirtyLocalWarning

from tests.projects import FOREIGN
from tests.servers.process import Process, ServerError

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
PATHS = ("/livez", "/readyz", "/docs", "/v1/items")


class DemoError(RuntimeError):
    """Why there is no demo, in one line."""


def require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            advice = f"try another: make demo PORT={port + 1}"
            raise DemoError(f"{host}:{port} cannot be used ({reason}); {advice}") from error


@contextmanager
def folder_for_service() -> Iterator[Path]:
    """`DEMO_DIR`, which is kept, or a temporary folder, which is not."""
    if chosen := os.environ.get("DEMO_DIR"):
        folder = Path(chosen).resolve()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DemoError(f"DEMO_DIR is not an empty folder: {folder}")
        yield folder
    else:
        with TemporaryDirectory(prefix="demo-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary).resolve() / "my-service"


def generate(folder: Path) -> None:
    """Render the checkout as it is now: without HEAD, Copier takes the newest tag."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DirtyLocalWarning)
        copier.run_copy(str(ROOT), folder, defaults=True, quiet=True, vcs_ref="HEAD")


def environment() -> dict[str, str]:
    """Ours with uv on PATH, and without what is meant for our own tools or for other services."""
    uv = subprocess.check_output([ROOT / "scripts" / "uv"], text=True).strip()
    path = os.pathsep.join([str(Path(uv).parent), os.environ.get("PATH", os.defpath)])
    return {name: text for name, text in os.environ.items() if name not in FOREIGN} | {"PATH": path}


@contextmanager
def make(target: str, folder: Path, *variables: str) -> Iterator[Process]:
    command = ["make", "--no-print-directory", target, *variables]
    process = Process(command, cwd=folder, env=environment())
    try:
        yield process
    finally:
        process.stop(seconds=STOP_SECONDS)


def status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code
    except httpx.TransportError:
        return 0


def check(address: str) -> None:
    for path in PATHS:
        found = status(address + path)
        print(f"{path} {found}", flush=True)
        if found != httpx.codes.OK:
            raise DemoError(f"{path} answered {found or 'nothing'} instead of 200")


def invite(address: str, folder: Path) -> None:
    """What the service does not know itself: its banner has the rest."""
    kept = "stays" if os.environ.get("DEMO_DIR") else "is deleted when you stop it; DEMO_DIR=path keeps one"
    port = address.rpartition(":")[2]
    print(f"To check it, type: make -C {folder} ready PORT={port}", flush=True)
    print(f"The folder {kept}.\n", flush=True)


def demo(host: str, port: int, once: bool) -> None:
    require_free(host, port)
    address = f"http://{host}:{port}"
    with folder_for_service() as folder:
        generate(folder)
        print(f"Generated {folder}", flush=True)
        with make("setup", folder) as setup:
            if code := setup.wait(None):
                raise DemoError(f"make setup ended with {code} in {folder}")
        with make("dev", folder, f"HOST={host}", f"PORT={port}") as service:
            service.wait_until(lambda: status(f"{address}/readyz") == 200, READY_SECONDS)
            if once:
                check(address)
            else:
                invite(address, folder)
                raise DemoError(f"make dev ended with {service.wait(None)}")


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.demo", description=__doc__)
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", default=os.environ.get("PORT", "8000"), type=int)
    parser.add_argument("--once", action="store_true", help="check the main addresses and stop")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a background job inherits SIGINT as ignored
        signal.signal(number, interrupt)
    try:
        demo(options.host, options.port, options.once)
    except KeyboardInterrupt:
        print("\nStopped.")
    except (CopierError, DemoError, ServerError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
