"""A container engine: Docker where it answers, else Debian's buildah and podman, as root.

Where there is no Docker, no registry is asked either: the emitted Dockerfile's images have stand-ins under their names.
Python's is Debian of the same suite with its own Python, as bare as the official one: without bytecode, and with pip.
It is made once, into `.cache/`.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests import commands
from tests.servers import packages
from tests.servers.packages import CACHE
from tests.servers.postgres import docker_answers
from tests.servers.process import Process, free_port

SUITE = "trixie"
PYTHONS = ("3.12", "3.13", "3.14")  # that one may ask for: the stand-in has the suite's
IMAGES = CACHE / "image"
RECIPE = "1"  # another one makes the stand-ins again
DOCKERFILE = Path(__file__).parents[2] / "template" / "Dockerfile.jinja"
CERTIFICATES = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
STOP_SECONDS = 20
# A container may do nothing that the service does not need.
CONFINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host", "--no-healthcheck")
# crun wants cgroups of one version; what buildah, podman and crun keep is in memory, and goes with the namespace.
NAMESPACE = """
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit
for each in /dev/shm /run "$1"; do mount -t tmpfs -o size=6g tmpfs "$each" || exit; done
echo ready
exec sleep infinity
"""
STAND_IN = f"""
FROM scratch
COPY . /
ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SSL_CERT_FILE=/etc/ssl/certs/{CERTIFICATES.name}
CMD ["python3"]
"""


@dataclass
class Container:
    """A container that runs until it is stopped; its output is in `log`."""

    image: "Image"
    name: str
    port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return self.image.engine.do("exec", self.name, *command)

    def stop(self) -> int:
        """Send the signal that the image asks for; the exit code."""
        self.image.engine.do("stop", f"--time={STOP_SECONDS}", self.name)
        return self.process.wait(STOP_SECONDS)


class Engine:
    """Docker."""

    building: tuple[str, ...] = ("docker",)
    build_options: tuple[str, ...] = ("--output=type=docker,rewrite-timestamp=true",)
    running: tuple[str, ...] = ("docker",)
    run_options: tuple[str, ...] = CONFINED

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def within(self, folder: Path) -> list[str]:
        """What precedes a command that runs in a folder."""
        return ["env", "-C", str(folder)]

    def do(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the engine."""
        return commands.run(*self.within(Path("/")), *self.running, *arguments)

    def image(self, name: str) -> "Image":
        """What was built under a name."""
        (found,) = json.loads(self.do("image", "inspect", name).stdout)
        return Image(self, found["Id"], found)


