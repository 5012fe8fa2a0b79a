"""The file of the load balancer that lists the instances: a release changes weights in it, and nothing else."""

import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import gcd
from pathlib import Path

from . import CannotLook

FULL = 100  # the weight of each instance where all that serve have the same
MAX_WEIGHT = 256  # HAProxy's limit
Weights = Mapping[str, int]  # by address


def shares(percent: int, new: Collection[str], old: Collection[str]) -> dict[str, int]:
    """Weights by which the new instances get a percentage of the requests; 0 is none at all."""
    each_new, each_old = percent * len(old or new), (100 - percent) * len(new)
    if not each_new or not each_old:
        each_new, each_old = FULL * bool(percent), FULL * (percent < 100)
    common = gcd(each_new, each_old)
    scale = max(each_new, each_old) / common / MAX_WEIGHT
    each_new, each_old = (weight and max(1, round(weight / common / max(1, scale))) for weight in (each_new, each_old))
    if 0 in (each_new, each_old) or each_new == each_old:
        each_new, each_old = FULL * bool(each_new), FULL * bool(each_old)
    return {**dict.fromkeys(new, each_new), **dict.fromkeys(old, each_old)}


@dataclass(frozen=True)
class Format:
    """How a load balancer writes an instance.

    Args:
        line: A regular expression for its line, with the groups head, address, rest and tail.
        weight: One for what this module writes into `rest`, with the group weight.
        text: What it writes for a weight, as a format.
        none: The same for a weight of 0.
    """

    line: re.Pattern[str]
    weight: re.Pattern[str]
    text: str
    none: str


class PeersFile:
    """The file, and a copy that leads back: to rename it works even if the disk is full."""

    def __init__(self, path: Path, form: Format) -> None:
        self.path = path
        self.form = form
        self.way_back = path.with_name(f".{path.name}.back")

    def read(self) -> str:
        """Its text."""
        try:
            return self.path.read_text()
        except OSError as error:
            raise CannotLook(f"{self.path}: {error.strerror}") from error

    def names(self) -> dict[str, str]:
        """By address, what the load balancer calls an instance."""
        return {each["address"]: each.groupdict().get("name") or each["address"] for each in self._lines()}

    def weights(self) -> dict[str, int]:
        """By address."""
        found = {}
        for each in self._lines():
            written = self.form.weight.search(each["rest"])
            found[each["address"]] = FULL if not written else int(written["weight"] or 0)
        return found

    def text(self, weights: Weights) -> str:
        """Its text with other weights; where all that serve are equal, none is written."""
        even = len(set(weights.values()) - {0}) == 1

        def line(found: re.Match[str]) -> str:
            if found["address"] not in weights:
                return found[0]
            weight = weights[found["address"]]
            added = self.form.none if not weight else "" if even else self.form.text.format(weight)
            return found["head"] + self.form.weight.sub("", found["rest"]).rstrip() + added + found["tail"]

        return self.form.line.sub(line, self.read())

    def write(self, text: str) -> None:
        """Replace it: readers see the old text or the new one, whole."""
        _write(self.path.with_name(f".{self.path.name}.new"), text, like=self.path).replace(self.path)

    def prepare(self, weights: Weights) -> None:
        """Write the way back."""
        _write(self.way_back, self.text(weights), like=self.path)

    def restore(self, weights: Weights) -> None:
        """Take the way back; by renaming what is prepared if nothing can be written."""
        try:
            self.write(self.text(weights))
        except OSError:
            self.way_back.replace(self.path)
        self.forget()

    def forget(self) -> None:
        """Remove the way back."""
        self.way_back.unlink(missing_ok=True)

    def _lines(self) -> list[re.Match[str]]:
        return list(self.form.line.finditer(self.read()))


def _write(path: Path, text: str, like: Path) -> Path:
    try:
        with path.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        shutil.copystat(like, path)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return path
