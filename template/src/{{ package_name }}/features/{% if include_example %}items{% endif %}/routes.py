"""The routes below `/v1/items`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from . import service
from .schemas import IdempotencyKey, Item, NewItem, Page
from .store import ItemStore, open_store

router = APIRouter(prefix="/v1/items", tags=["items"])

# The transaction ends before the answer is sent: what a client was told is stored.
Store = Annotated[ItemStore, Depends(open_store, scope="function")]


@router.get("")
async def list_items(
    store: Store,
    cursor: Annotated[UUID | None, Query(description="From `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page:
    """List the items, newest first."""
    return await service.page(store, cursor, limit)


@router.post("", status_code=201)
async def create_item(store: Store, new: NewItem, key: IdempotencyKey = None) -> Item:
    """Create an item."""
    return await service.create(store, new, key)


@router.get("/{item_id}")
async def read_item(store: Store, item_id: UUID) -> Item:
    """Read one item."""
    return await service.read(store, item_id)


@router.put("/{item_id}")
async def update_item(store: Store, item_id: UUID, new: NewItem) -> Item:
    """Replace the contents of an item."""
    return await service.replace(store, item_id, new)


@router.delete("/{item_id}", status_code=204)
async def delete_item(store: Store, item_id: UUID) -> None:
    """Delete an item."""
    await service.delete(store, item_id)
