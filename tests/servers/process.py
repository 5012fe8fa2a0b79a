"""A server process in a session of its own: stopped, killed or frozen by its id, nothing left."""

import atexit
import contextlib
import itertools
import os
import pwd
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

POLL_SECONDS = 0.05
KILL_SECONDS = 5.0
LOG_TAIL_BYTES = 4000
OURS = range(10_000, 32_768)  # ports; Linux lends the rest to clients: ip_local_port_range in ip(7)
CLAIMS = 200  # more than this process may have handed out before the server of the first one listens
_claimed: deque[socket.socket] = deque()


class ServerError(RuntimeError):
    """A server did not do what a test needs of it; the message ends with the end of its log."""


def free_port(among: range = OURS) -> int:
    """A port of the loopback interface that nobody listens on, and that no other process gets from here meanwhile.

    A server needs seconds until it listens. Did another worker's server take the port by then, tests would talk to that
    one. So the UDP port of the same number, which nobody needs, is held as a claim; it goes with this process.

    None of those that Linux lends to clients: one of them might have it before the server does, and a client that asks
    for a server in vain may be connected to itself.
    """
    begin = random.SystemRandom().randrange(len(among))
    for port in itertools.chain(among[begin:], among[:begin]):
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            claim.close()
            continue
        _claimed.append(claim)
        if len(_claimed) > CLAIMS:
            _claimed.popleft().close()
        return port
    raise ServerError(f"no free port among {among}")


def unprivileged(name: str) -> str | None:
    """Who runs a server that refuses root: `name`, else `nobody`; None if we are not root."""
    if os.getuid() != 0:
        return None
    return name if name in {entry.pw_name for entry in pwd.getpwall()} else "nobody"


def reachable() -> Path:
    """A folder for temporary files that the server's user, who is not root, may enter."""
    usual = Path(tempfile.gettempdir()).resolve()
    open_to_all = all(folder.stat().st_mode & 0o001 for folder in (usual, *usual.parents))
    return usual if open_to_all else Path("/var/tmp")  # noqa: S108


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    return _stat(Path(f"/proc/{pid}"))[0] not in "ZX"


def descendants(pid: int) -> set[int]:
    """The running children of a process, their children and so on (Linux; empty elsewhere)."""
    parents = {
        int(entry.name): stat[1] for entry in Path("/proc").glob("[0-9]*") if (stat := _stat(entry))[0] not in "ZX"
    }
    found: set[int] = set()
    generation = {pid}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation}
        found |= generation
    return found


def _stat(entry: Path) -> tuple[str, int]:
    """State and parent (proc(5): after the command's name, which may hold spaces and brackets)."""
    try:
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "X", 0
    return state, int(parent)


class Child(Protocol):
    """What `Process` uses of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Process:
    """A started server. `log=None` lets it write to our own output; `child` is one that has been started otherwise."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        child: Child | None = None,
    ) -> None:
        self.log = log
        self.name = Path(command[0]).name
        with contextlib.ExitStack() as opened:
            self._child: Child = child or subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=opened.enter_context(log.open("ab")) if log else None,
                stderr=subprocess.STDOUT if log else None,
                start_new_session=True,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        self.pid = self._child.pid
        self._ended = False
        atexit.register(self.kill)

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return once `ready()`; `ServerError` if the server ends or the time is over first."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise self._error(f"{self.name} ended with {self._child.returncode}")
            if time.monotonic() > deadline:
                raise self._error(f"{self.name} was not ready after {seconds:g} s")
            time.sleep(POLL_SECONDS)

    def wait(self, seconds: float | None = 60.0) -> int:
        """Wait for the server to end by itself (`None`: however long it takes): its exit code."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self._error(f"{self.name} did not end within {seconds:g} s") from None

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 10.0) -> None:
        """Ask the server to end; what is left after its end or after `seconds` is killed."""
        children = descendants(self.pid)
        self.send(how)
        self.resume()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)
        self._end(children)

    def kill(self) -> None:
        """End the server and everything that it started at once."""
        self._end(descendants(self.pid))

    def pause(self) -> None:
        """Freeze the server: connections are taken by the kernel, and nobody answers."""
        self._send_all(signal.SIGSTOP, descendants(self.pid))

    def resume(self) -> None:
        """Let a paused server go on."""
        self._send_all(signal.SIGCONT, descendants(self.pid))

    def send(self, what: signal.Signals) -> None:
        """Send a signal to the server's process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, what)

    def _send_all(self, what: signal.Signals, children: set[int]) -> None:
        # Some servers, PostgreSQL among them, give their children sessions of their own.
        self.send(what)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)

    def _end(self, children: set[int]) -> None:
        if self._ended:
            return
        self._send_all(signal.SIGKILL, children)
        self._child.wait()
        deadline = time.monotonic() + KILL_SECONDS
        while any(alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self._ended = True
        atexit.unregister(self.kill)

    def _error(self, what: str) -> ServerError:
        tail = self.log.read_text(errors="replace")[-LOG_TAIL_BYTES:] if self.log else ""
        return ServerError(f"{what}\n{tail}".strip())
