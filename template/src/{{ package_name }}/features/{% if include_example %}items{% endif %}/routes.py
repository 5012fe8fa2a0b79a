"""The routes below `/v1/items`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from ...platform.http_cache.policy import HttpPolicy, IfMatch, Invalidates, require_match
from . import service
from .schemas import IdempotencyKey, Item, NewItem, Page
from .store import ItemStore, open_store

router = APIRouter(prefix="/v1/items", tags=["items"])

Store = Annotated[ItemStore, Depends(open_store)]
# Clients and CDNs store responses and revalidate them each time: never stale, and cheap if nothing has changed. With
# `s_maxage=60` a CDN would respond without revalidation; writes purge it by tag.
cached = HttpPolicy(tags=("items",))
changes = Invalidates("items")


@router.get("")
@cached
async def list_items(
    store: Store,
    cursor: Annotated[UUID | None, Query(description="The value of `next` on the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page:
    """List the items, newest first."""
    return await service.page(store, cursor, limit)


@router.post("", status_code=201)
@changes
async def create_item(store: Store, new: NewItem, key: IdempotencyKey = None) -> Item:
    """Create an item."""
    return await service.create(store, new, key)


@router.get("/{item_id}")
@cached
async def read_item(store: Store, item_id: UUID) -> Item:
    """Read one item."""
    return await service.read(store, item_id)


@router.put("/{item_id}")
@changes
async def update_item(store: Store, item_id: UUID, new: NewItem, if_match: IfMatch) -> Item:
    """Replace the contents of an item."""
    if if_match:
        require_match(if_match, await service.get_for_update(store, item_id))
    return await service.replace(store, item_id, new)


@router.delete("/{item_id}", status_code=204)
@changes
async def delete_item(store: Store, item_id: UUID, if_match: IfMatch) -> None:
    """Delete an item."""
    if if_match:
        require_match(if_match, await service.get_for_update(store, item_id))
    await service.delete(store, item_id)
