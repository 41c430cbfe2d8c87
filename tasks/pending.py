"""What is going to happen: the pending functions, page by page.

Shows: `_scheduled_functions` as a table like any other, in a query of the shop's own. Sorted by due time, a page at a
time: a shop may have millions of these.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from confect_celery import DatabaseReader, DateTime
from tasks.app import confect

__all__ = ["Listing", "PendingFunction", "PendingPage", "list_pending"]

pending = confect.group("pending")


class Listing(BaseModel):
    """Which page; `cursor` is what the page before it gave."""

    size: int = Field(default=20, ge=1, le=100)
    cursor: str | None = None


class PendingFunction(BaseModel):
    """What one line of the listing says."""

    id: str
    name: str
    scheduled_time: DateTime
    args: dict[str, Any]


class PendingPage(BaseModel):
    """One page; `cursor` is None on the last."""

    functions: list[PendingFunction]
    cursor: str | None


@pending.internal_query
def list_pending(args: Listing, db: DatabaseReader) -> PendingPage:
    """One page of pending functions, the next due first. Internal, since arguments are nobody else's business."""
    page = (
        db.table("_scheduled_functions")
        .filter(lambda q: q.eq(q.field("state.kind"), "pending"))
        .order("asc", by="scheduled_time")
        .paginate(args.size, args.cursor)
    )
    functions = [
        PendingFunction(id=row.id, name=row.name, scheduled_time=row.scheduled_time, args=row.args)
        for row in page.items
    ]
    return PendingPage(functions=functions, cursor=page.cursor)
