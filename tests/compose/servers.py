"""The servers of compose.yaml, started as the file says: program, flags and environment, on ports of this machine."""

import contextlib
import grp
import os
import pwd
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests import commands
from tests.compose.native import Native
from tests.servers import bugsink, newer, packages, wheels
from tests.servers.postgres import Postgres, open_postgres
from tests.servers.process import Process, free_port
from tests.servers.server import Server

# Parts of SeaweedFS that listen, too.
PARTS = [f"{part}.port{kind}" for part in ("admin", "filer", "master", "volume") for kind in ("", ".grpc")]
# The folders for temporary files that are compiled in belong to the system's NGINX.
TEMPORARY = "\n".join(
    f"{name}_temp_path {{home}}/{name};" for name in ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")
)


class Written(Server):
    """A service of the file.

    Args:
        native: The file.
        name: The service.
        program: Where its program is; the command begins with its name, or the image adds that.
        more: Further arguments, which only this machine needs.
        env: The same for its environment.
    """

    seconds = 60.0

    def __init__(self, native: Native, name: str, program: str | Path, *more: str, **env: str) -> None:
        super().__init__()
        self.native, self.name, self.port = native, name, native.ports[name]
        words = native.words(name)
        self.words = [program, *(words[1:] if words[:1] == [Path(program).name] else words), *more]
        self.env = {**native.env(name), **env}

    def command(self) -> Sequence[str | Path]:
        return self.words

    def environment(self) -> Mapping[str, str]:
        return self.env

    def answers(self) -> bool:
        """Whether it listens."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def cache(native: Native) -> Written:
    """Valkey or Memcached."""
    port = str(native.ports["cache"])
    if native.words("cache")[0] == "memcached":
        program = packages.ensure("memcached", "memcached")
        return Written(native, "cache", program, "-l", "127.0.0.1", "-p", port, "-u", "nobody")
    return Written(native, "cache", newer.ensure("valkey-server"), "--port", port, "--bind", "127.0.0.1")


@contextmanager
def database(native: Native) -> Iterator[Postgres]:
    """What the image does at its first start: the flags, the database, then the scripts in their order as superuser."""
    program, *flags = native.words("database")
    assert (program, set(flags[::2])) == ("postgres", {"-c"})
    with open_postgres(dict(flag.split("=", 1) for flag in flags[1::2])) as server:
        native.ports["database"] = server.port
        name = native.env("database")["POSTGRES_DB"]
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        for target, script in sorted(native.files("database").items()):
            if "initdb.d" in target:
                with psycopg.connect(server.url(name), autocommit=True) as connection:
                    connection.execute(script.read_bytes())
        yield server


class Instance(Written):
    """The service itself: it gets nothing of our environment."""

    def __init__(self, native: Native, name: str) -> None:
        python, *more = native.project.command("serve")
        super().__init__(native, name, python, *more)
        (self.home / "migrations").symlink_to(native.project.root / "migrations")  # as in the image
        self.env |= {"HOST": "127.0.0.1", "PORT": str(self.port), "PYTHONPATH": str(native.project.root / "src")}

    def stop(self) -> None:
        """End it at once: its drain is the business of other tests."""
        self.kill()


def one_shot(native: Native, name: str, *words: str) -> str:
    """Run the command of a container of ours, or other words in it, and return what it says."""
    env = {**native.env(name), "PYTHONPATH": str(native.project.root / "src")}
    command = native.project.command(*(words or native.words(name)))
    return commands.must(*command, cwd=native.project.root, env=env)


def script(native: Native, name: str) -> str:
    """Run the script of a one-shot service, and return what it says."""
    words = [*native.words(name, "entrypoint"), *native.words(name)]
    files = {target: str(file) for target, file in native.files(name).items()}
    return commands.must(*(files.get(word, word) for word in words), env=native.env(name))


def s3(native: Native) -> Written:
    """SeaweedFS."""
    ports = {**{part: free_port() for part in (*PARTS, "s3.port.grpc")}, "s3.port": native.ports["s3"]}
    options = {"ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.port.iceberg": 0, "s3.port.lance": 0, "webdav": "false"}
    words = [f"-{name}={value}" for name, value in {**options, **ports}.items()]
    native.files("s3")
    return Written(native, "s3", wheels.ensure("weed"), *words)


def vault(native: Native) -> Written:
    """OpenBao, and its program on the path of what sets it up."""
    (native.folder / "bin").mkdir()
    (native.folder / "bin/bao").symlink_to(wheels.ensure("bao"))
    return Written(native, "vault", native.folder / "bin/bao")


class Tracker(Written):
    """Bugsink as its image runs it, on a database that was migrated before."""

    def __init__(self, native: Native) -> None:
        bugsink.prepare()
        self.programs = bugsink.HOME / "venv/bin"
        super().__init__(native, "errors", self.programs / "gunicorn", "--threads=4", "bugsink.wsgi")
        self.words.append(f"--bind={self.address}")
        data = native.files("errors")["/data"]
        template = next(bugsink.HOME.glob("venv/lib/*/site-packages/bugsink/conf_templates/docker.py.template"))
        text = re.sub("/tmp/snappea", f"{data}/snappea", native.here(template.read_text(), "errors"))  # noqa: S108 as it is
        (self.home / "bugsink_conf.py").write_text(text)
        for file in ("db.sqlite3", "snappea.sqlite3"):
            shutil.copy(bugsink.HOME / file, data / file)
        self.env |= {"DJANGO_SETTINGS_MODULE": "bugsink_conf", "PYTHONPATH": str(self.home)}
        self.digester: Process | None = None

    def start(self) -> None:
        """Check and prepare it as the image does, then start it and what digests the events."""
        self.manage("check", "--deploy", "--fail-level", "WARNING")
        self.manage("prestart")
        super().start()
        self.digester = Process([self.programs / "bugsink-runsnappea"], log=self.log, cwd=self.home, env=self.env)

    def stop(self) -> None:
        """Stop both."""
        if self.digester:
            self.digester.kill()
        super().stop()

    def manage(self, *arguments: str) -> str:
        """Run a command of its image."""
        return commands.must(self.programs / "bugsink-manage", *arguments, cwd=self.home, env=self.env)


class Balancer(Written):
    """NGINX or HAProxy, with the files of the project and those that the file adds, below `home`."""

    def __init__(self, native: Native) -> None:
        kind = native.services["balancer"]["image"].partition(":")[0]
        super().__init__(native, "balancer", newer.ensure(kind))
        configs = {
            target: str(file) for target, file in native.files("balancer").items() if target.startswith("/local")
        }
        if kind == "haproxy":
            self.words = [configs.get(str(word), word) for word in self.words]
            self.env |= {"LB_HTTP": f"127.0.0.1:{free_port()}", "LB_HTTPS": self.address}
            self.env |= {"LB_RUN": str(self.home), "LB_USER": pwd.getpwuid(os.getuid()).pw_name}
            self.env |= {"LB_GROUP": grp.getgrgid(os.getgid()).gr_name}
            return
        *shell, script = native.words("balancer")
        copy, _, start = script.replace("/etc/nginx", str(self.home)).partition("; ")
        assert start == "exec nginx -g 'daemon off;'"
        local = str(native.folder / "configs/balancer/local")
        commands.must(*shell, copy.replace("/local/", f"{local}/"))
        plain = free_port()
        for file in self.home.rglob("*.conf"):
            text = re.sub(r"\blisten 443\b", f"listen {self.address}", file.read_text())
            text = re.sub(r"\blisten 80\b", f"listen 127.0.0.1:{plain}", text)
            file.write_text(re.sub(r"/var/(cache|log)/nginx", str(self.home), text))
        (self.home / "conf.d/http-paths.conf").write_text(TEMPORARY.format(home=self.home))
        settings = f"daemon off; pid {self.home}/nginx.pid;{' user root;' if os.getuid() == 0 else ''}"
        self.words = [
            newer.ensure("nginx"),
            "-p",
            self.home,
            "-e",
            "stderr",
            "-c",
            self.home / "nginx.conf",
            "-g",
            settings,
        ]
