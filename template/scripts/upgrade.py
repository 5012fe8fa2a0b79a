"""Moves `exclude-newer` in uv.toml to a week ago: most hijacked packages are found within a week.

It imports no dependency and runs before uv resolves any, because with an old date there may be no version to resolve.
"""

import datetime
import re
from pathlib import Path

FILE = Path(__file__).parent.parent / "uv.toml"
LINE = re.compile(r'^exclude-newer = "(\d{4}-\d{2}-\d{2})', re.M)
# What the bounds in pyproject.toml need: the date with which this version of the template was tested.
TESTED = "2026-11-23"


def main() -> None:
    """Never move the date back: the versions that the service was tested with must stay available."""
    week_ago = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=7)).date().isoformat()
    text = FILE.read_text()
    FILE.write_text(LINE.sub(lambda found: f'exclude-newer = "{max(found[1], week_ago, TESTED)}', text))


if __name__ == "__main__":
    main()
