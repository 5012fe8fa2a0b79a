"""The operations on items; uses neither HTTP nor SQL."""

import secrets
import time
from uuid import UUID

from ...platform.state import Json
from .errors import ItemNotFound
from .schemas import Item, NewItem, Page
from .store import ItemStore


def new_id() -> UUID:
    """Create an id that sorts by time, for pages and indexes (UUID version 7, RFC 9562 section 5.7)."""
    stamp = time.time_ns() // 1_000_000
    number = (stamp << 80) | secrets.randbits(80)
    number = number & ~(0xF << 76) | (0x7 << 76)
    return UUID(int=number & ~(0x3 << 62) | (0x2 << 62))


async def page(store: ItemStore, cursor: UUID | None, limit: int) -> Page:
    """Return a page of the items after `cursor`, newest first."""
    found = await store.before(cursor, limit + 1)
    items = found[:limit]
    return Page(items=items, next=items[-1].id if len(found) > limit else None)


async def create(store: ItemStore, new: NewItem, key: str | None) -> Item:
    """Create an item; with a key at most once."""
    if key is None:
        return await store.add(new_id(), new)

    async def make() -> Json:
        return (await store.add(new_id(), new)).model_dump(mode="json")

    return Item.model_validate(await store.once(key, new.model_dump(mode="json"), make))


async def read(store: ItemStore, item_id: UUID) -> Item:
    """Return one item.

    Raises:
        ItemNotFound: There is no such item.
    """
    if item := await store.cached(item_id):
        return item
    raise ItemNotFound(item_id)


async def get_for_update(store: ItemStore, item_id: UUID) -> Item:
    """Return one item as it is stored now, locked until this transaction ends.

    Raises:
        ItemNotFound: There is no such item.
    """
    if item := await store.get_for_update(item_id):
        return item
    raise ItemNotFound(item_id)


async def replace(store: ItemStore, item_id: UUID, new: NewItem) -> Item:
    """Replace the contents of an item.

    Raises:
        ItemNotFound: There is no such item.
    """
    if item := await store.put(item_id, new):
        return item
    raise ItemNotFound(item_id)


async def delete(store: ItemStore, item_id: UUID) -> None:
    """Delete an item.

    Raises:
        ItemNotFound: There is no such item.
    """
    if not await store.remove(item_id):
        raise ItemNotFound(item_id)