@dataclass(frozen=True)
class Image:
    """An image by its id, and what the engine says of it."""

    engine: Engine
    id: str
    about: dict[str, Any] = field(repr=False)

    @property
    def health(self) -> list[str]:
        """The command that tells its health; podman has it elsewhere than Docker."""
        found: list[str] = (self.about["Config"].get("Healthcheck") or self.about["Healthcheck"])["Test"]
        assert found[0] == "CMD", found
        return found[1:]

    def run(
        self, *command: str, program: str = "", options: Sequence[str] = (), **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end: with another program than the image's, or more options, if they are given."""
        return self.engine.do("run", "--rm", *self._options(program, env), *options, self.id, *command)

    @contextmanager
    def start(self, folder: Path, **env: str) -> Iterator[Container]:
        """Run a container, with its log in `folder`."""
        port, name = free_port(), f"test-{uuid.uuid4().hex[:12]}"
        options = self._options("", {"PORT": str(port), **env})
        command = [*self.engine.within(Path("/")), *self.engine.running, "run", "--rm", f"--name={name}", *options]
        process = Process([*command, self.id], log=folder / "container.log")
        try:
            yield Container(self, name, port, process)
        finally:
            self.engine.do("rm", "--force", "--time=0", name)
            process.stop()

    def _options(self, program: str, env: dict[str, str]) -> list[str]:
        given = [f"--env={name}={value}" for name, value in env.items()]
        return [*self.engine.run_options, *([f"--entrypoint={program}"] if program else []), *given]


class Podman(Engine):
    """buildah and podman. What they make is in a folder of its own, and in nobody else's mounts."""

    def __init__(self) -> None:
        for program in ("buildah", "podman", "crun", "debootstrap"):
            packages.ensure(program, program)
        self._folder = tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True)
        self.home = Path(self._folder.name)
        self._namespace: Process | None = None

    def __enter__(self) -> Self:
        log, store = self.home / "namespace.log", self.home / "store"
        store.mkdir()
        holder = ["unshare", "--mount", "--propagation=private", "sh", "-c", NAMESPACE, "sh", str(store)]
        self._namespace = Process(holder, log=log)
        self._namespace.wait_until(lambda: "ready" in log.read_text(), 10)
        with _alone():
            stand_ins = self._stand_ins()
        self._use(store, f"--storage-opt=overlay.imagestore={stand_ins}")
        return self

    def __exit__(self, *_: object) -> None:
        self.do("rm", "--force", "--time=0", "--all")
        if self._namespace:
            self._namespace.stop()
        self._folder.cleanup()

    def within(self, folder: Path) -> list[str]:
        assert self._namespace
        inside = ["nsenter", f"--mount=/proc/{self._namespace.pid}/ns/mnt"]
        cache = IMAGES / "tmp"  # buildah keeps caches of RUN there
        cache.mkdir(parents=True, exist_ok=True)
        return [*inside, "env", "-C", str(folder), f"TMPDIR={cache}"]

    def _use(self, store: Path, *options: str) -> None:
        """Keep images and containers in a folder."""
        storage = [f"--root={store}", "--runroot=/run/engine", "--storage-driver=overlay", *options]
        self.building = ("buildah", *storage)
        self.build_options = ("--isolation=chroot", "--network=host", "--pull=false", "--format=docker", "--layers")
        self.build_options += ("--timestamp=1700000000",)
        self.running = ("podman", *storage, "--tmpdir=/run/podman", "--runtime=crun", "--cgroup-manager=cgroupfs")
        self.running += ("--events-backend=file",)
        limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")  # root of some machines may not raise them
        self.run_options = (*CONFINED, "--read-only-tmpfs=false", "--cgroups=disabled", *limits)

    def _stand_ins(self) -> Path:
        """The folder with the stand-ins, after making them if need be."""
        text = DOCKERFILE.read_text()
        (python, uv) = (re.findall(rf"^ARG {name}_IMAGE=(.*)$", text, re.M)[0] for name in ("BUILD", "UV"))
        store, made = IMAGES / "store", IMAGES / "made"
        recipe = f"{RECIPE} {SUITE} {python} {uv}"
        if made.exists() and made.read_text() == recipe:
            return store
        self._use(store)
        made.unlink(missing_ok=True)
        for each in (store, IMAGES / "root"):
            shutil.rmtree(each, ignore_errors=True)
        assert python.endswith(f"-{SUITE}"), f"the stand-in is {SUITE}, the Dockerfile asks for {python}"
        root = make_root(IMAGES / "root")
        names = [python.replace("{{ python_version }}", version) for version in PYTHONS]
        self._build(root, STAND_IN, *names)
        shutil.rmtree(root)
        uv_folder = self.home / "uv"
        uv_folder.mkdir()
        shutil.copy2(shutil.which("uv") or "", uv_folder / "uv")
        self._build(uv_folder, "FROM scratch\nCOPY uv /uv\n", uv)
        made.write_text(recipe)
        return store

    def _build(self, folder: Path, dockerfile: str, *names: str) -> None:
        file = self.home / "Dockerfile"
        file.write_text(dockerfile)
        tags = [f"--tag={name}" for name in names]
        commands.must(*self.within(folder), *self.building, "build", "--isolation=chroot", *tags, f"--file={file}", ".")


def make_root(root: Path) -> Path:
    """Make what the official image of Python has: a bare Debian with Python, pip, and no bytecode of it."""
    root.parent.mkdir(parents=True, exist_ok=True)
    wanted = "--include=ca-certificates,netbase,python3,tzdata"
    commands.must("debootstrap", "--variant=minbase", wanted, SUITE, root)
    if CERTIFICATES.exists():
        shutil.copy2(CERTIFICATES, root / "etc/ssl/certs" / CERTIFICATES.name)
    ask = "import sysconfig; print(*map(sysconfig.get_path, ('purelib', 'scripts')))"
    library, scripts = (root / path.lstrip("/") for path in commands.must("chroot", root, "python3", "-c", ask).split())
    commands.must("uv", "pip", "install", "--quiet", f"--target={library}", "pip")
    shutil.copytree(library / "bin", scripts, dirs_exist_ok=True)
    shutil.rmtree(library / "bin")
    for each in [*root.glob("dev/*"), *root.rglob("__pycache__"), *root.glob("var/lib/apt/lists/*")]:
        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    for each in root.glob("var/cache/apt/archives/*.deb"):
        each.unlink()
    return root


@contextmanager
def _alone() -> Iterator[None]:
    """One maker of stand-ins at a time among all test workers of this checkout."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (IMAGES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def open_engine() -> Engine | None:
    """An engine; None where there is none and we are not root."""
    if docker_answers():
        return Engine()
    return Podman() if os.getuid() == 0 else None
