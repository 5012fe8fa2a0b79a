"""The cases, one module each: found, so that an area adds a case without a list to edit."""

import importlib
import pkgutil

from bench.harness import Case


def find() -> dict[str, Case]:
    """Every `CASE` below this package, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    cases = [importlib.import_module(f"{__name__}.{name}").CASE for name in names]
    return {case.name: case for case in cases}
