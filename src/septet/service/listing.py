"""Pages of the store as answers."""

from __future__ import annotations

from typing import TypeVar, cast

from septet.service import validation
from septet.service.context import Context
from septet.service.results import Listing

Object = TypeVar("Object")
PAGE_MOST = 1000


async def page_of(
    context: Context, kind: type[Object], namespace: str | None, labels: dict[str, str], limit: int, cursor: str
) -> Listing[Object]:
    """One page; InvalidInput for a limit out of range, and what the store says of the cursor."""
    validation.number("limit", limit, 1, PAGE_MOST)
    page = await context.ports.store.page(kind.__name__, namespace, labels=labels or None, limit=limit, cursor=cursor)
    items = tuple(cast("Object", obj) for obj in page.items)
    return Listing(items=items, cursor=page.cursor, version=page.version)
