"""Writes the dashboards, and the alerts of the default slo.yaml, into template/observability/.

Usage: python -m scripts.observability
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.observability.dashboards import DASHBOARDS
from tests.projects import ROOT, export, render

FOLDER = Path("template/observability")
NAMES = {"project_slug": "slug-of-nobody", "github_user": "owner-of-nobody"}


def alerts() -> str:
    """The template of alerts.yaml: as it is down to the mark, and below it what the emitted script generates."""
    template_text = (ROOT / FOLDER / "alerts.yaml.jinja").read_text()
    with TemporaryDirectory() as folder:
        template = Path(folder) / "template"
        template.mkdir()
        service = render(export(template), Path(folder) / "service", **NAMES)
        subprocess.run([sys.executable, "scripts/alerts.py"], cwd=service, check=True)
        generated = (service / "observability/alerts.yaml").read_text()
    for name, text in NAMES.items():
        generated = generated.replace(text, f"{{{{ {name} }}}}")
    mark = next(line for line in template_text.splitlines(keepends=True) if line.startswith("  # --- below"))
    return template_text.partition(mark)[0] + mark + generated.partition(mark)[2]


def pages() -> dict[Path, str]:
    """Each generated file with its text."""
    found = {FOLDER / "dashboards" / f"{each.name}.json.jinja": each.template() for each in DASHBOARDS}
    return {**found, FOLDER / "alerts.yaml.jinja": alerts()}


if __name__ == "__main__":
    for file, text in pages().items():
        (ROOT / file).write_text(text)
        print(f"wrote {file}")
