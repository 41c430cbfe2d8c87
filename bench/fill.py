"""Many rows at once, made by the database itself: what our own calls would have written, in a fraction of the time."""

from __future__ import annotations

from confect_celery.store import Store

__all__ = ["ended", "pending"]

_ROWS = """
INSERT INTO _scheduled_functions (id, name, kind, args, scheduled_time, creation_time, state, deliveries, losses,
                                  next_at, attempt, options)
SELECT md5(n::text)::uuid::text,
       CASE mod(n, 3) WHEN 0 THEN 'internal/bench/action' WHEN 1 THEN 'internal/bench/mutation'
       ELSE 'bench.plain' END,
       CASE mod(n, 3) WHEN 0 THEN 'action' WHEN 1 THEN 'mutation' ELSE 'task' END,
       jsonb_build_object('n', n), due, now(), 'pending', 0, 0, due, 0, {options}
FROM (SELECT n, now() + interval '1 day' + n * interval '1 second' AS due FROM generate_series(1, {count}) AS n) AS rows
"""


def pending(store: Store, count: int) -> None:
    """So many rows due from tomorrow on, vacuumed; PostgreSQL only."""
    if not count:
        return
    with store.database.autocommit() as connection:
        connection.exec_driver_sql(_ROWS.format(count=int(count), options="'{}'::jsonb"))
        connection.exec_driver_sql("VACUUM ANALYZE _scheduled_functions")


def ended(store: Store, count: int) -> None:
    """So many rows that were due in the last minute, and have succeeded since: their index entries are dead."""
    engine = store.database.engine
    due = _ROWS.replace("interval '1 day' + n * interval '1 second'", "interval '-61 s' + n * interval '0.5 ms'")
    with engine.begin() as connection:
        connection.exec_driver_sql(due.format(count=int(count), options="'{}'::jsonb").replace("md5(n", "md5('e' || n"))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE _scheduled_functions SET state = 'success', completed_time = now(), next_at = NULL"
            " WHERE state = 'pending' AND next_at < now()"
        )
