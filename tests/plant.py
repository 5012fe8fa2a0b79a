"""What tests add to an emitted project as its user would: a feature, a revision."""

from dataclasses import dataclass
from pathlib import Path

from tests.sabotage import package

REVISION = '''"""A later one."""

import sqlalchemy as sa
from alembic import context, op

revision = "{name}"
down_revision = {after}
branch_labels = {label}
depends_on = None


def upgrade() -> None:
    {body}


def downgrade() -> None:
    pass
'''


@dataclass(frozen=True)
class Feature:
    """A feature with one module.

    Args:
        name: Of its folder below `features/`.
        routes: The source of its `routes.py`.
    """

    name: str
    routes: str

    def apply(self, root: Path) -> None:
        """Add it to the project in `root`."""
        folder = package(root) / "features" / self.name
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (folder / "routes.py").write_text(self.routes)


@dataclass(frozen=True)
class Revision:
    """A migration of the service's own.

    Args:
        body: The statements of its `upgrade`, indented as one likes; `sa`, `op` and `context` are imported.
        name: Of the revision, and of its file before the underscore.
        after: The revision before it; None where it begins the service's branch.
        title: The rest of the file's name.
    """

    body: str
    name: str = "0002"
    after: str | None = "0001"
    title: str = "later"

    @property
    def file(self) -> str:
        """Where it goes, relative to the project."""
        return f"migrations/versions/{self.name}_{self.title}.py"

    def apply(self, root: Path) -> None:
        """Add it to the project in `root`, or change the one of that name."""
        after, label = (f'"{self.after}"', "None") if self.after else ("None", '"service"')
        body = "\n    ".join(self.body.strip("\n").split("\n"))
        file = root / self.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(REVISION.format(name=self.name, after=after, label=label, body=body))
