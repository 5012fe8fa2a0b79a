"""The request and response bodies."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


# In JSON 3.0 is the integer 3; but true is not 1, and "3" is not a number.
NUMBER = BeforeValidator(_number)

# PostgreSQL rejects NUL in a text.
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="A retry with the same key returns the first result and creates nothing.",
        pattern=r"^[\x21-\x7e]{1,255}$",
    ),
]


class NewItem(BaseModel):
    """The fields of an item that clients set."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Text, Field(min_length=1, max_length=100)]
    note: Annotated[Text | None, Field(max_length=1000)] = None
    quantity: Annotated[int, Field(ge=0, le=2_147_483_647), NUMBER] = 0


class Item(NewItem):
    """An item as it is stored."""

    id: UUID
    created_at: datetime
    updated_at: datetime


class Page(BaseModel):
    """A page of items, newest first."""

    items: list[Item]
    next: Annotated[UUID | None, Field(description="The `cursor` of the next page; null on the last one.")]
