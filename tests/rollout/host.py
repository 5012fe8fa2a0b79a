"""A host: a balancer and instances of a service, on which the emitted command releases versions."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.balancer.balancer import HOST, Balancer
from tests.balancer.haproxy import HAProxyBalancer
from tests.balancer.nginx import NginxBalancer
from tests.projects import Project
from tests.servers import newer
from tests.servers.process import Process, free_port

HERE = Path(__file__).parent
NAMES = ("one", "two")
LIGHT = [sys.executable, "-S", str(HERE / "instance.py")]
Tables = Mapping[str, Mapping[str, object]]


class Host:
    """A host whose instances run `OLD`.

    Args:
        kind: Of the balancer.
        emitted: A project with that balancer.
        home: A folder of its own.
        service: What runs; None for small instances.
    """

    OLD = "good-0001"

    def __init__(self, kind: type[Balancer], emitted: Path, home: Path, service: Project | None = None) -> None:
        self.home = home
        self.home.mkdir(parents=True, exist_ok=True)
        self.emitted = emitted
        self.ports = {name: free_port() for name in NAMES}
        command, env = LIGHT, dict(os.environ)
        if service:
            command = [*service.command("serve")]
            env = service.env({"TRUSTED_HOSTS": HOST, "SHUTDOWN_DRAIN_SECONDS": "0.5", "LOG_LEVEL": "WARNING"})
        unit = {"command": command, "ports": self.ports, "env": env}
        (home / "unit.json").write_text(json.dumps(unit))
        self.balancer = kind(emitted, *self.ports.values())
        self.config = home / "release.toml"
        self.settings: dict[str, dict[str, object]] = {
            "instances": {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()},
            "release": {
                "step_seconds": 1,
                "samples": 3 if service else 5,
                "patience_seconds": 60 if service else 4,
                "drain_seconds": 1,
                "start_seconds": 20 if service else 3,
                "restore": False,
                "state": str(home / "state" / "release.json"),
                "host": HOST,
                "staff_key": str(home / "staff.key"),
            },
            "limits": {"slow_ms": 3_000 if service else 300},  # a busy machine is slow, too
            "balancer": self.paths(),
            "commands": {"prepare": "", **{name: self.command(name) for name in ("start", "stop")}},
        }
        self.configure()

    def paths(self) -> dict[str, object]:
        """Where the balancer of this test has its files."""
        folder, home = self.balancer.folder, self.balancer.home
        if isinstance(self.balancer, NginxBalancer):
            user = " user root;" if os.getuid() == 0 else ""
            own = ("-p", str(home), "-e", "stderr", "-g", f"pid {home}/nginx.pid;{user}")
            return {
                "peers": str(folder / "conf.d/peers.conf"),
                "staff": str(folder / "conf.d"),
                "main": str(folder / "nginx.conf"),
                "command": shlex.join([str(newer.ensure("nginx")), *own]),
                "pid": str(home / "nginx.pid"),
                "log": str(home / "access.log"),
            }
        assert isinstance(self.balancer, HAProxyBalancer)
        return {
            "peers": str(folder / "conf.d/peers.cfg"),
            "command": shlex.join([str(newer.ensure("haproxy")), "-c", "-q", *map(str, self.balancer.files())]),
            "socket": str(home / "admin.sock"),
        }

    def command(self, action: str) -> str:
        """What starts or stops an instance."""
        return (
            shlex.join([sys.executable, "-S", str(HERE / "unit.py"), str(self.home), action]) + " {instance} {version}"
        )

    def configure(self, changes: Tables | None = None) -> None:
        """Write release.toml, with changes that last."""
        for table, values in (changes or {}).items():
            self.settings.setdefault(table, {}).update(values)
        lines = ['first = ["two"]']
        for table, values in self.settings.items():
            lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        self.config.write_text("\n".join(lines))

    def hasten(self) -> None:
        """Shorten its times, so that no test sits through them."""
        hasty = {
            "steps": [10, 100],
            "step_seconds": 0.4,
            "patience_seconds": 3,
            "drain_seconds": 0.4,
            "start_seconds": 2,
        }
        self.configure({"release": hasty})

    @contextmanager
    def configured(self, **changes: Mapping[str, object]) -> Iterator[None]:
        """Change release.toml for the length of a `with`."""
        before = {table: dict(values) for table, values in self.settings.items()}
        self.configure(changes)
        try:
            yield
        finally:
            self.settings = before
            self.configure()

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Break a file of the administrator's own for the length of a `with`."""
        name = "http-own.conf" if isinstance(self.balancer, NginxBalancer) else "own.cfg"
        own = self.balancer.folder / "conf.d" / name
        own.write_text("broken\n")
        try:
            yield
        finally:
            own.unlink()

    @contextmanager
    def blind(self) -> Iterator[None]:
        """Take away what the signals are read from, for the length of a `with`."""
        nginx = isinstance(self.balancer, NginxBalancer)
        path = self.balancer.home / ("access.log" if nginx else "admin.sock")
        away = path.with_name("away")
        path.rename(away)
        if nginx:
            path.mkdir()
        try:
            yield
        finally:
            if nginx:
                path.rmdir()
            away.rename(path)

    @contextmanager
    def run(self) -> Iterator["Host"]:
        """Run balancer and instances for the length of a `with`."""
        try:
            for name in NAMES:
                self.unit("start", name, self.OLD)
            for name in NAMES:
                self.wait_ready(name)
            with self.balancer:
                yield self
        finally:
            for name in NAMES:
                self.unit("stop", name, "-")

    def unit(self, action: str, name: str, version: str) -> None:
        """Start or stop an instance behind the command's back."""
        command = self.command(action).format(instance=name, version=version)
        subprocess.run(shlex.split(command), check=True)

    def unit_all(self, version: str) -> None:
        """Start all instances as one version."""
        for name in NAMES:
            self.unit("stop", name, "-")
            self.unit("start", name, version)
            self.wait_ready(name)

    def heal(self) -> None:
        """Abort what was not finished."""
        record = self.home / "state/release.json"
        if record.exists() and json.loads(record.read_text())["phase"] not in ("done", "rolled back"):
            self.release("abort")

    def started(self, name: str) -> list[str]:
        """The versions that were started on an instance so far."""
        return (self.home / f"{name}.started").read_text().splitlines()

    def wait_ready(self, name: str, seconds: float = 30) -> None:
        """Wait until an instance is ready."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{self.ports[name]}/readyz", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            assert time.monotonic() < deadline, (self.home / f"{name}.log").read_text()
            time.sleep(0.05)

    def words(self, *arguments: str) -> Sequence[str]:
        """The command line: without packages, as on a bare host."""
        action, *more = arguments
        script = str(self.emitted / "deploy/host/release")
        return [sys.executable, "-S", "-E", script, action, "--config", str(self.config), *more]

    def release(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        done = subprocess.run(
            self.words(*arguments), cwd="/", capture_output=True, text=True, timeout=seconds, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    @contextmanager
    def releasing(self, *arguments: str) -> Iterator[Process]:
        """Run the command beside a test; its output is in `said`."""
        (self.home / "release.log").unlink(missing_ok=True)
        process = Process(self.words(*arguments), log=self.home / "release.log", cwd=self.home)
        try:
            yield process
        finally:
            process.stop(signal.SIGKILL)

    @property
    def said(self) -> str:
        """What a command that runs beside a test has said so far."""
        return (self.home / "release.log").read_text()

    def wait_for(self, text: str, process: Process, seconds: float = 30) -> None:
        """Wait until the command has said something."""
        process.wait_until(lambda: text in self.said, seconds)

    def weights(self) -> dict[str, int]:
        """What the balancer really does, as far as it tells; otherwise what it has loaded."""
        if isinstance(self.balancer, HAProxyBalancer):
            rows = [row.split() for row in self.balancer.say("show servers state service").splitlines()]
            return {row[3]: int(row[7]) for row in rows if " service " in " ".join(row)}
        text = (self.balancer.folder / "conf.d/peers.conf").read_text()
        found = {}
        for name, port in self.ports.items():
            (line,) = (each for each in text.splitlines() if f":{port} " in each)
            words = line.rstrip(";").split()
            weight = [int(word.partition("=")[2]) for word in words if word.startswith("weight=")]
            found[name] = 0 if "down" in words else (weight or [100])[0]
        return found

    def kill(self, name: str) -> None:
        """Kill an instance."""
        os.kill(int((self.home / f"{name}.pid").read_text()), signal.SIGKILL)
