"""Every statement there is on `_scheduled_functions`, by really calling it, on rows of a tall table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from confect_celery.store import EncodedCall, NewRow, Pending, StateKind, Statistics, Store, new_id
from confect_celery.store.ids import first_id_at
from confect_celery.timing import DateTime, Duration
from tests.store.tall import Stage, fill, id_of, stages
from tests.support.databases import Databases

__all__ = ["Call", "Tall", "calls", "open_tall"]

BATCH: Final = 500
MOST: Final = 10_000
WEEK: Final = Duration.days(7)
FAILURE: Final = {"tag": "Boom", "message": "no"}


@dataclass(frozen=True)
class Tall:
    """The table and what is in it."""

    store: Store
    stages: dict[str, Stage]
    now: DateTime

    def id(self, stage: str, n: int = 7) -> str:
        """The `n`th row of a stage."""
        return id_of(self.stages[stage], n, self.now)

    def ids(self, stage: str, count: int) -> list[str]:
        """The first rows of a stage."""
        return [self.id(stage, n) for n in range(1, count + 1)]


@contextmanager
def open_tall(databases: Databases, kind: str, directory: Path, rows: int) -> Iterator[Tall]:
    """A table of so many rows in a database of its own."""
    with databases.url(kind, directory) as url:
        store = Store(url)
        try:
            store.migrate()
            tall = Tall(store, stages(rows), DateTime.now())
            fill(store, tall.stages, tall.now)
            yield tall
        finally:
            store.database.dispose()


@dataclass(frozen=True)
class Call:
    """One call; it may look at `rows` rows of the table and no more."""

    name: str
    rows: int
    run: Callable[[Tall, sa.Connection], Any]
    found: Callable[[Any], bool] = bool
    """Whether it found what it was to find: a statement that finds nothing costs nothing."""
    made: Callable[[Tall], bool] = lambda _: True
    """Whether this database is ever asked it."""


def _one(name: str, stage: str, *more: Any, attempt: int | None = None, **named: Any) -> Call:
    def run(tall: Tall, connection: sa.Connection) -> Any:
        given = () if attempt is None else (attempt,)
        times = [tall.now + each if isinstance(each, Duration) else each for each in more]
        return getattr(tall.store.rows, name)(connection, tall.id(stage), *given, *times, **named)

    return Call(f"{name} a {stage} row", 1, run)


def _insert(count: int, born: StateKind = StateKind.PENDING) -> Call:
    def run(tall: Tall, connection: sa.Connection) -> bool:
        now = tall.now
        rows = [NewRow(new_id(now), "internal/shop/f", "mutation", {}, now, now, now) for _ in range(count)]
        tall.store.rows.insert(connection, rows, delivered_until={}, born=born)
        return True

    return Call(f"insert {count} {born.value}", count, run)


def _prune(name: str, after: Callable[[Tall], str], *, retention: Duration = WEEK) -> Call:
    def run(tall: Tall, connection: sa.Connection) -> Any:
        oldest = tall.now - retention
        return tall.store.rows.prune(connection, after=after(tall), now=tall.now, oldest=oldest, batch=BATCH)

    return Call(f"prune {name}", 2 * BATCH, run, lambda found: found is not None)


def _figure(name: str, *arguments: Callable[[Tall], Any], found: Callable[[Any], bool] = bool) -> Call:
    def run(tall: Tall, connection: sa.Connection) -> Any:
        figures = Statistics(tall.store.table, most=MOST)
        return getattr(figures, name)(connection, *(make(tall) for make in arguments))

    return Call(f"statistics {name}", MOST, run, found)


_FULL: Final = ["internal/shop/function_0", "internal/shop/function_1"]
"""Two of twenty names."""


def _claim(tall: Tall, connection: sa.Connection) -> Any:
    ahead, redelivery = tall.now + Duration.seconds(2), Duration.seconds(30)
    return tall.store.rows.claim_due(connection, now=tall.now, ahead=ahead, redelivery=redelivery, batch=BATCH)


def _oldest(tall: Tall, connection: sa.Connection) -> Any:
    return tall.store.rows.oldest_due(connection, now=tall.now, ahead=tall.now + Duration.seconds(2))


def _since(tall: Tall) -> DateTime:
    return tall.now - Duration.seconds(30)


def _claim_since(tall: Tall, connection: sa.Connection) -> Any:
    ahead, redelivery = tall.now + Duration.seconds(2), Duration.seconds(30)
    return tall.store.rows.claim_due(
        connection, now=tall.now, ahead=ahead, redelivery=redelivery, batch=BATCH, since=_since(tall)
    )


def _oldest_since(tall: Tall, connection: sa.Connection) -> Any:
    ahead = tall.now + Duration.seconds(2)
    return tall.store.rows.oldest_due(connection, now=tall.now, ahead=ahead, since=_since(tall))


def _claim_others(tall: Tall, connection: sa.Connection) -> Any:
    ahead, redelivery = tall.now + Duration.seconds(2), Duration.seconds(30)
    return tall.store.rows.claim_due(
        connection, now=tall.now, ahead=ahead, redelivery=redelivery, batch=BATCH, but=_FULL
    )


def _oldest_of_others(tall: Tall, connection: sa.Connection) -> Any:
    return tall.store.rows.oldest_due(connection, now=tall.now, ahead=tall.now + Duration.seconds(2), but=_FULL)


def _claim_others_since(tall: Tall, connection: sa.Connection) -> Any:
    ahead, redelivery = tall.now + Duration.seconds(2), Duration.seconds(30)
    return tall.store.rows.claim_due(
        connection, now=tall.now, ahead=ahead, redelivery=redelivery, batch=BATCH, since=_since(tall), but=_FULL
    )


def _nothing_due(tall: Tall, connection: sa.Connection) -> Any:
    long_ago = tall.now - Duration.days(1)
    return tall.store.rows.oldest_due(connection, now=long_ago, ahead=long_ago + Duration.seconds(2))


def _pending(tall: Tall, connection: sa.Connection, count: int) -> list[Pending]:
    return list(tall.store.rows.load_many(connection, tall.ids("due", count)).values())


def _together(name: str, run: Callable[[Tall, sa.Connection, list[Pending]], set[str]]) -> Call:
    """What only a database is asked where mutations share a transaction, of sixteen rows that were read before."""
    return Call(
        name,
        32,
        lambda tall, c: run(tall, c, _pending(tall, c, 16)),
        lambda found: len(found) == 16,
        lambda tall: tall.store.database.dialect.shares,
    )


def _held(tall: Tall, connection: sa.Connection, count: int) -> list[Pending]:
    rows, until = _pending(tall, connection, count), tall.now - Duration.days(40)
    assert len(tall.store.rows.hold(connection, rows, until)) == count
    return rows


def _holding(name: str, rows: int, run: Callable[[Tall, sa.Connection], Any], found: Callable[[Any], bool]) -> Call:
    """What only a database is asked that can have a commit do without the disk."""
    return Call(name, rows, run, found, lambda tall: tall.store.database.dialect.holds)


def _begin(tall: Tall, connection: sa.Connection) -> bool:
    (row,) = _held(tall, connection, 1)
    return tall.store.rows.begin(connection, row.id, 1, tall.now + Duration.seconds(30))


def _succeed_and_begin(tall: Tall, connection: sa.Connection) -> tuple[bool, bool]:
    (row,) = _held(tall, connection, 1)
    lease = tall.now + Duration.seconds(30)
    return tall.store.rows.succeed_and_begin(connection, tall.id("running"), 1, tall.now, row.id, 1, lease)


def _held_until(tall: Tall, connection: sa.Connection) -> set[str]:
    return tall.store.rows.held(connection, _held(tall, connection, 16), tall.now - Duration.days(40))


def _release(tall: Tall, connection: sa.Connection) -> int:
    ids = [row.id for row in _held(tall, connection, 16)]
    return tall.store.rows.release(connection, ids, 1, tall.now)


def _sort_out(tall: Tall, connection: sa.Connection) -> list[Any]:
    """Nobody can tell of them, and each is in doubt at first, and failed then."""
    _held(tall, connection, 16)
    found = [_claim_batch(tall, connection, 16)]
    connection.execute(
        sa.update(tall.store.table)
        .where(tall.store.table.c.id.in_(tall.ids("due", 16)))
        .values(next_at=tall.now - Duration.days(40))
    )
    return [*found, _claim_batch(tall, connection, 16)]


def _claim_batch(tall: Tall, connection: sa.Connection, batch: int) -> list[Any]:
    ahead, redelivery = tall.now + Duration.seconds(2), Duration.seconds(30)
    return tall.store.rows.claim_due(connection, now=tall.now, ahead=ahead, redelivery=redelivery, batch=batch)


def calls() -> list[Call]:
    """All of them; `tests.store.test_plans` holds that no method is missing."""
    minute, call = Duration.minutes(1), EncodedCall("internal/shop/f", "task", {}, {})
    rows: Callable[[Tall], Any] = lambda tall: tall.store.rows  # noqa: E731
    later = Duration.seconds(30)
    return [
        # the scheduler
        _insert(1),
        _insert(100),
        _insert(1, StateKind.CANCELED),
        *(_one("get", stage) for stage in ("ended", "foreign", "far", "running")),
        *(_one("cancel", stage, Duration.zero) for stage in ("far", "due", "running")),
        _one("reschedule", "far", minute, minute, None),
        _one("reschedule", "due", minute, minute, minute),
        _one("state", "running"),
        # the dispatcher
        Call("oldest_due", 1, _oldest),
        Call("oldest_due where nothing is", 0, _nothing_due, lambda found: found is None),
        # Where little more than a batch is due, it is cheaper to read and sort it all.
        Call("claim_due", 5 * BATCH, _claim, lambda found: len(found) == BATCH),
        Call("oldest_due since", 1, _oldest_since),
        Call("claim_due since", 5 * BATCH, _claim_since, lambda found: len(found) == BATCH),
        Call("oldest_due of others", 3, _oldest_of_others),
        Call("claim_due of others", 6 * BATCH, _claim_others, lambda found: len(found) == BATCH),
        Call("claim_due of others since", 6 * BATCH, _claim_others_since, lambda found: len(found) == BATCH),
        _one("take_back", "due", minute, attempt=0),
        Call("upcoming", BATCH, lambda tall, c: rows(tall).upcoming(c, None, BATCH)),
        Call(
            "upcoming after",
            BATCH,
            lambda tall, c: rows(tall).upcoming(c, (tall.now + Duration.days(300), tall.id("far")), BATCH),
        ),
        # the gate
        _one("load", "due", attempt=0),
        _one("load_locked", "due", attempt=0),
        _one("lock", "due", attempt=0),
        _one("lock", "due", attempt=0, relaxed=True),
        _one("lock", "due", attempt=0, savepoint="confect_1"),
        Call("count_pending", 100, lambda tall, c: rows(tall).count_pending(c, tall.ids("due", 100))),
        Call("load_many", 200, lambda tall, c: rows(tall).load_many(c, tall.ids("due", 100) + tall.ids("ended", 100))),
        _one("start", "due", later, attempt=0),
        Call(
            "start_due",
            1,
            lambda tall, c: rows(tall).start_due(
                c, tall.id("due"), 0, "internal/shop/function_7", tall.now, tall.now + later
            ),
            made=lambda tall: tall.store.database.dialect.update_returning,
        ),
        Call(
            "succeed_and_start",
            2,
            lambda tall, c: rows(tall).succeed_and_start(
                c, tall.id("running"), 1, tall.now, tall.id("due"), 0, tall.now + later
            ),
            lambda found: found == (True, True),
        ),
        _together("lock_together", lambda tall, c, given: rows(tall).lock_together(c, given)),
        _together("lock_together relaxed", lambda tall, c, given: rows(tall).lock_together(c, given, relaxed=True)),
        Call("warm_up", 0, lambda tall, c: rows(tall).warm_up(c), lambda found: found is None),
        _one("succeed_pending", "due", Duration.zero, attempt=0),
        _together("succeed_together", lambda tall, c, given: rows(tall).succeed_together(c, given, tall.now)),
        _one("fail_pending", "due", Duration.zero, FAILURE, attempt=0),
        _one("succeed_running", "running", Duration.zero, attempt=1),
        _one("fail_running", "running", Duration.zero, FAILURE, attempt=1),
        _one("postpone", "due", minute, attempt=0),
        _one("retry", "running", call, minute, None, attempt=1),
        # what a batch holds
        _holding("hold", 32, lambda tall, c: _held(tall, c, 16), lambda found: len(found) == 16),
        _holding("held", 48, _held_until, lambda found: len(found) == 16),
        _holding("begin", 2, _begin, bool),
        _holding("succeed_and_begin", 3, _succeed_and_begin, lambda found: found == (True, True)),
        _holding("release", 48, _release, lambda found: found == 16),
        _holding("claim_due of what was held too long", 5 * 16 + 48, _sort_out, lambda found: found == [[], []]),
        # the reconciler
        _one("lose", "due", minute, attempt=0),
        _one("requeue", "running", minute, attempt=1),
        Call("live", 200, lambda tall, c: rows(tall).live(c, tall.ids("far", 100) + tall.ids("ended", 100))),
        Call(
            "renew",
            100,
            lambda tall, c: rows(tall).renew(c, tall.ids("running", 100), tall.now + later),
            lambda _: True,
        ),
        Call("any_dead", 1, lambda tall, c: rows(tall).any_dead(c, tall.now)),
        Call(
            "any_dead where nothing is",
            0,
            lambda tall, c: rows(tall).any_dead(c, tall.now - Duration.days(1)),
            lambda found: found is False,
        ),
        Call("dead", 100, lambda tall, c: rows(tall).dead(c, tall.now, 100), lambda found: len(found) == 100),
        Call("bury", 100, lambda tall, c: rows(tall).bury(c, tall.ids("dead", 100), tall.now, FAILURE)),
        # pruning, wherever the walk stands
        _prune("from the start", lambda _: ""),
        _prune("in the middle", lambda tall: first_id_at(tall.now - Duration.hours(180))),
        _prune("at its end", lambda tall: first_id_at(tall.now - Duration.days(7) - Duration.seconds(2))),
        _prune("ids of Celery's", lambda tall: first_id_at(tall.now + Duration.days(2))),
        _prune("where all is young", lambda _: "", retention=Duration.days(50)),
        # the figures
        _figure("live"),
        _figure("names"),
        _figure("recent", lambda tall: tall.now - Duration.days(1)),
        _figure("due", lambda tall: tall.now, lambda _: 60),
        _figure("forecast", lambda tall: tall.now, lambda _: Duration.days(1)),
        _figure("backlog", lambda tall: tall.now),
        _figure("waiting", lambda tall: tall.now, lambda _: Duration.hours(1)),
        _figure("lags", lambda tall: tall.now - Duration.days(1)),
        _figure("failures", lambda tall: tall.now - Duration.days(1), found=lambda _: True),
    ]
