"""Archives of images, as `docker save` writes them: names one, and makes one of a program."""

import hashlib
import io
import json
import tarfile
from pathlib import Path


def of_program(program: Path, name: str, file: Path) -> Path:
    """Write an image that holds a static program and starts it.

    Args:
        program: The program.
        name: Of the image, with its tag.
        file: Where it goes.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as inside:
        _add(inside, program.name, program.read_bytes(), 0o755)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    names = f"{hashlib.sha256(config).hexdigest()}.json", f"{digest}.tar"
    manifest = json.dumps([{"Config": names[0], "RepoTags": [name], "Layers": [names[1]]}]).encode()
    with tarfile.open(file, "w") as made:
        for each, data in ((names[0], config), (names[1], layer.getvalue()), ("manifest.json", manifest)):
            _add(made, each, data)
    return file


def names_in(file: Path) -> list[str]:
    """The names of the images in an archive, with their tags."""
    with tarfile.open(file) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest
        images = json.load(manifest)
    return [str(name) for image in images for name in image["RepoTags"]]


def _add(to: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    to.addfile(entry, io.BytesIO(data))
