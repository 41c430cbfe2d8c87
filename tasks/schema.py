"""The shop's tables: plain SQLAlchemy, nothing of Confect's in them.

Shows: `Confect(app, schema=metadata)` gives functions these tables as `db.table("users")`. A key that is a text and
has no default gets a UUIDv7 when a row is inserted. `_scheduled_functions` is not listed here: it is Confect's, in
the same database, so that a row there commits together with a row here.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

__all__ = ["metadata"]

metadata: Final = sa.MetaData()

_TIME: Final = sa.DateTime(timezone=True)
"""Read and written as `DateTime`; in UTC where the database has no zones."""


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.String(36), primary_key=True)


def _user() -> sa.Column[str]:
    return sa.Column("user_id", sa.String(36), sa.ForeignKey("users.id"), nullable=False, index=True)


sa.Table(
    "users",
    metadata,
    _id(),
    sa.Column("email", sa.String(254), nullable=False, unique=True),
    sa.Column("verified", sa.Boolean, nullable=False, default=False),
    sa.Column("time_zone", sa.String(64), nullable=False, default="UTC"),
)
sa.Table(
    "outbox",
    metadata,
    _id(),
    sa.Column("recipient", sa.String(254), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("sent_at", _TIME),
)
sa.Table(
    "trials",
    metadata,
    _id(),
    _user(),
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("end_function_id", sa.String(36)),
)
sa.Table(
    "sessions",
    metadata,
    _id(),
    _user(),
    sa.Column("expires_at", _TIME, nullable=False),
)
sa.Table(
    "payments",
    metadata,
    _id(),
    sa.Column("cents", sa.Integer, nullable=False),
    sa.Column("status", sa.String(10), nullable=False, default="open"),
)
sa.Table(
    "webhook_events",
    metadata,
    # The sender's id: a second delivery of the same event meets the first.
    sa.Column("id", sa.String(100), primary_key=True),
    sa.Column("kind", sa.String(50), nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("processed", sa.Boolean, nullable=False, default=False),
)
sa.Table(
    "tasks",
    metadata,
    _id(),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("priority", sa.String(10)),
    sa.Column("metadata", sa.JSON),
    sa.Column("done", sa.Boolean, nullable=False, default=False),
)
sa.Table(
    "reports",
    metadata,
    _id(),
    sa.Column("report_type", sa.String(20), nullable=False),
    sa.Column("user_id", sa.String(36)),
    sa.Column("due_at", _TIME, nullable=False),
    sa.Column("made_by", sa.String(36)),
)
