"""What the dispatcher does: it finds the rows that are due, hands them over, and takes back what was not sent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.store.dialects.base import Dialect
from confect_celery.store.row import Delivery, StateKind
from confect_celery.store.statements.holding import HELD, HELD_FOR, IN_DOUBT
from confect_celery.store.statements.running import Running
from confect_celery.store.statements.terms import one, state_is
from confect_celery.timing import DateTime, Duration

__all__ = ["Dispatching"]

logger = logging.getLogger(__name__)

_DOUBLINGS: Final = 6

_SURE: Final = Duration.seconds(1)
"""Each process measures the time for itself: what is older by so much is surely older."""

_RAW: Final = 4_000
"""How many characters of an unreadable column are kept."""


class Dispatching(Running):
    """Rows on their way to the broker; those that can go to nobody fail here, as they would at the gate."""

    def __init__(self, table: sa.Table, dialect: Dialect) -> None:
        super().__init__(table, dialect)
        c, now, then = self._c, self._now, self._then
        ahead = sa.bindparam("ahead", type_=c.next_at.type)
        due = sa.and_(
            c.next_at <= ahead,
            state_is(c.state, StateKind.PENDING),
            # Only a row that was not handed over yet is taken ahead of its time.
            sa.or_(c.deliveries == 0, c.next_at <= now),
        )
        self._oldest_due: sa.Select[Any] = sa.select(c.next_at).where(due).order_by(c.next_at).limit(1)
        self._pick_due: sa.Select[Any] = (
            sa.select(*self._delivery)
            .where(due)
            .order_by(c.next_at, c.id)
            .limit(self._batch)
            .with_for_update(skip_locked=True)
        )
        # Four texts each, not one with an OR: only a plain bound is where a scan of the index may begin.
        later = c.next_at >= sa.bindparam("since", type_=c.next_at.type)
        others = sa.not_(dialect.among(c.name, "but", c.name.type))
        self._oldest_due_since, self._pick_due_since = self._oldest_due.where(later), self._pick_due.where(later)
        self._oldest_of_others, self._pick_others = self._oldest_due.where(others), self._pick_due.where(others)
        self._oldest_of_others_since = self._oldest_due_since.where(others)
        self._pick_others_since = self._pick_due_since.where(others)
        waits = [sa.bindparam(f"lost_at_{n}", type_=c.next_at.type) for n in range(_DOUBLINGS + 1)]
        doubled = sa.case({HELD: waits[0], **dict(enumerate(waits[:-1]))}, value=c.deliveries, else_=waits[-1])
        handed = sa.case((c.deliveries == HELD, 1), else_=c.deliveries + 1)
        self._hand_over = self._transition("hand_over", self._picked, {"next_at": doubled, "deliveries": handed})
        held = sa.and_(self._picked, c.deliveries < 0)
        self._doubt = self._transition("doubt", held, {"next_at": then, "deliveries": IN_DOUBT})
        # What cannot be read is kept in the error, as text, so that the row can be listed again.
        condemned = {**self._done, "error": self._failure, "args": {}, "options": {}}
        self._condemn = self._transition("fail_pending", self._row, condemned)
        self._raw = sa.select(sa.cast(c.args, sa.Text), sa.cast(c.options, sa.Text)).where(self._row)
        self._take_back = self._transition(
            "hand_over",
            sa.and_(self._row, self._attempt),
            {"next_at": then, "deliveries": sa.bindparam("delivered")},
        )

    def oldest_due(
        self,
        connection: sa.Connection,
        *,
        now: DateTime,
        ahead: DateTime,
        since: DateTime | None = None,
        but: Sequence[str] = (),
    ) -> DateTime | None:
        """As of when the first row that `claim_due` would find waits; None where it would find none.

        It takes no lock, on SQLite not even the wait for the writer. Rows whose `next_at` is before `since` are not
        looked at: while somebody holds an old snapshot open, PostgreSQL cannot clear away the index entries of rows
        that were due once, and a look without a bound passes over all of them. Nothing keeps a transaction from
        committing a row before any bound, so now and then a look must do without (`runtime.floor`). `but` are names of
        functions and tasks whose rows are passed over, one by one.
        """
        bounds = {"now": now, "ahead": ahead, "since": since, "but": list(but)}
        texts = self._oldest_due, self._oldest_due_since, self._oldest_of_others, self._oldest_of_others_since
        found: DateTime | None = connection.execute(texts[_which(since, but)], bounds).scalar()
        return found

    def claim_due(
        self,
        connection: sa.Connection,
        *,
        now: DateTime,
        ahead: DateTime,
        redelivery: Duration,
        batch: int,
        since: DateTime | None = None,
        but: Sequence[str] = (),
    ) -> list[Delivery]:
        """pending → pending, handed over: up to `batch` rows due until `ahead`, and those whose message should have
        arrived by `now` but did not. Rows that another dispatcher is taking are skipped, and those before `since`, or
        with one of the names in `but`, as `oldest_due` does it.

        A message counts as lost `redelivery` after `ahead`, and twice as long each time it is lost again.
        """
        bounds = {"now": now, "ahead": ahead, "batch": batch, "since": since, "but": list(but)}
        texts = self._pick_due, self._pick_due_since, self._pick_others, self._pick_others_since
        pick = texts[_which(since, but)]
        try:
            rows: Sequence[Any] = connection.execute(pick, bounds).all()
        except ValueError:  # one of them cannot be read: the others must not wait for it
            ids = connection.scalars(pick.with_only_columns(self._c.id), bounds).all()
            rows = [row for id in ids if (row := self._readable(connection, id, now)) is not None]
        if any(row.deliveries < 0 for row in rows):
            rows = self._sort_out_held(connection, rows, now)
        if not rows:
            return []
        waits = {f"lost_at_{n}": ahead + redelivery * 2**n for n in range(_DOUBLINGS + 1)}
        taken = connection.execute(self._hand_over, {"rows": [row.id for row in rows], **waits}).rowcount
        if taken != len(rows):
            raise AssertionError(f"{len(rows)} rows were locked but {taken} changed")
        return [Delivery(*row) for row in rows]

    def _sort_out_held(self, connection: sa.Connection, rows: Sequence[Any], now: DateTime) -> Sequence[Any]:
        """Of rows that were held too long: those that have not begun, as far as the table tells, may be taken.

        A begin is committed, but not flushed: a database that has failed since may have forgotten it. Who holds the row
        may only have waited for the database, and has some time more to begin it, or to give it back. Then the row
        fails, for it may have begun.
        """
        since = self._dialect.kept_all_since(connection)
        safe: list[Any] = []
        doubtful: list[str] = []
        for row in rows:
            if row.deliveries >= 0:
                safe.append(row)
                continue
            if row.deliveries == HELD:
                kept = since is not None and row.next_at - HELD_FOR > since + _SURE
                safe += [row] * kept
                doubtful += [row.id] * (not kept)
                continue
            message = "Its worker was lost, and the database failed since: it may have begun."
            failure = {"tag": "WorkerLost", "message": message}
            self.fail_pending(connection, row.id, row.attempt, now, failure)
            logger.error("The row %s is failed: %s", row.id, message)
        if doubtful:
            connection.execute(self._doubt, {"rows": doubtful, "then": now + HELD_FOR})
        return safe

    def _readable(self, connection: sa.Connection, id: str, now: DateTime) -> Any:
        """pending → failed where somebody wrote what is not JSON, or no time."""
        try:
            return connection.execute(sa.select(*self._delivery).where(self._c.id == id)).one()
        except ValueError as unreadable:
            args, options = connection.execute(self._raw, {"row": id}).one()
            message = f"Its row cannot be read: {unreadable}. Somebody wrote it by hand."
            data = {"args": str(args)[:_RAW], "options": str(options)[:_RAW]}
            failure = {"tag": "Unreadable", "message": message, "data": data}
            one(connection.execute(self._condemn, {"row": id, "now": now, "failure": failure}))
            logger.error("The row %s is failed: %s", id, message)
            return None

    def take_back(
        self, connection: sa.Connection, id: str, attempt: int, due: DateTime, *, delivered: bool = False
    ) -> bool:
        """pending → pending, not handed over after all: the broker did not take the message. `delivered`: it did, but
        who had it cannot run it; the next one is for this row alone."""
        parameters = {"row": id, "at_attempt": attempt, "then": due, "delivered": int(delivered)}
        return one(self._quickly(connection, self._take_back, parameters))


def _which(since: DateTime | None, but: Sequence[str]) -> int:
    """Of four texts: with a bound or not, with names that are passed over or not."""
    return (since is not None) + 2 * bool(but)
