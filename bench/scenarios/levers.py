"""What each way to be fast gives by itself: the same work with it and without, on PostgreSQL as durable as it comes.

No worker runs: what is called is what workers, dispatchers and schedulers call, or what they would call without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Final

import sqlalchemy as sa

from bench import fill
from bench.contenders import Shop
from bench.report import Goal, percentile
from bench.run import Run, Stopwatch
from confect_celery import DateTime, Duration
from confect_celery.runtime.batches import BatchTransport
from confect_celery.runtime.transport import CeleryTransport
from confect_celery.store import (
    Delivery,
    NewRow,
    OwnTransaction,
    Pending,
    SharedTransaction,
    StateKind,
    Statements,
    new_id,
)
from confect_celery.store.dialects.base import Dialect
from confect_celery.store.dialects.postgresql import PostgresqlDialect
from confect_celery.store.inserts import Insert, Lot

__all__ = ["GOALS", "measure"]

_NAME: Final = "levers"
GOALS: Final[list[Goal]] = []
_TOGETHER: Final = 16
_MANY: Final = 4_000
_BATCHES: Final = 10
_TURNS: Final = 3


def measure(run: Run) -> None:
    """Each lever's ways by turns, the medians of some turns a round; the gain is that of the turns."""
    count = max((run.count or run.size(300, 1500)) // _TURNS, _TOGETHER)
    with run.shop() as shop:
        bench = _Bench(run, shop, count)
        levers = [
            bench.round_trips,
            bench.prepared,
            bench.many,
            bench.messages,
            bench.mutations,
            bench.actions,
            bench.sleeping,
            bench.old_snapshot,
        ]
        run.contend({lever.__name__: lever for lever in levers})


@dataclass
class _Bench:
    run: Run
    shop: Shop
    count: int

    def __post_init__(self) -> None:
        self.store: Any = self.shop.confect.store
        self.database, self.rows = self.store.database, self.store.rows

    def compare(self, ways: dict[str, Callable[[], float]], unit: str = "/s") -> None:
        """The rate of each way, and what it is beside the first."""
        turns = [{line: way() for line, way in ways.items()} for _ in range(_TURNS)]
        first = next(iter(ways))
        for line in ways:
            self.run.sample(_NAME, line, unit, median(turn[line] for turn in turns))
            if line != first:
                gain = median(turn[line] / turn[first] for turn in turns)
                self.run.sample(_NAME, f"{line}: gain", "x", gain)

    def timed(self, work: Callable[[], object], count: int | None = None) -> float:
        with Stopwatch() as watch:
            work()
        return watch.rate(count or self.count)

    # -- rows

    def new(self, count: int, due: DateTime | None = None) -> list[NewRow]:
        now = DateTime.now()
        return [
            NewRow(new_id(now), "internal/bench/mutation", "mutation", {"n": n}, due or now, now, due or now)
            for n in range(count)
        ]

    def pending(self, count: int) -> list[Pending]:
        """Rows in the table that are due, as a worker reads them."""
        made = self.new(count)
        with self.database.transaction() as transaction:
            self.insert(transaction.connection, made)
        with self.database.autocommit() as connection:
            found = self.rows.load_many(connection, [row.id for row in made])
        return [found[row.id] for row in made]

    def insert(self, connection: sa.Connection, rows: Sequence[NewRow]) -> None:
        self.rows.insert(connection, rows, delivered_until={}, born=StateKind.PENDING)

    # -- the levers

    def round_trips(self) -> None:
        def inserts(transaction: Callable[[], AbstractContextManager[OwnTransaction]]) -> float:
            rows = self.new(self.count, DateTime.now() + Duration.days(1))

            def work() -> None:
                for row in rows:
                    with transaction() as begun:
                        self.insert(begun.connection, [row])

            return self.timed(work)

        self.compare(
            {
                "INSERT within BEGIN and COMMIT": lambda: inserts(self.database.transaction),
                "INSERT in AUTOCOMMIT": lambda: inserts(self.database.statement),
            }
        )

    def prepared(self) -> None:
        (row,) = self.pending(1)

        def reads(**arguments: Any) -> float:
            engine = sa.create_engine(self.database.url, connect_args=arguments, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                for _ in range(10):
                    self.rows.load(connection, row.id, 0)
                rate = self.timed(lambda: [self.rows.load(connection, row.id, 0) for _ in range(2 * self.count)])
            engine.dispose()
            return 2 * rate

        self.compare(
            {"row read, not prepared": lambda: reads(prepare_threshold=None), "row read, prepared": lambda: reads()}
        )

    def many(self) -> None:
        single = _MANY // 10

        def in_one_transaction(insert: Callable[[sa.Connection, list[NewRow]], object], count: int) -> float:
            rows = self.new(count, DateTime.now() + Duration.days(1))

            def work() -> None:
                with self.database.transaction() as transaction:
                    insert(transaction.connection, rows)

            return self.timed(work, count)

        def one_by_one(connection: sa.Connection, rows: list[NewRow]) -> None:
            for row in rows:
                self.insert(connection, [row])

        listed = Statements(self.store.table, _Lists(self.database.url))
        self.compare(
            {
                "many rows, an INSERT each": lambda: in_one_transaction(one_by_one, single),
                "many rows, insert(list)": lambda: in_one_transaction(
                    lambda connection, rows: listed.insert(
                        connection, rows, delivered_until={}, born=StateKind.PENDING
                    ),
                    _MANY,
                ),
                "many rows, COPY": lambda: in_one_transaction(self.insert, _MANY),
            }
        )
        self.made_meanwhile()

    def made_meanwhile(self) -> None:
        drafts, block = self.shop.confect.scheduler._desk.drafts, self.database.dialect.block
        action, model = self.shop.module.functions["action"], self.shop.module.N
        jobs = [(Duration.days(1), action, model(n=n)) for n in range(_MANY)]

        def inserted(draft: Callable[..., Sequence[NewRow]]) -> float:
            def work() -> None:
                with self.database.transaction() as transaction:
                    self.insert(transaction.connection, draft(jobs, DateTime.now(), None))

            return self.timed(work, _MANY)

        self.compare(
            {
                "many jobs, their rows made before": lambda: inserted(lambda *call: drafts.rows(*call)[0]),
                "many jobs, their rows made while the server takes others": lambda: inserted(
                    lambda *call: drafts.rows_on_demand(*call, block)
                ),
            }
        )

    def messages(self) -> None:
        app, due = self.shop.app, DateTime.now() + Duration.days(1)
        settings = self.shop.confect.settings
        transport = CeleryTransport(app, settings)
        batches = BatchTransport(app, settings, transport)
        name = self.shop.module.functions["action"].name
        deliveries = [Delivery(new_id(due), name, "action", {"n": n}, due, 0, {}, None) for n in range(self.count)]
        eta = due.to_utc()

        def full() -> None:
            for each in deliveries:
                app.send_task(name, kwargs=each.args, task_id=each.id, eta=eta)

        def ours() -> None:
            for each in deliveries:
                transport.publish(each)

        def together() -> None:
            for _ in range(_BATCHES):  # of few rows there are few messages
                for each in batches.bundle(deliveries, 1):
                    batches.publish(each)

        self.compare(
            {
                "row published, app.send_task": lambda: self.timed(full),
                "row published, its own message": lambda: self.timed(ours),
                f"row published, {settings.batch} in a message": lambda: self.timed(together, _BATCHES * self.count),
            }
        )

    def mutations(self) -> None:
        def alone(statements: Statements) -> float:
            rows = self.pending(self.count)

            def work() -> None:
                for row in rows:
                    with self.database.transaction() as transaction:
                        connection = transaction.connection
                        assert statements.load_locked(connection, row.id, 0)
                        assert statements.succeed_pending(connection, row.id, 0, DateTime.now(), may_commit=True)

            rate = self.timed(work)
            self.ended(rows)
            return rate

        def shared() -> float:
            rows = self.pending(self.count)

            def work() -> None:
                for at in range(0, len(rows), _TOGETHER):
                    together = SharedTransaction(self.database, self.rows, relaxed=False)
                    for row in rows[at : at + _TOGETHER]:
                        part = together.enter(row)
                        assert part is not None and together.stands(part, None)
                    together.commit(DateTime.now())

            rate = self.timed(work)
            self.ended(rows)
            return rate

        cursors = Statements(self.store.table, _Cursors(self.database.url))
        self.compare(
            {
                "mutation, four round trips by the driver's cursors": lambda: alone(cursors),
                "mutation, two round trips through libpq": lambda: alone(self.rows),
                f"mutation, {_TOGETHER} in one transaction": shared,
            }
        )

    def actions(self) -> None:
        lease, rows = DateTime.now() + Duration.hours(1), self.rows

        def run(claim_next: Callable[[sa.Connection, Pending | None, Pending], None], held: bool = False) -> float:
            waiting = self.pending(self.count)

            def work() -> None:
                before: Pending | None = None
                for at, row in enumerate(waiting):
                    if held and at % _TOGETHER == 0:
                        with self.database.autocommit() as connection:
                            assert rows.hold(connection, waiting[at : at + _TOGETHER], lease)
                    with self.database.autocommit() as connection:
                        claim_next(connection, before, row)
                    before = row

            return self.timed(work)

        def two(connection: sa.Connection, before: Pending | None, row: Pending, rows: Statements = self.rows) -> None:
            if before is not None:
                assert rows.succeed_running(connection, before.id, 1, DateTime.now())
            assert rows.start(connection, row.id, 0, lease)

        def one(connection: sa.Connection, before: Pending | None, row: Pending) -> None:
            if before is None:
                return two(connection, before, row)
            done = rows.succeed_and_start(connection, before.id, 1, DateTime.now(), row.id, 0, lease)
            assert done == (True, True)
            return None

        def begin(connection: sa.Connection, before: Pending | None, row: Pending) -> None:
            if before is None:
                assert rows.begin(connection, row.id, 1, lease)
                return
            done = rows.succeed_and_begin(connection, before.id, 2, DateTime.now(), row.id, 1, lease)
            assert done == (True, True)

        by_cursors = partial(two, rows=Statements(self.store.table, _Cursors(self.database.url)))
        self.compare(
            {
                "action, its end and the next one's claim: two commits, by cursors": lambda: run(by_cursors),
                "action, its end and the next one's claim: two commits": lambda: run(two),
                "action, its end and the next one's claim: one commit": lambda: run(one),
                f"action, {_TOGETHER} held by one commit, then begun without a wait": lambda: run(begin, held=True),
            }
        )

    def sleeping(self) -> None:
        """How late a dispatcher that looks every 20 ms finds rows, and one that sleeps until the next is due."""
        for line, step in (("polling every 20 ms", 0.02), ("sleeping to the next due time", None)):
            start = DateTime.now() + Duration.millis(200)
            jobs = self.new(100)
            due = {row.id: start + Duration.millis(10 * n) for n, row in enumerate(jobs)}
            later = [NewRow(r.id, r.name, r.kind, r.args, due[r.id], r.creation_time, due[r.id]) for r in jobs]
            with self.database.transaction() as transaction:
                transaction.connection.execute(sa.delete(self.store.table))
                self.insert(transaction.connection, later)
            found: dict[str, float] = {}
            looks = 0
            while len(found) < len(jobs):
                now = DateTime.now()
                with self.database.transaction() as transaction:
                    taken = self.rows.claim_due(
                        transaction.connection, now=now, ahead=now, redelivery=Duration.hours(1), batch=500
                    )
                at, looks = DateTime.now(), looks + 1
                found |= {each.id: (at - due[each.id]).total_seconds() * 1000 for each in taken}
                if step is None and len(found) < len(jobs):
                    with self.database.autocommit() as connection:
                        head = self.rows.oldest_due(connection, now=now, ahead=now + Duration.seconds(2))
                    looks += 1
                    time.sleep(max(0.0, ((head or now) - DateTime.now()).total_seconds()))
                elif step is not None:
                    time.sleep(step)
            for share in (50, 99):
                self.run.sample(_NAME, f"{line}, p{share}", "ms late", percentile(list(found.values()), share / 100))
            self.run.sample(_NAME, f"{line}, statements", "a second", looks / 1.2)

    def old_snapshot(self) -> None:
        """A look for due rows while somebody holds a snapshot that was taken before 20,000 rows ended."""
        engine = self.database.engine
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as old:
            old.exec_driver_sql("SELECT 1 FROM _scheduled_functions LIMIT 1").all()
            fill.ended(self.store, 20_000)
            since = DateTime.now()

            def look(floor: DateTime | None) -> float:
                with self.database.autocommit() as connection:
                    now = DateTime.now()
                    bounds = {"now": now, "ahead": now + Duration.seconds(2), "since": floor}
                    return self.timed(lambda: [self.rows.oldest_due(connection, **bounds) for _ in range(50)], 50)

            self.compare(
                {
                    "look under an old snapshot, without a bound": lambda: look(None),
                    "look under an old snapshot, with a bound": lambda: look(since),
                }
            )
        with self.database.transaction() as transaction:
            transaction.connection.execute(sa.delete(self.store.table))

    def ended(self, rows: list[Pending]) -> None:
        with self.database.autocommit() as connection:
            left = self.rows.count_pending(connection, [row.id for row in rows])
        assert left == 0, f"{left} rows are pending still"


class _Lists(PostgresqlDialect):
    """PostgreSQL without COPY."""

    def insert_many(self, connection: sa.Connection, insert: Insert, blocks: Iterable[Sequence[Lot]]) -> None:
        Dialect.insert_many(self, connection, insert, blocks)


class _Cursors(PostgresqlDialect):
    """PostgreSQL with each statement by the driver's cursor, as SQLAlchemy executes it."""

    execute, execute_first, execute_last = Dialect.execute, Dialect.execute_first, Dialect.execute_last
