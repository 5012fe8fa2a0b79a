"""The errors of items."""

from uuid import UUID

from ...platform.problems import NotFound


class ItemNotFound(NotFound):
    """There is no item with that id."""

    code = "item-not-found"

    def __init__(self, item_id: UUID) -> None:
        super().__init__(f"There is no item {item_id}.")
