"""Many rows at once, made by the database itself: what our own calls would have written, in a fraction of the time."""

from __future__ import annotations

from bench.contenders import Shop

__all__ = ["pending"]

_ROWS = """
INSERT INTO _scheduled_functions (id, name, kind, args, scheduled_time, creation_time, state, deliveries, losses,
                                  next_at, attempt, options)
SELECT md5(n::text)::uuid::text, CASE n % 3 WHEN 0 THEN 'internal/bench/action' WHEN 1 THEN 'internal/bench/mutation'
       ELSE 'bench.plain' END, CASE n % 3 WHEN 0 THEN 'action' WHEN 1 THEN 'mutation' ELSE 'task' END,
       jsonb_build_object('n', n), due, now(), 'pending', 0, 0, due, 0, {options}
FROM (SELECT n, now() + interval '1 day' + n * interval '1 second' AS due FROM generate_series(1, {count}) AS n) AS rows
"""


def pending(shop: Shop, count: int) -> None:
    """So many rows due from tomorrow on, vacuumed; PostgreSQL only."""
    if not count:
        return
    engine = shop.confect.store.database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(_ROWS.format(count=int(count), options="'{}'::jsonb"))
        connection.exec_driver_sql("VACUUM ANALYZE _scheduled_functions")
